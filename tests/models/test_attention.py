"""Both executors against a dense mask, built here from the visibility rule token by token."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from devices import NEAR, on_cuda
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from rayramid.models import flex
from rayramid.models.attention import AttentionPlan, attend, plan_attention
from rayramid.models.history import Segment, needed_copies, sees, sees_official

LEVELS = 3
RULES: dict[str, Callable[[Segment, Segment], bool]] = {
    "shared": partial(sees, levels=LEVELS),
    "bounded": partial(sees, levels=LEVELS, history_units=1),
    "official": sees_official,
    "own_text": partial(sees_official, own_text=True),
    "bidirectional": partial(sees_official, causal=False),
}


def clip_segments(clip: int, words: int, unit: int, side: int) -> list[Segment]:
    copies = [
        Segment(clip, "context", past, level, (1, side >> level, side >> level), start=past)
        for past, level in needed_copies(unit, 1, LEVELS)
    ]
    targets = [
        Segment(clip, "target", unit, level, (1, side >> level, side >> level), start=unit) for level in range(LEVELS)
    ]
    return [Segment(clip, "text", 0, 0, (words, 1, 1)), *copies, *targets]


SEGMENTS = [
    *clip_segments(0, 5, 2, 8),
    *clip_segments(1, 7, 0, 4),
    *clip_segments(2, 4, 2, 8),
    *clip_segments(3, 1, 1, 4),
]


def dense(q: Tensor, k: Tensor, v: Tensor, queries: Sequence[Segment], keys: Sequence[Segment], rule: object) -> Tensor:
    """The oracle: a T x S mask, softmax written out."""
    mask = torch.tensor(
        [
            [rule(query, key) for key in keys for _ in range(key.length)]  # type: ignore[operator]
            for query in queries
            for _ in range(query.length)
        ]
    )
    scores = torch.einsum("tnh,snh->nts", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("nts,snh->tnh", scores.masked_fill(~mask, -torch.inf).softmax(-1), v)


def draw(plan: AttentionPlan, cached: int = 0, size: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    tokens = sum(plan.lengths)
    shapes = (tokens, cached + tokens, cached + tokens)
    q, k, v = (torch.randn(length, 2, size, generator=generator, dtype=torch.float64) for length in shapes)
    return q, k, v


@pytest.mark.parametrize("rule", RULES)
def test_sdpa_equals_the_dense_mask_forward_and_backward(rule: str) -> None:
    plan = plan_attention(SEGMENTS, [], RULES[rule])
    ordered = [SEGMENTS[index] for index in plan.order]
    inputs = [x.requires_grad_() for x in draw(plan)]
    ours, oracle = attend(*inputs, plan), dense(*inputs, ordered, ordered, RULES[rule])
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)
    upstream = torch.randn_like(oracle)
    for mine, theirs in zip(
        torch.autograd.grad(ours, inputs, upstream), torch.autograd.grad(oracle, inputs, upstream), strict=True
    ):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("executor", ["sdpa", "flex"])
def test_cached_keys_lie_before_the_packs_own(executor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flex, "compiled", lambda device: flex_attention)
    cached = [segment for segment in SEGMENTS if segment.kind != "target"]
    queries = [segment for segment in SEGMENTS if segment.kind == "target"]
    plan = plan_attention(queries, cached, RULES["shared"], executor=executor)  # type: ignore[arg-type]
    ordered = [queries[index] for index in plan.order]
    lengths = [segment.length for segment in cached]
    q, k, v = draw(plan, cached=sum(lengths))
    own = sum(plan.lengths)
    past = (k[:-own].split(lengths), v[:-own].split(lengths))
    oracle = dense(q, k, v, ordered, [*cached, *ordered], RULES["shared"])
    with torch.no_grad():
        ours = attend(q, k[-own:], v[-own:], plan, past)
    torch.testing.assert_close(ours, oracle, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("rule", RULES)
def test_flex_equals_the_dense_mask_and_its_blocks_are_those_of_the_token_mask(
    rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flex, "compiled", lambda device: flex_attention)
    monkeypatch.setattr(flex, "BLOCK", 16)
    plan = plan_attention(SEGMENTS, [], RULES[rule], executor="flex")
    ordered = [SEGMENTS[index] for index in plan.order]
    q, k, v = draw(plan)
    with torch.no_grad():
        ours = attend(q, k, v, plan)
    torch.testing.assert_close(ours, dense(q, k, v, ordered, ordered, RULES[rule]), rtol=0, atol=1e-12)

    assert plan.flex is not None
    mask = plan.flex.mask
    reference = create_block_mask(mask.mask_mod, None, None, len(q), len(q), device="cpu", BLOCK_SIZE=16)
    for counts, numbers, other_counts, other_numbers in (
        (mask.kv_num_blocks, mask.kv_indices, reference.kv_num_blocks, reference.kv_indices),
        (mask.full_kv_num_blocks, mask.full_kv_indices, reference.full_kv_num_blocks, reference.full_kv_indices),
    ):
        assert torch.equal(counts, other_counts)
        for row, count in enumerate(counts[0, 0].tolist()):
            assert sorted(numbers[0, 0, row, :count].tolist()) == sorted(other_numbers[0, 0, row, :count].tolist())


SLOW_ON_CPU = pytest.param("cpu", marks=[pytest.mark.slow, pytest.mark.timeout(1200)])


@pytest.mark.parametrize("device", [SLOW_ON_CPU, on_cuda()])
@pytest.mark.parametrize("rule", RULES)
def test_compiled_flex_equals_sdpa(rule: str, device: str) -> None:
    plans = [
        plan_attention(SEGMENTS, [], RULES[rule], executor=executor, device=device) for executor in ("sdpa", "flex")
    ]
    inputs = [x.to(device, torch.float32).requires_grad_() for x in draw(plans[0], size=16)]
    # flex_attention has no backward on CPUs.
    with torch.set_grad_enabled(device == "cuda"):
        by_sdpa, by_flex = (attend(*inputs, plan) for plan in plans)
    near = NEAR if device == "cuda" else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(by_flex, by_sdpa, **near)
    if device == "cuda":
        upstream = torch.randn_like(by_sdpa)
        for mine, theirs in zip(
            *(torch.autograd.grad(out, inputs, upstream) for out in (by_flex, by_sdpa)), strict=True
        ):
            torch.testing.assert_close(mine, theirs, **near)


def test_every_query_token_is_in_exactly_one_group_and_groups_follow_token_order() -> None:
    for rule in RULES.values():
        plan = plan_attention(SEGMENTS, [], rule)
        assert sum(group.length * len(group.keys) for group in plan.groups) == sum(plan.lengths)
        assert [SEGMENTS[index].kind == "text" for index in plan.order].index(False) == plan.texts


def test_rows_of_one_length_share_a_call_and_only_unequal_ones_are_masked() -> None:
    plan = plan_attention([*clip_segments(0, 5, 0, 8), *clip_segments(1, 5, 0, 8)], [], RULES["shared"])
    assert [(group.length, len(group.keys), group.mask is None) for group in plan.groups] == [
        (5, 2, True),
        (4, 2, True),
        (16, 2, True),
        (64, 2, True),
    ]
    plan = plan_attention([*clip_segments(0, 4, 0, 8), *clip_segments(1, 6, 0, 8)], [], RULES["shared"])
    (last,) = (group for group in plan.groups if group.length == 64)
    assert last.key_lengths == (68, 70)
    assert last.mask is not None
    assert last.mask.sum(-1).flatten().tolist() == [68, 70]


def test_bidirectional_frames_of_a_clip_are_one_row() -> None:
    frames = [Segment(0, "target", 0, 0, (1, 2, 2), start=frame) for frame in range(5)]
    plan = plan_attention(frames, [], RULES["bidirectional"])
    assert [(group.length, len(group.keys)) for group in plan.groups] == [(20, 1)]

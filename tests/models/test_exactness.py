"""Shared context is exact: one packed sequence is the same as a forward per target, a cache the same as recomputing."""

import itertools

import pytest
import torch
from torch import Tensor

from rayramid.models.cache import Cache
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.history import context_of, needed_copies
from rayramid.models.objective import TrainingClip, objective, training_pack
from rayramid.models.pyramid import Pyramid
from rayramid.models.sequence import Clip, Pack, Piece, Prompt, assemble

EXACT = 1e-10


def build(levels: int, frames_per_unit: int, history_units: int | None, *, single_blocks: int = 1) -> DiT:
    config = DiTConfig(
        heads=2,
        head_dim=8,
        double_blocks=1 if single_blocks else 2,
        single_blocks=single_blocks,
        text_dim=6,
        pooled_dim=5,
        rope_axes=(4, 2, 2) if single_blocks else (8, 0, 0),
        position_table=0 if single_blocks else 16,
        position_base=0 if single_blocks else 8,
        latent_channels=3,
        levels=levels,
        frames_per_unit=frames_per_unit,
        history_units=history_units,
    )
    dit = DiT(config).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return dit


def training_clips(frames_per_unit: int) -> list[TrainingClip]:
    """A video and a window late in it, a smaller video, and an image alone."""
    generator = torch.Generator().manual_seed(2)

    def clip(key: int, units: int, height: int, width: int, words: int, first: int, window: int) -> TrainingClip:
        latent = torch.randn(3, 1 + (units - 1) * frames_per_unit, height, width, generator=generator)
        text, pooled = torch.randn(words, 6, generator=generator), torch.randn(5, generator=generator)
        return TrainingClip(latent.double(), text.double(), pooled.double(), first, window, key)

    return [clip(0, 4, 8, 16, 3, 1, 3), clip(1, 3, 8, 8, 5, 2, 1), clip(2, 1, 16, 8, 4, 0, 1)]


def separate(pack: Pack, target: int, config: DiTConfig) -> Pack:
    """The clip's text, this target, and the copies that it needs, directly or not; nothing else."""
    (index,) = pack.targets[target]
    chosen = pack.segments[index]
    frontier = context_of(chosen.unit, chosen.level, config.levels, target=True, history_units=config.history_units)
    needed: set[tuple[int, int]] = set()
    while frontier:
        copy = frontier.pop()
        needed.add(copy)
        frontier += context_of(*copy, config.levels, target=False, history_units=config.history_units)
    text: Tensor | None = None
    pieces = []
    for number, (segment, content) in enumerate(zip(pack.segments, pack.contents, strict=True)):
        if segment.clip != chosen.clip:
            continue
        if segment.kind == "text":
            text = content
        elif number == index or (segment.kind == "context" and (segment.unit, segment.level) in needed):
            kind = "target" if number == index else "context"
            pieces.append(Piece(kind, segment.unit, segment.level, content, segment.timestep, segment.start))
    pooled = pack.pooled_QP[pack.prompt_of[index]]
    return assemble([Clip((Prompt(text, pooled),), tuple(pieces))], config)


@pytest.mark.parametrize(
    ("levels", "frames_per_unit", "history_units", "single_blocks"),
    [*itertools.product([1, 2, 3], [1, 2], [None, 1], [1]), (2, 1, None, 0), (3, 2, 1, 0)],
)
def test_one_pack_equals_a_forward_per_target(
    levels: int, frames_per_unit: int, history_units: int | None, single_blocks: int
) -> None:
    dit = build(levels, frames_per_unit, history_units, single_blocks=single_blocks)
    clips = training_clips(frames_per_unit)
    pack, targets = training_pack(clips, dit.config, Pyramid(levels=levels), seed=0)
    packed = dit(pack)
    objective(packed, targets).total().backward()
    together = {name: parameter.grad for name, parameter in dit.named_parameters()}
    dit.zero_grad()

    assert len(packed) == len(pack.targets) == levels * (3 + 1 + 1)
    for number, answer in enumerate(targets.velocities):
        (alone,) = dit(separate(pack, number, dit.config))
        (alone - answer).square().mean().backward()
        assert alone.std() > 0.1
        torch.testing.assert_close(packed[number], alone, rtol=0, atol=EXACT)
    for name, parameter in dit.named_parameters():
        assert parameter.grad is not None, name
        assert together[name] is not None, name
        torch.testing.assert_close(together[name], parameter.grad, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("history_units", [None, 1, 2])
@pytest.mark.parametrize(("levels", "frames_per_unit"), [(1, 1), (2, 2), (3, 1), (3, 2)])
def test_cached_and_evicted_context_equals_recomputed_context(
    levels: int, frames_per_unit: int, history_units: int | None
) -> None:
    dit = build(levels, frames_per_unit, history_units)
    generator = torch.Generator().manual_seed(3)
    text, pooled = torch.randn(4, 6, generator=generator).double(), torch.randn(5, generator=generator).double()

    def piece(kind: str, unit: int, level: int) -> Piece:
        frames, start = (1, 0) if unit == 0 else (frames_per_unit, 1 + (unit - 1) * frames_per_unit)
        seeded = torch.Generator().manual_seed(100 * unit + 10 * level + len(kind))
        latent = torch.randn(3, frames, 8 >> level, 16 >> level, generator=seeded).double()
        return Piece(kind, unit, level, latent, 500.0 if kind == "target" else 0.0, start)  # type: ignore[arg-type]

    cache = Cache(levels, history_units)
    with torch.no_grad():
        for unit in range(6):
            cache.evict(unit)
            fresh = [piece("context", unit - 1, level) for level in range(levels)] if unit else []
            for level in reversed(range(levels)):
                target = piece("target", unit, level)
                prompt = Prompt(None if cache.segments else text, pooled)
                (cached,) = dit(assemble([Clip((prompt,), (*fresh, target))], dit.config), [cache])
                fresh = []
                history = [piece("context", *copy) for copy in needed_copies(unit, 1, levels)]
                (recomputed,) = dit(assemble([Clip((Prompt(text, pooled),), (*history, target))], dit.config))
                torch.testing.assert_close(cached, recomputed, rtol=0, atol=EXACT)
    # One text; of the coarsest copies all, or those in reach; of finer ones the newest only.
    reach = 5 if history_units is None else min(5, history_units + 1)
    finer = sum(min(level + 1, reach) for level in range(levels - 1))
    assert len(cache.segments) == 1 + reach + finer


def test_sessions_in_company_equal_sessions_alone() -> None:
    dit = build(3, 1, None)
    prompts = [Prompt(torch.full((words, 6), 0.1).double(), torch.ones(5).double()) for words in (2, 7)]
    sizes = [(8, 16), (16, 8)]
    clips = [
        Clip((prompt,), (Piece("target", 0, level, torch.ones(3, 1, h >> level, w >> level).double(), 300.0, 0),))
        for prompt, (h, w), level in zip(prompts, sizes, (0, 2), strict=True)
    ]
    caches = [Cache(3), Cache(3)]
    with torch.no_grad():
        company = dit(assemble(clips, dit.config), caches)
        alone = [dit(assemble([clip], dit.config))[0] for clip in clips]
    for together, single in zip(company, alone, strict=True):
        torch.testing.assert_close(together, single, rtol=0, atol=EXACT)
    assert [cache.segments[0].length for cache in caches] == [2, 7]


def test_units_after_a_change_of_prompt_see_the_new_text_and_the_old_history() -> None:
    dit = build(2, 1, None)
    generator = torch.Generator().manual_seed(4)
    prompts = [
        Prompt(torch.randn(3, 6, generator=generator).double(), torch.randn(5, generator=generator).double(), first)
        for first in (0, 1)
    ]
    history = [
        Piece("context", 0, level, torch.randn(3, 1, 8 >> level, 8 >> level, generator=generator).double(), 0.0, 0)
        for level in (0, 1)
    ]
    noisy = torch.randn(3, 1, 8, 8, generator=generator).double()
    old, new = (Piece("target", 1, 0, noisy, 500.0, 1, prompt) for prompt in (0, 1))

    def run(prompts: list[Prompt], pieces: list[Piece], cache: Cache | None = None) -> Tensor:
        with torch.no_grad():
            return dit(assemble([Clip(tuple(prompts), tuple(pieces))], dit.config), [cache])[0]

    changed = run(prompts, [*history, new])
    assert (changed - run(prompts, [*history, old])).abs().max() > 0.01
    cache = Cache(2)
    dit(assemble([Clip((prompts[0],), tuple(history))], dit.config), [cache])
    cached = run([Prompt(None, prompts[0].pooled_P), prompts[1]], [new], cache)
    torch.testing.assert_close(cached, changed, rtol=0, atol=EXACT)


def test_official_rows_equal_the_same_rows_alone() -> None:
    for causal, frames_per_unit in itertools.product((True, False), (1, 2)):
        shared = build(3, frames_per_unit, None)
        config = DiTConfig(**{**vars(shared.config), "conditioning": "official", "causal": causal})
        dit = DiT(config).double()
        dit.load_state_dict({k: v for k, v in shared.state_dict().items() if not k.startswith("role_")})
        clips = training_clips(frames_per_unit)
        pack, targets = training_pack(clips, config, Pyramid(), seed=0)
        with torch.no_grad():
            packed = dit(pack)
            alone = [v for clip in clips for v in dit(training_pack([clip], config, Pyramid(), seed=0)[0])]
        assert len(packed) == len(targets.velocities) == 15
        for together, single, answer in zip(packed, alone, targets.velocities, strict=True):
            assert together.shape == answer.shape
            torch.testing.assert_close(together, single, rtol=0, atol=EXACT)

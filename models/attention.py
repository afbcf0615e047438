"""One attention over a visibility table, and its executors.

Shape letters: T query tokens, S key tokens, N heads, H head size.

A plan says, segment by segment, who sees whom. `sdpa` gathers the visible keys of each group of queries; it runs and
trains everywhere. `flex` gives the same table to `flex_attention` as blocks, for CUDA. Neither builds a T x S mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from rayramid.models.history import Segment
from rayramid.models.precision import without_autocast

if TYPE_CHECKING:
    from rayramid.models.flex import FlexPlan

Executor = Literal["sdpa", "flex"]

# Queries of one length share a call when their key counts differ by at most this factor; the shorter are padded.
PADDING = 1.25


@dataclass(frozen=True)
class Group:
    """`len(keys)` rows of `length` query tokens, one behind the other; `keys[row]` numbers the key segments it sees.

    `mask` [rows, 1, 1, longest] marks real keys when rows see different numbers of tokens.
    """

    length: int
    keys: tuple[tuple[int, ...], ...]
    key_lengths: tuple[int, ...]
    mask: Tensor | None


@dataclass(frozen=True)
class AttentionPlan:
    """Who sees whom. Query segments are in token order; key segments are the cached ones, then the queries.

    `order[i]` is the caller's number of the i-th query segment, `visible[i]` numbers the key segments it sees; the
    first `texts` queries are text. `groups` is for sdpa, `flex` for flex.
    """

    order: tuple[int, ...]
    lengths: tuple[int, ...]
    visible: tuple[tuple[int, ...], ...]
    texts: int
    groups: tuple[Group, ...]
    flex: "FlexPlan | None"


def plan_attention(
    queries: Sequence[Segment],
    cached: Sequence[Segment],
    sees: Callable[[Segment, Segment], bool],
    *,
    executor: Executor = "sdpa",
    device: torch.device | str = "cpu",
) -> AttentionPlan:
    """Order the queries, text first and then by length, so that every group is one contiguous slice.

    `cached` are key segments that lie before the queries' own keys.
    """
    keys = [*cached, *queries]
    of_clip: dict[int, list[int]] = {}
    for number, key in enumerate(keys):
        of_clip.setdefault(key.clip, []).append(number)
    seen = [[number for number in of_clip[query.clip] if sees(query, keys[number])] for query in queries]
    tokens = [sum(keys[number].length for number in numbers) for numbers in seen]

    def place(index: int) -> tuple[bool, int, int, int, int]:
        query = queries[index]
        return (query.kind != "text", query.length, tokens[index], query.clip, query.start)

    order = sorted(range(len(queries)), key=place)
    renumbered = {len(cached) + index: len(cached) + position for position, index in enumerate(order)}
    visible = tuple(tuple(sorted(renumbered.get(number, number) for number in seen[index])) for index in order)
    lengths = tuple(queries[index].length for index in order)
    key_lengths = (*(segment.length for segment in cached), *lengths)
    flex = None
    if executor == "flex":
        # Imported only where used: it takes seconds.
        from rayramid.models.flex import flex_plan

        flex = flex_plan(lengths, key_lengths, visible, device)
    return AttentionPlan(
        order=tuple(order),
        lengths=lengths,
        visible=visible,
        texts=sum(query.kind == "text" for query in queries),
        groups=_groups(lengths, key_lengths, visible, device) if executor == "sdpa" else (),
        flex=flex,
    )


def attention_dtype(exact: torch.dtype, values: Tensor) -> torch.dtype:
    """The dtype of attention and cache, for `exact` queries and `values` as their linear layer gave them."""
    # CPUs multiply small bf16 matrices slower than fp32 ones; elsewhere the values' dtype is the fast one.
    return exact if values.device.type == "cpu" else values.dtype


def attend(
    q_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    plan: AttentionPlan,
    past: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ()),
) -> Tensor:
    """Attention of the plan's queries, [T, N, H]; `past` holds keys and values of its cached segments.

    All tensors have one dtype (`attention_dtype`).
    """
    with without_autocast(q_TNH.device):
        if plan.flex is not None:
            return plan.flex.attend(q_TNH, torch.cat([*past[0], k_TNH]), torch.cat([*past[1], v_TNH]))
        keys, values = [*past[0], *k_TNH.split(plan.lengths)], [*past[1], *v_TNH.split(plan.lengths)]
        return _attend_sdpa(q_TNH, keys, values, plan)


def _attend_sdpa(q_TNH: Tensor, keys: list[Tensor], values: list[Tensor], plan: AttentionPlan) -> Tensor:
    # One split into segments, not a slice per use: each slice's backward would fill a zero tensor of full size.
    sizes = [group.length * len(group.keys) for group in plan.groups]
    out = []
    for group, part_TNH in zip(plan.groups, q_TNH.split(sizes), strict=True):
        q_RNTH = part_TNH.unflatten(0, (-1, group.length)).transpose(1, 2)
        k_RNSH, v_RNSH = (_gather(parts, group).transpose(1, 2) for parts in (keys, values))
        o_RNTH = scaled_dot_product_attention(q_RNTH, k_RNSH, v_RNSH, attn_mask=group.mask)
        out.append(o_RNTH.transpose(1, 2).flatten(0, 1))
    return torch.cat(out)


def _gather(parts: list[Tensor], group: Group) -> Tensor:
    """What each row of the group sees, padded with zeros to the longest: [rows, S, N, H]."""
    longest = max(group.key_lengths)
    pieces = []
    for numbers, length in zip(group.keys, group.key_lengths, strict=True):
        pieces += [parts[number] for number in numbers]
        if length < longest:
            pieces.append(parts[0].new_zeros(longest - length, *parts[0].shape[1:]))
    return torch.cat(pieces).unflatten(0, (-1, longest))


def _groups(
    lengths: Sequence[int],
    key_lengths: Sequence[int],
    visible: Sequence[tuple[int, ...]],
    device: torch.device | str,
) -> tuple[Group, ...]:
    # Neighbours that see the same are one row.
    rows = [
        (numbers, sum(length for _, length in run))
        for numbers, run in groupby(zip(visible, lengths, strict=True), key=lambda pair: pair[0])
    ]
    groups: list[list[tuple[tuple[int, ...], int, int]]] = []
    for numbers, length in rows:
        seen = sum(key_lengths[number] for number in numbers)
        if groups and groups[-1][0][1] == length and groups[-1][0][2] <= seen <= PADDING * groups[-1][0][2]:
            groups[-1].append((numbers, length, seen))
        else:
            groups.append([(numbers, length, seen)])
    return tuple(_group(rows, device) for rows in groups)


def _group(rows: list[tuple[tuple[int, ...], int, int]], device: torch.device | str) -> Group:
    key_lengths = tuple(seen for _, _, seen in rows)
    mask = None
    if min(key_lengths) < max(key_lengths):
        mask = torch.arange(max(key_lengths)) < torch.tensor(key_lengths)[:, None, None, None]
        mask = mask.to(device)
    return Group(rows[0][1], tuple(numbers for numbers, _, _ in rows), key_lengths, mask)

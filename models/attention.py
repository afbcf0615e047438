"""One attention over a visibility table, and its executors.

Shape letters: T query tokens, S key tokens, N heads, H head size.

A plan says, segment by segment, who sees whom. `sdpa` gathers the visible keys of each group of queries; it runs and
trains everywhere. `flex` gives the same table to `flex_attention` as blocks, for CUDA. Neither builds a T x S mask.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.nn.functional import scaled_dot_product_attention

from rayramid.models.history import Segment

Executor = Literal["sdpa", "flex"]

# Queries of one length share a call when their key counts differ by at most this factor; the shorter are padded.
PADDING = 1.25
BLOCK = 128

_compiled_flex = torch.compile(flex_attention, dynamic=True)


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
class FlexPlan:
    """The same for `flex`: the block mask, and the segment of each query token."""

    mask: BlockMask
    segment_T: Tensor


@dataclass(frozen=True)
class AttentionPlan:
    """Who sees whom. Query segments are in token order; key segments are the cached ones, then the queries.

    `order[i]` is the caller's number of the i-th query segment; `visible[i]` numbers the key segments it sees; the first
    `texts` queries are text. Exactly one of `groups` (sdpa) and `flex` is set.
    """

    order: tuple[int, ...]
    lengths: tuple[int, ...]
    visible: tuple[tuple[int, ...], ...]
    texts: int
    groups: tuple[Group, ...]
    flex: FlexPlan | None


def plan_attention(
    queries: Sequence[Segment],
    cached: Sequence[Segment],
    sees: Callable[[Segment, Segment], bool],
    *,
    executor: Executor = "sdpa",
    device: torch.device | str = "cpu",
) -> AttentionPlan:
    """Order the queries, text first and then by length, so that every group is one contiguous slice; list what they see.

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
    return AttentionPlan(
        order=tuple(order),
        lengths=lengths,
        visible=visible,
        texts=sum(query.kind == "text" for query in queries),
        groups=_groups(lengths, key_lengths, visible, device) if executor == "sdpa" else (),
        flex=_flex_plan(lengths, key_lengths, visible, device) if executor == "flex" else None,
    )


def attend(
    q_TNH: Tensor,
    k_TNH: Tensor,
    v_TNH: Tensor,
    plan: AttentionPlan,
    past: tuple[Sequence[Tensor], Sequence[Tensor]] = ((), ()),
) -> Tensor:
    """Attention of the plan's queries, [T, N, H]; `past` holds keys and values of its cached segments."""
    # CPUs multiply small bf16 matrices slower than fp32 ones; elsewhere the values' dtype is the fast one.
    dtype = torch.promote_types(q_TNH.dtype, torch.float32) if q_TNH.device.type == "cpu" else v_TNH.dtype
    q_TNH, k_TNH, v_TNH = q_TNH.to(dtype), k_TNH.to(dtype), v_TNH.to(dtype)
    with torch.autocast(q_TNH.device.type, enabled=False):
        if plan.flex is not None:
            k_SNH, v_SNH = (torch.cat([*before, own]) for before, own in zip(past, (k_TNH, v_TNH), strict=True))
            return _attend_flex(q_TNH, k_SNH, v_SNH, plan.flex)
        return _attend_sdpa(q_TNH, [*past[0], *k_TNH.split(plan.lengths)], [*past[1], *v_TNH.split(plan.lengths)], plan)


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


def _attend_flex(q_TNH: Tensor, k_SNH: Tensor, v_SNH: Tensor, plan: FlexPlan) -> Tensor:
    q_1NTH, k_1NSH, v_1NSH = (x.transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_SNH, v_SNH))
    # Inside a compiled region flex_attention is compiled with it.
    run = flex_attention if torch.compiler.is_compiling() else _compiled_flex
    return run(q_1NTH, k_1NSH, v_1NSH, block_mask=plan.mask).squeeze(0).transpose(0, 1)


def _flex_plan(
    lengths: Sequence[int],
    key_lengths: Sequence[int],
    visible: Sequence[tuple[int, ...]],
    device: torch.device | str,
) -> FlexPlan:
    """The block mask from segments alone: which blocks hold tokens of which segments, times who sees whom."""
    table_QK = torch.zeros(len(lengths), len(key_lengths), dtype=torch.bool)
    for row, numbers in enumerate(visible):
        table_QK[row, list(numbers)] = True
    query_T, key_S = _segment_of(lengths), _segment_of(key_lengths)
    inside_q, inside_k = _blocks(query_T, len(lengths)), _blocks(key_S, len(key_lengths))
    some = inside_q @ table_QK.float() @ inside_k.T > 0
    whole = some & ~(inside_q @ (~table_QK).float() @ inside_k.T > 0)
    for axis, tokens in ((0, len(query_T)), (1, len(key_S))):
        if tokens % BLOCK:
            whole.select(axis, -1).fill_(False)
    table_QK, query_T, key_S = table_QK.to(device), query_T.to(device), key_S.to(device)

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return table_QK[query_T[query], key_S[key]]

    mask = BlockMask.from_kv_blocks(
        *_ordered(some & ~whole, device),
        *_ordered(whole, device),
        BLOCK_SIZE=BLOCK,
        mask_mod=mask_mod,
        seq_lengths=(len(query_T), len(key_S)),
    )
    return FlexPlan(mask, query_T)


def _segment_of(lengths: Sequence[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def _blocks(segment_T: Tensor, segments: int) -> Tensor:
    """[blocks, segments]: 1 where a block of tokens holds some of a segment."""
    inside = torch.zeros(-(-len(segment_T) // BLOCK), segments)
    inside[torch.arange(len(segment_T)) // BLOCK, segment_T] = 1
    return inside


def _ordered(blocks_QK: Tensor, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Per row of blocks, how many are set, and their numbers, set ones first."""
    counts = blocks_QK.sum(1, dtype=torch.int32)
    numbers = torch.argsort(blocks_QK.int(), dim=1, descending=True, stable=True).int()
    return counts[None, None].to(device), numbers[None, None].to(device)

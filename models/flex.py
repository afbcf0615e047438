"""The flex executor: a visibility table as the blocks of `flex_attention`.

Shape letters: T query tokens, S key tokens, N heads, H head size; Q and K query and key segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

BLOCK = 128


@dataclass(frozen=True)
class FlexPlan:
    """The block mask of one plan, and the segment of each query token."""

    mask: BlockMask
    segment_T: Tensor

    def attend(self, q_TNH: Tensor, k_SNH: Tensor, v_SNH: Tensor) -> Tensor:
        """Attention of the plan's queries, [T, N, H]."""
        q_1NTH, k_1NSH, v_1NSH = (x.transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_SNH, v_SNH))
        if q_TNH.device.type == "cpu":
            # The CPU's template takes no views of tensors with other dimensions.
            q_1NTH, k_1NSH, v_1NSH = q_1NTH.contiguous(), k_1NSH.contiguous(), v_1NSH.contiguous()
        # Inside a compiled region it is compiled with its surroundings.
        run: Any = flex_attention if torch.compiler.is_compiling() else compiled(self.segment_T.device.type)
        return run(q_1NTH, k_1NSH, v_1NSH, block_mask=self.mask).squeeze(0).transpose(0, 1)


@cache
def compiled(device: str) -> Any:
    """`flex_attention` compiled once per process, for any sizes; the CPU's code generator knows fixed sizes only."""
    return torch.compile(flex_attention, dynamic=device != "cpu")


def flex_plan(
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

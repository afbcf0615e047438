"""Sequence parallelism (Ulysses): ranks share a pack's tokens everywhere but in attention, where they share its heads.

Shape letters: T tokens of the pack, P this rank's of them, N heads, M this rank's of them, H head size.

All ranks of a group are given the same pack and get the same velocities. Gradients are those of the sum of all ranks'
losses, so a loss that each of them computes counts once per rank.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed._functional_collectives import all_to_all_single_autograd

from rayramid.models.history import Segment


@dataclass(frozen=True)
class Split:
    """How the ranks of a group divide one pack: consecutive tokens and consecutive heads to each.

    Attributes:
        group: the ranks.
        rank: this one among them.
        tokens: how many each rank has.
        heads: how many each rank has.
    """

    group: dist.ProcessGroup
    rank: int
    tokens: tuple[int, ...]
    heads: tuple[int, ...]

    @classmethod
    def of(cls, group: dist.ProcessGroup, tokens: int, heads: int) -> "Split":
        """The most even one; ValueError for more ranks than heads."""
        ranks = dist.get_world_size(group)
        if ranks > heads:
            raise ValueError(f"{heads} heads cannot be split over {ranks} ranks")
        return cls(group, dist.get_rank(group), evenly(tokens, ranks), evenly(heads, ranks))

    def own(self, rank: int) -> slice:
        """The tokens of a rank."""
        start = sum(self.tokens[:rank])
        return slice(start, start + self.tokens[rank])

    def to_heads(self, x_P3NH: Tensor) -> Tensor:
        """Own tokens with all heads to all tokens with own heads, [T, 3, M, H]."""
        tokens, three, _, size = x_P3NH.shape
        heads = self.heads[self.rank]
        received = self._exchange(
            torch.cat([part.flatten() for part in x_P3NH.split(self.heads, dim=2)]),
            [tokens * three * theirs * size for theirs in self.heads],
            [theirs * three * heads * size for theirs in self.tokens],
        )
        return received.view(-1, three, heads, size)

    def to_tokens(self, x_TMH: Tensor) -> Tensor:
        """All tokens with own heads to own tokens with all heads, [P, N, H]."""
        _, heads, size = x_TMH.shape
        tokens = self.tokens[self.rank]
        sizes = [tokens * theirs * size for theirs in self.heads]
        received = self._exchange(x_TMH.flatten(), [theirs * heads * size for theirs in self.tokens], sizes)
        return torch.cat([part.view(tokens, -1, size) for part in received.split(sizes)], dim=1)

    def gather(self, x: Tensor, rows: Sequence[int]) -> Tensor:
        """The rows of all ranks, `rows` from each."""
        length = x.shape[1]
        received = self._exchange(x.flatten().repeat(len(rows)), [x.numel()] * len(rows), [n * length for n in rows])
        return received.view(-1, length)

    def _exchange(self, x: Tensor, sent: list[int], received: list[int]) -> Tensor:
        return all_to_all_single_autograd(x, received, sent, self.group)


@dataclass(frozen=True)
class Part:
    """The tokens of one segment that lie on a rank; `number` is the segment's place in the order."""

    number: int
    segment: Segment
    tokens: slice

    @property
    def length(self) -> int:
        """How many they are."""
        return self.tokens.stop - self.tokens.start


@dataclass(frozen=True)
class Tokens:
    """A pack's segments in the order of their tokens, and the parts of them that lie on this rank: text, then video."""

    segments: tuple[Segment, ...]
    text: tuple[Part, ...]
    video: tuple[Part, ...]
    split: Split | None

    @classmethod
    def of(cls, segments: Sequence[Segment], group: dist.ProcessGroup | None, heads: int) -> "Tokens":
        """All of the tokens, or, with a group, this rank's; ValueError as `Split.of`."""
        total = sum(segment.length for segment in segments)
        split = None if group is None else Split.of(group, total, heads)
        own = slice(0, total) if split is None else split.own(split.rank)
        mine = parts(segments, own)
        text = tuple(part for part in mine if part.segment.kind == "text")
        return cls(tuple(segments), text, tuple(mine[len(text) :]), split)

    @property
    def mine(self) -> tuple[Part, ...]:
        """All parts on this rank."""
        return self.text + self.video

    @property
    def own(self) -> slice:
        """Where this rank's tokens lie in the order."""
        return slice(None) if self.split is None else self.split.own(self.split.rank)

    def gather_targets(self, x: Tensor) -> Tensor:
        """A row for each target token, of all ranks, from a row for each on this one."""
        if self.split is None:
            return x
        ranks = [parts(self.segments, self.split.own(rank)) for rank in range(len(self.split.tokens))]
        return self.split.gather(x, [sum(p.length for p in mine if p.segment.kind == "target") for mine in ranks])


def parts(segments: Sequence[Segment], own: slice) -> list[Part]:
    """What of the segments, one behind the other, lies in `own`."""
    edges = pairwise(accumulate((segment.length for segment in segments), initial=0))
    cuts = [slice(max(own.start, start) - start, min(own.stop, stop) - start) for start, stop in edges]
    return [
        Part(number, segment, cut)
        for number, (segment, cut) in enumerate(zip(segments, cuts, strict=True))
        if cut.start < cut.stop
    ]


def evenly(total: int, ranks: int) -> tuple[int, ...]:
    """`total` in parts that differ by one at most."""
    return tuple(total * (rank + 1) // ranks - total * rank // ranks for rank in range(ranks))

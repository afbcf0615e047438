"""The K/V cache of one clip: keys and values of its text and finished context, per block."""

from collections.abc import Sequence

from torch import Tensor

from rayramid.models.history import Segment, last_use


class Cache:
    """Grows by whole segments as forwards append them; `evict` drops exactly what nothing will see again."""

    def __init__(self, levels: int, history_units: int | None = None) -> None:
        self.levels = levels
        self.history_units = history_units
        self._entries: list[tuple[Segment, list[tuple[Tensor, Tensor]]]] = []

    @property
    def segments(self) -> list[Segment]:
        """The cached segments, in the order of their arrival."""
        return [segment for segment, _ in self._entries]

    @property
    def bytes(self) -> int:
        """Memory held by keys and values."""
        return sum(tensor.nbytes for _, blocks in self._entries for pair in blocks for tensor in pair)

    def append(self, segment: Segment, blocks: Sequence[tuple[Tensor, Tensor]]) -> None:
        """Keep a segment's keys and values, each [length, heads, head size], block by block."""
        if any(tensor.shape[0] != segment.length for pair in blocks for tensor in pair):
            raise ValueError(f"keys and values must have the segment's {segment.length} tokens")
        # A slice would keep the whole pack's tensor alive.
        self._entries.append((segment, [(keys.clone(), values.clone()) for keys, values in blocks]))

    def past(self, block: int) -> tuple[list[Tensor], list[Tensor]]:
        """Keys and values of one block, a tensor per segment."""
        pairs = [blocks[block] for _, blocks in self._entries]
        return [keys for keys, _ in pairs], [values for _, values in pairs]

    def evict(self, unit: int) -> None:
        """When `unit` begins to be made: drop what neither it nor anything later sees.

        The copies of the unit before are computed in its first step, so what they see stays.
        """
        self._entries = [entry for entry in self._entries if self._needed(entry[0], unit)]

    def keep(self, segments: Sequence[Segment]) -> None:
        """Drop all but these."""
        self._entries = [entry for entry in self._entries if entry[0] in segments]

    def drop(self) -> None:
        """Forget everything."""
        self._entries = []

    def _needed(self, segment: Segment, unit: int) -> bool:
        if segment.kind == "text":
            later = (other for other in self.segments if other.kind == "text" and other.prompt > segment.prompt)
            return all(unit <= other.unit for other in later)
        last = last_use(segment.unit, segment.level, self.levels, self.history_units)
        return last is None or unit <= last

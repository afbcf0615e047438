"""One text's view of a video: what a denoising step adds to the pack for it, and the K/V of what was added before.

Dimension legend: C = latent channels, T = latents in time, H, W = rows and columns of a latent.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence

from torch import Tensor

from rayramid.models.cache import Cache
from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import context_of, needed_copies, unit_span
from rayramid.models.pyramid import down
from rayramid.models.sampling.request import EncodedText
from rayramid.models.sequence import Clip, Piece, Prompt


class Row:
    """The prompt's half of a session, or the negative text's.

    With `shared_context`, texts and clean copies ride in the pack of one step, and later steps find them in `cache`;
    with `official` conditioning, which has no exact cache, every step carries everything.
    """

    def __init__(self, config: DiTConfig) -> None:
        self._config = config
        self._shared = config.conditioning == "shared_context"
        # Texts whose K/V are cached (all below); units whose copies were cached (all below, some are evicted since);
        # both as they will be when the forward of the last clip has run.
        self._texts = 0
        self._copies = 0
        self._pending: tuple[int, int] | None = None
        self.cache = Cache(config.levels, config.history_units)

    def tokens(self, texts: Mapping[int, EncodedText], grid: tuple[int, int, int], unit: int, level: int) -> int:
        """Tokens that a step of (`unit`, `level`) adds; `grid` is the target's latent (t, H, W) at full resolution."""
        begins, sent, copies = self._missing(texts, unit, level)
        frames, height, width = grid
        area = (height // self._config.patch) * (width // self._config.patch)
        spans = [(unit_span(u, self._config.frames_per_unit, frames), k) for u, k in copies]
        context = sum((stop - start) * (area >> 2 * k) for (start, stop), k in spans)
        return frames * (area >> 2 * level) + context + sum(len(texts[begins[i]].tokens_LD) for i in sent)

    def clip(
        self, texts: Mapping[int, EncodedText], finished: Sequence[Tensor], x_CTHW: Tensor, level: int, timestep: float
    ) -> Clip:
        """What a step adds to the pack for this row.

        Args:
            texts: the row's texts by the unit at which each begins.
            finished: clean latents [C, t, H, W] of the units before the one being made.
            x_CTHW: that unit's noisy latent, at `level`'s resolution.
            level: the stage being run.
            timestep: what the target is told, 0 to 1000.
        """
        if self._pending is not None:
            # The forward that was to fill the cache did not end; nobody knows what it holds.
            self._forget()
        unit = len(finished)
        begins, sent, copies = self._missing(texts, unit, level)
        if self._shared and self._copies < unit:
            if self._copies < unit - 1:
                self._forget()
            self.cache.evict(unit)

        def prompt_of(unit: int) -> int:
            return bisect_right(begins, unit) - 1 if self._shared else 0

        def first(unit: int) -> int:
            return unit_span(unit, self._config.frames_per_unit, x_CTHW.shape[1])[0]

        prompts = [
            Prompt(texts[begin].tokens_LD if i in sent else None, texts[begin].pooled_P, begin)
            for i, begin in enumerate(begins)
        ]
        pieces = [Piece("context", u, k, down(finished[u], k), 0.0, first(u), prompt_of(u)) for u, k in copies]
        pieces.append(Piece("target", unit, level, x_CTHW, timestep, first(unit), prompt_of(unit)))
        self._pending = len(begins), unit
        return Clip(tuple(prompts if self._shared else prompts[-1:]), tuple(pieces))

    def settle(self) -> None:
        """The forward has run: what the last clip added is in the cache."""
        assert self._pending is not None
        self._texts, self._copies = self._pending
        self._pending = None

    def _missing(
        self, texts: Mapping[int, EncodedText], unit: int, level: int
    ) -> tuple[list[int], range, list[tuple[int, int]]]:
        """Where the texts up to `unit` begin, which of them ride along, and which copies (unit, level)."""
        config = self._config
        begins = sorted(begin for begin in texts if begin <= unit)
        if not self._shared:
            last = range(len(begins) - 1, len(begins))
            return begins, last, context_of(unit, level, config.levels, target=True, history_units=config.history_units)
        if self._pending is None and self._copies == unit:
            return begins, range(self._texts, len(begins)), []
        if self._pending is None and self._copies == unit - 1:
            return begins, range(self._texts, len(begins)), [(unit - 1, k) for k in range(config.levels)]
        return begins, range(len(begins)), needed_copies(unit, 1, config.levels)

    def _forget(self) -> None:
        """An empty cache: the next clip carries everything."""
        self.cache = Cache(self._config.levels, self._config.history_units)
        self._texts, self._copies, self._pending = 0, 0, None

"""What one video asks of the transformer, known before it is begun. Imports no torch.

The counts are the sampler's own: the visibility rule says which copies a step carries and which stay in the cache.
"""

from dataclasses import dataclass

from rayramid.models.dit.config import DiTConfig
from rayramid.models.history import context_of, last_use, needed_copies, unit_count, unit_span

# What a text really has is known once it is read.
TEXT_TOKENS = 128


@dataclass(frozen=True)
class Workload:
    """Denoising steps, the tokens that pass the transformer in all of them, and the most that the K/V cache holds."""

    steps: int
    tokens: int
    cached_tokens: int


def is_guided(scale: float) -> bool:
    """Whether a unit of this guidance scale needs the negative text's velocity: 0 and 1 leave the prompt's alone."""
    return scale not in (0.0, 1.0)


def workload(
    config: DiTConfig,
    latents: int,
    latent_size: tuple[int, int],
    steps: tuple[tuple[int, ...], tuple[int, ...]],
    guidance: tuple[float, float],
    *,
    given: int = 0,
    text_tokens: int = TEXT_TOKENS,
) -> Workload:
    """The work of one video, with one prompt.

    Args:
        config: the transformer's.
        latents: length of the video.
        latent_size: rows and columns at full resolution.
        steps: per stage, coarse to fine, of the first unit and of later ones.
        guidance: scales of the first unit and of later ones; a guided unit passes with both texts.
        given: latents that the video begins with.
        text_tokens: of each text.
    """
    levels = config.levels
    area = (latent_size[0] // config.patch) * (latent_size[1] // config.patch)

    def tokens(copies: list[tuple[int, int]]) -> int:
        spans = [(unit_span(unit, config.frames_per_unit, latents), level) for unit, level in copies]
        return sum((stop - start) * (area >> 2 * level) for (start, stop), level in spans)

    begun = unit_count(given, config.frames_per_unit) if given else 0
    total = Workload(0, 0, 0)
    for unit in range(begun, unit_count(latents, config.frames_per_unit)):
        counts = dict(zip(reversed(range(levels)), steps[min(unit, 1)], strict=True))
        passed = sum(count * tokens([(unit, level)]) for level, count in counts.items())
        cached = 0
        if config.conditioning == "shared_context":
            carried = (
                needed_copies(unit, 1, levels) if unit == begun else [(unit - 1, level) for level in range(levels)]
            )
            passed += tokens(carried) + (text_tokens if unit == begun else 0)
            cached = text_tokens + tokens([copy for copy in _copies_before(unit, levels) if _kept(config, copy, unit)])
        else:
            for level, count in counts.items():
                seen = context_of(unit, level, levels, target=True, history_units=config.history_units)
                passed += count * (text_tokens + tokens(seen))
        rows = 1 + is_guided(guidance[min(unit, 1)])
        most = max(total.cached_tokens, rows * cached)
        total = Workload(total.steps + sum(counts.values()), total.tokens + rows * passed, most)
    return total


def _copies_before(unit: int, levels: int) -> list[tuple[int, int]]:
    return [(past, level) for past in range(unit) for level in range(levels)]


def _kept(config: DiTConfig, copy: tuple[int, int], unit: int) -> bool:
    last = last_use(*copy, config.levels, config.history_units)
    return last is None or unit <= last

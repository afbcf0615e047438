"""The cost of a configuration as text for people."""

from collections.abc import Sequence

from rayramid.models.cost import Plan, Sampling, Training
from rayramid.models.memory import GPU_GB, Fit

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def report(plan: Plan) -> str:
    """Every number of the plan, with units."""
    parts = [_size(plan), _stages(plan), _training(plan), _sampling(plan.sampling), _memory(plan.fits)]
    return "\n\n".join(parts)


def with_prefix(number: float, unit: str) -> str:
    """`34.1 TFLOP`, `5.4 GB`: three digits or so."""
    for size, prefix in PREFIXES:
        if number >= size:
            return f"{number / size:,.{1 if number >= 10 * size else 2}f} {prefix}{unit}"
    return f"{number:,.0f} {unit}"


def _size(plan: Plan) -> str:
    lines = [
        f"{plan.preset}: {plan.parameters:,} parameters",
        f"{plan.width}x{plan.height}, {plan.frames} frames: {plan.latents} latents in {plan.units} units",
        f"tokens of the longest sequence: {plan.pyramid_tokens:,} as a pyramid, {plan.full_sequence_tokens:,} as "
        "full-sequence diffusion",
    ]
    return "\n".join(lines)


def _stages(plan: Plan) -> str:
    header = ["Tokens by stage, text apart", *(f"stage {stage.level}" for stage in plan.stages)]
    rows = [
        ["one latent", *(f"{stage.grid[0] * stage.grid[1]:,}" for stage in plan.stages)],
        ["last target and its history", *(f"{stage.separate_tokens:,}" for stage in plan.stages)],
        ["per target, separate sequences", *(f"{stage.mean_separate_tokens:,.0f}" for stage in plan.stages)],
    ]
    for row in plan.training:
        rows.append([f"per target, shared, {_units(row)}", *(f"{tokens:,.0f}" for tokens in row.stage_tokens)])
    return table(header, rows)


def _training(plan: Plan) -> str:
    header = [
        "Training, shared context",
        "tokens",
        "at most",
        "FLOP a step",
        "FLOP a target",
        "separate: tokens",
        "FLOP",
    ]
    rows = [
        [
            _units(row),
            f"{row.tokens_per_sequence:,.0f}",
            f"{row.largest_sequence:,}",
            with_prefix(row.flops_per_sequence, ""),
            with_prefix(row.flops_per_target, ""),
            f"{row.token_ratio:.2f}x",
            f"{row.flop_ratio:.2f}x",
        ]
        for row in plan.training
    ]
    sizes = ", ".join(f"{with_prefix(size, 'B')} recompute {how}" for how, size in plan.activation_bytes.items())
    return f"{table(header, rows)}\nActivations of the longest sequence of one unit: {sizes}"


def _sampling(sampling: Sampling) -> str:
    guidance = "with" if sampling.guided else "without"
    rows = [
        ["cached history", with_prefix(sampling.flops, "")],
        ["history recomputed in each step", with_prefix(sampling.recomputed_flops, "")],
        ["full-sequence diffusion", with_prefix(sampling.full_sequence_flops, "")],
    ]
    return (
        f"{table([f'Sampling, {guidance} guidance', 'FLOP a video'], rows)}\n"
        f"Steps by stage: {sampling.steps[0]} for the first unit, {sampling.steps[1]} for later ones\n"
        f"K/V cache: {sampling.cached_tokens:,} tokens, {with_prefix(sampling.cache_bytes, 'B')}; without eviction "
        f"{with_prefix(sampling.cache_bytes_without_eviction, 'B')}"
    )


def _memory(fits: Sequence[Fit]) -> str:
    header = ["Memory of the DiT alone, per GPU", "GPUs", "bytes", *(f"{size} GB" for size in GPU_GB)]
    rows = [
        [fit.use, str(fit.gpus), with_prefix(fit.bytes, "B"), *("yes" if good else "no" for good in fit.fits.values())]
        for fit in fits
    ]
    return table(header, rows)


def _units(row: Training) -> str:
    return f"{row.units_per_clip} unit{'s' if row.units_per_clip > 1 else ''} per clip"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, the others to the right, below their headers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for cells in (header, *rows):
        others = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
        lines.append("  ".join([cells[0].ljust(widths[0]), *others]).rstrip())
    return "\n".join(lines)

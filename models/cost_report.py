"""The cost of a configuration as text for people."""

from rayramid.models.cost import Plan, Sampling
from rayramid.models.memory import Fit

PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def report(plan: Plan) -> str:
    """Every number of the plan, with units."""
    return "\n\n".join([_size(plan), _training(plan), _sampling(plan.sampling), _memory(plan.fits)])


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
        f"longest training sequence, text apart: {plan.pyramid_tokens:,} tokens",
        f"full-sequence diffusion: {plan.full_sequence_tokens:,} tokens",
    ]
    for stage in plan.stages:
        height, width = stage.grid
        lines.append(
            f"  stage {stage.level}: {width}x{height} tokens a latent, last target {stage.target_tokens:,}, "
            f"with its history {stage.separate_tokens:,}"
        )
    return "\n".join(lines)


def _training(plan: Plan) -> str:
    lines = ["Training with shared context, per target (in brackets: times more in separate sequences)"]
    for row in plan.training:
        lines.append(
            f"  {row.units_per_clip} units per clip: {row.tokens_per_target:,.0f} tokens ({row.token_ratio:.2f}x), "
            f"{with_prefix(row.flops_per_target, 'FLOP')} ({row.flop_ratio:.2f}x), "
            f"longest sequence {row.largest_sequence:,}"
        )
    sizes = ", ".join(f"{with_prefix(size, 'B')} recompute {how}" for how, size in plan.activation_bytes.items())
    return "\n".join([*lines, f"  activations of the longest sequence with 1 unit: {sizes}"])


def _sampling(sampling: Sampling) -> str:
    return "\n".join(
        [
            f"Sampling one video, {'with' if sampling.guided else 'without'} guidance, steps {sampling.steps[0]} "
            f"then {sampling.steps[1]}",
            f"  {with_prefix(sampling.flops, 'FLOP')}; history recomputed in each step: "
            f"{with_prefix(sampling.recomputed_flops, 'FLOP')}; full-sequence diffusion: "
            f"{with_prefix(sampling.full_sequence_flops, 'FLOP')}",
            f"  K/V cache: {sampling.cached_tokens:,} tokens, {with_prefix(sampling.cache_bytes, 'B')}; "
            f"without eviction {with_prefix(sampling.cache_bytes_without_eviction, 'B')}",
        ]
    )


def _memory(fits: list[Fit]) -> str:
    lines = ["Memory per GPU, the DiT alone"]
    for fit in fits:
        answers = ", ".join(f"{size} GB {'yes' if good else 'no'}" for size, good in fit.fits.items())
        lines.append(f"  {fit.use} on {fit.gpus}: {with_prefix(fit.bytes, 'B')} ({answers})")
    return "\n".join(lines)

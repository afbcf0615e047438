"""Cases summed up: shares with their confidence intervals, curves, PSNR."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rayramid.models.sprites.captions import parse
from rayramid.models.sprites.judge.verdict import PARTS
from rayramid.platform.evaluation import drift
from rayramid.platform.evaluation.examiner import Case, Kind, Origin
from rayramid.platform.evaluation.spec import EvalSpec

# The quantile of the normal distribution that leaves 2.5 % on each side.
Z = 1.959964
# Whose drift people are shown, and which measures of it.
ORIGINS: dict[Origin, str] = {
    "made": "drift of videos from captions",
    "drawn": "drift of the same scenes as they are drawn",
    "decoded": "drift of drawn scenes through the VAE",
}
DRIFT = ("sharpness", "saturation", "motion_energy", "jump")
COUNTS = {1: "one shape", 2: "two shapes", 3: "three shapes"}


@dataclass(frozen=True)
class Share:
    """How many of how many, and where the true share lies with 95 % confidence (Wilson 1927)."""

    right: int
    of: int

    @property
    def interval(self) -> tuple[float, float]:
        """Low and high end."""
        share = self.right / self.of
        middle = (share + Z**2 / (2 * self.of)) / (1 + Z**2 / self.of)
        half = Z / (1 + Z**2 / self.of) * math.sqrt(share * (1 - share) / self.of + Z**2 / (4 * self.of**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def to_json(self) -> dict[str, float]:
        """For results files."""
        low, high = self.interval
        rounded = {"share": self.right / self.of, "low": low, "high": high}
        return {**{name: round(value, 4) for name, value in rounded.items()}, "right": self.right, "of": self.of}

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.right / self.of:6.1%}  ({low:.1%} to {high:.1%}, {self.right} of {self.of})"


def sum_up(spec: EvalSpec, cases: Sequence[Case]) -> dict[str, Any]:
    """The numbers of an evaluation: `text`, `by_demand`, `curve`, `images`, `vae` by length, and `drift` by its origin.

    The curve ends with the model's own steps, for the same prompts.

    Before them the first of `text`, for scripts: `fully_right` and its `parts` at the shortest length.
    """
    parts = ("fully_right", *PARTS)

    def shares(chosen: Sequence[Case], names: Sequence[str]) -> dict[str, Any]:
        return {
            str(length): {
                name: Share(sum(case.verdicts[length][name] for case in chosen), len(chosen)).to_json()
                for name in names
            }
            for length in spec.lengths
        }

    def of(kind: Kind, steps: int | None = None) -> list[Case]:
        return [case for case in cases if (case.piece.kind, case.piece.steps) == (kind, steps)]

    text = shares(of("text"), parts)
    points = {str(steps): of("text", steps) for steps in spec.curve.steps}
    if points:
        points["its own"] = [case for case in of("text") if case.index < spec.curve.prompts]
    shortest = text[str(min(spec.lengths))]
    found: dict[str, Any] = {
        "fully_right": shortest["fully_right"]["share"],
        "parts": {name: shortest[name]["share"] for name in PARTS},
        "text": text,
        "by_demand": {
            name: shares([case for case in of("text") if name in demands(case.caption)], ("fully_right",))
            for name in (*COUNTS.values(), "passing")
            if any(name in demands(case.caption) for case in of("text"))
        },
        "curve": {steps: shares(chosen, parts) for steps, chosen in points.items()},
    }
    if images := of("image"):
        found["images"] = shares(images, ("kept", *parts))
    if rendered := of("render"):
        by_frame_T = np.array([case.psnr_T for case in rendered]).mean(0)
        found["vae"] = {
            "psnr": round(float(by_frame_T.mean()), 2),
            "worst_frame_below_mean": round(float(by_frame_T.mean() - by_frame_T.min()), 2),
            "psnr_by_frame": [round(float(psnr), 2) for psnr in by_frame_T],
            "judged": shares(rendered, parts),
        }
    measured = {origin: [case.drift[origin] for case in cases if origin in case.drift] for origin in ORIGINS}
    found["drift"] = {origin: drift.sum_up(each) for origin, each in measured.items() if each}
    return found


def demands(caption: str) -> tuple[str, ...]:
    """How many shapes a caption names, and `passing` if one is to pass another."""
    demand = parse(caption)
    return (COUNTS[len(demand.actors)], *(["passing"] if demand.passing else []))


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers for people."""

    def row(name: str, share: dict[str, Any]) -> str:
        return f"  {name:<12} {Share(share['right'], share['of'])}"

    said = []
    for length, shares in found["text"].items():
        said.append(f"from captions, {length} frames")
        said += [row(name, share) for name, share in shares.items()]
        said.append(f"fully right by what a caption names, {length} frames")
        said += [row(name, each[length]["fully_right"]) for name, each in found["by_demand"].items()]
    for length in found["text"]:
        if found["curve"]:
            said.append(f"fully right by steps per stage, {length} frames")
            said += [row(steps, shares[length]["fully_right"]) for steps, shares in found["curve"].items()]
    for length, shares in found.get("images", {}).items():
        said.append(f"from first frames, {length} frames")
        said += [row(name, shares[name]) for name in ("kept", "fully_right")]
    if "vae" in found:
        vae = found["vae"]
        said.append(f"VAE: {vae['psnr']:.1f} dB, the worst frame {vae['worst_frame_below_mean']:.1f} dB below; decoded")
        said += [row(f"{length} frames", shares["fully_right"]) for length, shares in vae["judged"].items()]
    for origin, measured in found.get("drift", {}).items():
        said += [ORIGINS[origin], *(f"  {line}" for line in drift.lines(measured, DRIFT))]
    return said

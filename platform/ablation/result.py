"""The measurements of an ablation summed up: means and ranges over seeds, pooled shares, how much faster arms are."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from rayramid.platform.ablation.spec import AblationSpec
from rayramid.platform.evaluation.results import Share

Points = Sequence[Mapping[str, Any]]
Found = Mapping[str, Mapping[int, Points]]

PARTS = ("colours", "shapes", "motions", "sharp", "persistent")
# Lower is better in these, and higher in shares.
DISTANCES = {"loss": "held-out velocity loss", "frechet": "Fréchet distance", "kernel": "kernel distance"}


@dataclass(frozen=True)
class Speedup:
    """By which factor fewer operations take an arm to where the first one ends.

    Attributes:
        times: the factor.
        at_least: it was there at its first point already.
    """

    times: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'at least ' * self.at_least}{self.times:.1f} times"


def sum_up(spec: AblationSpec, found: Found) -> dict[str, Any]:
    """The numbers of an ablation: `arms` with every measurement; `distances`, `faster`, `shares`, `by_unit` of them.

    Means have the lowest and the highest of the seeds; shares are of the videos of all seeds, with their 95 %
    intervals; `by_unit` is of the last point.
    """
    arms = {name: list(seeds.values()) for name, seeds in found.items()}
    first, *others = arms
    names = [name for name in DISTANCES if name in arms[first][0][0] and (name != "loss" or spec.measure.loss)]
    distances = {name: {arm: _spreads(name, seeds) for arm, seeds in arms.items()} for name in names}
    faster: dict[str, dict[str, Any]] = {}
    for name in names:
        curve = {arm: [(each["tflop"], each["mean"]) for each in points] for arm, points in distances[name].items()}
        for other in others:
            # An unbiased distance may be below 0, and a single point is no curve.
            alone = name == "kernel" or len(spec.points) == 1
            speed = None if alone else speedup(curve[first], curve[other])
            faster.setdefault(name, {})[other] = None if speed is None else vars(speed)
    videos = "right" in arms[first][0][0]
    return {
        "arms": {
            name: {
                "parameters": seeds[0][0]["parameters"],
                "seconds": _seconds(seeds),
                "seeds": {str(seed): list(points) for seed, points in found[name].items()},
            }
            for name, seeds in arms.items()
        },
        "distances": distances,
        "faster": faster,
        "shares": {name: _shares(seeds) for name, seeds in arms.items()} if videos else {},
        "by_unit": {name: _by_unit(seeds) for name, seeds in arms.items()} if videos else {},
    }


def speedup(first: Sequence[tuple[float, float]], other: Sequence[tuple[float, float]]) -> Speedup | None:
    """How much faster the other curve, (operations, distance), reaches the end of the first; None if it does not.

    Between points it is a straight line on logarithmic axes.
    """
    end, goal = first[-1]
    for (x0, y0), (x1, y1) in zip([other[0], *other], other, strict=False):
        if y1 <= goal:
            if y0 <= goal:
                return Speedup(end / x1, at_least=True)
            share = math.log(y0 / goal) / math.log(y0 / y1)
            return Speedup(end / (x0 * (x1 / x0) ** share))
    return None


def _spreads(name: str, seeds: Sequence[Points]) -> list[dict[str, float]]:
    """Of every point."""
    spreads = []
    for points in zip(*seeds, strict=True):
        values = [point[name] for point in points]
        spreads.append(
            {
                "tflop": round(fmean(point["tflop"] for point in points), 4),
                "mean": fmean(values),
                "low": min(values),
                "high": max(values),
            }
        )
    return spreads


def _shares(seeds: Sequence[Points]) -> list[dict[str, dict[str, dict[str, float]]]]:
    """Of every point, by the number of frames and the part of the verdict."""
    return [
        {
            length: {
                part: Share(
                    sum(point["right"][length][part] for point in points), sum(point["videos"] for point in points)
                ).to_json()
                for part in parts
            }
            for length, parts in points[0]["right"].items()
        }
        for points in zip(*seeds, strict=True)
    ]


def _by_unit(seeds: Sequence[Points]) -> dict[str, list[float]]:
    return {
        name: [fmean(values) for values in zip(*(points[-1][f"{name}_by_unit"] for points in seeds), strict=True)]
        for name in ("frechet", "sharpness")
    }


def _seconds(seeds: Sequence[Points]) -> dict[str, float]:
    return {
        kind: round(sum(point["seconds"][kind] for points in seeds for point in points), 1)
        for kind in ("training", "measuring")
    }


def parts_at(length: int) -> tuple[str, ...]:
    """The parts of verdicts that tell arms of so few operations apart; an image has no motions."""
    return tuple(part for part in PARTS if length > 1 or part != "motions")


def lines(result: Mapping[str, Any]) -> list[str]:
    """The numbers for people: of the last point, and how much faster an arm is there."""
    said = [f"{result['spec']['title']}: {result['spec']['question']}"]
    width = max(map(len, result["arms"]))
    for arm, found in result["arms"].items():
        last = next(iter(found["seeds"].values()))[-1]
        trained = f"{last['tflop']:.2f} TFLOP, {last['step']} steps, {last['targets']:,} targets"
        said.append(f"  {arm:<{width}}  {trained} in the first seed's run")
    for name, arms in result["distances"].items():
        said.append(DISTANCES[name])
        for arm, points in arms.items():
            last, speed = points[-1], result["faster"][name].get(arm)
            seeds = f"({last['low']:.4g} to {last['high']:.4g})"
            said.append(
                f"  {arm:<{width}}  {last['mean']:8.4g}  {seeds}{f', {Speedup(**speed)} faster' if speed else ''}"
            )
    for length in next(iter(result["shares"].values()), [{}])[-1]:
        said.append("right in images, in %" if length == "1" else f"right over {length} frames, in %")
        parts = parts_at(int(length))
        said.append(f"  {'':<{width}}  " + " ".join(f"{part:>11}" for part in parts))
        for arm, points in result["shares"].items():
            shares = [points[-1][length][part]["share"] for part in parts]
            said.append(f"  {arm:<{width}}  " + " ".join(f"{100 * share:>11.1f}" for share in shares))
    for name in ("frechet", "sharpness"):
        if any(len(curves[name]) > 1 for curves in result["by_unit"].values()):
            of = {"frechet": "Fréchet distance by unit", "sharpness": "sharpness by unit (drawn scenes: 1)"}[name]
            said.append(of)
            for arm, curves in result["by_unit"].items():
                said.append(f"  {arm:<{width}}  " + " ".join(f"{value:8.3g}" for value in curves[name]))
    return said

"""Reader of the golden files: numbers measured on the published model, kept as JSON + safetensors.

`@pytest.mark.golden("mmdit", "flux")` parametrises a test over every `*_mmdit.json` and `*_flux.json` of the folder
that RAYRAMID_GOLDEN names (tests/golden by default). The test takes the fixture `golden`, and, if it also takes `case`,
runs once per case of each file; `cases="c_"` keeps the cases whose names start so.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rayramid.models.history import training_rows, unit_count
from rayramid.models.pyramid import Pyramid, down, up

OURS = Path(__file__).parents[2] / "golden"


def golden_folder() -> Path:
    folder = Path(os.environ.get("RAYRAMID_GOLDEN") or OURS)
    if not any(folder.glob("*.json")):
        raise pytest.UsageError(
            f"no golden file in {folder}: RAYRAMID_GOLDEN must name a folder of *.json + *.safetensors"
        )
    return folder


@dataclass(frozen=True)
class Golden:
    """One golden file: `meta` is its JSON, `tensors` its arrays by key."""

    path: Path
    meta: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> "Golden":
        return cls(path, json.loads(path.read_text()), load_file(path.with_suffix(".safetensors")))

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def config(self) -> Mapping[str, Any]:
        return self.meta["config"]

    @property
    def cases(self) -> Mapping[str, Mapping[str, Any]]:
        return self.meta["cases"]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key]

    def __contains__(self, key: str) -> bool:
        return key in self.tensors

    def series(self, prefix: str) -> list[Tensor]:
        """`prefix.0`, `prefix.1`, ... as a list, up to the first index that is absent."""
        found: list[Tensor] = []
        while (key := f"{prefix}.{len(found)}") in self.tensors:
            found.append(self.tensors[key])
        return found

    def under(self, prefix: str) -> dict[str, Tensor]:
        """All tensors whose key starts with `prefix`, which is cut off."""
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def weights(self) -> dict[str, Tensor]:
        """The published state dict (keys without `sd.`)."""
        return self.under("sd.")

    def clips(self, case: str) -> list[list[Tensor]]:
        """Model inputs of a case: per column the clips [b, C, T, H, W], oldest first, the noisy one last."""
        columns: list[list[Tensor]] = []
        while clips := self.series(f"{case}.in.clip.{len(columns)}"):
            columns.append(clips)
        return columns

    def sibling(self, name: str) -> "Golden":
        """The golden file that this one refers to by name: beside it, or one of ours."""
        beside = self.path.with_name(f"{name}.json")
        return Golden.read(beside if beside.exists() else OURS / beside.name)

    def with_tensor(self, key: str, value: Tensor) -> "Golden":
        """A copy in which one stored tensor is another: for tests that a wrong number is noticed."""
        assert key in self.tensors, key
        return replace(self, tensors={**self.tensors, key: value})

    def error(self, actual: Tensor, key: str) -> float:
        """Relative RMS of `actual` against the stored tensor; shapes must be equal."""
        expected = self.tensors[key]
        assert actual.shape == expected.shape, f"{key}: shape {tuple(actual.shape)}, stored {tuple(expected.shape)}"
        difference = (actual.detach().double() - expected.double()).square().mean().sqrt()
        return float(difference / expected.double().square().mean().sqrt().clamp_min(1e-30))

    def check(self, actual: Tensor, key: str, within: float = 1e-5) -> None:
        """Assert that `actual` equals the stored tensor within a relative RMS; NaN never passes."""
        error = self.error(actual, key)
        assert error <= within, f"{self.name}: {key} differs by relative RMS {error:.2e}, allowed {within:.0e}"


@dataclass(frozen=True)
class Column:
    """What the published trainer makes of the samples c::columns of a batch; their order is kept, [b, ...]."""

    level: int
    clips: list[Tensor]  # [b, C, T, h, w]: corrupted history, oldest first, then the noisy unit
    timestep: Tensor  # [b]
    velocity: Tensor  # [b, C, T, h, w], end - start: minus the published target


def official_pyramid(scheduler: Mapping[str, Any]) -> Pyramid:
    """The pyramid of a stored scheduler configuration."""
    assert scheduler["num_train_timesteps"] == 1000
    return Pyramid(
        levels=scheduler["stages"],
        gamma=scheduler["gamma"],
        stage_range=tuple(scheduler["stage_range"]),
        shift=scheduler["shift"],
        schedule="official",
    )


def ordinary_noise(noise: Tensor, gamma: float) -> Tensor:
    """The z with block_noise(z, gamma) = noise; at gamma = 1/3 the blocks' means are 0 and any mean of z will do."""
    mean, spread = up(down(noise)), 1 - 3 * gamma
    return (noise - mean) / math.sqrt(1 + gamma) + (mean / math.sqrt(spread) if spread > 1e-12 else 0)


def training_columns(
    golden: Golden, case: str, pyramid: Pyramid, *, frames_per_unit: int | None, corruption: float = 1 / 3
) -> list[Column]:
    """Rebuild a batch from `<case>.latent` and the random numbers on `<case>.tape`.

    Per column the tape holds a time draw [b], a corruption draw [b], and noise for each history clip, newest first.
    """
    latents, (noise, *tape) = golden[f"{case}.latent"], golden.series(f"{case}.tape")
    shapes = golden.cases[case]["clip_shapes"]
    draws = iter(tape)
    columns = []
    for number, clip_shapes in enumerate(shapes):
        x, n = latents[number :: len(shapes)], noise[number :: len(shapes)]
        level = (x.shape[-1] // clip_shapes[-1][-1]).bit_length() - 1
        frames = sum(shape[2] for shape in clip_shapes)
        last = unit_count(frames, frames_per_unit) - 1
        rows = training_rows(frames, last, 1, pyramid.levels, frames_per_unit, shared=False)
        *history, target = next(row for row in rows if row[-1].level == level)
        u, sigma = next(draws), (next(draws) * corruption)[:, None, None, None, None]
        start, end = pyramid.endpoints(x[:, :, target.start : target.stop], n[:, :, target.start : target.stop], level)
        t = pyramid.local_time(u)
        clips = [torch.lerp(start, end, t.float()[:, None, None, None, None])]
        while history:
            draw = next(draws)
            clean: list[Tensor] = []
            # The units at the coarsest level are one clip with one draw.
            while sum(unit.shape[2] for unit in clean) < draw.shape[2]:
                span = history.pop()
                clean.insert(0, down(x[:, :, span.start : span.stop], span.level))
            clips.insert(0, sigma * draw + (1 - sigma) * torch.cat(clean, 2))
        columns.append(Column(level, clips, pyramid.timestep(level, t), end - start))
    assert next(draws, None) is None
    return columns


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "golden(*kinds, cases=''): parametrised over the golden files of these kinds")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None:
        return
    prefix = marker.kwargs.get("cases", "")
    paths = sorted(path for kind in marker.args for path in golden_folder().glob(f"*_{kind}.json"))
    if "case" not in metafunc.fixturenames:
        metafunc.parametrize("golden", paths, ids=[path.stem for path in paths], indirect=True)
        return
    pairs = [
        (path, case) for path in paths for case in json.loads(path.read_text())["cases"] if case.startswith(prefix)
    ]
    ids = [f"{path.stem}-{case}" for path, case in pairs]
    metafunc.parametrize(("golden", "case"), pairs, ids=ids, indirect=["golden"])


@pytest.fixture(name="official_pyramid")
def _official_pyramid() -> Callable[[Mapping[str, Any]], Pyramid]:
    return official_pyramid


@pytest.fixture(name="ordinary_noise")
def _ordinary_noise() -> Callable[[Tensor, float], Tensor]:
    return ordinary_noise


@pytest.fixture(name="training_columns")
def _training_columns() -> Callable[..., list[Column]]:
    return training_columns


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(request.param)

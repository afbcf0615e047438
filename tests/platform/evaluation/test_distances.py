"""Two sets of videos compared: what networks are given, what counts as a video, what is kept, what comes out."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError
from ray_nodes import wait_until
from tiny_clip import write_tiny_clip
from torch import Tensor, nn

from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.platform.evaluation.distances.extractors import load_extractors
from rayramid.platform.evaluation.distances.kept import keep, kept, read
from rayramid.platform.evaluation.distances.run import (
    Measured,
    Measurer,
    Piece,
    evaluate,
    lines,
    pieces,
    rows_of,
    sum_up,
)
from rayramid.platform.evaluation.distances.spec import DistancesSpec, Features, VideoSet

SPRITES = {"source": {"sprites": {"clips": 3, "seed": 5, "width": 32, "height": 32, "frames": 9}}}


def spec_of(**changes: object) -> DistancesSpec:
    plain = {"output": "unused", "made": SPRITES, "reference": SPRITES, "frames": 9, "size": "32x32", "batch": 2}
    return DistancesSpec.model_validate({**plain, **changes})


class Convention(nn.Module):
    """Gives what it was called with: sizes, the largest value, and the three switches."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        told = [float(size) for size in x.shape[1:]]
        told += [float(x.max()), float(rescale), float(resize), float(return_features)]
        return torch.tensor(told).repeat(x.shape[0], 1)


def test_an_i3d_file_is_called_as_it_was_published(tmp_path):
    file = tmp_path / "i3d_torchscript.pt"
    torch.jit.script(Convention()).save(str(file))
    extract = load_extractors(Features(random3d=False, i3d=str(file)), "cpu")["i3d"]
    videos = torch.zeros(2, 10, 6, 8, 3, dtype=torch.uint8)
    videos[0, 0, 0, 0, 0] = 200
    assert extract(videos).tolist() == [[3, 10, 6, 8, 200, 1, 1, 1]] * 2


def test_an_open_clip_model_sees_every_frame(tmp_path):
    extract = load_extractors(Features(random3d=False, open_clip=str(write_tiny_clip(tmp_path))), "cpu")["open_clip"]
    features = extract(torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 40, 3), np.uint8)))
    assert features.shape == (6, 32)
    assert features.norm(dim=1).numpy() == pytest.approx(np.ones(6), abs=1e-5)


def test_a_users_function_is_found_by_its_name(tmp_path, monkeypatch):
    source = (
        "def brightness(videos):\n    return videos.float().mean((2, 3, 4))\n\ndef wrong(videos):\n    return videos\n"
    )
    (tmp_path / "my_features.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    videos = torch.full((2, 4, 2, 2, 3), 7, dtype=torch.uint8)
    found = load_extractors(Features(random3d=False, function="my_features:brightness"), "cpu")
    assert found["my_features:brightness"](videos).tolist() == [[7.0] * 4] * 2
    wrong = load_extractors(Features(function="my_features:wrong"), "cpu")
    with pytest.raises(UserError, match=r"gave the shape \(2, 4, 2, 2, 3\)"):
        wrong["my_features:wrong"](videos)


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"i3d": "nowhere.pt"}, "nowhere.pt: no such file"),
        ({"i3d": __file__}, "not a TorchScript file"),
        ({"function": "nowhere_at_all:f"}, "can't be loaded"),
    ],
)
def test_a_network_that_is_not_there_is_told_in_a_line(features, said):
    with pytest.raises(UserError, match=said) as error:
        load_extractors(Features.model_validate(features), "cpu")
    assert "\n" not in str(error.value)


def test_specs_that_make_no_sense_are_refused():
    for changes, said in (
        ({"made": {}}, "exactly one of source and dataset"),
        ({"features": {"random3d": False}}, "at least one of random3d"),
        ({"features": {"i3d": "f"}, "frames": 9}, "I3D needs 10"),
        ({"features": {"function": "noname"}}, "module:function"),
    ):
        with pytest.raises(ValidationError, match=said):
            spec_of(**changes)


def test_the_first_frames_of_a_folders_videos_are_measured_and_short_ones_named(tmp_path: Path):
    moving = np.random.default_rng(0).integers(0, 256, (12, 32, 32, 3), np.uint8)
    write_mp4(tmp_path / "a.mp4", moving, fps=8, crf=0)
    write_mp4(tmp_path / "b.mp4", moving[:5], fps=8)
    (tmp_path / "c.mp4").write_bytes(b"no video")
    rows = rows_of(VideoSet.model_validate({"source": {"folder": str(tmp_path)}}))
    assert [Path(row["uri"]).name for row in rows] == ["a.mp4", "b.mp4", "c.mp4"]
    measured = Measurer(spec_of(output=str(tmp_path / "out"))).measure(Piece("made", rows, "key"))
    assert not kept(str(tmp_path / "out")), "a piece is tried again if some of its videos gave nothing"
    assert measured.videos == 1
    assert measured.features["random3d"].shape == (1, 112)
    reasons = {Path(uri).name: reason for uri, reason in measured.unusable.items()}
    assert reasons.keys() == {"b.mp4", "c.mp4"}
    assert "5 of 9 frames" in reasons["b.mp4"]
    with pytest.raises(UserError, match=r"made: 1 videos can be used.*b\.mp4"):
        sum_up([measured])


def test_a_set_has_its_first_videos_only():
    assert len(rows_of(VideoSet.model_validate({**SPRITES, "most": 2}))) == 2


def test_sums_are_of_all_pieces_whatever_their_order():
    draw = np.random.default_rng(0)
    parts = [
        Measured(side, 2, {"net": draw.standard_normal((2, 3)).astype(np.float32)}, {})
        for side in ("made", "reference", "made")
    ]
    found, backwards = sum_up(parts), sum_up(parts[::-1])
    assert found["videos"] == {"made": 4, "reference": 2}
    assert found["distances"]["net"]["items"] == [4, 2]
    for measure in ("frechet", "kernel"):
        assert found["distances"]["net"][measure] == pytest.approx(backwards["distances"]["net"][measure])
    assert "4 videos against 2" in lines(found)[0]
    assert "fewer items than features" in lines(found)[2]


def test_features_that_were_kept_are_those_that_were_measured(tmp_path):
    spec = spec_of(output=str(tmp_path))
    piece = next(piece for piece in pieces(spec) if piece.side == "reference")
    measured = Measurer(spec).measure(piece)
    assert kept(str(tmp_path)) == {piece.key}
    (name,) = measured.features
    assert read(str(tmp_path), piece.key)[name].tolist() == measured.features[name].tolist()
    keep(str(tmp_path), "turned", {"a": np.float32([[1, 2, 3], [4, 5, 6]]).T})
    assert read(str(tmp_path), "turned")["a"].tolist() == [[1, 4], [2, 5], [3, 6]]


def test_a_key_follows_from_videos_networks_frames_fps_and_size_and_nothing_else(tmp_path, monkeypatch):
    hook, net, videos = tmp_path / "a_hook.py", tmp_path / "net.pt", tmp_path / "videos"
    hook.write_text("one = two = len\n")
    net.write_bytes(b"some weights")
    videos.mkdir()
    (videos / "a.mp4").write_bytes(b"a video")
    monkeypatch.syspath_prepend(tmp_path)

    def keys(**changes: object) -> list[str]:
        made = {"source": {"folder": str(videos)}}
        return [piece.key for piece in pieces(spec_of(**{"frames": 12, "made": made, **changes}))]

    plain = keys()
    assert len(set(plain)) == len(plain) == 3
    assert keys(output="elsewhere", workers={"count": 7}) == plain
    assert keys(reference={**SPRITES, "most": 2})[:2] == plain[:2]
    i3d = {"features": {"i3d": str(net)}}
    ways = [
        {"frames": 13},
        {"fps": 8},
        {"size": "64x64"},
        i3d,
        *({"features": {"function": f"a_hook:{f}"}} for f in ("one", "two")),
    ]
    before = [keys(**way) for way in ways]
    assert len({key for some in [plain, *before] for key in some}) == 3 * 7
    net.write_bytes(b"other weights!")
    hook.write_text("one = two = max\n")
    (videos / "a.mp4").write_bytes(b"another video")
    after = [keys(**way) for way in ways]
    assert [one[0] == other[0] for one, other in zip(before, after, strict=True)] == [False] * 6
    assert [one[1:] == other[1:] for one, other in zip(before, after, strict=True)] == [True] * 3 + [False] * 3


@contextmanager
def comparing(folder: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command on a folder's `distances.yaml`, from there: Ray's workers find modules where a driver was started."""
    command = [sys.executable, "-m", "rayramid.platform.cli", "eval", "distances.yaml", "--address", address]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    with (folder / "said.txt").open("a") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_comparison_that_was_killed_goes_on_and_measures_nothing_twice(ray_cluster, tmp_path):
    (tmp_path / "a_hook.py").write_text(
        "import pathlib, time\n"
        "HERE = pathlib.Path(__file__).parent\n"
        "def brightness(videos):\n"
        "    while any(HERE.glob('out/features/*.safetensors')) and not (HERE / 'go').exists():\n"
        "        time.sleep(0.01)\n"
        "    return videos.float().mean((2, 3, 4))\n"
    )
    spec = spec_of(
        output=str(tmp_path / "out"),
        features={"random3d": False, "function": "a_hook:brightness"},
        batch=1,
        workers={"count": 1, "cpus": 0.5},
    )
    (tmp_path / "distances.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json", exclude_none=True)))
    features = tmp_path / "out" / "features"
    with comparing(tmp_path, ray_cluster) as driver:
        wait_until(lambda: driver.poll() is not None or any(features.glob("*.safetensors")))
        assert driver.poll() is None, (tmp_path / "said.txt").read_text()
        driver.kill()
        assert driver.wait(600) == -signal.SIGKILL
    (first,) = features.glob("*.safetensors")
    written = first.stat().st_mtime_ns
    (tmp_path / "go").touch()
    with comparing(tmp_path, ray_cluster) as driver:
        assert driver.wait(600) == 0, (tmp_path / "said.txt").read_text()
    assert first.stat().st_mtime_ns == written
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    # Both sides are the same videos, so that one was found for both.
    assert found["found"] >= 2
    assert found["videos"] == {"made": 3, "reference": 3}
    assert found["distances"]["a_hook:brightness"]["frechet"] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_the_same_drawn_clips_have_no_distance(ray_cluster, tmp_path):
    other = {"source": {"sprites": {**SPRITES["source"]["sprites"], "seed": 6}}}
    seen = []
    same = evaluate(spec_of(output=str(tmp_path)), "typed", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    assert same["distances"]["random3d"]["frechet"] == pytest.approx(0, abs=1e-3)
    far = evaluate(spec_of(output=str(tmp_path), reference=other), "typed")
    assert far["distances"]["random3d"]["frechet"] > 1
    assert (tmp_path / "results.json").is_file()
    assert far["command"] == "typed"

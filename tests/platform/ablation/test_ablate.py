"""`rayramid ablate` from a spec to a figure, killed on its way and started again."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from latent_dataset import write_dataset
from ray_nodes import wait_until

from rayramid.models.tiny import write_tiny_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


MEASURED = "*/measured/*.json"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """One level against three on a handful of blobs, a few steps each; and the three without corrective noise."""
    root = tmp_path / "blobs"
    write_dataset(root, ((8, 8, 3), (8, 8, 1)))
    write_tiny_text(root / "models" / "text")
    phase = {"name": "only", "data": [str(root)], "steps": 1, "tokens_per_bin": 400, "bins_per_step": 1}
    base = {"kind": "train", "output": str(tmp_path / "unused"), "model": {"preset": "tiny"}, "phases": [phase]}
    base |= {"sampling": {"first_steps": 1, "later_steps": 1}, "checkpoints": {"every": 3}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(base))
    ablation = {
        "kind": "ablation",
        "title": "Levels",
        "question": "Three or one?",
        "output": str(tmp_path / "killed"),
        "runs": str(tmp_path / "killed" / "runs"),
        "base": "train.yaml",
        "arms": {"one": {"model.levels": 1}, "three": {}, "blocky": {"model.renoise": False}},
        "seeds": [0],
        "tflop": 0.03,
        "points": [0.5, 1],
        "measure": {"loss": True, "prompts": 2, "lengths": [9], "reference": 3},
        "hours": 0.1,
    }
    path = tmp_path / "ablation.yaml"
    path.write_text(yaml.safe_dump(ablation))
    return path


@contextmanager
def ablating(spec: Path, address: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "rayramid.platform.cli", "ablate", str(spec), "--address", address, *arguments]
    with (spec.parent / "said.txt").open("a") as said:
        process = subprocess.Popen(command, env=os.environ, stdout=said, stderr=said, start_new_session=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_killed_and_started_again_it_measures_what_it_would_have_measured(spec, ray_cluster, tmp_path):
    runs = tmp_path / "killed" / "runs"
    with ablating(spec, ray_cluster) as driver:
        wait_until(lambda: any(runs.glob(MEASURED)))
        driver.kill()
        assert driver.wait(600) == -signal.SIGKILL
    before = {file: file.stat().st_mtime_ns for file in runs.glob(MEASURED)}
    assert 0 < len(before) < 6
    with ablating(spec, ray_cluster) as driver:
        assert driver.wait(900) == 0, (tmp_path / "said.txt").read_text()
    assert {file: file.stat().st_mtime_ns for file in before} == before

    result = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert len(list(runs.iterdir())) == 2
    assert "<circle" in (tmp_path / "killed" / "figure.svg").read_text()
    for arm, found in result["arms"].items():
        first, last = found["seeds"]["0"]
        assert 0 < first["tflop"] <= 0.015 < last["tflop"] <= 0.03, arm
    # The same weights, sampled otherwise.
    with_noise, without = (result["arms"][arm]["seeds"]["0"] for arm in ("three", "blocky"))
    assert [point["loss"] for point in with_noise] == [point["loss"] for point in without]
    assert [point["frechet"] for point in with_noise] != [point["frechet"] for point in without]

    undisturbed = tmp_path / "undisturbed"
    elsewhere = ["--set", f"output={undisturbed}", "--set", f"runs={undisturbed / 'runs'}"]
    with ablating(spec, ray_cluster, *elsewhere) as driver:
        assert driver.wait(900) == 0, (tmp_path / "said.txt").read_text()
    again = json.loads((undisturbed / "result.json").read_text())
    assert again["distances"] == result["distances"]
    assert again["shares"] == result["shares"]

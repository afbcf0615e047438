"""Videos of a checkpoint, what is measured on them, and how late records find their way into the metrics."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from clock import wait_for_another_second, wait_until
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rayramid.models import storage
from rayramid.models.media.preview import sprite_sheet
from rayramid.models.media.read import read_frames
from rayramid.models.media.write import write_mp4
from rayramid.platform.training.late import Late, write_late
from rayramid.platform.training.loop import run
from rayramid.platform.training.metrics import Metrics, read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.seeing import MetricsSettings
from rayramid.platform.training.videos import mean_of, newest_report, read_report, sample_videos

CPU = torch.device("cpu")
PROMPTS = ["a blob moves left", "a picture"]


@pytest.fixture
def trained_on(spec):
    """Two steps of a run that wants videos, in one process, with its output at a URL."""

    def train(output):
        wanted = settle(
            spec(
                output=output,
                phase={"steps": 2},
                videos={"prompts": PROMPTS, "seed": 5},
                sampling={"first_steps": 1, "later_steps": 1, "guidance": 1.0, "video_guidance": 1.0},
            )
        )
        run(wanted, Ranks(1, 0, CPU), lambda step, record: None)
        return wanted

    return train


def test_videos_of_a_checkpoint_lie_beside_their_measures(trained_on, tmp_path):
    trained = trained_on(str(tmp_path / "run"))
    report = sample_videos(trained, trained.videos, CPU)
    folder = Path(trained.output, "validation", "step-00000002")
    assert {file.name for file in folder.iterdir()} == {
        "prompt-0.mp4",
        "prompt-0.webp",
        "prompt-1.mp4",
        "prompt-1.webp",
        "metrics.json",
    }
    assert json.loads((folder / "metrics.json").read_text()) == report
    assert [(each["prompt"], each["seed"], each["video"]) for each in report["prompts"]] == [
        (PROMPTS[0], 5, "prompt-0.mp4"),
        (PROMPTS[1], 6, "prompt-1.mp4"),
    ]
    # 1 + 8 + 8 frames of 64x64: three units.
    frames = np.concatenate(list(read_frames(folder / "prompt-0.mp4")))
    assert frames.shape == (17, 64, 64, 3)
    measures = report["prompts"][0]["measures"]
    curves = {name for name, value in measures.items() if isinstance(value, list)}
    assert {"sharpness", "fine_detail", "saturation", "colour_shift", "latent_shift", "latent_spread"} <= curves
    assert all(len(measures[name]) == 3 for name in curves)
    assert {"steadiness", "motion_energy", "boundary_jump"} <= measures.keys() - curves
    assert list(report["mean"]["sharpness"]) == ["0", "1", "2"]

    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert sample_videos(trained, trained.videos, CPU) == report
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    assert newest_report(trained.output) == read_report(trained.output, 2) == report


def test_means_are_over_the_prompts_that_have_a_measure():
    found = mean_of(
        [
            {"jump": 1.0, "curve": [1.0, 2.0, 3.0], "none": None},
            {"jump": None, "curve": [3.0, 4.0], "none": None},
            {"jump": 4.0, "curve": [5.0, 6.0, 7.0], "none": None},
        ]
    )
    assert found == {"jump": 2.5, "curve": {"0": 3.0, "1": 4.0}}


def test_a_late_record_is_written_once_and_its_videos_are_shown(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("wandb")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    write_mp4(tmp_path / "prompt-0.mp4", frames, 8)
    (tmp_path / "prompt-0.webp").write_bytes(sprite_sheet(frames, columns=5))
    late = Late(2, {"videos": {"steadiness": 0.5}}, {"videos/prompt-0": str(tmp_path / "prompt-0.mp4")})
    store = f"file://{tmp_path / 'mlruns'}"
    settings = MetricsSettings.model_validate({"mlflow": {"tracking_uri": store}, "wandb": {"mode": "offline"}})
    output = str(tmp_path / "late")
    for _ in range(2):
        wait_for_another_second()
        metrics = Metrics(output, 3, settings)
        metrics.write(3, {"phase": "only", "loss": 1.0})
        write_late(metrics, [late])
        write_late(metrics, [late])
        metrics.close()
    assert [record["step"] for record in read_metrics(output) if "videos" in record] == [2]

    events = EventAccumulator(str(tmp_path / "late" / "tensorboard")).Reload()
    (image,) = events.Images("videos/prompt-0")
    assert (image.step, image.width, image.height) == (2, 80, 16)
    assert [event.step for event in events.Scalars("videos/steadiness")] == [2]
    client = mlflow.MlflowClient(tracking_uri=store)
    (tracked,) = client.search_runs([client.get_experiment_by_name("rayramid").experiment_id])
    (video,) = client.list_artifacts(tracked.info.run_id, "videos/prompt-0/step-00000002")
    assert video.path.endswith(".mp4")
    shown = (tmp_path / "prompt-0.mp4").read_bytes()
    kept = "wandb/offline-run-*/files/media/videos/videos/*.mp4"
    wait_until(lambda: shown in [file.read_bytes() for file in (tmp_path / "late").glob(kept)])
    assert [file.read_bytes() for file in (tmp_path / "late").glob(kept)] == [shown]


def test_curves_show_one_value_per_step_after_a_restart(tmp_path):
    first = Metrics(str(tmp_path), 0)
    for step in (1, 2, 3, 4):
        first.write(step, {"loss": float(step)})
    first.flush()
    wait_for_another_second()
    second = Metrics(str(tmp_path), 2)
    for step in (3, 4, 5):
        second.write(step, {"loss": 10.0 * step, "bad": math.nan})
    second.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (1, 1),
        (2, 2),
        (3, 30),
        (4, 40),
        (5, 50),
    ]
    assert events.Tags()["scalars"] == ["loss"]


@pytest.mark.slow
def test_videos_go_to_s3(trained_on, s3_bucket):
    trained = trained_on(s3_bucket)
    report = sample_videos(trained, trained.videos, CPU)
    assert newest_report(s3_bucket) == report
    assert storage.size(storage.join(s3_bucket, "validation", "step-00000002", "prompt-1.mp4")) > 500

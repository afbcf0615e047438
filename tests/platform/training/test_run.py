"""What a run refuses before it starts, what may change between two starts, and the dry run."""

import dataclasses

import pytest

from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.presets import preset
from rayramid.platform.training.run import dry_run, settle


def test_a_dry_run_tells_sizes_and_writes_nothing(spec, tmp_path):
    report = dry_run(spec(phase={"steps": 64}))
    assert report.parameters == sum(weight.numel() for weight in DiT(preset("tiny")).parameters())
    (phase,) = report.phases
    assert (phase.videos, phase.images, report.held_out) == (5, 5, 2)
    assert phase.tokens_per_step <= 400
    assert phase.epochs == pytest.approx(64 / phase.steps_per_epoch)
    assert phase.image_share == pytest.approx(0.125, abs=0.03)
    assert "a step reads" in report.text()
    assert dataclasses.asdict(report)["phases"][0]["name"] == "only"
    assert not (tmp_path / "run").exists()


def test_a_run_that_would_read_nothing_is_refused(spec):
    with pytest.raises(UserError, match="phase 'only' would read no clips"):
        dry_run(spec(phase={"buckets": ["128x128x9"]}))


def test_a_clip_larger_than_a_bin_is_refused_with_the_number(spec):
    with pytest.raises(UserError, match=r"takes up to \d+ tokens, tokens_per_bin is 20"):
        dry_run(spec(phase={"tokens_per_bin": 20}))


def test_stage_weights_that_are_not_one_for_each_stage_are_refused(spec):
    with pytest.raises(UserError, match="phase 'only' has 2 stage_weights and the model 3 stages"):
        dry_run(spec(phase={"stage_weights": [1, 2]}))


def test_datasets_of_two_vaes_are_refused_with_both_names(spec, dataset, other_dataset):
    with pytest.raises(UserError) as refused:
        dry_run(spec(phase={"data": [dataset, other_dataset]}))
    message = str(refused.value)
    assert dataset in message
    assert other_dataset in message
    assert "encode both with the same VAE" in message


def test_an_output_belongs_to_the_run_that_began_it(spec):
    settle(spec())
    settle(spec(workers={"count": 2}, log_every=3))
    first = spec().model_dump()["phases"][0]
    settle(spec(phases=[first, first | {"name": "more"}]))
    with pytest.raises(UserError, match=r"holds a run that differs in phases\.0\.learning_rate"):
        settle(spec(phases=[first | {"learning_rate": 1.0}, first | {"name": "more"}]))
    with pytest.raises(UserError, match=r"differs in phases\.1"):
        settle(spec())
    with pytest.raises(UserError, match=r"differs in seed"):
        settle(spec(seed=1, phases=[first, first | {"name": "more"}]))


def test_a_run_keeps_the_dataset_version_it_began_with(spec, growing_dataset):
    root, grow = growing_dataset
    assert settle(spec(phase={"data": [root]})).phases[0].data[0].version == 1
    grow()
    assert settle(spec(phase={"data": [root]})).phases[0].data[0].version == 1
    assert settle(spec(phase={"data": [root]}, output=root + "-other")).phases[0].data[0].version == 2

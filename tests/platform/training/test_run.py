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
        dry_run(spec(phase={"latents": 9, "image_share": 0.5, "buckets": ["64x64x3"]}))


def test_a_bucket_that_no_dataset_has_is_refused_with_those_there_are(spec):
    with pytest.raises(UserError, match="none of its datasets has the bucket 64x64x4; did you mean 64x64x"):
        dry_run(spec(phase={"buckets": ["64x64x4"]}))


def test_hours_follow_from_what_a_worker_sustains(spec):
    assert dry_run(spec()).hours is None
    report = dry_run(spec(workers={"count": 2, "tflops": 0.5}))
    (phase,) = report.phases
    assert report.hours == pytest.approx(6 * phase.flops_per_step / phase.balance / (2 * 0.5e12) / 3600)
    again = dry_run(spec(workers={"count": 2, "tflops": 0.5}, memory={"recompute": "full"}))
    assert again.hours == pytest.approx(report.hours * 4 / 3)
    assert "at 0.5 TFLOP/s a worker" in report.text()


def test_buckets_share_tokens_and_steps(spec):
    (phase,) = dry_run(spec(phase={"steps": 64})).phases
    images, videos = phase.buckets
    assert [(b.bucket, b.clips) for b in (images, videos)] == [("64x64x1", 5), ("64x64x3", 5)]
    assert images.token_share == pytest.approx(phase.image_share)
    assert images.steps_per_epoch + videos.steps_per_epoch == pytest.approx(phase.steps_per_epoch)


def outlined(spec, tmp_path, clips):
    outline = {"clips": {"64x64x1": clips, "64x64x3": clips, "128x64x5": 2 * clips}, "text_tokens": 5}
    return spec(phase={"steps": 64, "data": [{"root": str(tmp_path / "not there"), "outline": outline}]})


def test_an_outline_stands_for_a_dataset_of_any_size_in_a_dry_run(spec, tmp_path):
    few, many = (dry_run(outlined(spec, tmp_path, clips)) for clips in (1000, 50_000_000))
    assert (many.phases[0].videos, many.phases[0].images) == (150_000_000, 50_000_000)
    assert many.phases[0].steps_per_epoch / few.phases[0].steps_per_epoch == pytest.approx(50_000, rel=0.02)
    assert many.phases[0].image_share == pytest.approx(0.125, abs=0.02)
    assert "not there: not there yet, counted as the spec outlines them" in many.text()


def test_training_does_not_look_at_an_outline(spec, tmp_path):
    with pytest.raises(UserError, match="not there: no dataset here"):
        settle(outlined(spec, tmp_path, 1000))


def test_a_dataset_that_is_there_is_read_and_not_its_outline(spec, dataset):
    root = {"root": dataset, "outline": {"clips": {"64x64x3": 1_000_000}}}
    assert dry_run(spec(phase={"data": [root]})).phases[0].videos == 5


def test_a_clip_larger_than_a_bin_is_refused_with_the_number(spec):
    with pytest.raises(UserError, match=r"takes up to \d+ tokens, tokens_per_bin is 20"):
        dry_run(spec(phase={"tokens_per_bin": 20}))


def test_stage_weights_that_are_not_one_for_each_stage_are_refused(spec):
    with pytest.raises(UserError, match="phase 'only' has 2 stage_weights and the model 3 stages"):
        dry_run(spec(phase={"stage_weights": [1, 2]}))


def test_a_phase_without_the_finest_stage_reads_fewer_tokens_for_each_target(spec):
    whole, coarse = (dry_run(spec(phase={"finest_level": level})).phases[0] for level in (0, 1))
    assert coarse.tokens_per_step / coarse.targets_per_step < 0.6 * whole.tokens_per_step / whole.targets_per_step


def test_a_finest_level_that_the_model_does_not_have_is_refused(spec):
    with pytest.raises(UserError, match="phase 'only' has finest_level 3; the model has levels 0 to 2"):
        dry_run(spec(phase={"finest_level": 3}))


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

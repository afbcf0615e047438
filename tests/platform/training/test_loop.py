"""The loop on the real dataset, model and storage: exact over deaths and over numbers of ranks."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rayramid.models import storage
from rayramid.models.checkpoint import load_model
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.data import index_of
from rayramid.platform.training.export import export
from rayramid.platform.training.feed import Share
from rayramid.platform.training.footprint import measure_for
from rayramid.platform.training.loop import Run, run
from rayramid.platform.training.metrics import flat, read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import deal, phase_seed, plan
from rayramid.platform.training.run import settle
from rayramid.platform.training.tally import Tally
from rayramid.platform.training.validation import held_out

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import KILLED, train_in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))


pytestmark = pytest.mark.usefixtures("one_thread")


def silent(step, record):
    pass


def losses(output):
    return [(r["step"], r["loss"], r["stages"]) for r in read_metrics(output) if "loss" in r]


def held_out_losses(output):
    return [(r["step"], r["validation_loss"]) for r in read_metrics(output) if "validation_loss" in r]


def final_weights(spec):
    """Model and average of the newest checkpoint."""
    own = Run(spec, ALONE)
    own.resume()
    return {f"model.{k}": v for k, v in own.learner.model.state_dict().items()} | {
        f"ema.{k}": v for k, v in own.state.ema.average.items()
    }


def test_a_killed_run_goes_on_bit_for_bit_and_exports(spec, tmp_path):
    undisturbed = settle(spec(output=str(tmp_path / "undisturbed"), checkpoints={"every": 2, "keep_last": 10}))
    run(undisturbed, ALONE, silent)

    (tmp_path / "meetings").mkdir()
    killed = settle(spec(output=str(tmp_path / "killed"), checkpoints={"every": 2, "keep_last": 10}))
    # Killed after the line of step 5: step 2 is committed since the save of step 4 began, which is done by now or not.
    assert train_in_processes(killed, 1, tmp_path / "meetings", die_at=5) == [KILLED]
    assert checkpoints.latest(storage.join(killed.output, "checkpoints")).step in (2, 4)
    assert [step for step, _, _ in losses(killed.output)] == [1, 2, 3, 4, 5]
    run(killed, ALONE, silent)

    assert losses(killed.output) == losses(undisturbed.output)
    assert held_out_losses(killed.output) == held_out_losses(undisturbed.output)
    assert [step for step, _ in held_out_losses(killed.output)] == [3, 6]
    expected = final_weights(undisturbed)
    found = final_weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)

    model = load_model(export(killed))
    assert (model.card.width, model.card.height, model.card.frames, model.card.step) == (64, 64, 17, 6)
    assert torch.equal(model.dit.patch_in.weight, expected["ema.patch_in.weight"])
    assert not torch.equal(model.dit.patch_in.weight, expected["model.patch_in.weight"])


def test_two_ranks_compute_what_one_does(spec, dataset, tmp_path):
    (tmp_path / "meetings").mkdir()
    phase = {"data": [dataset], "steps": 2, "learning_rate": 1e-3, "tokens_per_bin": 200}
    # Three bins: in every step the second rank has one fewer and runs a filler. Then one bin for each.
    phases = [phase | {"name": "three", "bins_per_step": 3}, phase | {"name": "two", "bins_per_step": 2}]
    # Of few targets, the signal may by chance be none: not with this seed.
    fields = {"precision": "float64", "phases": phases, "metrics": {"gradient_noise_every": 1}, "seed": 5}
    one = settle(spec(output=str(tmp_path / "one"), **fields))
    two = settle(spec(output=str(tmp_path / "two"), **fields))
    run(one, ALONE, silent)
    assert train_in_processes(two, 2, tmp_path / "meetings") == [0, 0]

    for (step, alone, table), (step_two, shared, shared_table) in zip(
        losses(one.output), losses(two.output), strict=True
    ):
        assert step == step_two
        assert shared == pytest.approx(alone, rel=1e-10)
        assert shared_table["0"] == pytest.approx(table["0"], rel=1e-10)
    # With one bin for each, the first rank's is the first half of the step.
    (_, noise), (_, shared_noise) = (
        [r["gradient_noise_ratio"] for r in read_metrics(run.output) if r.get("phase") == "two"] for run in (one, two)
    )
    assert shared_noise == pytest.approx(noise, rel=1e-8)
    assert [r["rank_balance"] for r in read_metrics(two.output) if "loss" in r] == pytest.approx(balances(two, 2))
    assert dict(held_out_losses(two.output)) == pytest.approx(dict(held_out_losses(one.output)), rel=1e-10)
    expected, found = final_weights(one), final_weights(two)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-10, atol=1e-10)


def balances(spec, world):
    """What the planned dealing makes of every step."""
    here = Run(spec, ALONE)
    found = []
    for phase in spec.phases:
        index = index_of(phase, here.datasets, measure_for(here.config), frames_per_unit=1)
        for step in range(phase.steps):
            bins = plan(index, phase, spec.seed, step)
            work = [sum(b.flops for b in mine) for mine in deal(bins, world)]
            found.append(sum(work) / world / max(work))
    return found


def test_measuring_the_gradients_noise_changes_nothing(spec, tmp_path):
    fields = {"phase": {"steps": 2}, "checkpoints": {"every": 2}}
    measured = settle(spec(output=str(tmp_path / "yes"), metrics={"gradient_noise_every": 2}, **fields))
    unmeasured = settle(spec(output=str(tmp_path / "no"), metrics={"gradient_noise_every": None}, **fields))
    for each in (measured, unmeasured):
        run(each, ALONE, silent)
    assert losses(measured.output) == losses(unmeasured.output)
    expected, found = final_weights(unmeasured), final_weights(measured)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    lines = [r for r in read_metrics(measured.output) if "loss" in r]
    assert ["gradient_noise_ratio" in line for line in lines] == [False, True]


def test_the_held_out_loss_does_not_depend_on_the_packing(spec):
    """Clips whole, in pieces of one and two units, and units that are larger than a bin."""
    here = Run(settle(spec(precision="float64")), ALONE)
    torch.nn.init.normal_(here.learner.model.head.out.weight, std=0.1)
    here.state.ema.update(10**9)
    found, pieces = [], []
    for budget in (200, 100, 70, 1):
        phase = here.spec.phases[0].model_copy(update={"tokens_per_bin": budget})
        index = index_of(phase, here.datasets, measure_for(here.config), frames_per_unit=1, split="val")
        bins = held_out(index, phase, 4)
        pieces.append([[(item.first_unit, item.units) for item in b.items] for b in bins])
        found.append(here.validate(phase))
    # First unit and units of every piece, by bin: a video of three units and an image.
    assert pieces == [
        [[(0, 3), (0, 1)]],
        [[(0, 2), (0, 1)], [(2, 1)]],
        [[(0, 2)], [(2, 1)], [(0, 1)]],
        [[(2, 1)], [(1, 1)], [(0, 1)], [(0, 1)]],
    ]
    for other in found[1:]:
        assert other.mean == pytest.approx(found[0].mean, rel=1e-12)
        assert flat(other.table) == pytest.approx(flat(found[0].table), rel=1e-12)
        assert flat(other.noise) == pytest.approx(flat(found[0].noise), rel=1e-12)


def test_the_packed_loss_is_the_mean_over_targets_clip_by_clip(spec):
    here = Run(settle(spec(precision="float64")), ALONE)
    torch.nn.init.normal_(here.learner.model.head.out.weight, std=0.1)
    phase, _, share = next(here.shares(0))
    packed, single = Tally(), Tally()
    for clips in share.bins:
        packed.add(here.learner.loss(clips, phase, seed=1))
        for clip in clips:
            single.add(here.learner.loss((clip,), phase, seed=1))
    together, apart = packed.gather(ALONE), single.gather(ALONE)
    assert together.mean == pytest.approx(apart.mean, rel=1e-12)
    assert together.table["2"] == pytest.approx(apart.table["2"], rel=1e-12)


@pytest.mark.parametrize("finest", [0, 1])
def test_the_gradient_is_of_the_mean_over_targets_weighted_by_stage(spec, finest):
    phase = {"stage_weights": (1, 2, 5) if finest == 0 else None, "finest_level": finest}
    here = Run(settle(spec(precision="float64", phase=phase, optimizer={"clip": 1e9})), ALONE)
    torch.nn.init.normal_(here.learner.model.head.out.weight, std=0.1)
    phase, local, share = next(here.shares(0))
    weights = {2: 1.0, 1: 2.0, 0: 5.0} if finest == 0 else {2: 1.0, 1: 1.0}
    total = count = 0.0
    for clip in (clip for clips in share.bins for clip in clips):
        loss = here.learner.loss((clip,), phase, phase_seed(here.spec.seed, phase))
        total = total + sum(weights[level] * error for level, error in zip(loss.levels, loss.errors, strict=True))
        count += sum(weights[level] for level in loss.levels)
    gradients = torch.autograd.grad(total / count, list(here.learner.model.parameters()), allow_unused=True)
    expected = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    assert here.learner.step(phase, local, share, Tally()) == pytest.approx(float(expected), rel=1e-10)


def test_held_out_clips_are_measured_in_every_stage_whatever_the_phase_trains(spec):
    here = Run(settle(spec(phase={"finest_level": 2})), ALONE)
    phase, _, share = next(here.shares(0))
    assert {level for clips in share.bins for level in here.learner.loss(clips, phase, seed=0).levels} == {2}
    assert set(here.validate(phase).table) == {"0", "1", "2"}


def test_a_step_that_is_not_finite_changes_nothing_is_counted_and_bounded(spec):
    here = Run(settle(spec(optimizer={"skip_limit": 1})), ALONE)
    phase, local, share = next(here.shares(0))
    here.learner.step(phase, local, share, Tally())
    before = {name: weight.clone() for name, weight in here.learner.model.state_dict().items()}
    poisoned = poison(share)
    assert not math.isfinite(here.learner.step(phase, local, poisoned, Tally()))
    assert (here.state.step, here.state.skipped) == (2, 1)
    assert all(torch.equal(weight, before[name]) for name, weight in here.learner.model.state_dict().items())
    assert math.isfinite(here.learner.step(phase, local, share, Tally()))
    with pytest.raises(UserError, match=r"2 steps had a loss or gradient that is not finite .*phase 'only'"):
        here.learner.step(phase, local, poisoned, Tally())


def poison(share: Share) -> Share:
    """The same share with latents so large that their squared error overflows."""
    clips = share.bins[0]
    broken = replace(clips[0], latent_CTHW=clips[0].latent_CTHW + 1e30)
    return replace(share, bins=((broken, *clips[1:]), *share.bins[1:]))


def test_the_dataset_is_read_as_planned(spec):
    here = Run(settle(spec()), ALONE)
    phase, _, share = next(here.shares(3))
    index = index_of(phase, here.datasets, measure_for(here.config), frames_per_unit=1)
    assert share.units == sum(b.units for b in plan(index, phase, here.spec.seed, 3))
    clip = share.bins[0][0]
    assert clip.latent_CTHW.shape[0] == 16
    assert clip.text_LD.shape[1] == 64


def test_training_learns_a_handful_of_clips(spec):
    overfit = settle(
        spec(
            phase={"steps": 60, "learning_rate": 3e-3, "bins_per_step": 2, "tokens_per_bin": 400, "image_share": 0},
            checkpoints={"every": 60},
            validation={"every": 60},
        )
    )
    run(overfit, ALONE, silent)
    values = [loss for _, loss, _ in losses(overfit.output)]
    assert sum(values[-5:]) / 5 < 0.5 * values[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("die_at", [1, 3, 5])
def test_two_ranks_of_which_one_is_killed_go_on_bit_for_bit(spec, tmp_path, die_at):
    (tmp_path / "meetings").mkdir()
    undisturbed, killed = (settle(spec(output=str(tmp_path / name))) for name in ("undisturbed", "killed"))
    assert train_in_processes(undisturbed, 2, tmp_path / "meetings") == [0, 0]
    assert KILLED in train_in_processes(killed, 2, tmp_path / "meetings", die_at=die_at)
    assert train_in_processes(killed, 2, tmp_path / "meetings") == [0, 0]
    assert losses(killed.output) == losses(undisturbed.output)
    expected, found = final_weights(undisturbed), final_weights(killed)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_run_lives_on_s3(spec, s3_bucket):
    first = settle(spec(output=s3_bucket, phase={"steps": 2}))
    run(first, ALONE, silent)
    again = settle(spec(output=s3_bucket, phase={"steps": 2}))
    resumed = Run(again, ALONE)
    resumed.resume()
    assert resumed.state.step == 2
    assert [step for step, _, _ in losses(s3_bucket)] == [1, 2]
    assert load_model(export(again)).card.step == 2


def test_a_run_that_ends_in_an_error_leaves_its_lines_on_s3(spec, s3_bucket):
    calls = []

    def fail():
        calls.append(1)
        if len(calls) == 3:
            raise UserError("enough")
        return ""

    failing = settle(spec(output=s3_bucket, phase={"steps": 5}, checkpoints={"every": 5}))
    with pytest.raises(UserError, match="enough"):
        run(failing, ALONE, silent, fail)
    assert [step for step, _, _ in losses(s3_bucket)] == [1, 2]
    assert list(storage.list_files(storage.join(s3_bucket, "tensorboard")))

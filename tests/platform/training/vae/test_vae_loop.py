"""The loop on real clips: exact over deaths and over numbers of ranks; what comes out encodes."""

import sys
from pathlib import Path

import pytest
import torch

from rayramid.models import storage
from rayramid.models.vae.io import load_vae
from rayramid.models.vae.streaming import encode_video
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.vae.clips import noted_clips, readable
from rayramid.platform.training.vae.export import exported
from rayramid.platform.training.vae.feed import ClipReader
from rayramid.platform.training.vae.loop import Run, run
from rayramid.platform.training.vae.run import settle
from rayramid.platform.training.vae.validation import centre

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))
from clips_of_waves import TINY
from processes import KILLED, train_in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))
ADVERSARIAL = {"weight": 0.5, "start": 1, "channels": 8, "layers": 2}
LOSSES = {"perceptual": {"weight": 0}, "kl": 1e-4, "adversarial": ADVERSARIAL}


def silent(step, record):
    pass


def settled(spec):
    settle(spec)
    return spec


def lines(output):
    return [(r["step"], r["loss"], r["terms"]) for r in read_metrics(output) if "loss" in r]


def measures(output):
    return [(r["step"], r["validation"]) for r in read_metrics(output) if "validation" in r]


def final_weights(spec):
    """All weights of the newest checkpoint: VAE, discriminator, average."""
    own = Run(spec, ALONE)
    own.resume()
    own.reader.close()
    return {**own.state.model.state_dict(), **{f"ema.{k}": v for k, v in own.state.ema.average.items()}}


@pytest.mark.slow
def test_a_killed_run_goes_on_bit_for_bit_and_exports(vae_spec, tmp_path):
    fields = {"losses": LOSSES, "optimizer": {"kind": "muon"}, "phase": {"steps": 6}}
    undisturbed = settled(vae_spec(output=str(tmp_path / "undisturbed"), **fields))
    run(undisturbed, ALONE, silent)
    killed = settled(vae_spec(output=str(tmp_path / "killed"), **fields))
    # The codec that both start from is fitted once; the killed run has its own.
    (tmp_path / "meetings").mkdir()
    # Killed after the line of step 5: step 2 is committed since the save of step 4 began, which is done by now or not.
    assert train_in_processes(killed, 1, tmp_path / "meetings", die_at=5) == [KILLED]
    assert checkpoints.latest(storage.join(killed.output, "checkpoints")).step in (2, 4)
    assert exported(killed) is None
    run(killed, ALONE, silent)

    assert lines(killed.output) == lines(undisturbed.output)
    assert measures(killed.output) == measures(undisturbed.output)
    expected, found = final_weights(undisturbed), final_weights(killed)
    assert any(name.startswith("discriminator.") for name in expected)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    exported_weights = load_vae(exported(killed)).state_dict()
    assert all(torch.equal(weight, expected[f"ema.{name}"]) for name, weight in exported_weights.items())


@pytest.mark.parametrize("kind", [pytest.param("frame", marks=pytest.mark.slow), "video"])
def test_two_ranks_that_share_clips_and_their_time_compute_what_one_does(vae_spec, tmp_path, kind):
    # The first phase has whole clips on each rank, the second one clip's time over both; images go to either.
    first = vae_spec().model_dump()["phases"][0] | {"steps": 2, "clips_per_step": 3}
    second = first | {"name": "long", "frames": 25, "clips_per_step": 2}
    fields = {
        "precision": "float64",
        "losses": LOSSES | {"adversarial": ADVERSARIAL | {"kind": kind}},
        "checkpoints": {"every": 4},
        "statistics": {"clips": 4},
        "optimizer": {"kind": "muon"},
    }
    one = settled(vae_spec(output=str(tmp_path / "one"), phases=[first, second], **fields))
    run(one, ALONE, silent)
    split = [first, second | {"time_split": 2}]
    two = settled(vae_spec(output=str(tmp_path / "two"), phases=split, workers={"count": 2}, **fields))
    (tmp_path / "meetings").mkdir()
    assert train_in_processes(two, 2, tmp_path / "meetings") == [0, 0]

    assert [step for step, _, _ in lines(two.output)] == [1, 2, 3, 4]
    for (_, alone, terms), (_, shared, shared_terms) in zip(lines(one.output), lines(two.output), strict=True):
        assert shared == pytest.approx(alone, rel=1e-10)
        assert shared_terms == pytest.approx(terms, rel=1e-9)
    expected, found = final_weights(one), final_weights(two)
    for name in expected:
        # Biases before a norm have no gradient but rounding, which AdamW takes for a direction.
        torch.testing.assert_close(found[name], expected[name], rtol=1e-7, atol=1e-7)
    assert load_vae(exported(two)).config.video_shift == pytest.approx(load_vae(exported(one)).config.video_shift)


def test_how_many_clips_are_computed_at_once_changes_nothing(vae_spec, tmp_path):
    found = []
    for at_once in (1, 3):
        phase = {"clips_per_step": 4, "clips_at_once": at_once, "steps": 3}
        fields = {"precision": "float64", "losses": LOSSES, "checkpoints": {"every": 9}, "validation": {"every": 9}}
        here = Run(settled(vae_spec(phase=phase, output=str(tmp_path / str(at_once)), **fields)), ALONE)
        for work in here.work(0):
            here.advance(work)
        found.append(here.told(work)["terms"])
        here.reader.close()
    assert found[0]["adaptive_weight"] > 0
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_a_phase_of_images_alone_reads_and_measures_images(vae_spec):
    spec = settled(vae_spec(phase={"image_share": 1.0, "frames": 65, "steps": 1}, model=TINY | {"patch_skip": False}))
    run(spec, ALONE, silent)
    (_, loss, terms), (_, found) = *lines(spec.output), *measures(spec.output)
    assert loss == pytest.approx(terms["reconstruction"] * 1 + 1e-4 * terms["kl"])
    assert list(found["psnr_by_frame"]) == ["0"]
    vae = load_vae(exported(spec))
    assert vae.config.image_scale != 1
    assert (vae.config.video_shift, vae.config.video_scale) == (0, 1)


def test_the_discriminator_begins_at_its_step(vae_spec):
    here = Run(settled(vae_spec(losses=LOSSES | {"adversarial": ADVERSARIAL | {"start": 2}})), ALONE)
    before = {name: weight.clone() for name, weight in here.learner.discriminator.state_dict().items()}
    seen = []
    for work in here.work(0):
        here.advance(work)
        terms = here.told(work)["terms"]
        moved = any(not torch.equal(w, before[name]) for name, w in here.learner.discriminator.state_dict().items())
        seen.append((here.state.step, "adversarial" in terms, "discriminator" in terms, moved))
    here.reader.close()
    assert seen == [(1, False, False, False), (2, False, False, False), (3, True, True, True), (4, True, True, True)]


def test_the_exported_statistics_are_those_of_the_training_clips_latents(vae_spec):
    spec = settled(vae_spec(statistics={"clips": 5}))
    run(spec, ALONE, silent)
    vae = load_vae(exported(spec))
    phase = spec.phases[0]
    found = readable(noted_clips(spec, phase), phase, "train")
    reader = ClipReader(spec.decode, skip=False)
    latents = [encode_video(vae, [centre(reader.whole(row, phase, 17), phase)]) for row in found.videos[:5]]
    stills = [encode_video(vae, [centre(reader.whole(row, phase, 1), phase)]) for row in found.images[:5]]
    reader.close()
    first = torch.cat([z[:, :1].flatten() for z in latents + stills]).double()
    later = torch.cat([z[:, 1:].flatten() for z in latents]).double()
    assert vae.config.image_shift == pytest.approx(float(first.mean()), rel=1e-6)
    assert vae.config.image_scale == pytest.approx(1 / float(first.std(correction=0)), rel=1e-6)
    assert vae.config.video_shift == pytest.approx(float(later.mean()), rel=1e-6)
    assert vae.config.video_scale == pytest.approx(1 / float(later.std(correction=0)), rel=1e-6)
    assert len(found.images) > 0

"""What a run refuses before it starts, what may change between two starts, the dry run, and what comes out of it."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.models.vae.config import preset
from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.io import fingerprint, load_vae
from rayramid.models.vae.losses import reconstruction_error
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.past import Whole
from rayramid.models.vae.posterior import posterior_sample
from rayramid.models.weights import write_weights
from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.clips import read_clips
from rayramid.pipelines.encoders import vae_encoder
from rayramid.pipelines.outcomes import outcomes_of
from rayramid.pipelines.plan import read_plans
from rayramid.pipelines.spec import DataSpec, Thresholds
from rayramid.pipelines.stages import bucketed, encode_work
from rayramid.platform.spec import load_spec
from rayramid.platform.training.late import NothingBeside
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.vae.dry_run import activation_bytes
from rayramid.platform.training.vae.export import exported
from rayramid.platform.training.vae.loop import Run, run
from rayramid.platform.training.vae.model import configure
from rayramid.platform.training.vae.perceptual import why_off
from rayramid.platform.training.vae.run import dry_run, settle, train
from rayramid.platform.training.vae.spec import VAESpec

sys.path.insert(0, str(Path(__file__).parent))
from clips_of_waves import cut_clips, do, wave

ALONE = Ranks(1, 0, torch.device("cpu"))
SPECS = Path(__file__).parents[4] / "infra" / "specs"


def silent(step, record):
    pass


def test_a_dry_run_tells_what_a_run_takes_and_writes_nothing(vae_spec, tmp_path):
    adversarial = {"weight": 0.5, "channels": 8, "layers": 2}
    losses = {"perceptual": {"weight": 0}, "adversarial": adversarial}
    spec = vae_spec(losses=losses, optimizer={"kind": "muon"}, phase={"steps": 1})
    found = dry_run(spec)
    assert not (tmp_path / "run").exists()
    assert found.parameters == sum(weight.numel() for weight in CausalVAE(configure(spec.model)).parameters())
    assert found.discriminator_parameters == sum(w.numel() for w in PatchDiscriminator("frame", 8, 2).parameters())
    (phase,) = found.phases
    assert phase.clips.videos + phase.clips.held_out == 8
    assert (phase.latent, phase.frames_per_step) == ((3, 4, 4), 1.5 * 17 + 0.5)
    assert phase.clips.epochs == pytest.approx(1.5 / phase.clips.videos)
    assert "phase only: 1 steps of 26.0 frames" in found.text()
    assert dataclasses.asdict(found)["phases"][0]["name"] == "only"

    settle(spec)
    here = Run(spec, ALONE)
    for work in here.work(0):
        here.advance(work)
    here.reader.close()
    states = [state for optimizer in here.state.optimizers for state in optimizer.state.values()]
    moments = sum(tensor.nbytes for state in states for name, tensor in state.items() if name != "step")
    weights = sum(weight.nbytes for weight in here.state.model.parameters())
    average = sum(weight.nbytes for weight in here.state.ema.average.values())
    assert found.weight_bytes == 2 * weights + average + moments


@pytest.mark.parametrize("compute", [None, torch.bfloat16])
def test_activations_are_what_the_forward_pass_keeps(compute):
    config, kept = preset("small"), {}
    precision = Precision(torch.float32, compute)
    vae = CausalVAE(config)

    def pack(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    clip = torch.rand(1, 3, 17, 64, 64)
    with precision.autocast(torch.device("cpu")), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        moments = vae.encode_chunk(clip, Whole())
        decoded = vae.decode_chunk(posterior_sample(moments.float(), torch.zeros(1)), Whole())
        reconstruction_error(decoded.float(), clip, "l2")
    weights = {weight.untyped_storage().data_ptr() for weight in vae.parameters()}
    expected = sum(storage.nbytes() for place, storage in kept.items() if place not in weights)
    assert activation_bytes(config, 17, 64, 64, precision) == pytest.approx(expected, rel=0.02)


def test_a_run_that_would_read_nothing_is_refused_with_what_there_is(vae_spec):
    with pytest.raises(UserError, match=r"phase 'only' would read no videos: \d clips are too short for 65 frames"):
        dry_run(vae_spec(phase={"frames": 65}))
    with pytest.raises(UserError, match=r"would read no videos: 0 clips are too short for 17 frames, \d+ too small"):
        dry_run(vae_spec(phase={"size": "96x96", "short_side": None}))
    with pytest.raises(UserError, match="size 36x32 is no multiple of the VAE's 8"):
        dry_run(vae_spec(phase={"size": "36x32"}))
    with pytest.raises(UserError, match=r"20 frames are not 1 \+ 8n"):
        dry_run(vae_spec(phase={"frames": 20}))
    with pytest.raises(UserError, match="17 frames make 3 latents, time_split 2 needs two for each worker: 25 frames"):
        dry_run(vae_spec(phase={"time_split": 2}, workers={"count": 2}))


def test_thresholds_on_scores_leave_clips_out_and_need_scores(vae_spec, clip_root, tmp_path):
    everything = dry_run(vae_spec()).phases[0].clips
    keep = {"brightness": {"min": "quantile:0.5"}}
    bright = dry_run(vae_spec(phase={"data": [{"root": clip_root, "keep": keep}]})).phases[0].clips
    assert 0 < bright.videos + bright.held_out < everything.videos + everything.held_out
    cut_clips(tmp_path / "unscored", Path(clip_root).parent / "videos")
    assert dry_run(vae_spec(phase={"data": [str(tmp_path / "unscored")]})).phases[0].clips == everything
    with pytest.raises(UserError, match="no clip is scored; `keep` needs"):
        settle(vae_spec(phase={"data": [{"root": str(tmp_path / "unscored"), "keep": keep}]}))


def test_without_its_data_a_run_is_sized_and_does_not_start(vae_spec, tmp_path):
    spec = vae_spec(phase={"data": [str(tmp_path / "nothing")]})
    found = dry_run(spec)
    assert found.phases[0].clips is None
    assert found.phases[0].activation_bytes > 0
    assert "warning: phase 'only' can't start" in found.text()
    with pytest.raises(UserError, match="no clips here; cut some with"):
        settle(spec)


def test_the_papers_run_is_sized():
    found = dry_run(load_spec(SPECS / "paper-vae.yaml"))
    assert found.steps == 400_000
    short, long = found.phases
    assert (short.latent, long.latent) == ((3, 32, 32), (16, 32, 32))
    assert short.frames_per_step == pytest.approx(128 * (0.9 * 17 + 0.1))
    page = (SPECS.parents[1] / "docs" / "vae.md").read_text()
    block = page.partition("paper-vae.yaml --dry-run\n")[2].partition("\n```")[0]
    assert block == found.text().replace(f"{Path.cwd()}/", ""), "copy the command's output again"
    # Eight GPUs share a long clip: each keeps less than of a short one.
    assert long.activation_bytes < short.activation_bytes < 40e9


def test_a_run_keeps_the_clips_it_began_with(vae_spec, tmp_path):
    videos = tmp_path / "videos"
    for number in range(6):
        write_mp4(videos / f"wave-{number}.mp4", wave(number), 24.0, crf=6)
    cut_clips(tmp_path / "data", videos)
    spec = vae_spec(phase={"data": [str(tmp_path / "data")]})
    settle(spec)
    before = dry_run(spec).phases[0].clips.videos
    for number in range(10, 20):
        write_mp4(videos / f"wave-{number}.mp4", wave(number), 24.0, crf=6)
    cut_clips(tmp_path / "data", videos)
    assert dry_run(spec).phases[0].clips.videos == before
    assert dry_run(spec.model_copy(update={"output": str(tmp_path / "other")})).phases[0].clips.videos > before


def test_an_output_belongs_to_the_run_that_began_it(vae_spec):
    settle(vae_spec())
    settle(vae_spec(workers={"count": 2}, phase={"time_split": 2, "clips_at_once": 2}, decode={"readers": 2}))
    with pytest.raises(UserError, match=r"holds a run that differs in phases\.0\.learning_rate"):
        settle(vae_spec(phase={"learning_rate": 1.0}))
    with pytest.raises(UserError, match=r"differs in losses\."):
        settle(vae_spec(losses={"perceptual": {"weight": 0}, "kl": 1}))


def test_lpips_without_its_backbone_is_one_warning_and_the_run_goes_on(vae_spec, tmp_path):
    absent = {"perceptual": {"weight": 1.0, "folder": str(tmp_path / "absent")}}
    spec = vae_spec(losses=absent, phase={"steps": 1}, statistics={"clips": 1}, validation={"clips": 1})
    warning = why_off(spec.losses.perceptual)
    assert (
        warning
        == f"training goes on without its perceptual term (LPIPS): {tmp_path}/absent has no vgg16*.pth or .safetensors"
    )
    assert dry_run(spec).text().endswith(f"warning: {warning}")
    settle(spec)
    run(spec, ALONE, silent)
    assert "perceptual" not in read_metrics(spec.output)[0]["terms"]


def test_lpips_with_a_backbone_is_a_term_and_a_measure(vae_spec, tmp_path):
    from torchvision.models import alexnet

    torch.manual_seed(0)
    weights = {name: weight for name, weight in alexnet(weights=None).state_dict().items() if "features" in name}
    write_weights(str(tmp_path / "backbone" / "alexnet.safetensors"), weights)
    perceptual = {"weight": 0.5, "folder": str(tmp_path / "backbone"), "backbone": "alex"}
    size = {"size": "48x48", "short_side": 48, "steps": 1}
    spec = vae_spec(losses={"perceptual": perceptual, "kl": 0}, phase=size, statistics={"clips": 1})
    settle(spec)
    run(spec, ALONE, silent)
    first, validation = read_metrics(spec.output)
    assert first["terms"]["perceptual"] > 0
    assert first["loss"] == pytest.approx(10 * first["terms"]["reconstruction"] + 0.5 * first["terms"]["perceptual"])
    assert set(validation["validation"]["lpips_by_frame"]) == {str(t) for t in range(17)}


def test_a_damaged_file_ends_the_run_by_name_or_is_replaced_and_counted(vae_spec, clip_root, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(Path(clip_root).parent / "videos", videos)
    cut_clips(tmp_path / "data", videos)
    clips = read_clips(str(tmp_path / "data"), Thresholds()).kept.to_pylist()
    damaged = next(row for row in clips if (row["kind"], row["split"]) == ("video", "train"))
    Path(damaged["uri"]).write_bytes(b"no video")
    fields = {"phase": {"data": [str(tmp_path / "data")], "steps": 4, "image_share": 0}}
    fields["model"] = {"preset": "small", "encoder_channels": [8] * 3, "decoder_channels": [8] * 3, "patch_skip": False}
    stopping = vae_spec(**fields)
    settle(stopping)
    with pytest.raises(UserError, match=f"{Path(damaged['uri']).name}.*damaged_clips to skip"):
        run(stopping, ALONE, silent)
    # In four steps of two clips each, all of the at most eight videos are visited.
    skipping = vae_spec(damaged_clips="skip", output=str(tmp_path / "skipping"), **fields)
    settle(skipping)
    run(skipping, ALONE, silent)
    lines = [record for record in read_metrics(skipping.output) if "loss" in record]
    assert [record["step"] for record in lines] == [1, 2, 3, 4]
    assert sum(record["damaged"] for record in lines) > 0
    assert {file for record in lines for file in record["damaged_files"]} == {damaged["uri"]}
    assert json.loads((Path(exported(skipping)) / "training.json").read_text())["damaged_files"] == [damaged["uri"]]


def test_what_comes_out_encodes_through_the_ordinary_job(vae_spec, clip_root, tmp_path):
    spec = vae_spec(phase={"steps": 2})
    settle(spec)
    run(spec, ALONE, silent)
    root = str(tmp_path / "latents")
    data = DataSpec.model_validate(
        {"root": root, "sources": [{"folder": clip_root}], "encode": {"vae": exported(spec), "frames": [17]}}
    )
    clips = read_clips(clip_root, Thresholds()).kept
    clips = clips.filter(pc.equal(clips["kind"], "video")).slice(0, 2)
    encoder = vae_encoder(root, data.encode.vae, [], 30)
    bucket = Bucket(32, 32, 17)
    one = {"bucket": bucket.name, "height": bucket.height, "width": bucket.width, "frames": bucket.frames}
    do(root, encode_work(data, bucketed(data, clips, pa.Table.from_pylist([one, one])), encoder))
    stored = pa.schema([("latent_shape", pa.list_(pa.int32())), ("vae_fingerprint", pa.string())])
    outcomes = outcomes_of(root, "encode", read_plans(root, "encode"), columns=stored)
    assert outcomes.ledger().ok == 2
    assert {(tuple(row["latent_shape"]), row["vae_fingerprint"]) for row in outcomes.rows.to_pylist()} == {
        ((4, 3, 4, 4), encoder.fingerprint)
    }


def test_training_gains_three_decibels_on_held_out_clips(vae_spec):
    phase = {"steps": 60, "learning_rate": 5e-3, "clips_per_step": 3, "clips_at_once": 3, "size": "40x40"}
    spec = vae_spec(
        model=vae_spec().model.model_dump() | {"patch_skip": False},
        phase=phase | {"image_share": 0.1},
        optimizer={"kind": "muon", "muon_learning_rate": 4.0, "betas": [0.9, 0.99], "weight_decay": 0},
        checkpoints={"every": 60},
        validation={"every": 60, "clips": 8},
    )
    settle(spec)
    here = Run(spec, ALONE)
    before = here.quality(spec.phases[0])
    here.train(silent, lambda: "", NothingBeside())
    after = here.quality(spec.phases[0])
    here.reader.close()
    assert before["split"] == after["split"] == "val"
    assert after["psnr"] > before["psnr"] + 3
    assert after["ssim"] > before["ssim"]


def test_the_shipped_specs_are_of_this_kind():
    for name in ("vae-local", "paper-vae"):
        assert isinstance(load_spec(SPECS / f"{name}.yaml"), VAESpec)


def test_a_misspelt_key_is_refused_with_the_right_one(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text("kind: vae\noutput: a\nmodel: {preset: small, shortcutz: true}\nphases: []\n")
    with pytest.raises(UserError, match=r"unknown key 'model\.shortcutz'; did you mean 'shortcuts'\?"):
        load_spec(path)


@pytest.mark.slow
def test_ray_train_makes_a_vae_with_two_workers_and_goes_on_where_it_was(vae_spec, ray_cluster):
    seen = []
    fields = {"workers": {"count": 2}, "losses": {"perceptual": {"weight": 1.0}}, "statistics": {"clips": 4}}
    first = train(vae_spec(**fields), on_progress=lambda *news: seen.append(news[:2]))
    assert first.steps == 4
    assert seen[-1] == (4, 4)
    assert (first.quality["split"], set(first.quality) >= {"psnr", "ssim"}) == ("val", True)
    assert first.fingerprint == fingerprint(load_vae(first.folder))
    assert any("next: rayramid data run SPEC --set encode.vae=" in line for line in first.lines())
    # Finished: the same call tells the same without training.
    seen.clear()
    assert train(vae_spec(**fields), on_progress=lambda *news: seen.append(news[:2])) == first
    assert not seen

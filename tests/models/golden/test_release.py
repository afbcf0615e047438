"""Released folders to checkpoints and back, in every published form of weights, bit for bit."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from rayramid.models import storage
from rayramid.models.card import load_card
from rayramid.models.checkpoint import load_dit, load_model
from rayramid.models.errors import UserError
from rayramid.models.importers.inspect import inspect_weights
from rayramid.models.importers.published import read_published, write_published
from rayramid.models.importers.release import FLUX_TEXT, SD3_TEXT, export_weights, import_weights
from rayramid.models.sequence import Clip, Piece, Prompt, assemble
from rayramid.models.tiny import write_tiny_text

DITS = pytest.mark.golden("mmdit", "flux")
STEM = "diffusion_pytorch_model"


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_tiny_text(folder)
    return folder


def save_bin(tensors, folder):
    torch.save(tensors, folder / f"{STEM}.bin")


def save_safetensors(tensors, folder):
    save_file(tensors, folder / f"{STEM}.safetensors")


def save_shards(tensors, folder, suffix="safetensors", save_one=save_file):
    keys = sorted(tensors)
    parts = {f"{STEM}-00001-of-00002.{suffix}": keys[::2], f"{STEM}-00002-of-00002.{suffix}": keys[1::2]}
    for name, part in parts.items():
        save_one({key: tensors[key] for key in part}, folder / name)
    weight_map = {key: name for name, part in parts.items() for key in part}
    (folder / f"{STEM}.{suffix}.index.json").write_text(json.dumps({"weight_map": weight_map}))


def save_bin_shards(tensors, folder):
    save_shards(tensors, folder, "bin", torch.save)


def release_of(golden, text_folder, root, save=save_bin, variants=("768p",)):
    """A release in miniature: the stored DiT and VAE, and text encoders in the released folders."""
    vae = type(golden).read(Path(__file__).parents[2] / "golden/dev_vae.json")
    folders = {f"diffusion_transformer_{variant}": golden for variant in variants}
    for name, source in {**folders, "causal_video_vae": vae}.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps(dict(source.config)))
        save(source.weights(), root / name)
    for ours, theirs in (FLUX_TEXT if golden.name.endswith("flux") else SD3_TEXT).items():
        # The miniature has no second CLIP: the first stands in.
        shutil.copytree(text_folder / ours.replace("clip_g", "clip_l"), root / theirs)
    return str(root)


@DITS
@pytest.mark.parametrize("save", [save_bin, save_safetensors, save_shards, save_bin_shards])
def test_a_release_comes_back_bit_for_bit(golden, text_folder, tmp_path, save):
    source = release_of(golden, text_folder, tmp_path / "release", save)
    card = import_weights(source, str(tmp_path / "model"))
    assert (card.width, card.height, card.pyramid["schedule"]) == (1280, 768, "official")
    model = load_model(str(tmp_path / "model"))
    assert model.text.encode([""])[0].tokens_LD.shape[1] == 64
    export_weights(str(tmp_path / "model"), str(tmp_path / "again"))
    for part in ("diffusion_transformer_768p", "causal_video_vae"):
        _, ours = read_published(str(tmp_path / "again" / part))
        _, theirs = read_published(f"{source}/{part}")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == theirs[key].dtype for key in theirs)
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {path.name for path in (tmp_path / "release").iterdir()}


@DITS
def test_releases_and_checkpoints_live_on_s3(golden, text_folder, tmp_path, s3_bucket):
    release_of(golden, text_folder, tmp_path / "release", save_shards)
    storage.sync_up(tmp_path / "release", f"{s3_bucket}/release")
    import_weights(f"{s3_bucket}/release", f"{s3_bucket}/model")
    export_weights(f"{s3_bucket}/model", f"{s3_bucket}/again")
    _, weights = read_published(f"{s3_bucket}/again/diffusion_transformer_768p")
    assert all(torch.equal(weights[key], tensor) for key, tensor in golden.weights().items())
    assert inspect_weights(f"{s3_bucket}/release/diffusion_transformer_768p").parameters == sum(
        tensor.numel() for tensor in weights.values()
    )


@DITS
def test_the_variant_is_chosen_or_asked_for(golden, text_folder, tmp_path):
    source = release_of(golden, text_folder, tmp_path / "release", variants=("384p", "image"))
    with pytest.raises(UserError, match="holds the variants 384p, image; choose one with --variant"):
        import_weights(source, str(tmp_path / "model"))
    assert import_weights(source, str(tmp_path / "model"), variant="384p").height == 384
    with pytest.raises(UserError, match="neither a DiT folder"):
        import_weights(str(tmp_path / "nowhere"), str(tmp_path / "model"))


@DITS
def test_half_precision_weights_come_back_bit_for_bit(golden, tmp_path):
    weights = {key: tensor.half() for key, tensor in golden.weights().items()}
    write_published(str(tmp_path / "half"), dict(golden.config), weights)
    import_weights(str(tmp_path / "half"), str(tmp_path / "model"))
    export_weights(str(tmp_path / "model"), str(tmp_path / "again"))
    (exported,) = (tmp_path / "again").iterdir()
    _, again = read_published(str(exported))
    assert all(torch.equal(again[key], weights[key]) and again[key].dtype == torch.float16 for key in weights)


@pytest.mark.golden("mmdit")
def test_sd3_without_query_and_key_norms_starts_them_at_one(golden, tmp_path):
    config = {
        key: golden.config[key]
        for key in (
            "sample_size",
            "patch_size",
            "in_channels",
            "num_layers",
            "attention_head_dim",
            "num_attention_heads",
            "joint_attention_dim",
            "caption_projection_dim",
            "pooled_projection_dim",
            "pos_embed_max_size",
        )
    }
    weights = {key: tensor for key, tensor in golden.weights().items() if ".norm_" not in key}
    write_published(str(tmp_path / "sd3"), {"_class_name": "SD3Transformer2DModel", **config}, weights)
    import_weights(str(tmp_path / "sd3"), str(tmp_path / "model"))
    state = load_dit(str(tmp_path / "model"), load_card(str(tmp_path / "model"))).state_dict()
    norms = [key for key in state if key.endswith(("q_norm.weight", "k_norm.weight"))]
    assert len(norms) == 4 * config["num_layers"]
    assert all(torch.equal(state[key], torch.ones_like(state[key])) for key in norms)


@DITS
def test_initial_weights_for_shared_context_predict_the_same_velocity(golden, tmp_path):
    """The sign is ours: on a lone image at timestep 0 they differ only by text that no longer sees the image."""
    write_published(str(tmp_path / "dit"), dict(golden.config), golden.weights())
    import_weights(str(tmp_path / "dit"), str(tmp_path / "official"))
    import_weights(str(tmp_path / "dit"), str(tmp_path / "shared"), conditioning="shared_context")
    official = load_dit(str(tmp_path / "official"), load_card(str(tmp_path / "official")))
    shared = load_dit(str(tmp_path / "shared"), load_card(str(tmp_path / "shared")))
    assert shared.config == dataclasses.replace(official.config, conditioning="shared_context")
    torch.manual_seed(0)
    config = official.config
    image = torch.randn(config.latent_channels, 1, 16, 16)
    prompt = Prompt(torch.randn(3, config.text_dim), torch.randn(config.pooled_dim))
    clip = Clip((prompt,), (Piece("target", 0, 0, image, 0.0, 0),))
    with torch.no_grad():
        (theirs,), (ours,) = official(assemble([clip], config)), shared(assemble([clip], shared.config))
    assert torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), 0) > 0.9


@DITS
def test_a_shared_context_model_is_not_exported(golden, tmp_path):
    write_published(str(tmp_path / "dit"), dict(golden.config), golden.weights())
    import_weights(str(tmp_path / "dit"), str(tmp_path / "shared"), conditioning="shared_context")
    with pytest.raises(UserError, match="the published code only runs official"):
        export_weights(str(tmp_path / "shared"), str(tmp_path / "again"))


@DITS
def test_wrong_folders_name_file_and_key(golden, tmp_path):
    folder = tmp_path / "dit"
    write_published(str(folder), dict(golden.config), golden.weights())
    target = str(tmp_path / "model")
    for change, message in [
        ({"num_layers": golden.config["num_layers"] + 1}, rf"{STEM}\.safetensors: key .* is missing"),
        ({"_class_name": "UNet2DConditionModel"}, r"'UNet2DConditionModel' is not a known DiT"),
        ({"interp_condition_pos": False}, r"interp_condition_pos is False; only True is supported"),
        ({"joint_attention_dim": 7}, r"context_embedder\.weight has shape"),
        ({"num_layers": "three"}, r"config\.json: num_layers is 'three', not a positive whole number"),
        ({"in_channels": 0}, r"config\.json: in_channels is 0, not a positive whole number"),
    ]:
        (folder / "config.json").write_text(json.dumps({**golden.config, **change}))
        with pytest.raises(UserError, match=message):
            import_weights(str(folder), target)
    config = {key: value for key, value in golden.config.items() if key != "num_attention_heads"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="key num_attention_heads is missing"):
        import_weights(str(folder), target)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        import_weights(str(folder), target)
    (folder / f"{STEM}.safetensors").write_bytes(b"short")
    (folder / "config.json").write_text(json.dumps(dict(golden.config)))
    with pytest.raises(UserError, match=rf"{STEM}\.safetensors: not a whole weight file"):
        import_weights(str(folder), target)


@pytest.mark.golden("mmdit")
def test_a_text_encoder_that_is_cut_off_is_named(golden, text_folder, tmp_path):
    source = release_of(golden, text_folder, tmp_path / "release")
    weights = tmp_path / "release/text_encoder_3/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"text_encoder_3/model\.safetensors: not a whole weight file"):
        import_weights(source, str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@DITS
@pytest.mark.parametrize("save", [save_bin, save_shards])
def test_inspection_counts_what_is_stored(golden, text_folder, tmp_path, save):
    source = release_of(golden, text_folder, tmp_path / "release", save)
    inspection = inspect_weights(f"{source}/diffusion_transformer_768p")
    weights = golden.weights()
    assert inspection.parameters == sum(tensor.numel() for tensor in weights.values())
    (file,) = inspection.files
    assert file.tensors == {key: list(tensor.shape) for key, tensor in weights.items()}
    assert "proj_out.weight" in inspection.text()
    import_weights(source, str(tmp_path / "model"))
    assert inspect_weights(str(tmp_path / "model")).text().startswith("rayramid model, preset custom")

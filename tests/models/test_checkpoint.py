"""The checkpoint folder: what is saved comes back bit for bit; every defect is one line that names the file."""

import dataclasses

import pytest
import torch

from rayramid.models.card import ModelCard, load_card
from rayramid.models.checkpoint import git_revision, load_dit, load_model, save_model
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.pyramid import Pyramid
from rayramid.models.tiny import write_tiny_text
from rayramid.models.vae.config import SMALL
from rayramid.models.vae.io import fingerprint
from rayramid.models.vae.model import CausalVAE
from rayramid.models.weights import read_weights, write_weights

CONFIG = DiTConfig(
    heads=1, head_dim=16, double_blocks=1, single_blocks=1, text_dim=64, pooled_dim=64, rope_axes=(4, 6, 6)
)
CARD = ModelCard(
    preset="custom",
    dit=dataclasses.asdict(CONFIG),
    pyramid=dataclasses.asdict(Pyramid(levels=3, shift=2.0)),
    fps=24.0,
    width=64,
    height=64,
    frames=9,
    steps=((2, 2, 2), (1, 1, 1)),
)


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_tiny_text(str(folder))
    return str(folder)


@pytest.fixture
def saved(tmp_path, text_folder):
    torch.manual_seed(0)
    dit, vae = DiT(CONFIG), CausalVAE(SMALL)
    url = str(tmp_path / "model")
    save_model(url, CARD, dit, vae, text_folder)
    return url, dit, vae


def equal(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_a_saved_model_loads_whole(saved):
    url, dit, vae = saved
    model = load_model(url)
    assert equal(model.dit, dit)
    assert equal(model.vae, vae)
    assert model.dit.config == CONFIG
    assert model.pyramid == Pyramid(levels=3, shift=2.0)
    assert model.text.encode(["a red circle"])[0].pooled_P.shape == (64,)
    assert model.card.vae_fingerprint == fingerprint(vae)
    assert model.card.text_fingerprint == model.text.fingerprint
    filled = dataclasses.replace(model.card, files={}, vae_fingerprint="", text_fingerprint="")
    assert filled.to_json() == CARD.to_json()
    assert not model.dit.training


def test_dtypes_are_kept_unless_another_is_asked_for(tmp_path):
    save_model(str(tmp_path), CARD, DiT(CONFIG).to(torch.bfloat16))
    card = load_card(str(tmp_path))
    assert load_dit(str(tmp_path), card).patch_in.weight.dtype == torch.bfloat16
    assert load_dit(str(tmp_path), card, dtype=torch.float64).patch_in.weight.dtype == torch.float64


def test_saving_again_leaves_nothing_of_the_old_model(saved):
    url, _, _ = saved
    other = DiT(dataclasses.replace(CONFIG, single_blocks=2))
    save_model(url, CARD, other)
    card = load_card(url)
    assert list(card.files) == ["dit/model.safetensors"]
    assert equal(load_dit(url, card), other)
    with pytest.raises(UserError, match="holds a DiT without vae/"):
        load_model(url)


def test_a_save_that_was_interrupted_is_no_model(saved):
    url, dit, _ = saved
    with pytest.raises(UserError, match="no such folder, or it is empty"):
        save_model(url, CARD, dit, None, f"{url}/nowhere")
    with pytest.raises(UserError, match=r"it has no rayramid\.json"):
        load_model(url)


def test_a_missing_and_a_truncated_file_are_named(saved, tmp_path):
    url, _, _ = saved
    weights = tmp_path / "model/vae/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(UserError, match=rf"vae/model\.safetensors: {len(whole) - 10} bytes, rayramid\.json says"):
        load_model(url)
    weights.unlink()
    with pytest.raises(UserError, match=r"vae/model\.safetensors: missing, rayramid\.json lists it"):
        load_model(url)


def test_a_wrong_key_names_file_and_key(saved):
    url, _, _ = saved
    location = f"{url}/dit/model.safetensors"
    tensors = read_weights(location)
    tensors["patch_in.wait"] = tensors.pop("patch_in.weight")
    write_weights(location, tensors)
    with pytest.raises(UserError, match=r"dit/model\.safetensors: key patch_in\.weight is missing"):
        load_dit(url, load_card(url))


def test_a_configuration_of_another_version_says_so(saved):
    url, _, _ = saved
    card = load_card(url)
    with pytest.raises(UserError, match=r"does not fit this version: .*wings"):
        load_dit(url, dataclasses.replace(card, dit={**card.dit, "wings": 2}))


def test_a_model_lives_on_s3(text_folder, s3_bucket):
    dit = DiT(CONFIG)
    save_model(f"{s3_bucket}/model", CARD, dit, CausalVAE(SMALL), text_folder)
    assert equal(load_model(f"{s3_bucket}/model").dit, dit)


def test_git_revision_is_a_commit():
    assert len(git_revision()) == 40

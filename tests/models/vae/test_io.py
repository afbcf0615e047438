import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.importers.vae import config_from, config_to, from_published
from rayramid.models.vae.config import SMALL, VAEConfig
from rayramid.models.vae.io import fingerprint, load_vae, save_vae
from rayramid.models.vae.model import CausalVAE

CONFIG = replace(
    SMALL, encoder_channels=(8,) * 3, decoder_channels=(8,) * 3, norm_groups=2, latent_channels=4, image_shift=0.25
)


@pytest.fixture
def vae() -> CausalVAE:
    torch.manual_seed(0)
    return CausalVAE(CONFIG)


def test_a_saved_vae_comes_back(vae, tmp_path):
    save_vae(str(tmp_path / "vae"), vae)
    again = load_vae(str(tmp_path / "vae"))
    assert again.config == CONFIG
    assert fingerprint(again) == fingerprint(vae)
    assert not again.training
    frames = torch.rand(1, 3, 9, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.encode(frames)[0], vae.encode(frames)[0])


def test_a_vae_lives_on_s3(vae, s3_bucket):
    save_vae(f"{s3_bucket}/vae", vae)
    assert fingerprint(load_vae(f"{s3_bucket}/vae")) == fingerprint(vae)
    storage.write_atomic(f"{s3_bucket}/vae/model.safetensors", b"short")
    with pytest.raises(UserError, match=f"{s3_bucket}/vae/model.safetensors: not a whole weight file"):
        load_vae(f"{s3_bucket}/vae")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_dtype_is_kept(vae, tmp_path, dtype):
    save_vae(str(tmp_path), vae.to(dtype))
    again = load_vae(str(tmp_path))
    assert next(again.parameters()).dtype == dtype
    assert fingerprint(again) == fingerprint(vae)


def test_the_fingerprint_follows_weights_and_statistics(vae):
    before = fingerprint(vae)
    assert len(before) == 16
    assert fingerprint(vae) == before
    vae.config = replace(vae.config, video_scale=2.0)
    statistics = fingerprint(vae)
    assert statistics != before
    with torch.no_grad():
        vae.decoder.stem.weight[0, 0, 0, 0, 0] += 1e-3
    assert fingerprint(vae) != statistics


def damaged(vae, tmp_path, change) -> str:
    save_vae(str(tmp_path), vae)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path)
    with pytest.raises(UserError) as error:
        load_vae(str(tmp_path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_wrong_weights_are_named(vae, tmp_path):
    key = "decoder.stem.weight"
    assert f"key {key} is missing" in damaged(vae, tmp_path, lambda weights: weights.pop(key))
    assert "key extra" in damaged(vae, tmp_path, lambda weights: weights.update(extra=torch.zeros(1)))
    assert f"{key} has shape [3]" in damaged(vae, tmp_path, lambda weights: weights.update({key: torch.zeros(3)}))


def test_a_truncated_file_is_named(vae, tmp_path):
    save_vae(str(tmp_path), vae)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors: not a whole weight file"):
        load_vae(str(tmp_path))


def test_a_wrong_configuration_is_named(vae, tmp_path):
    with pytest.raises(UserError, match="not a VAE folder"):
        load_vae(str(tmp_path))
    save_vae(str(tmp_path), vae)
    path = tmp_path / "config.json"
    fields = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "chanels": 3}))
    with pytest.raises(UserError, match=r"config\.json: chanels is no key"):
        load_vae(str(tmp_path))
    path.write_text("{")
    with pytest.raises(UserError, match=r"config\.json: not JSON"):
        load_vae(str(tmp_path))
    path.write_text(json.dumps({**fields, "encoder_layers": [1]}))
    with pytest.raises(UserError, match=r"config\.json: VAE: encoder_layers must have 3 entries"):
        load_vae(str(tmp_path))
    path.write_text(json.dumps({**fields, "encoder_channels": 5}))
    with pytest.raises(UserError, match=r"config\.json: encoder_channels: Input should be a valid tuple"):
        load_vae(str(tmp_path))
    path.write_text("[]")
    with pytest.raises(UserError, match=r"config\.json: .*dictionary"):
        load_vae(str(tmp_path))


def test_a_network_that_can_not_be_is_refused():
    with pytest.raises(UserError, match="as often"):
        VAEConfig(spatial_up=(True, True, False, False))
    with pytest.raises(UserError, match="norm_groups 7 must divide the channels of every block: 128"):
        VAEConfig(norm_groups=7)


def test_the_published_configuration_goes_both_ways():
    published = config_to(VAEConfig())
    assert published["encoder_block_out_channels"] == published["decoder_block_out_channels"] == [128, 256, 512, 512]
    assert published["decoder_layers_per_block"] == [3, 3, 3, 3]
    config = config_from(published, "flux")
    assert (config.image_shift, config.image_scale) == (-0.04, 1 / 1.8726)
    assert replace(config, image_shift=0.0, image_scale=1.0, video_shift=0.0, video_scale=1.0) == VAEConfig()
    with pytest.raises(UserError, match="no published form"):
        config_to(SMALL)


def test_wrong_published_files_are_named():
    published = config_to(VAEConfig(encoder_channels=(8,) * 4, decoder_channels=(8,) * 4, norm_groups=2))
    with pytest.raises(UserError, match=r"x/config\.json: .*encoder_layers_per_block"):
        config_from({k: v for k, v in published.items() if k != "encoder_layers_per_block"}, source="x/config.json")
    with pytest.raises(UserError, match="encoder_act_fn is 'gelu'"):
        config_from({**published, "encoder_act_fn": "gelu"})
    with pytest.raises(UserError, match=r"x/config\.json: encoder_block_out_channels is 5, not a list of int"):
        config_from({**published, "encoder_block_out_channels": 5}, source="x/config.json")
    with pytest.raises(UserError, match=r"x/config\.json: VAE: norm_groups 7 must divide"):
        config_from({**published, "encoder_norm_num_groups": 7}, source="x/config.json")
    with pytest.raises(UserError, match=r"x\.bin: key encoder\.conv_in\.conv\.weight is missing"):
        from_published({}, config_from(published), source="x.bin")

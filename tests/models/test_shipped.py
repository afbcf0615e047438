"""The model that comes with the package: small, whole, and found by its address on any machine."""

from pathlib import Path

import numpy as np
import pytest
import torch
from devices import on_cuda

from rayramid.models import storage
from rayramid.models.brief import write_brief
from rayramid.models.checkpoint import load_model
from rayramid.models.errors import UserError
from rayramid.models.precision import sampling_dtype
from rayramid.models.render import render
from rayramid.models.sprites.captions import held_out, parse
from rayramid.models.sprites.judge.verdict import judge
from rayramid.models.stores.shipped import SPRITES
from rayramid.models.weights import read_weights

CAPTION = "a yellow triangle moves slowly up and a blue triangle moves slowly left on a brown background"


def test_the_address_stays_an_address_and_its_files_are_read_like_any_other():
    assert storage.absolute(SPRITES) == SPRITES
    folder = storage.local_path(SPRITES)
    assert folder is not None
    card = storage.read_bytes(storage.join(SPRITES, "rayramid.json"))
    assert card == (folder / "rayramid.json").read_bytes()
    names = {storage.relative(SPRITES, file) for file in storage.list_files(SPRITES)}
    assert {"rayramid.json", "dit/model.safetensors", "vae/model.safetensors", "vae/config.json"} < names


def test_what_is_not_shipped_is_refused_with_what_is():
    for url in ("rayramid://cats", "rayramid://sprites/../../precision.py"):
        with pytest.raises(UserError, match="no such model comes with rayramid; there are rayramid://sprites"):
            storage.read_bytes(url)
    with pytest.raises(UserError, match="nothing is written into"):
        storage.check_writable(SPRITES)


def test_its_weights_are_bfloat16_and_at_most_16_mib():
    stored = 0
    for file in storage.list_files(SPRITES, ".safetensors"):
        assert {tensor.dtype for tensor in read_weights(file).values()} == {torch.bfloat16}, file
        stored += Path(file).stat().st_size
    assert stored <= 16 * 2**20


@pytest.mark.parametrize("device", ["cpu", on_cuda()])
def test_its_video_of_two_movers_kept_from_training_is_right_in_every_part(device):
    assert held_out(parse(CAPTION))
    model = load_model(SPRITES, device, sampling_dtype(device))
    brief = write_brief(model.card, CAPTION, seconds=17 / model.card.fps, seed=1)
    video_THWC = np.concatenate(list(render(model, brief)))
    verdict = judge(video_THWC, parse(CAPTION))
    assert video_THWC.shape == (17, 128, 128, 3)
    assert verdict.fully_right, verdict

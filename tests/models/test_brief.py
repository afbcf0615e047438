import numpy as np
import pytest

from rayramid.models.brief import BriefError, crop, parse_size, write_brief
from rayramid.models.card import ModelCard


def card(**changes):
    # Sides are multiples of 8 (VAE) x 2 (patch) x 4 (three levels) = 64 pixels.
    fields = {
        "preset": "tiny",
        "dit": {"patch": 2, "frames_per_unit": 1},
        "pyramid": {"levels": 3},
        "fps": 8.0,
        "width": 128,
        "height": 64,
        "frames": 17,
        "steps": ((3, 2, 1), (1, 1, 1)),
        "prompt_suffix": ", sharp",
        "negative_prompt": "blurry",
        "guidance": 4.0,
        "video_guidance": 2.0,
    }
    return ModelCard(**{**fields, **changes})


def test_what_is_left_out_comes_from_the_card():
    brief = write_brief(card(), "a cat")
    assert (brief.width, brief.height, brief.frames, brief.fps) == (128, 64, 17, 8.0)
    assert (brief.grid_width, brief.grid_height, brief.latents, brief.grid_frames) == (128, 64, 3, 17)
    assert (brief.steps, brief.guidance, brief.video_guidance) == (((3, 2, 1), (1, 1, 1)), 4.0, 2.0)
    assert (brief.text, brief.negative_prompt) == ("a cat, sharp", "blurry")
    assert 0 <= brief.seed < 2**32


def test_what_is_asked_for_is_made_at_the_next_multiple():
    brief = write_brief(card(), "", size=(130, 64), seconds=2.5, seed=7, steps=5, guidance=1, negative_prompt="")
    assert (brief.width, brief.height, brief.grid_width, brief.grid_height) == (130, 64, 192, 64)
    assert brief.latent_size == (8, 24)
    # 2.5 s x 8 fps = 20 frames: 1 + 8 + 8 = 17 are too few, 25 enough.
    assert (brief.frames, brief.latents, brief.grid_frames) == (20, 4, 25)
    assert (brief.seed, brief.steps, brief.guidance) == (7, ((5, 5, 5), (5, 5, 5)), 1)
    assert (brief.negative_prompt, brief.text) == ("", ", sharp")


@pytest.mark.parametrize(
    ("per_unit", "frames", "latents"), [(1, 1, 1), (1, 2, 2), (1, 9, 2), (4, 2, 5), (4, 34, 9), (None, 20, 4)]
)
def test_length_is_whole_units(per_unit, frames, latents):
    brief = write_brief(card(dit={"patch": 2, "frames_per_unit": per_unit}), "", seconds=frames / 8)
    assert (brief.frames, brief.latents) == (frames, latents)


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"size": (65, 64)}, "size"),
        ({"size": (64, 14)}, "size"),
        ({"seconds": 0.0}, "seconds"),
        ({"seconds": float("inf")}, "seconds"),
        ({"steps": 0}, "steps"),
    ],
)
def test_an_impossible_wish_is_named(wish, param):
    with pytest.raises(BriefError) as error:
        write_brief(card(), "", **wish)
    assert error.value.param == param
    assert "\n" not in str(error.value)


def test_size_is_width_then_height():
    assert parse_size("1280x768") == (1280, 768)
    for wrong in ["1280", "1280X768", "0x64", "1280x768x3", "-1x5", ""]:
        with pytest.raises(BriefError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


def test_crop_takes_the_middle():
    frames_THWC = np.arange(5 * 6, dtype=np.uint8).reshape(1, 5, 6, 1)
    assert crop(frames_THWC, 3, 2)[0, :, :, 0].tolist() == [[8, 9], [14, 15], [20, 21]]

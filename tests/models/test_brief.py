import numpy as np
import pytest

from rayramid.models.brief import BriefError, crop, extended, parse_size, write_brief
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
    assert (brief.text_of(brief.prompt), brief.negative_prompt) == ("a cat, sharp", "blurry")
    assert 0 <= brief.seed < 2**32


def test_what_is_asked_for_is_made_at_the_next_multiple():
    brief = write_brief(card(), "", size=(130, 64), seconds=2.5, seed=7, steps=5, guidance=1, negative_prompt="")
    assert (brief.width, brief.height, brief.grid_width, brief.grid_height) == (130, 64, 192, 64)
    assert brief.latent_size == (8, 24)
    # 2.5 s x 8 fps = 20 frames: 1 + 8 + 8 = 17 are too few, 25 enough.
    assert (brief.frames, brief.latents, brief.grid_frames) == (20, 4, 25)
    assert (brief.seed, brief.steps, brief.guidance) == (7, ((5, 5, 5), (5, 5, 5)), 1)
    assert (brief.negative_prompt, brief.text_of(brief.prompt)) == ("", ", sharp")


@pytest.mark.parametrize(
    ("per_unit", "frames", "latents"), [(1, 1, 1), (1, 2, 2), (1, 9, 2), (4, 2, 5), (4, 34, 9), (None, 20, 4)]
)
def test_length_is_whole_units(per_unit, frames, latents):
    brief = write_brief(card(dit={"patch": 2, "frames_per_unit": per_unit}), "", seconds=frames / 8)
    assert (brief.frames, brief.latents) == (frames, latents)


def test_prompts_take_over_at_the_first_unit_that_begins_then_or_later():
    # At 8 fps units of one latent begin at frames 0, 1, 9, 17: seconds 0, 1/8, 9/8, 17/8.
    brief = write_brief(card(), "a", seconds=4, schedule=[(1.0, "b")])
    assert (brief.prompts, brief.second_of(2)) == ({0: "a", 2: "b"}, 1.125)
    brief = write_brief(card(), "a", seconds=4, schedule=[(0.1, "b"), (1.2, "c")])
    assert brief.prompts == {0: "a", 1: "b", 3: "c"}
    # With four latents to a unit they begin at frames 0, 1, 33.
    brief = write_brief(card(dit={"patch": 2, "frames_per_unit": 4}), "a", seconds=8, schedule=[(0.5, "b")])
    assert (brief.prompts, brief.second_of(2), brief.units) == ({0: "a", 2: "b"}, 33 / 8, 3)


def test_an_extended_video_is_the_longer_one():
    # 12 frames are cut from 17; 12 more make 24, of 25.
    brief = write_brief(card(), "a", seconds=1.5, seed=1)
    assert extended(brief, 1.5, "a") == write_brief(card(), "a", seconds=3, seed=1)
    assert extended(brief, 1.5, "b").prompts == {0: "a", 3: "b"}
    assert extended(extended(brief, 1.5, "b"), 1, "b").prompts == {0: "a", 3: "b"}
    assert extended(brief, 3, "b", [(3.2, "c")]).prompts == {0: "a", 3: "b", 5: "c"}
    # What was cut away is enough for four frames more: nothing is left for another prompt.
    short = extended(brief, 0.5, "b")
    assert (short.frames, short.latents, short.prompts) == (16, 3, {0: "a"})
    with pytest.raises(BriefError) as error:
        extended(write_brief(card(dit={"patch": 2, "frames_per_unit": None}), "a"), 1, "b")
    assert error.value.param == "video"


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"schedule": [(0.0, "b")]}, "prompt_schedule"),
        ({"schedule": [(1.0, "b"), (0.5, "c")]}, "prompt_schedule"),
        ({"schedule": [(1.0, "b"), (1.1, "c")]}, "prompt_schedule"),
        ({"schedule": [(2.2, "b")]}, "prompt_schedule"),
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

import numpy as np
import pytest
import torch

from rayramid.models.brief import write_brief
from rayramid.models.card import ModelCard
from rayramid.models.render import Projector, first_latent
from rayramid.models.vae.pca import pca_vae
from rayramid.models.vae.streaming import decode_video

CARD = ModelCard(
    preset="tiny",
    dit={"patch": 2, "frames_per_unit": 1},
    pyramid={"levels": 2},
    fps=8.0,
    width=32,
    height=32,
    frames=17,
    steps=((1, 1), (1, 1)),
)


@pytest.fixture(scope="module")
def vae():
    # Clips of one colour each, so that any flat picture is a sum of the codec's components.
    colours = np.random.default_rng(0).integers(0, 256, (8, 17, 1, 1, 3), dtype=np.uint8)
    return pca_vae(list(np.broadcast_to(colours, (8, 17, 32, 32, 3)).copy()))


def test_units_come_out_cropped_and_trimmed_as_parts_of_the_whole(vae):
    brief = write_brief(CARD, "", size=(40, 32), seconds=12 / 8)
    assert (brief.grid_width, brief.grid_height, brief.latents) == (64, 32, 3)
    latents_CTHW = torch.randn(16, 3, 4, 8, generator=torch.Generator().manual_seed(0))
    projector = Projector(vae, brief)
    units = [projector.frames(latent_CTHW) for latent_CTHW in latents_CTHW.split(1, dim=1)]
    assert [unit.shape for unit in units] == [(1, 32, 40, 3), (8, 32, 40, 3), (3, 32, 40, 3)]

    raw_CTHW = torch.cat(
        [vae.denormalise(latents_CTHW[:, :1], first=True), vae.denormalise(latents_CTHW[:, 1:], first=False)], dim=1
    )
    whole_THWC = np.concatenate(list(decode_video(vae, raw_CTHW)))
    np.testing.assert_array_equal(np.concatenate(units), whole_THWC[:12, :, 12:52])


def test_another_projector_goes_on_from_the_state(vae):
    brief = write_brief(CARD, "")
    latents_CTHW = torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(0)).split(1, dim=1)
    first = Projector(vae, brief)
    expected = [first.frames(latent_CTHW) for latent_CTHW in latents_CTHW]
    before, after = Projector(vae, brief), Projector(vae, brief)
    before.frames(latents_CTHW[0])
    after.state, after.shown = before.state, before.shown
    for latent_CTHW, frames_THWC in zip(latents_CTHW[1:], expected[1:], strict=True):
        np.testing.assert_array_equal(after.frames(latent_CTHW), frames_THWC)


def test_a_picture_of_any_size_becomes_the_first_latent_and_comes_back(vae):
    brief = write_brief(CARD, "")
    image_HWC = np.broadcast_to(np.uint8([200, 100, 50]), (50, 70, 3))
    latent_CTHW = first_latent(vae, image_HWC, brief)
    assert latent_CTHW.shape == (16, 1, 4, 4)
    shown_THWC = Projector(vae, brief).frames(latent_CTHW).astype(int)
    assert abs(shown_THWC - image_HWC[None, :1, :1]).max() <= 8

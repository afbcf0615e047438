import pytest
import torch

from rayramid.models.vae.discriminator import PatchDiscriminator
from rayramid.models.vae.past import Stream, Whole


def build(kind):
    torch.manual_seed(0)
    return PatchDiscriminator(kind, channels=8, layers=2).double()


@pytest.mark.parametrize("kind", ["frame", "video"])
def test_it_scores_patches_of_every_frame_and_no_clip_sees_another(kind):
    discriminator = build(kind)
    clips = torch.rand(2, 3, 5, 32, 32, dtype=torch.float64)
    scores = discriminator(clips, Whole())
    assert scores.shape[:3] == (2, 1, 5)
    assert scores.shape[3] == scores.shape[4] == {"frame": 6, "video": 8}[kind]
    torch.testing.assert_close(discriminator(clips[:1], Whole()), scores[:1], rtol=0, atol=1e-12)


def test_a_frame_discriminator_sees_single_frames():
    discriminator = build("frame")
    clip = torch.rand(1, 3, 5, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(
        discriminator(clip[:, :, 3:4], Whole()), discriminator(clip, Whole())[:, :, 3:4], rtol=0, atol=1e-12
    )


def test_a_video_discriminator_sees_the_past_and_not_the_future():
    discriminator = build("video")
    clip = torch.rand(1, 3, 6, 32, 32, dtype=torch.float64)
    whole = discriminator(clip, Whole())
    torch.testing.assert_close(discriminator(clip[:, :, :4], Whole()), whole[:, :, :4], rtol=0, atol=1e-12)
    assert not torch.allclose(discriminator(clip[:, :, 2:], Whole()), whole[:, :, 2:])
    stream = Stream(None)
    first = discriminator(clip[:, :, :3], stream)
    rest = discriminator(clip[:, :, 3:], Stream(stream.state()))
    torch.testing.assert_close(torch.cat([first, rest], 2), whole, rtol=0, atol=1e-12)

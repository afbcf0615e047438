import pytest
import torch

from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.statistics import LatentStatistics, Moments


def test_first_and_later_latents_are_counted_apart():
    video = torch.tensor([1.0, 10.0, 14.0]).view(1, 3, 1, 1)
    image = torch.tensor([3.0]).view(1, 1, 1, 1)
    config = LatentStatistics.of([video, image]).written_to(VAEConfig())
    assert (config.image_shift, config.image_scale) == (2, 1)
    assert (config.video_shift, config.video_scale) == (12, 0.5)


def test_parts_add_up_to_the_whole():
    z = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    together = LatentStatistics.of([z, 2 * z])
    apart = LatentStatistics.of([z]) + LatentStatistics.of([2 * z])
    assert apart.later.shift == pytest.approx(together.later.shift)
    assert apart.later.scale == pytest.approx(together.later.scale)
    assert Moments.of(z).scale == pytest.approx(1 / float(z.double().std(correction=0)))


def test_images_alone_leave_the_videos_statistics_as_they_are():
    config = LatentStatistics.of([torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)]).written_to(VAEConfig(video_shift=5.0))
    assert (config.image_shift, config.image_scale) == (2, 1)
    assert (config.video_shift, config.video_scale) == (5, 1)

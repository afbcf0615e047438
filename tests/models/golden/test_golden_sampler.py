"""Whole videos of the published model: stored weights, texts and noise in, every stage's latents and the video out."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from rayramid.models.importers.dit import dit_from_published
from rayramid.models.pyramid import down, down_noise, up
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request


@dataclass(frozen=True)
class Text:
    tokens_LD: Tensor
    pooled_P: Tensor


def load(golden, case):
    """The DiT that the case names."""
    source = golden.sibling(golden.cases[case]["weights"])
    return dit_from_published(
        source.config,
        source.weights(),
        str(source.path),
        levels=golden.cases[case]["scheduler"]["stages"],
        frames_per_unit=golden.cases[case]["frame_per_unit"],
    )


def text(golden, prefix, sample):
    """The real tokens of a stored prompt; one row serves the whole batch where only one is stored."""
    embeds, mask, pooled = (golden[f"{prefix}.{name}"] for name in ("embeds", "mask", "pooled"))
    row = min(sample, len(embeds) - 1)
    return Text(embeds[row][mask[row].bool()], pooled[row])


def stored_noise(golden, case, pyramid):
    """The stored noise as the sampler asks for it, keyed by (sample, unit, level)."""
    from_image, step = golden.cases[case]["entry"] == "generate_i2v", golden.cases[case]["frame_per_unit"]

    def noise(sample, unit, level, shape):
        if level == pyramid.levels - 1:
            # From an image, the noise of the first frame goes to the first new unit.
            start = (unit - 1) * step + (0 if from_image else 1) if unit else 0
            full = golden[f"{case}.init_noise"][sample, :, start : start + shape[1]]
            return down_noise(full, level)
        block_noise = golden[f"{case}.block_noise.u{unit}.s{pyramid.levels - 1 - level}"][sample]
        mean, spread = up(down(block_noise)), 1 - 3 * pyramid.gamma
        return (block_noise - mean) / math.sqrt(1 + pyramid.gamma) + (mean / math.sqrt(spread) if spread > 1e-6 else 0)

    return noise


def request(golden, case, sample):
    asked = golden.cases[case]
    from_image, step = asked["entry"] == "generate_i2v", asked["frame_per_unit"]
    latents = 1 + (asked["temp"] // step - 1) * step if from_image else asked["temp"]
    first = tuple(asked["num_inference_steps"])
    guided, linear = asked["do_cfg"], asked["use_linear_guidance"] and asked["do_cfg"]
    return Request(
        prompts=text(golden, f"{case}.pos", sample),
        negative=text(golden, f"{case}.neg", sample),
        height=golden[f"{case}.init_noise"].shape[-2],
        width=golden[f"{case}.init_noise"].shape[-1],
        latents=latents,
        steps=(first, first if from_image else tuple(asked["video_num_inference_steps"])),
        seed=sample,
        guidance=asked["guidance_scale"] if guided else 0.0,
        video_guidance=asked["video_guidance_scale"] if guided else 0.0,
        guidance_slope=asked["linear_guidance"]["alpha"] if linear else 0.0,
        guidance_floor=asked["linear_guidance"]["min"],
        given=golden[f"{case}.image_latent"][sample] if from_image else None,
    )


@pytest.mark.golden("sampler")
def test_video(golden, case, official_pyramid):
    """All samples of a batch step together; what is stored on the way is compared on the way."""
    pyramid = official_pyramid(golden.cases[case]["scheduler"])
    sampler = Sampler(load(golden, case), pyramid, stored_noise(golden, case, pyramid))
    sessions = [sampler.start(request(golden, case, sample)) for sample in range(golden.cases[case]["batch"])]
    compared = 0
    while not sessions[0].done:
        first = sessions[0]
        stage = f"{case}.u{first.unit}.s{pyramid.levels - 1 - first.level}"
        keys = {f"{stage}.input": first.index == 0, f"{stage}.step{first.index - 1}.x": first.index > 0}
        for key in (key for key, here in keys.items() if here and key in golden):
            golden.check(torch.stack([session.x_CTHW for session in sessions]), key, within=1e-4)
            compared += 1
        sampler.step(sessions)
    assert compared >= first.units - (first.request.given is not None)
    golden.check(torch.stack([session.latents_CTHW for session in sessions]), f"{case}.final", within=1e-4)

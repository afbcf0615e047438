"""Whole videos of the published model: stored weights, texts and noise in, every stage's latents and the video out."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from rayramid.models.importers.dit import dit_from_published
from rayramid.models.pyramid import down_noise
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


def row(batch, sample):
    """One row serves all samples where only one is stored."""
    return batch[min(sample, len(batch) - 1)]


def text(golden, prefix, sample):
    """The real tokens of a stored prompt."""
    embeds, mask, pooled = (golden[f"{prefix}.{name}"] for name in ("embeds", "mask", "pooled"))
    return Text(row(embeds, sample)[row(mask, sample).bool()], row(pooled, sample))


def stored_noise(golden, case, pyramid, ordinary_noise):
    """The stored noise as the sampler asks for it, keyed by (sample, unit, level)."""
    from_image, step = golden.cases[case]["entry"] == "generate_i2v", golden.cases[case]["frame_per_unit"]

    def noise(sample, unit, level, shape):
        if level == pyramid.levels - 1:
            # From an image, the noise of the first frame goes to the first new unit.
            start = (unit - 1) * step + (0 if from_image else 1) if unit else 0
            full = golden[f"{case}.init_noise"][sample, :, start : start + shape[1]]
            return down_noise(full, level)
        block_noise = golden[f"{case}.block_noise.u{unit}.s{pyramid.levels - 1 - level}"][sample]
        return ordinary_noise(block_noise, pyramid.gamma)

    return noise


def counts(steps, levels):
    """One number serves all stages."""
    return (steps,) * levels if isinstance(steps, int) else tuple(steps)


def request(golden, case, sample):
    asked = golden.cases[case]
    from_image, step, levels = asked["entry"] == "generate_i2v", asked["frame_per_unit"], asked["scheduler"]["stages"]
    latents = 1 + (asked["temp"] // step - 1) * step if from_image else asked["temp"]
    first = counts(asked["num_inference_steps"], levels)
    guided, linear = asked["do_cfg"], asked["use_linear_guidance"] and asked["do_cfg"]
    return Request(
        prompts=text(golden, f"{case}.pos", sample),
        negative=text(golden, f"{case}.neg", sample),
        height=golden[f"{case}.init_noise"].shape[-2],
        width=golden[f"{case}.init_noise"].shape[-1],
        latents=latents,
        steps=(first, first if from_image else counts(asked["video_num_inference_steps"], levels)),
        seed=sample,
        guidance=asked["guidance_scale"] if guided else 0.0,
        # Published guidance is on in all units or none: there 0 is the negative text's velocity, with us no guidance.
        video_guidance=max(asked["video_guidance_scale"], 1e-30) if guided else 0.0,
        guidance_slope=asked["linear_guidance"]["alpha"] if linear else 0.0,
        guidance_floor=asked["linear_guidance"]["min"],
        given=row(golden[f"{case}.image_latent"], sample) if from_image else None,
    )


@pytest.mark.golden("sampler")
def test_video(golden, case, official_pyramid, ordinary_noise):
    """All samples of a batch step together; what is stored on the way is compared on the way."""
    pyramid = official_pyramid(golden.cases[case]["scheduler"])
    sampler = Sampler(load(golden, case), pyramid, stored_noise(golden, case, pyramid, ordinary_noise))
    sessions = [sampler.start(request(golden, case, sample)) for sample in range(golden.cases[case]["batch"])]
    inputs = {key for key in golden.under(f"{case}.") if key.endswith(".input")}
    while not sessions[0].done:
        first = sessions[0]
        stage = f"u{first.unit}.s{pyramid.levels - 1 - first.level}"
        key = f"{stage}.step{first.index - 1}.x" if first.index else f"{stage}.input"
        if f"{case}.{key}" in golden:
            golden.check(torch.stack([session.x_CTHW for session in sessions]), f"{case}.{key}", within=1e-4)
        inputs.discard(key)
        sampler.step(sessions)
    assert not inputs
    golden.check(torch.stack([session.latents_CTHW for session in sessions]), f"{case}.final", within=1e-4)

"""From a brief to frames: the sampler's request, the image to start from, and the decoding of units as they come.

Shapes: T frames or latents, C channels, H height, W width.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from rayramid.models.brief import Brief, Frames, crop
from rayramid.models.checkpoint import Model
from rayramid.models.media.resize import resize_crop
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.text import TextEmbedding
from rayramid.models.vae.model import CausalVAE
from rayramid.models.vae.streaming import decode_chunk, encode_video


def request_of(
    brief: Brief, prompts: Mapping[int, TextEmbedding], negative: TextEmbedding, given_CTHW: Tensor | None = None
) -> Request:
    """What the sampler is asked to do.

    Args:
        brief: the video.
        prompts: embeddings of the prompts, by the unit at which each begins.
        negative: the embedding of `brief.negative_prompt`.
        given_CTHW: normalised latents that the video starts with.
    """
    height, width = brief.latent_size
    return Request(
        prompts=prompts,
        negative=negative,
        height=height,
        width=width,
        latents=brief.latents,
        steps=brief.steps,
        seed=brief.seed,
        guidance=brief.guidance,
        video_guidance=brief.video_guidance,
        given=given_CTHW,
    )


@torch.no_grad()
def first_latent(vae: CausalVAE, image_HWC: Frames, brief: Brief) -> Tensor:
    """The image as the normalised first latent [C, 1, H, W] of the video, scaled and cropped to its size."""
    frames_THWC = resize_crop(image_HWC[None], brief.grid_height, brief.grid_width)
    return vae.normalise(encode_video(vae, [frames_THWC]), first=True)


class Projector:
    """Turns units of latents into frames, in order: decoded in a streaming way, cropped, trimmed to the brief's length.

    `state` is all that it remembers beside `shown`, the frames given out; with both another projector can go on.
    """

    def __init__(self, vae: CausalVAE, brief: Brief) -> None:
        self.vae = vae
        self.brief = brief
        self.shown = 0
        self.state: tuple[Tensor, ...] | None = None

    def frames(self, latent_CTHW: Tensor) -> Frames:
        """The next frames [T, H, W, C], from the next normalised latents."""
        raw_CTHW = self.vae.denormalise(latent_CTHW, first=self.state is None)
        decoded_THWC, self.state = decode_chunk(self.vae, raw_CTHW, self.state)
        wanted_THWC = decoded_THWC[: self.brief.frames - self.shown]
        self.shown += len(wanted_THWC)
        return crop(wanted_THWC, self.brief.height, self.brief.width)


def render(
    model: Model,
    brief: Brief,
    *,
    image_HWC: Frames | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Iterator[Frames]:
    """Make a video, unit by unit.

    Args:
        model: a loaded checkpoint folder.
        brief: what to make.
        image_HWC: the image to start from, of any size.
        on_progress: called with the denoising steps done and in all after each of them.

    Yields:
        The frames of each unit, [T, H, W, C].
    """
    negative, *texts = model.text.encode([brief.negative_prompt, *map(brief.text_of, brief.prompts.values())])
    prompts = dict(zip(brief.prompts, texts, strict=True))
    given_CTHW = None if image_HWC is None else first_latent(model.vae, image_HWC, brief)
    sampler = Sampler(model.dit, model.pyramid)
    session = sampler.start(request_of(brief, prompts, negative, given_CTHW))
    projector = Projector(model.vae, brief)
    if given_CTHW is not None:
        yield projector.frames(given_CTHW)
    while not session.done:
        for unit in sampler.step([session]):
            yield projector.frames(unit.latent_CTHW)
        if on_progress:
            on_progress(session.steps_done, session.steps_total)

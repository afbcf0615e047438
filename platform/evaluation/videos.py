"""Many videos at once: their denoising steps share one forward.

Shape letters: T frames, H W pixels, C = 3.
"""

from collections.abc import Sequence

import numpy as np

from rayramid.models.brief import Brief, Frames
from rayramid.models.checkpoint import Model
from rayramid.models.render import Projector, first_latent, request_of
from rayramid.models.sampler import Sampler


def make_videos(model: Model, briefs: Sequence[Brief], images_HWC: Sequence[Frames] | None = None) -> list[Frames]:
    """The videos [T, H, W, C] of some briefs; see `make_units`."""
    return [np.concatenate(units) for units in make_units(model, briefs, images_HWC)]


def make_units(model: Model, briefs: Sequence[Brief], images_HWC: Sequence[Frames] | None = None) -> list[list[Frames]]:
    """The videos of some briefs, each as the frames [T, H, W, C] of its units.

    Args:
        model: a loaded checkpoint folder.
        briefs: what to make; of one prompt each.
        images_HWC: the image that each video starts with.
    """
    prompts = model.text.encode([brief.text_of(brief.prompt) for brief in briefs])
    negatives = model.text.encode([brief.negative_prompt for brief in briefs])
    given = (
        [None] * len(briefs)
        if images_HWC is None
        else [first_latent(model.vae, image_HWC, brief) for image_HWC, brief in zip(images_HWC, briefs, strict=True)]
    )
    sampler = Sampler(model.dit, model.pyramid)
    sessions = [
        sampler.start(request_of(brief, {0: prompt}, negative, given_CTHW))
        for brief, prompt, negative, given_CTHW in zip(briefs, prompts, negatives, given, strict=True)
    ]
    while waiting := [session for session in sessions if not session.done]:
        sampler.step(waiting)
    videos: list[list[Frames]] = []
    for session, brief in zip(sessions, briefs, strict=True):
        projector = Projector(model.vae, brief)
        videos.append([projector.frames(unit_CTHW) for unit_CTHW in session.finished])
    return videos

"""Autoregressive sampling: one forward advances any set of videos by one denoising step each.

Dimension legend: C = latent channels, T = latents in time, H, W = rows and columns of a latent.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from rayramid.models.dit.model import DiT
from rayramid.models.history import unit_count, unit_span
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampling.noise import Noise, keyed_noise
from rayramid.models.sampling.request import EncodedText, Request, check_text
from rayramid.models.sampling.session import Session, Unit
from rayramid.models.sequence import assemble, check_size


class Sampler:
    """Makes videos with a DiT.

    The DiT's configuration says how: units of how many latents (or the whole video at once), how far back they see, and
    whether their context is cached (`shared_context`) or recomputed at every step (`official`).

    Args:
        dit: the model; latents are kept in fp32, or in fp64 when its parameters are.
        pyramid: windows and schedule of the flow, with as many levels as the DiT.
        noise: where ordinary noise comes from.
    """

    def __init__(self, dit: DiT, pyramid: Pyramid, noise: Noise = keyed_noise) -> None:
        if pyramid.levels != dit.config.levels:
            raise ValueError(f"a pyramid of {pyramid.levels} levels does not fit a DiT of {dit.config.levels}")
        self.dit = dit
        self.pyramid = pyramid
        self.noise = noise

    def start(self, request: Request) -> Session:
        """Begin a video; ValueError for a request that this model cannot serve."""
        self._check(request)
        finished = [] if request.given is None else self._by_unit(request.given)
        return Session(request, self.dit.config, self.pyramid, self.noise, finished, self._like())

    def resume(self, request: Request, state: Mapping[str, Tensor]) -> Session:
        """Continue where `Session.state_dict` was taken, here or elsewhere; its K/V are recomputed by the next step.

        Raises ValueError for a state that is damaged or another request's.
        """
        self._check(request)
        if not {"latents", "position"} <= state.keys():
            raise ValueError(f"the saved session holds {sorted(state)}; it must hold latents and position")
        if not all(torch.isfinite(tensor).all() for tensor in state.values()):
            raise ValueError("the saved session holds NaN or infinity; every value must be finite")
        self._check_saved(request, state["latents"])
        finished = self._by_unit(state["latents"])
        session = Session(request, self.dit.config, self.pyramid, self.noise, finished, self._like())
        session.restore(state)
        return session

    @torch.no_grad()
    def step(self, sessions: Sequence[Session]) -> list[Unit]:
        """Advance every session by one denoising step, all in one forward.

        Sessions may be at any unit and stage, of any size and prompt; a guided one has two rows in the pack. When the
        forward fails, they stay where they were and can be stepped again.

        Returns:
            the units that became finished, in the order of their sessions.

        Raises:
            ValueError: a session that is done, or given twice.
        """
        if len({id(session) for session in sessions}) < len(sessions) or any(session.done for session in sessions):
            raise ValueError("a step takes each session once, and none that is done")
        if not sessions:
            return []
        config = self.dit.config
        clips = [session.clips() for session in sessions]
        rows = [row for of_session in clips for row in of_session]
        pack = assemble([clip for clip, _ in rows], config).to(self._like().device)
        cached = config.conditioning == "shared_context"
        velocities = iter(self.dit(pack, [row.cache for _, row in rows] if cached else None))
        units = [
            session.advance([next(velocities) for _ in of_session])
            for session, of_session in zip(sessions, clips, strict=True)
        ]
        return [unit for unit in units if unit is not None]

    def generate(self, request: Request) -> Iterator[Unit]:
        """Make one video; yields each new unit as soon as it is finished."""
        session = self.start(request)
        while not session.done:
            yield from self.step([session])

    def _like(self) -> Tensor:
        parameter = next(self.dit.parameters())
        dtype = torch.float64 if parameter.dtype == torch.float64 else torch.float32
        return torch.empty(0, dtype=dtype, device=parameter.device)

    def _by_unit(self, latents_CTHW: Tensor) -> list[Tensor]:
        latents_CTHW = latents_CTHW.to(self._like())
        frames = self.dit.config.frames_per_unit
        length = latents_CTHW.shape[1]
        units = unit_count(length, frames) if length else 0
        spans = [unit_span(unit, frames, length) for unit in range(units)]
        return [latents_CTHW[:, start:stop] for start, stop in spans]

    def _check_saved(self, request: Request, latents_CTHW: Tensor) -> None:
        shape = tuple(latents_CTHW.shape)
        asked = (self.dit.config.latent_channels, request.latents, request.height, request.width)
        if len(shape) != 4 or (shape[0], *shape[2:]) != (asked[0], *asked[2:]) or shape[1] > asked[1]:
            raise ValueError(f"the saved session has latents of shape {shape}; the request is for {asked}, CxTxHxW")

    def _check(self, request: Request) -> None:
        config = self.dit.config
        check_size(request.height, request.width, config)
        if config.position_table and max(request.height, request.width) > config.patch * config.position_table:
            raise ValueError(
                f"a latent of {request.width}x{request.height}: "
                f"this model's positions reach to {config.patch * config.position_table} a side"
            )
        unit_count(request.latents, config.frames_per_unit)
        if any(len(counts) != config.levels for counts in request.steps):
            raise ValueError(
                f"steps are {request.steps}; this model has {config.levels} stages, so give two of that many"
            )
        texts: list[EncodedText] = [*request.texts.values(), *([request.negative] if request.negative else [])]
        for text in texts:
            check_text(text, config.text_dim, config.pooled_dim)
        if request.given is None:
            return
        channels, frames, height, width = request.given.shape
        if (channels, height, width) != (config.latent_channels, request.height, request.width):
            raise ValueError(
                f"given latents of {width}x{height} in {channels} channels; "
                f"the video is {request.width}x{request.height} in {config.latent_channels}"
            )
        if config.frames_per_unit is None:
            raise ValueError("a full-sequence model makes the whole video at once; it takes no given latents")
        unit_count(frames, config.frames_per_unit)

"""The engine with a real, tiny, seeded transformer."""

import asyncio
from contextlib import aclosing, suppress

import pytest
import torch

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampler import Request, Sampler
from rayramid.models.text import TextEmbedding
from rayramid.serve.engine import Engine

TINY = DiTConfig(
    heads=2, head_dim=8, double_blocks=1, single_blocks=1, text_dim=8, pooled_dim=8, rope_axes=(4, 2, 2), levels=2
)
BUDGET = 10_000


@pytest.fixture(scope="module")
def sampler():
    torch.manual_seed(0)
    dit = DiT(TINY).double()
    with torch.no_grad():
        for parameter in dit.parameters():
            parameter.normal_(0, 0.2)
    return Sampler(dit.eval(), Pyramid(levels=2))


def request(seed, latents=2, side=4):
    generator = torch.Generator().manual_seed(seed)
    text = TextEmbedding(
        torch.randn(3, 8, generator=generator, dtype=torch.float64), torch.randn(8, generator=generator).double()
    )
    return Request(text, side, side, latents, ((2, 1), (1, 2)), seed, negative=text, guidance=3.0, video_guidance=0.0)


class Recorded:
    """The sampler's step, noting which sessions shared a forward; `poison` makes that session's steps fail."""

    def __init__(self, sampler):
        self.sampler = sampler
        self.forwards = []
        self.poison = None

    def step(self, sessions):
        self.forwards.append([session.request.seed for session in sessions])
        if self.poison in self.forwards[-1]:
            raise MemoryError("too large")
        return self.sampler.step(sessions)


def run(scenario, engine):
    async def main():
        loop = asyncio.create_task(engine.run())
        try:
            async with asyncio.timeout(60):
                return await scenario
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop

    return asyncio.run(main())


async def video(engine, session):
    async with aclosing(engine.units(session)) as units:
        return torch.cat([finished.unit.latent_CTHW async for finished in units], dim=1)


def alone(sampler, of_request):
    return torch.cat([unit.latent_CTHW for unit in sampler.generate(of_request)], dim=1)


def test_sessions_of_any_size_and_length_share_forwards_and_come_out_as_if_alone(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, BUDGET)
    requests = [request(1), request(2, latents=3), request(3, side=8)]

    async def scenario():
        return await asyncio.gather(*(video(engine, sampler.start(each)) for each in requests))

    together = run(scenario(), engine)
    for latents, each in zip(together, requests, strict=True):
        torch.testing.assert_close(latents, alone(sampler, each), rtol=1e-10, atol=1e-10)
    # Three steps per unit; the two-unit videos take part in the first six of the nine forwards.
    assert [sorted(forward) for forward in recorded.forwards] == [[1, 2, 3]] * 6 + [[2]] * 3


def test_a_session_joins_and_leaves_between_steps(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, BUDGET)

    async def scenario():
        async with aclosing(engine.units(sampler.start(request(1, latents=9)))) as units:
            await anext(units)
            late = asyncio.create_task(video(engine, sampler.start(request(2, latents=3))))
            await anext(units)
        await late
        assert engine.sessions == 0

    run(scenario(), engine)
    assert recorded.forwards[0] == [1]
    assert [1, 2] in recorded.forwards or [2, 1] in recorded.forwards
    assert recorded.forwards[-1] == [2]
    assert sum(1 in forward for forward in recorded.forwards) < 27


def test_a_session_waits_while_nobody_takes_its_units(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, BUDGET)

    async def scenario():
        async with aclosing(engine.units(sampler.start(request(1, latents=9)))) as units:
            first = await anext(units)
            while len(recorded.forwards) < 9:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            # Three steps each for the unit that was taken and for two ahead of it.
            assert len(recorded.forwards) == 9
            assert (first.unit.index, first.state["latents"].shape[1]) == (0, 1)
            assert (await anext(units)).state["latents"].shape[1] == 2

    run(scenario(), engine)


def test_the_budget_lets_sessions_take_turns(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, 1)

    async def scenario():
        await asyncio.gather(*(video(engine, sampler.start(request(seed))) for seed in (1, 2)))

    run(scenario(), engine)
    assert recorded.forwards == [[1], [2]] * 6


def test_a_failing_session_takes_nobody_with_it(sampler):
    recorded = Recorded(sampler)
    recorded.poison = 2
    engine = Engine(recorded.step, BUDGET)

    async def scenario():
        return await asyncio.gather(
            *(video(engine, sampler.start(request(seed))) for seed in (1, 2, 3)), return_exceptions=True
        )

    first, second, third = run(scenario(), engine)
    assert isinstance(second, MemoryError)
    torch.testing.assert_close(first, alone(sampler, request(1)), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(third, alone(sampler, request(3)), rtol=1e-10, atol=1e-10)

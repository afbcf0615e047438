"""The engine with a real, tiny, seeded transformer."""

import asyncio
from contextlib import suppress

import pytest
import torch

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampler import Request, Sampler
from rayramid.models.text import TextEmbedding
from rayramid.serve import engine as engine_module
from rayramid.serve.engine import Engine

TINY = DiTConfig(
    heads=2, head_dim=8, double_blocks=1, single_blocks=1, text_dim=8, pooled_dim=8, rope_axes=(4, 2, 2), levels=2
)
BUDGET = 10_000


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Who comes back from a unit's edge late, on a busy machine, is waited for as well."""
    monkeypatch.setattr(engine_module, "EDGE_S", 10.0)


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
            async with asyncio.timeout(200):
                return await scenario
        finally:
            loop.cancel()
            with suppress(asyncio.CancelledError):
                await loop

    return asyncio.run(main())


async def video(engine, session, owner="", priority=0):
    units = []
    with engine.seat(session, owner, priority) as seat:
        while not session.done:
            units.append((await engine.unit(seat)).latent_CTHW)
    return torch.cat(units, dim=1)


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
        with engine.seat(sampler.start(request(1, latents=9))) as seat:
            await engine.unit(seat)
            late = asyncio.create_task(video(engine, sampler.start(request(2, latents=3))))
            await engine.unit(seat)
            unfinished = asyncio.create_task(engine.unit(seat))
            seen = len(recorded.forwards)
            while len(recorded.forwards) == seen:
                await asyncio.sleep(0)
            unfinished.cancel()
        await late
        assert engine.sessions == 0

    run(scenario(), engine)
    assert recorded.forwards[0] == [1]
    assert [1, 2] in recorded.forwards or [2, 1] in recorded.forwards
    # Two units of three steps, and the one step of the third that ran when it left.
    assert sum(1 in forward for forward in recorded.forwards) in (7, 8)
    assert recorded.forwards[-1] == [2]


def test_a_session_stands_still_while_nobody_waits_for_its_unit(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, BUDGET)

    async def scenario():
        with engine.seat(sampler.start(request(1, latents=9))) as seat:
            assert (await engine.unit(seat)).index == 0
            await asyncio.sleep(0.2)
            assert len(recorded.forwards) == 3
            assert (await engine.unit(seat)).index == 1

    run(scenario(), engine)


def test_sessions_between_two_units_are_waited_for(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, BUDGET)

    async def pausing(session):
        with engine.seat(session) as seat:
            while not session.done:
                await engine.unit(seat)
                await asyncio.sleep(0.01)

    async def scenario():
        first, second = sampler.start(request(1, latents=4)), sampler.start(request(2, latents=4))
        await asyncio.gather(pausing(first), video(engine, second))

    run(scenario(), engine)
    assert all(len(forward) == 2 for forward in recorded.forwards)


def test_the_budget_lets_sessions_take_turns(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, 1)

    async def scenario():
        await asyncio.gather(*(video(engine, sampler.start(request(seed))) for seed in (1, 2)))

    run(scenario(), engine)
    assert sorted(recorded.forwards[:2]) == [[1], [2]]
    assert sorted(recorded.forwards) == [[1]] * 6 + [[2]] * 6
    # Equal shares of tokens: neither gets far ahead of the other.
    for half in range(2, 12, 2):
        done = [forward[0] for forward in recorded.forwards[:half]]
        assert abs(done.count(1) - done.count(2)) <= 2


def test_owners_share_equally_and_priorities_decide_within_an_owners_share(sampler):
    recorded = Recorded(sampler)
    engine = Engine(recorded.step, 1)

    async def scenario():
        await asyncio.gather(
            video(engine, sampler.start(request(1)), "many"),
            video(engine, sampler.start(request(2)), "many"),
            video(engine, sampler.start(request(3)), "many", 5),
            video(engine, sampler.start(request(4)), "one"),
        )

    run(scenario(), engine)
    order = [forward[0] for forward in recorded.forwards]
    # While both owners have something to do, each gets about every other forward.
    last_of_one = max(n for n, seed in enumerate(order) if seed == 4)
    assert 9 <= last_of_one <= 14
    # The urgent one of the many is done before the others begin.
    assert [seed for seed in order if seed != 4][:6] == [3] * 6


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

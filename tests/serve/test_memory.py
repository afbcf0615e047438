import asyncio

from rayramid.serve.memory import Memory


def test_room_is_given_in_the_order_of_asking():
    async def scenario():
        memory, got = Memory(10), []

        async def take(name, size, until):
            async with memory.hold(size):
                got.append(name)
                await until.wait()

        first, rest = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(take(*each)) for each in (("a", 8, first), ("b", 5, rest), ("c", 2, rest))]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        # The small one does not overtake: else the large one might wait for ever.
        assert (got, memory.free) == (["a"], 2)
        first.set()
        while len(got) < 3:
            await asyncio.sleep(0)
        assert memory.free == 3
        rest.set()
        await asyncio.gather(*tasks)
        assert (got, memory.free) == (["a", "b", "c"], 10)

    asyncio.run(scenario())


def test_who_gives_up_waiting_lets_the_next_one_in_and_too_much_gets_all():
    async def scenario():
        memory = Memory(10)

        async def wait(size):
            async with memory.hold(size):
                return memory.free

        async with memory.hold(6):
            giving_up = asyncio.create_task(wait(9))
            behind = asyncio.create_task(wait(4))
            await asyncio.sleep(0)
            giving_up.cancel()
            assert await behind == 0
        assert await wait(25) == 0
        assert memory.free == 10

    asyncio.run(scenario())

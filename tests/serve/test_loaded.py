"""What is loaded at a time: the bound, who makes room, and that nobody waits for ever."""

import asyncio

import pytest
from waiting import until

from rayramid.serve.loaded import Loaded


class Shelf:
    """Loads strings, and writes down what happens."""

    def __init__(self, most):
        self.log = []
        self.loaded = Loaded(most, self.load, self.unload)

    async def load(self, key):
        self.log.append(f"+{key}")
        await asyncio.sleep(0)
        if key == "broken":
            raise ValueError(key)
        return key.upper()

    async def unload(self, thing):
        self.log.append(f"-{thing.lower()}")

    async def use(self, key, until_then=None):
        async with self.loaded.hold(key) as thing:
            self.log.append(thing)
            if until_then:
                await until_then.wait()


def test_what_was_used_least_recently_makes_room():
    async def scenario():
        shelf = Shelf(2)
        for key in ("a", "b", "a", "c", "a", "b"):
            await shelf.use(key)
        return shelf

    shelf = asyncio.run(scenario())
    assert shelf.log == ["+a", "A", "+b", "B", "A", "-b", "+c", "C", "A", "-c", "+b", "B"]
    assert sorted(shelf.loaded.things()) == ["A", "B"]


def test_what_is_in_use_stays_and_who_comes_later_waits_behind():
    async def scenario():
        shelf, first, second = Shelf(1), asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(shelf.use("a", first))
            await until(lambda: "A" in shelf.log)
            group.create_task(shelf.use("b", second))
            await asyncio.sleep(0)
            # It is loaded, but who waits for another one came first.
            group.create_task(shelf.use("a"))
            for _ in range(5):
                await asyncio.sleep(0)
            assert shelf.log == ["+a", "A"]
            first.set()
            await until(lambda: "B" in shelf.log)
            second.set()
        return shelf.log

    assert asyncio.run(scenario()) == ["+a", "A", "-a", "+b", "B", "-b", "+a", "A"]


def test_many_who_ask_at_once_load_it_once_and_one_who_gives_up_disturbs_nobody():
    async def scenario():
        shelf = Shelf(1)
        leaving, *staying = (asyncio.create_task(shelf.use("a")) for _ in range(4))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.gather(*staying)
        return shelf.log

    assert asyncio.run(scenario()) == ["+a", "A", "A", "A"]


def test_who_gives_up_waiting_for_room_lets_the_next_one_through():
    async def scenario():
        shelf, first = Shelf(1), asyncio.Event()
        using = asyncio.create_task(shelf.use("a", first))
        await until(lambda: "A" in shelf.log)
        waiting = asyncio.create_task(shelf.use("b"))
        await asyncio.sleep(0)
        waiting.cancel()
        await shelf.use("a")
        first.set()
        await using
        return shelf.log

    assert asyncio.run(scenario()) == ["+a", "A", "A"]


def test_what_could_not_be_loaded_is_tried_again_and_takes_no_room():
    async def scenario():
        shelf = Shelf(1)
        for _ in range(2):
            with pytest.raises(ValueError, match="broken"):
                await shelf.use("broken")
        await shelf.use("a")
        return shelf

    shelf = asyncio.run(scenario())
    assert shelf.log == ["+broken", "+broken", "+a", "A"]
    assert shelf.loaded.things() == ["A"]


def test_what_is_put_there_needs_no_loading():
    async def scenario():
        shelf = Shelf(1)
        shelf.loaded.put("a", "A")
        await shelf.use("a")
        return shelf.log

    assert asyncio.run(scenario()) == ["A"]

"""Listeners that share a port of this machine."""

import asyncio
import socket

import httpx
import pytest

from rayramid.models.errors import UserError
from rayramid.serve import listening
from rayramid.serve.app import free_port, reserved
from rayramid.serve.listening import Listener

HOST = "127.0.0.1"


def test_listeners_share_a_reserved_port_and_go_on_when_one_ends():
    async def scenario():
        with reserved(HOST, 0) as port:
            listeners = [Listener(answer, HOST, port) for _ in range(2)]
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", headers={"Connection": "close"}) as http:
            before = [(await http.get("/")).status_code for _ in range(8)]
            await listeners[0].close()
            after = [(await http.get("/")).status_code for _ in range(8)]
        assert [each.listens for each in listeners] == [False, True]
        await listeners[1].close()
        return before + after

    assert asyncio.run(scenario()) == [200] * 16


def test_a_listener_that_closes_ends_its_answers_and_takes_no_more(monkeypatch):
    monkeypatch.setattr(listening, "LAST_WORDS_S", 600)

    async def scenario():
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def slow(scope, receive, send):
            asked.set()
            await go_on.wait()
            await answer(scope, receive, send)

        with reserved(HOST, 0) as port:
            listener = Listener(slow, HOST, port)
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}", timeout=600) as http:
            answering = asyncio.create_task(http.get("/"))
            await asked.wait()
            closing = asyncio.create_task(listener.close())
            while await is_open(port):
                await asyncio.sleep(0.01)
            go_on.set()
            status = (await answering).status_code
        await closing
        return status

    assert asyncio.run(scenario()) == 200


def test_a_port_where_others_listen_is_refused_even_if_they_share_it():
    with (
        socket.create_server((HOST, 0), reuse_port=True) as other,
        pytest.raises(UserError, match="Address already in use"),
    ):
        free_port(HOST, other.getsockname()[1])


async def answer(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def is_open(port):
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except ConnectionError:
        return False
    writer.close()
    return True

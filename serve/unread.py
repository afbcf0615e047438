"""Requests that are answered before their body has come: without this, servers read on for as long as clients send."""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# What honest clients have under way is let in, for many see no answer on a connection that ends while they send.
DRAINED_BYTES = 4 * 1024**2
DRAINED_S = 2.0


class CloseUnread:
    """Lets a connection end with an answer that did not wait for the end of a long request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, and say `Connection: close` if there is more to come that nobody wants."""
        if scope["type"] != "http" or not _has_body(Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        unread = True

        async def receive_and_see() -> Message:
            nonlocal unread
            message = await receive()
            unread = message["type"] == "http.request" and message.get("more_body", False)
            return message

        async def drain() -> None:
            drained = 0
            while unread and drained < DRAINED_BYTES:
                drained += len((await receive_and_see()).get("body", b""))

        async def send_and_close(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                with suppress(TimeoutError):
                    await asyncio.wait_for(drain(), DRAINED_S)
                if unread:
                    MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self._app(scope, receive_and_see, send_and_close)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

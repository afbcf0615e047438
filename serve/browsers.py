"""What browsers are told with every answer, and what pages of others can't make them do.

A browser sends what any page asks for, also to servers that only its own machine can reach. Where API keys are needed
that is harmless, since no page of others has one. An endpoint without keys answers only to its own names (a page may
let its name point here: DNS rebinding) and carries out nothing that another origin's page sends.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rayramid.serve.errors import ApiError
from rayramid.serve.spec import is_loopback

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Videos and what is said about them belong to a key, so nothing in between keeps them for others.
    "Cache-Control": "private, no-cache",
}
SAFE = ("GET", "HEAD", "OPTIONS")


class SecurityHeaders:
    """Adds what an answer does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with more headers."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_more if scope["type"] == "http" else send)


class OwnPagesOnly:
    """Refuses names that are not this machine's, and changes that pages of other origins ask for."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse with 403."""
        refusal = self._refusal(Headers(scope=scope), scope["method"]) if scope["type"] == "http" else None
        if refusal:
            await refusal.response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Headers, method: str) -> ApiError | None:
        host = headers.get("host", "")
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            return ApiError(403, f"Without API keys this server is no more than localhost, not {host!r}.", code="host")
        origin = headers.get("origin")
        if method in SAFE or origin is None or origin in self._origins or urlsplit(origin).netloc == host:
            return None
        return ApiError(403, f"Pages of {origin!r} may not do that here.", code="origin")


def cors(app: ASGIApp, origins: tuple[str, ...]) -> CORSMiddleware:
    """Let pages of these origins send requests and read answers."""
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Range"],
        expose_headers=["Content-Range", "Retry-After"],
        max_age=600,
    )

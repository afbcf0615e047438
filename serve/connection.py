"""What both clients make of a connection: who is asked, when it breaks off, and answers that are no success."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from rayramid.serve.calls import refusal, unreachable

# How often a stream is taken up again without getting any further.
RESUMES = 20


class Patience:
    """How often a connection may break off without anything new in between."""

    def __init__(self) -> None:
        self._left = RESUMES

    def renew(self) -> None:
        """Something new has come."""
        self._left = RESUMES

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Forgive a connection that breaks off, a number of times."""
        try:
            yield
        except httpx.TransportError as error:
            self._left -= 1
            if not self._left:
                raise unreachable(error) from error


def base_of(url: str) -> str:
    """Where the API is, of an endpoint's URL."""
    return f"{url.rstrip('/')}/v1"


def authorization(api_key: str | None) -> dict[str, str]:
    """The header that shows a key."""
    return {"Authorization": f"Bearer {api_key}"} if api_key else {}


@contextmanager
def reaching() -> Iterator[None]:
    """Say in one line that nobody answers."""
    try:
        yield
    except httpx.TransportError as error:
        raise unreachable(error) from error


def check(response: httpx.Response, body: bytes) -> None:
    """Raise UserError in the server's own words if it refuses."""
    refused = refusal(response, body)
    if refused:
        raise refused

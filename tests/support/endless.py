"""A request whose body never ends."""

import httpx

PIECE = b"x" * 65536


def post_without_end(url: str, key: str) -> tuple[int | None, int]:
    """The answer's status, None for a connection that the server closes while the client sends; and bytes sent."""
    sent = 0

    def without_end():
        nonlocal sent
        yield b'{"prompt": "'
        while True:
            yield PIECE
            sent += len(PIECE)

    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        status = httpx.post(f"{url}/v1/videos", content=without_end(), headers=headers, timeout=60).status_code
    except httpx.TransportError:
        status = None
    return status, sent

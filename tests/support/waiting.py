"""Waiting for something to be so, as long as a busy machine may take; what never comes is still found."""

import asyncio
from collections.abc import Callable

PATIENCE_S = 200.0


async def until(condition: Callable[[], object]) -> None:
    """Return once the condition holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.005)

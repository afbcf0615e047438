"""Embeddings of prompts, remembered: the negative prompt and popular prompts are encoded once."""

import asyncio
from collections import OrderedDict

from rayramid.models.text import TextEmbedding, TextEncoder


class Embeddings:
    """A text encoder with a cache of the prompts used last.

    Args:
        encoder: encodes one prompt at a time; the others wait.
        size: bytes of embeddings that are kept.
    """

    def __init__(self, encoder: TextEncoder, size: int) -> None:
        self._encoder = encoder
        self._room = size
        self._cache: OrderedDict[str, TextEmbedding] = OrderedDict()
        self._lock = asyncio.Lock()

    async def embed(self, prompts: list[str]) -> list[TextEmbedding]:
        """One embedding per prompt, in order."""
        return [await self._embed(prompt) for prompt in prompts]

    async def _embed(self, prompt: str) -> TextEmbedding:
        if prompt not in self._cache:
            async with self._lock:
                # Somebody else may have brought it while this one waited.
                if prompt not in self._cache:
                    # One at a time: padding to a longer neighbour would make the result depend on company.
                    (made,) = await asyncio.to_thread(self._encoder.encode, [prompt])
                    # On the CPU, since other processes get it.
                    made = TextEmbedding(made.tokens_LD.cpu(), made.pooled_P.cpu())
                    self._cache[prompt] = made
                    self._room -= _size(made)
        self._cache.move_to_end(prompt)
        found = self._cache[prompt]
        while self._room < 0:
            _, oldest = self._cache.popitem(last=False)
            self._room += _size(oldest)
        return found


def _size(embedding: TextEmbedding) -> int:
    return embedding.tokens_LD.nbytes + embedding.pooled_P.nbytes

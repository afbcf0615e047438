"""Embeddings of prompts, remembered: the negative prompt and popular prompts are encoded once."""

import asyncio
from collections import OrderedDict

from rayramid.models.text import TextEmbedding, TextEncoder


class Embeddings:
    """A text encoder with a cache of the prompts used last."""

    def __init__(self, encoder: TextEncoder, prompts: int) -> None:
        self._encoder = encoder
        self._prompts = prompts
        self._cache: OrderedDict[str, TextEmbedding] = OrderedDict()
        self._lock = asyncio.Lock()

    async def embed(self, prompts: list[str]) -> list[TextEmbedding]:
        """One embedding per prompt, in order."""
        async with self._lock:
            embeddings = []
            for prompt in prompts:
                if prompt not in self._cache:
                    # One at a time: padding to a longer neighbour would make the result depend on company.
                    (made,) = await asyncio.to_thread(self._encoder.encode, [prompt])
                    # On the CPU, since other processes get it.
                    self._cache[prompt] = TextEmbedding(made.tokens_LD.cpu(), made.pooled_P.cpu())
                self._cache.move_to_end(prompt)
                embeddings.append(self._cache[prompt])
            while len(self._cache) > self._prompts:
                self._cache.popitem(last=False)
        return embeddings

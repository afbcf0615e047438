"""Text encoders of several models; those with the same ones share them."""

import asyncio
from collections.abc import Callable

from rayramid.models.card import load_card
from rayramid.models.text import TextEmbedding, TextEncoder
from rayramid.serve.embeddings import Embeddings
from rayramid.serve.loaded import Loaded


class Encoders:
    """Embeds prompts for any model folder.

    Args:
        most: encoders that are held at a time.
        size: bytes of embeddings that are kept, in all.
        load: the encoders of a model folder; blocks.
    """

    def __init__(self, most: int, size: int, load: Callable[[str], TextEncoder]) -> None:
        self._size = size // most
        self._load = load
        self._identities: dict[str, str] = {}
        self._loaded = Loaded[str, Embeddings](most, self._open, _forget)

    def open(self, folder: str) -> None:
        """Load the encoders of a model before anybody asks for them; blocks."""
        self._loaded.put(self._identity(folder), Embeddings(self._load(folder), self._size))

    async def embed(self, folder: str, prompts: list[str]) -> list[TextEmbedding]:
        """One embedding per prompt, by the encoders of a model folder."""
        async with self._loaded.hold(await asyncio.to_thread(self._identity, folder)) as embeddings:
            return await embeddings.embed(prompts)

    def _identity(self, folder: str) -> str:
        """What tells encoders apart: their fingerprint, or where they lie if the card has none."""
        if folder not in self._identities:
            self._identities[folder] = load_card(folder).text_fingerprint or folder
        return self._identities[folder]

    async def _open(self, identity: str) -> Embeddings:
        folder = next(folder for folder, known in self._identities.items() if known == identity)
        return Embeddings(await asyncio.to_thread(self._load, folder), self._size)


async def _forget(embeddings: Embeddings) -> None:
    """Nothing but the reference to it."""

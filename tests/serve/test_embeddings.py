import asyncio

import torch

from rayramid.models import storage
from rayramid.models.text import load_text
from rayramid.serve.embeddings import Embeddings


class Counted:
    """The text encoder, noting what it was asked."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.asked = []

    def encode(self, prompts):
        self.asked += prompts
        return self.encoder.encode(prompts)


def test_a_prompt_is_encoded_once_until_newer_ones_push_it_out(model_folder):
    encoder = Counted(load_text(storage.join(model_folder, "text")))
    embeddings = Embeddings(encoder, prompts=2)

    async def scenario():
        first, blurry = await embeddings.embed(["a cat", "blurry"])
        again, _ = await embeddings.embed(["a cat", "a much longer prompt about a dog"])
        await embeddings.embed(["blurry"])
        return first, again, blurry

    first, again, blurry = asyncio.run(scenario())
    assert again is first
    assert encoder.asked == ["a cat", "blurry", "a much longer prompt about a dog", "blurry"]
    (alone,) = encoder.encoder.encode(["blurry"])
    assert torch.equal(blurry.tokens_LD, alone.tokens_LD)

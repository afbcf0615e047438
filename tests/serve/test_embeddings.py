import asyncio

import torch

from rayramid.models import storage
from rayramid.models.text import load_text
from rayramid.serve.embeddings import Embeddings

LONG = "a much longer prompt about a dog"


class Counted:
    """The text encoder, noting what it was asked."""

    def __init__(self, encoder):
        self.encoder = encoder
        self.asked = []

    def encode(self, prompts):
        self.asked += prompts
        return self.encoder.encode(prompts)


def test_a_prompt_is_encoded_once_until_newer_ones_need_its_room(model_folder):
    encoder = Counted(load_text(storage.join(model_folder, "text")))
    sizes = [each.tokens_LD.nbytes + each.pooled_P.nbytes for each in encoder.encoder.encode(["a cat", "blurry", LONG])]
    embeddings = Embeddings(encoder, sizes[0] + sizes[2])

    async def scenario():
        first, blurry = await embeddings.embed(["a cat", "blurry"])
        again, _ = await embeddings.embed(["a cat", LONG])
        await embeddings.embed(["blurry"])
        return first, again, blurry

    first, again, blurry = asyncio.run(scenario())
    assert again is first
    assert encoder.asked == ["a cat", "blurry", LONG, "blurry"]
    (alone,) = encoder.encoder.encode(["blurry"])
    assert torch.equal(blurry.tokens_LD, alone.tokens_LD)

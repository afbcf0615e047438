"""A DiT held in 8 bits, in the host's memory, or by two processes makes the video that it makes alone."""

import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from devices import on_cuda
from torch import nn

from rayramid.models.card import load_card
from rayramid.models.checkpoint import load_dit, pyramid_of
from rayramid.models.crew import Crew
from rayramid.models.errors import UserError
from rayramid.models.offload import offload_blocks
from rayramid.models.quantise import Int8Linear, quantise, weight_bytes
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.text import TextEmbedding
from rayramid.models.transformer import Holding

pytestmark = pytest.mark.usefixtures("one_thread")


def text(words, card):
    draws = torch.Generator().manual_seed(words)
    tokens = torch.randn(words, card.dit["text_dim"], generator=draws)
    return TextEmbedding(tokens, torch.randn(card.dit["pooled_dim"], generator=draws))


def make(dit, card):
    """Latents of two guided videos at a time; the second one's prompt changes, and it begins when the first is on."""
    sampler = Sampler(dit, pyramid_of(card))
    common = {"negative": text(1, card), "height": 8, "steps": card.steps, "guidance": 3.0, "video_guidance": 2.0}
    first = sampler.start(Request(prompts=text(3, card), width=8, latents=4, seed=1, **common))
    sampler.step([first])
    prompts = {0: text(4, card), 2: text(2, card)}
    second = sampler.start(Request(prompts=prompts, width=16, latents=5, seed=2, **common))
    while open_sessions := [each for each in (first, second) if not each.done]:
        sampler.step(open_sessions)
    return torch.cat([first.latents_CTHW.flatten(), second.latents_CTHW.flatten()]).cpu()


@pytest.mark.parametrize("device", ["cpu", on_cuda(2)])
def test_two_processes_sample_what_one_samples_and_end_together(model_folder, device):
    card = load_card(model_folder)
    alone = make(load_dit(model_folder, card), card)
    crew = Crew(Holding(device), ranks=2)
    try:
        # What can't be loaded ends nobody.
        with pytest.raises(ValueError, match="2 ranks cannot share the 1 heads"):
            crew.load(model_folder, replace(card, dit=card.dit | {"heads": 1}))
        with pytest.raises(UserError, match="/nowhere"):
            crew.load("/nowhere", card)
        first, second = crew.load(model_folder, card), crew.load(model_folder, card)
        # Forwards of two models, from two threads.
        with ThreadPoolExecutor(2) as threads:
            for shared in threads.map(lambda dit: make(dit, card), (first, second)):
                torch.testing.assert_close(shared, alone, rtol=1e-5, atol=1e-5)
        crew.check()
        # In the middle of a forward, when the leader waits for what the other one would send.
        (rank,) = multiprocessing.active_children()
        first.blocks[0].register_forward_hook(lambda *_: rank.kill())
        with pytest.raises(RuntimeError):
            make(first, card)
        crew.wait()
        with pytest.raises(RuntimeError, match=f"rank 1 of the transformer died with exit code -{signal.SIGKILL:d}"):
            make(second, card)
    finally:
        crew.close()


@pytest.mark.parametrize("device", ["cpu", on_cuda()])
def test_blocks_that_wait_in_the_hosts_memory_make_the_same_video(model_folder, device):
    card = load_card(model_folder)
    dit = load_dit(model_folder, card)
    expected = make(dit.to(device), card)
    dit = offload_blocks(load_dit(model_folder, card), device)
    hosted = {name: weight.data_ptr() for name, weight in dit.named_parameters() if "blocks" in name}
    within = []
    block = dit.blocks[0]
    block.register_forward_pre_hook(lambda *_: within.append([weight.data_ptr() for weight in block.parameters()]))
    assert torch.equal(make(dit, card), expected)
    assert hosted == {name: weight.data_ptr() for name, weight in dit.named_parameters() if "blocks" in name}
    assert not set(hosted.values()) & set(within[0]), "it computed with copies"
    assert {weight.device.type for weight in dit.parameters()} == {"cpu", device}


def test_weights_of_8_bits_are_the_nearest_and_multiply_as_they_are():
    torch.manual_seed(0)
    linear = nn.Linear(3, 2)
    linear.weight.data = torch.tensor([[1.27, -0.5, 0.004], [0.0, 0.0, 0.0]])
    small = Int8Linear(linear)
    assert small.weight.tolist() == [[127, -50, 0], [0, 0, 0]]
    torch.testing.assert_close(small.scale[0], torch.tensor(0.01))
    x = torch.randn(5, 3)
    torch.testing.assert_close(small(x), x @ torch.tensor([[1.27, 0], [-0.5, 0], [0, 0]]) + linear.bias)


def test_a_dit_in_8_bits_is_a_quarter_as_large_and_nearly_the_same(model_folder):
    card = load_card(model_folder)
    exact = load_dit(model_folder, card, dtype=torch.float32)
    small = quantise(load_dit(model_folder, card, dtype=torch.float32))
    blocks = [sum(weight_bytes(block) for block in dit.blocks) for dit in (small, exact)]
    assert blocks[0] < 0.3 * blocks[1]
    mine, theirs = make(small, card), make(exact, card)
    assert 0 < (mine - theirs).norm() / theirs.norm() < 0.05

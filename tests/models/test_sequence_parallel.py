"""Processes that split every pack between them, against one process: velocities, gradients, caches."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from devices import on_cuda
from torch import Tensor

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.history import Segment
from rayramid.models.objective import Text, TrainingClip, objective, training_pack
from rayramid.models.pyramid import Pyramid
from rayramid.models.sampler import Sampler
from rayramid.models.sampling.request import Request
from rayramid.models.sequence_parallel import Split, Tokens, evenly, parts

RANKS = 2
# Three heads, so that one rank has two of them.
SHARED = DiTConfig(
    heads=3,
    head_dim=8,
    double_blocks=1,
    single_blocks=1,
    text_dim=6,
    pooled_dim=5,
    rope_axes=(4, 2, 2),
    latent_channels=3,
    levels=2,
)
TABLE = dataclasses.replace(SHARED, double_blocks=2, single_blocks=0, position_table=8, position_base=4)
OFFICIAL = dataclasses.replace(TABLE, conditioning="official")


def cases() -> Iterator[tuple[str, DiTConfig, int, str]]:
    """Name, configuration, tokens of text, recomputation. With one token of text, a rank has none."""
    yield "shared", SHARED, 4, "none"
    yield "selective", SHARED, 4, "selective"
    yield "full", SHARED, 1, "full"
    yield "table", TABLE, 1, "none"
    yield "official", OFFICIAL, 3, "none"


def random_dit(config: DiTConfig, device: str = "cpu") -> DiT:
    dit = DiT(config).double()
    draws = torch.Generator().manual_seed(1)
    for parameter in dit.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=draws)
    # The kernels of flex know no float64.
    dit.executor = "sdpa"
    return dit.to(device)


def learn(dit: DiT, text: int) -> dict[str, Tensor]:
    """Velocities of a pack of two clips, and the gradients of its loss."""
    draws = torch.Generator().manual_seed(2)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draws, dtype=torch.float64).to(dit.patch_in.weight.device)

    clips = [TrainingClip(draw(3, 3, 8, 8), draw(text, 6), draw(5), 1, 2, key) for key in (7, 8)]
    pack, targets = training_pack(clips, dit.config, Pyramid(levels=2), seed=0)
    velocities = dit(pack)
    objective(velocities, targets).mean.backward()
    gradients = {name: parameter.grad for name, parameter in dit.named_parameters()}
    assert all(gradient is not None for gradient in gradients.values()), "FSDP wants all of them from every rank"
    return {f"velocity {i}": velocity.detach() for i, velocity in enumerate(velocities)} | gradients


def sample(dit: DiT) -> dict[str, Tensor]:
    """A guided video of four latents, its context cached, and how large the cache is."""
    draws = torch.Generator().manual_seed(3)
    text, negative = (
        Text(
            torch.randn(length, 6, generator=draws, dtype=torch.float64),
            torch.randn(5, generator=draws, dtype=torch.float64),
        )
        for length in (3, 1)
    )
    request = Request(
        prompts=text, negative=negative, height=8, width=16, latents=4, steps=((2, 2), (2, 2)), seed=5, guidance=3.0
    )
    sampler = Sampler(dit, Pyramid(levels=2))
    session = sampler.start(request)
    sizes = []
    while not session.done:
        sampler.step([session])
        sizes.append(session.cache_bytes)
    return {"latents": session.latents_CTHW, "largest cache": torch.tensor(float(max(sizes)))}


def work(rank: int, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = {"cpu": "gloo", "cuda": "nccl"}[device]
    dist.init_process_group(backend, init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    results = {}
    for name, config, text, recompute in cases():
        dit = random_dit(config, device)
        dit.sequence_group, dit.recompute = dist.group.WORLD, recompute
        results[name] = learn(dit, text)
        for parameter in dit.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= RANKS
    dit = random_dit(SHARED, device)
    dit.sequence_group = dist.group.WORLD
    torch.save((results, sample(dit)), f"{folder}/{rank}.pt")
    with pytest.raises(ValueError, match="1 heads cannot be split over 2 ranks"):
        Split.of(dist.group.WORLD, 9, 1)
    dist.destroy_process_group()


@pytest.mark.parametrize("device", ["cpu", on_cuda(RANKS)])
def test_two_ranks_equal_one_process_in_velocities_gradients_and_samples(tmp_path: Path, device: str) -> None:
    multiprocessing.spawn(work, (str(tmp_path), device), nprocs=RANKS)
    found = [torch.load(tmp_path / f"{rank}.pt", map_location="cpu") for rank in range(RANKS)]
    for name, config, text, _ in cases():
        expected = learn(random_dit(config), text)
        for results, _ in found:
            for part, value in expected.items():
                torch.testing.assert_close(results[name][part], value, rtol=1e-10, atol=1e-12, msg=f"{name}: {part}")
    alone = sample(random_dit(SHARED))
    for _, sampled in found:
        torch.testing.assert_close(sampled["latents"], alone["latents"], rtol=1e-10, atol=1e-12)
    # The cache is split by heads.
    assert sum(sampled["largest cache"] for _, sampled in found) == alone["largest cache"]


def test_each_rank_has_its_parts_of_the_segments() -> None:
    text, first, second = Segment(0, "text", 0, 0, (3, 1, 1)), *(Segment(0, "target", n, 0, (1, 2, 2)) for n in (0, 1))
    cuts = [
        [(part.number, part.tokens.start, part.tokens.stop) for part in parts((text, first, second), own)]
        for own in (slice(0, 4), slice(4, 8), slice(8, 11))
    ]
    assert cuts == [[(0, 0, 3), (1, 0, 1)], [(1, 1, 4), (2, 0, 1)], [(2, 1, 4)]]
    whole = Tokens.of((text, first, second), None, heads=1)
    assert [part.length for part in whole.text] == [3]
    assert [part.length for part in whole.video] == [4, 4]


def test_tokens_and_heads_are_dealt_evenly() -> None:
    assert evenly(30, 8) == (3, 4, 4, 4, 3, 4, 4, 4)

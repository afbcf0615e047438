"""Two gloo processes, each with half of the latents, against one process."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

from rayramid.models.vae.config import VAEConfig
from rayramid.models.vae.context_parallel import decode_share, encode_share, share
from rayramid.models.vae.model import CausalVAE

LATENTS, RANKS = 5, 2
CONFIG = VAEConfig(
    encoder_channels=(4, 8, 8),
    encoder_layers=(1, 1, 1),
    spatial_down=(True, True, True),
    temporal_down=(True, True, True),
    decoder_channels=(8, 8, 4),
    decoder_layers=(1, 1, 1),
    spatial_up=(True, True, True),
    temporal_up=(True, True, True),
    latent_channels=4,
    norm_groups=2,
    shortcuts=True,
)


def build() -> tuple[CausalVAE, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    vae = CausalVAE(CONFIG).double()
    video = torch.rand(1, 3, 1 + 8 * (LATENTS - 1), 16, 16, dtype=torch.float64)
    return vae, video, torch.randn(1, 4, LATENTS, 2, 2, dtype=torch.float64)


def frames_of(latent: int) -> int:
    return 1 + 8 * (latent - 1) if latent else 0


def work(rank: int, rendezvous: str, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=RANKS)
    vae, video, z = build()
    start, stop = share(LATENTS, rank, RANKS)
    moments = encode_share(vae, video[:, :, frames_of(start) : frames_of(stop)])
    frames = decode_share(vae, z[:, :, start:stop])
    (moments.square().sum() + frames.square().sum()).backward()
    for parameter in vae.parameters():
        dist.all_reduce(parameter.grad)
    gradients = {name: parameter.grad for name, parameter in vae.named_parameters()}
    torch.save((moments.detach(), frames.detach(), gradients), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_process_in_results_and_gradients(tmp_path):
    multiprocessing.spawn(work, (str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=RANKS)
    parts = [torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS)]
    vae, video, z = build()
    moments, _ = vae.encode(video)
    frames, _ = vae.decode(z)
    (moments.square().sum() + frames.square().sum()).backward()
    torch.testing.assert_close(torch.cat([part[0] for part in parts], 2), moments.detach(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(torch.cat([part[1] for part in parts], 2), frames.detach(), rtol=1e-10, atol=1e-12)
    for name, parameter in vae.named_parameters():
        torch.testing.assert_close(parts[0][2][name], parameter.grad, rtol=1e-8, atol=1e-10, msg=name)


def test_shares_are_even_and_never_shorter_than_two_latents():
    assert [share(31, rank, 4) for rank in range(4)] == [(0, 7), (7, 15), (15, 23), (23, 31)]
    with pytest.raises(ValueError, match="3 latents are too few for 2 ranks"):
        share(3, 0, 2)

"""What activations are said to take is what autograd keeps of the real modules."""

import dataclasses
import gc

import pytest
import torch

from rayramid.models.attention import plan_attention
from rayramid.models.dit import blocks
from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.flops import is_visible
from rayramid.models.memory import Formats, PackSize, activation_bytes, pack_size
from rayramid.models.objective import TrainingClip, training_pack
from rayramid.models.pyramid import Pyramid

SD3 = DiTConfig(
    heads=2,
    head_dim=64,
    double_blocks=3,
    text_dim=16,
    pooled_dim=16,
    rope_axes=(64, 0, 0),
    position_table=32,
    position_base=16,
)
FLUX = dataclasses.replace(
    SD3, double_blocks=1, single_blocks=2, rope_axes=(16, 24, 24), position_table=0, position_base=0
)
WIDE = dataclasses.replace(FLUX, heads=3, head_dim=32, rope_axes=(8, 12, 12), levels=2, frames_per_unit=2)
OFFICIAL = dataclasses.replace(SD3, conditioning="official")

# bf16 autocast as on GPUs but for the gathered keys, as on CPUs, and fp32.
AS_ON_GPU, AUTOCAST, EXACT = Formats(gathers=True), Formats(attention=4, gathers=True), Formats(4, 4, 4, gathers=True)


def pack_of(config: DiTConfig):
    """Two videos, one of which has more text, and an image."""
    sizes = [(5, 16, 24, 2, 1), (3, 32, 16, 0, 2), (1, 16, 16, 0, 1)]
    clips = [
        TrainingClip(torch.randn(16, t, h, w), torch.randn(10 * (number + 1), 16), torch.randn(16), first, units, 0)
        for number, (t, h, w, first, units) in enumerate(sizes)
    ]
    return training_pack(clips, config, Pyramid(config.levels), seed=0)[0]


def live_tensors():
    gc.collect()
    return [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]


def kept(config: DiTConfig, recompute: str, formats: Formats) -> int:
    """Bytes that a forward leaves for the backward pass, weights and their casts apart."""
    dit = DiT(config)
    dit.recompute = recompute
    pack = pack_of(config)
    weights = {tuple(sorted(weight.shape)) for weight in dit.parameters() if weight.ndim == 2}
    before = {tensor.untyped_storage().data_ptr() for tensor in live_tensors()}
    found = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before and tuple(sorted(tensor.shape)) not in weights:
            found[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=formats.product < formats.exact)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        loss = sum(velocity.square().mean() for velocity in dit(pack))
    # What selective recomputation keeps is not among what autograd saves.
    for tensor in live_tensors():
        keep(tensor)
    assert loss.requires_grad
    total = sum(size for size, _ in found.values())
    # The graph holds the hook, which holds this: a circle that Python cannot see.
    found.clear()
    return total


@pytest.mark.filterwarnings("ignore:A saved_tensors_hooks context")
@pytest.mark.parametrize(
    ("config", "formats", "recompute"),
    [
        (SD3, AS_ON_GPU, "none"),
        (SD3, AS_ON_GPU, "selective"),
        (SD3, AS_ON_GPU, "full"),
        (FLUX, AS_ON_GPU, "none"),
        (FLUX, AS_ON_GPU, "selective"),
        (FLUX, AUTOCAST, "full"),
        (FLUX, EXACT, "none"),
        (OFFICIAL, AS_ON_GPU, "none"),
        (OFFICIAL, EXACT, "selective"),
        (WIDE, AUTOCAST, "none"),
    ],
)
def test_activations_are_what_autograd_keeps(config, formats, recompute, monkeypatch):
    if formats is AS_ON_GPU:
        monkeypatch.setattr(blocks, "attention_dtype", lambda exact, values: values.dtype)
    said = activation_bytes(config, pack_size(config, pack_of(config).segments, gathers=True), recompute, formats)
    measured = kept(config, recompute, formats)
    if recompute != "none":
        # Beside what the forward left, one block is whole again during the backward pass.
        more = dataclasses.replace(config, double_blocks=config.double_blocks + 1)
        measured += kept(more, "none", formats) - kept(config, "none", formats)
    assert said == pytest.approx(measured, rel=0.05)


def test_flex_attention_gathers_no_keys():
    segments = pack_of(FLUX).segments
    assert pack_size(FLUX, segments).keys == 0
    gathered = pack_size(FLUX, segments, gathers=True)
    seen = plan_attention(segments, (), lambda q, k: is_visible(FLUX, q, k)).visible
    assert gathered.keys > gathered.tokens == sum(segment.length for segment in segments)
    assert len(seen) == gathered.segments


def test_activations_by_hand():
    """One double block of width 128 with flex: 64 bytes per token and unit of width inside, 4 as its input."""
    size = PackSize(tokens=1000, text=0, targets=0, segments=0)
    config = dataclasses.replace(SD3, double_blocks=2)
    outside = 1000 * (4 * 64 + 2 * 64)
    assert activation_bytes(config, size, "none") == 1000 * 128 * 2 * 64 + outside
    assert activation_bytes(config, size, "selective") == 1000 * 128 * (2 * 24 + 64) + outside
    assert activation_bytes(config, size, "full") == 1000 * 128 * (2 * 4 + 64) + outside

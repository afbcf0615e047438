"""Which published key is which parameter of the DiT: one table per architecture, read in both directions.

A parameter of ours is one published tensor, or several stacked on the rows (q, k and v). Nothing is computed, so a
round trip is bit-exact.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

QKV = ("to_q", "to_k", "to_v")
ADDED_QKV = ("add_q_proj", "add_k_proj", "add_v_proj")


@dataclass(frozen=True)
class Entry:
    """One parameter of ours, and the published keys whose rows make it up."""

    own: str
    published: tuple[str, ...]


def linear(own: str, *published: str) -> Iterator[Entry]:
    """Weight and bias of a linear layer."""
    for tensor in ("weight", "bias"):
        yield Entry(f"{own}.{tensor}", tuple(f"{key}.{tensor}" for key in published))


def norm(own: str, published: str) -> Entry:
    """A norm that has a weight only."""
    return Entry(f"{own}.weight", (f"{published}.weight",))


def embedders() -> Iterator[Entry]:
    """Text, timestep and pooled-prompt inputs, and the output head: alike in both architectures."""
    yield from linear("text_in", "context_embedder")
    for own, published in (("time_in", "timestep_embedder"), ("pooled_in", "text_embedder")):
        yield from linear(f"{own}.up", f"time_text_embed.{published}.linear_1")
        yield from linear(f"{own}.down", f"time_text_embed.{published}.linear_2")
    yield from linear("head.modulation", "norm_out.linear")
    yield from linear("head.out", "proj_out")


def double_block(index: int, added_norms: tuple[str, str], *, text_goes_on: bool) -> Iterator[Entry]:
    """A block with a video and a text stream.

    Args:
        index: its number.
        added_norms: published names of the text's q and k norms.
        text_goes_on: False in the last block of a model without single blocks, whose text only feeds keys and values.
    """
    own, published = f"double_blocks.{index}", f"transformer_blocks.{index}"
    yield from linear(f"{own}.video.modulation", f"{published}.norm1.linear")
    yield from linear(f"{own}.text.modulation", f"{published}.norm1_context.linear")
    yield from linear(f"{own}.video.qkv", *(f"{published}.attn.{name}" for name in QKV))
    yield from linear(f"{own}.text.qkv", *(f"{published}.attn.{name}" for name in ADDED_QKV))
    for ours, video, text in zip(("q_norm", "k_norm"), ("norm_q", "norm_k"), added_norms, strict=True):
        yield norm(f"{own}.video.{ours}", f"{published}.attn.{video}")
        yield norm(f"{own}.text.{ours}", f"{published}.attn.{text}")
    yield from linear(f"{own}.video.out", f"{published}.attn.to_out.0")
    yield from linear(f"{own}.video.mlp.up", f"{published}.ff.net.0.proj")
    yield from linear(f"{own}.video.mlp.down", f"{published}.ff.net.2")
    if text_goes_on:
        yield from linear(f"{own}.text.out", f"{published}.attn.to_add_out")
        yield from linear(f"{own}.text.mlp.up", f"{published}.ff_context.net.0.proj")
        yield from linear(f"{own}.text.mlp.down", f"{published}.ff_context.net.2")


def single_block(index: int) -> Iterator[Entry]:
    """A block of one stream, attention and MLP side by side."""
    own, published = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
    yield from linear(f"{own}.modulation", f"{published}.norm.linear")
    yield from linear(f"{own}.qkv", *(f"{published}.attn.{name}" for name in QKV))
    yield norm(f"{own}.q_norm", f"{published}.attn.norm_q")
    yield norm(f"{own}.k_norm", f"{published}.attn.norm_k")
    yield from linear(f"{own}.mlp_in", f"{published}.proj_mlp")
    yield from linear(f"{own}.out", f"{published}.proj_out")


def own_of(weights: Mapping[str, Tensor], entries: list[Entry]) -> dict[str, Tensor]:
    """Published tensors under our names; every key of `entries` must be there."""
    return {entry.own: _stack([weights[key] for key in entry.published]) for entry in entries}


def published_of(state: Mapping[str, Tensor], entries: list[Entry]) -> dict[str, Tensor]:
    """Our tensors under the published names."""
    return {
        key: part
        for entry in entries
        for key, part in zip(entry.published, state[entry.own].chunk(len(entry.published)), strict=True)
    }


def _stack(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)

"""Low-rank adapters (Hu et al. 2021) in a model's own weights: written as peft does, and merged without it."""

import json
from collections.abc import Mapping

import torch
from torch import Tensor

from rayramid.models import storage
from rayramid.models.adapter import CONFIG, PREFIX, WEIGHTS, load_adapter_config
from rayramid.models.card import ModelCard
from rayramid.models.checkpoint import dit_config_of
from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.models.weights import read_weights, write_weights

DOWN, UP = "lora_A", "lora_B"


def save_adapter(url: str, tensors: Mapping[str, Tensor], config: Mapping[str, object]) -> None:
    """Write an adapter's folder.

    Args:
        url: the folder.
        tensors: `<layer>.lora_A.weight` [rank, in] and `<layer>.lora_B.weight` [out, rank] of every adapted layer.
        config: peft's settings.
    """
    storage.check_writable(url)
    # The settings come last: a folder that has them is whole.
    storage.delete(storage.join(url, CONFIG))
    write_weights(storage.join(url, WEIGHTS), {PREFIX + name: tensor for name, tensor in tensors.items()})
    storage.write_atomic(storage.join(url, CONFIG), json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")


def check_adapter(url: str, card: ModelCard) -> None:
    """Raise what merging the adapter into the model of a card would, without the model's weights."""
    with torch.device("meta"):
        dit = DiT(dit_config_of(card))
    merge_adapter(dit, url)


@torch.no_grad()
def merge_adapter(dit: DiT, url: str) -> None:
    """Add an adapter to the weights that it was trained beside: `W + scale · B A` (Eq. 3 of Hu et al.).

    Raises:
        UserError: the folder holds none, or one of another model; names the file and the key.
    """
    config, location = load_adapter_config(url), storage.join(url, WEIGHTS)
    tensors, weights = read_weights(location), dict(dit.named_parameters())
    for layer in sorted({key.removeprefix(PREFIX).partition(".lora_")[0] for key in tensors}):
        weight = weights.get(f"{layer}.weight")
        if weight is None:
            raise UserError(f"{location}: this model has no layer {layer}; is it another model's adapter?")
        try:
            up_OR, down_RI = (tensors.pop(f"{PREFIX}{layer}.{side}.weight") for side in (UP, DOWN))
        except KeyError as missing:
            raise UserError(f"{location}: key {missing.args[0]} is missing; fetch the file again") from missing
        if (*up_OR.shape, *down_RI.shape) != (weight.shape[0], config.r, config.r, weight.shape[1]):
            raise UserError(
                f"{location}: {layer} has matrices {list(up_OR.shape)} and {list(down_RI.shape)}, which do not fit its "
                f"weights {list(weight.shape)} at rank {config.r}; is it another model's adapter?"
            )
        exact = torch.promote_types(weight.dtype, torch.float32)
        change = config.scale * (up_OR.to(exact) @ down_RI.to(exact))
        weight.copy_(weight.to(exact) + change.to(weight.device))
    if tensors:
        raise UserError(f"{location}: key {next(iter(tensors))} is not one of a LoRA's matrices of a known layer")

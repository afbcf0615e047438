"""Fine-tuning by low-rank adapters (Hu et al. 2021), with peft: weights stay, small matrices beside them train."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from rayramid.models.dit.model import DiT
from rayramid.models.errors import UserError
from rayramid.platform.training.spec.model import Lora

if TYPE_CHECKING:
    from peft import LoraModel

# The linear layers of a block that each of a spec's targets means.
LAYERS = {
    "attention": ("qkv", "out"),
    "mlp": (r"mlp\.up", r"mlp\.down", "mlp_in"),
    "modulation": ("modulation",),
}


def check_lora(lora: Lora | None) -> None:
    """Refuses adapters where peft is not installed, with what to install."""
    if lora is not None and find_spec("peft") is None:
        raise UserError("lora: peft is not installed; pip install 'rayramid[lora]'")


def adapt(dit: DiT, lora: Lora) -> "LoraModel":
    """Puts adapters into the blocks, in place, and freezes all else; draws from PyTorch's generator.

    They change nothing before they have trained. `merge_and_unload` of what is returned adds them to the weights and
    leaves `dit` as an ordinary one.
    """
    # Imported only where used: it takes seconds.
    from peft import LoraConfig, LoraModel

    layers = "|".join(layer for target in lora.targets for layer in LAYERS[target])
    config = LoraConfig(
        r=lora.rank, lora_alpha=lora.alpha, target_modules=rf"(double|single)_blocks\.\d+\.(\w+\.)?({layers})"
    )
    return LoraModel(dit, config, "default")

"""The folder of a low-rank adapter, as peft writes one: `adapter_config.json` and `adapter_model.safetensors`.

Imports no torch, so that gateways can read it.
"""

import hashlib
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rayramid.models import storage
from rayramid.models.errors import UserError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
# What peft puts before the names of the layers that it adapts.
PREFIX = "base_model.model."


class AdapterConfig(BaseModel):
    """What an adapter's folder says about itself; peft's other settings are about training or absent by default.

    Args:
        r: rank.
        lora_alpha: the product of the two matrices is scaled by `lora_alpha / r`.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    peft_type: str = Field(pattern="^LORA$")
    r: int = Field(ge=1)
    lora_alpha: float
    # Variants that add something else to the weights than the scaled product.
    bias: str = Field(default="none", pattern="^none$")
    use_dora: bool = False
    use_rslora: bool = False
    rank_pattern: dict[str, Any] = Field(default={}, max_length=0)
    alpha_pattern: dict[str, Any] = Field(default={}, max_length=0)

    @property
    def scale(self) -> float:
        """Of the product of the two matrices."""
        return self.lora_alpha / self.r


def is_adapter(url: str) -> bool:
    """Whether a folder holds an adapter."""
    return storage.exists(storage.join(url, CONFIG))


def load_adapter_config(url: str) -> AdapterConfig:
    """What the adapter's folder `url` says about itself.

    Raises:
        UserError: no adapter is there, or one of a variant that is more than a scaled product; names the key.
    """
    location = storage.join(url, CONFIG)
    if not is_adapter(url):
        raise UserError(
            f"{url}: no adapter, it has no {CONFIG}; `rayramid weights export RUN DIR --adapter` writes one"
        )
    try:
        config = AdapterConfig.model_validate_json(storage.read_bytes(location))
    except ValidationError as invalid:
        error = invalid.errors()[0]
        raise UserError(f"{location}: {'.'.join(map(str, error['loc']))}: {error['msg']}") from invalid
    if config.use_dora or config.use_rslora:
        raise UserError(f"{location}: DoRA and rank-stabilised adapters are not known here, plain LoRA is")
    return config


def adapter_digest(url: str) -> bytes:
    """SHA-256 of an adapter: of its settings and its weights."""
    digests = (hashlib.sha256(storage.read_bytes(storage.join(url, name))).digest() for name in (CONFIG, WEIGHTS))
    return hashlib.sha256(b"".join(digests)).digest()

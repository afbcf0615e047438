"""Published model folders: `config.json` beside `diffusion_pytorch_model.*`, the layout of diffusers."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from torch import Tensor

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.weights import INDEX_SUFFIX, read_weights, write_weights

Value = TypeVar("Value", int, bool)

CONFIG = "config.json"
STEM = "diffusion_pytorch_model"

# Safetensors before pickles, whole before sharded.
NAMES = (
    f"{STEM}.safetensors",
    f"{STEM}.safetensors{INDEX_SUFFIX}",
    f"{STEM}.bin",
    f"{STEM}.bin{INDEX_SUFFIX}",
)


def read_config(url: str) -> dict[str, Any]:
    """The `config.json` of the folder `url`; UserError when there is none or it is no JSON object."""
    location = storage.join(url, CONFIG)
    if not storage.exists(location):
        raise UserError(f"{url}: not a published model folder, it has no {CONFIG}")
    try:
        config = json.loads(storage.read_bytes(location))
    except json.JSONDecodeError as broken:
        raise UserError(f"{location}: not JSON ({broken})") from broken
    if not isinstance(config, dict):
        raise UserError(f"{location}: holds a {type(config).__name__}, not an object")
    return config


def weights_file(url: str) -> str:
    """The weight file, or the index of a sharded one, in the folder `url`."""
    for name in NAMES:
        location = storage.join(url, name)
        if storage.exists(location):
            return location
    raise UserError(f"{url}: no weights, none of {', '.join(NAMES)} is there")


def read_published(url: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Configuration and state dict of the published model folder `url`."""
    return read_config(url), read_weights(weights_file(url))


def write_published(url: str, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write a published model folder; the configuration comes last, so that a folder with one is whole."""
    write_weights(storage.join(url, f"{STEM}.safetensors"), weights)
    storage.write_atomic(storage.join(url, CONFIG), json.dumps(config, indent=2).encode() + b"\n")


def required(config: Mapping[str, Any], key: str, source: str) -> int:
    """A count or size that a published configuration must have; UserError names `source` and the key."""
    value = _present(config, key, source)
    if type(value) is not int or value < 1:
        raise UserError(f"{source}: {key} is {value!r}, not a positive whole number")
    return value


def required_list(config: Mapping[str, Any], key: str, kind: type[Value], source: str) -> tuple[Value, ...]:
    """A list of numbers, or of truth values, that a published configuration must have; errors as `required`."""
    value = _present(config, key, source)
    if not isinstance(value, list) or any(type(item) is not kind for item in value):
        raise UserError(f"{source}: {key} is {value!r}, not a list of {kind.__name__}")
    return tuple(value)


def expect(config: Mapping[str, Any], key: str, value: Any, source: str) -> None:
    """A key that may be absent but has one supported value; UserError names `source` and the key."""
    if config.get(key, value) != value:
        raise UserError(f"{source}: {key} is {config[key]!r}; only {value!r} is supported")


def _present(config: Mapping[str, Any], key: str, source: str) -> Any:
    if key not in config:
        raise UserError(f"{source}: key {key} is missing")
    return config[key]

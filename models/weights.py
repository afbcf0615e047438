"""Weight files: safetensors and PyTorch pickles, whole or sharded, from any URL; and loading them strictly."""

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rayramid.models import storage
from rayramid.models.errors import UserError

INDEX_SUFFIX = ".index.json"


def read_weights(url: str) -> dict[str, Tensor]:
    """Read a state dict onto the CPU in its stored dtypes.

    Args:
        url: a `.safetensors` file, a `.bin`, `.pt` or `.pth` pickle (only tensors are unpickled), or the
            `*.index.json` of a sharded one.

    Raises:
        UserError: the file is missing, truncated or of another kind; a shard lacks a key or has one too many.
    """
    return _read_shards(url) if url.endswith(INDEX_SUFFIX) else _read_file(url)


def write_weights(url: str, tensors: Mapping[str, Tensor]) -> int:
    """Write one safetensors file atomically; returns its bytes."""
    with tempfile.TemporaryDirectory(prefix="rayramid-weights-") as folder:
        path = Path(folder, "weights.safetensors")
        save_file({key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}, path)
        storage.upload(path, url)
        return path.stat().st_size


def check_keys(found: Mapping[str, torch.Size], expected: Mapping[str, torch.Size], source: str) -> None:
    """Raise one UserError, naming `source` and the first key concerned, unless names and shapes are equal."""
    missing = [key for key in expected if key not in found]
    surplus = [key for key in found if key not in expected]
    wrong = [key for key in expected if key in found and found[key] != expected[key]]
    if missing:
        raise UserError(f"{source}: key {missing[0]} is missing{_and_more(missing)}; is it another model's file?")
    if surplus:
        raise UserError(f"{source}: key {surplus[0]} belongs to no part of this model{_and_more(surplus)}")
    if wrong:
        key = wrong[0]
        raise UserError(
            f"{source}: {key} has shape {list(found[key])}, this model needs {list(expected[key])}{_and_more(wrong)}"
        )


def load_strict(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy `tensors` into the parameters and buffers of `module`; every key must fit, and none may be missing.

    Raises:
        UserError: names `source` and the first key that is missing, surplus or of another shape.
    """
    expected = module.state_dict()
    check_keys(shapes(tensors), shapes(expected), source)
    module.load_state_dict(dict(tensors))


def adopt(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Make `tensors` the parameters of `module`, which may be on the meta device; dtypes are those stored.

    Raises:
        UserError: as `load_strict`.
    """
    check_keys(shapes(tensors), shapes(module.state_dict()), source)
    module.load_state_dict(dict(tensors), assign=True)


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Shape by key."""
    return {key: tensor.shape for key, tensor in tensors.items()}


def _and_more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def _read_file(url: str) -> dict[str, Tensor]:
    if not storage.exists(url):
        raise UserError(f"{url}: no such weight file")
    with _local(url) as path:
        try:
            if url.endswith(".safetensors"):
                return load_file(path)
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        # torch.load reports a cut archive as RuntimeError, other bytes as UnpicklingError, and no bytes as EOFError.
        except (SafetensorError, RuntimeError, UnpicklingError, EOFError) as broken:
            reason = (str(broken) or "it is empty").splitlines()[0]
            raise UserError(f"{url}: not a whole weight file ({reason}); fetch it again") from broken
    if not isinstance(tensors, dict):
        raise UserError(f"{url}: holds a {type(tensors).__name__}, not a state dict")
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{url}: key {key} holds a {type(value).__name__}, not a tensor; give the inner state dict")
    return tensors


def _read_shards(url: str) -> dict[str, Tensor]:
    folder, _, _ = url.rpartition("/")
    try:
        shard_of = json.loads(storage.read_bytes(url))["weight_map"]
    except (json.JSONDecodeError, KeyError, TypeError) as broken:
        raise UserError(f"{url}: not an index of shards, it has no readable weight_map") from broken
    tensors: dict[str, Tensor] = {}
    for shard in sorted(set(shard_of.values())):
        location = storage.join(folder, shard)
        for key, tensor in _read_file(location).items():
            if shard_of.get(key) != shard:
                raise UserError(f"{location}: key {key} is not in this shard by {url}")
            tensors[key] = tensor
    for key, shard in shard_of.items():
        if key not in tensors:
            raise UserError(f"{storage.join(folder, shard)}: key {key} is missing, {url} says it is here")
    return tensors


@contextmanager
def _local(url: str) -> Iterator[Path]:
    path = storage.local_path(url)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rayramid-weights-") as folder:
        path = Path(folder, "weights")
        storage.download(url, path)
        yield path

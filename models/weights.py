"""Weight files: safetensors and PyTorch pickles, whole or sharded, from any URL; and loading them strictly."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rayramid.models import storage
from rayramid.models.errors import UserError

INDEX_SUFFIX = ".index.json"
# The most that safetensors allows a header to have.
HEADER_BYTES = 100_000_000
# What safetensors calls the dtypes that weights have; others keep its name.
DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "U8": "uint8"}

Value = TypeVar("Value")


@dataclass(frozen=True)
class Entry:
    """What a weight file says of one tensor, its values apart."""

    dtype: str
    shape: tuple[int, ...]


def read_weights(url: str) -> dict[str, Tensor]:
    """Read a state dict onto the CPU in its stored dtypes.

    Args:
        url: a `.safetensors` file, a `.bin`, `.pt` or `.pth` pickle (only tensors are unpickled), or the
            `*.index.json` of a sharded one.

    Raises:
        UserError: the file is missing, truncated or of another kind; a shard lacks a key or has one too many.
    """
    return _read_shards(url, _read_file) if url.endswith(INDEX_SUFFIX) else _read_file(url)


def read_entries(url: str) -> dict[str, Entry]:
    """Dtypes and shapes of what `read_weights` would give, with its errors; of safetensors, headers alone are read."""
    return _read_shards(url, _entries) if url.endswith(INDEX_SUFFIX) else _entries(url)


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
        if url.endswith(".safetensors"):
            try:
                return load_file(path)
            except SafetensorError as broken:
                raise _damaged(url, broken) from broken
        try:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
        except UnpicklingError as refused:
            raise UserError(f"{url}: damaged, or it holds more than tensors; nothing else is unpickled") from refused
        # torch.load reports a cut archive as RuntimeError, and no bytes as EOFError.
        except (RuntimeError, EOFError) as broken:
            raise _damaged(url, "its end is missing") from broken
    if not isinstance(tensors, dict):
        raise UserError(f"{url}: holds a {type(tensors).__name__}, not a state dict")
    for key, value in tensors.items():
        if not isinstance(value, Tensor):
            raise UserError(f"{url}: key {key} holds a {type(value).__name__}, not a tensor; give the inner state dict")
    return tensors


def _entries(url: str) -> dict[str, Entry]:
    if not url.endswith(".safetensors"):
        tensors = _read_file(url)
        return {
            key: Entry(str(value.dtype).removeprefix("torch."), tuple(value.shape)) for key, value in tensors.items()
        }
    if not storage.exists(url):
        raise UserError(f"{url}: no such weight file")
    # 8 bytes tell the length of a JSON object that says where in the rest of the file each tensor lies.
    length = int.from_bytes(storage.read_range(url, 0, 8), "little")
    try:
        header = json.loads(storage.read_range(url, 8, min(length, HEADER_BYTES)))
        header.pop("__metadata__", None)
        end = 8 + length + max((entry["data_offsets"][1] for entry in header.values()), default=0)
        found = {
            key: Entry(DTYPES.get(entry["dtype"], entry["dtype"]), tuple(entry["shape"]))
            for key, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise _damaged(url, "its header can't be read") from broken
    if end != storage.size(url):
        raise _damaged(url, f"{storage.size(url)} bytes, its header says {end}")
    return found


def _damaged(url: str, reason: object) -> UserError:
    return UserError(f"{url}: not a whole weight file ({reason}); fetch it again")


def _read_shards(url: str, read: Callable[[str], Mapping[str, Value]]) -> dict[str, Value]:
    folder, _, _ = url.rpartition("/")
    try:
        shard_of = dict(json.loads(storage.read_bytes(url))["weight_map"])
    except (ValueError, KeyError, TypeError) as broken:
        raise UserError(f"{url}: not an index of shards, it has no readable weight_map") from broken
    for key, shard in shard_of.items():
        if not isinstance(shard, str):
            raise UserError(f"{url}: weight_map gives {shard!r} as the shard of {key}, not a file's name")
    found: dict[str, Value] = {}
    for shard in sorted(set(shard_of.values())):
        location = storage.join(folder, shard)
        for key, value in read(location).items():
            if shard_of.get(key) != shard:
                raise UserError(f"{location}: key {key} is not in this shard by {url}")
            found[key] = value
    for key, shard in shard_of.items():
        if key not in found:
            raise UserError(f"{storage.join(folder, shard)}: key {key} is missing, {url} says it is here")
    return found


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

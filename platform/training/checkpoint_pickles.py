"""What DCP pickles, read so that a checkpoint from elsewhere runs no code: its table of files, and what is no tensor.

DCP itself unpickles both without a check.
"""

import io
import pickle
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint._traverse import set_element
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import ReadItem

from rayramid.models.errors import UserError

_CLASSES = {
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "PurePath", "PureWindowsPath", "WindowsPath"},
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.distributed.checkpoint.metadata": {
        *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
        *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
}


class _TableUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _CLASSES.get(module, ()) or (
            module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        ):
            return super().find_class(module, name)
        # Python 3.11.0 to 3.11.3 name an enum's member as an attribute of its class.
        if (module, name) == ("builtins", "getattr"):
            return _member
        raise pickle.UnpicklingError(f"{module}.{name}")


def _member(of: Any, name: str) -> Enum:
    """What `getattr` may be in a table."""
    if isinstance(of, type) and issubclass(of, Enum) and name in of.__members__:
        return of[name]
    raise pickle.UnpicklingError(f"builtins.getattr of {name}")


def read_table(path: Path) -> Metadata:
    """The table of a checkpoint's `.metadata`.

    Raises:
        UserError: it names anything but the classes of such a table, or is cut.
    """
    try:
        table = _TableUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError) as refused:
        raise UserError(
            f"{path}: damaged, or more than a checkpoint's table ({refused}); it is not unpickled"
        ) from None
    if not isinstance(table, Metadata):
        raise UserError(f"{path}: not the table of a checkpoint but {type(table).__name__}")
    return table


class CarefulPlanner(DefaultLoadPlanner):
    """DCP's planner, but numbers, lists and texts are all that it unpickles beside tensors."""

    def load_bytes(self, read_item: ReadItem, value: io.BytesIO) -> None:
        """Puts a value that is no tensor in its place; UserError if it is more."""
        name = read_item.dest_index.fqn
        try:
            found = torch.load(value, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as refused:
            raise UserError(
                f"{name}: the checkpoint holds more than tensors and numbers there; it is not unpickled"
            ) from refused
        set_element(self.original_state_dict, self.mappings[name], found)

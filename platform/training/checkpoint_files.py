"""DCP's files on any storage: written to a local disk first and uploaded, downloaded before they are read."""

import io
import os
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystem, FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.local import plain_errors
from rayramid.models.stores.store import MissingError
from rayramid.platform.training.checkpoint_pickles import read_table

METADATA = ".metadata"

# Called on the first rank with the bytes of every file, when all are there.
Commit = Callable[[dict[str, int]], None]


class DamagedError(UserError):
    """A file of a checkpoint is missing or has another length than when it was committed."""


class _Disk(FileSystem):
    """The local disk; a full one raises OSError, where torch.save would only say that a position is unexpected."""

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Generator[io.IOBase, None, None]:
        with super().create_stream(path, mode) as file:
            watched = _Watched(file)
            try:
                yield watched  # type: ignore[misc]  # all of a file that DCP uses
            except RuntimeError:
                if watched.error is not None:
                    raise watched.error from None
                raise


class _Watched:
    """A file that remembers why it could not be written."""

    def __init__(self, file: io.IOBase) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return int(self._file.write(data))
        except OSError as error:
            self.error = error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class FilesWriter(FileSystemWriter):
    """Writes to `url`, then commits.

    DCP calls `finish` on the first rank and the others on every rank, and raises on all ranks what any of them raises.
    """

    def __init__(self, url: str, path: Path, commit: Commit) -> None:
        super().__init__(path)
        self.fs = _Disk()
        self._url, self._path, self._commit = url, path, commit
        self._uploads = storage.local_path(url) is None

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Makes the folder."""
        with plain_errors(str(self._path)):
            return super().prepare_local_plan(plan)

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """This rank's file."""
        with plain_errors(str(self._path)):
            written = super().write_data(plan, planner)
        for name in sorted({result.storage_data.relative_path for result in written.wait()}):
            self._upload(name)
        return written

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """The file that tells what is where, and the commit."""
        with plain_errors(str(self._path)):
            super().finish(metadata, results)
        self._upload(METADATA)
        names = {result.storage_data.relative_path for of_rank in results for result in of_rank} | {METADATA}
        try:
            files = {name: storage.size(storage.join(self._url, name)) for name in sorted(names)}
        except MissingError as missing:
            raise MissingError(
                f"{missing}: not all workers write to the same storage; choose an output that all see"
            ) from None
        self._commit(files)

    def _upload(self, name: str) -> None:
        if self._uploads:
            storage.upload(self._path / name, storage.join(self._url, name))


class FilesReader(FileSystemReader):
    """Reads from `url`; checks and downloads the files that this rank needs, and no others."""

    def __init__(self, url: str, path: Path, files: Mapping[str, int]) -> None:
        super().__init__(path)
        self._url, self._path, self._files = url, path, files
        self._downloads = storage.local_path(url) is None
        self.trouble: UserError | None = None

    def read_metadata(self) -> Metadata:
        """What is where."""
        try:
            self._fetch(METADATA)
            table = read_table(self._path / METADATA)
        except UserError as trouble:
            self.trouble = trouble
            raise
        table.storage_meta = table.storage_meta or StorageMeta()
        table.storage_meta.load_id = self.load_id
        return table

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """The tensors of this rank."""
        for name in sorted({self.storage_data[item.storage_index].relative_path for item in plan.items}):
            self._fetch(name)
        return super().read_data(plan, planner)

    def _fetch(self, name: str) -> None:
        file = storage.join(self._url, name)
        if not storage.exists(file) or storage.size(file) != self._files[name]:
            raise DamagedError(f"{file}: missing or damaged")
        if self._downloads:
            storage.download(file, self._path / name)


@contextmanager
def writer(url: str, commit: Commit) -> Iterator[FilesWriter]:
    """A writer to `url`."""
    with _local(url) as path:
        yield FilesWriter(url, path, commit)


@contextmanager
def reader(url: str, files: Mapping[str, int]) -> Iterator[FilesReader]:
    """A reader of `url`, which has `files`, by name with their bytes."""
    with _local(url) as path:
        opened = FilesReader(url, path, files)
        try:
            yield opened
        except CheckpointException:
            # DCP makes an AssertionError of what `read_metadata` raised.
            if opened.trouble is not None:
                raise opened.trouble from None
            raise


@contextmanager
def _local(url: str) -> Iterator[Path]:
    path = storage.local_path(url)
    if path is not None:
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="rayramid-checkpoint-") as scratch:
        yield Path(scratch)

"""Kinds of URL that only fsspec knows: whole files go in and out, exactly-once creation is refused."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.store import MissingError


@pytest.fixture
def folder() -> Iterator[str]:
    yield "memory://storage-test"
    fsspec.filesystem("memory").store.clear()


def test_files_are_written_listed_read_and_deleted(folder: str, tmp_path: Path) -> None:
    url = storage.join(folder, "a", "b.bin")
    storage.check_writable(folder)
    storage.write_atomic(url, b"0123456789")
    assert storage.read_bytes(url) == b"0123456789"
    assert storage.read_range(url, 3, 4) == b"3456"
    assert [storage.relative(folder, found) for found in storage.list_files(folder)] == ["a/b.bin"]
    assert list(storage.list_stats(folder)) == [(url, storage.stat(url))]
    storage.download(url, tmp_path / "b.bin")
    assert (tmp_path / "b.bin").read_bytes() == b"0123456789"
    storage.delete(url)
    assert not storage.exists(url)
    with pytest.raises(MissingError):
        storage.read_bytes(url)


def test_whole_folders_go_up_and_down(folder: str, tmp_path: Path) -> None:
    (tmp_path / "up" / "inner").mkdir(parents=True)
    (tmp_path / "up" / "inner" / "x").write_bytes(b"x" * 1000)
    storage.sync_up(str(tmp_path / "up"), folder)
    storage.sync_down(folder, str(tmp_path / "down"))
    assert (tmp_path / "down" / "inner" / "x").read_bytes() == b"x" * 1000


def test_creating_exactly_once_is_refused(folder: str) -> None:
    with pytest.raises(UserError, match="can't be created exactly once"):
        storage.create(storage.join(folder, "marker"), b"")


def test_an_address_where_nothing_answers_is_one_line() -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/file: can't be reached"):
        storage.write_atomic("http://127.0.0.1:9/file", b"")


def test_a_model_folder_goes_to_such_a_url_and_comes_back(folder: str, model_folder: str) -> None:
    import torch

    from rayramid.models.checkpoint import load_model, save_model

    model = load_model(model_folder)
    save_model(storage.join(folder, "model"), model.card, model.dit, model.vae, storage.join(model_folder, "text"))
    again = load_model(storage.join(folder, "model"))
    theirs = again.dit.state_dict()
    assert all(torch.equal(value, theirs[key]) for key, value in model.dit.state_dict().items())

"""The same behaviour on local files and on S3 (moto's threaded server)."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores import local, s3
from rayramid.models.stores.store import MissingError


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "root") if request.param == "local" else request.getfixturevalue("s3_bucket")


def test_what_is_written_is_read(root: str) -> None:
    url = storage.join(root, "a", "b.bin")
    assert not storage.exists(url)
    storage.write_atomic(url, b"0123456789")
    assert storage.exists(url)
    assert not storage.exists(storage.join(root, "a"))
    assert storage.read_bytes(url) == b"0123456789"
    assert storage.size(url) == 10
    storage.write_atomic(url, b"")
    assert storage.read_bytes(url) == b""


def test_ranges_end_where_the_file_ends(root: str) -> None:
    url = storage.join(root, "f")
    storage.write_atomic(url, b"0123456789")
    assert storage.read_range(url, 2, 3) == b"234"
    assert storage.read_range(url, 8, 100) == b"89"
    assert storage.read_range(url, 10, 4) == b""
    assert storage.read_range(url, 3, 0) == b""


def test_create_keeps_the_first_content(root: str) -> None:
    url = storage.join(root, "receipt")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert storage.read_bytes(url) == b"first"
    assert list(storage.list_files(root)) == [url]


def test_of_many_creators_one_wins_and_its_content_stays(root: str) -> None:
    url = storage.join(root, "race")
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: storage.create(url, str(i).encode()), range(8)))
    assert sum(won) == 1
    assert storage.read_bytes(url) == str(won.index(True)).encode()


def test_listing_is_recursive_sorted_and_filtered(root: str) -> None:
    for name in ["b.txt", "a/z.txt", "a.txt", "a/y/x.bin", "ab/c.txt"]:
        storage.write_atomic(storage.join(root, name), b"x")
    names = [storage.relative(root, url) for url in storage.list_files(root)]
    assert names == ["a.txt", "a/y/x.bin", "a/z.txt", "ab/c.txt", "b.txt"]
    # "a" is the folder, not the prefix of "a.txt" and "ab/".
    assert list(storage.list_files(storage.join(root, "a"), ".txt")) == [storage.join(root, "a/z.txt")]
    assert list(storage.list_files(storage.join(root, "nothing"))) == []
    assert list(storage.list_stats(root)) == [(url, storage.stat(url)) for url in storage.list_files(root)]


def test_the_version_changes_with_the_content(root: str) -> None:
    url = storage.join(root, "f")
    storage.write_atomic(url, b"one")
    first = storage.stat(url)
    assert first == storage.stat(url)
    storage.write_atomic(url, b"two")
    assert storage.stat(url).version != first.version


def test_delete_is_idempotent(root: str) -> None:
    url = storage.join(root, "f")
    storage.write_atomic(url, b"x")
    storage.delete(url)
    storage.delete(url)
    assert not storage.exists(url)


def test_files_and_trees_are_copied_both_ways(root: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "one").write_bytes(b"1")
    (source / "deep" / "two").write_bytes(b"22")
    storage.sync_up(source, storage.join(root, "tree"))
    storage.sync_down(storage.join(root, "tree"), tmp_path / "copy")
    assert (tmp_path / "copy" / "one").read_bytes() == b"1"
    assert (tmp_path / "copy" / "deep" / "two").read_bytes() == b"22"
    assert sorted(path.name for path in (tmp_path / "copy").rglob("*")) == ["deep", "one", "two"]


def test_a_file_above_the_part_size_goes_up_and_down_whole(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # S3's smallest part is 5 MiB.
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024**2)
    data = bytes(range(256)) * (11 * 4096)
    (tmp_path / "big").write_bytes(data)
    url = storage.join(root, "big")
    storage.upload(tmp_path / "big", url)
    if root.startswith("s3://"):
        assert storage.stat(url).version.endswith("-3"), "an etag of three parts"
    storage.download(url, tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    storage.write_atomic(url, data[::-1])
    assert storage.read_bytes(url) == data[::-1]


def test_missing_files_are_named(root: str, tmp_path: Path) -> None:
    url = storage.join(root, "absent")
    for read in (storage.read_bytes, storage.size, lambda u: storage.read_range(u, 0, 1)):
        with pytest.raises(MissingError, match="absent"):
            read(url)
    with pytest.raises(MissingError, match="absent"):
        storage.download(url, tmp_path / "x")
    assert list(tmp_path.glob("x*")) == []
    with pytest.raises(MissingError, match="nowhere"):
        storage.sync_down(storage.join(root, "nowhere"), tmp_path / "y")
    with pytest.raises(MissingError, match="no such file"):
        storage.upload(tmp_path / "absent", url)


def test_check_writable_leaves_nothing(root: str) -> None:
    storage.check_writable(root)
    assert list(storage.list_files(root)) == []


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_s3_lists_more_than_one_page(root: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: storage.write_atomic(storage.join(root, f"{i:04d}"), b""), range(1003)))
    assert [storage.relative(root, url) for url in storage.list_files(root)] == [f"{i:04d}" for i in range(1003)]


@pytest.mark.parametrize("root", ["s3"], indirect=True)
def test_a_missing_bucket_is_one_line(root: str) -> None:
    for act in (storage.read_bytes, storage.check_writable, lambda u: list(storage.list_files(u))):
        with pytest.raises(UserError, match="no such bucket") as caught:
            act("s3://no-such-bucket/x")
        assert "\n" not in str(caught.value)


def test_an_s3_server_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setattr(s3, "ATTEMPTS", 1)
    with pytest.raises(UserError, match=r"no S3 server answers at http://127\.0\.0\.1:1"):
        storage.read_bytes("s3://videos/x")


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "f")
    storage.write_atomic(url, b"old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        storage.write_atomic(url, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert storage.read_bytes(url) == b"old"


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"")
    with pytest.raises(UserError, match="is a file, a folder is needed"):
        storage.check_writable(str(tmp_path / "f" / "out"))
    with pytest.raises(UserError, match="is a folder, a file is needed"):
        storage.read_bytes(str(tmp_path))


@pytest.mark.skipif(not Path("/proc/version").exists(), reason="needs Linux's /proc")
def test_a_place_that_takes_no_files_is_refused_in_one_line() -> None:
    with pytest.raises(UserError) as caught:
        storage.check_writable("/proc/rayramid")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "empty"),
        ("s3:/videos/x", "two slashes"),
        ("s3://", "needs a bucket"),
        ("file://server/x", "absolute path on this machine"),
        ("gopher://x/y", "not known"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        storage.read_bytes(url)


def test_urls_are_joined_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert storage.join("/data/", "/a/", "b") == "/data/a/b"
    assert storage.join("s3://bucket", "a") == "s3://bucket/a"
    assert storage.join("/", "a") == "/a"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert storage.absolute("runs/x") == str(tmp_path / "runs/x")
    assert storage.absolute("~/x") == "/home/me/x"
    assert storage.absolute("file:///a%20b") == "/a b"
    assert storage.absolute("s3://bucket/x") == "s3://bucket/x"
    assert storage.local_path("s3://bucket/x") is None


def test_a_sweep_deletes_what_dead_uploads_left(root: str) -> None:
    storage.write_atomic(storage.join(root, "folder", "whole"), b"x")
    if root.startswith("s3://"):
        bucket, key = s3.split(storage.join(root, "folder", "half"))
        s3._client().create_multipart_upload(Bucket=bucket, Key=key)
    else:
        (Path(root) / "folder" / f"half{local.TEMPORARY}0").write_bytes(b"x")
        # moto says of every upload that it began in 2010; SeaweedFS is asked in the test of its own.
        assert storage.sweep(root, older_than_s=3600) == 0
    assert storage.sweep(root, older_than_s=-1) == 1
    assert storage.sweep(root, older_than_s=-1) == 0
    assert [storage.relative(root, url) for url in storage.list_files(root)] == ["folder/whole"]


def test_a_folder_is_deleted_and_files_are_copied_between_folders(root: str) -> None:
    for name in ("a/1", "a/b/2", "c"):
        storage.write_atomic(storage.join(root, name), name.encode())
    storage.copy_files(storage.join(root, "a"), storage.join(root, "d"), ["1", "b/2"])
    storage.delete_tree(storage.join(root, "a"))
    storage.delete_tree(storage.join(root, "nothing"))
    files = {storage.relative(root, url): storage.read_bytes(url) for url in storage.list_files(root)}
    assert files == {"c": b"c", "d/1": b"a/1", "d/b/2": b"a/b/2"}
    with pytest.raises(MissingError):
        storage.copy_files(storage.join(root, "a"), storage.join(root, "d"), ["1"])


def test_a_presigned_url_gives_the_file_to_anybody(s3_bucket: str, tmp_path: Path) -> None:
    url = storage.join(s3_bucket, "video.mp4")
    storage.write_atomic(url, b"0123456789")
    signed = storage.presign(url, 60, "video/mp4", "cat.mp4")
    assert signed is not None
    part = httpx.get(signed, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.content) == (206, b"234")
    assert part.headers["content-type"] == "video/mp4"
    assert part.headers["content-disposition"] == 'inline; filename="cat.mp4"'
    head = storage.presign(url, 60, "video/mp4", "cat.mp4", method="HEAD")
    assert head is not None
    assert httpx.head(head).headers["content-length"] == "10"
    assert storage.presign(str(tmp_path / "file"), 60, "video/mp4", "x") is None

"""S3 behind a proxy that misbehaves for a while, and the real server SeaweedFS."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from s3_servers import Proxy

from rayramid.models import storage
from rayramid.models.stores import s3

DATA = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def faults(s3_server: str, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Each entry spoils one of the connections to come, in order."""
    upcoming: list[str] = []
    proxy = Proxy(s3_server, lambda: upcoming.pop(0) if upcoming else "")
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    yield upcoming
    proxy.close()


@pytest.mark.parametrize("fault", ["503", "stall", "cut upload", "lose answer"])
def test_an_upload_that_is_disturbed_arrives_whole(faults: list[str], s3_bucket: str, fault: str) -> None:
    faults += [fault]
    storage.write_atomic(f"{s3_bucket}/f", DATA)
    assert faults == [], "the fault was met"
    assert storage.read_bytes(f"{s3_bucket}/f") == DATA


@pytest.mark.parametrize("fault", ["503", "stall", "cut answer", "lose answer"])
def test_a_read_that_is_disturbed_returns_the_whole_file(faults: list[str], s3_bucket: str, fault: str) -> None:
    storage.write_atomic(f"{s3_bucket}/f", DATA)
    faults += [fault]
    assert storage.read_bytes(f"{s3_bucket}/f") == DATA
    assert faults == [], "the fault was met"


def test_a_creator_whose_answer_is_lost_still_knows_that_it_won(faults: list[str], s3_bucket: str) -> None:
    faults += ["lose answer"]
    assert storage.create(f"{s3_bucket}/receipt", b"mine")
    assert faults == [], "the fault was met"
    assert not storage.create(f"{s3_bucket}/receipt", b"theirs")
    assert storage.read_bytes(f"{s3_bucket}/receipt") == b"mine"


@pytest.mark.slow
def test_seaweedfs_keeps_every_promise(weed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "PART_BYTES", 5 * 1024**2)
    storage.check_writable(weed)
    data = DATA * 12
    (tmp_path / "big").write_bytes(data)
    storage.upload(tmp_path / "big", storage.join(weed, "big"))
    storage.download(storage.join(weed, "big"), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    assert storage.read_range(storage.join(weed, "big"), 5 * 1024**2 - 3, 7) == data[5 * 1024**2 - 3 :][:7]

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda i: storage.create(storage.join(weed, "race"), str(i).encode()), range(16)))
        list(pool.map(lambda i: storage.write_atomic(storage.join(weed, f"many/{i:04d}"), b"x"), range(1203)))
    assert sum(won) == 1
    assert storage.read_bytes(storage.join(weed, "race")) == str(won.index(True)).encode()
    names = [storage.relative(weed, url) for url in storage.list_files(weed)]
    assert names == ["big", *(f"many/{i:04d}" for i in range(1203)), "race"]
    listed = dict(storage.list_stats(weed))
    assert all(listed[url] == storage.stat(url) for url in (storage.join(weed, name) for name in ("big", "race")))

    storage.delete(storage.join(weed, "big"))
    assert not storage.exists(storage.join(weed, "big"))

    bucket, key = s3.split(storage.join(weed, "half"))
    s3._client().create_multipart_upload(Bucket=bucket, Key=key)
    assert storage.sweep(weed, older_than_s=3600) == 0
    assert storage.sweep(weed, older_than_s=-5) == 1

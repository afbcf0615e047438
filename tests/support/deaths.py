"""Ending processes of an endpoint that this process has started."""

import signal
from contextlib import suppress

import psutil


def kill(name: str, how: signal.Signals = signal.SIGKILL) -> None:
    """End all replicas of a deployment; those that are already dead are not there."""
    for process in replicas(name):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(how)


def replicas(name: str) -> list[psutil.Process]:
    """Processes of a deployment's replicas that live."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if f"ServeReplica:rayramid:{name}" in " ".join(process.cmdline()):
                found.append(process)
    return found


def ranks() -> list[psutil.Process]:
    """The processes that share the forwards of samplers with them."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            parent = process.parent()
            if parent and "ServeReplica:rayramid:Sampler" in " ".join(parent.cmdline()):
                found += [process] if "spawn_main" in " ".join(process.cmdline()) else []
    return found

"""Checks of a place that specs name: whether everything that datasets, runs and endpoints do there works."""

import time
import uuid

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.doctor.finding import Finding

PAYLOAD = bytes(range(256)) * 4096


def place(url: str) -> Finding:
    """Writes, reads a range, creates only what is not there, lists and deletes, below `url`."""
    name = f"storage {url}"
    probe = storage.join(storage.absolute(url), f"rayramid-doctor-{uuid.uuid4().hex[:12]}")
    advice = "check the URL, the credentials (AWS_ACCESS_KEY_ID, …, or the node's role) and AWS_ENDPOINT_URL"
    started = time.monotonic()
    try:
        created = storage.create(probe, PAYLOAD)
        again = storage.create(probe, b"other")
        piece = storage.read_range(probe, 255, 2)
        storage.delete(probe)
    except UserError as error:
        return Finding(name, "fail", str(error), advice)
    if not created or again:
        return Finding(
            name,
            "fail",
            "it overwrites what should only be created if absent",
            "use a store with conditional writes (If-None-Match): commits of shards and jobs rely on them",
        )
    if piece != PAYLOAD[255:257]:
        return Finding(name, "fail", "a range reads as something else", "use a store with ranged reads")
    return Finding(name, "ok", f"1 MiB written once, a range read, deleted, in {time.monotonic() - started:.2f} s")

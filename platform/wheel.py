"""The installed rayramid as a wheel, to ship to clusters."""

import base64
import hashlib
import zipfile
from importlib import resources
from importlib.metadata import version
from pathlib import Path

# A fixed time makes equal code give equal bytes, so Ray uploads a wheel once.
_TIMESTAMP = (2020, 1, 1, 0, 0, 0)


def build_wheel(folder: Path) -> Path:
    """Writes the installed package as a wheel into `folder` and returns its path.

    The wheel names no requirements: Ray would install all of them again for every job, while a cluster's image has
    them already. It is built from the installed files, so no build tool and no network is needed.
    """
    release = version("rayramid")
    info = f"rayramid-{release}.dist-info"
    members = {f"rayramid/{name}": data for name, data in sorted(_package_files().items())}
    members[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: rayramid\nVersion: {release}\n".encode()
    members[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: rayramid\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in members.items())
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()

    path = folder / f"rayramid-{release}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in members.items():
            wheel.writestr(zipfile.ZipInfo(name, _TIMESTAMP), data)
    return path


def _package_files() -> dict[str, bytes]:
    """Relative name to content of every file of the package; the links of a source checkout are followed."""
    root = resources.files("rayramid")
    found: dict[str, bytes] = {}
    pending = [(entry.name, entry) for entry in root.iterdir()]
    while pending:
        name, entry = pending.pop()
        if entry.is_dir():
            if entry.name != "__pycache__" and not entry.name.startswith("."):
                pending += [(f"{name}/{child.name}", child) for child in entry.iterdir()]
        elif not entry.name.endswith(".pyc"):
            found[name] = entry.read_bytes()
    return found


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()

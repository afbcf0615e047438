"""Why frames could not be had from a file."""

from pathlib import Path

from rayramid.models.errors import UserError


class DecodeError(UserError):
    """A file that gives no (or not all) frames.

    `reason` is one of a few short phrases, so that failures can be counted: "no such file", "not a video",
    "not an image", "no frames", "corrupt", "missing frame", "size changes", "empty range", "deadline", "crashed".
    """

    def __init__(self, path: str | Path, reason: str, detail: str = "") -> None:
        self.path = str(path)
        self.reason = reason
        self.detail = " ".join(detail.split())
        super().__init__(f"{path}: {reason}" + (f": {self.detail}" if detail else ""))

    def __reduce__(self) -> tuple[type["DecodeError"], tuple[str, str, str]]:
        return DecodeError, (self.path, self.reason, self.detail)

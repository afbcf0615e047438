"""What a video file says of itself: JSON in its `comment`, which players and ffprobe show."""

import hashlib
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from rayramid import __version__
from rayramid.models import storage
from rayramid.models.errors import UserError


def provenance(
    *, model: str, model_version: str, seed: int, prompts: Mapping[int, str], video_id: str | None = None
) -> str:
    """The comment of a video that rayramid made; prompts, by the unit at which each begins, are told by their SHA-256.

    Args:
        model: its name for clients.
        model_version: digest of its card.
        seed: of the noise.
        prompts: by unit.
        video_id: the endpoint's, if one made it.
    """
    said = {
        "generator": f"rayramid {__version__}",
        "id": video_id,
        "model": model,
        "model_version": model_version,
        "seed": seed,
        "prompt_sha256": {unit: hashlib.sha256(text.encode()).hexdigest() for unit, text in prompts.items()},
    }
    return json.dumps({name: value for name, value in said.items() if value is not None})


def read_provenance(url: str) -> dict[str, Any]:
    """What the video at `url` says of itself.

    Raises:
        UserError: no such file, no video, or one that says nothing that rayramid has written.
    """
    path = storage.local_path(url)
    with tempfile.TemporaryDirectory(prefix="rayramid-") as scratch:
        if path is None:
            path = Path(scratch, "video")
            storage.download(url, path)
        elif not path.is_file():
            raise UserError(f"{url}: no such file")
        try:
            with av.open(str(path)) as container:
                comment = container.metadata.get("comment", "")
        except av.FFmpegError as error:
            raise UserError(f"{url}: not a video that can be read ({error.strerror})") from None
    try:
        said = json.loads(comment)
    except json.JSONDecodeError:
        said = None
    if not isinstance(said, dict) or "model_version" not in said:
        raise UserError(f"{url}: the file does not say which model made it; rayramid writes that into its mp4 files")
    return said

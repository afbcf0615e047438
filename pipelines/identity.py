"""Names that follow from what a thing is, so that the same thing made again has the same name and another never has."""

import hashlib
import json
from typing import Any


def digest(*parts: Any) -> str:
    """20 hex digits (80 bits) of SHA-256 over the parts as canonical JSON."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def caption_id(caption: str) -> str:
    """The id of a caption's text."""
    return digest("caption", caption)


def hash_share(name: str) -> float:
    """A number from 0 to 1 that depends on the name alone."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32

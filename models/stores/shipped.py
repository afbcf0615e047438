"""Models that come with the package: `rayramid://sprites` names one on every machine, wherever it is installed."""

from pathlib import Path

from rayramid.models.errors import UserError

SCHEME = "rayramid://"
SPRITES = f"{SCHEME}sprites"
"""The model of the sprites world (docs/sprites.md)."""

FOLDER = Path(__file__).parents[1] / "shipped"


def shipped_path(url: str) -> Path:
    """Where a file or folder of a shipped model lies on this machine; UserError if there is no such model."""
    name, _, rest = url.removeprefix(SCHEME).partition("/")
    there = sorted(folder.name for folder in FOLDER.iterdir())
    if name not in there or ".." in rest.split("/"):
        raise UserError(f"{url}: no such model comes with rayramid; there are {', '.join(SCHEME + n for n in there)}")
    return FOLDER / name / rest

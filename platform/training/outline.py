"""A dataset that is not there yet, as far as counting needs it: what `outline` in a spec says it is going to hold.

Only dry runs read it. A row stands for many clips, so that a corpus of any size fits in memory.
"""

import math

import pyarrow as pa

from rayramid.models.errors import UserError
from rayramid.pipelines import manifest
from rayramid.pipelines.buckets import SPATIAL_RATIO, Bucket
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.identity import caption_id
from rayramid.platform.training.spec.curriculum import Outline, Root

# Enough for bins as full as those of the whole corpus.
ROWS = 20_000


class OutlinedDataset(LatentDataset):
    """Index and texts of an outline; there are no latents to read.

    Attributes:
        scale: how many clips each row of the index stands for.
    """

    def __init__(self, root: str, outline: Outline) -> None:
        self.scale = _scale(list(outline.clips.values()))
        facts = {"version": 0, "vae": {"fingerprint": ""}, "text": {"fingerprint": ""}}
        rows = [row for name, count in outline.clips.items() for row in _rows(name, count / self.scale, outline)]
        text = {"caption_id": caption_id(""), "caption": "", "text_len": 1}
        super().__init__(
            root,
            facts,
            pa.Table.from_pylist(rows, schema=manifest.INDEX_SCHEMA),
            pa.Table.from_pylist([text], schema=manifest.TEXT_INDEX_SCHEMA),
        )


def is_missing(root: Root) -> bool:
    """Whether there is an outline in place of a dataset."""
    return root.outline is not None and manifest.latest(root.root) is None


def _scale(counts: list[int]) -> float:
    """Clips for each row: one that divides all counts, if there is one that makes few enough rows."""
    needed, common = max(1.0, sum(counts) / ROWS), math.gcd(*counts)
    return common / (common // needed) if common >= needed else needed


def _rows(name: str, count: float, outline: Outline) -> list[dict[str, object]]:
    height, width, latents = map(int, name.split("x"))
    bucket = Bucket(height, width, 1 + SPATIAL_RATIO * (latents - 1))
    if height % SPATIAL_RATIO or width % SPATIAL_RATIO:
        raise UserError(f"outline.clips: bucket {name} has sides that are no multiples of {SPATIAL_RATIO} pixels")
    t, h, w = bucket.grid
    shared = {"bucket": name, "t": t, "h": h, "w": w, "split": "train", "kind": "video" if t > 1 else "image"}
    shared |= {"caption_ids": ["caption"], "text_lens": [outline.text_tokens], "file": ""}
    return [{"latent_id": f"{name}-{number}", **shared} for number in range(math.ceil(count))]

"""Job 4: text embeddings, once per distinct caption, real tokens only."""

from collections.abc import Sequence

import pyarrow as pa
import torch

from rayramid.models.text import load_text
from rayramid.pipelines.job import Row
from rayramid.pipelines.latents import TEXT_SCHEMA
from rayramid.pipelines.tensors import bf16_bytes


class EmbedJob:
    """Rows are captions; a result row holds tokens [L, D] and pooled [P] in bf16."""

    columns_out: pa.Schema = TEXT_SCHEMA
    batch = 32
    facts: tuple[str, ...] = ("text_len",)

    def __init__(self, text_url: str) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._text = load_text(text_url, device, None if device == "cuda" else torch.float32)

    def rows_per_group(self, row: Row) -> int:
        """One caption is one ranged read."""
        return 1

    def __call__(self, rows: Sequence[Row]) -> list[list[Row]]:
        """The embeddings of each caption."""
        embeddings = self._text.encode([row["caption"] for row in rows])
        return [
            [
                {
                    "caption_id": row["caption_id"],
                    "caption": row["caption"],
                    "text_fingerprint": self._text.fingerprint,
                    "text_len": len(embedding.tokens_LD),
                    "tokens": bf16_bytes(embedding.tokens_LD),
                    "pooled": bf16_bytes(embedding.pooled_P),
                    "dtype": "bf16",
                }
            ]
            for row, embedding in zip(rows, embeddings, strict=True)
        ]

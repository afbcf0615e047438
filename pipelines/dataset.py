"""Reading the latent dataset: what training sees of everything that the pipelines made.

Shape letters: C channels, T latents in time, H W latent grid, L text tokens, D their width, P the pooled width.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import torch
from isal.isal_zlib import crc32 as crc32_of
from torch import Tensor

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.stores.store import MissingError
from rayramid.pipelines import manifest as versions
from rayramid.pipelines.buckets import SPATIAL_RATIO
from rayramid.pipelines.identity import caption_id as id_of_caption
from rayramid.pipelines.latents import BYTES_PER_VALUE
from rayramid.pipelines.tables import rows_of


class DamagedError(UserError):
    """A file of a dataset that is missing, or whose bytes are not those that it was made with; `file` is its URL."""

    def __init__(self, file: str, message: str) -> None:
        # Both stay arguments, from which the error is made anew when it comes from another process.
        super().__init__(file, message)
        self.file = file

    def __str__(self) -> str:
        return ": ".join(self.args)


class LatentDataset:
    """One version of a dataset. Opening reads manifest and index; then a latent or a text is one ranged read."""

    def __init__(self, root: str, manifest: Mapping[str, Any], index: pa.Table, text_index: pa.Table) -> None:
        self.root = root
        self.manifest = MappingProxyType(dict(manifest))
        self.index = index
        self.text_index = text_index
        self.version: int = manifest["version"]
        self._places = index.select(["file", "offset", "length", "crc32", "t", "h", "w"])
        self._rows_of_captions = {name: row for row, name in enumerate(text_index["caption_id"].to_pylist())}

    @classmethod
    def open(
        cls, root: str, version: int | None = None, vae_fingerprint: str | None = None, fps: float | None = None
    ) -> "LatentDataset":
        """Open a version (the newest if None). Given a fingerprint or a rate, latents of any other are refused by name.

        Raises:
            UserError: no such version, an unknown format, another VAE or frame rate, a latent that is not of its
                bucket's size.
        """
        manifest = versions.read(root, version)
        if manifest["format_version"] != versions.FORMAT_VERSION:
            raise UserError(
                f"{root}: dataset format {manifest['format_version']}, this release reads {versions.FORMAT_VERSION}"
            )
        holds = f"{root}: version {manifest['version']} holds latents"
        if vae_fingerprint is not None and vae_fingerprint != manifest["vae"]["fingerprint"]:
            raise UserError(
                f"{holds} of VAE {manifest['vae']['fingerprint']}, "
                f"not of {vae_fingerprint}; encode the clips again with that VAE"
            )
        if fps is not None and fps != manifest["fps"]:
            raise UserError(f"{holds} at {manifest['fps']} fps, not at {fps:g}; encode the clips again at that rate")
        index = versions.read_index(root, manifest)
        _refuse_other_sizes(root, index)
        return cls(root, manifest, index, versions.read_text_index(root, manifest))

    def __len__(self) -> int:
        return self.index.num_rows

    @property
    def vae_url(self) -> str:
        """The VAE folder whose latents these are."""
        return self._url(self.manifest["vae"]["url"])

    @property
    def vae_fingerprint(self) -> str:
        """Hash of that VAE's configuration and weights."""
        return str(self.manifest["vae"]["fingerprint"])

    @property
    def text_url(self) -> str:
        """The text encoders' folder."""
        return self._url(self.manifest["text"]["url"])

    @property
    def text_fingerprint(self) -> str:
        """Hash of the text encoders."""
        return str(self.manifest["text"]["fingerprint"])

    @property
    def empty_caption_id(self) -> str:
        """The empty prompt's id; its embedding is always there, since text dropout needs it."""
        return id_of_caption("")

    @property
    def buckets(self) -> dict[str, int]:
        """Clips per bucket `HxWxT`."""
        counts = self.index.group_by("bucket").aggregate([("latent_id", "count")]).to_pylist()
        return {row["bucket"]: row["latent_id_count"] for row in sorted(counts, key=lambda row: row["bucket"])}

    def latent(self, row: int) -> Tensor:
        """[C, T, H, W] float32, the raw posterior mean of index row `row` (stored in bf16); DamagedError as said."""
        place = self._places.slice(row, 1).to_pylist()[0]
        data = self._read(place["file"], place["offset"], place["length"], place["crc32"])
        latent_CTHW = torch.frombuffer(data, dtype=torch.bfloat16).view(-1, place["t"], place["h"], place["w"])
        return latent_CTHW.float()

    def text(self, caption_id: str) -> tuple[Tensor, Tensor]:
        """([L, D], [P]) float32 of one caption: its real tokens and the pooled embedding; DamagedError as said."""
        if caption_id not in self._rows_of_captions:
            raise UserError(f"{self.root}: version {self.version} has no caption {caption_id!r}")
        place = self.text_index.slice(self._rows_of_captions[caption_id], 1).to_pylist()[0]
        start, end = place["tokens_offset"], place["pooled_offset"] + place["pooled_length"]
        data = self._bytes(place["file"], start, end - start)
        tokens, pooled = data[: place["tokens_length"]], data[place["pooled_offset"] - start :]
        self._check(place["file"], tokens, place["tokens_crc32"])
        self._check(place["file"], pooled, place["pooled_crc32"])
        tokens_LD = torch.frombuffer(tokens, dtype=torch.bfloat16).view(place["text_len"], -1)
        return tokens_LD.float(), torch.frombuffer(pooled, dtype=torch.bfloat16).float()

    def _url(self, url: str) -> str:
        # What lies under the root is named relative to it, so that a dataset can be moved as a whole.
        return url if "://" in url or url.startswith("/") else storage.join(self.root, url)

    def _read(self, file: str, offset: int, length: int, crc32: int) -> bytearray:
        data = self._bytes(file, offset, length)
        self._check(file, data, crc32)
        return data

    def _bytes(self, file: str, offset: int, length: int) -> bytearray:
        location = storage.join(self.root, file)
        try:
            return bytearray(storage.read_range(location, offset, length))
        except MissingError:
            raise DamagedError(location, f"missing, version {self.version} lists it") from None

    def _check(self, file: str, data: bytearray, crc32: int) -> None:
        if crc32_of(data) != crc32:
            raise DamagedError(
                storage.join(self.root, file), f"not the bytes that version {self.version} was made with"
            )


def _refuse_other_sizes(root: str, index: pa.Table) -> None:
    sizes = ["bucket", "length", "t", "h", "w"]
    for size in index.group_by(sizes).aggregate([]).to_pylist():
        bucket, length, t, h, w = (size[name] for name in sizes)
        if bucket == f"{h * SPATIAL_RATIO}x{w * SPATIAL_RATIO}x{t}" and length % (BYTES_PER_VALUE * t * h * w) == 0:
            continue
        row = next(row for row in rows_of(index) if all(row[name] == size[name] for name in sizes))
        raise UserError(
            f"{storage.join(root, row['file'])}: latent {row['latent_id']} of {length} bytes is not of size "
            f"{t}x{h}x{w}, as bucket {bucket} has it; encode it again"
        )

"""Features of videos kept in the output, so that a run that was killed goes on and another set costs its own alone.

features/KEY.safetensors   of one batch of videos: an array [M, D] by network. Nothing else needs these files

Shape letters: M items, D features.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from rayramid.models import storage
from rayramid.pipelines.identity import digest
from rayramid.pipelines.job import Row
from rayramid.platform.evaluation.distances.spec import DistancesSpec

SUFFIX = ".safetensors"


def key_of(spec: DistancesSpec, networks: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The name of a batch's features, from all that they follow from.

    Args:
        spec: its frames, fps and size.
        networks: fingerprints by name.
        rows: the videos, whose `id` changes with their content.
    """
    return digest("features", [row["id"] for row in rows], networks, spec.frames, spec.fps, spec.size)


def keep(output: str, key: str, features: Mapping[str, NDArray[np.float32]]) -> None:
    """Writes a batch's features."""
    # Safetensors takes an array's memory as it lies, whatever its strides say.
    laid_out = {name: np.ascontiguousarray(features_MD) for name, features_MD in features.items()}
    storage.write_atomic(_url(output, key), save(laid_out))


def kept(output: str) -> set[str]:
    """The keys that are there."""
    folder = storage.join(output, "features")
    return {storage.relative(folder, file).removesuffix(SUFFIX) for file in storage.list_files(folder, SUFFIX)}


def read(output: str, key: str) -> dict[str, NDArray[np.float32]]:
    """The features of a key that is there."""
    return load(storage.read_bytes(_url(output, key)))


def _url(output: str, key: str) -> str:
    return storage.join(output, "features", key + SUFFIX)

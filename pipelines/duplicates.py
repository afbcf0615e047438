"""Groups of clips that show the same: equal pixels, near ones, the same content. Of each group the best one is kept.

Global, so no shard's work: computed from stored hashes and embeddings whenever scores are read.

Shape letters: N clips, B bytes of a hash, D embedding.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rayramid.pipelines.spec import Duplicates

# Hashes that agree in one of so many parts are compared, each with so many neighbours in the order of that part.
BANDS = 8
NEIGHBOURS = 8
# Embeddings are compared within clusters of about so many.
CLUSTER = 2048
KMEANS_ROUNDS = 8

Pairs = NDArray[np.int64]


def groups(scores: pa.Table, among: NDArray[np.bool_], duplicates: Duplicates) -> NDArray[np.int64]:
    """For each clip the number of its group's first member; its own where it is alone or not `among` those compared."""
    places = np.flatnonzero(among)
    links = [pairs for pairs in _links(scores.take(places), duplicates) if len(pairs)]
    labels = np.arange(len(among))
    labels[places] = places[_components(len(places), np.concatenate(links) if links else np.empty((0, 2), np.int64))]
    return labels


def keepers(labels: NDArray[np.int64], scores: pa.Table, val: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For each clip the member of its group that is kept: one of val before train, then the best of quality.

    The better is the one of higher aesthetics, then of more pixels, then the sharper.
    """
    quality = [np.nan_to_num(_numbers(scores, name), nan=-np.inf) for name in ("blur", "short_side", "aesthetics")]
    # The last key counts first; of equals the first clip wins.
    order = np.lexsort([np.arange(len(labels)), *(-values for values in quality), ~val])
    first = np.full(len(labels), -1)
    for place in order:
        if first[labels[place]] < 0:
            first[labels[place]] = place
    return first[labels]


def near(hashes_NB: NDArray[np.uint8], bits: int) -> Pairs:
    """Pairs of hashes that differ in at most so many bits; those that differ in every band are not found."""
    found = [np.empty((0, 2), np.int64)]
    for band in np.split(np.arange(hashes_NB.shape[1]), BANDS):
        # Whole hashes in the order of the band, so that the nearest stand side by side.
        keys = [hashes_NB[:, band].tobytes()[n * len(band) : (n + 1) * len(band)] for n in range(len(hashes_NB))]
        order = np.array(sorted(range(len(keys)), key=lambda n: (keys[n], hashes_NB[n].tobytes())), np.int64)
        for step in range(1, min(NEIGHBOURS, len(order) - 1) + 1):
            pairs = np.stack([order[:-step], order[step:]], axis=1)
            one, other = hashes_NB[pairs[:, 0]], hashes_NB[pairs[:, 1]]
            alike = (one[:, band] == other[:, band]).all(axis=1)
            distance = np.bitwise_count(one ^ other).sum(axis=1)
            found.append(pairs[alike & (distance <= bits)])
    return np.unique(np.concatenate(found), axis=0)


def semantic(unit_ND: NDArray[np.float32], cosine: float) -> Pairs:
    """Pairs of unit embeddings with at least this cosine, within the clusters of a spherical k-means."""
    found = [np.empty((0, 2), np.int64)]
    for members in _clusters(unit_ND):
        alike = np.triu(unit_ND[members] @ unit_ND[members].T >= cosine, 1)
        found.append(members[np.argwhere(alike)])
    return np.concatenate(found)


def _links(scores: pa.Table, duplicates: Duplicates) -> Iterator[Pairs]:
    if duplicates.exact:
        yield _equal(scores["content_hash"].to_pylist())
    if duplicates.near_bits is not None:
        hashes = scores["perceptual_hash"].to_pylist()
        known = np.array([n for n, value in enumerate(hashes) if value is not None], np.int64)
        if len(known) > 1:
            rows = np.array([list(bytes.fromhex(hashes[n])) for n in known], np.uint8)
            yield known[near(rows, duplicates.near_bits)]
    if duplicates.semantic is not None:
        embeddings = scores["embedding"].to_pylist()
        known = np.array([n for n, value in enumerate(embeddings) if value is not None], np.int64)
        if len(known) > 1:
            vectors = np.stack([np.frombuffer(embeddings[n], "<f2").astype(np.float32) for n in known])
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            yield known[semantic(vectors, duplicates.semantic)]


def _equal(values: Sequence[str | None]) -> Pairs:
    first: dict[str, int] = {}
    pairs = [(first.setdefault(value, n), n) for n, value in enumerate(values) if value is not None]
    return np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)


def _clusters(unit_ND: NDArray[np.float32]) -> Iterator[NDArray[np.int64]]:
    count = -(-len(unit_ND) // CLUSTER)
    if count == 1:
        yield np.arange(len(unit_ND))
        return
    centres = unit_ND[np.linspace(0, len(unit_ND) - 1, count).astype(int)]
    nearest = np.zeros(len(unit_ND), np.int64)
    for _ in range(KMEANS_ROUNDS):
        for start in range(0, len(unit_ND), CLUSTER):
            nearest[start : start + CLUSTER] = (unit_ND[start : start + CLUSTER] @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, nearest, unit_ND)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        centres = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centres)
    for number in np.unique(nearest):
        yield np.flatnonzero(nearest == number)


def _components(count: int, pairs: Pairs) -> NDArray[np.int64]:
    """The first member of each one's connected component."""
    parents = list(range(count))

    def root(place: int) -> int:
        while parents[place] != place:
            parents[place] = parents[parents[place]]
            place = parents[place]
        return place

    for one, other in pairs.tolist():
        low, high = sorted((root(one), root(other)))
        parents[high] = low
    return np.array([root(place) for place in range(count)], np.int64)


def _numbers(scores: pa.Table, name: str) -> NDArray[np.float64]:
    return scores[name].to_numpy().astype(np.float64)

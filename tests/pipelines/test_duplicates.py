import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rayramid.pipelines.duplicates import CLUSTER, groups, keepers, near, semantic
from rayramid.pipelines.selection import VERDICTS, without_duplicates
from rayramid.pipelines.spec import Duplicates

ZERO = bytes(32)


def scores(**columns):
    length = len(next(iter(columns.values())))
    known = {"content_hash": None, "perceptual_hash": None, "aesthetics": None, "short_side": 100.0, "blur": 1.0}
    kinds = {"content_hash": pa.string(), "perceptual_hash": pa.string(), "embedding": pa.binary()}
    full = {**{name: [value] * length for name, value in known.items()}, **columns}
    return pa.table({name: pa.array(values, kinds.get(name, pa.float64())) for name, values in full.items()})


def all_of(count):
    return np.ones(count, bool)


def flipped(value, *bits):
    number = int.from_bytes(value, "big")
    for bit in bits:
        number ^= 1 << bit
    return number.to_bytes(len(value), "big")


def test_equal_pixels_are_one_group_and_unknown_ones_none():
    found = groups(scores(content_hash=["a", "b", "a", None, None]), all_of(5), Duplicates(exact=True))
    assert found.tolist() == [0, 1, 0, 3, 4]


def test_near_hashes_are_one_group_through_those_between():
    chain = [ZERO, flipped(ZERO, 0, 1, 2), flipped(ZERO, *range(6)), flipped(ZERO, *range(0, 256, 2))]
    table = scores(perceptual_hash=[value.hex() for value in chain])
    assert groups(table, all_of(4), Duplicates(near_bits=3)).tolist() == [0, 0, 0, 3]
    assert groups(table, all_of(4), Duplicates(near_bits=2)).tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 255), unique=True, max_size=7), st.integers(0, 2**256 - 1), st.integers(0, 2**32))
def test_copies_that_differ_in_up_to_seven_bits_are_found_among_many_others(bits, value, seed):
    mine = value.to_bytes(32, "big")
    crowd = np.random.default_rng(seed).integers(0, 256, (30, 32), dtype=np.uint8)
    rows = np.concatenate([[list(mine)], crowd, [list(flipped(mine, *bits))]]).astype(np.uint8)
    assert [0, 31] in np.sort(near(rows, 7), axis=1).tolist()


def test_same_content_is_a_high_cosine_of_embeddings():
    vectors = np.array([[1, 0], [0.995, 0.0999], [0, 1]], "<f2")
    table = scores(embedding=[vector.tobytes() for vector in vectors])
    assert groups(table, all_of(3), Duplicates(semantic=0.99)).tolist() == [0, 0, 2]


def test_pairs_are_found_in_a_corpus_of_several_clusters():
    draws = np.random.default_rng(0)
    vectors = draws.standard_normal((2 * CLUSTER + 10, 16)).astype(np.float32)
    vectors[-1] = vectors[5] + 1e-3
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [5, len(vectors) - 1] in semantic(vectors, 0.999).tolist()


def test_the_best_of_a_group_is_kept_and_val_before_train():
    labels = np.array([0, 0, 2, 2, 4])
    table = scores(aesthetics=[4.0, 5.0, 6.0, 3.0, None])
    val = np.array([False, False, False, True, False])
    assert keepers(labels, table, val).tolist() == [1, 1, 3, 3, 4]
    larger = scores(short_side=[100.0, 200.0])
    assert keepers(np.array([0, 0]), larger, np.zeros(2, bool)).tolist() == [1, 1]


def test_verdicts_name_the_twin_and_rejected_clips_take_no_part():
    clips = pa.table({"clip_id": ["a", "b", "c", "d"], "split": ["train", "train", "val", "train"]})
    bucketed = {"bucket": "128x128x2", "height": 128, "width": 128, "frames": 9, "rule": None, "twin": None}
    rejected = {**dict.fromkeys(bucketed), "rule": "blur"}
    judged = pa.Table.from_pylist([rejected, bucketed, bucketed, bucketed], schema=VERDICTS)
    table = scores(content_hash=["x", "x", "y", "y"])
    found = without_duplicates(judged, clips, table, Duplicates(exact=True))
    assert found["rule"].to_pylist() == ["blur", None, None, "val_leak"]
    assert found["twin"].to_pylist() == [None, None, None, "c"]
    assert without_duplicates(judged, clips, table, Duplicates()) is judged

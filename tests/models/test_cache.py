"""The cache holds what was appended, counts its bytes, and forgets exactly what nothing will see."""

import pytest
import torch

from rayramid.models.cache import Cache
from rayramid.models.history import Segment


def filled(cache: Cache, segments: list[Segment]) -> Cache:
    for segment in segments:
        # Two blocks, 2 heads of size 4, fp32: 2 * 2 * 2 * 4 * 4 = 128 bytes a token.
        pairs = [(torch.zeros(segment.length, 2, 4), torch.ones(segment.length, 2, 4)) for _ in range(2)]
        cache.append(segment, pairs)
    return cache


def copies(units: int, levels: int) -> list[Segment]:
    sides = [4, 2, 1]
    return [
        Segment(0, "context", unit, level, (1, sides[level], sides[level]), start=unit)
        for unit in range(units)
        for level in range(levels)
    ]


def names(cache: Cache) -> list[tuple[int, int]]:
    return [(segment.unit, segment.level) for segment in cache.segments if segment.kind == "context"]


def test_bytes_are_those_of_keys_and_values_of_all_blocks() -> None:
    cache = filled(Cache(3), [Segment(0, "text", 0, 0, (5, 1, 1)), Segment(0, "context", 0, 1, (1, 2, 2))])
    assert cache.bytes == (5 + 4) * 128
    keys, values = cache.past(1)
    assert [tensor.shape for tensor in keys] == [(5, 2, 4), (4, 2, 4)]
    assert bool((values[0] == 1).all())
    cache.drop()
    assert (cache.bytes, cache.segments) == (0, [])


def test_appended_slices_do_not_keep_the_packs_tensor_alive() -> None:
    cache = Cache(1)
    whole = torch.zeros(100, 2, 4)
    cache.append(Segment(0, "context", 0, 0, (1, 1, 1)), [(whole[3:4], whole[3:4])])
    assert cache.past(0)[0][0].untyped_storage().nbytes() == 2 * 4 * 4


def test_a_segment_and_its_keys_must_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="the segment's 5 tokens"):
        Cache(1).append(Segment(0, "text", 0, 0, (5, 1, 1)), [(torch.zeros(4, 2, 4), torch.zeros(4, 2, 4))])


def test_when_a_unit_begins_finer_copies_go_and_the_coarsest_stay() -> None:
    cache = filled(Cache(3), copies(units=4, levels=3))
    cache.evict(4)
    # C(j, 0) is last seen while j + 1 is made, C(j, 1) while j + 2 is.
    assert names(cache) == [(0, 2), (1, 2), (2, 1), (2, 2), (3, 0), (3, 1), (3, 2)]
    assert cache.bytes == (4 * 1 + 2 * 4 + 16) * 128


def test_bounded_history_drops_the_coarsest_too() -> None:
    cache = filled(Cache(2, history_units=1), copies(units=4, levels=2))
    cache.evict(4)
    # Making unit 4 computes the copies of unit 3, which see unit 2.
    assert names(cache) == [(2, 1), (3, 0), (3, 1)]


def test_one_level_keeps_everything() -> None:
    cache = filled(Cache(1), copies(units=3, levels=1))
    cache.evict(3)
    assert names(cache) == [(0, 0), (1, 0), (2, 0)]


def test_an_old_prompt_stays_for_the_copies_of_its_last_unit() -> None:
    texts = [Segment(0, "text", 0, 0, (5, 1, 1)), Segment(0, "text", 2, 0, (6, 1, 1), prompt=1)]
    cache = filled(Cache(3), texts)
    cache.evict(2)
    assert [segment.prompt for segment in cache.segments] == [0, 1]
    cache.evict(3)
    assert [segment.prompt for segment in cache.segments] == [1]

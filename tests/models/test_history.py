"""Who sees whom, by hand, and the rules that follow from it."""

import itertools

import pytest

from rayramid.models.history import (
    Segment,
    context_of,
    last_use,
    needed_copies,
    sees,
    sees_official,
    training_rows,
    unit_count,
    unit_span,
)


def copy(unit: int, level: int, clip: int = 0, prompt: int = 0) -> Segment:
    return Segment(clip, "context", unit, level, (1, 1, 1), start=unit, prompt=prompt)


def target(unit: int, level: int, clip: int = 0, prompt: int = 0) -> Segment:
    return Segment(clip, "target", unit, level, (1, 1, 1), start=unit, prompt=prompt)


def text(prompt: int = 0, clip: int = 0) -> Segment:
    return Segment(clip, "text", 0, 0, (3, 1, 1), prompt=prompt)


def test_a_target_keeps_its_level_for_the_newest_unit_and_grows_one_coarser_per_unit_back() -> None:
    assert context_of(4, 0, 3, target=True) == [(0, 2), (1, 2), (2, 1), (3, 0)]
    assert context_of(4, 1, 3, target=True) == [(0, 2), (1, 2), (2, 2), (3, 1)]
    assert context_of(4, 2, 3, target=True) == [(0, 2), (1, 2), (2, 2), (3, 2)]


def test_a_context_copy_is_one_level_coarser_from_the_first_unit_back() -> None:
    assert context_of(3, 0, 3, target=False) == [(0, 2), (1, 2), (2, 1)]
    assert context_of(3, 2, 3, target=False) == [(0, 2), (1, 2), (2, 2)]


def test_what_a_copy_sees_is_the_chain_behind_it_in_every_target_that_sees_it() -> None:
    for unit, level, levels in itertools.product(range(1, 6), range(3), (3, 4)):
        chain = context_of(unit, level, levels, target=True)
        newest_unit, newest_level = chain[-1]
        assert chain[:-1] == context_of(newest_unit, newest_level, levels, target=False)


def test_history_units_bounds_targets_and_copies_alike() -> None:
    assert context_of(4, 0, 3, target=True, history_units=2) == [(2, 1), (3, 0)]
    assert context_of(3, 0, 3, target=False, history_units=2) == [(1, 2), (2, 1)]


def test_visibility_of_nine_segments_by_hand() -> None:
    """Two levels, units 0 and 1 as context, unit 2 as target; rows and columns in this order."""
    segments = [
        text(),
        copy(0, 0),
        copy(0, 1),
        copy(1, 0),
        copy(1, 1),
        target(2, 0),
        target(2, 1),
        text(clip=1),
        target(0, 0, clip=1),
    ]
    seen = ["".join("x" if sees(query, key, levels=2) else "." for key in segments) for query in segments]
    assert seen == [
        "x........",
        "xx.......",
        "x.x......",
        "x.xx.....",
        "x.x.x....",
        "x.xx.x...",
        "x.x.x.x..",
        ".......x.",
        ".......xx",
    ]


def test_segments_see_the_prompt_they_were_made_with_only() -> None:
    assert sees(copy(0, 0), text(0), 3)
    assert not sees(copy(0, 0), text(1), 3)
    assert sees(target(2, 0, prompt=1), text(1), 3)
    assert not sees(text(1), text(0), 3)
    # History made with an older prompt stays visible.
    assert sees(target(2, 0, prompt=1), copy(1, 0, prompt=0), 3)


def test_official_text_and_first_frame_see_each_other_and_frames_look_back() -> None:
    segments = [text(), copy(0, 2), copy(1, 2), target(2, 1)]
    seen = ["".join("x" if sees_official(query, key) else "." for key in segments) for query in segments]
    assert seen == ["xx..", "xx..", "xxx.", "xxxx"]
    assert all(sees_official(query, key, causal=False) for query in segments for key in segments)
    assert not sees_official(text(), text(clip=1), causal=False)


@pytest.mark.parametrize(("levels", "finest"), [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize(("first_unit", "units"), [(0, 1), (0, 3), (2, 1), (3, 2), (5, 4)])
def test_needed_copies_are_all_that_targets_reach(levels: int, finest: int, first_unit: int, units: int) -> None:
    reached: set[tuple[int, int]] = set()
    frontier = [
        seen
        for unit in range(first_unit, first_unit + units)
        for level in range(finest, levels)
        for seen in context_of(unit, level, levels, target=True)
    ]
    while frontier:
        unit, level = frontier.pop()
        if (unit, level) not in reached:
            reached.add((unit, level))
            frontier += context_of(unit, level, levels, target=False)
    assert sorted(needed_copies(first_unit, units, levels, finest)) == sorted(reached)


@pytest.mark.parametrize("levels", [1, 2, 3])
@pytest.mark.parametrize("history_units", [None, 1, 2])
def test_last_use_is_the_last_unit_during_whose_making_a_copy_is_seen(levels: int, history_units: int | None) -> None:
    horizon = 12
    for unit, level in itertools.product(range(4), range(levels)):
        seen_while_making = [
            made
            for made in range(unit + 1, horizon)
            # While unit `made` is made, its targets run, and the copies of the unit before it.
            for query in [target(made, k) for k in range(levels)] + [copy(made - 1, k) for k in range(levels)]
            if sees(query, copy(unit, level), levels, history_units)
        ]
        last = last_use(unit, level, levels, history_units)
        assert max(seen_while_making) == (horizon - 1 if last is None else last)


def test_units_of_a_video() -> None:
    assert [unit_span(unit, 2, 5) for unit in range(3)] == [(0, 1), (1, 3), (3, 5)]
    assert (unit_count(5, 2), unit_count(1, 2), unit_count(31, 1)) == (3, 1, 31)
    assert (unit_count(7, None), unit_span(0, None, 7)) == (1, (0, 7))
    with pytest.raises(ValueError, match="4 latents: must be 1 \\+ a multiple of 2"):
        unit_count(4, 2)


def test_training_rows_by_hand() -> None:
    (row,) = training_rows(3, 1, 2, levels=2, frames_per_unit=1, shared=True)
    assert [(span.kind[0], span.unit, span.level) for span in row] == [
        ("c", 0, 0),
        ("c", 0, 1),
        ("c", 1, 0),
        ("c", 1, 1),
        ("t", 1, 1),
        ("t", 1, 0),
        ("t", 2, 1),
        ("t", 2, 0),
    ]
    (row,) = training_rows(3, 1, 2, levels=2, frames_per_unit=1, shared=True, finest=1)
    assert [(span.kind[0], span.unit, span.level) for span in row] == [
        ("c", 0, 1),
        ("c", 1, 1),
        ("t", 1, 1),
        ("t", 2, 1),
    ]
    rows = training_rows(3, 2, 1, levels=2, frames_per_unit=1, shared=False, finest=1)
    assert [[(span.kind[0], span.unit, span.level) for span in row] for row in rows] == [
        [("c", 0, 1), ("c", 1, 1), ("t", 2, 1)],
    ]
    rows = training_rows(3, 2, 1, levels=2, frames_per_unit=1, shared=False)
    assert [[(span.kind[0], span.unit, span.level) for span in row] for row in rows] == [
        [("c", 0, 1), ("c", 1, 1), ("t", 2, 1)],
        [("c", 0, 1), ("c", 1, 0), ("t", 2, 0)],
    ]
    with pytest.raises(ValueError, match="units 2 to 3: the video has units 0 to 2"):
        training_rows(3, 2, 2, levels=2, frames_per_unit=1, shared=True)

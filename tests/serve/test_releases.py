"""The log of releases: who decides what a name stands for, and which jobs a canary gets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rayramid.models.errors import UserError
from rayramid.serve.job import new_id
from rayramid.serve.releases import Release, Releases, Version

A, B, C = (Version(id=letter * 12, folder=f"/models/{letter}") for letter in "abc")


@pytest.fixture
def releases(tmp_path):
    return Releases(str(tmp_path))


def test_the_spec_begins_a_name_and_says_nothing_until_it_says_something_else(releases):
    releases.follow_spec("clips", A)
    releases.follow_spec("clips", A)
    assert [release.stable for release in releases.history("clips")] == [A]
    releases.promote("clips", B)
    # The endpoint starts again with the spec that it had.
    releases.follow_spec("clips", A)
    assert releases.newest("clips").stable == B
    releases.follow_spec("clips", C)
    assert releases.newest("clips").stable == C


def test_a_canary_is_promoted_or_rolled_back(releases):
    releases.follow_spec("clips", A)
    release = releases.canary("clips", B, 0.25)
    assert (release.stable, release.canary, release.share) == (A, B, 0.25)
    ended = releases.roll_back("clips")
    assert (ended.stable, ended.canary) == (A, None)
    releases.canary("clips", B, 0.5)
    promoted = releases.promote("clips")
    assert (promoted.stable, promoted.canary) == (B, None)
    assert releases.roll_back("clips").stable == A


def test_what_can_not_be_released_is_said_in_one_line(releases):
    with pytest.raises(UserError, match="no model was released under the name 'clips'"):
        releases.promote("clips")
    releases.follow_spec("clips", A)
    with pytest.raises(UserError, match="clips has no canary"):
        releases.promote("clips")
    with pytest.raises(UserError, match="clips has had no other version than aaaaaaaaaaaa"):
        releases.roll_back("clips")


def test_every_process_reads_the_same_log_and_of_two_releases_at_once_one_is_refused(releases, tmp_path):
    releases.follow_spec("clips", A)
    other = Releases(str(tmp_path))
    other.refresh()
    other.canary("clips", B, 0.5)
    # This one has not seen that yet.
    with pytest.raises(UserError, match="somebody else released clips"):
        releases._add("clips", Release(stable=C, at=0, by="operator"))
    releases.refresh()
    assert releases.newest("clips").canary == B


def test_every_version_ever_released_is_found_where_it_was_seen_last(releases):
    releases.follow_spec("clips", A)
    releases.canary("clips", B, 0.5)
    releases.roll_back("clips")
    moved = A.model_copy(update={"folder": "/elsewhere/a"})
    releases.follow_spec("clips", moved)
    assert releases.find("clips", A.id) == moved
    assert releases.find("clips", B.id) == B
    assert releases.find("clips", C.id) is None
    assert releases.find("others", A.id) is None


@given(job_id=st.text(), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)))
def test_a_job_has_one_version_and_stays_with_the_canary_when_its_share_grows(job_id, shares):
    small, large = (
        Release(stable=A, canary=B, share=share, at=0, by="operator").choose(job_id) for share in sorted(shares)
    )
    assert small == A or large == B
    assert Release(stable=A, canary=B, share=0.0, at=0, by="operator").choose(job_id) == A
    assert Release(stable=A, canary=B, share=1.0, at=0, by="operator").choose(job_id) == B


def test_a_canary_gets_about_its_share():
    release = Release(stable=A, canary=B, share=0.25, at=0, by="operator")
    ids = [f"video_{number:028x}" for number in range(2000)]
    assert 0.2 < sum(release.choose(each) == B for each in ids) / len(ids) < 0.3
    assert release.choose(new_id()) in (A, B)

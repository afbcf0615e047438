"""A blind comparison: what the page tells and what it does not, and how votes are counted."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from rayramid.models.errors import UserError
from rayramid.models.media.write import write_mp4
from rayramid.platform.cli import app
from rayramid.platform.evaluation.preference.study import QUESTIONS, Key, Pair, make_study
from rayramid.platform.evaluation.preference.votes import Vote, Votes, count, lines, load

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    """Two folders of the same six names, one more in the second; each file says who made it."""
    folder = tmp_path_factory.mktemp("models")
    for model, shade in (("ours", 50), ("theirs", 200)):
        for number in range(6 if model == "ours" else 7):
            frames = np.full((2, 32, 32, 3), shade + number, np.uint8)
            write_mp4(folder / model / f"a <b> cat {number}-0.mp4", frames, 8, metadata={"comment": model})
    return {model: folder / model for model in ("ours", "theirs")}


def votes(voter: str, *choices: tuple[str, str, str], study: str = "s") -> Votes:
    return Votes(
        study=study,
        voter=voter,
        votes=[Vote(pair=pair, question=question, choice=choice) for pair, question, choice in choices],
    )


KEY = Key("s", 0, (Pair("1", "x", "a", "b", "l", "r"), Pair("2", "y", "b", "a", "l", "r")))


def test_the_page_and_its_videos_do_not_tell_who_made_what(models, tmp_path):
    key = Key.read(make_study(models, tmp_path / "page", seed=0))
    page = (tmp_path / "page/index.html").read_text()
    shared = [page, *(path.name for path in (tmp_path / "page").rglob("*"))]
    assert not any("ours" in text or "theirs" in text for text in shared)
    assert len(key.pairs) == 6
    study = json.loads(page.partition('id="study">')[2].partition("</script>")[0])
    assert [pair["prompt"] for pair in study["pairs"]] == [pair.prompt for pair in key.pairs]
    assert key.pairs[0].prompt.startswith("a <b> cat ")
    assert "<b>" not in page
    for pair in key.pairs:
        for model, file in ((pair.left, pair.left_file), (pair.right, pair.right_file)):
            with av.open(str(tmp_path / "page/videos" / file)) as video:
                assert "comment" not in video.metadata
                shade = next(video.decode(video=0)).to_ndarray(format="rgb24").mean()
            assert (shade < 100) == (model == "ours")


def test_the_seed_draws_sides_and_order_and_nothing_else_does(models, tmp_path):
    def drawn(name: str, seed: int, most: int | None = None) -> list[tuple[str, str]]:
        key = Key.read(make_study(models, tmp_path / name, seed, most))
        return [(pair.prompt, pair.left) for pair in key.pairs]

    first = drawn("one", 3)
    assert first == drawn("two", 3)
    assert first != drawn("three", 4)
    assert {left for _, left in first} == {"ours", "theirs"}
    assert [prompt for prompt, _ in first] != sorted(prompt for prompt, _ in first)
    assert len(drawn("some", 3, 2)) == 2


def test_prompts_of_a_suite_are_those_of_its_manifest(tmp_path):
    for model in ("a", "b"):
        write_mp4(tmp_path / model / "videos/0000.mp4", np.zeros((1, 16, 16, 3), np.uint8), 8)
        manifest = {"videos": [{"file": "0000.mp4", "prompt": "a dog"}]}
        (tmp_path / model / "manifest.json").write_text(json.dumps(manifest))
    key = Key.read(make_study({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "page", 0))
    assert [pair.prompt for pair in key.pairs] == ["a dog"]


def test_a_study_that_can_not_be_made_is_refused(models, tmp_path):
    with pytest.raises(UserError, match="two models"):
        make_study({"ours": models["ours"]}, tmp_path / "page", 0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    with pytest.raises(UserError, match="is not empty"):
        make_study(models, tmp_path / "full", 0)
    write_mp4(tmp_path / "other/only.mp4", np.zeros((1, 16, 16, 3), np.uint8), 8)
    with pytest.raises(UserError, match="no video is in all"):
        make_study({**models, "other": tmp_path / "other"}, tmp_path / "page", 0)


def test_a_vote_is_for_the_model_on_that_side():
    found = count(
        KEY, [votes("v", ("1", "motion", "left"), ("2", "motion", "right")), votes("w", ("2", "motion", "left"))]
    )
    (pair,) = found["questions"]["motion"]["pairs"]
    # On the second pair a stood on the right: a won twice, b once.
    assert (pair["model"], pair["other"], pair["ties"]) == ("a", "b", 0)
    assert (pair["wins"]["right"], pair["wins"]["of"], pair["wins"]["share"]) == (2, 3, 0.6667)
    assert pair["wins"]["low"] < 0.6667 < pair["wins"]["high"]
    assert (found["voters"], found["answers"]) == (2, 3)


def test_ties_are_told_apart_and_the_last_answer_of_a_voter_counts():
    found = count(KEY, [votes("v", ("1", "text", "left"), ("1", "text", "tie")), votes("v", ("2", "text", "tie"))])
    (pair,) = found["questions"]["text"]["pairs"]
    assert (pair["ties"], pair["wins"]) == (2, {"share": None, "right": 0, "of": 0})
    assert lines(found)[-1] == "  a over b: no preference, 2 ties"


def test_of_three_models_each_is_also_counted_against_all_others():
    names = (("1", "a", "b"), ("2", "b", "c"), ("3", "a", "c"))
    key = Key("s", 0, tuple(Pair(pair, "x", left, right, "l", "r") for pair, left, right in names))
    found = count(key, [votes("v", *((pair, "motion", "left") for pair, _, _ in names))])
    shares = found["questions"]["motion"]["models"]
    assert [(model, share["right"], share["of"]) for model, share in shares.items()] == [
        ("a", 2, 2),
        ("b", 1, 2),
        ("c", 0, 2),
    ]


@pytest.mark.parametrize(
    ("sheet", "said"),
    [
        (votes("v", study="other"), "of study other, the key is of s"),
        (votes("v", ("9", "motion", "left")), "unknown to the key"),
        (votes("v", ("1", "smell", "left")), "unknown to the key"),
    ],
)
def test_votes_of_something_else_are_refused(sheet, said):
    with pytest.raises(UserError, match=said):
        count(KEY, [sheet])


def test_commands_make_and_count(models, tmp_path):
    run = CliRunner().invoke
    named = [word for name, folder in models.items() for word in ("--of", f"{name}={folder}")]
    made = run(app, ["preference", "make", "--out", str(tmp_path / "page"), *named, "--prompts", "1"])
    assert made.exit_code == 0, made.output
    key = Key.read(tmp_path / "page.key.json")
    sheet = votes("v", *((key.pairs[0].id, question, "left") for question in QUESTIONS), study=key.study)
    (tmp_path / "votes").mkdir()
    (tmp_path / "votes/v.json").write_text(sheet.model_dump_json())
    assert load([tmp_path / "votes"]) == [sheet]
    counted = run(app, ["preference", "count", str(tmp_path / "page.key.json"), str(tmp_path / "votes")])
    assert counted.output.startswith("3 answers of 1 voters\naesthetics: Which video looks better?\n")
    (tmp_path / "votes/v.json").write_text('{"study": 1}')
    with pytest.raises(UserError, match="not votes that the page exported"):
        load([tmp_path / "votes"])


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_voter_answers_pauses_and_saves_what_is_counted(models, tmp_path):
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    path = make_study(models, tmp_path / "page", 0, most=2)
    key, complaints = Key.read(path), []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(200_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto((tmp_path / "page/index.html").as_uri())
        assert [found["id"] for found in Axe().run(page).response["violations"]] == []
        page.fill("#voter", "Ann")
        page.get_by_role("button", name="Begin").click()
        for pair in key.pairs:
            page.get_by_text(f"“{pair.prompt}”").wait_for()
            page.wait_for_function("document.getElementById('left').videoWidth === 32")
            assert page.get_by_role("button", name="Next").is_disabled()
            side = "left" if pair.left == "ours" else "right"
            for question in QUESTIONS.values():
                page.get_by_role("group", name=question).get_by_label(side).check()
            # What was answered is there after a pause.
            page.reload()
            assert page.get_by_label(side).and_(page.locator(":checked")).count() == len(QUESTIONS)
            assert [found["id"] for found in Axe().run(page).response["violations"]] == []
            page.get_by_role("button", name="Next").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Save answers").click()
        download.value.save_as(tmp_path / "votes.json")
        assert download.value.suggested_filename == f"votes-{key.study}-Ann.json"
        browser.close()
    assert complaints == []
    found = count(key, load([tmp_path / "votes.json"]))
    for counted in found["questions"].values():
        assert [(pair["model"], pair["wins"]["share"]) for pair in counted["pairs"]] == [("ours", 1.0)]

import pytest

from rayramid.pipelines.captioning.checks import FATAL, checked

LONG = "A man in a red coat walks along the shore of a lake while the sun sets behind the hills."


@pytest.mark.parametrize(
    "opening",
    [
        "The video depicts ",
        "This video clip shows ",
        "In this video, we see ",
        "Sure! Here is a detailed description of the video: ",
        "Here's a caption: The footage captures ",
        '"',
    ],
)
def test_openings_that_say_nothing_are_cut_off(opening):
    found = checked(opening + LONG[:1].lower() + LONG[1:])
    assert found.text == LONG
    assert found.wrong == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("  \n ", "empty"),
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("As an AI language model I do not see videos.", "refusal"),
        ("No video was provided.", "refusal"),
        ("A dog runs on the beach. " * 4, "repetition"),
        ("A cat sits on the mat and looks at the", "truncated"),
        ("一个男人在海边散步。", "language"),
        ("Ein Mann geht mit seinem kleinen Hund durch einen dunklen Wald und sieht dabei viele Tiere.", "language"),
    ],
)
def test_each_fault_is_found(text, fault):
    assert fault in checked(text).wrong


@pytest.mark.parametrize(
    "text", [LONG, "A cat.", "Waves roll in.", "The camera pans left, then the camera pans right, as the crowd cheers."]
)
def test_a_good_caption_has_none(text):
    assert checked(text).wrong == ()


def test_what_is_wrong_in_a_way_that_spoils_training_is_not_used():
    assert set(FATAL) == {"empty", "refusal", "repetition"}

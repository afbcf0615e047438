"""The line that tells how far a run is."""

from rayramid.platform.training.status import Status


def test_a_line_tells_what_is_known():
    assert Status().line(100) == ""
    assert Status(10, {"loss": 0.25}).line(100) == "loss 0.250"
    facts = {
        "phase": "short clips",
        "loss": 0.25,
        "validation_loss": 0.3,
        "tokens_per_second": 3210.0,
        "seconds_per_step": 2.5,
    }
    assert Status(40, facts, checkpoint=30).line(100, made=20) == (
        "short clips  loss 0.250  held out 0.300  3.2k tokens/s  0:02:30 left  saved 30  videos 20"
    )
    assert "left" not in Status(100, {"tokens_per_second": 321.0}).line(100)
    assert Status(100, {"tokens_per_second": 321.0}).line(100) == "321 tokens/s"

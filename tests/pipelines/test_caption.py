import pytest

from rayramid.pipelines.caption import CaptionJob
from rayramid.pipelines.captioning.spec import Caption
from rayramid.pipelines.identity import caption_id

CLIP = {"clip_id": "c", "name": "city/red_car-2.mp4", "width": 640, "height": 360, "start_ms": 500, "end_ms": 2000}


def caption(template, source_caption=None):
    ((row,),) = CaptionJob(Caption(), 30.0)([{**CLIP, "template": template, "source_caption": source_caption}])
    return row["caption"], row["origin"]


def test_the_sources_own_caption_comes_first():
    assert caption("a video of {name}", " a red car ") == ("a red car", "source")


def test_a_template_fills_in_the_clips_fields():
    filled = caption("{name}, {width}x{height}, {duration_s} s")
    assert filled == ("red car 2, 640x360, 1.5 s", "template")


def test_without_either_the_row_fails():
    with pytest.raises(ValueError, match=r"no caption\.template"):
        caption(None)


def test_equal_captions_share_one_id():
    templated = {**CLIP, "template": "x", "source_caption": None}
    rows = CaptionJob(Caption(), 30.0)([templated, {**templated, "clip_id": "d", "source_caption": "x"}])
    assert {row[0]["caption_id"] for row in rows} == {caption_id("x")}

import pyarrow as pa

from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.selection import (
    JUDGED,
    VERDICTS,
    Limits,
    judge,
    limits,
    near_prompts,
    reason_of,
    verdicts,
    without_codecs,
    without_misfits,
    without_prompts,
)
from rayramid.pipelines.spec import SCORES, Encode, Keep

ENCODE = Encode(sizes=["128x128"], frames=[9], fps=24)
CLIP = {"kind": "video", "width": 200, "height": 200, "start_ms": 0, "end_ms": 1000}


def scores(**values):
    return {**dict.fromkeys(SCORES, 1.0), **values}


def bounds(rows=(), **keep):
    schema = pa.schema([(name, pa.float64()) for name in SCORES])
    return limits(pa.Table.from_pylist(list(rows), schema=schema), Keep.model_validate(keep), SCORES)


def test_a_clip_within_every_bound_has_a_bucket():
    verdict = judge(CLIP, scores(), bounds(motion={"min": 0.5, "max": 1.0}), ENCODE)
    assert verdict.bucket == Bucket(128, 128, 9)
    assert verdict.reason is None


def test_the_reason_names_the_score_its_value_and_the_bound():
    low = judge(CLIP, scores(motion=0.0004), bounds(motion={"min": 0.002}), ENCODE)
    assert (low.bucket, low.rule, low.reason) == (None, "motion", "motion 0.0004 < 0.002")
    high = judge(CLIP, scores(black=0.9), bounds(black={"max": 0.5}), ENCODE)
    assert high.reason == "black 0.9 > 0.5"


def test_a_score_that_is_null_rejects_nothing():
    assert judge(CLIP, scores(motion=None), bounds(motion={"min": 9}), ENCODE).bucket is not None


def test_quantiles_are_over_the_clips_at_hand():
    rows = [scores(blur=float(value)) for value in (1, 2, 3, 4, 5)]
    assert bounds(rows, blur={"min": "quantile:0.25"})["blur"] == Limits(2.0, None)
    assert bounds([], blur={"min": "quantile:0.25"})["blur"] == Limits(None, None)


def test_a_clip_without_a_bucket_is_rejected_not_failed():
    verdict = judge({**CLIP, "end_ms": 200}, scores(), bounds(), ENCODE)
    assert (verdict.rule, verdict.reason) == ("bucket", "5 frames at 24 fps are fewer than 9")


def test_verdicts_are_in_the_clips_order_and_null_without_a_score():
    rows = [{"ok": True, **scores()}, {"ok": False}, {"ok": True, **scores(motion=0.0)}]
    columns = [("ok", pa.bool_()), *((name, pa.float64()) for name in SCORES)]
    clips = pa.Table.from_pylist([CLIP] * 3).select(JUDGED)
    found = verdicts(clips, pa.Table.from_pylist(rows, schema=pa.schema(columns)), bounds(motion={"min": 1}), ENCODE)
    assert found["bucket"].to_pylist() == ["128x128x2", None, None]
    assert found["frames"].to_pylist() == [9, None, None]
    assert found["rule"].to_pylist() == [None, None, "motion"]


KEPT = {"bucket": "128x128x2", "height": 128, "width": 128, "frames": 9, "rule": None, "twin": None}
LOW = {**dict.fromkeys(KEPT), "rule": "blur"}


def test_videos_of_other_codecs_are_out_and_pictures_have_none():
    clips = pa.table({"codec": ["h264", "mpeg4", "image", "mpeg4"], "kind": ["video", "video", "image", "video"]})
    judged = pa.Table.from_pylist([KEPT, KEPT, KEPT, LOW], schema=VERDICTS)
    found = without_codecs(judged, clips, ["h264", "hevc"])
    assert found["rule"].to_pylist() == [None, "codec", None, "blur"]
    assert found["bucket"].to_pylist() == ["128x128x2", None, "128x128x2", None]
    assert without_codecs(judged, clips, None) is judged
    reason = reason_of({"codec": "mpeg4"}, {}, found.to_pylist()[1], {}, ENCODE)
    assert reason == "codec: mpeg4 is not among those of keep.codecs"


def test_clips_whose_caption_fits_them_badly_are_out_and_those_that_nobody_compared_stay():
    judged = pa.Table.from_pylist([KEPT, KEPT, KEPT, LOW], schema=VERDICTS)
    captioned = pa.table({"caption_fit": pa.array([0.3, 0.1, None, 0.1])})
    keep = Keep.model_validate({"caption_fit": {"min": 0.16}})
    (bound,) = limits(captioned, keep, ["caption_fit"]).values()
    found = without_misfits(judged, captioned, bound)
    assert found["rule"].to_pylist() == [None, "caption_fit", None, "blur"]
    reason = reason_of({}, {"caption_fit": 0.1}, found.to_pylist()[1], {"caption_fit": bound}, ENCODE)
    assert reason == "caption_fit 0.1 < 0.16"


def test_captions_near_a_prompt_of_the_evaluation_take_their_clips_out():
    captions = pa.table({"caption_id": ["a", "b", "c"], "caption": ["A red car, driving.", "a dog", ""]})
    assert near_prompts(captions, ["a red car driving", "  "], 0.75) == ["a"]
    assert near_prompts(captions, ["a red car driving fast uphill"], 0.75) == []
    judged = pa.Table.from_pylist([KEPT, LOW, KEPT, KEPT], schema=VERDICTS)
    captioned = pa.table(
        {"caption_id": ["a", "a", "b", "b"], "short_id": pa.array([None, None, "a", None], pa.string())}
    )
    found = without_prompts(judged, captioned, ["a"])
    assert found["rule"].to_pylist() == ["eval_prompt", "blur", "eval_prompt", None]
    assert found["bucket"].to_pylist() == [None, None, None, "128x128x2"]
    assert without_prompts(judged, captioned, []) is judged

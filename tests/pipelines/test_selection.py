import pyarrow as pa

from rayramid.pipelines.buckets import Bucket
from rayramid.pipelines.selection import (
    JUDGED,
    VERDICTS,
    Limits,
    judge,
    limits,
    near_prompts,
    verdicts,
    without_prompts,
)
from rayramid.pipelines.spec import Encode, Keep

ENCODE = Encode(sizes=["128x128"], frames=[9], fps=24)
CLIP = {"kind": "video", "width": 200, "height": 200, "start_ms": 0, "end_ms": 1000}


def scores(**values):
    return {**dict.fromkeys(Keep.model_fields, 1.0), **values}


def bounds(rows=(), **keep):
    schema = pa.schema([(name, pa.float64()) for name in Keep.model_fields])
    return limits(pa.Table.from_pylist(list(rows), schema=schema), Keep.model_validate(keep))


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
    columns = [("ok", pa.bool_()), *((name, pa.float64()) for name in Keep.model_fields)]
    clips = pa.Table.from_pylist([CLIP] * 3).select(JUDGED)
    found = verdicts(clips, pa.Table.from_pylist(rows, schema=pa.schema(columns)), bounds(motion={"min": 1}), ENCODE)
    assert found["bucket"].to_pylist() == ["128x128x2", None, None]
    assert found["frames"].to_pylist() == [9, None, None]
    assert found["rule"].to_pylist() == [None, None, "motion"]


def test_captions_near_a_prompt_of_the_evaluation_take_their_clips_out():
    captions = pa.table({"caption_id": ["a", "b", "c"], "caption": ["A red car, driving.", "a dog", ""]})
    assert near_prompts(captions, ["a red car driving", "  "], 0.75) == ["a"]
    assert near_prompts(captions, ["a red car driving fast uphill"], 0.75) == []
    bucket = {"bucket": "128x128x2", "height": 128, "width": 128, "frames": 9, "rule": None, "twin": None}
    low = {**dict.fromkeys(bucket), "rule": "blur"}
    judged = pa.Table.from_pylist([bucket, low, bucket, bucket], schema=VERDICTS)
    captioned = pa.table(
        {"caption_id": ["a", "a", "b", "b"], "short_id": pa.array([None, None, "a", None], pa.string())}
    )
    found = without_prompts(judged, captioned, ["a"])
    assert found["rule"].to_pylist() == ["eval_prompt", "blur", "eval_prompt", None]
    assert found["bucket"].to_pylist() == [None, None, None, "128x128x2"]
    assert without_prompts(judged, captioned, []) is judged

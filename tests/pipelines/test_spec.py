import pytest
from pydantic import ValidationError

from rayramid.pipelines.spec import DataSpec, Encode, Keep, Source


def spec(**changes: object) -> DataSpec:
    return DataSpec.model_validate({"root": "data", "sources": [{"folder": "videos"}], **changes})


def test_paths_are_absolute_and_urls_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = spec(encode={"vae": "s3://bucket/vae"}, embed={"text": "tiny"})
    assert made.root == str(tmp_path / "data")
    assert made.sources[0].folder == str(tmp_path / "videos")
    assert made.encode.vae == "s3://bucket/vae"
    assert made.embed.text == "tiny"


def test_a_source_is_exactly_one_kind():
    with pytest.raises(ValidationError, match="exactly one of folder, manifest, tars, package, sprites"):
        Source(folder="a", package="b")
    with pytest.raises(ValidationError, match="got none"):
        Source(licence="CC0")


@pytest.mark.parametrize(
    ("sizes", "frames", "message"),
    [
        (["128"], [25], "WIDTHxHEIGHT"),
        (["128x96"], [25], "multiples of 64"),
        (["128x128"], [24], "8k\\+1"),
        ([], [25], "at least 1"),
    ],
)
def test_sizes_and_lengths_that_no_model_can_take_are_refused(sizes, frames, message):
    with pytest.raises(ValidationError, match=message):
        Encode(sizes=sizes, frames=frames)


def test_thresholds_are_numbers_or_quantiles():
    assert Keep.model_validate({"motion": {"min": "quantile:0.1", "max": 3}}).motion.min == "quantile:0.1"
    with pytest.raises(ValidationError, match="quantile:Q"):
        Keep.model_validate({"motion": {"min": "quantile:1.5"}})


def test_unknown_template_fields_and_keys_are_refused():
    with pytest.raises(ValidationError, match="unknown fields \\['titel'\\]"):
        spec(caption={"template": "{titel}"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        spec(shotz={})

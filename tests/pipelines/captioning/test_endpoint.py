"""Against a real HTTP server that is busy, broken or slow."""

import numpy as np
import open_clip
import pytest
import torch
from caption_server import SHORT, picture_of
from corpus import spec

from rayramid.models.errors import UserError
from rayramid.pipelines import curate
from rayramid.pipelines.caption import CaptionJob
from rayramid.pipelines.captioning.endpoint import EndpointCaptioner
from rayramid.pipelines.captioning.spec import Caption, Endpoint
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.identity import caption_id

QUESTION = "What is this?"


def walls(*brightness):
    return [np.full((2, 32, 32, 3), value, np.uint8) for value in brightness]


def captioner(caption_server, **changes):
    return EndpointCaptioner(Endpoint(url=caption_server.url, model="m", pause_s=0.01, **changes))


def test_each_clip_gets_its_own_answer_and_no_more_are_asked_for_at_once_than_allowed(caption_server):
    caption_server.hold_s = 0.05
    found = captioner(caption_server, concurrency=3).captions(walls(*range(10, 130, 10)), QUESTION)
    assert found == [f"The video shows a wall of brightness {value}." for value in range(10, 130, 10)]
    assert 1 < caption_server.most_at_once <= 3
    content = caption_server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[-1]["text"] == QUESTION


def test_a_server_that_is_busy_broken_or_gone_for_a_while_is_asked_again(caption_server):
    caption_server.failures = [429, 503, "cut"]
    assert captioner(caption_server).captions(walls(50), QUESTION) == ["The video shows a wall of brightness 50."]
    assert len(caption_server.requests) == 4


def test_a_refusal_is_final_and_patience_ends(caption_server):
    caption_server.failures = [400]
    with pytest.raises(RuntimeError, match="400"):
        captioner(caption_server).captions(walls(50), QUESTION)
    assert len(caption_server.requests) == 1
    caption_server.failures = [503] * 10
    with pytest.raises(RuntimeError, match="503"):
        captioner(caption_server, retries=2).captions(walls(50), QUESTION)
    assert len(caption_server.requests) == 4


def test_the_key_comes_from_the_environment(caption_server, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", "secret")
    captioner(caption_server, key_variable="CAPTION_KEY").captions(walls(50), QUESTION)
    assert caption_server.keys == ["Bearer secret"]
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(UserError, match="CAPTION_KEY is not set"):
        captioner(caption_server, key_variable="CAPTION_KEY")


def test_the_job_shows_a_few_frames_of_the_range_and_keeps_what_was_written_with_its_origin(caption_server, two_shots):
    wanted = Caption(endpoint=Endpoint(url=caption_server.url, model="m"), frames=3, side=48)
    clip = {"clip_id": "c", "uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    ((row,),) = CaptionJob(wanted, 30.0)([{**clip, "start_ms": 0, "end_ms": 1000, "source_caption": "its own"}])
    assert row["caption"].startswith("A wall of brightness ")
    assert row["origin"] == f"model:{wanted.identity}"
    assert row["checks"] == ""
    pictures = [part for part in caption_server.requests[0]["messages"][0]["content"] if part["type"] == "image_url"]
    assert len(pictures) == 3
    assert picture_of(pictures[0]).size == (48, 32)


def test_a_short_caption_is_a_second_answer(caption_server, two_shots):
    wanted = Caption(endpoint=Endpoint(url=caption_server.url, model="m"), short_prompt=SHORT, frames=1)
    clip = {"clip_id": "c", "uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    ((row,),) = CaptionJob(wanted, 30.0)([{**clip, "start_ms": 0, "end_ms": 1000, "source_caption": None}])
    asked = [request["messages"][0]["content"][-1]["text"] for request in caption_server.requests]
    assert asked == [wanted.prompt, SHORT]
    assert (row["short"], row["short_id"]) == ("A wall.", caption_id("A wall."))
    with pytest.raises(ValueError, match="short_prompt needs a model"):
        Caption(short_prompt=SHORT)


def test_what_was_written_is_compared_with_its_clip(caption_server, clip_folder, two_shots):
    wanted = Caption(endpoint=Endpoint(url=caption_server.url, model="m"), frames=4, side=48)
    clip = {"clip_id": "c", "uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    clip |= {"start_ms": 0, "end_ms": 1000, "source_caption": None}
    ((row,),) = CaptionJob(wanted, 30.0, str(clip_folder))([clip])
    model, prepare = open_clip.create_model_from_pretrained(f"local-dir:{clip_folder}")
    tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")([row["caption"]])
    contents = caption_server.requests[0]["messages"][0]["content"]
    # JPEG has changed what the endpoint saw a little.
    shown = torch.stack([prepare(picture_of(part)) for part in contents if part["type"] == "image_url"])
    with torch.no_grad():
        image = torch.nn.functional.normalize(model.encode_image(shown), dim=-1).mean(0)
        text = model.encode_text(tokens)[0]
    assert len(shown) == 4
    assert row["caption_fit"] == pytest.approx(torch.cosine_similarity(image, text, dim=0).item(), abs=0.02)
    ((alone,),) = CaptionJob(wanted, 30.0)([clip])
    assert "caption_fit" not in alone


def test_training_reads_both_captions_of_a_clip(caption_server, in_process, tmp_path):
    sprites = [{"sprites": {"clips": 3, "width": 64, "height": 64, "frames": 9}}]
    caption = {"endpoint": {"url": caption_server.url, "model": "m"}, "short_prompt": SHORT}
    summary = curate.run(spec(tmp_path / "data", sources=sprites, caption=caption))
    assert summary.kept == 3
    dataset = LatentDataset.open(str(tmp_path / "data"))
    captions = {row["caption_id"]: row["caption"] for row in dataset.text_index.to_pylist()}
    for row in dataset.index.to_pylist():
        long_one, short = (captions[name] for name in row["caption_ids"])
        assert long_one.startswith("A wall of brightness ")
        assert short == "A wall."
        assert row["text_lens"] == [len(dataset.text(name)[0]) for name in row["caption_ids"]]


def test_another_prompt_or_model_is_another_origin_and_another_name_of_the_work():
    one = Caption(endpoint=Endpoint(url="http://a/v1", model="m"))
    assert one.identity == Caption(endpoint=Endpoint(url="http://b/v1", model="m", concurrency=2)).identity
    assert one.identity != Caption(endpoint=Endpoint(url="http://a/v1", model="n")).identity
    assert one.identity != Caption(endpoint=Endpoint(url="http://a/v1", model="m"), prompt="Short.").identity
    assert Caption().identity is None

"""Against a real HTTP server that is busy, broken or slow."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from corpus import spec
from PIL import Image

from rayramid.models.errors import UserError
from rayramid.pipelines import curate
from rayramid.pipelines.caption import CaptionJob
from rayramid.pipelines.captioning.endpoint import EndpointCaptioner
from rayramid.pipelines.captioning.spec import Caption, Endpoint
from rayramid.pipelines.dataset import LatentDataset
from rayramid.pipelines.identity import caption_id

QUESTION, SHORT = "What is this?", "In five words."


class Server(ThreadingHTTPServer):
    """Answers with the brightness of the first picture; fails first as told."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.requests, self.keys = [], [], []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.hold_s = 0.0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.requests.append(request)
            server.keys.append(self.headers.get("authorization"))
            failure = server.failures.pop(0) if server.failures else None
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        time.sleep(server.hold_s)
        with server.lock:
            server.at_once -= 1
        if failure == "cut":
            self.connection.close()
            return
        url = request["messages"][0]["content"][0]["image_url"]["url"]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))
        text = f"The video shows a wall of brightness {round(float(picture.mean()), -1):g}."
        if request["messages"][0]["content"][-1]["text"] == SHORT:
            text = "A wall."
        body = json.dumps(
            {"choices": [{"message": {"content": text}}]} if failure is None else {"error": "no"}
        ).encode()
        self.send_response(failure or 200)
        if failure == 429:
            self.send_header("retry-after", "0")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def walls(*brightness):
    return [np.full((2, 32, 32, 3), value, np.uint8) for value in brightness]


def captioner(server, **changes):
    return EndpointCaptioner(Endpoint(url=server.url, model="m", pause_s=0.01, **changes))


def test_each_clip_gets_its_own_answer_and_no_more_are_asked_for_at_once_than_allowed(server):
    server.hold_s = 0.05
    found = captioner(server, concurrency=3).captions(walls(*range(10, 130, 10)), QUESTION)
    assert found == [f"The video shows a wall of brightness {value}." for value in range(10, 130, 10)]
    assert 1 < server.most_at_once <= 3
    content = server.requests[0]["messages"][0]["content"]
    assert [part["type"] for part in content] == ["image_url", "image_url", "text"]
    assert content[-1]["text"] == QUESTION


def test_a_server_that_is_busy_broken_or_gone_for_a_while_is_asked_again(server):
    server.failures = [429, 503, "cut"]
    assert captioner(server).captions(walls(50), QUESTION) == ["The video shows a wall of brightness 50."]
    assert len(server.requests) == 4


def test_a_refusal_is_final_and_patience_ends(server):
    server.failures = [400]
    with pytest.raises(RuntimeError, match="400"):
        captioner(server).captions(walls(50), QUESTION)
    assert len(server.requests) == 1
    server.failures = [503] * 10
    with pytest.raises(RuntimeError, match="503"):
        captioner(server, retries=2).captions(walls(50), QUESTION)
    assert len(server.requests) == 4


def test_the_key_comes_from_the_environment(server, monkeypatch):
    monkeypatch.setenv("CAPTION_KEY", "secret")
    captioner(server, key_variable="CAPTION_KEY").captions(walls(50), QUESTION)
    assert server.keys == ["Bearer secret"]
    monkeypatch.delenv("CAPTION_KEY")
    with pytest.raises(UserError, match="CAPTION_KEY is not set"):
        captioner(server, key_variable="CAPTION_KEY")


def test_the_job_shows_a_few_frames_of_the_range_and_keeps_what_was_written_with_its_origin(server, two_shots):
    wanted = Caption(endpoint=Endpoint(url=server.url, model="m"), frames=3, side=48)
    clip = {"clip_id": "c", "uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    ((row,),) = CaptionJob(wanted, 30.0)([{**clip, "start_ms": 0, "end_ms": 1000, "source_caption": "its own"}])
    assert row["caption"].startswith("A wall of brightness ")
    assert row["origin"] == f"model:{wanted.identity}"
    assert row["checks"] == ""
    pictures = [part for part in server.requests[0]["messages"][0]["content"] if part["type"] == "image_url"]
    assert len(pictures) == 3
    data = base64.b64decode(pictures[0]["image_url"]["url"].partition(",")[2])
    assert Image.open(io.BytesIO(data)).size == (48, 32)


def test_a_short_caption_is_a_second_answer(server, two_shots):
    wanted = Caption(endpoint=Endpoint(url=server.url, model="m"), short_prompt=SHORT, frames=1)
    clip = {"clip_id": "c", "uri": str(two_shots), "kind": "video", "width": 96, "height": 64, "fps": 24.0}
    ((row,),) = CaptionJob(wanted, 30.0)([{**clip, "start_ms": 0, "end_ms": 1000, "source_caption": None}])
    asked = [request["messages"][0]["content"][-1]["text"] for request in server.requests]
    assert asked == [wanted.prompt, SHORT]
    assert (row["short"], row["short_id"]) == ("A wall.", caption_id("A wall."))
    with pytest.raises(ValueError, match="short_prompt needs a model"):
        Caption(short_prompt=SHORT)


def test_training_reads_both_captions_of_a_clip(server, in_process, tmp_path):
    sprites = [{"sprites": {"clips": 3, "width": 64, "height": 64, "frames": 9}}]
    caption = {"endpoint": {"url": server.url, "model": "m"}, "short_prompt": SHORT}
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

"""An endpoint on Ray Serve with API keys and events, and what Ray's metrics say of it."""

import asyncio
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import openai
import pytest
import ray
from endless import post_without_end
from ray import serve

from rayramid.models.errors import UserError
from rayramid.serve.app import check, deploy
from rayramid.serve.bench import bench
from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import JudgeOptions, KeyLimits, Limits, RemoteOptions, SafetyOptions, SamplerOptions, ServeSpec
from rayramid.serve.wire import CreateVideo

pytestmark = pytest.mark.slow

PATIENCE_S = 200


@pytest.fixture(scope="module")
def spec(model_folder, tmp_path_factory):
    return ServeSpec(
        model=model_folder,
        store=str(tmp_path_factory.mktemp("store")),
        port=0,
        sampler=SamplerOptions(threads=1, max_sessions=4),
        limits=Limits(upload_bytes=1_000_000),
        remote=RemoteOptions(webhooks=True, networks=("127.0.0.1/32",)),
    )


@pytest.fixture(scope="module")
def key(spec):
    return KeyRing(spec.key_ring).create("alice", KeyLimits(jobs=3))


@pytest.fixture(scope="module")
def url(ray_cluster, spec, key):
    yield deploy(spec)
    serve.shutdown()


@pytest.fixture
def hooks():
    """A receiver of events: its URL, and what it got."""
    got = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append((self.rfile.read(int(self.headers["content-length"])), dict(self.headers)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", got
    server.shutdown()
    thread.join()


def until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_key_makes_a_video_and_hears_of_it(url, key, hooks):
    receiver, got = hooks
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key[1], webhook_secret=key[0].webhook_secret) as client:
        video = client.videos.create_and_poll(
            prompt="a cat", poll_interval_ms=200, extra_body={"webhook_url": receiver}
        )
        assert video.status == "completed"
        until(lambda: got)
        event = client.webhooks.unwrap(*got[0])
    assert (event.type, event.data.id) == ("video.completed", video.id)


def test_nobody_else_is_let_in(url, spec, key):
    other = KeyRing(spec.key_ring).create("bob", KeyLimits())[1]
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key[1]) as client:
        (video, *_) = client.videos.list()
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk-x", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.videos.retrieve(video.id)
    with openai.OpenAI(base_url=f"{url}/v1", api_key=other, max_retries=0) as client:
        # The gateway looks for new keys now and then.
        until(lambda: _opens(client))
        assert list(client.videos.list()) == []
        with pytest.raises(openai.NotFoundError):
            client.videos.download_content(video.id)


def _opens(client):
    try:
        client.videos.list()
    except openai.AuthenticationError:
        return False
    return True


def test_a_body_without_end_stops_at_the_limit(url, key):
    status, sent = post_without_end(url, key[1])
    assert status in (413, None)
    # What the buffers of connections hold comes on top of the million bytes that are allowed.
    assert sent < 50 * 2**20
    assert httpx.get(f"{url}/health").status_code == 200


def test_rays_metrics_tell_of_the_endpoint(url, key):
    wanted = [CreateVideo(prompt="a cat", seconds=3)] * 4
    report = asyncio.run(bench(url, wanted, concurrency=4, api_key=key[1]))
    # A key has three jobs at a time.
    assert (report.completed, report.failures) == (3, {"http 429": 1})
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key[1]) as client, httpx.Client(base_url=url) as http:
        video = client.videos.create(prompt="a cat", seconds="30")
        http.post(f"/v1/videos/{video.id}/cancel", headers={"Authorization": f"Bearer {key[1]}"})

    def exported():
        (node,) = (node for node in ray.nodes() if node["Alive"])
        text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=60).text
        lines = re.findall(r"^ray_rayramid_serve_(\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE)
        found: dict[str, float] = {}
        for name, tags, value in lines:
            kind = re.search(r'kind="(\w*)"', tags)
            label = f"{name}/{kind[1]}" if kind else name
            if "_bucket" not in name:
                found[label] = found.get(label, 0.0) + float(value)
        return found

    # Processes report every few seconds.
    until(lambda: {"failed_jobs/cancelled", "refused_jobs/too_many_jobs", "cache_bytes"} <= _plain(exported()))
    until(lambda: exported().get("first_frame_seconds_count", 0) >= 4)
    found = exported()
    names = {name.removesuffix("_total") for name in found}
    assert names >= {
        "queue_jobs",
        "running_jobs",
        "wait_seconds_count",
        "first_frame_seconds_sum",
        "segment_gap_seconds_count",
        "video_seconds",
        "batch_sessions_count",
        "batch_fill_ratio_sum",
        "step_seconds_count",
        "cache_bytes",
        "completed_jobs",
    }
    assert found["batch_sessions_sum"] > found["batch_sessions_count"]
    text = str(found)
    assert key[0].id not in text
    assert "a cat" not in text


def _plain(found):
    return {name.replace("_total", "") for name in found}


def test_what_can_not_be_guarded_is_said_in_one_line(spec):
    judges = SafetyOptions(prompts=JudgeOptions(hook="no.such.module:judge"))
    with pytest.raises(UserError, match=r"no\.such\.module:judge can't be loaded"):
        check(spec.model_copy(update={"safety": judges}))

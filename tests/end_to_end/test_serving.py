"""A real endpoint on Ray Serve, used through the openai client."""

import asyncio
import itertools
import signal
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import openai
import pytest
from deaths import kill
from pydantic import ValidationError
from ray import serve

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.models.media.read import probe, read_frames
from rayramid.serve.app import check, deploy, stop
from rayramid.serve.client import Client, JobFailedError
from rayramid.serve.spec import Limits, SamplerOptions, ServeSpec
from rayramid.serve.store import Store
from rayramid.serve.wire import CreateVideo

JOBS = 1000


@pytest.fixture(scope="module")
def spec(model_folder, tmp_path_factory):
    store = str(tmp_path_factory.mktemp("store"))
    options = SamplerOptions(threads=1, max_sessions=4)
    return ServeSpec(model=model_folder, store=store, port=0, keys=False, sampler=options, limits=Limits(queue=JOBS))


@pytest.fixture(scope="module")
def url(ray_cluster, spec):
    yield deploy(spec)
    serve.shutdown()


@pytest.fixture
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_openai_client_makes_lists_downloads_and_deletes(client, tmp_path):
    video = client.videos.create_and_poll(
        prompt="a red circle", size="96x64", seconds="1", poll_interval_ms=200, extra_body={"seed": 7, "steps": 2}
    )
    assert (video.status, video.progress, video.size, video.seconds) == ("completed", 100, "96x64", "1")
    assert (video.seed, video.generated["width"]) == (7, 128)

    path = tmp_path / "video.mp4"
    client.videos.download_content(video.id).write_to_file(path)
    found = probe(path)
    assert (found.width, found.height, found.frames, found.fps) == (96, 64, 8, 8)
    assert np.concatenate(list(read_frames(path))).shape == (8, 64, 96, 3)
    assert client.videos.download_content(video.id, variant="thumbnail").read()[8:12] == b"WEBP"

    second = client.videos.create(prompt="a blue square")
    assert second.status in ("queued", "in_progress")
    listed = list(itertools.islice(client.videos.list(limit=1), 2))
    assert [each.id for each in listed] == [second.id, video.id]

    assert client.videos.poll(second.id, poll_interval_ms=200).status == "completed"
    for each in (video, second):
        assert client.videos.delete(each.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_the_asynchronous_client_makes_several_at_once(url):
    async def scenario():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
            made = await asyncio.gather(
                *(client.videos.create_and_poll(prompt=f"number {i}", poll_interval_ms=200) for i in range(3))
            )
            return [video.status for video in made]

    assert asyncio.run(scenario()) == ["completed"] * 3


def test_a_video_starts_with_an_uploaded_picture(client, tmp_path):
    from PIL import Image

    Image.new("RGB", (80, 60), (0, 160, 0)).save(tmp_path / "green.png")
    with (tmp_path / "green.png").open("rb") as picture:
        video = client.videos.create_and_poll(prompt="it grows", input_reference=picture, poll_interval_ms=200)
    assert video.status == "completed"


def test_errors_reach_the_client_as_its_own_classes(client):
    with pytest.raises(openai.BadRequestError) as wrong:
        client.videos.create(prompt="x", size="1x1")
    assert (wrong.value.param, wrong.value.type) == ("size", "invalid_request_error")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("video_0")
    with pytest.raises(openai.BadRequestError) as unknown:
        client.videos.create(prompt="x", extra_body={"stepps": 3})
    assert "'steps'" in unknown.value.message


def test_a_running_video_streams_over_plain_http(url, client, tmp_path):
    video = client.videos.create(prompt="long", seconds="20", extra_body={"steps": 20})
    path = tmp_path / "live.mp4"
    with httpx.stream("GET", f"{url}/v1/videos/{video.id}/content?stream=1", timeout=120) as response:
        chunks = response.iter_raw()
        path.write_bytes(next(chunks) + next(chunks))
        # The beginning can be played while the rest is still being made.
        assert client.videos.retrieve(video.id).status == "in_progress"
        assert probe(path).width == 64
        with path.open("ab") as file:
            file.writelines(chunks)
    assert client.videos.retrieve(video.id).status == "completed"
    assert sum(len(frames) for frames in read_frames(path)) == 160


def test_the_projects_own_client(url, tmp_path):
    client = Client(url)
    seen = []
    video = client.wait(
        client.create(CreateVideo(prompt="a cat", seconds=1.0, seed=3)),
        on_progress=lambda event: seen.append(event.progress),
    )
    client.save(video.id, tmp_path / "cat.mp4")
    assert probe(tmp_path / "cat.mp4").frames == 8
    assert seen == sorted(seen)
    assert seen[-1] == 100

    running = client.create(CreateVideo(prompt="a long one", seconds=50.0, steps=20))
    assert client.cancel(running.id).error.code == "cancelled"
    with pytest.raises(JobFailedError, match="cancelled"):
        client.wait(running)
    client.delete(running.id)
    with pytest.raises(UserError, match="No video has the id"):
        client.retrieve(running.id)
    with pytest.raises(UserError, match="can't be reached"):
        Client("http://127.0.0.1:1").create("x")


@pytest.mark.parametrize(
    ("process", "how"),
    [
        ("Sampler", signal.SIGKILL),
        # As a container is told to stop.
        pytest.param("Sampler", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("Broker", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("Gateway", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_a_video_survives_the_death_of_a_process(url, spec, client, tmp_path, process, how):
    video = client.videos.create(prompt="long", seconds="40", extra_body={"steps": 8, "seed": 1})
    folder = Path(spec.store, "videos", video.id)
    live = threading.Thread(target=watch, args=(url, video.id, tmp_path / "live.mp4"))
    live.start()
    deadline = time.monotonic() + 60
    while not (folder / "segments" / "000003.m4s").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert Store(spec.store).is_open(video.id)
    kill(process, how)
    if process == "Sampler":
        # Reads touch only the store.
        assert client.videos.retrieve(video.id).status == "in_progress"
    while (video := retrieve_once_up(client, video.id)).status in ("queued", "in_progress"):
        time.sleep(0.2)
    assert (video.status, video.error) == ("completed", None)
    path = tmp_path / "video.mp4"
    client.videos.download_content(video.id).write_to_file(path)
    assert sum(len(frames) for frames in read_frames(path)) == 320
    live.join(timeout=60)
    # Who watches through another process than the dead one misses nothing.
    if process != "Gateway":
        assert sum(len(frames) for frames in read_frames(tmp_path / "live.mp4")) == 320


def watch(url, video_id, path):
    with (
        suppress(httpx.TransportError),
        httpx.stream("GET", f"{url}/v1/videos/{video_id}/content?stream=1", timeout=120) as response,
        path.open("wb") as file,
    ):
        file.writelines(response.iter_raw())


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_of_a_thousand_jobs_none_is_lost_or_doubled_when_gateway_and_broker_are_killed(url, spec):
    store = Store(spec.store)
    others = set(store.newest_first())
    numbers, made = iter(range(JOBS)), {}

    def submit():
        with httpx.Client(base_url=url, timeout=60) as http:
            for number in numbers:
                made[number] = created_at_last(http, number)

    submitting = [threading.Thread(target=submit) for _ in range(4)]
    for thread in submitting:
        thread.start()
    for share in (0.1, 0.4, 0.7):
        while len(made) < share * JOBS:
            time.sleep(0.05)
        kill("Broker")
        kill("Gateway")
    for thread in submitting:
        thread.join()
    # Once more, when nothing but the store knows of what is waiting.
    kill("Broker")
    kill("Gateway")
    assert any(store.is_open(video_id) for video_id in made.values())
    while any(store.is_open(video_id) for video_id in made.values()):
        time.sleep(1)
    assert len(set(made.values())) == JOBS
    assert set(store.newest_first()) - others == set(made.values())
    assert {store.outcome(video_id).status for video_id in made.values()} == {"completed"}
    for video_id in made.values():
        assert storage.size(store.at(video_id, "video.mp4")) > 0
        assert store.units(video_id) == 1


def created_at_last(http, number):
    """The id of a job that is asked for until the answer comes, as a careful client does."""
    body = {"prompt": "a cat", "seed": number, "seconds": 0.125, "steps": 1}
    while True:
        with suppress(httpx.TransportError):
            response = http.post("/v1/videos", json=body, headers={"Idempotency-Key": f"thousand {number}"})
            if response.status_code == 200:
                return response.json()["id"]
            assert response.status_code >= 500, response.text
        time.sleep(0.2)


def retrieve_once_up(client, video_id):
    deadline = time.monotonic() + 60
    while True:
        try:
            return client.videos.retrieve(video_id)
        except (openai.InternalServerError, openai.APIConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_what_can_not_be_served_is_said_in_one_line(spec, tmp_path):
    with pytest.raises(UserError, match="not a rayramid model"):
        check(spec.model_copy(update={"model": str(tmp_path)}))
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file, a folder is needed"):
        check(spec.model_copy(update={"store": str(tmp_path / "file")}))
    with pytest.raises(UserError, match=r"sampler.ranks is 3, but .* has 2 heads for them to share"):
        check(spec.model_copy(update={"sampler": SamplerOptions(ranks=3)}))
    with pytest.raises(ValidationError, match="num_gpus is 1; 2 ranks take as many GPUs, or none"):
        SamplerOptions(ranks=2, num_gpus=1)


def test_a_busy_port_is_said_in_one_line(spec):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port} can't be used: Address already in use; choose"):
            check(spec.model_copy(update={"port": port}))


def test_a_second_endpoint_in_the_same_cluster_is_refused(url, spec):
    with pytest.raises(UserError, match="already runs"):
        deploy(spec)


@pytest.mark.slow
def test_an_endpoint_that_is_ended_leaves_a_video_at_a_units_edge_and_the_next_one_goes_on(url, spec, client):
    # The last test, since it ends the endpoint of the others.
    video = client.videos.create(prompt="long", seconds="12", extra_body={"steps": 20})
    store = Store(spec.store)
    while store.units(video.id) < 2:
        time.sleep(0.05)
    stop()
    control = store.control(video.id)
    assert (control.attempts, control.paused, control.ended) == (1, frozenset({1}), False)
    assert 2 <= store.units(video.id) < 13
    with openai.OpenAI(base_url=f"{deploy(spec)}/v1", api_key="none") as next_client:
        assert next_client.videos.poll(video.id, poll_interval_ms=200).status == "completed"
    assert store.control(video.id).attempts == 2

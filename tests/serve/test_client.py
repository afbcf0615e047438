"""The project's own clients against a real server."""

import asyncio
import io
import math
import subprocess
import sys
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from rayramid.models.errors import UserError
from rayramid.serve.client import AsyncClient, Client, JobFailedError
from rayramid.serve.wire import CreateVideo


@pytest.fixture
def with_client(endpoint):
    """Runs `use(client, endpoint)` in a thread, with the blocking client of a real server."""

    def run(use, **options):
        async def scenario(endpoint):
            def work():
                with Client(endpoint.url) as client:
                    return use(client, endpoint)

            return await asyncio.to_thread(work)

        return endpoint(scenario, server=True, **options)

    return run


def test_frames_come_while_the_video_is_made_and_it_is_saved_extended_and_remixed(with_client, tmp_path, frames_of):
    def use(client, endpoint):
        endpoint.worker.held_at = 3
        video = client.create(CreateVideo(prompt="a cat", seconds=6, seed=4))
        arrived = []
        for frames_THWC in client.frames(video.id):
            arrived.append(frames_THWC)
            if len(arrived) == 3:
                assert endpoint.store.units(video.id) <= 3
                endpoint.worker.held_at = math.inf
        client.save(video.id, tmp_path / "cat.mp4")
        longer = client.wait(client.extend(video.id, 1, "a dog"))
        remix = client.wait(client.remix(video.id, "a dog"))
        assert [each.id for each in client.list()] == [remix.id, longer.id, video.id]
        client.delete(remix.id)
        return arrived, longer, remix

    arrived, longer, remix = with_client(use)
    assert [len(frames_THWC) for frames_THWC in arrived] == [1, 8, 8, 8, 8, 8, 7]
    whole_THWC = frames_of((tmp_path / "cat.mp4").read_bytes())
    np.testing.assert_array_equal(np.concatenate(arrived), whole_THWC)
    assert (longer.frames, longer.prompt_schedule[0].prompt, remix.prompt) == (56, "a dog", "a dog")


def test_a_prompt_is_changed_and_a_video_cancelled_by_leaving(with_client):
    def use(client, endpoint):
        endpoint.worker.held_at = 3
        video = client.create(CreateVideo(prompt="a cat", seconds=30), idempotency_key="abc")
        assert client.create(CreateVideo(prompt="a cat", seconds=30), idempotency_key="abc").id == video.id
        frames = client.frames(video.id, cancel_on_leave=True)
        next(frames)
        change = client.change_prompt(video.id, "a dog")
        frames.close()
        with pytest.raises(JobFailedError, match="cancelled"):
            client.wait(video)
        with pytest.raises(JobFailedError, match="cancelled"):
            list(client.frames(video.id))
        return change

    assert with_client(use).from_unit >= 1


def test_events_and_errors_in_the_servers_words(with_client, tmp_path):
    def use(client, endpoint):
        events = list(client.events(client.create("a cat").id))
        picture = tmp_path / "no.png"
        picture.write_bytes(b"1234")
        for refused, says in [
            (lambda: client.create(CreateVideo(prompt="x", size="1x1")), "400: The size 1x1 can't be made"),
            (lambda: client.create("x", image=picture), "not a picture that can be used"),
            (lambda: client.retrieve("video_0"), "404: No video has the id"),
            (lambda: next(client.frames("video_0")), "404: No video has the id"),
            (lambda: client.save("video_0", tmp_path / "x"), "404: No video has the id"),
        ]:
            with pytest.raises(UserError, match=says):
                refused()
        return events

    *progress, last = with_client(use)
    assert {event.object for event in progress} <= {"video.event"}
    assert (last.object, last.status) == ("video", "completed")


def test_the_command_line_makes_a_video_at_an_endpoint(with_client, tmp_path, frames_of):
    def use(client, endpoint):
        (tmp_path / "green.png").write_bytes(green())
        command = [sys.executable, "-m", "rayramid.platform.cli", "sample", "--url", endpoint.url, "--prompt", "a cat"]
        command += ["--image", str(tmp_path / "green.png"), "--seconds", "1", "--seed", "4", "--steps", "2"]
        command += ["--out", str(tmp_path / "cat.mp4")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        (video,) = client.list()
        return done.stdout, video

    said, video = with_client(use)
    assert "64x64, 8 frames, seed 4" in said
    assert (video.prompt, video.seed, video.steps) == ("a cat", 4, ((2, 2, 2), (2, 2, 2)))
    frames_THWC = frames_of((tmp_path / "cat.mp4").read_bytes())
    assert len(frames_THWC) == 8
    red, blue = frames_THWC[0, :, :, 0].mean(), frames_THWC[0, :, :, 2].mean()
    assert frames_THWC[0, :, :, 1].mean() > max(red, blue) + 60


def green():
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (0, 160, 0)).save(data, "PNG")
    return data.getvalue()


def test_where_nobody_answers_it_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr("rayramid.serve.client.RESUME_S", 0.01)
    with Client("http://127.0.0.1:1") as client:
        for call in (lambda: client.create("x"), lambda: next(client.frames("video_0"))):
            with pytest.raises(UserError, match="can't be reached"):
                call()


def test_the_asynchronous_client_does_the_same(endpoint, tmp_path, frames_of):
    async def scenario(endpoint):
        async with AsyncClient(endpoint.url) as client:
            video = await client.create(CreateVideo(prompt="a cat", seconds=3, seed=4))
            live = [frames_THWC async for frames_THWC in client.frames(video.id)]
            await client.save(video.id, tmp_path / "cat.mp4")
            longer = await client.wait(await client.extend(video.id, 1))
            remix = await client.wait(await client.remix(video.id, "a dog"))
            endpoint.worker.held_at = 3
            running = await client.create(CreateVideo(prompt="a cat", seconds=30))
            async for _ in client.frames(running.id):
                await client.change_prompt(running.id, "a dog")
                assert (await client.cancel(running.id)).error.code == "cancelled"
                break
            with pytest.raises(UserError, match="404"):
                await client.retrieve("video_0")
            await client.delete(running.id)
            names = [event.object async for event in client.events(longer.id)]
            return live, names, [each.id async for each in client.list()] == [remix.id, longer.id, video.id]

    live, names, listed = endpoint(scenario, server=True)
    np.testing.assert_array_equal(np.concatenate(live), frames_of((tmp_path / "cat.mp4").read_bytes()))
    assert (names, listed) == (["video"], True)


@pytest.mark.parametrize("kind", ["blocking", "asynchronous"])
def test_a_stream_that_breaks_off_goes_on_without_a_frame_lost_or_doubled(endpoint, monkeypatch, kind):
    monkeypatch.setattr("rayramid.serve.client.RESUME_S", 0.05)

    async def scenario(endpoint):
        video = await endpoint.made(seconds=6)
        whole = (await endpoint.http.get(f"/v1/videos/{video['id']}/content?stream=1")).content
        # In the midst of the first segments, then later.
        cuts = [len(whole) // 4, len(whole) // 2, None]
        async with Cutting(endpoint.url, cuts) as url:
            if kind == "blocking":
                return await asyncio.to_thread(lambda: list(Client(url).frames(video["id"])))
            async with AsyncClient(url) as client:
                return [frames_THWC async for frames_THWC in client.frames(video["id"])]

    frames_THWC = np.concatenate(endpoint(scenario, server=True))
    assert len(frames_THWC) == 48
    steps = abs(np.diff(frames_THWC.astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert steps.min() > 0


class Cutting:
    """A proxy that cuts its first connections after so many bytes of the answer, and lets those with None be."""

    def __init__(self, url, cuts):
        self.port, self.cuts = int(url.rpartition(":")[2]), cuts

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.handle, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_):
        self.server.close()

    async def handle(self, reader, writer):
        left = self.cuts.pop(0) if self.cuts else None
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.port)
        asking = asyncio.create_task(self.copy(reader, to_server))
        with suppress(ConnectionError):
            while data := await from_server.read(500):
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        break
                writer.write(data)
                await writer.drain()
        asking.cancel()
        for each in (writer, to_server):
            each.close()

    async def copy(self, reader, writer):
        while data := await reader.read(1000):
            writer.write(data)
            await writer.drain()

"""The openai package, version 2, against the endpoint: every method of `client.videos`, sync and async."""

import asyncio
import io

import openai
import pytest
from openai.types import Video
from PIL import Image


def picture():
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def with_client(endpoint):
    """Runs `use(client)` in a thread, with the synchronous client of a real server."""

    def run(use, **options):
        async def scenario(endpoint):
            def work():
                with openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key="none", max_retries=0) as client:
                    return use(client)

            return await asyncio.to_thread(work)

        return endpoint(scenario, server=True, **options)

    return run


def test_every_method_of_the_client(with_client, tmp_path, frames_of):
    def use(client):
        made = client.videos.create_and_poll(
            prompt="a cat", size="80x64", seconds="1", poll_interval_ms=50, extra_body={"seed": 7, "steps": 2}
        )
        assert (made.status, made.size, made.seconds, made.seed) == ("completed", "80x64", "1", 7)
        content = client.videos.download_content(made.id)
        content.write_to_file(tmp_path / "video.mp4")
        thumbnail = client.videos.download_content(made.id, variant="thumbnail").read()
        sheet = client.videos.download_content(made.id, variant="spritesheet").read()
        with client.videos.with_streaming_response.download_content(made.id) as response:
            streamed = b"".join(response.iter_bytes())
        remix = client.videos.poll(client.videos.remix(made.id, prompt="a dog").id, poll_interval_ms=50)
        assert (remix.remixed_from_video_id, remix.prompt) == (made.id, "a dog")
        assert [video.id for video in client.videos.list(limit=1, order="asc")] == [made.id, remix.id]
        assert client.videos.retrieve(made.id).progress == 100
        assert client.videos.delete(made.id).deleted
        return streamed, thumbnail, sheet

    streamed, thumbnail, sheet = with_client(use)
    assert (tmp_path / "video.mp4").read_bytes() == streamed
    assert len(frames_of(streamed)) == 8
    assert [data[8:12] for data in (thumbnail, sheet)] == [b"WEBP"] * 2


def test_the_asynchronous_client(endpoint):
    async def scenario(endpoint):
        async with openai.AsyncOpenAI(base_url=f"{endpoint.url}/v1", api_key="none") as client:
            made = await asyncio.gather(
                *(client.videos.create_and_poll(prompt=f"number {n}", poll_interval_ms=50) for n in range(3))
            )
            remix = await client.videos.remix(made[0].id, prompt="a dog")
            assert (await client.videos.poll(remix.id, poll_interval_ms=50)).status == "completed"
            async with client.videos.with_streaming_response.download_content(remix.id) as response:
                size = sum([len(part) async for part in response.iter_bytes()])
            listed = [video.id async for video in client.videos.list(limit=2)]
            return [video.status for video in made], size, len(listed)

    statuses, size, listed = endpoint(scenario, server=True)
    assert (statuses, listed) == (["completed"] * 3, 4)
    assert size > 500


def test_an_extension_by_each_way_that_the_client_has(with_client):
    def use(client):
        source = client.videos.create_and_poll(prompt="a cat", seconds="1", poll_interval_ms=50)
        # The documented way fails inside the client: it takes the dict for a file.
        with pytest.raises(RuntimeError):
            client.videos.extend(prompt="a dog", seconds="1", video={"id": source.id})
        ways = [
            client.videos.extend(prompt="a dog", seconds="1", video=b"", extra_body={"video": {"id": source.id}}),
            client.post(
                "/videos/extensions",
                body={"prompt": "a dog", "seconds": "1", "video": {"id": source.id}},
                cast_to=Video,
            ),
        ]
        return source.id, [client.videos.poll(video.id, poll_interval_ms=50) for video in ways]

    source, extensions = with_client(use)
    assert [video.status for video in extensions] == ["completed"] * 2
    assert {video.extended_from_video_id for video in extensions} == {source}
    assert {video.seconds for video in extensions} == {"2"}


def test_pictures_schedules_and_keys(with_client):
    def use(client):
        schedule = [{"from_second": 1, "prompt": "a dog"}, {"from_second": 2, "prompt": "a cow"}]
        made = client.videos.create_and_poll(
            prompt="a cat",
            seconds="3",
            input_reference=("upload", io.BytesIO(picture())),
            poll_interval_ms=50,
            extra_body={"prompt_schedule": schedule, "rewrite_prompt": False, "priority": 3, "deadline_seconds": 600.5},
        )
        headers = {"Idempotency-Key": "abc"}
        keyed = {client.videos.create(prompt="a cat", extra_headers=headers).id for _ in range(2)}
        return made, keyed

    made, keyed = with_client(use)
    assert (made.status, made.priority) == ("completed", 3)
    assert [each["prompt"] for each in made.prompt_schedule] == ["a dog", "a cow"]
    assert len(keyed) == 1


@pytest.mark.parametrize(
    ("call", "error", "param"),
    [
        (lambda client: client.videos.create(prompt="x", size="1x1"), openai.BadRequestError, "size"),
        (lambda client: client.videos.create(prompt="x", extra_body={"sed": 1}), openai.BadRequestError, "sed"),
        (lambda client: client.videos.retrieve("video_0"), openai.NotFoundError, "video_id"),
        (lambda client: client.videos.remix("video_0", prompt="x"), openai.NotFoundError, "video_id"),
        (lambda client: client.videos.edit(prompt="x", video=b"x"), openai.BadRequestError, None),
        (lambda client: client.videos.create_character(name="x", video=b"x"), openai.BadRequestError, None),
    ],
)
def test_errors_are_the_clients_own_classes(with_client, call, error, param):
    def use(client):
        with pytest.raises(error) as raised:
            call(client)
        return raised.value

    found = with_client(use, generating=False)
    assert (found.type, found.param) == ("invalid_request_error", param)
    assert found.message


def test_a_full_queue_is_a_rate_limit_and_the_client_waits_as_told(with_client):
    def use(client):
        for _ in range(3):
            client.videos.create(prompt="x")
        with pytest.raises(openai.RateLimitError) as raised:
            client.videos.create(prompt="x")
        return raised.value.response.headers["retry-after"], raised.value.code

    assert with_client(use, generating=False, slots=1) == ("10", "queue_full")

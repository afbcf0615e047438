"""Events to users' URLs, received by a real server and verified by the openai package."""

import asyncio
import time

import openai
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route
from waiting import until

from rayramid.models import storage
from rayramid.serve.keys import KeyRing
from rayramid.serve.remote import Remote
from rayramid.serve.spec import KeyLimits, RemoteOptions
from rayramid.serve.webhooks import Owed, Webhooks, signature
from rayramid.serve.wire import VideoError

OPEN = RemoteOptions(webhooks=True, networks=("127.0.0.1/32",), timeout_s=60)


class Receiver:
    """Keeps what it gets, and answers with the next status, the last one for ever."""

    def __init__(self, *statuses):
        self.statuses = list(statuses)
        self.got = []
        self.app = Starlette(routes=[Route("/hook", self.hook, methods=["POST"])])

    async def hook(self, request):
        self.got.append((await request.body(), dict(request.headers)))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return Response(status_code=status, headers={"location": str(request.url)} if status == 302 else {})


@pytest.fixture
def ring(tmp_path):
    return KeyRing(str(tmp_path / "access"))


@pytest.fixture
def keyed(endpoint, listen, ring):
    """Runs `scenario(endpoint, receiver, url, headers)` for a new key, whose webhook secret it returns beside."""

    def run(scenario, *statuses, **options):
        key, sent = ring.create("alice", KeyLimits())

        async def main(endpoint):
            receiver = Receiver(*(statuses or (200,)))
            async with listen(receiver.app) as url:
                headers = {"Authorization": f"Bearer {sent}"}
                return await scenario(endpoint, receiver, f"{url}/hook", headers)

        return endpoint(main, keys=ring, **{"remote": OPEN, **options}), key.webhook_secret

    return run


def owed(store):
    return list(storage.list_files(f"{store.url}/webhooks"))


def unwrapped(got, secret):
    return openai.OpenAI(api_key="none").webhooks.unwrap(*got, secret=secret)


async def create(endpoint, headers, **fields):
    answer = await endpoint.http.post("/v1/videos", json={"prompt": "a cat", **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def test_the_openai_package_believes_an_event_of_a_completed_video(keyed, ring):
    async def scenario(endpoint, receiver, url, headers):
        video = await create(endpoint, headers, webhook_url=url, seconds=0.1)
        silent = await create(endpoint, headers, seconds=0.1)
        await until(lambda: receiver.got and not owed(endpoint.store))
        while not endpoint.store.outcome(silent):
            await asyncio.sleep(0.02)
        return video, receiver.got, endpoint.store.outcome(video).ended_at

    (video, got, ended_at), secret = keyed(scenario)
    assert len(got) == 1
    event = unwrapped(got[0], secret)
    assert (event.type, event.object, event.data.id, event.created_at) == (
        "video.completed",
        "event",
        video,
        ended_at,
    )
    assert got[0][1]["webhook-id"] == event.id
    assert "authorization" not in got[0][1]
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrapped(got[0], ring.create("mallory", KeyLimits())[0].webhook_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        unwrapped((got[0][0].replace(b"completed", b"failed"), got[0][1]), secret)


def test_a_cancelled_video_is_a_failed_one(keyed):
    async def scenario(endpoint, receiver, url, headers):
        video = await create(endpoint, headers, webhook_url=url)
        assert owed(endpoint.store)
        assert receiver.got == []
        await endpoint.http.post(f"/v1/videos/{video}/cancel", headers=headers)
        await until(lambda: receiver.got)
        return receiver.got[0]

    got, secret = keyed(scenario, generating=False)
    assert unwrapped(got, secret).type == "video.failed"


def test_an_event_is_repeated_until_it_is_taken_and_then_no_more(keyed):
    async def scenario(endpoint, receiver, url, headers):
        await create(endpoint, headers, webhook_url=url, seconds=0.1)
        await until(lambda: len(receiver.got) == 3 and not owed(endpoint.store))
        await asyncio.sleep(0.3)
        return receiver.got

    got, secret = keyed(scenario, 500, 302, 204)
    assert len(got) == 3
    assert len({unwrapped(each, secret).id for each in got}) == 1


@pytest.mark.parametrize(("status", "tries"), [(410, 1), (404, 4)])
def test_an_event_that_nobody_takes_is_given_up(keyed, status, tries):
    async def scenario(endpoint, receiver, url, headers):
        await create(endpoint, headers, webhook_url=url, seconds=0.1)
        await until(lambda: receiver.got and not owed(endpoint.store))
        return len(receiver.got)

    assert keyed(scenario, status)[0] == tries


def test_an_event_survives_the_broker(store, ring, listen, new_job):
    key, _ = ring.create("alice", KeyLimits())

    async def scenario():
        receiver = Receiver(200)
        async with listen(receiver.app) as url:
            ended, open_, deleted = (new_job(owner=key.id, webhook_url=f"{url}/hook") for _ in range(3))
            first = Webhooks(store, ring, Remote(OPEN))
            for job in (ended, open_, deleted):
                first.owe(job)
            # The broker dies here: between a job's end and its event, with a job open, and before a job was kept.
            for job in (ended, open_):
                store.add(job)
            store.end(ended.id, VideoError(code="x", message="y"))
            second = Webhooks(store, ring, Remote(OPEN))
            await second.recover()
            await until(lambda: len(owed(store)) == 1)
            got = list(receiver.got)
            second.ended(open_)
            return ended.id, open_.id, owed(store), got

    ended, open_, left, got = asyncio.run(scenario())
    assert [ended in body.decode() for body, _ in got] == [True]
    assert [open_ in url for url in left] == [True]


def test_tries_and_times_are_kept(store, ring, listen, new_job):
    key, _ = ring.create("alice", KeyLimits())
    times = []

    class Timed(Receiver):
        async def hook(self, request):
            times.append(time.time())
            return await super().hook(request)

    async def scenario():
        receiver = Timed(500, 200)
        async with listen(receiver.app) as url:
            job = new_job(owner=key.id, webhook_url=f"{url}/hook")
            store.add(job)
            first = Webhooks(store, ring, Remote(OPEN), delays_s=(1.0,))
            first.owe(job)
            store.end(job.id)
            first.ended(job)
            while (left := Owed.model_validate_json(storage.read_bytes(owed(store)[0]))).tries == 0:
                await asyncio.sleep(0.005)
            # The broker dies; another one waits as long as it would have.
            for task in first._under_way.values():
                task.cancel()
            second = Webhooks(store, ring, Remote(OPEN), delays_s=(1.0,))
            await second.recover()
            await until(lambda: not owed(store))
            return left

    left = asyncio.run(scenario())
    assert left.tries == 1
    assert len(times) == 2
    assert times[1] >= left.next_at


def test_a_revoked_keys_events_are_not_sent(keyed, ring):
    async def scenario(endpoint, receiver, url, headers):
        video = await create(endpoint, headers, webhook_url=url)
        (key,) = ring.all()
        ring.revoke(key.id)
        await endpoint.broker.cancel(video)
        await until(lambda: not owed(endpoint.store))
        return receiver.got

    assert keyed(scenario, generating=False)[0] == []


@pytest.mark.parametrize("url", ["http://127.0.0.2:9/hook", "http://[::1]:9/", "http://localhost.:9/"])
def test_an_event_goes_to_no_address_inside(keyed, url):
    async def scenario(endpoint, receiver, _, headers):
        video = await create(endpoint, headers, webhook_url=url, seconds=0.1)
        await until(lambda: endpoint.store.outcome(video) and not owed(endpoint.store))

    keyed(scenario, remote=OPEN.model_copy(update={"networks": ()}))


def test_a_webhook_is_refused_where_none_are_sent_and_when_it_is_no_url(keyed, endpoint):
    async def refused(endpoint, url, headers):
        body = {"prompt": "a cat", "webhook_url": url}
        answer = await endpoint.http.post("/v1/videos", json=body, headers=headers)
        return answer.status_code, answer.json()["error"]["param"], endpoint.store.newest_first()

    async def off(endpoint):
        return await refused(endpoint, "https://example.com/", {})

    async def wrong(endpoint, receiver, url, headers):
        return [await refused(endpoint, each, headers) for each in ("file:///etc/passwd", "http://a@b/", "x")]

    assert endpoint(off, generating=False) == (400, "webhook_url", [])
    assert keyed(wrong, generating=False)[0] == [(400, "webhook_url", [])] * 3


def test_signatures_are_those_of_standard_webhooks():
    # The example of the specification.
    headers = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="

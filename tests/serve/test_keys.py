"""API keys as clients meet them: who is let in, what each may ask for, and that nobody sees another's videos."""

import asyncio
import time

import httpx
import openai
import pytest
from starlette.requests import Request

from rayramid.models import storage
from rayramid.serve.access import Access, Pace
from rayramid.serve.errors import ApiError
from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits, Limits
from rayramid.serve.usage import Usage

NONE = KeyLimits()
LIMITS = Limits(queue=50, seconds=30, pixels=256 * 256, upload_bytes=200_000, per_key=NONE)


@pytest.fixture
def ring(tmp_path):
    return KeyRing(str(tmp_path / "access"))


@pytest.fixture
def keyed(endpoint, ring):
    """Runs `scenario(endpoint, alice, bob)` with a client of each key; jobs stay where they are."""

    def run(scenario, *, limits=LIMITS, alice=NONE, **options):
        keys = [ring.create("alice", alice)[1], ring.create("bob", NONE)[1]]

        async def main(endpoint):
            async with (
                httpx.AsyncClient(base_url=endpoint.url, headers=bearer(keys[0]), timeout=60) as first,
                httpx.AsyncClient(base_url=endpoint.url, headers=bearer(keys[1]), timeout=60) as second,
            ):
                return await scenario(endpoint, first, second)

        return endpoint(main, server=True, keys=ring, limits=limits, **{"generating": False, **options})

    return run


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def test_what_is_kept_of_a_key_does_not_open_anything(ring):
    key, sent = ring.create("alice", NONE)
    (url,) = storage.list_files(ring.url)
    kept = storage.read_bytes(url).decode()
    assert sent.split("_", 2)[2] not in kept
    assert sent not in kept
    ring.refresh()
    assert ring.find(sent) == key
    # What is in the file: its hash, its id.
    assert ring.find(f"rr_{key.id}_{key.digest[:43]}") is None
    assert ring.find(key.digest) is None
    assert ring.find(key.id) is None
    assert ring.find("") is None


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (None, 401, None),
        ("Basic YTpi", 401, None),
        ("Bearer", 401, None),
        ("Bearer sk-proj-123", 401, "invalid_api_key"),
        ("Bearer rr_../../../etc/passwd", 401, "invalid_api_key"),
        (f"Bearer rr_{'0' * 16}_{'A' * 43}", 401, "invalid_api_key"),
        (f"Bearer {'x' * 8000}", 401, "invalid_api_key"),
    ],
)
def test_without_a_known_key_nothing_is_answered(keyed, sent, status, code):
    async def scenario(endpoint, alice, bob):
        made = (await alice.post("/v1/videos", json={"prompt": "a cat"})).json()["id"]
        headers = {} if sent is None else {"Authorization": sent}
        async with httpx.AsyncClient(base_url=endpoint.url, headers=headers) as stranger:
            answers = [
                await stranger.post("/v1/videos", json={"prompt": "x"}),
                await stranger.post("/v1/videos", content=b"not even JSON"),
                await stranger.post("/v1/videos/extensions", json={}),
                await stranger.post("/v1/videos/edits", json={}),
                await stranger.get("/v1/videos"),
                await stranger.get("/v1/videos?limit=1000"),
            ]
            for method, path in EVERYTHING:
                answers.append(await stranger.request(method, f"/v1/videos/{made}{path}"))
            open_to_all = [(await stranger.get(path)).status_code for path in ("/health", "/ready", "/openapi.json")]
        return answers, open_to_all, endpoint.store.newest_first() == [made]

    answers, open_to_all, untouched = keyed(scenario)
    assert {answer.status_code for answer in answers} == {status}
    for answer in answers:
        if answer.request.method != "HEAD":
            error = answer.json()["error"]
            assert (error["type"], error["code"]) == ("invalid_request_error", code)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert open_to_all == [200] * 3
    assert untouched


def test_no_route_of_the_document_forgets_the_key(endpoint, ring):
    async def scenario(endpoint):
        async with httpx.AsyncClient(base_url=endpoint.url) as stranger:
            document = (await stranger.get("/openapi.json")).json()
            unguarded = []
            for path, methods in document["paths"].items():
                for method, operation in methods.items():
                    answer = await stranger.request(method, path.replace("{", "").replace("}", ""))
                    if (answer.status_code == 401) != ("security" in operation):
                        unguarded.append((method, path))
                    if "security" not in operation:
                        assert path in ("/health", "/ready")
        return document["components"]["securitySchemes"], unguarded

    schemes, unguarded = endpoint(scenario, server=True, generating=False, keys=ring)
    assert schemes == {"key": {"type": "http", "scheme": "bearer"}}
    assert unguarded == []


EVERYTHING = [
    ("GET", ""),
    ("DELETE", ""),
    ("GET", "/content"),
    ("HEAD", "/content"),
    ("GET", "/content?stream=1"),
    ("GET", "/content?variant=thumbnail"),
    ("GET", "/events"),
    ("POST", "/cancel"),
]


def test_another_keys_video_is_not_there(keyed):
    async def scenario(endpoint, alice, bob):
        made = (await alice.post("/v1/videos", json={"prompt": "a cat", "seconds": 0.1})).json()["id"]
        while (await alice.get(f"/v1/videos/{made}")).json()["status"] != "completed":
            await asyncio.sleep(0.02)
        missing = f"video_{'0' * 28}"
        pairs = []
        for method, path, body in [
            *((method, f"/v1/videos/{{}}{path}", None) for method, path in EVERYTHING),
            ("POST", "/v1/videos/{}/prompt", {"prompt": "a dog"}),
            ("POST", "/v1/videos/{}/remix", {"prompt": "a dog"}),
            ("POST", "/v1/videos/extensions", {"video": {"id": "{}"}, "seconds": 1}),
        ]:
            answers = []
            for each in (made, missing):
                filled = {"video": {"id": each}, "seconds": 1} if body and "video" in body else body
                answer = await bob.request(method, path.format(each), json=filled)
                answers.append((answer.status_code, answer.text.replace(each, "ID")))
            pairs.append(answers)
        lists = [(await client.get("/v1/videos")).json()["data"] for client in (alice, bob)]
        after = (await bob.get(f"/v1/videos?after={made}")).json()["data"]
        return made, pairs, lists, after, (await alice.get(f"/v1/videos/{made}")).json()["status"]

    made, pairs, (hers, his), after, status = keyed(scenario, generating=True)
    for answer, to_missing in pairs:
        # Nothing tells somebody else's video from one that never was.
        assert answer == to_missing
        assert answer[0] == 404
    assert [video["id"] for video in hers] == [made]
    assert his == after == []
    assert status == "completed"


def test_the_same_idempotency_key_of_two_api_keys_is_two_videos(keyed):
    async def scenario(endpoint, alice, bob):
        headers = {"Idempotency-Key": "one"}
        return [
            (await client.post("/v1/videos", json={"prompt": "a cat"}, headers=headers)).json()["id"]
            for client in (alice, alice, bob)
        ]

    first, again, other = keyed(scenario)
    assert first == again != other


def test_the_openai_client_raises_its_own_errors(endpoint, ring):
    opens, revoked = ring.create("alice", NONE)[1], ring.create("bob", NONE)
    ring.revoke(revoked[0].id)

    async def scenario(endpoint):
        def use():
            def client(key):
                return openai.OpenAI(base_url=f"{endpoint.url}/v1", api_key=key, max_retries=0).videos

            with pytest.raises(openai.AuthenticationError) as unknown:
                client("sk-x").list()
            with pytest.raises(openai.PermissionDeniedError) as closed:
                client(revoked[1]).list()
            return client(opens).create(prompt="a cat").status, unknown.value.code, closed.value.code

        return await asyncio.to_thread(use)

    assert endpoint(scenario, server=True, generating=False, keys=ring) == (
        "queued",
        "invalid_api_key",
        "api_key_revoked",
    )


def test_a_key_is_known_soon_after_it_was_made_and_unknown_soon_after_it_was_revoked(keyed, ring):
    async def scenario(endpoint, alice, bob):
        key, sent = ring.create("carol", NONE)
        async with httpx.AsyncClient(base_url=endpoint.url, headers=bearer(sent)) as carol:
            seen = [(await alice.get("/v1/videos")).status_code]
            for wanted, act in ((200, None), (403, ring.revoke)):
                if act:
                    act(key.id)
                deadline = time.monotonic() + 60
                while (status := (await carol.get("/v1/videos")).status_code) != wanted:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)
                seen.append(status)
        return seen

    assert keyed(scenario) == [200, 200, 403]


def test_a_key_has_so_many_jobs_at_a_time_and_others_are_not_kept_by_that(keyed):
    async def scenario(endpoint, alice, bob):
        ids = [(await alice.post("/v1/videos", json={"prompt": "a cat"})).json()["id"] for _ in range(2)]
        at_once = await asyncio.gather(*(alice.post("/v1/videos", json={"prompt": "a cat"}) for _ in range(3)))
        his = await bob.post("/v1/videos", json={"prompt": "a cat"})
        await alice.post(f"/v1/videos/{ids[0]}/cancel")
        again = await asyncio.gather(*(alice.post("/v1/videos", json={"prompt": "a cat"}) for _ in range(3)))
        return at_once, his, again

    at_once, his, again = keyed(scenario, alice=KeyLimits(jobs=2, tokens_per_day=10**12))
    assert [each.status_code for each in at_once] == [429] * 3
    error = at_once[0].json()["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert int(at_once[0].headers["retry-after"]) >= 1
    assert his.status_code == 200
    # Of those that come at the same time exactly one gets the place.
    assert sorted(each.status_code for each in again) == [200, 429, 429]


def test_a_key_sends_so_many_requests_a_minute(keyed):
    async def scenario(endpoint, alice, bob):
        answers = [await alice.get("/v1/videos") for _ in range(8)]
        return answers, await bob.get("/v1/videos")

    answers, his = keyed(scenario, alice=KeyLimits(requests_per_minute=3))
    statuses = [answer.status_code for answer in answers]
    assert statuses[:3] == [200] * 3
    assert 429 in statuses
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["error"]["code"], 1 <= int(refused.headers["retry-after"]) <= 20) == (
        "rate_limit_exceeded",
        True,
    )
    assert his.status_code == 200


def test_a_key_watches_with_so_many_connections_and_a_refused_one_cancels_nothing(keyed):
    async def scenario(endpoint, alice, bob):
        video = (await alice.post("/v1/videos", json={"prompt": "a cat"})).json()["id"]
        paths = [f"/v1/videos/{video}/events", f"/v1/videos/{video}/content?stream=1&cancel_on_disconnect=1"]
        async with alice.stream("GET", paths[0]), alice.stream("GET", paths[0]):
            refused = [await alice.get(path) for path in paths]
        deadline = time.monotonic() + 60
        while True:
            async with alice.stream("GET", paths[0]) as again:
                if again.status_code == 200:
                    break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        return refused, (await alice.get(f"/v1/videos/{video}")).json()["status"]

    refused, status = keyed(scenario, alice=KeyLimits(streams=2))
    assert [answer.status_code for answer in refused] == [429] * 2
    assert refused[0].json()["error"]["code"] == "rate_limit_exceeded"
    assert status in ("queued", "in_progress")


def test_a_bucket_of_requests_fills_as_time_passes():
    pace = Pace()
    assert [pace.step(2, 0.0) for _ in range(3)] == [0, 0, 30]
    assert pace.step(2, 29.0) == 1
    assert [pace.step(2, 30.0), pace.step(2, 30.0)] == [0, 30]
    assert [pace.step(2, 1000.0) for _ in range(3)] == [0, 0, 30]


def test_a_bucket_that_fills_with_less_than_a_request_per_minute_lets_one_through_in_time():
    pace = Pace()
    assert [pace.step(0.5, now) for now in (0.0, 0.0, 119.0, 120.0, 120.0)] == [0, 120, 1, 0, 120]


def test_each_of_several_gateways_allows_its_share_of_requests_and_connections(ring):
    _, secret = ring.create("alice", KeyLimits(requests_per_minute=5, streams=5))
    request = Request({"type": "http", "headers": [(b"authorization", f"Bearer {secret}".encode())]})

    async def scenario():
        access = Access(ring, NONE, gateways=2)
        callers = [await access.caller(request) for _ in range(2)]
        with pytest.raises(ApiError) as refused:
            await access.caller(request)
        return callers, refused.value

    callers, refused = asyncio.run(scenario())
    assert [caller.limits.streams for caller in callers] == [3, 3]
    assert (refused.status, refused.headers["Retry-After"]) == (429, "12")


def test_a_days_tokens_are_counted_over_restarts_and_deletions_but_repeats_cost_nothing(endpoint, ring, store):
    async def create(endpoint, key, **headers):
        async with httpx.AsyncClient(base_url=endpoint.url, headers=bearer(key)) as client:
            answer = await client.post("/v1/videos", json={"prompt": "a cat", "seconds": 1}, headers=headers)
            if answer.status_code == 200 and not headers:
                await client.delete(f"/v1/videos/{answer.json()['id']}")
            return answer

    def run(scenario):
        return endpoint(scenario, server=True, generating=False, keys=ring, limits=LIMITS)

    async def cost(endpoint):
        made = await create(endpoint, ring.create("bob", NONE)[1], **{"Idempotency-Key": "kept"})
        return store.job(made.json()["id"]).work.tokens

    tokens = run(cost)
    alice = ring.create("alice", KeyLimits(tokens_per_day=3 * tokens))[1]

    async def repeated(endpoint):
        return [(await create(endpoint, alice, **{"Idempotency-Key": "same"})).json()["id"] for _ in range(3)]

    async def deleted(endpoint):
        return [await create(endpoint, alice) for _ in range(3)]

    assert len(set(run(repeated))) == 1
    *made, refused = run(deleted)
    assert [each.status_code for each in made] == [200, 200]
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"]) == ("insufficient_quota", "insufficient_quota")
    assert 0 < int(refused.headers["retry-after"]) <= 86400
    assert refused.headers["x-should-retry"] == "false"


def test_yesterdays_tokens_are_forgotten(store, new_job):
    job = new_job()
    noon = 1_800_000_000.0 // 86400 * 86400 + 43200

    async def spent(now, *, charge):
        usage = Usage(store.url)
        await usage.load(job.owner, now)
        if charge:
            usage.charge(job)
            usage.record(job)
        return usage.spent(job.owner)

    tokens = job.work.tokens
    assert asyncio.run(spent(noon, charge=True)) == tokens
    # Another broker, the same day; then the next.
    assert asyncio.run(spent(noon + 3600, charge=False)) == tokens
    assert asyncio.run(spent(noon + 86400, charge=False)) == 0
    assert list(storage.list_files(f"{store.url}/usage")) == []

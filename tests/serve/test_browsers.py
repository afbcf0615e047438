"""What browsers get told, and what pages of others can't make them do to an endpoint without keys."""

import httpx
import pytest

from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits

EVIL, OURS = "https://evil.example", "https://videos.example.com"


@pytest.fixture
def visited(endpoint):
    """Runs `scenario(http, endpoint)` against a real server."""

    def run(scenario, **options):
        async def main(endpoint):
            async with httpx.AsyncClient(base_url=endpoint.url, timeout=60) as http:
                return await scenario(http, endpoint)

        return endpoint(main, server=True, generating=False, **options)

    return run


def form(origin):
    """What a page can send anywhere without asking first."""
    return {"files": {"prompt": (None, "x")}, "headers": {"Origin": origin}}


def test_every_answer_tells_browsers_to_be_careful(visited):
    async def scenario(http, endpoint):
        made = await http.post("/v1/videos", json={"prompt": "x"})
        paths = ["/v1/videos", "/v1/videos/video_1", "/nothing", "/health", "/openapi.json"]
        return [made, *[await http.get(path) for path in paths], await http.put("/v1/videos")]

    for answer in visited(scenario):
        headers = answer.headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "private, no-cache"
        assert "access-control-allow-origin" not in headers


def test_no_page_of_another_origin_reads_or_changes_anything(visited):
    async def scenario(http, endpoint):
        video = (await http.post("/v1/videos", json={"prompt": "x"})).json()["id"]
        asked = {"Origin": EVIL, "Access-Control-Request-Method": "DELETE"}
        answers = [
            await http.post("/v1/videos", **form(EVIL)),
            # A page in a sandbox, or a file on the disk.
            await http.post("/v1/videos", **form("null")),
            await http.post(f"/v1/videos/{video}/cancel", headers={"Origin": EVIL}),
            await http.delete(f"/v1/videos/{video}", headers={"Origin": EVIL}),
        ]
        preflight = await http.options(f"/v1/videos/{video}", headers=asked)
        listing = await http.get("/v1/videos", headers={"Origin": EVIL})
        return answers, preflight, listing, endpoint.store.newest_first() == [video]

    answers, preflight, listing, untouched = visited(scenario)
    assert [answer.status_code for answer in answers] == [403] * 4
    assert answers[0].json()["error"]["code"] == "origin"
    assert preflight.status_code == 405
    for answer in (*answers, preflight, listing):
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert untouched


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
def test_a_name_that_was_made_to_point_here_is_not_answered(visited, host):
    async def scenario(http, endpoint):
        headers = {"Host": host, "Origin": f"http://{host}"}
        return [
            await http.get("/v1/videos", headers=headers),
            await http.post("/v1/videos", json={"prompt": "x"}, headers=headers),
        ], endpoint.store.newest_first()

    answers, stored = visited(scenario)
    assert [answer.status_code for answer in answers] == [403] * 2
    assert answers[0].json()["error"]["code"] == "host"
    assert stored == []


def test_own_pages_and_own_names_are_answered(visited):
    async def scenario(http, endpoint):
        port = endpoint.url.rpartition(":")[2]
        return [
            (await http.post("/v1/videos", files={"prompt": (None, "x")}, headers=headers)).status_code
            for host in (f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}", "localhost")
            for headers in ({"Host": host}, {"Host": host, "Origin": f"http://{host}"})
        ]

    assert visited(scenario, slots=8) == [200] * 8


def test_pages_of_the_specs_origins_may_and_others_may_not(visited):
    async def scenario(http, endpoint):
        asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
        found = {}
        for origin in (OURS, EVIL, "null", f"{OURS}.evil.example", "http://videos.example.com"):
            preflight = await http.options("/v1/videos", headers={"Origin": origin, **asked})
            sent = await http.post("/v1/videos", **form(origin))
            allowed = [each.headers.get("access-control-allow-origin") for each in (preflight, sent)]
            found[origin] = (sent.status_code, *allowed)
        return found

    found = visited(scenario, origins=(OURS,))
    assert found.pop(OURS) == (200, OURS, OURS)
    assert set(found.values()) == {(403, None, None)}


def test_with_keys_names_are_free_and_answers_stay_closed(visited, tmp_path):
    ring = KeyRing(str(tmp_path / "access"))
    _, sent = ring.create("alice", KeyLimits())

    async def scenario(http, endpoint):
        headers = {"Host": "videos.example.com", "Origin": EVIL}
        with_key = await http.get("/v1/videos", headers={**headers, "Authorization": f"Bearer {sent}"})
        return with_key, await http.post("/v1/videos", **form(EVIL))

    with_key, without = visited(scenario, keys=ring)
    # Only who has the key can have sent it; a browser would not let the page read the answer.
    assert with_key.status_code == 200
    assert "access-control-allow-origin" not in with_key.headers
    assert without.status_code == 401

"""URLs that users name: what they may reach, and that nothing leads around that. Servers are real; 127.0.0.1 stands for
the public network and 127.0.0.2 for what must not be reached.
"""

import asyncio
import gzip
import io
import ipaddress
import time

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from rayramid.serve.remote import Remote, RemoteError, check_url
from rayramid.serve.spec import RemoteOptions

OPEN = RemoteOptions(images=True, networks=("127.0.0.1/32",), timeout_s=60)
CLOSED = RemoteOptions(images=True, timeout_s=60)
MIB = 2**20


def picture():
    data = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 40, 40)).save(data, "PNG")
    return data.getvalue()


class Site:
    """A server that counts who comes."""

    def __init__(self):
        self.seen = []
        paths = ("picture", "to", "loop", "large", "endless", "slow", "zipped", "missing")
        self.app = Starlette(routes=[Route(f"/{name}", getattr(self, name)) for name in paths])

    async def picture(self, request: Request):
        self.seen.append(dict(request.headers))
        return Response(picture(), media_type="image/png")

    async def to(self, request: Request):
        return RedirectResponse(request.query_params["url"], 302)

    async def loop(self, request: Request):
        self.seen.append("loop")
        return RedirectResponse("/loop", 307)

    async def large(self, request: Request):
        return Response(b"x" * (2 * MIB))

    async def endless(self, request: Request):
        async def forever():
            while True:
                yield b"x" * 65536
                await asyncio.sleep(0)

        return StreamingResponse(forever())

    async def slow(self, request: Request):
        async def drops():
            while True:
                yield b"x"
                await asyncio.sleep(0.05)

        return StreamingResponse(drops())

    async def zipped(self, request: Request):
        return Response(gzip.compress(b"\0" * 50_000_000), headers={"Content-Encoding": "gzip"})

    async def missing(self, request: Request):
        return Response(status_code=404)


def asked(listen, scenario):
    """Runs `scenario(outside, inside, outside's URL, inside's URL)`."""

    async def main():
        outside, inside = Site(), Site()
        async with listen(outside.app) as there, listen(inside.app, "127.0.0.2") as here:
            return await scenario(outside, inside, there, here)

    return asyncio.run(main())


async def refused(remote, url, limit=MIB):
    with pytest.raises(RemoteError) as error:
        await remote.get(url, limit)
    return str(error.value)


def test_what_is_allowed_is_got_with_its_name_as_the_host(listen):
    async def scenario(outside, inside, there, here):
        port = there.rpartition(":")[2]

        async def resolve(host, port):
            return {"example.com": ["127.0.0.1"]}[host]

        body = await Remote(OPEN, resolve).get(f"http://example.com:{port}/picture", MIB)
        return body, outside.seen[0], port

    body, headers, port = asked(listen, scenario)
    assert body == picture()
    assert headers["host"] == f"example.com:{port}"
    assert "authorization" not in headers
    assert "cookie" not in headers


LOOPBACK = [
    "http://127.0.0.1:{port}/picture",
    "http://localhost:{port}/picture",
    "http://2130706433:{port}/picture",
    "http://0x7f000001:{port}/picture",
    "http://0177.0.0.1:{port}/picture",
    "http://127.1:{port}/picture",
    "http://0.0.0.0:{port}/picture",
    "http://0:{port}/picture",
    "http://[::ffff:127.0.0.1]:{port}/picture",
    "http://[::]:{port}/picture",
    "http://LOCALHOST.:{port}/picture",
]


def test_no_spelling_of_loopback_is_reached(listen):
    async def scenario(outside, inside, there, here):
        port = there.rpartition(":")[2]
        return [await refused(Remote(CLOSED), url.format(port=port)) for url in LOOPBACK], outside.seen

    says, seen = asked(listen, scenario)
    assert seen == []
    assert all("public address" in each or "can't be reached" in each for each in says), says


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::a00:1",
        "2002:7f00:1::",
        "2001:0:a00:1::80ff:fffe",
        "fd00:ec2::254",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_no_address_inside_is_connected_to_whatever_a_name_says(address):
    async def resolve(host, port):
        # One good address beside it changes nothing.
        return ["93.184.216.34", address]

    assert "public address" in asyncio.run(refused(Remote(CLOSED, resolve), "http://example.com/"))


def test_public_addresses_are_not_refused():
    from rayramid.serve.remote import _CheckedNetwork

    network = _CheckedNetwork(None, [])
    for address in ("93.184.216.34", "2606:2800:220:1::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"):
        assert network._allows(ipaddress.ip_address(address)), address


def test_a_name_that_changes_its_mind_is_asked_once_per_connection(listen):
    async def scenario(outside, inside, there, here):
        port = here.rpartition(":")[2]
        # At 127.0.0.1 anybody's server may have the same port.
        answers = [["127.0.0.3"], ["127.0.0.2"]]
        questions = []

        async def resolve(host, port):
            questions.append(host)
            return answers[len(questions) - 1]

        # The connection goes to the address that was checked, where nobody listens, and not to what the name says next.
        nobody = RemoteOptions(images=True, networks=("127.0.0.3/32",), timeout_s=60)
        says = await refused(Remote(nobody, resolve), f"http://rebind.example:{port}/picture")
        return says, questions, inside.seen

    assert asked(listen, scenario) == ("it can't be reached", ["rebind.example"], [])


def test_every_hop_of_a_redirect_is_checked(listen):
    async def scenario(outside, inside, there, here):
        targets = [
            f"{here}/picture",
            f"{there}/to?url={here}/picture",
            "file:///etc/passwd",
            "gopher://127.0.0.2/",
            "//a@b/",
        ]
        says = [await refused(Remote(OPEN), f"{there}/to?url={target}") for target in targets]
        good = await Remote(OPEN).get(f"{there}/to?url={there}/to?url={there}/picture", MIB)
        looped = await refused(Remote(OPEN), f"{there}/loop")
        return says, inside.seen, good, looped, outside.seen.count("loop")

    says, seen, good, looped, loops = asked(listen, scenario)
    assert seen == []
    assert all("public address" in each or "must read https" in each for each in says), says
    assert good == picture()
    assert (looped, loops) == ("it answers with status 307", 4)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "x",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://example.com/",
        "javascript:alert(1)",
        "http://",
        "http:///x",
        "http://user@example.com/",
        "http://good.com@127.0.0.1/",
        "http://good.com\\@127.0.0.1/",
        "http://exa mple.com/",
        "http://example.com/\r\nX: y",
        "http://ex\u00e4mple.com/",
        "http://example.com:99999/",
        "http://example.com/" + "x" * 3000,
    ],
)
def test_what_is_no_plain_url_is_not_asked(url):
    with pytest.raises(RemoteError):
        check_url(url)


def test_an_answer_is_bounded_in_size_and_time(listen):
    async def scenario(outside, inside, there, here):
        says = [await refused(Remote(OPEN), f"{there}/{path}") for path in ("large", "endless", "missing")]
        zipped = await Remote(OPEN).get(f"{there}/zipped", MIB)
        started = time.monotonic()
        hasty = Remote(OPEN.model_copy(update={"timeout_s": 0.5}))
        says.append(await refused(hasty, f"{there}/slow"))
        return says, len(zipped), time.monotonic() - started

    says, zipped, seconds = asked(listen, scenario)
    large = f"it has more than the {MIB} bytes that are allowed"
    assert says == [large, large, "it answers with status 404", "it does not answer within 0.5 s"]
    # Nothing is unpacked.
    assert zipped < 100_000
    assert seconds < 30


def test_proxies_of_the_environment_are_not_used(listen, monkeypatch):
    async def scenario(outside, inside, there, here):
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, here)
        return await Remote(OPEN).get(f"{there}/picture", MIB), inside.seen

    assert asked(listen, scenario) == (picture(), [])


def test_a_video_begins_with_a_picture_from_a_url_where_the_spec_says_so(endpoint, listen):
    async def scenario(endpoint):
        site = Site()
        async with listen(site.app) as there, listen(site.app, "127.0.0.2") as here:
            answers = []
            for url in (f"{there}/picture", f"{here}/picture", f"{there}/missing", f"{there}/zipped"):
                body = {"prompt": "x", "input_reference": {"image_url": url}}
                answers.append(await endpoint.http.post("/v1/videos", json=body))
            return [answer.status_code for answer in answers], answers[1].json()["error"], len(site.seen)

    statuses, error, visits = endpoint(scenario, generating=False, remote=OPEN)
    assert statuses == [200, 400, 400, 400]
    assert (error["param"], visits) == ("input_reference", 1)
    assert "public address" in error["message"]
    assert endpoint(scenario, generating=False)[0] == [400] * 4

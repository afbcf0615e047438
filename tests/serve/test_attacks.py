"""What attackers send, over real connections: bodies without end, pictures that burst, names that climb."""

import asyncio
import base64
import contextlib
import io
import json
import re
import struct
import zlib
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from rayramid.serve.keys import KeyRing
from rayramid.serve.picture import PictureDecoder, PictureError
from rayramid.serve.spec import Limits

LIMITS = Limits(
    queue=8,
    seconds=30,
    pixels=256 * 256,
    prompt_characters=100,
    upload_bytes=200_000,
    upload_seconds=1.0,
    image_pixels=1_000_000,
)


@pytest.fixture
def attacked(endpoint):
    """Runs `scenario(endpoint, http)` against a real server; says what the store holds then."""

    def run(scenario, **options):
        async def main(endpoint):
            async with httpx.AsyncClient(base_url=endpoint.url, timeout=120) as http:
                found = await scenario(endpoint, http)
                assert (await http.get("/health")).status_code == 200
                return found, endpoint.store.newest_first()

        return endpoint(main, **{"server": True, "generating": False, "limits": LIMITS, **options})

    return run


async def sent_raw(url, head, pieces):
    """What the server answers to bytes on a bare connection, and how many pieces it takes until it closes that."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answered = asyncio.ensure_future(reader.read(4096))
    writer.write(head.encode())
    taken = 0
    # An attacker does not care for the answer, and goes on.
    with contextlib.suppress(ConnectionError):
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()
            taken += 1
            assert taken < 5000, "the server reads on for ever"
    answer = await answered
    writer.close()
    return int(answer.split()[1]), taken


HEAD = "POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: {type}\r\n{length}\r\n\r\n"


async def without_end(start=b"", pause_s=0.0):
    piece = start + b"x" * 10_000
    while True:
        yield f"{len(piece):x}\r\n".encode() + piece + b"\r\n"
        piece = b"x" * 10_000
        await asyncio.sleep(pause_s)


def test_a_stranger_is_sent_away_before_anything_is_read(attacked, tmp_path):
    async def scenario(endpoint, http):
        head = HEAD.format(type="application/json", length="Transfer-Encoding: chunked")
        return await sent_raw(endpoint.url, head, without_end(b'{"prompt": "', pause_s=0.001))

    (status, taken), stored = attacked(scenario, keys=KeyRing(str(tmp_path / "access")))
    assert (status, stored) == (401, [])
    assert taken < 2000


@pytest.mark.parametrize(
    ("content_type", "start"),
    [
        ("application/json", b'{"prompt": "'),
        ("multipart/form-data; boundary=b", b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\n'),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\ncontent-disposition: form-data; name="input_reference"; filename="x"\r\n\r\n',
        ),
        ("multipart/form-data; boundary=b", b"--b\r\nx: "),
    ],
)
def test_a_body_without_end_is_refused_while_it_comes(attacked, content_type, start):
    async def scenario(endpoint, http):
        head = HEAD.format(type=content_type, length="Transfer-Encoding: chunked")
        return await sent_raw(endpoint.url, head, without_end(start, pause_s=0.001))

    (status, taken), stored = attacked(scenario)
    assert status in (400, 413)
    # 200 kB are allowed, in pieces of 10; some more are let in and forgotten, and the connection has its own buffers.
    assert taken < 2000
    assert stored == []


def test_a_body_that_announces_too_much_is_refused_before_any_of_it_is_read(attacked):
    async def scenario(endpoint, http):
        head = HEAD.format(type="application/json", length="Content-Length: 99999999999")
        host, port = endpoint.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head.encode())
        answer = await reader.read(4096)
        writer.close()
        return int(answer.split()[1])

    assert attacked(scenario) == (413, [])


def test_a_body_that_trickles_is_given_up(attacked):
    async def scenario(endpoint, http):
        head = HEAD.format(type="application/json", length="Transfer-Encoding: chunked")
        return await sent_raw(endpoint.url, head, without_end(b'{"prompt": "', pause_s=0.4))

    (status, _), stored = attacked(scenario, limits=LIMITS.model_copy(update={"upload_bytes": 10**9}))
    assert (status, stored) == (408, [])


TOO_MUCH = [
    ({"prompt": "x" * 101}, "prompt"),
    ({"prompt": "x", "negative_prompt": "x" * 101}, "negative_prompt"),
    ({"prompt": "x", "prompt_schedule": [{"from_second": 1, "prompt": "x" * 101}]}, "prompt_schedule"),
    # One column of pixels is made 64 wide.
    ({"prompt": "x", "size": "16x4000"}, "size"),
    ({"prompt": "x", "size": "99998x99998"}, "size"),
    ({"prompt": "x", "seconds": 1e308}, "seconds"),
    ({"prompt": "x", "seconds": "1" * 5000}, "seconds"),
    ({"prompt": "x", "seed": 10**400}, "seed"),
    ({"prompt": "x", "steps": 10**9}, "steps"),
]


def test_no_parameter_asks_for_more_than_is_allowed(attacked):
    async def scenario(endpoint, http):
        answers = [await http.post("/v1/videos", json=fields) for fields, _ in TOO_MUCH]
        return [(answer.status_code, answer.json()["error"]["param"]) for answer in answers]

    assert attacked(scenario) == ([(400, param) for _, param in TOO_MUCH], [])


def test_a_change_of_prompt_is_no_way_around_the_limit(attacked):
    async def scenario(endpoint, http):
        video = (await http.post("/v1/videos", json={"prompt": "x"})).json()["id"]
        return await http.post(f"/v1/videos/{video}/prompt", json={"prompt": "x" * 101})

    assert attacked(scenario)[0].status_code == 400


# -- pictures ---------------------------------------------------------------------------------------------------------


def encoded(kind="PNG", size=(64, 64), **options):
    data = io.BytesIO()
    Image.new("RGB", size, (200, 40, 40)).save(data, kind, **options)
    return data.getvalue()


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png_that_claims(width, height, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows, 9)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animated(kind):
    data = io.BytesIO()
    frames = [Image.new("RGB", (32, 32), (shade, 0, 0)) for shade in (0, 128, 255)]
    frames[0].save(data, kind, save_all=True, append_images=frames[1:], duration=100)
    return data.getvalue()


def text_bomb():
    text = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(b"\0" * 100_000_000, 9))
    plain = encoded()
    return plain[:33] + text + plain[33:]


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'
PICTURES = {
    "a bomb of pixels": (lambda: png_that_claims(30_000, 30_000, b"\0" * 30_000_000), "900000000|30000x30000"),
    "more pixels than allowed": (lambda: encoded(size=(1001, 1000)), "1000000 are allowed"),
    "a header that lies": (lambda: png_that_claims(900, 900), "can't be read"),
    "no pixels": (lambda: png_that_claims(0, 0), "no JPEG|can't be read"),
    "a bomb of text": (text_bomb, "can't be read"),
    "truncated": (lambda: encoded("JPEG", (500, 500))[:900], "can't be read"),
    "svg": (lambda: SVG, "no JPEG, PNG or WebP"),
    "gif": (lambda: animated("GIF"), "no JPEG, PNG or WebP"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no JPEG, PNG or WebP"),
    "tiff": (lambda: encoded("TIFF"), "no JPEG, PNG or WebP"),
    "animated png": (lambda: animated("PNG"), "animated"),
    "animated webp": (lambda: animated("WEBP"), "animated"),
    "html": (lambda: b"<html><script>alert(1)</script>", "no JPEG, PNG or WebP"),
    "nothing": (lambda: b"", "no JPEG, PNG or WebP"),
}


def test_what_is_no_harmless_picture_is_refused(attacked):
    async def scenario(endpoint, http):
        answers = {}
        for name, (make, _) in PICTURES.items():
            files = {"prompt": (None, "x"), "input_reference": ("picture.png", make(), "image/png")}
            answers[name] = await http.post("/v1/videos", files=files)
        return answers

    answers, stored = attacked(scenario)
    assert stored == []
    for name, (_, says) in PICTURES.items():
        assert answers[name].status_code == 400, name
        error = answers[name].json()["error"]
        assert error["param"] == "input_reference"
        assert re.search(says, error["message"]), (name, error)


def test_only_what_was_decoded_is_kept(attacked):
    secret = b"<?php system($_GET['c']); ?>"
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    exif[0x010E] = secret.decode()
    picture = encoded("JPEG", (90, 50), exif=exif, quality=95) + secret

    async def scenario(endpoint, http):
        files = {"prompt": (None, "x"), "input_reference": ("../../x.php", picture, "text/x-php")}
        video = (await http.post("/v1/videos", files=files)).json()["id"]
        return Path(endpoint.store.image(video)).read_bytes()

    (kept, _), size = attacked(scenario), (50, 90)
    assert secret in picture
    assert secret not in kept
    with Image.open(io.BytesIO(kept)) as image:
        assert (image.format, image.mode, image.size, image.info) == ("PNG", "RGB", size, {})
        assert np.abs(np.asarray(image).astype(int) - (200, 40, 40)).max() < 6


def test_a_decoder_that_takes_too_long_or_too_much_is_ended():
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    with pytest.raises(PictureError, match=r"within 0\.001 s"):
        asyncio.run(PictureDecoder(10**7, deadline_s=0.001).decode(data.getvalue()))


# -- names ------------------------------------------------------------------------------------------------------------

CLIMBING = [
    "..",
    "../../../../etc/passwd",
    "..%2F..%2F..%2Fetc%2Fpasswd",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%5c..%5cetc",
    "%2Fetc%2Fpasswd",
    "video_%00",
    f"video_{'0' * 28}%2F..%2F..%2Fopen",
    f"video_{'0' * 28}%0A",
    f"video_{'A' * 28}",
    "s3:%2F%2Fbucket%2Fkey",
    "file:%2F%2F%2Fetc%2Fpasswd",
]


ROUTES = [
    ("GET", ""),
    ("GET", "/content"),
    ("GET", "/content?stream=1"),
    ("GET", "/events"),
    ("DELETE", ""),
    ("POST", "/cancel"),
]


async def asked_for(url, method, path):
    """The answer to a path that no client has tidied up."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer


def test_no_name_reaches_the_file_system(attacked, tmp_path):
    (tmp_path / "store" / "videos").mkdir(parents=True)
    bait = [tmp_path / "video.mp4", tmp_path / "store" / "videos" / "video.mp4"]
    for path in bait:
        path.write_bytes(b"secret")

    async def scenario(endpoint, http):
        answers = []
        for name in CLIMBING:
            answers += [await asked_for(endpoint.url, way, f"/v1/videos/{name}{path}") for way, path in ROUTES]
        statuses = {int(answer.split()[1]) for answer in answers}
        for name in CLIMBING:
            body = {"video": {"id": name}, "seconds": 1}
            statuses.add((await http.post("/v1/videos/extensions", json=body)).status_code)
            statuses.add((await http.get("/v1/videos", params={"after": name})).status_code)
        headers = {"Idempotency-Key": CLIMBING[1], "Authorization": f"Bearer {CLIMBING[1]}"}
        made = await http.post("/v1/videos", json={"prompt": "x"}, headers=headers)
        return statuses, made.status_code, answers

    (statuses, made, answers), stored = attacked(scenario)
    assert statuses <= {400, 404, 405}
    assert (made, len(stored)) == (200, 1)
    assert not any(b"secret" in answer or b"root:" in answer for answer in answers)
    assert all(path.read_bytes() == b"secret" for path in bait)
    assert {path.name for path in tmp_path.iterdir()} == {"video.mp4", "store"}


STRANGE_JSON = [
    b"[" * 100_000,
    b'{"a":' * 20_000,
    b'{"prompt": "\\ud800"}',
    b'{"prompt": "x", "seed": NaN}',
    b'{"prompt": "x", "seed": ' + b"9" * 10_000 + b"}",
    b'{"prompt": {"$gt": ""}}',
    b'{"prompt": "x", "__proto__": {}}',
    json.dumps({"prompt": "x", "input_reference": {"image_url": "file:///etc/passwd"}}).encode(),
    json.dumps({"prompt": "x", "input_reference": {"image_url": "data:image/png;base64,%%%"}}).encode(),
    b"\xff\xfe\x00",
]
STRANGE_NAMES = ["a" + "[b]" * 20_000, "prompt" + "[" * 2000, "[]", "", "prompt_schedule" + "[][prompt]" * 50, "\ud800"]


def test_strange_bodies_are_refused(attacked):
    def form(name):
        part = f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\nx\r\n'.encode("utf-8", "surrogatepass")
        return b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\nx\r\n' + part + b"--b--\r\n"

    async def scenario(endpoint, http):
        kinds = {"application/json": STRANGE_JSON, "multipart/form-data; boundary=b": map(form, STRANGE_NAMES)}
        return [
            (await http.post("/v1/videos", content=body, headers={"content-type": kind})).status_code
            for kind, bodies in kinds.items()
            for body in bodies
        ]

    assert attacked(scenario) == ([400] * 16, [])


def test_a_picture_in_a_form_may_be_as_long_as_a_body(attacked):
    noise = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"
    assert len(url) > 1_500_000

    async def scenario(endpoint, http):
        files = {"prompt": (None, "x"), "input_reference[image_url]": (None, url)}
        return (await http.post("/v1/videos", files=files)).status_code

    status, _ = attacked(scenario, limits=LIMITS.model_copy(update={"upload_bytes": 10**7, "upload_seconds": 60.0}))
    assert status == 200

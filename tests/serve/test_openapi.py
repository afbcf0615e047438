"""The OpenAPI document: what it says holds, and is enough for clients that are made from it."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import pytest

from rayramid.serve.spec import Limits

SMALL = Limits(queue=8, seconds=2, pixels=128 * 128, upload_bytes=16_000_000)


async def finished(*command, cwd):
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.mark.parametrize("examples", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_schemathesis_finds_no_server_error_and_no_breach_of_the_document(endpoint, tmp_path, examples):
    # That a valid body is accepted can't be said by a schema alone: a picture must be one, a video must be completed.
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", "--no-color", "--seed", "1"]
    command += ["--exclude-checks", "positive_data_acceptance", "--max-examples", str(examples)]
    command += ["--request-timeout", "60"]

    async def scenario(endpoint):
        return await finished(*command, f"{endpoint.url}/openapi.json", cwd=tmp_path)

    code, output = endpoint(scenario, server=True, limits=SMALL)
    assert code == 0, output
    assert "Tested: 15" in output


# It pins an older typer than this project uses, so it lives in a place of its own.
GENERATOR = shutil.which("openapi-python-client")


@pytest.mark.skipif(GENERATOR is None, reason="needs `pipx install openapi-python-client`")
def test_a_client_generated_from_the_document_makes_and_extends(endpoint, tmp_path):
    async def scenario(endpoint):
        (tmp_path / "openapi.json").write_text((await endpoint.http.get("/openapi.json")).text)
        command = [GENERATOR, "generate", "--path", "openapi.json", "--output-path", "generated", "--meta", "none"]
        code, output = await finished(*command, cwd=tmp_path)
        assert code == 0, output
        (tmp_path / "use.py").write_text(USE)
        python = str(Path(GENERATOR).resolve().with_name("python"))
        return await finished(python, "use.py", endpoint.url, cwd=tmp_path)

    code, output = endpoint(scenario, server=True)
    assert code == 0, output
    assert json.loads(output.splitlines()[-1]) == {"status": "completed", "frames": 24, "mp4": True, "error": "size"}


USE = """
import json, sys, time
from generated import Client
from generated.api.videos import create_video, extend_video, retrieve_video, video_content
from generated.models import CreateVideo, ExtendVideo, ErrorBody, VideoReference

client = Client(sys.argv[1])

def completed(video):
    while video.status in ("queued", "in_progress"):
        time.sleep(0.1)
        video = retrieve_video.sync(video.id, client=client)
    return video

short = completed(create_video.sync(client=client, body=CreateVideo(prompt="a cat", seconds=1.5, seed=4)))
longer = completed(extend_video.sync(client=client, body=ExtendVideo(video=VideoReference(id=short.id), seconds=1.5)))
content = video_content.sync_detailed(longer.id, client=client)
wrong = create_video.sync(client=client, body=CreateVideo(prompt="a cat", size="65x64"))
assert isinstance(wrong, ErrorBody)
found = {"status": longer.status, "frames": longer.frames, "mp4": content.content[4:8] == b"ftyp"}
print(json.dumps({**found, "error": wrong.error.param}))
"""


def test_the_document_names_every_parameter_and_event(endpoint):
    async def scenario(endpoint):
        return (await endpoint.http.get("/openapi.json")).json()

    document = endpoint(scenario, generating=False)
    schemas = document["components"]["schemas"]
    assert {"CreateVideo", "CreateVideoForm", "ExtendVideoForm", "VideoEvent", "ErrorBody"} <= set(schemas)
    for name in ("CreateVideo", "CreateVideoForm"):
        assert {"prompt", "seed", "input_reference", "prompt_schedule"} <= set(schemas[name]["properties"])
    assert "video[id]" in schemas["ExtendVideoForm"]["required"]

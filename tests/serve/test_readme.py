"""What the README tells a user of the endpoint to type."""

import asyncio
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text()


def block(language, *, beginning):
    """The README's code block that begins so."""
    (found,) = re.findall(rf"```{language}\n({re.escape(beginning)}.*?)```", README, re.DOTALL)
    return found


async def run(command, code, endpoint, folder):
    """What the code prints, typed by a user of this endpoint."""
    code = code.replace("http://127.0.0.1:8000", endpoint.url)
    process = await asyncio.create_subprocess_exec(*command, code, cwd=folder, stdout=asyncio.subprocess.PIPE)
    printed, _ = await process.communicate()
    assert process.returncode == 0, printed
    return printed.decode()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_a_video_is_watched_extended_changed_and_cancelled_with_curl(endpoint, tmp_path, frames_of):
    async def scenario(endpoint):
        # The first video has 6 units, the extended one 11: it is still being made when its prompt changes.
        endpoint.worker.held_at = 8
        return await run(["bash", "-ec"], block("sh", beginning="URL="), endpoint, tmp_path)

    *events, changed = endpoint(scenario, server=True).split("\n\n")
    assert [event.partition("\n")[0] for event in events][-1] == "event: completed"
    prompt, cancelled = map(json.loads, re.findall(r"{.*?}(?=\{|$)", changed.strip()))
    assert (prompt["prompt"], prompt["from_unit"] >= 6) == ("a blue circle grows on a pink background", True)
    assert (cancelled["status"], cancelled["error"]["code"]) == ("failed", "cancelled")
    assert frames_of((tmp_path / "live.mp4").read_bytes()).shape == (40, 128, 128, 3)


def test_the_openai_client_makes_and_downloads_a_video(endpoint, tmp_path, frames_of):
    async def scenario(endpoint):
        await run([sys.executable, "-c"], block("python", beginning="from openai"), endpoint, tmp_path)

    endpoint(scenario, server=True)
    assert frames_of((tmp_path / "video.mp4").read_bytes()).shape == (17, 128, 128, 3)

"""The page of a real endpoint on Ray Serve, in a real browser."""

import shutil

import httpx
import pytest
from playwright.sync_api import sync_playwright
from ray import serve

from rayramid.serve.app import deploy
from rayramid.serve.spec import SamplerOptions, ServeSpec

CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 200_000
VIDEO = "document.getElementById('video')"


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")
def test_a_running_video_plays_is_cancelled_and_another_one_is_made(ray_cluster, model_folder, tmp_path):
    spec = ServeSpec(model=model_folder, store=str(tmp_path), keys=False, port=0, sampler=SamplerOptions(threads=1))
    url = deploy(spec)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(PATIENCE_MS)
            complaints = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)

            # So many steps that it is still being made when it is cancelled, however fast the machine is.
            body = {"prompt": "a cat", "seconds": 60, "steps": 200}
            video_id = httpx.post(f"{url}/v1/videos", json=body, timeout=60).json()["id"]
            page.goto(url)
            page.locator("#curtain").wait_for(state="hidden")
            assert page.evaluate(f"[{VIDEO}.videoWidth, {VIDEO}.readyState >= 2]") == [64, True]
            assert httpx.get(f"{url}/v1/videos/{video_id}").json()["status"] == "in_progress"
            page.click("#cancel")
            page.get_by_text("Cancelled", exact=True).wait_for()

            page.fill("#prompt", "a dog")
            page.fill("#seconds", "2")
            page.click("#submit")
            page.get_by_text("Finished", exact=True).wait_for()
            page.locator("#curtain").wait_for(state="hidden")
            assert page.evaluate(f"{VIDEO}.duration") == 2
            assert complaints == []
            browser.close()
    finally:
        serve.shutdown()

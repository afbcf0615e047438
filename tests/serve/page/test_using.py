"""The gallery; and the page on a phone, by keyboard, with a screen reader, in the dark, without motion."""

import math

import pytest
from axe_playwright_python.base import AXE_FILE_PATH

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
WINDOWS = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "phone": PHONE,
    "dark phone": {**PHONE, "color_scheme": "dark"},
}


def test_the_gallery_shows_opens_downloads_and_deletes_videos(browse):
    async def scenario(visit):
        page = visit.page
        first = await visit.endpoint.made(prompt="first", seconds=1)
        second = await visit.endpoint.made(prompt="second", seconds=1)
        await page.reload()
        await visit.holds("[...document.querySelectorAll('.card img')].filter((i) => i.naturalWidth > 0).length === 2")
        assert await page.locator(".card-prompt").all_text_contents() == ["second", "first"]

        await page.get_by_text("first", exact=True).click()
        await visit.plays(0.2)
        assert await visit.shown() == first["id"]
        assert await page.locator("[aria-current] .card-prompt").all_text_contents() == ["first"]

        async with page.expect_download() as download:
            await page.get_by_role("button", name="Download “second”").click()
        saved = await download.value
        assert saved.suggested_filename == f"{second['id']}.mp4"
        assert (await saved.path()).read_bytes() == await visit.endpoint.content(second["id"])

        delete = page.get_by_role("button", name="Delete “first”")
        await delete.click()
        await page.get_by_role("button", name="Keep it").click()
        assert await page.locator(".card").count() == 2
        await delete.click()
        await page.get_by_role("button", name="Delete", exact=True).and_(page.locator("dialog *")).click()
        await visit.says("curtain-text", "This video is gone.")
        assert await page.locator(".card-prompt").all_text_contents() == ["second"]
        assert (await visit.endpoint.http.get(f"/v1/videos/{first['id']}")).status_code == 404

    browse(scenario)


@pytest.mark.parametrize("window", WINDOWS)
def test_axe_finds_nothing_and_nothing_is_wider_than_the_window(browse, window):
    async def scenario(visit):
        page = visit.page
        await check(page)
        await visit.endpoint.made(prompt="a rather long prompt " * 8, seconds=1)
        await page.reload()
        visit.endpoint.worker.held_at = 2
        await visit.make("averyverylongwordthatcannotbebroken" * 4, seconds=4)
        await visit.plays(0.5)
        await check(page)
        await page.click("#key-open")
        await check(page)
        await page.keyboard.press("Escape")
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        await check(page)

    async def check(page):
        await page.evaluate(AXE_FILE_PATH.read_text())
        found = await page.evaluate("axe.run()")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")

    browse(scenario, window=WINDOWS[window])


def test_everything_is_reached_and_done_by_keyboard(browse):
    async def scenario(visit):
        page = visit.page
        await page.focus("#prompt")
        reached = []
        for _ in range(6):
            reached.append(await page.evaluate("document.activeElement.id"))
            await page.keyboard.press("Tab")
        assert reached == ["prompt", "picture", "size", "seed", "seconds", "submit"]
        await page.focus("#prompt")
        await page.keyboard.type("a cat")
        visit.endpoint.worker.held_at = 2
        await page.keyboard.press("Control+Enter")
        await visit.plays(0.5)
        # The keyboard is where the video is now, before its controls.
        assert await page.evaluate("document.activeElement.id") == "stage"
        reached = set()
        for _ in range(12):
            await page.keyboard.press("Tab")
            reached.add(await page.evaluate("document.activeElement.id"))
        assert {"video", "cancel", "turn-prompt", "reuse", "delete"} <= reached
        await page.focus("#cancel")
        await page.keyboard.press("Enter")
        await visit.says("standing", "Cancelled")
        await page.focus(".card a")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await visit.holds("document.querySelectorAll('.card').length === 0")
        assert await page.evaluate("document.activeElement.id") == "prompt"

    browse(scenario)


def test_nothing_moves_by_itself_for_who_wants_less_motion(browse):
    async def scenario(visit):
        await visit.make(seconds=1)
        await visit.says("standing", "Finished")
        await visit.holds("document.getElementById('curtain').hidden")
        video = "document.getElementById('video')"
        assert await visit.page.evaluate(f"[{video}.paused, {video}.currentTime, {video}.loop]") == [True, 0, False]

    browse(scenario, window={"reduced_motion": "reduce"})


def test_settings_are_used_again(browse):
    async def scenario(visit):
        await visit.make("a cat", seconds=1, seed=5)
        await visit.says("standing", "Finished")
        await visit.page.fill("#prompt", "")
        await visit.page.fill("#seed", "")
        await visit.page.click("#reuse")
        values = "['prompt', 'seed', 'seconds', 'size'].map((id) => document.getElementById(id).value)"
        assert await visit.page.evaluate(values) == ["a cat", "5", "1", "64x64"]

    browse(scenario)

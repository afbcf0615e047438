"""Videos are made on the page, in a real browser from a real server."""

import io
import math

import pytest
from PIL import Image
from waiting import until

pytestmark = pytest.mark.browser

# Of the tests' model, second: its first unit is one frame of 1/8, every other one lasts 1.
SHOWN = """(() => {
  const { readyState, videoWidth, videoHeight, duration, paused } = document.getElementById("video");
  return { readyState, videoWidth, videoHeight, duration, paused };
})()"""


def test_a_video_plays_while_it_is_made_and_goes_on_playing_to_its_end(browse):
    async def scenario(visit):
        visit.endpoint.worker.held_at = 3
        video_id = await visit.make("a red circle", seconds=6, seed=7)
        await visit.plays(1.5)
        assert (await visit.video(video_id))["status"] == "in_progress"
        shown = await visit.page.evaluate(SHOWN)
        assert (shown["videoWidth"], shown["videoHeight"], shown["duration"]) == (64, 64, 6)
        assert shown["readyState"] >= 2
        assert max(await visit.colour()) > 40
        await visit.says("standing", "Being made: ")
        assert not await visit.page.is_hidden("#progress")
        await visit.holds("document.querySelector('.card img').naturalWidth > 0")

        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        await visit.plays(4.5)
        assert max(await visit.colour()) > 40
        return await visit.video(video_id)

    video = browse(scenario)
    assert (video["status"], video["seed"], video["seconds"], video["size"]) == ("completed", 7, "6", "64x64")


def test_reloading_in_the_midst_finds_the_video_again_also_without_its_address(browse):
    async def scenario(visit):
        visit.endpoint.worker.held_at = 2
        video_id = await visit.make(seconds=4)
        await visit.plays(0.5)
        await visit.page.reload()
        await visit.plays(0.5)
        assert await visit.shown() == video_id
        await visit.page.goto("about:blank")
        await visit.page.goto(visit.endpoint.url)
        await visit.plays(0.5)
        assert await visit.shown() == video_id
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")

    browse(scenario)


def test_a_video_is_cancelled_and_what_was_made_of_it_can_still_be_seen(browse):
    async def scenario(visit):
        visit.endpoint.worker.held_at = 2
        video_id = await visit.make(seconds=8)
        await visit.plays(0.5)
        await visit.page.click("#cancel")
        await visit.says("standing", "Cancelled")
        assert (await visit.video(video_id))["error"]["code"] == "cancelled"
        await visit.says("live", "Cancelled")
        assert await visit.page.is_hidden("#cancel")
        await visit.plays(0.5)

    browse(scenario)


def test_the_prompt_changes_from_the_next_unit_on(browse):
    async def scenario(visit):
        visit.endpoint.worker.held_at = 2
        video_id = await visit.make("a cat", seconds=4)
        await visit.plays(0.5)
        await visit.page.fill("#turn-prompt", "a dog")
        await visit.page.press("#turn-prompt", "Enter")
        await visit.says("prompts", "a dog")
        listed = await visit.page.locator("#prompts li").all_text_contents()
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        return listed, await visit.page.locator("#prompts li").all_text_contents(), await visit.video(video_id)

    listed, afterwards, video = browse(scenario)
    assert listed == afterwards == ["0.0 sa cat", f"{video['prompt_schedule'][0]['from_second']:.1f} sa dog"]
    assert [each["prompt"] for each in video["prompt_schedule"]] == ["a dog"]


def test_a_finished_video_is_extended_and_goes_on_where_it_ended(browse):
    async def scenario(visit):
        short = await visit.make("a cat", seconds=2)
        await visit.says("standing", "Finished")
        await visit.page.fill("#extend-seconds", "3")
        await visit.page.fill("#extend-prompt", "a dog")
        visit.endpoint.worker.held_at = 4
        await visit.page.click("#extend button")
        await visit.holds(f"location.hash !== '#{short}'")
        longer = await visit.shown()
        await visit.plays(2.5)
        assert (await visit.video(longer))["status"] == "in_progress"
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        return short, await visit.video(longer)

    short, video = browse(scenario)
    assert (video["extended_from_video_id"], video["seconds"]) == (short, "5")
    assert video["prompt_schedule"][-1]["prompt"] == "a dog"


def test_a_video_begins_with_a_picture_that_is_dropped(browse):
    async def scenario(visit):
        picture = io.BytesIO()
        Image.new("RGB", (80, 60), (230, 20, 20)).save(picture, "PNG")
        await visit.page.evaluate(DROP, list(picture.getvalue()))
        await visit.holds("document.getElementById('picture-preview').naturalWidth === 80")
        visit.endpoint.worker.held_at = 1
        await visit.make("it grows", seconds=2)
        await visit.holds("document.getElementById('curtain').hidden")
        made = await visit.colour()
        await visit.page.click("#picture-remove")
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        assert await visit.page.evaluate("document.getElementById('picture').files.length") == 0
        return made

    red, green, blue = browse(scenario)
    assert red > green + 50
    assert red > blue + 50


DROP = """(bytes) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(bytes)], "red.png", { type: "image/png" }));
  const drop = new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true });
  document.getElementById("drop").dispatchEvent(drop);
}"""


def test_who_waits_is_told_the_place_in_the_line(browse):
    async def scenario(visit):
        visit.endpoint.worker.held_at = 1
        first = await visit.make("first", seconds=2)
        await until(lambda: visit.endpoint.store.units(first) == 1)
        await visit.make("second", seconds=2)
        await visit.says("standing", "Waiting: next in line")
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")

    browse(scenario, slots=1)


def test_errors_of_the_api_are_said_in_words_where_they_belong(browse):
    async def scenario(visit):
        page = visit.page
        await page.fill("#prompt", "a cat")
        await page.select_option("#size", "own")
        await page.fill("#width", "1024")
        await page.fill("#height", "1024")
        await page.click("#submit")
        await visit.says("size-error", "65536 pixels that are allowed")
        assert await page.evaluate("document.activeElement.id") == "size"
        assert await page.get_attribute("#size", "aria-invalid") is not None

        await page.select_option("#size", "64x64")
        visit.endpoint.worker.held_at = 0
        for number in range(3):
            await visit.make(f"number {number}")
        await page.click("#submit")
        await visit.says("make-error", "The queue is full")
        assert await page.text_content("#size-error") == ""
        visit.endpoint.worker.held_at = math.inf

    browse(scenario, slots=1, expected=("status of 400", "status of 429"))

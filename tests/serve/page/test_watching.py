"""The player where things are not as usual: an old browser, broken connections, an API key, a store of its own URLs."""

import asyncio
import math
from contextlib import asynccontextmanager

import pytest

from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits
from rayramid.serve.store import Store

pytestmark = pytest.mark.browser


def test_a_browser_without_media_source_plays_the_video_when_it_is_finished(browse):
    async def without(page):
        await page.add_init_script("delete window.MediaSource; delete window.ManagedMediaSource;")

    async def scenario(visit):
        visit.endpoint.worker.held_at = 2
        await visit.make(seconds=3)
        await visit.says("curtain-text", "plays when it is finished")
        visit.endpoint.worker.held_at = math.inf
        await visit.says("standing", "Finished")
        await visit.plays(2.5)
        assert max(await visit.colour()) > 40

    browse(scenario, before=without)


def test_a_connection_that_breaks_is_taken_up_where_it_broke(browse):
    async def scenario(visit):
        async with cuttable(visit.endpoint.url) as (url, cut):
            await visit.page.goto(url)
            visit.endpoint.worker.held_at = 2
            video_id = await visit.make(seconds=4)
            await visit.plays(0.8)
            cut()
            await visit.says("standing", "The connection is lost")
            visit.endpoint.worker.held_at = math.inf
            await visit.says("standing", "Finished")
            await visit.plays(3.5)
            assert await visit.shown() == video_id
            buffered = "document.getElementById('video').buffered"
            assert await visit.page.evaluate(f"[{buffered}.length, {buffered}.end(0)]") == [1, 4]

    browse(scenario, expected=("ERR_",))


@asynccontextmanager
async def cuttable(url):
    """A way to a server that can be cut: all connections end in the midst of what they carry."""
    host, port = url.removeprefix("http://").split(":")
    writers, pumps = [], set()

    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def connect(reader, writer):
        there, back = await asyncio.open_connection(host, port)
        writers.extend((writer, back))
        for each in (pump(reader, back), pump(there, writer)):
            task = asyncio.create_task(each)
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    def cut():
        for writer in writers:
            writer.transport.abort()
        writers.clear()

    server = await asyncio.start_server(connect, "127.0.0.1")
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", cut
    finally:
        server.close()
        cut()


def test_the_api_key_is_asked_for_sent_with_everything_and_kept_for_the_tab(browse, tmp_path):
    ring = KeyRing(str(tmp_path / "access"))
    key, secret = ring.create("alice", KeyLimits())

    async def scenario(visit):
        page = visit.page
        await visit.says("key-text", "Send your API key")
        await page.fill("#key", "wrong")
        await page.press("#key", "Enter")
        await visit.says("key-text", "not known here")
        refused = len(visit.complaints)
        await page.fill("#key", secret)
        await page.press("#key", "Enter")
        await visit.holds("document.getElementById('size').options.length > 0")
        video_id = await visit.make(seconds=2)
        await visit.plays(1)
        await visit.says("standing", "Finished")
        await visit.holds("document.querySelector('.card img').naturalWidth > 0")
        async with page.expect_download() as download:
            await page.click("#save")
        assert (await (await download.value).path()).read_bytes()[4:8] == b"ftyp"
        await page.reload()
        await visit.plays(1)
        assert len(visit.complaints) == refused
        assert await page.evaluate("localStorage.length") == 0
        assert visit.endpoint.store.job(video_id).owner == key.id

    ready = "document.getElementById('key-dialog').open"
    browse(scenario, keys=ring, ready=ready, expected=("status of 401",))


def test_where_the_store_gives_videos_out_the_page_shows_and_saves_them_too(browse, s3_bucket):
    async def scenario(visit):
        await visit.make(seconds=2)
        await visit.plays(1)
        await visit.says("standing", "Finished")
        await visit.holds("document.querySelector('.card img').naturalWidth > 0")
        async with visit.page.expect_popup() as popup:
            await visit.page.click("#save")
        assert (await popup.value).url.startswith("http")

    browse(scenario, store=Store(s3_bucket, presign_s=60))

"""Finished videos: sheets of frames, files that the store gives out itself, and their end."""

import io
import math

import httpx
from PIL import Image

from rayramid.serve.store import Store


def test_the_sheet_shows_25_frames_in_order(endpoint, frames_of):
    async def scenario(endpoint):
        video = await endpoint.made(size="80x64", seconds=5)
        sheet = await endpoint.http.get(f"/v1/videos/{video['id']}/content?variant=spritesheet")
        return sheet, frames_of(await endpoint.content(video["id"]))

    sheet, frames_THWC = endpoint(scenario)
    assert sheet.headers["content-type"] == "image/webp"
    picture = Image.open(io.BytesIO(sheet.content))
    # 40 frames: the first, the last and 23 between them, five to a row.
    assert (picture.format, picture.size) == ("WEBP", (5 * 80, 5 * 64))
    for place, frame in ((0, 0), (12, 20), (24, 39)):
        left, top = place % 5 * 80, place // 5 * 64
        tile = Image.fromarray(frames_THWC[frame]).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        shown = picture.crop((left, top, left + 80, top + 64)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        assert max(abs(a - b) for a, b in zip(tile, shown, strict=True)) <= 6


def test_a_job_that_was_interrupted_has_the_whole_sheet(endpoint):
    async def interrupted(endpoint):
        endpoint.worker.held_at = 3
        video = await endpoint.create(seconds=6)
        await endpoint.units(video["id"], 3)
        return video["id"]

    async def continued(endpoint):
        await endpoint.ended(video_id)
        sheet = await endpoint.http.get(f"/v1/videos/{video_id}/content?variant=spritesheet")
        return Image.open(io.BytesIO(sheet.content)).size

    video_id = endpoint(interrupted)
    assert endpoint(continued) == (5 * 64, 5 * 64)


def test_on_s3_the_store_gives_videos_out_and_everything_else_works(endpoint, s3_bucket, frames_of):
    store = Store(s3_bucket, presign_s=60, keep_s=3600)

    async def scenario(endpoint):
        short = await endpoint.made(seconds=1.5, seed=4)
        endpoint.worker.held_at = 3
        body = {"video": {"id": short["id"]}, "seconds": 2}
        longer = (await endpoint.http.post("/v1/videos/extensions", json=body)).json()
        change = await endpoint.http.post(f"/v1/videos/{longer['id']}/prompt", json={"prompt": "a dog"})
        endpoint.worker.held_at = math.inf
        longer = await endpoint.ended(longer["id"])
        content = await endpoint.http.get(f"/v1/videos/{longer['id']}/content")
        head = await endpoint.http.head(f"/v1/videos/{longer['id']}/content")
        thumbnail = await endpoint.http.get(f"/v1/videos/{longer['id']}/content?variant=thumbnail")
        return longer, change, content, head, thumbnail

    video, change, content, head, thumbnail = endpoint(scenario, store=store)
    assert video["status"] == "completed"
    assert change.json()["from_unit"] in (3, 4)
    assert video["expires_at"] == video["completed_at"] + 3600
    assert [each.status_code for each in (content, head, thumbnail)] == [307, 307, 307]
    data = httpx.get(content.headers["location"])
    assert data.headers["content-type"] == "video/mp4"
    assert len(frames_of(data.content)) == 28
    assert httpx.get(video["url"], headers={"Range": "bytes=0-9"}).content == data.content[:10]
    assert httpx.head(head.headers["location"]).headers["content-length"] == str(len(data.content))
    assert Image.open(io.BytesIO(httpx.get(thumbnail.headers["location"]).content)).format == "WEBP"


def test_without_s3_no_url_is_given_out(endpoint):
    assert endpoint(lambda endpoint: endpoint.made())["url"] is None

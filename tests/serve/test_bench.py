"""`rayramid bench` against a real server."""

import asyncio
import json

import pytest
from typer.testing import CliRunner

from rayramid.models.errors import UserError
from rayramid.platform.cli import app
from rayramid.serve.bench import Visit, bench, summarise
from rayramid.serve.keys import KeyRing
from rayramid.serve.spec import KeyLimits
from rayramid.serve.wire import CreateVideo


def test_a_load_is_summed_up():
    visits = [
        Visit(first_s=1, total_s=3, gaps_s=(0.5, 1.5), video_s=2),
        Visit(first_s=2, total_s=5, gaps_s=(1.0,), video_s=2),
        Visit(failure="http 429"),
        Visit(failure="http 429"),
    ]
    report = summarise(visits, 2, 8.0)
    assert (report.requests, report.completed, report.failures) == (4, 2, {"http 429": 2})
    assert (report.videos_per_minute, report.video_seconds_per_second) == (15.0, 0.5)
    assert report.first_segment_s == {"p50": 1.5, "p90": 1.9, "p99": 1.99}
    assert report.segment_gap_s["p50"] == 1.0
    assert report.whole_video_s["p50"] == 4.0
    assert summarise([Visit(failure="x")], 1, 1.0).first_segment_s == {}


def test_the_command_loads_an_endpoint_and_leaves_nothing_behind(endpoint, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n\na dog\n")

    async def scenario(endpoint):
        asked = ["bench", endpoint.url, "--requests", "5", "--concurrency", "2", "--seconds", "3"]
        asked += ["--prompts", str(tmp_path / "prompts.txt")]
        plain = await asyncio.to_thread(CliRunner().invoke, app, asked, catch_exceptions=False)
        left = endpoint.store.newest_first()
        kept = await asyncio.to_thread(CliRunner().invoke, app, [*asked, "--keep", "--json"], catch_exceptions=False)
        prompts = sorted(endpoint.store.job(each).brief.prompt for each in endpoint.store.newest_first())
        return plain, left, kept, prompts

    plain, left, kept, prompts = endpoint(scenario, server=True)
    assert plain.exit_code == kept.exit_code == 0
    assert "5 of 5 videos completed" in plain.stdout
    assert left == []
    assert prompts == ["a cat"] * 3 + ["a dog"] * 2
    report = json.loads(kept.stdout)
    assert (report["requests"], report["concurrency"], report["completed"], report["failures"]) == (5, 2, 5, {})
    # Of 3 s at 8 fps: a first frame, then pieces of a second.
    assert abs(report["video_seconds_per_second"] * report["wall_s"] - 15) < 0.1
    assert 0 < report["first_segment_s"]["p50"] <= report["first_segment_s"]["p99"] < report["whole_video_s"]["p99"]
    assert report["segment_gap_s"]["p50"] > 0


def test_what_is_refused_is_counted_by_kind(endpoint, tmp_path):
    ring = KeyRing(str(tmp_path / "access"))
    sent = ring.create("alice", KeyLimits(jobs=1))[1]

    async def scenario(endpoint):
        wanted = [CreateVideo(prompt="a cat", seconds=20)] * 3
        with pytest.raises(UserError, match="401"):
            await bench(endpoint.url, wanted, concurrency=1)
        loading = asyncio.create_task(bench(endpoint.url, wanted, concurrency=3, api_key=sent))
        endpoint.worker.held_at = 1
        await asyncio.sleep(0)
        while not endpoint.store.newest_first() or endpoint.store.units(endpoint.store.newest_first()[0]) < 1:
            await asyncio.sleep(0.01)
        endpoint.worker.held_at = 99
        return await loading

    report = endpoint(scenario, server=True, keys=ring)
    assert (report.completed, report.failures) == (1, {"http 429": 2})


def test_nobody_there_is_said_in_one_line():
    with pytest.raises(UserError, match="can't be reached"):
        asyncio.run(bench("http://127.0.0.1:9", [CreateVideo(prompt="x")], concurrency=1))

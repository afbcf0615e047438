"""`rayramid bench`: how fast an endpoint is for its clients."""

import asyncio
import os
from dataclasses import asdict
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import typer

from rayramid.models.errors import UserError
from rayramid.platform.commands.options import AsJson
from rayramid.platform.console import emit_json, progress, result

PROMPT = "a red circle moves right"


def bench(
    url: Annotated[str, typer.Argument(metavar="URL", help="An endpoint, as in http://HOST:8000.", show_default=False)],
    requests: Annotated[int, typer.Option(min=1, help="Videos in all.")] = 16,
    concurrency: Annotated[int, typer.Option(min=1, help="Clients at the same time.")] = 4,
    prompts: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A prompt per line; they are taken in turns.")
    ] = None,
    size: Annotated[str | None, typer.Option(metavar="WIDTHxHEIGHT", help="The model's default if left out.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Length; the model's default if left out.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps of each stage.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the videos at the endpoint.")] = False,
    as_json: AsJson = False,
) -> None:
    """Load an endpoint with clients that watch their videos, and tell latencies and throughput.

    The API key is taken from RAYRAMID_API_KEY.

    Example: rayramid bench http://127.0.0.1:8000 --requests 32 --concurrency 8
    """
    from rayramid.serve.bench import bench as load
    from rayramid.serve.wire import CreateVideo

    texts = _lines(prompts) if prompts else [PROMPT]
    wanted = [
        CreateVideo(prompt=text, size=size, seconds=seconds, steps=steps, seed=number)
        for number, text in enumerate(islice(cycle(texts), requests))
    ]
    with progress() as update:
        report = asyncio.run(
            load(
                url,
                wanted,
                concurrency=concurrency,
                api_key=os.environ.get("RAYRAMID_API_KEY"),
                keep=keep,
                on_visit=lambda done: update("videos", done, requests),
            )
        )
    if as_json:
        emit_json(asdict(report))
    else:
        result(f"{report.completed} of {report.requests} videos completed in {report.wall_s:.1f} s")
        for kind, count in report.failures.items():
            result(f"{count} failed: {kind}")
        result(
            f"{report.videos_per_minute:.2f} videos/min, {report.video_seconds_per_second:.3f} s of video per second"
        )
        for name, each in (
            ("first segment", report.first_segment_s),
            ("segment gap", report.segment_gap_s),
            ("whole video", report.whole_video_s),
        ):
            result(f"{name:<14}" + "  ".join(f"{rank} {value:.3f} s" for rank, value in each.items()))
    if not report.completed:
        raise UserError(f"{url}: not one video was completed")


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: no such file of prompts")
    found = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not found:
        raise UserError(f"{path}: no prompts in it")
    return found

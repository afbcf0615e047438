"""A sheet of what a model makes: captions, frames and verdicts of an evaluation's first videos, none left out.

    rayramid eval infra/specs/eval-sprites.yaml --set output=runs/sprites/eval
    python -m docs.figures.samples runs/sprites/eval docs/pictures/sprites.webp

It needs a run of the model, so `python -m docs.figures` does not draw it.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from rayramid.models import svg
from rayramid.models.sprites.judge.verdict import PARTS
from rayramid.platform.evaluation.examiner import shown_frames
from rayramid.platform.evaluation.run import STRIPS

MARGIN, GAP, BELOW = 12, 3, 16
HIGHEST_ROW = 600
# Of words: their size, the height of a line, and how many characters a line of the sheet has.
HEAD, CAPTION, VERDICT = (13, 20, 130), (14, 19, 130), (12, 16, 153)
RIGHT, WRONG = "#15803d", svg.TARGET


@dataclass(frozen=True)
class Sample:
    """One video: some of its frames, and by the number of frames that were judged the parts that are wrong."""

    caption: str
    wrong: Mapping[str, Sequence[str]]
    frames: Sequence[Image.Image]


def samples(folder: Path, count: int) -> list[Sample]:
    """The first videos from captions of an evaluation's output folder; fewer if it has fewer."""
    found = []
    for case in map(json.loads, (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()):
        if case["kind"] == "text" and case["steps"] is None and case["index"] < count:
            wrong = {length: [part for part in parts if part in PARTS] for length, parts in case["wrong"].items()}
            strip = folder / "videos" / f"text-{case['index']:03d}.webp"
            found.append(Sample(case["caption"], wrong, _frames(strip, len(shown_frames(max(map(int, wrong)))))))
    return found


def sheet(found: Sequence[Sample], model: str) -> Image.Image:
    """The picture, a row for each video; `model` says whose they are."""
    rows = [_row(sample) for sample in found]
    frames = max(map(int, found[0].wrong))
    of = ", ".join(map(str, shown_frames(frames)))
    picture = Image.new("RGB", (rows[0].width + 2 * MARGIN, HEAD[1] + sum(row.height for row in rows)), "white")
    _write(
        picture, MARGIN, 4, f"{model}: held-out captions, frames {of} of {frames}, what the judge says", HEAD, svg.GREY
    )
    top = HEAD[1]
    for row in rows:
        picture.paste(row, (MARGIN, top))
        top += row.height
    return picture


def _frames(strip: Path, count: int) -> list[Image.Image]:
    with Image.open(strip) as image:
        side = image.width // count
        return [image.convert("RGB").crop((n * side, 0, (n + 1) * side, image.height)) for n in range(count)]


def _row(sample: Sample) -> Image.Image:
    """The caption, below it a verdict for each length that was judged, side by side, and below them the frames."""
    first = sample.frames[0]
    width = len(sample.frames) * (first.width + GAP) - GAP
    columns = width // len(sample.wrong)
    row = Image.new("RGB", (width, HIGHEST_ROW), "white")
    below_caption = _write(row, 0, 6, sample.caption, CAPTION, svg.INK)
    size, line, characters = VERDICT
    below = below_caption
    for column, (length, parts) in enumerate(sample.wrong.items()):
        words = f"{length} frames: {', '.join(parts)} wrong" if parts else f"{length} frames: all right"
        font = (size, line, characters // len(sample.wrong))
        below = max(below, _write(row, column * columns, below_caption, words, font, WRONG if parts else RIGHT))
    for number, frame in enumerate(sample.frames):
        row.paste(frame, (number * (first.width + GAP), below + GAP))
    return row.crop((0, 0, width, below + GAP + first.height + BELOW))


def _write(picture: Image.Image, left: int, top: int, words: str, font: tuple[int, int, int], colour: str) -> int:
    """Writes words in as many lines as they need; where the next line would begin. The font is Pillow's own."""
    size, height, characters = font
    for line in wrap(words, characters):
        ImageDraw.Draw(picture).text((left, top), line, colour, ImageFont.load_default(size))
        top += height
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Draws the sheet of an evaluation."""
    parser = argparse.ArgumentParser(prog="python -m docs.figures.samples", description="A sheet of samples as WebP.")
    parser.add_argument("evaluation", type=Path, help="the output folder of rayramid eval")
    parser.add_argument("picture", type=Path, help="the WebP file to write")
    parser.add_argument(
        "--count",
        type=int,
        default=8,
        choices=range(1, STRIPS + 1),
        metavar="N",
        help=f"the first videos, up to the {STRIPS} that an evaluation keeps",
    )
    given = parser.parse_args(arguments)
    results = given.evaluation / "results.json"
    if not results.is_file():
        parser.error(f"{given.evaluation}: no evaluation here; `rayramid eval infra/specs/eval-sprites.yaml` makes one")
    model = json.loads(results.read_text(encoding="utf-8"))["model"]
    words = f"Preset {model['preset']} after {model['step']:,} steps"
    sheet(samples(given.evaluation, given.count), words).save(given.picture, "WEBP", quality=85)


if __name__ == "__main__":
    main()

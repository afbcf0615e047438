"""A blind comparison side by side: a static page with pairs of videos, and the key that says which model made which.

DIR/index.html      the page; opened from disk or put on any web server
DIR/videos/         copies under names that tell nothing, without what files say of themselves
DIR.key.json        the key, which stays at home
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import av
import numpy as np

from rayramid.models.errors import UserError

# The paper's user study asks these three of every pair.
QUESTIONS: Mapping[str, str] = {
    "aesthetics": "Which video looks better?",
    "motion": "Which video moves more smoothly and naturally?",
    "text": "Which video fits the text better?",
}
PAGE = Path(__file__).with_name("page.html")
PLACE = "__STUDY__"


@dataclass(frozen=True)
class Pair:
    """Two videos of one prompt: which models made the left and the right one, and under which names they are shown."""

    id: str
    prompt: str
    left: str
    right: str
    left_file: str
    right_file: str


@dataclass(frozen=True)
class Key:
    """What the page does not tell: its pairs with their models."""

    study: str
    seed: int
    pairs: tuple[Pair, ...]

    @classmethod
    def read(cls, path: Path) -> "Key":
        """The key in a file; UserError if there is none."""
        if not path.is_file():
            raise UserError(f"{path}: no such key; 'rayramid preference make' writes it beside the page's folder")
        said = json.loads(path.read_text(encoding="utf-8"))
        return cls(said["study"], said["seed"], tuple(Pair(**pair) for pair in said["pairs"]))


def make_study(models: Mapping[str, Path], folder: Path, seed: int, most: int | None = None) -> Path:
    """Writes the page and its key; the key's path.

    Every two models meet on every prompt that both have a video of. The seed draws which prompts, sides and order.

    Args:
        models: by name a folder of videos, or the output of a suite.
        folder: of the page; nothing may be there.
        seed: of the draw.
        most: prompts, at most.

    Raises:
        UserError: fewer than two models, no video that all have, or something in the folder.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; votes of one study must not meet another's page")
    if len(models) < 2:
        raise UserError("a comparison needs two models at least: --of NAME=DIR --of OTHER=DIR")
    found = {name: _videos(place) for name, place in models.items()}
    common = sorted(set.intersection(*(set(videos) for videos in found.values())))
    if not common:
        raise UserError(f"{', '.join(map(str, models.values()))}: no video is in all of them by the same name")
    draw = np.random.default_rng(seed)
    chosen = [common[number] for number in sorted(draw.permutation(len(common))[:most].tolist())]
    prompts = _prompts(models.values())
    blind = {(name, file): f"{secrets.token_hex(8)}.mp4" for name in models for file in chosen}
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    for (name, file), shown in blind.items():
        _copy_blind(found[name][file], folder / "videos" / shown)
    pairs = [
        Pair(
            secrets.token_hex(4),
            prompts.get(file, _prompt_of(file)),
            left,
            right,
            blind[left, file],
            blind[right, file],
        )
        for file in chosen
        for two in combinations(models, 2)
        for left, right in [two if draw.random() < 0.5 else two[::-1]]
    ]
    key = Key(secrets.token_hex(8), seed, tuple(pairs[number] for number in draw.permutation(len(pairs))))
    (folder / "index.html").write_text(page_of(key), encoding="utf-8")
    path = folder.with_name(f"{folder.name}.key.json")
    path.write_text(json.dumps(asdict(key), indent=1) + "\n", encoding="utf-8")
    return path


def page_of(key: Key) -> str:
    """The page: everything of the key but the models."""
    study: dict[str, Any] = {
        "study": key.study,
        "questions": QUESTIONS,
        "pairs": [
            {"id": pair.id, "prompt": pair.prompt, "left": pair.left_file, "right": pair.right_file}
            for pair in key.pairs
        ],
    }
    # A prompt must not end the element that it stands in.
    return PAGE.read_text(encoding="utf-8").replace(PLACE, json.dumps(study).replace("<", "\\u003c"))


def _videos(place: Path) -> dict[str, Path]:
    """The videos of a folder or a suite's output, by file name."""
    inner = place / "videos"
    videos = sorted((inner if inner.is_dir() else place).glob("*.mp4"))
    if not videos:
        raise UserError(f"{place}: no mp4 files here")
    return {video.name: video for video in videos}


def _prompts(places: Iterable[Path]) -> dict[str, str]:
    """Prompts by file name, of those places that are a suite's output."""
    manifests = [place / "manifest.json" for place in places if (place / "manifest.json").is_file()]
    return {
        video["file"]: video["prompt"]
        for manifest in manifests
        for video in json.loads(manifest.read_text(encoding="utf-8"))["videos"]
    }


def _prompt_of(file: str) -> str:
    """What VBench's names say: `{prompt}-{sample}.mp4`."""
    stem = file.removesuffix(".mp4")
    prompt, dash, sample = stem.rpartition("-")
    return prompt if dash and sample.isdigit() else stem


def _copy_blind(source: Path, target: Path) -> None:
    """The same picture packets in a new file, without metadata and sound."""
    try:
        with av.open(str(source)) as before, av.open(str(target), "w", options={"movflags": "faststart"}) as after:
            track = before.streams.video[0]
            copy = after.add_stream_from_template(track)
            for packet in before.demux(track):
                if packet.dts is not None:
                    packet.stream = copy
                    after.mux(packet)
    except (av.FFmpegError, IndexError) as error:
        raise UserError(f"{source}: not a video that can be copied ({error})") from None

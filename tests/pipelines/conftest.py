"""Small real files for the pipelines' tests, roots of both kinds (a folder and a bucket), models and who writes."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from caption_server import Server
from numpy.typing import NDArray

from rayramid.models.media.write import write_mp4


@pytest.fixture(params=["folder", "bucket"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "folder" else request.getfixturevalue("s3_bucket")


@pytest.fixture
def caption_server() -> Iterator[Server]:
    """Writes captions of pictures."""
    running = Server()
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seeded CLIP of 32 pixels."""
    # It imports what most tests here do not need, and takes seconds.
    from tiny_clip import write_tiny_clip

    return write_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def two_shots(tmp_path: Path) -> Path:
    """24 fps: 24 frames of a bright moving box, then 24 of a dark one on another ground."""
    return _write(tmp_path / "two_shots.mp4", np.concatenate([_moving((200, 60, 40)), _moving((30, 40, 120))]))


@pytest.fixture
def write_clip(tmp_path: Path) -> Callable[[str, NDArray[np.uint8]], Path]:
    return lambda name, frames: _write(tmp_path / name, frames)


def _write(path: Path, frames_THWC: NDArray[np.uint8]) -> Path:
    write_mp4(path, frames_THWC, 24.0)
    return path


def _moving(ground: tuple[int, int, int], frames: int = 24) -> NDArray[np.uint8]:
    video = np.empty((frames, 64, 96, 3), np.uint8)
    video[:] = ground
    for number in range(frames):
        video[number, 20:44, 2 + 2 * number : 26 + 2 * number] = 240
    return video

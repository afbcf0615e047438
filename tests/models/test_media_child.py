"""The decode child: the same frames, and whatever happens to it costs one file only."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from media_files import make_video, number_of

from rayramid.models.media.child import DecodeChild
from rayramid.models.media.errors import DecodeError
from rayramid.models.media.read import frame_times, probe, read_frames


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_video(tmp_path / "a.mp4", range(100), options={"g": "10"})


def pid_of(child: DecodeChild) -> int:
    assert child._process is not None
    return child._process.pid


def test_the_child_gives_what_reading_here_gives(path: Path) -> None:
    with DecodeChild() as child:
        assert child.probe(path) == probe(path)
        assert np.array_equal(child.frame_times(path), frame_times(path))
        for arguments in [(0, None, None, 64, None), (400, 2000, 10, 7, (32, 48))]:
            here = np.concatenate(list(read_frames(path, *arguments)))
            there = np.concatenate(list(child.read_frames(path, *arguments)))
            assert np.array_equal(here, there)


def test_a_bad_file_is_an_error_with_its_reason_and_the_same_child_goes_on(path: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with DecodeChild() as child:
        child.probe(path)
        before = pid_of(child)
        with pytest.raises(DecodeError, match=r"text\.mp4: not a video") as caught:
            list(child.read_frames(tmp_path / "text.mp4"))
        assert caught.value.reason == "not a video"
        assert child.probe(path).frames == 100
        assert pid_of(child) == before


def test_a_child_that_hangs_is_killed_at_the_deadline_and_another_goes_on(path: Path) -> None:
    with DecodeChild(deadline_s=0.5) as child:
        child.probe(path)
        hung = pid_of(child)
        os.kill(hung, signal.SIGSTOP)
        start = time.monotonic()
        with pytest.raises(DecodeError) as caught:
            child.probe(path)
        assert caught.value.reason == "deadline"
        assert time.monotonic() - start < 10
        with pytest.raises(ProcessLookupError):
            os.kill(hung, 0)
        assert child.probe(path).frames == 100


def test_a_child_that_dies_is_an_error_and_another_goes_on(path: Path) -> None:
    with DecodeChild() as child:
        windows = child.read_frames(path, window=8)
        assert number_of(next(windows)[0]) == 0
        os.kill(pid_of(child), signal.SIGKILL)
        with pytest.raises(DecodeError) as caught:
            list(windows)
        assert caught.value.reason == "crashed"
        assert len(list(child.read_frames(path, window=50))) == 2


def test_leaving_a_read_early_does_not_disturb_the_next(path: Path) -> None:
    with DecodeChild() as child:
        for window in child.read_frames(path, window=4):
            assert number_of(window[0]) == 0
            break
        assert number_of(next(iter(child.read_frames(path, 2000, window=4)))[0]) == 50


def test_the_child_ends_with_its_parent_and_needs_no_main_guard(path: Path, tmp_path: Path) -> None:
    # A script without `if __name__ == "__main__"`, beside files that shadow the standard library.
    (tmp_path / "random.py").write_text("raise RuntimeError('shadowed')")
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, sys
        sys.path.remove({str(tmp_path)!r})
        from rayramid.models.media.child import DecodeChild
        child = DecodeChild()
        print(child.probe({str(path)!r}).frames, child._process.pid, flush=True)
        os._exit(1)
    """)
    )
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    frames, pid = done.stdout.split()
    assert frames == "100"
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")

import subprocess
import sys
import tempfile

import pytest

from rayramid.pipelines.scratch import Scratch

OWNER = """
import sys
from rayramid.pipelines.scratch import Scratch
scratch = Scratch()
(scratch.path / "copy").write_bytes(b"x")
print(scratch.path, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_place(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def folders(tmp_path):
    return {str(path) for path in tmp_path.iterdir()}


def test_what_a_killed_process_left_goes_and_what_a_living_one_has_stays(tmp_path):
    owners = [
        subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    killed, living = (owner.stdout.readline().strip() for owner in owners)
    owners[0].kill()
    owners[0].wait()
    assert folders(tmp_path) == {killed, living}, "a killed process removes nothing"
    mine = Scratch()
    assert folders(tmp_path) == {living, str(mine.path)}
    assert (tmp_path / living / "copy").exists()
    owners[1].communicate()
    mine.close()
    assert folders(tmp_path) == set()

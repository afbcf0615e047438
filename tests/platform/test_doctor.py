"""What the doctor says of machines: of numbers by hand, and of this one and real stores."""

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rayramid.platform.doctor import machine, software, storage
from rayramid.platform.doctor.finding import GIB, Finding


def test_docker_s_64_mib_of_shared_memory_fail_and_the_advice_says_how_to_have_more() -> None:
    found = machine.shared_memory(total=64 * 2**20)
    assert (found.verdict, found.found) == ("fail", "0.1 GiB at /dev/shm")
    assert "--shm-size" in found.advice
    assert machine.shared_memory(total=GIB).verdict == "warn"
    assert machine.shared_memory(total=4 * GIB).verdict == "ok"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (machine.memory(available=GIB), "fail"),
        (machine.memory(available=3 * GIB), "warn"),
        (machine.memory(available=64 * GIB), "ok"),
        (machine.disk(Path("/tmp"), free=GIB // 2), "fail"),
        (machine.disk(Path("/tmp"), free=5 * GIB), "warn"),
        (machine.open_files(limit=256), "fail"),
        (machine.open_files(limit=65536), "ok"),
        (machine.sockets(Path("/nowhere")), "fail"),
        (software.python((3, 10, 4)), "fail"),
    ],
)
def test_too_little_fails_little_warns_and_only_enough_has_no_advice(found: Finding, verdict: str) -> None:
    assert found.verdict == verdict
    assert bool(found.advice) == (verdict != "ok")


def test_a_taken_port_is_named_with_its_use() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert machine.ports([port]).found == f"taken: {port} (asked for)"
    assert machine.ports([port]).verdict == "ok"


def test_a_requirement_that_is_not_met_is_told_with_the_command_that_mends_it() -> None:
    found = software.packages(["ray>=99", "no-such-package", "torch>=2; python_version < '3'", "numpy>=2"])
    assert found.verdict == "fail"
    assert found.found.startswith("ray 2.")
    assert found.found.endswith(" where >=99 is needed, no-such-package is missing")
    assert found.advice == "pip install 'ray>=99' 'no-such-package'"


def test_a_bucket_that_can_be_written_is_left_as_it_was(s3_bucket: str) -> None:
    from rayramid.models import storage as stores

    assert storage.place(s3_bucket).verdict == "ok"
    assert list(stores.list_files(s3_bucket)) == []


def test_a_bucket_that_is_not_there_fails_in_one_line(s3_bucket: str) -> None:
    found = storage.place("s3://no-such-bucket/x")
    assert found.verdict == "fail"
    assert "\n" not in found.found


def test_a_folder_that_cant_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert storage.place(str(tmp_path / "file" / "below")).verdict == "fail"


def test_the_command_tells_of_this_machine_and_its_exit_code_of_failures(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, "-m", "rayramid.platform.cli", "doctor", "--json", "--storage", str(tmp_path / "file/x")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert done.returncode == 3, done.stderr
    assert found["codecs"]["verdict"] == found["packages"]["verdict"] == "ok"
    assert "frames written and read" in found["decoding"]["found"] or found["decoding"]["verdict"] == "warn"
    assert found[f"storage {tmp_path / 'file/x'}"]["verdict"] == "fail"

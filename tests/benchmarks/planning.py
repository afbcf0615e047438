"""What a driver needs for many clips: `python tests/benchmarks/planning.py`; some ten minutes.

The corpus is metadata alone: no video is there, every job's results are made up, and no Ray runs, so only planning,
looking up and publishing are left. Prints one JSON line per measure:
- planning: peak resident MB and seconds, at 10,000 and at 100,000 clips, of the run that makes the first version
  (`first`; its seconds also hold the making up) and of another that finds nothing to do (`again`).
- planning_per_clip: kB that one clip more adds to the larger of the peaks.
"""

import json
import logging
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))
import unseen

CLIPS = (10_000, 100_000)


def main() -> None:
    peaks = []
    for clips in CLIPS:
        with tempfile.TemporaryDirectory() as folder:
            peaks.append(max(measured(folder, clips, run)["driver_mb"] for run in ("first", "again")))
    few, many = peaks
    say({"measure": "planning_per_clip", "kb": round((many - few) * 1024 / (CLIPS[1] - CLIPS[0]), 3)})


def measured(folder: str, clips: int, run: str) -> dict[str, Any]:
    """One run in a process of its own, since a peak never goes down."""
    command = [sys.executable, __file__, folder, str(clips), run]
    found: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    say(found)
    return found


def measure(folder: Path, clips: int, run: str) -> None:
    summary = unseen.run(unseen.spec(folder, clips))
    assert summary.kept == clips
    assert summary.new_version is (run == "first")
    say({"measure": "planning", "run": run, "clips": clips, "driver_mb": peak_mb(), "seconds": summary.seconds})


def peak_mb() -> int:
    fields = Path("/proc/self/status").read_text().splitlines()
    return next(int(field.split()[1]) // 1024 for field in fields if field.startswith("VmHWM"))


def say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main()

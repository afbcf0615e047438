"""Runs benchmarks and keeps what they print: `python tests/support/record.py docs/results/benchmarks.json NAME ...`.

NAME is a file of tests/benchmarks/, such as `models`. Every line goes to the terminal as it comes; the file gets
all of them, with what made them.
"""

import json
import subprocess
import sys
from pathlib import Path

from rayramid.models.checkpoint import git_revision
from rayramid.platform.evaluation.record import machine


def main(file: Path, names: list[str]) -> None:
    """Runs the benchmarks one after another; CalledProcessError when one of them fails."""
    measures = []
    for name in names:
        command = [sys.executable, str(Path(__file__).parents[1] / "benchmarks" / f"{name}.py")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            for line in running.stdout:
                if line.startswith("{"):
                    sys.stdout.write(line)
                    measures.append({"benchmark": name, **json.loads(line)})
        if running.returncode:
            raise subprocess.CalledProcessError(running.returncode, command)
    made_by = {
        "command": " ".join(["python tests/support/record.py", str(file), *names]),
        "revision": git_revision(),
        "seed": 0,
        "machine": machine(),
    }
    file.write_text(json.dumps(made_by | {"measures": measures}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

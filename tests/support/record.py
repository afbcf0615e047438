"""Runs benchmarks and keeps what they print: `python tests/support/record.py docs/results/benchmarks.json NAME ...`.

NAME is a file of tests/benchmarks/, such as `models`. Every line goes to the terminal as it comes; the file gets, for
each of them, all lines with what made them. What it holds of other benchmarks stays.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rayramid.platform.evaluation.record import made_by


def record(name: str) -> dict[str, Any]:
    """Runs one benchmark; CalledProcessError when it fails."""
    file = f"tests/benchmarks/{name}.py"
    measures = []
    with subprocess.Popen([sys.executable, file], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("{"):
                sys.stdout.write(line)
                measures.append(json.loads(line))
    if running.returncode:
        raise subprocess.CalledProcessError(running.returncode, file)
    return made_by(f"python {file}") | {"measures": measures}


def main(file: Path, names: list[str]) -> None:
    """Runs the benchmarks one after another, from the checkout's folder."""
    found = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    for name in names:
        found[name] = record(name)
        file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

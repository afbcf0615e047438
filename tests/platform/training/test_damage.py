"""A file of the dataset that is missing or corrupt: named, and the end of the run; or left out, counted, the same
everywhere."""

import pickle
import sys
from pathlib import Path

import pytest
import torch

from rayramid.models.errors import UserError
from rayramid.pipelines import manifest
from rayramid.pipelines.dataset import DamagedError
from rayramid.platform.training.loop import Run, run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import settle

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import KILLED, train_in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))


@pytest.fixture
def damaged(fresh_dataset):
    """A dataset of six videos, one of which is corrupt; and its file."""
    index = manifest.read_index(fresh_dataset, manifest.read(fresh_dataset)).to_pylist()
    place = next(row for row in index if row["kind"] == "video" and row["split"] == "train")
    file = Path(fresh_dataset, place["file"])
    data = bytearray(file.read_bytes())
    data[place["offset"] + 5] ^= 1
    file.write_bytes(data)
    return fresh_dataset, str(file)


def silent(step, record):
    pass


def lines(output):
    return [record for record in read_metrics(output) if "loss" in record]


def told(output):
    return [(line["step"], line["loss"], line["stages"], line["damaged"]) for line in lines(output)]


def test_a_corrupt_file_is_named_and_ends_the_run(spec, damaged):
    root, file = damaged
    with pytest.raises(UserError, match=f"{file}: not the bytes that version 1 was made with"):
        run(settle(spec(phase={"data": [root]})), ALONE, silent)


def test_damage_is_told_in_full_from_another_process():
    error = pickle.loads(pickle.dumps(DamagedError("s3://data/part.parquet", "missing")))
    assert (str(error), error.file) == ("s3://data/part.parquet: missing", "s3://data/part.parquet")


def test_a_missing_file_is_named_and_ends_the_run(spec, fresh_dataset):
    file = next(Path(fresh_dataset, "latents").rglob("*.parquet"))
    file.unlink()
    with pytest.raises(UserError, match=f"{file}: missing, version 1 lists it"):
        run(settle(spec(phase={"data": [fresh_dataset]})), ALONE, silent)


def test_where_nothing_can_be_read_a_run_ends_even_if_it_may_skip(spec, fresh_dataset):
    file = next(Path(fresh_dataset, "latents").rglob("*.parquet"))
    file.unlink()
    with pytest.raises(UserError, match=f"no clip of step 1 can be read; the first damaged: {file}"):
        run(settle(spec(phase={"data": [fresh_dataset]}, damaged_clips="skip")), ALONE, silent)


def test_skipped_clips_are_named_and_counted_and_the_loss_is_the_mean_of_the_others(spec, damaged):
    root, file = damaged
    fields = {"checkpoints": {"every": 4}, "validation": {"every": 8}, "log_every": 4}
    here = Run(settle(spec(phase={"data": [root], "steps": 8}, damaged_clips="skip", **fields)), ALONE)
    shares = [share for _, _, share in here.shares(0)]
    expected = [sum(each.units for each in share.damaged) for share in shares]
    assert any(expected)
    assert [share.units - lost for share, lost in zip(shares, expected, strict=True)] == [
        sum(clip.units for clips, weight in zip(share.bins, share.weights, strict=True) if weight for clip in clips)
        for share in shares
    ]
    run(here.spec, ALONE, silent)
    first, second = lines(here.spec.output)
    assert [line["damaged"] for line in (first, second)] == [
        sum(len(share.damaged) for share in part) for part in (shares[:4], shares[4:])
    ]
    assert {*first["damaged_files"], *second["damaged_files"]} == {file}


@pytest.mark.slow
def test_skipping_is_the_same_on_two_ranks_that_die_as_on_one_that_lives(spec, damaged, tmp_path):
    root, _ = damaged
    (tmp_path / "meetings").mkdir()
    fields = {"precision": "float64", "damaged_clips": "skip", "phase": {"data": [root], "bins_per_step": 3}}
    one, two = (settle(spec(output=str(tmp_path / name), **fields)) for name in ("one", "two"))
    run(one, ALONE, silent)
    assert KILLED in train_in_processes(two, 2, tmp_path / "meetings", die_at=3)
    assert train_in_processes(two, 2, tmp_path / "meetings") == [0, 0]
    assert sum(damaged for *_, damaged in told(one.output)) > 0
    for (step, loss, table, count), (step_two, loss_two, table_two, count_two) in zip(
        told(one.output), told(two.output), strict=True
    ):
        assert (step, count) == (step_two, count_two)
        assert loss_two == pytest.approx(loss, rel=1e-10)
        assert table_two["0"] == pytest.approx(table["0"], rel=1e-10)

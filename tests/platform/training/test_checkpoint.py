"""Checkpoints: exact, committed in one instant, pruned; half ones are never read."""

import pickle
import sys
from enum import Enum
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from rayramid.models import storage
from rayramid.models.errors import UserError
from rayramid.platform.training import checkpoint as checkpoints
from rayramid.platform.training.checkpoint import Checkpoint, TakenError
from rayramid.platform.training.checkpoint_pickles import read_table
from rayramid.platform.training.ema import EMA
from rayramid.platform.training.optimizer import build_optimizers, set_learning_rate
from rayramid.platform.training.spec.optimizer import Optimizer
from rayramid.platform.training.state import TrainState

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes


def fresh(kind="adamw", seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
    return TrainState(model, build_optimizers(model, [model[0]], Optimizer(kind=kind)), EMA(model, 0.9))


def advance(state, steps):
    for _ in range(steps):
        x = torch.arange(8.0).view(2, 4) + state.step
        state.model(x).square().mean().backward()
        set_learning_rate(state.optimizers, 0.01)
        for optimizer in state.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        state.step += 1
        state.ema.update(state.step)


def save(folder, state, step=None, attempt="aa"):
    step = state.step if step is None else step
    told = Checkpoint(step, state.skipped, {"kind": "train"}, "", 1, data=f"step-{step:08d}.{attempt}")
    checkpoints.save(folder, state.tensors(), told)


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit", "muon"])
def test_a_loaded_state_goes_on_bit_for_bit(tmp_path, kind):
    undisturbed = fresh(kind)
    advance(undisturbed, 3)
    undisturbed.skipped = 2
    save(str(tmp_path), undisturbed)
    advance(undisturbed, 4)

    resumed = fresh(kind, seed=1)
    found = checkpoints.latest(str(tmp_path))
    tensors = resumed.tensors()
    checkpoints.load(str(tmp_path), found, tensors, alone=True)
    resumed.restore(tensors, found.step, found.skipped)
    assert (resumed.step, resumed.skipped) == (3, 2)
    advance(resumed, 4)

    for name, weight in undisturbed.model.named_parameters():
        assert torch.equal(weight, dict(resumed.model.named_parameters())[name])
        assert torch.equal(undisturbed.ema.average[name], resumed.ema.average[name])


def test_without_its_marker_a_checkpoint_does_not_exist(tmp_path):
    state = fresh()
    save(str(tmp_path), state, 10)
    save(str(tmp_path), state, 20)
    (tmp_path / "step-00000020.json").unlink()
    assert checkpoints.latest(str(tmp_path)).step == 10
    assert checkpoints.latest(str(tmp_path / "nothing")) is None


def test_a_damaged_file_is_named(tmp_path):
    save(str(tmp_path), fresh(), 10)
    file = tmp_path / "step-00000010.aa" / "__0_0.distcp"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"__0_0\.distcp: missing or damaged.*step-00000010\.json"):
        checkpoints.load(str(tmp_path), checkpoints.latest(str(tmp_path)), fresh().tensors(), alone=True)


class Attack:
    """Unpickled without a check, it makes a file."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return (Path.touch, (Path(self.file),))


def test_a_checkpoints_table_that_would_run_code_is_not_unpickled(tmp_path):
    save(str(tmp_path), fresh(), 10)
    table = tmp_path / "step-00000010.aa" / ".metadata"
    honest = pickle.loads(table.read_bytes())
    honest.planner_data = Attack(tmp_path / "attacked")
    table.write_bytes(pickle.dumps(honest))
    found = checkpoints.latest(str(tmp_path))
    found.files[".metadata"] = table.stat().st_size
    with pytest.raises(UserError, match=r"\.metadata: .*more than a checkpoint's table"):
        checkpoints.load(str(tmp_path), found, fresh().tensors(), alone=True)
    assert not (tmp_path / "attacked").exists()


class _Older(pickle.Pickler):
    """Names members of enumerations as Python 3.11.2 does."""

    def reducer_override(self, thing):
        return (getattr, (type(thing), thing.name)) if isinstance(thing, Enum) else NotImplemented


class _Attribute:
    """Unpickled, it is an attribute of a class that a table may name."""

    def __reduce__(self):
        return getattr, (Path, "home")


def test_a_table_that_an_older_python_wrote_is_read_and_its_way_to_attributes_leads_to_no_others(tmp_path):
    save(str(tmp_path), fresh(), step=1)
    path = tmp_path / "step-00000001.aa" / ".metadata"
    table = read_table(path)
    with path.open("wb") as file:
        _Older(file).dump(table)
    assert b"getattr" in path.read_bytes()
    assert read_table(path) == table
    path.write_bytes(pickle.dumps(_Attribute()))
    with pytest.raises(UserError, match=r"builtins\.getattr of home"):
        read_table(path)


def test_a_value_in_a_checkpoint_that_would_run_code_is_not_unpickled(tmp_path):
    state = fresh().tensors()
    state["optimizer"] = {"rate": Attack(tmp_path / "attacked")}
    checkpoints.save(str(tmp_path), state, Checkpoint(10, 0, {}, "", 1, data="step-00000010.aa"))
    with pytest.raises(UserError, match=r"optimizer\.rate: the checkpoint holds more than tensors and numbers"):
        checkpoints.load(str(tmp_path), checkpoints.latest(str(tmp_path)), state, alone=True)
    assert not (tmp_path / "attacked").exists()


def test_two_runs_cannot_commit_the_same_step(tmp_path):
    save(str(tmp_path), fresh(), 10, attempt="aa")
    with pytest.raises(TakenError, match="committed by another run"):
        save(str(tmp_path), fresh(), 10, attempt="bb")
    assert checkpoints.latest(str(tmp_path)).data == "step-00000010.aa"


def test_pruning_keeps_the_last_the_multiples_and_what_may_be_under_way(tmp_path):
    state = fresh()
    for step in (10, 20, 30, 40, 50):
        save(str(tmp_path), state, step)
    for step in (40, 60):
        # Attempts that died: the one at 40 was overtaken, the one at 60 might be another group of workers, still dying.
        (tmp_path / f"step-{step:08d}.dd").mkdir()
        (tmp_path / f"step-{step:08d}.dd" / "__0_0.distcp").write_bytes(b"half")
    checkpoints.prune(str(tmp_path), keep_last=2, keep_every=20)
    assert [c.step for c in checkpoints.committed(str(tmp_path))] == [20, 40, 50]
    kept = ["step-00000020.aa", "step-00000040.aa", "step-00000050.aa", "step-00000060.dd"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == kept


def test_a_run_or_one_of_its_checkpoints_is_found_by_name(tmp_path):
    folder = str(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="checkpoints: no checkpoint yet"):
        checkpoints.find(str(tmp_path))
    for step in (10, 20):
        save(folder, fresh(), step)
    assert checkpoints.find(str(tmp_path))[1].step == 20
    for name in ("step-00000010", "step-00000010.json", "step-00000010/"):
        assert checkpoints.find(f"{folder}/{name}") == (folder, checkpoints.committed(folder)[0])
    with pytest.raises(UserError, match=r"step-00000030: no such checkpoint; there are \[10, 20\]"):
        checkpoints.find(f"{folder}/step-00000030")


def test_checkpoints_live_on_s3(s3_bucket):
    folder = storage.join(s3_bucket, "run", "checkpoints")
    state = fresh()
    advance(state, 2)
    save(folder, state)
    resumed = fresh(seed=1)
    tensors = resumed.tensors()
    checkpoints.load(folder, checkpoints.latest(folder), tensors, alone=True)
    resumed.restore(tensors, 2, 0)
    assert torch.equal(resumed.model[0].weight, state.model[0].weight)
    checkpoints.prune(folder, keep_last=1, keep_every=None)
    assert checkpoints.latest(folder).step == 2


def write_apart(rank, folder, elsewhere):
    """The second rank writes to another place: a folder of its own, or no folder at all."""
    told = Checkpoint(7, 0, {}, "", 2, data="step-00000007.aa")
    tensors = {"model": {f"of_{rank}": torch.full((4,), float(rank))}}
    with pytest.raises(UserError, match=r"not all workers write to the same storage|is a file, a folder is needed"):
        checkpoints.save((folder, elsewhere)[rank], tensors, told, dist.group.WORLD)


@pytest.mark.parametrize("elsewhere", ["another", "file"])
def test_what_one_rank_cannot_write_is_committed_by_none(tmp_path, elsewhere):
    (tmp_path / "file").write_text("")
    in_processes(write_apart, 2, tmp_path, str(tmp_path / "shared"), str(tmp_path / elsewhere))
    assert checkpoints.committed(str(tmp_path / "shared")) == []
    assert checkpoints.committed(str(tmp_path / "another")) == []

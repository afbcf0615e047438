"""From two ranks to one and back: the same global batches, and the same numbers as nearly as they can be."""

import hashlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from rayramid.models.objective import training_pack
from rayramid.platform.training.late import NothingBeside
from rayramid.platform.training.loop import Run, Work
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.plan import phase_seed
from rayramid.platform.training.run import settle
from rayramid.platform.training.spec.hardware import Parallel
from rayramid.platform.training.spec.train import TrainSpec

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes


class Watched(Run):
    """A run that writes down, for every step, what each clip of this rank's packs looks like, noise included."""

    def __init__(self, spec: TrainSpec, ranks: Ranks) -> None:
        super().__init__(spec, ranks)
        self.seen: dict[int, list[str]] = {}

    def advance(self, work: Work) -> None:
        phase, _, share = work
        weights = [weight * self.mesh.leads for weight in share.weights]
        clips = [clip for packed, weight in zip(share.bins, weights, strict=True) if weight for clip in packed]
        self.seen[self.state.step] = [self.look(clip, phase) for clip in clips]
        super().advance(work)

    def look(self, clip, phase) -> str:
        seed = phase_seed(self.spec.seed, phase)
        pack, targets = training_pack((clip,), self.config, self.learner.pyramid, seed=seed)
        tensors = (*pack.contents, pack.pooled_QP, *targets.velocities)
        parts = [tensor.float().numpy().tobytes() for tensor in tensors]
        parts.append(repr([(s.kind, s.unit, s.level, s.timestep) for s in pack.segments]).encode())
        return hashlib.sha256(b"".join(parts)).hexdigest()


def go_on(rank, fields, until):
    """Trains from the newest checkpoint to step `until` and leaves one there, and what this rank saw beside it."""
    here = Watched(TrainSpec.model_validate(fields), Ranks.here(torch.device("cpu")))
    here.train(lambda step, record: None, lambda: "stop" if here.state.step == until else "", NothingBeside())
    Path(here.spec.output, f"seen-{until}-{rank}.json").write_text(json.dumps(here.seen))


def batches(output):
    """For every step, what all ranks saw, in an order of its own."""
    seen: dict[int, list[str]] = {}
    for file in Path(output).glob("seen-*.json"):
        for step, clips in json.loads(file.read_text()).items():
            seen.setdefault(int(step), []).extend(clips)
    return {step: sorted(clips) for step, clips in seen.items()}


def losses(output):
    return {record["step"]: record["loss"] for record in read_metrics(output) if "loss" in record}


def train(spec, worlds, tmp_path):
    """Trains on `worlds[step]` ranks up to each step."""
    for until, world in worlds.items():
        meeting = tmp_path / f"{Path(spec.output).name}-{until}"
        meeting.mkdir()
        in_processes(go_on, world, meeting, spec.model_dump(mode="json"), until)


# Three bins: on two ranks, the second runs a filler.
PHASE = {"bins_per_step": 3, "steps": 20}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_ranks_one_and_two_again_read_the_same_and_learn_the_same(spec, tmp_path):
    fields = {"precision": "float64", "phase": PHASE, "validation": {"every": 20}}
    one, changing = (settle(spec(output=str(tmp_path / name), **fields)) for name in ("one", "changing"))
    train(one, {20: 1}, tmp_path)
    train(changing, {7: 2, 14: 1, 20: 2}, tmp_path)
    assert batches(changing.output) == batches(one.output)
    assert set(batches(one.output)) == set(range(20))
    assert losses(changing.output) == pytest.approx(losses(one.output), rel=1e-10)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("before", "after", "sequence"), [(2, 1, 1), (1, 2, 1), (1, 2, 2)])
def test_in_bfloat16_the_first_loss_on_other_ranks_is_the_same_to_five_digits(spec, tmp_path, before, after, sequence):
    fields = {"precision": "bfloat16", "phase": PHASE, "validation": {"every": 20}}
    staying = settle(spec(output=str(tmp_path / "staying"), **fields))
    train(staying, {7: before}, tmp_path)
    shutil.copytree(staying.output, tmp_path / "changing")
    parallel = Parallel(sequence=sequence)
    changing = staying.model_copy(update={"output": str(tmp_path / "changing"), "parallel": parallel})
    train(staying, {8: before}, tmp_path)
    train(changing, {8: after}, tmp_path)
    assert batches(changing.output) == batches(staying.output)
    assert losses(changing.output)[8] == pytest.approx(losses(staying.output)[8], rel=1e-5)
    assert losses(changing.output)[1] == pytest.approx(losses(staying.output)[1], rel=1e-5)

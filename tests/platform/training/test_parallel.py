"""However the ranks divide the work, a run computes what one rank alone computes."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from devices import on_cuda
from torch.distributed.tensor.debug import CommDebugMode

from rayramid.models.errors import UserError
from rayramid.platform.training.learner import Learner
from rayramid.platform.training.loop import Run, run
from rayramid.platform.training.metrics import read_metrics
from rayramid.platform.training.parallel import Ranks
from rayramid.platform.training.run import dry_run, settle
from rayramid.platform.training.spec.hardware import Memory, Parallel
from rayramid.platform.training.spec.train import TrainSpec
from rayramid.platform.training.tally import Tally

# Spawned processes import the module by name.
sys.path.insert(0, str(Path(__file__).parent))
from processes import in_processes

ALONE = Ranks(1, 0, torch.device("cpu"))


pytestmark = pytest.mark.usefixtures("one_thread")


def silent(step, record):
    pass


def told(output):
    """All losses and norms, step by step."""
    names = ("loss", "stages", "noise_bins", "gradient_norm", "validation_loss", "validation_stages")
    return [flat({name: record[name] for name in names if name in record}) for record in read_metrics(output)]


def flat(record, prefix=""):
    found = {}
    for key, value in record.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found


def final_weights(spec):
    """Model and average of the newest checkpoint."""
    own = Run(spec.model_copy(update={"parallel": Parallel(), "memory": Memory()}), ALONE)
    own.resume()
    return {f"model.{k}": v for k, v in own.learner.model.state_dict().items()} | {
        f"ema.{k}": v for k, v in own.state.ema.average.items()
    }


def assert_same_run(found, expected):
    for now, before in zip(told(found.output), told(expected.output), strict=True):
        assert now == {k: pytest.approx(v, rel=1e-10) if isinstance(v, float) else v for k, v in before.items()}
    weights = final_weights(expected)
    for name, weight in final_weights(found).items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-10, atol=1e-12, msg=name)


def train_all(rank, specs):
    for fields in specs:
        run(TrainSpec.model_validate(fields), Ranks.here(torch.device("cpu")), silent)


# Three bins: with two readers, the second has one fewer and runs a filler.
RUN = {"precision": "float64", "phase": {"bins_per_step": 3, "steps": 3}, "checkpoints": {"every": 3}}


def test_two_ranks_compute_what_one_does_however_they_divide_it(spec, tmp_path):
    layouts = {
        "copies": {"parallel": {"shard": 1}},
        "sequence": {"parallel": {"sequence": 2}, "memory": {"recompute": "selective"}},
        "offloaded": {"memory": {"recompute": "full", "offload_weights": True, "offload_activations": True}},
    }
    alone = settle(spec(output=str(tmp_path / "alone"), **RUN))
    run(alone, ALONE, silent)
    divided = [settle(spec(output=str(tmp_path / name), **RUN, **layout)) for name, layout in layouts.items()]
    in_processes(train_all, 2, tmp_path, [each.model_dump(mode="json") for each in divided])
    for each in divided:
        assert_same_run(each, alone)


def train_on_gpus(rank, specs):
    torch.cuda.set_device(rank)
    for fields in specs:
        run(TrainSpec.model_validate(fields), Ranks.here(torch.device("cuda", rank)), silent)


@pytest.mark.parametrize("device", [on_cuda(2)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_gpus_over_nccl_compute_what_a_cpu_does(spec, tmp_path, precision, device):
    layouts = {
        "shards": {},
        "sequence": {"parallel": {"sequence": 2}, "memory": {"recompute": "selective"}},
        "compiled": {"compile": True},
    }
    fields = {**RUN, "precision": "float32"}
    alone = settle(spec(output=str(tmp_path / "alone"), **fields))
    run(alone, ALONE, silent)
    fields["precision"] = precision
    divided = [settle(spec(output=str(tmp_path / name), **fields, **layout)) for name, layout in layouts.items()]
    specs = [each.model_dump(mode="json") for each in divided]
    in_processes(train_on_gpus, 2, tmp_path, specs, backend="cpu:gloo,cuda:nccl")
    within = {"float32": 2e-3, "bfloat16": 3e-2}[precision]
    for each in divided:
        for now, before in zip(told(each.output), told(alone.output), strict=True):
            if "loss" in before:
                assert now["loss"] == pytest.approx(before["loss"], rel=within), each.output


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_four_ranks_with_copies_of_shards_and_split_packs_compute_what_one_does(spec, tmp_path):
    alone = settle(spec(output=str(tmp_path / "alone"), **RUN))
    run(alone, ALONE, silent)
    parallel = {"shard": 2, "sequence": 2}
    divided = settle(spec(output=str(tmp_path / "divided"), **RUN, parallel=parallel))
    in_processes(train_all, 4, tmp_path, [divided.model_dump(mode="json")])
    assert_same_run(divided, alone)


def step_once(rank, fields):
    """One step, and the gradient that it took; nothing is validated or saved."""
    spec = TrainSpec.model_validate(fields)
    here = Run(spec, Ranks.here(torch.device("cpu")))
    phase, local, share = next(here.shares(0))
    here.learner.step(phase, local, share, Tally())
    weights = {name: weight.full_tensor() for name, weight in here.learner.model.named_parameters()}
    torch.save(weights, Path(spec.output).parent / f"weights-{rank}.pt")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_blocks_of_shards_and_split_packs_compute_what_one_rank_does(spec, tmp_path):
    fields = {"precision": "float64", "phase": {"bins_per_step": 1}}
    alone = Run(settle(spec(**fields)), ALONE)
    alone.learner.step(*next(alone.shares(0)), Tally())
    divided = spec(compile=True, parallel={"sequence": 2}, memory={"recompute": "selective"}, **fields)
    in_processes(step_once, 2, tmp_path, divided.model_dump(mode="json"))
    for rank in (0, 1):
        found = torch.load(tmp_path / f"weights-{rank}.pt")
        for name, weight in alone.learner.model.state_dict().items():
            torch.testing.assert_close(found[name], weight, rtol=1e-8, atol=1e-10, msg=name)


def share_of(here):
    """Phase, step, and a share with every clip of the step in one pack."""
    phase, local, share = next(here.shares(0))
    clips = tuple(clip for packed in share.bins for clip in packed)
    return phase, local, replace(share, bins=(clips,), weights=(1.0,))


def test_packs_one_by_one_equal_one_large_pack(spec):
    weights = []
    for packs in (1, 4):
        here = Run(settle(spec(precision="float64", phase={"bins_per_step": 4})), ALONE)
        for _ in range(3):
            phase, local, share = share_of(here)
            (clips,) = share.bins
            bins = tuple(clips[first::packs] for first in range(packs))
            here.learner.step(phase, local, replace(share, bins=bins, weights=(1.0,) * packs), Tally())
        weights.append(here.learner.model.state_dict())
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-10, atol=1e-12)


def sum_once_and_skip_alike(rank, specs):
    for fields in specs:
        here = Run(TrainSpec.model_validate(fields), Ranks.here(torch.device("cpu")))
        phase, local, share = next(here.shares(0))
        counts = []
        for packs in (1, 2):
            bins, weights = share.bins[:1] * packs, (1.0,) * packs
            with CommDebugMode() as communication:
                here.learner.step(phase, local, replace(share, bins=bins, weights=weights), Tally())
            counts.append({op: n for op, n in communication.get_comm_counts().items() if "reduce" in str(op)})
        assert counts[0] == counts[1] != {}

        before = [weight.to_local().clone() for weight in here.learner.model.parameters()]
        clip = share.bins[0][0]
        # Its squared error is infinite and its gradient is not. Ranks that split packs have the same ones.
        size = 1e25 if rank == 1 or here.mesh.readers == 1 else 0.0
        loud = replace(clip, latent_CTHW=clip.latent_CTHW + size)
        norm = here.learner.step(phase, local, replace(share, bins=((loud,),), weights=(1.0,)), Tally())
        assert (here.state.step, here.state.skipped) == (3, 1), norm
        after = [weight.to_local() for weight in here.learner.model.parameters()]
        assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
        here.learner.step(phase, local, share, Tally())
        assert here.state.skipped == 1


def test_gradients_are_summed_once_a_step_and_all_ranks_skip_what_one_sees(spec, tmp_path):
    layouts = [{}, {"precision": "bfloat16"}, {"precision": "bfloat16", "parallel": {"sequence": 2, "shard": 1}}]
    specs = [settle(spec(output=str(tmp_path / f"{i}"), phase={"bins_per_step": 4}, **layouts[i])) for i in range(3)]
    in_processes(sum_once_and_skip_alike, 2, tmp_path, [each.model_dump(mode="json") for each in specs])


def test_a_division_that_does_not_work_out_is_refused(spec):
    with pytest.raises(UserError, match=r"parallel\.shard is 2, which does not divide the 3 workers"):
        dry_run(spec(parallel={"shard": 2}, workers={"count": 3}))
    with pytest.raises(UserError, match=r"parallel\.sequence is 4; attention of 3 heads"):
        dry_run(spec(parallel={"sequence": 4}, workers={"count": 4}))
    # The number of workers may have changed since.
    with pytest.raises(UserError, match=r"parallel\.sequence is 2, which does not divide the 1 workers"):
        Learner(spec(parallel={"sequence": 2}), ALONE)

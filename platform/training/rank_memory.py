"""What a rank keeps in memory while it trains, part by part."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rayramid.models.dit.config import DiTConfig
from rayramid.models.dit.model import DiT
from rayramid.models.memory import Formats, PackSize, activation_bytes
from rayramid.platform.training.lora import adapt
from rayramid.platform.training.optimizer import build_optimizers
from rayramid.platform.training.precision import Precision
from rayramid.platform.training.spec.train import TrainSpec


@dataclass(frozen=True)
class RankMemory:
    """Bytes of the rank that has the most.

    Attributes:
        parameters: its shards of the weights.
        gradients: of those that train; where ranks share weights and a rank has several packs, also the whole ones, to
            which these add up before ranks sum theirs.
        optimizer: the optimiser's state.
        average: the moving average.
        in_use: weights in the format that products read, of all blocks, or gathered of two where ranks share them.
        activations: what the backward pass of the largest pack needs; blocks are not compiled.
        offloaded: whether all but the last two are in the host's memory.
    """

    parameters: int
    gradients: int
    optimizer: int
    average: int
    in_use: int
    activations: int
    offloaded: bool

    @property
    def device(self) -> int:
        """Bytes on the device, beside what kernels and communication need."""
        state = 0 if self.offloaded else self.parameters + self.gradients + self.optimizer + self.average
        return state + self.in_use + self.activations


def formats_of(spec: TrainSpec) -> Formats:
    """The formats of the workers' numbers, on GPUs or on a CPU like this one."""
    if spec.workers.gpus and spec.precision == "auto":
        precision = Precision(torch.float32, torch.bfloat16)
    else:
        precision = Precision.choose(spec.precision, torch.device("cpu"))
    exact = precision.weights.itemsize
    product = exact if precision.compute is None else precision.compute.itemsize
    return Formats(exact, product, product if spec.workers.gpus else exact, gathers=not spec.workers.gpus)


def rank_memory(config: DiTConfig, spec: TrainSpec, pack: PackSize, packs: int) -> RankMemory:
    """The memory of a rank that trains so many packs a step, of at most this size."""
    formats, memory = formats_of(spec), spec.memory
    shards = min(spec.parallel.shard or spec.workers.least, spec.workers.least)
    with torch.device("meta"):
        model = DiT(config)
        if spec.lora is not None:
            adapt(model, spec.lora)
    blocks = [sum(weight.numel() for weight in block.parameters()) for block in model.blocks]
    whole = sum(weight.numel() for weight in model.parameters())
    if shards > 1 or memory.offload_weights:
        in_use = 2 * max(blocks) * formats.product + (whole - sum(blocks)) * formats.exact
    else:
        # The products' format has copies of weights, unless it is theirs.
        in_use = whole * formats.product if formats.product < formats.exact else 0
    summed_late = shards > 1 and packs > 1 and not memory.offload_weights
    whole_gradients = formats.exact * sum(weight.numel() for weight in _trained(model)) if summed_late else 0
    activations = activation_bytes(config, pack, memory.recompute, formats)
    if memory.offload_activations:
        # Blocks' inputs, of which all but one wait in the host's memory.
        activations -= (len(blocks) - 1) * pack.tokens * config.width * formats.exact
    _keep_one_shard(model, shards, formats.exact)
    return RankMemory(
        parameters=_bytes(model.parameters()),
        gradients=_bytes(_trained(model)) + whole_gradients,
        optimizer=_optimizer_bytes(model, spec),
        average=_bytes(_trained(model)),
        in_use=in_use,
        activations=activations // spec.parallel.sequence,
        offloaded=memory.offload_weights,
    )


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [weight for weight in model.parameters() if weight.requires_grad]


def _keep_one_shard(model: nn.Module, shards: int, exact: int) -> None:
    """Leaves of each weight what the first of `shards` ranks has of it: FSDP divides the first dimension."""
    dtype = torch.float64 if exact == torch.float64.itemsize else torch.float32
    for module in model.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            shape = (-(-weight.shape[0] // shards), *weight.shape[1:])
            own = torch.empty(shape, dtype=dtype, device="meta")
            setattr(module, name, nn.Parameter(own, requires_grad=weight.requires_grad))


def _optimizer_bytes(model: DiT, spec: TrainSpec) -> int:
    """What the optimisers themselves make on a device that has sizes alone."""
    optimizers = build_optimizers(model, model.blocks, spec.optimizer)
    for weight in _trained(model):
        weight.grad = torch.empty_like(weight)
    for optimizer in optimizers:
        optimizer.step()
    states = [value for optimizer in optimizers for state in optimizer.state.values() for value in state.values()]
    return _bytes(value for value in states if isinstance(value, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)

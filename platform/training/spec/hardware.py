"""What a run occupies and how it uses that."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rayramid.platform.training.spec.fields import Positive, Strict


class Workers(Strict):
    """What the run occupies.

    Attributes:
        count: worker processes; each has one GPU with `gpus`. Two numbers, the least and the most, make the run
            elastic: it starts with what is there, goes on with fewer when nodes go, and grows when nodes come.
        gpus: train on GPUs.
        cpus: CPUs reserved for each worker, and its number of threads on a CPU run.
        restarts: how many times dead workers are started again before the run fails; -1 for ever. Nodes that announce
            that they go don't count.
        grow_after: seconds that a run of fewer than the most workers goes on before more are taken in; each time, all
            are started again from a checkpoint.
        tflops: what one worker sustains, in 10^12 operations a second: `--dry-run` tells the hours by it.
    """

    count: Positive | tuple[Positive, Positive] = 1
    gpus: bool = False
    cpus: Positive = 1
    restarts: Annotated[int, Field(ge=-1)] = 3
    grow_after: Annotated[float, Field(gt=0)] = 60.0
    tflops: Annotated[float, Field(gt=0)] | None = None

    @property
    def least(self) -> int:
        """The fewest workers that train."""
        return self.count if isinstance(self.count, int) else self.count[0]

    @property
    def most(self) -> int:
        """The most workers that train."""
        return self.count if isinstance(self.count, int) else self.count[1]

    @property
    def resources(self) -> dict[str, float]:
        """Of one worker, as Ray names them."""
        return {"CPU": self.cpus, "GPU": 1} if self.gpus else {"CPU": self.cpus}

    @model_validator(mode="after")
    def _ordered(self) -> "Workers":
        if self.least > self.most:
            raise ValueError(f"count: the least, {self.least}, is above the most, {self.most}")
        return self


class Parallel(Strict):
    """How the workers divide the work. It changes no number of a run beyond rounding.

    Attributes:
        shard: so many workers share one copy of weights, gradients, optimiser state and average (FSDP), and there are
            as many copies as it takes (HSDP); all workers share one when None.
        sequence: so many workers split every packed sequence between them (Ulysses): for sequences that are too long
            for one GPU.
    """

    shard: Positive | None = None
    sequence: Positive = 1


class Memory(Strict):
    """What a worker keeps on its device. It changes no number of a run beyond rounding.

    Attributes:
        recompute: what the backward pass computes again instead of finding it kept: nothing, all of a block but its
            matrix products (`selective`), or all of a block (`full`).
        offload_weights: weights, gradients, optimiser state and average are in the host's memory, and the optimiser
            runs there.
        offload_activations: with `full`, what is kept of a block, its input, waits in the host's memory.
    """

    recompute: Literal["none", "selective", "full"] = "none"
    offload_weights: bool = False
    offload_activations: bool = False

    @model_validator(mode="after")
    def _inputs_alone_are_offloaded(self) -> "Memory":
        if self.offload_activations and self.recompute != "full":
            raise ValueError(f"offload_activations needs recompute full; it is {self.recompute}")
        return self

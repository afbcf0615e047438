"""The spec of a training run: `kind: train`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from rayramid.models import storage
from rayramid.models.brief import check_sides, parse_size

Location = Annotated[str, AfterValidator(storage.absolute)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Below1 = Annotated[float, Field(ge=0, lt=1)]


def _pixels(size: str) -> str:
    check_sides(*parse_size(size))
    return size


PixelSize = Annotated[str, AfterValidator(_pixels)]


class Strict(BaseModel):
    """Unknown keys are errors, and a loaded spec never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Model(Strict):
    """What is trained: a preset with random weights, or a model to go on from. Exactly one of the two is given.

    Every other field replaces what the preset or the model says, and is left out otherwise.

    Attributes:
        preset: a named configuration; starts from random weights.
        start: path or URL of a model to go on from: a model folder, the output of a finished run, a release of Pyramid
            Flow, or SD3-medium's `transformer` folder.
        variant: which DiT of a release, such as `768p`; needed when it holds several.
        conditioning: `shared_context`, or `official` as in the published model.
        levels: resolutions of the spatial pyramid; 1 is plain flow matching at full resolution.
        frames_per_unit: latents per autoregressive unit; `all` makes a video one unit (full-sequence diffusion).
        history_units: how many units back anything sees.
        causal: false, under `official`, is bidirectional attention.
        gamma: correlation of the noise inside a block at a jump, in (0, 1/3].
        stage_range: the stages' edges in time, 0 to 1, `levels` + 1 of them.
        renoise: false samples without the corrective noise where a stage begins.
    """

    preset: str | None = None
    start: Location | None = None
    variant: str | None = None
    conditioning: Literal["shared_context", "official"] | None = None
    levels: Positive | None = None
    frames_per_unit: Positive | Literal["all"] | None = None
    history_units: Positive | None = None
    causal: bool | None = None
    gamma: Annotated[float, Field(gt=0, le=1 / 3)] | None = None
    stage_range: tuple[float, ...] | None = None
    renoise: bool | None = None

    @model_validator(mode="after")
    def _one_source(self) -> "Model":
        if self.variant is not None and self.start is None:
            raise ValueError("variant chooses one of the models at start, which is missing")
        if (self.preset is None) == (self.start is None):
            raise ValueError("give either preset (random weights) or start (a model to go on from)")
        return self


class Lora(Strict):
    """Low-rank adapters in every block: they alone train, and are added to the weights on export.

    Attributes:
        rank: of the matrices beside each adapted layer.
        alpha: what an adapter adds is scaled by alpha / rank.
        targets: which layers of the blocks have one.
    """

    rank: Positive = 16
    alpha: Annotated[float, Field(gt=0)] = 16.0
    targets: Annotated[tuple[Literal["attention", "mlp", "modulation"], ...], Field(min_length=1)] = (
        "attention",
        "mlp",
    )


class Sampling(Strict):
    """What the exported model's card recommends to whoever samples from it.

    What is None is as the model at `model.start` has it; without one, the paper's 20 and 10 steps, guidance 7 and 5,
    and no texts.

    Attributes:
        first_steps: denoising steps per stage for the first unit.
        later_steps: denoising steps per stage for every later one.
        guidance: guidance scale of the first unit.
        video_guidance: guidance scale of later units.
        prompt_suffix: appended to every prompt.
        negative_prompt: the prompt that guidance leads away from.
    """

    first_steps: Positive | None = None
    later_steps: Positive | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None
    video_guidance: Annotated[float, Field(ge=0)] | None = None
    prompt_suffix: str | None = None
    negative_prompt: str | None = None


class Outline(Strict):
    """What a dataset is going to hold, so that `--dry-run` can count before there is one; training never reads it.

    Attributes:
        clips: how many there will be, by bucket (`768x1280x31`; images end in `x1`).
        text_tokens: of a caption.
    """

    clips: Annotated[dict[Annotated[str, Field(pattern=r"^\d+x\d+x[1-9]\d*$")], Positive], Field(min_length=1)]
    text_tokens: Positive = 96


class Root(Strict):
    """One latent dataset that a phase reads.

    Attributes:
        root: its folder or URL.
        version: a version of its manifest; the newest when None. A run keeps the version it started with.
        weight: how often each of its clips is visited in one epoch, on average.
        outline: what `--dry-run` counts with while there is no dataset at `root`.
    """

    root: Location
    version: Positive | None = None
    weight: Annotated[float, Field(gt=0)] = 1.0
    outline: Outline | None = None


class Schedule(Strict):
    """The learning rate over a phase, as a factor of the phase's `learning_rate`.

    Attributes:
        kind: the form after the warm-up.
        warmup: steps of linear rise from 0.
        final: the factor at the end of the phase (cosine, linear).
    """

    kind: Literal["constant", "cosine", "linear"] = "constant"
    warmup: Count = 0
    final: Share = 0.0


class Phase(Strict):
    """One stretch of the curriculum.

    Attributes:
        name: shown in the metrics.
        data: the datasets it reads; a plain path is a dataset of weight 1.
        steps: optimiser steps.
        learning_rate: the peak.
        schedule: how the learning rate moves over the phase.
        buckets: only these, written as the dataset writes them (`128x128x4`); all when None.
        latents: clips with fewer latents are left out, longer ones are not.
        tokens_per_bin: the token budget of one packed sequence.
        bins_per_step: packed sequences in one optimiser step, over all workers.
        image_share: the share of tokens that images have; 1/8 (as in the paper) when None and there are images.
        units_per_clip: how many consecutive units of a clip are targets of one visit.
        stage_weights: what a target weighs in the loss, by stage, coarsest first; all alike when None.
        text_dropout: the share of visits with the empty prompt.
        history_noise: the context is corrupted by a noise of strength uniform in [0, history_noise].
    """

    name: str
    data: Annotated[tuple[Root, ...], Field(min_length=1)]
    steps: Positive
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    schedule: Schedule = Schedule()
    buckets: tuple[str, ...] | None = None
    latents: Positive = 1
    tokens_per_bin: Positive = 16384
    bins_per_step: Positive = 8
    image_share: Share | None = None
    units_per_clip: Positive = 2
    stage_weights: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    text_dropout: Share = 0.1
    history_noise: Below1 = 1 / 3

    @model_validator(mode="before")
    @classmethod
    def _plain_paths(cls, fields: object) -> object:
        if not isinstance(fields, dict) or not isinstance(fields.get("data"), list | tuple | str):
            return fields
        data = fields["data"] if not isinstance(fields["data"], str) else [fields["data"]]
        return fields | {"data": [{"root": item} if isinstance(item, str) else item for item in data]}


class Optimizer(Strict):
    """How gradients become updates.

    Attributes:
        kind: `adamw`; `adamw8bit`, whose moments of matrices take two bytes per weight instead of eight (needs
            torchao); or `muon` for the blocks' matrices with AdamW for the rest.
        betas: of AdamW.
        weight_decay: decoupled, on matrices only.
        muon_learning_rate: a multiple of the phase's learning rate for the matrices under `muon`.
        clip: the largest gradient norm.
        skip_limit: how many steps with a non-finite loss or gradient a run survives.
    """

    kind: Literal["adamw", "adamw8bit", "muon"] = "adamw"
    betas: tuple[Below1, Below1] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    muon_learning_rate: Annotated[float, Field(gt=0)] = 10.0
    clip: Annotated[float, Field(gt=0)] = 1.0
    skip_limit: Count = 10


class Checkpoints(Strict):
    """When the state is saved and how long it is kept.

    Attributes:
        every: steps between two checkpoints; the last step always has one.
        keep_last: so many of the newest stay.
        keep_every: checkpoints at multiples of so many steps stay for ever; none when None.
        failures: so many checkpoints in a row may fail to be written before the run ends; until then it goes on, and
            the next one is due as ever.
    """

    every: Positive = 500
    keep_last: Positive = 2
    keep_every: Positive | None = None
    failures: Count = 2


class Validation(Strict):
    """The loss on held-out clips with fixed noise, of the EMA weights.

    Attributes:
        every: steps between two measurements; the last step always has one.
        clips: how many clips of the split `val` are used, the first in the order of their ids.
    """

    every: Positive = 500
    clips: Positive = 64


class WandB(Strict):
    """A run at Weights & Biases; needs `pip install 'rayramid[wandb]'` and WANDB_API_KEY.

    Attributes:
        project: where the run appears.
        entity: the user or team; the key's default when None.
        name: of the run; the output's last part when None.
        mode: `offline` keeps everything in the output, for `wandb sync` later.
    """

    project: str = "rayramid"
    entity: str | None = None
    name: str | None = None
    mode: Literal["online", "offline"] = "online"


class MLflow(Strict):
    """A run at an MLflow tracking server; needs `pip install 'rayramid[mlflow]'`.

    Attributes:
        tracking_uri: the server or store; MLFLOW_TRACKING_URI when None.
        experiment: where the run appears.
        name: of the run; the output's last part when None.
    """

    tracking_uri: str | None = None
    experiment: str = "rayramid"
    name: str | None = None


class MetricsSettings(Strict):
    """What is measured, and where it goes beside `metrics.jsonl` and TensorBoard.

    Attributes:
        gradient_noise_every: steps between two measurements of the gradient's noise, each of which takes another half
            of a step, or a whole one where a worker has a single pack; never when None.
        peak_tflops: what a worker's device can do under bf16, for the utilisation (MFU); looked up by its name when
            None, and left out where it isn't known.
        wandb: also Weights & Biases.
        mlflow: also MLflow.
    """

    gradient_noise_every: Positive | None = 50
    peak_tflops: Annotated[float, Field(gt=0)] | None = None
    wandb: WandB | None = None
    mlflow: MLflow | None = None


class Videos(Strict):
    """Videos of fixed prompts, made beside the training from checkpoints' averaged weights, and measured.

    Attributes:
        prompts: what they show; none makes none.
        every: steps between them; the first checkpoint at or after each multiple is sampled, and the last one always.
        seed: of the first prompt's noise; each next has the next, at every step the same.
        size: `WIDTHxHEIGHT`; the model's default when None.
        seconds: their length; the model's default when None.
        cpus: CPUs reserved for sampling. With none it shares those of the workers; with some it waits until so many are
            free, at the latest when the workers have ended.
        gpus: GPUs reserved for it, beside those of the workers; without any it samples on the CPU.
        patience: seconds that a run whose last step is done waits for its videos.
    """

    prompts: tuple[str, ...] = ()
    every: Positive = 1000
    seed: Count = 0
    size: PixelSize | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None
    cpus: Annotated[float, Field(ge=0)] = 0.0
    gpus: Annotated[float, Field(ge=0)] = 0.0
    patience: Annotated[float, Field(gt=0)] = 1800.0


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


class RunSpec(Strict):
    """What every training run has, whatever it trains.

    Attributes:
        kind: what it trains.
        output: the folder or URL of the run: `checkpoints/`, `metrics.jsonl`, `tensorboard/` and the model.
        seed: of everything that is drawn.
        precision: `bfloat16` is autocast over float32 weights; `auto` takes it where the hardware is faster in it.
        ema: the decay of the weights' moving average, which is what gets exported.
        checkpoints: when the state is saved.
        validation: the measurement on held-out clips.
        workers: what the run occupies.
        log_every: steps between two lines of metrics.
        metrics: what is measured, and where it goes beside the output.
    """

    kind: str
    output: Location
    seed: Count = 0
    precision: Literal["auto", "bfloat16", "float32", "float64"] = "auto"
    ema: Below1 = 0.999
    checkpoints: Checkpoints = Checkpoints()
    validation: Validation = Validation()
    workers: Workers = Workers()
    log_every: Positive = 10
    metrics: MetricsSettings = MetricsSettings()

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        raise NotImplementedError

    @property
    def places(self) -> dict[str, str]:
        """Where everything of the run is, by what it is."""
        found = {"checkpoints": "checkpoints", "metrics": "metrics.jsonl", "tensorboard": "tensorboard"}
        return {name: storage.join(self.output, place) for name, place in found.items()}


class TrainSpec(RunSpec):
    """A training run of a DiT: the model, the curriculum, and where everything is kept.

    Attributes:
        model: what is trained.
        phases: the curriculum.
        lora: train adapters beside the weights of `model.start` instead of these.
        damaged_clips: what a missing or corrupt file does: `stop` names it and ends the run; `skip` leaves its clips
            out, and names and counts them in the metrics.
        optimizer: how gradients become updates.
        parallel: how the workers divide the work.
        memory: what a worker keeps on its device.
        compile: compile every block: slow to start and faster from then on, on GPUs.
        sampling: what the exported card recommends.
        videos: made while training, to look at.
    """

    kind: Literal["train"]
    model: Model
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    lora: Lora | None = None
    damaged_clips: Literal["stop", "skip"] = "stop"
    optimizer: Optimizer = Optimizer()
    parallel: Parallel = Parallel()
    memory: Memory = Memory()
    compile: bool = False
    sampling: Sampling = Sampling()
    videos: Videos = Videos()

    @property
    def steps(self) -> int:
        """Optimiser steps of all phases."""
        return sum(phase.steps for phase in self.phases)

    @property
    def places(self) -> dict[str, str]:
        """Where everything of the run is, by what it is."""
        made = {"model": "model", **({"videos": "validation"} if self.videos.prompts else {})}
        return super().places | {name: storage.join(self.output, place) for name, place in made.items()}

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase of optimiser step `step` (from 0), and the step's number within it."""
        for phase in self.phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise IndexError(step)

    @model_validator(mode="after")
    def _names_differ(self) -> "TrainSpec":
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ValueError(f"two phases have one name: {', '.join(names)}")
        return self

    @model_validator(mode="after")
    def _adapters_have_weights_beside_them(self) -> "TrainSpec":
        if self.lora is not None and self.model.start is None:
            raise ValueError("lora needs model.start: adapters are trained beside the weights of a model")
        return self

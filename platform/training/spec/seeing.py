"""What a run measures and shows."""

from typing import Annotated, Literal

from pydantic import Field

from rayramid.platform.training.spec.fields import Count, PixelSize, Positive, Strict


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

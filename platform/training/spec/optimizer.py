"""How gradients become updates."""

from typing import Annotated, Literal

from pydantic import Field

from rayramid.platform.training.spec.fields import Below1, Count, Strict


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

"""What every part of a spec is."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of the spec: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

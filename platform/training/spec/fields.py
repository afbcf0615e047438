"""Kinds of values that specs are made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

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


def plain_paths(data: object) -> object:
    """What a phase reads, a path alone being an entry with that root, and an entry's path alone a list of one."""
    entries = [data] if isinstance(data, str) else data
    if not isinstance(entries, list | tuple):
        return data
    return [{"root": entry} if isinstance(entry, str) else entry for entry in entries]


class Strict(BaseModel):
    """Unknown keys are errors, and a loaded spec never changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""What log lines look like: for people, or JSON for machines (`RAYRAMID_LOGS=json`), here and in Ray's workers."""

import json
import logging
import os
from datetime import datetime
from typing import TYPE_CHECKING

from rayramid.models.errors import UserError

if TYPE_CHECKING:
    from ray import LoggingConfig

VARIABLE = "RAYRAMID_LOGS"


def are_json() -> bool:
    """Whether lines are JSON.

    Raises:
        UserError: the variable is neither `json` nor `text`.
    """
    chosen = os.environ.get(VARIABLE, "text")
    if chosen not in ("json", "text"):
        raise UserError(f"{VARIABLE}={chosen}: choose json or text")
    return chosen == "json"


def ray_logging() -> "LoggingConfig | None":
    """How Ray is to write the lines of this process and of all workers of its job; its default when None.

    Its lines have the fields that records got by `extra`, and Ray's ids of job, node, worker, actor and task.
    """
    if not are_json():
        return None
    import ray

    return ray.LoggingConfig(encoding="JSON", log_level="INFO", additional_log_standard_attrs=["name"])


def line(message: str, **fields: object) -> str:
    """A line like Ray's, of a command."""
    said = {"asctime": f"{datetime.now():%Y-%m-%d %H:%M:%S,%f}"[:-3], "levelname": "INFO", "message": message}
    return json.dumps(said | {"name": "rayramid", **fields})


class Fields(logging.Filter):
    """Gives every record that passes fields that it does not have.

    Args:
        fields: by name.
    """

    def __init__(self, **fields: object) -> None:
        super().__init__()
        self._fields = fields

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets everything pass."""
        record.__dict__.update({name: field for name, field in self._fields.items() if name not in record.__dict__})
        return True

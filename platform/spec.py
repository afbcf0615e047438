"""Loading a spec: the YAML that starts a job, checked by the pydantic model of its `kind`."""

import difflib
import importlib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from rayramid.models.errors import UserError
from rayramid.platform.credentials import is_secret

# Each floor owns the model of its specs; names are resolved on use, so that no command imports what it does not need.
KINDS: Mapping[str, str] = {
    "data": "rayramid.pipelines.spec:DataSpec",
    "train": "rayramid.platform.training.spec.train:TrainSpec",
    "vae": "rayramid.platform.training.vae.spec:VAESpec",
    "serve": "rayramid.serve.spec:ServeSpec",
    "eval": "rayramid.platform.evaluation.spec:EvalSpec",
    "ablation": "rayramid.platform.ablation.spec:AblationSpec",
    "suite": "rayramid.platform.evaluation.suites.spec:SuiteSpec",
    "distances": "rayramid.platform.evaluation.distances.spec:DistancesSpec",
}

_VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


def load_spec(path: str | Path, overrides: Sequence[str] = (), *, kind: str | Sequence[str] | None = None) -> BaseModel:
    """Reads the spec at `path`, applies overrides of the form `a.b=value`, and validates it.

    Args:
        path: a YAML file.
        overrides: `key.path=value`, the value in YAML; the index of a list element is a number.
        kind: the kind, or the kinds, that the caller can run; any kind when None.

    Raises:
        UserError: missing file, broken YAML, or what `parse_spec` finds.
    """
    fields = _read(Path(path))
    for override in overrides:
        _override(fields, override)
    return parse_spec(fields, where=str(path), kind=kind)


def parse_spec(fields: Mapping[str, Any], *, where: str, kind: str | Sequence[str] | None = None) -> BaseModel:
    """Validates the spec that `fields` hold; `where` says where they are from.

    `${NAME}` and `${NAME:-default}` in values are replaced from the environment, and messages show the values as they
    were written.

    Raises:
        UserError: unknown kind or key (with the nearest name), wrong value, unset variable, or a variable that holds a
            secret, since specs are kept with what was made from them.
    """
    written: dict[str, str] = {}
    fields = _expand(fields, where, written)
    model = spec_model(fields.get("kind"), where=where)
    kinds = [kind] if isinstance(kind, str) else kind
    if kinds is not None and fields["kind"] not in kinds:
        wanted = " or ".join(f"'{name}'" for name in kinds)
        raise UserError(f"{where}: kind is '{fields['kind']}', this command takes kind {wanted}")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        message = _one_line(error, model)
        for value in sorted(filter(None, written), key=len, reverse=True):
            message = message.replace(repr(value), repr(written[value]))
        raise UserError(f"{where}: {message}") from None


def spec_model(kind: object, *, where: str = "spec") -> type[BaseModel]:
    """The pydantic model registered for `kind`; a UserError naming `where` if there is none."""
    if not isinstance(kind, str) or kind not in KINDS:
        given = "has no 'kind'" if kind is None else f"has the unknown kind {kind!r}{_nearest(str(kind), KINDS)}"
        raise UserError(f"{where}: the spec {given}; one of {', '.join(KINDS)} is expected")
    module, _, name = KINDS[kind].partition(":")
    model = getattr(importlib.import_module(module), name)
    assert issubclass(model, BaseModel)
    return model


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"{path}: no such spec; 'rayramid init DIR' writes examples to start from")
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f" at line {place.line + 1}" if place else ""
        raise UserError(f"{path}: not valid YAML{line}: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(fields, dict):
        raise UserError(f"{path}: a spec is a mapping with the key 'kind', this is {type(fields).__name__}")
    return fields


def _override(fields: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected KEY.PATH=VALUE, for instance --set phases.0.steps=50")
    *parents, last = key.split(".")
    place: Any = fields
    for part in parents:
        if isinstance(place, list):
            place = place[_index(place, part, override)]
        else:
            place = place.setdefault(part, {})
        if not isinstance(place, dict | list):
            raise UserError(f"--set {override}: '{part}' holds a single value, it has no keys below it")
    if isinstance(place, list):
        place[_index(place, last, override)] = yaml.safe_load(value)
    else:
        place[last] = yaml.safe_load(value)


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise UserError(f"--set {override}: '{part}' is not an index of a list of {len(items)}")
    return int(part)


def _expand(value: Any, where: str, written: dict[str, str]) -> Any:
    """Replaces environment variables in every string below `value`; `written` learns what stood for each result."""
    if isinstance(value, Mapping):
        return {key: _expand(item, where, written) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, where, written) for item in value]
    if not isinstance(value, str):
        return value

    def substitute(match: re.Match[str]) -> str:
        name = match["name"]
        found = os.environ.get(name, match["default"])
        if found is None:
            raise UserError(f"{where}: the environment variable {name} is not set and has no default")
        if is_secret(name, found):
            raise UserError(
                f"{where}: {name} holds a secret, and a spec is kept with what was made from it; programs find their"
                " secrets in the environment by themselves"
            )
        return found

    expanded = _VARIABLE.sub(substitute, value)
    if expanded != value:
        written[expanded] = value
    return expanded


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    # A misspelt key is also a missing one; its own name helps more.
    first, *others = sorted(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    *parents, name = [str(part) for part in first["loc"]] or [""]
    key = ".".join([*parents, name])
    more = f" (and {len(others)} more)" if others else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(name, _names(model, first['loc'][:-1]))}{more}"
    if first["type"] == "missing":
        return f"the key '{key}' is missing{more}"
    given = f", got {first['input']!r}" if isinstance(first["input"], str | int | float | bool) else ""
    return f"{key}: {first['msg']}{given}{more}" if key else f"{first['msg']}{more}"


def _nearest(name: str, names: Iterable[str]) -> str:
    names = sorted(names)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known here: {', '.join(names)}"


def _names(model: type[BaseModel], location: Sequence[int | str]) -> set[str]:
    """The keys allowed at `location` below `model`."""
    models = {model}
    for part in location:
        fields = [candidate.model_fields[part] for candidate in models if part in candidate.model_fields]
        # List indices and the tags of unions stand in a location but lead to no field.
        if fields:
            models = {inner for field in fields for inner in _models_in(field.annotation)}
    return {field.alias or name for candidate in models for name, field in candidate.model_fields.items()}


def _models_in(annotation: Any) -> set[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for argument in get_args(annotation) for model in _models_in(argument)}

"""Writes docs/specs.md, the reference of all specs, from the models that check them: `python -m docs.specs`."""

import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo

from rayramid.models import storage
from rayramid.platform.spec import KINDS, spec_model

PAGE = Path(__file__).with_suffix(".md")

HEAD = """# Every key of every spec

Written by `python -m docs.specs` from the models that check specs; a test compares the two. What is not marked
*required* has the default that is shown, and `–` stands for none. `rayramid spec check FILE` holds a file against this,
and `rayramid spec schema KIND` prints it as JSON Schema. [commands.md](commands.md#specs) says how variables and
`--set` work.
"""

BOUNDS = {Gt: ("gt", "> "), Ge: ("ge", "≥ "), Lt: ("lt", "< "), Le: ("le", "≤ ")}
PLAIN = {str: "text", int: "integer", float: "number", bool: "true or false", dict: "mapping"}


@dataclass(frozen=True)
class Section:
    """One model of a spec, and the keys below which it stands."""

    kind: str
    model: type[BaseModel]
    paths: tuple[str, ...]

    @property
    def title(self) -> str:
        """The keys, with their kind."""
        if not self.paths:
            return f"kind: {self.kind}"
        parents = {path.rpartition(".")[0] for path in self.paths}
        if len(self.paths) > 2 and len(parents) == 1:
            return f"{self.kind}: each of `{parents.pop()}`"
        return f"{self.kind}: {', '.join(f'`{path}`' for path in self.paths)}"

    def names_kind(self, key: str) -> bool:
        """Whether the key is the one by which a spec is told from others; its model may have a default for it."""
        return key == "kind" and not self.paths

    @property
    def anchor(self) -> str:
        """What the title's link ends with, on GitHub and on the site."""
        return re.sub(r"[^\w\s-]", "", self.title.lower()).replace(" ", "-")


def page() -> str:
    """The whole of docs/specs.md."""
    kinds = [_kind(sections(kind)) for kind in KINDS]
    return "\n".join([HEAD, *kinds])


def sections(kind: str) -> list[Section]:
    """The spec of a kind and every model inside it, in the order of their keys."""
    paths: dict[type[BaseModel], list[str]] = {spec_model(kind): []}
    for path, model in _inner(spec_model(kind), ""):
        paths.setdefault(model, []).append(path)
    return [Section(kind, model, tuple(found)) for model, found in paths.items()]


def _inner(model: type[BaseModel], above: str) -> Iterator[tuple[str, type[BaseModel]]]:
    for name, field in model.model_fields.items():
        path = f"{above}{field.alias or name}"
        for inner in _models(field.annotation):
            yield path, inner
            yield from _inner(inner, f"{path}.")


def _models(annotation: Any) -> list[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def _kind(parts: list[Section]) -> str:
    anchors = {part.model: part.anchor for part in parts}
    return "\n".join(_section(part, anchors) for part in parts)


def _section(part: Section, anchors: dict[type[BaseModel], str]) -> str:
    rows = [
        f"| `{field.alias or name}` | {_type(field.annotation, field.metadata, anchors)} | {_default(part, name)} "
        f"| {meaning(part, name)} |"
        for name, field in part.model.model_fields.items()
    ]
    text = inspect.cleandoc(part.model.__doc__ or "").partition("\n\nAttributes:")[0]
    table = ["| key | value | default | meaning |", "|---|---|---|---|", *rows, ""]
    return "\n".join([f"{'###' if part.paths else '##'} {part.title}", "", text, "", *table])


def meaning(part: Section, name: str) -> str:
    """What a key means: its description, its entry in a docstring, or what the model that it holds is."""
    field = part.model.model_fields[name]
    if part.names_kind(name):
        return "what the spec is of"
    described = [field.description, *(_attributes(each).get(name) for each in part.model.__mro__)]
    described += [(inner.__doc__ or "").partition("\n")[0] for inner in _models(field.annotation)]
    text = next(filter(None, described), "")
    # Keys are written in YAML, whose word for None is null.
    text = re.sub(r"\bNone\b", "null", text)
    if text[1:2].islower():
        text = text[:1].lower() + text[1:]
    return text.rstrip(".").replace("|", "\\|")


def _attributes(model: type) -> dict[str, str]:
    """The entries of a docstring's `Attributes:`, by name."""
    text = inspect.cleandoc(model.__doc__ or "").partition("\nAttributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE)
    return {name: " ".join(entry.split()) for name, entry in entries}


def _type(annotation: Any, metadata: list[Any], anchors: dict[type[BaseModel], str]) -> str:
    """What a value may be, in words."""
    metadata = [each for outer in metadata for each in (outer.metadata if isinstance(outer, FieldInfo) else [outer])]
    bounds = "".join(_bounds(metadata))
    checks = [each.func for each in metadata if isinstance(each, AfterValidator)]
    if storage.absolute in checks:
        return "path or URL"
    if any(check.__name__ in {"_size", "_pixels"} for check in checks):
        return "`WIDTHxHEIGHT`"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [*annotation.__metadata__, *metadata], anchors)
    if origin in {Union, types.UnionType}:
        kinds = [_type(each, metadata, anchors) for each in arguments if each is not type(None)]
        return " or ".join(dict.fromkeys(kinds))
    if origin is Literal:
        return ", ".join(f"`{_yaml(value)}`" for value in arguments)
    if origin in {list, tuple}:
        return _list(origin, arguments, anchors)
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return f"[mapping](#{anchors[annotation]})"
    return PLAIN[origin or annotation] + bounds


def _list(origin: type, arguments: tuple[Any, ...], anchors: dict[type[BaseModel], str]) -> str:
    kinds = [_type(each, [], anchors) for each in arguments if each is not Ellipsis]
    if origin is tuple and Ellipsis not in arguments:
        return f"list of {len(kinds)}: {', '.join(kinds)}"
    return f"list of {kinds[0]}"


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for each in metadata:
        for kind, (name, sign) in BOUNDS.items():
            bound = getattr(each, name, None) if isinstance(each, kind | Interval) else None
            if bound is not None:
                yield f", {sign}{'1/3' if bound == 1 / 3 else f'{bound:g}'}"


def _default(part: Section, name: str) -> str:
    field = part.model.model_fields[name]
    if field.is_required() or part.names_kind(name):
        return "*required*"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return _changed(value)
    return "–" if value is None else f"`{_yaml(value)}`"


def _changed(value: BaseModel) -> str:
    """What a default sets that its model leaves to its own."""
    given = value.model_dump(mode="json", exclude_defaults=True)
    return f"`{_yaml(given)}`" if given else "its defaults"


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple | set | frozenset):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_yaml(item)}' for key, item in value.items())}}}"
    return f"{value:g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

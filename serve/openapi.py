"""The parts of the OpenAPI document that FastAPI can't derive: bodies in two content types, streams, files."""

from typing import Any

from pydantic import BaseModel

from rayramid.serve.errors import ErrorBody
from rayramid.serve.parsing import IMAGE, VIDEO
from rayramid.serve.wire import (
    KEY_LENGTH,
    ChangePrompt,
    CreateVideo,
    EditVideo,
    ExtendVideo,
    PictureReference,
    RemixVideo,
    VideoEvent,
)

Responses = dict[int | str, dict[str, Any]]
Schema = dict[str, Any]

BINARY: Schema = {"type": "string", "format": "binary"}
MEDIA: Schema = {"video/mp4": {"schema": BINARY}, "image/webp": {"schema": BINARY}}
ERRORS: Responses = {
    "4XX": {"model": ErrorBody, "description": "What is wrong, and with which parameter"},
    "5XX": {"model": ErrorBody, "description": "The server can't answer now"},
}
CONTENT: Responses = {
    200: {"description": "The bytes", "content": MEDIA},
    206: {"description": "The range that was asked for", "content": MEDIA},
    307: {"description": "Where the store itself gives the bytes out"},
    **ERRORS,
}
SENT_EVENT: Schema = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": ["progress", "completed", "failed"]},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {
                "anyOf": [{"$ref": "#/components/schemas/VideoEvent"}, {"$ref": "#/components/schemas/Video"}]
            },
        },
    },
}
EVENTS: Responses = {
    200: {
        "description": "`progress` events whose data is a VideoEvent; at the end one event `completed` or `failed` "
        "whose data is the Video, but for a video that was deleted",
        # Of each event: OpenAPI 3.1 has no other place for it.
        "content": {"text/event-stream": {"schema": SENT_EVENT}},
    },
    **ERRORS,
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
    "description": "A request that is repeated with the same key gets the first one's video",
}
REFERENCE = "#/components/schemas/{model}"
BODIES: tuple[type[BaseModel], ...] = (CreateVideo, ExtendVideo, RemixVideo, ChangePrompt, EditVideo)


def body_of(model: type[BaseModel], *, idempotent: bool = False) -> dict[str, Any]:
    """What a route says of a body that parsing.py reads, as JSON or a form; `components` holds the schemas."""
    content = {
        "application/json": {"schema": _reference(model.__name__)},
        "multipart/form-data": {"schema": _reference(_form_name(model))},
    }
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    return {**extra, "parameters": [IDEMPOTENCY_KEY]} if idempotent else extra


def components() -> dict[str, Schema]:
    """Schemas of bodies, and of what comes as events alone."""
    schemas: dict[str, Schema] = {}
    models: tuple[type[BaseModel], ...] = (*BODIES, PictureReference, VideoEvent)
    for model in models:
        schema = model.model_json_schema(ref_template=REFERENCE)
        schemas |= schema.pop("$defs", {})
        schemas[model.__name__] = schema
    for model in BODIES:
        schemas[_form_name(model)] = _as_form(schemas[model.__name__])
    picture = [_reference(PictureReference.__name__), {"type": "null"}]
    schemas[CreateVideo.__name__]["properties"][IMAGE] = {"anyOf": picture}
    schemas[_form_name(CreateVideo)]["properties"][IMAGE] = BINARY
    return schemas


def add_keys(document: Schema) -> None:
    """Say that everything about videos needs an API key."""
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        if path.startswith("/v1/"):
            for operation in methods.values():
                operation["security"] = [{"key": []}]


def _reference(name: str) -> Schema:
    return {"$ref": REFERENCE.format(model=name)}


def _form_name(model: type[BaseModel]) -> str:
    return f"{model.__name__}Form"


def _as_form(schema: Schema) -> Schema:
    """The same for a form, in which what is left out is not there and nothing is null; `video` is written video[id]."""
    properties = {}
    for name, each in schema.get("properties", {}).items():
        kinds = [kind for kind in each.get("anyOf", []) if kind.get("type") != "null"]
        rest = {key: value for key, value in each.items() if key != "anyOf" and (key, value) != ("default", None)}
        properties[name] = rest | kinds[0] if len(kinds) == 1 else each
    if VIDEO in properties:
        properties = {"video[id]" if name == VIDEO else name: each for name, each in properties.items()}
        properties["video[id]"] = {"type": "string"}
    required = ["video[id]" if name == VIDEO else name for name in schema.get("required", [])]
    return schema | {"title": f"{schema['title']}Form", "properties": properties, "required": required}

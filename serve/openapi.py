"""The parts of the OpenAPI document that FastAPI can't derive: bodies in two content types, streams, files."""

from typing import Any

from pydantic import BaseModel

from rayramid.serve.errors import ErrorBody
from rayramid.serve.parsing import IMAGE, VIDEO
from rayramid.serve.wire import CreateVideo, ExtendVideo, Video, VideoEvent

Responses = dict[int | str, dict[str, Any]]
Schema = dict[str, Any]

BINARY: Schema = {"type": "string", "format": "binary"}
MEDIA: Schema = {"video/mp4": {"schema": BINARY}, "image/webp": {"schema": BINARY}}
ERRORS: Responses = {"default": {"model": ErrorBody, "description": "What is wrong, and with which parameter"}}
CONTENT: Responses = {
    200: {"description": "The bytes", "content": MEDIA},
    206: {"description": "The range that was asked for", "content": MEDIA},
    307: {"description": "Where the store itself gives the bytes out"},
    **ERRORS,
}
EVENTS: Responses = {
    200: {
        "description": "`progress` events whose data is a VideoEvent; at the end one event `completed` or `failed` "
        "whose data is the Video",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **ERRORS,
}
IDEMPOTENCY_KEY: Schema = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "A request that is repeated with the same key gets the first one's video",
}
DATA_URL: Schema = {
    "type": "object",
    "properties": {"image_url": {"type": "string", "description": "data:image/…;base64,…"}},
    "required": ["image_url"],
    "additionalProperties": False,
}


def body_of(model: type[BaseModel], *, idempotent: bool = False) -> dict[str, Any]:
    """What a route says of a body that parsing.py reads, as a form or JSON."""
    form, plain = _inline(model), _inline(model)
    if model is CreateVideo:
        form["properties"][IMAGE] = BINARY
        plain["properties"][IMAGE] = DATA_URL
    if model is ExtendVideo:
        # In a form `video` is written video[id].
        form["properties"]["video[id]"] = {"type": "string"}
        del form["properties"][VIDEO]
        form["required"] = ["video[id]" if name == VIDEO else name for name in form["required"]]
    content = {"application/json": {"schema": plain}, "multipart/form-data": {"schema": form}}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": content}}
    return {**extra, "parameters": [IDEMPOTENCY_KEY]} if idempotent else extra


def stream_schemas() -> dict[str, Schema]:
    """Schemas of what comes as events, for the document's components."""
    return {model.__name__: _inline(model) for model in (VideoEvent, Video)}


def _inline(model: type[BaseModel]) -> Schema:
    """The schema of a model, without references."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(part: Any) -> Any:
        if isinstance(part, dict):
            if "$ref" in part:
                return resolved(definitions[part["$ref"].rpartition("/")[2]])
            return {key: resolved(value) for key, value in part.items()}
        return [resolved(each) for each in part] if isinstance(part, list) else part

    found: Schema = resolved(schema)
    return found

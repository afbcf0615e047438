"""Judging what is asked for and what is made, by a hook of the spec: a callable or an OpenAI-compatible endpoint.

A hook that fails lets nothing through.
"""

import asyncio
import base64
import importlib
import io
import logging
import os
from collections.abc import Callable

import httpx
from PIL import Image
from pydantic import BaseModel

from rayramid.models.brief import Frames
from rayramid.models.errors import UserError
from rayramid.serve.errors import ApiError, bad_request
from rayramid.serve.spec import JudgeOptions

log = logging.getLogger(__name__)

Hook = Callable[[str | Frames], float]
BLOCKED = "moderation_blocked"


class SafetyError(Exception):
    """A hook gives no judgement."""


class _Moderation(BaseModel):
    flagged: bool


class _Moderations(BaseModel):
    results: list[_Moderation]


class Judge:
    """Says which prompts, or which frames, are refused.

    Args:
        options: names the hook and how much is too much.

    Raises:
        UserError: there is no such hook, or no key for it.
    """

    def __init__(self, options: JudgeOptions) -> None:
        self._options = options
        self._remote = options.hook.startswith(("http://", "https://"))
        if self._remote:
            self._http = httpx.AsyncClient(base_url=options.hook, headers=_key(options), timeout=options.timeout_s)
        else:
            found = resolve(options.hook)
            self._hook: Hook = found() if isinstance(found, type) else found

    async def refuses(self, what: str | Frames) -> bool:
        """Whether a prompt, or frames [T, H, W, 3], must not be made or shown.

        Raises:
            SafetyError: the hook fails.
        """
        try:
            if self._remote:
                return await self._flagged(what)
            return float(await asyncio.to_thread(self._hook, what)) >= self._options.threshold
        # The boundary to code of the operator's: whatever it raises, nothing passes without a judgement.
        except Exception as error:
            log.warning("no judgement", extra={"hook": self._options.hook, "error": str(error)[:300]})
            raise SafetyError(f"{self._options.hook} gives no judgement") from error

    async def _flagged(self, what: str | Frames) -> bool:
        asked = what if isinstance(what, str) else [_as_image(frame) for frame in what]
        body = {"input": asked} | ({"model": self._options.model} if self._options.model else {})
        response = await self._http.post("moderations", json=body)
        response.raise_for_status()
        results = _Moderations.model_validate_json(response.content).results
        if not results:
            raise ValueError("an answer without results")
        return any(each.flagged for each in results)


async def check_prompts(judge: Judge | None, *prompts: str) -> None:
    """Refuse a request for what some prompt says: ApiError 400, or 503 without a judgement."""
    if judge is None:
        return
    try:
        refused = [await judge.refuses(prompt) for prompt in dict.fromkeys(prompts)]
    except SafetyError as error:
        message = "What judges prompts does not answer; try later."
        raise ApiError(503, message, param="prompt", code="safety_unavailable") from error
    if any(refused):
        raise bad_request("The prompt asks for something that this server does not make.", "prompt", BLOCKED)


def resolve(hook: str) -> Callable[..., float]:
    """What `module:name` names; a class is a hook when it is called without arguments.

    Raises:
        UserError: there is none.
    """
    module, _, name = hook.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"safety: {hook} can't be loaded: {error}") from error
    if not callable(found):
        raise UserError(f"safety: {hook} can't be called")
    return found


def _key(options: JudgeOptions) -> dict[str, str]:
    if options.api_key_env is None:
        return {}
    key = os.environ.get(options.api_key_env)
    if key is None:
        raise UserError(f"safety: the environment variable {options.api_key_env} is not set")
    return {"Authorization": f"Bearer {key}"}


def _as_image(frame_HWC: Frames) -> dict[str, object]:
    data = io.BytesIO()
    Image.fromarray(frame_HWC).save(data, "JPEG", quality=90)
    url = f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"
    return {"type": "image_url", "image_url": {"url": url}}

"""Writing a short prompt out to what a video model likes, by a language model behind an OpenAI-compatible endpoint."""

import logging
import os

import httpx
from pydantic import BaseModel

from rayramid.models.errors import UserError
from rayramid.serve.errors import ApiError
from rayramid.serve.spec import RewriterOptions

log = logging.getLogger(__name__)

LONGEST = 32000


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message


class _Completion(BaseModel):
    choices: list[_Choice]


class Rewriter:
    """Asks a chat model; each prompt once.

    Raises:
        UserError: the environment lacks the key that the options name.
    """

    def __init__(self, options: RewriterOptions) -> None:
        self._options = options
        headers = {}
        if options.api_key_env is not None:
            key = os.environ.get(options.api_key_env)
            if key is None:
                raise UserError(f"rewriter.api_key_env: the environment variable {options.api_key_env} is not set")
            headers["Authorization"] = f"Bearer {key}"
        self._http = httpx.AsyncClient(base_url=options.url, headers=headers, timeout=options.timeout_s)

    async def rewrite(self, prompt: str) -> str:
        """The prompt as the language model writes it out.

        Raises:
            ApiError: 503 if it gives none.
        """
        messages = [{"role": "system", "content": self._options.instruction}, {"role": "user", "content": prompt}]
        body = {"model": self._options.model, "messages": messages}
        try:
            response = await self._http.post("chat/completions", json=body)
            response.raise_for_status()
            written = _Completion.model_validate_json(response.content).choices[0].message.content.strip()
        except (httpx.HTTPError, ValueError, IndexError) as error:
            log.warning("prompt not rewritten", extra={"error": str(error)[:300]})
            message = "The language model that rewrites prompts does not answer; try later, or without rewrite_prompt."
            raise ApiError(503, message, param="rewrite_prompt", code="rewriter_failed") from error
        return written[:LONGEST] or prompt

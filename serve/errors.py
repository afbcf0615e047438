"""OpenAI's error shape: every error of the endpoint is `{"error": {message, type, param, code}}`."""

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import JSONResponse


class ErrorDetail(BaseModel):
    """What went wrong, and which parameter of the request is at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: ErrorDetail


class ApiError(Exception):
    """An answer of the endpoint with status 400 or more."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        kind: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        self.detail = ErrorDetail(message=message, type=kind or _type_of(status), param=param, code=code)

    def response(self) -> JSONResponse:
        """The HTTP answer."""
        return JSONResponse(ErrorBody(error=self.detail).model_dump(), self.status, self.headers)


def _type_of(status: int) -> str:
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad_request(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400: the request can't be carried out as it is."""
    return ApiError(400, message, param=param, code=code)


def not_found(video_id: str, param: str) -> ApiError:
    """404: no such video."""
    return ApiError(404, f"No video has the id {video_id!r}.", param=param, code="video_not_found")

"""What can go wrong, as a tree of exceptions."""

from collections.abc import Mapping
from typing import Any, Final

import httpx

from catalogan_client.retries import retry_after_sec


class CataloganError(Exception):
    """Base of all errors of this package."""


class APIConnectionError(CataloganError):
    """No response came, or it broke off; the cause is the exception of httpx."""


class BrokenAnswerError(CataloganError):
    """A response came that this client doesn't understand: is the address a Catalogan service?"""


class APIStatusError(CataloganError):
    """The service refused.

    Attributes:
        status: HTTP status.
        message: What is wrong, and the way out.
        code: Stable word for programs, such as `unknown_field`.
        param: The field, file or header at fault, if one is.
        type: Family of the error, in the words of the OpenAI API.
        request_id: Of the service's log.
        retry_after: Seconds after which it may work, where the service says so.
    """

    def __init__(
        self,
        status: int,
        detail: Mapping[str, str],
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        """Take over what a response says; a proxy's may say nothing."""
        super().__init__(status, detail, request_id, retry_after)  # so that it can be pickled
        self.status: Final = status
        self.message: Final = detail.get("message", "the response names no reason")
        self.code: Final = detail.get("code")
        self.param: Final = detail.get("param")
        self.type: Final = detail.get("type")
        self.request_id: Final = request_id
        self.retry_after: Final = retry_after

    def __str__(self) -> str:
        words = (f"{self.status}", self.code, self.param and f"({self.param})")
        request = f" [request {self.request_id}]" if self.request_id else ""
        return f"{' '.join(filter(None, words))}: {self.message}{request}"


class BadRequestError(APIStatusError):
    """400: malformed, unknown, missing or out of range; `param` names it."""


class AuthenticationError(APIStatusError):
    """401: no key, or a wrong one."""


class PermissionDeniedError(APIStatusError):
    """403: the key lacks the scope that this needs."""


class NotFoundError(APIStatusError):
    """404: unknown model or route."""


class ConflictError(APIStatusError):
    """409: the idempotency key came with another request, or its first request still runs."""


class TooLargeError(APIStatusError):
    """413: too many bytes or pixels."""


class UnsupportedImageError(APIStatusError):
    """415: the file is no image of an accepted type."""


class UndecodableImageError(APIStatusError):
    """422: the image is damaged."""


class RateLimitError(APIStatusError):
    """429: rate or quota is used up, or the queue is full; see `code` and `retry_after`."""


class InternalServerError(APIStatusError):
    """500 and above: the service failed."""


class NotReadyError(InternalServerError):
    """503: no model is loaded, or the service is shutting down; see `retry_after`."""


class RequestTimeoutError(InternalServerError):
    """504: the work took longer than the service allows."""


_BY_STATUS: Final[dict[int, type[APIStatusError]]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: TooLargeError,
    415: UnsupportedImageError,
    422: UndecodableImageError,
    429: RateLimitError,
    503: NotReadyError,
    504: RequestTimeoutError,
}


def status_error(response: httpx.Response) -> APIStatusError:
    """The exception for a response that is no success, and that has been read."""
    status, headers = response.status_code, response.headers
    fallback = InternalServerError if status >= 500 else APIStatusError
    kind = _BY_STATUS.get(status, fallback)
    return kind(status, _detail(response), headers.get("x-request-id"), retry_after_sec(headers))


def connection_error(error: httpx.RequestError) -> APIConnectionError:
    """The exception for a response that didn't come."""
    kind = type(error).__name__
    return APIConnectionError(f"{kind}: {error}" if str(error) else kind)


def _detail(response: httpx.Response) -> dict[str, str]:
    try:
        error: Any = response.json()["error"]
        return {name: value for name, value in error.items() if isinstance(value, str)}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}

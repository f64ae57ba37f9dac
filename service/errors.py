"""What can go wrong in the service, as a tree of exceptions.

`ApiError` and its children become HTTP responses, all of the shape
`{"error": {"code", "message", "param", "type"}}`. `OperatorError` is for whoever runs the
command line or starts the service: one line that names the cause and the way out.
"""

import json
from typing import ClassVar

MAX_MESSAGE_CHARS = 600


class OperatorError(Exception):
    """A setting, an export or the Model Store is not as it must be; the command exits 2."""


class SettingsError(OperatorError):
    """A setting is missing or wrong; the message names its environment variable."""


class RegistryError(OperatorError):
    """An export or a registered model can't be used; the message names file or model."""


class SessionError(OperatorError):
    """A generator can't be loaded or run; the message says why."""


class DeviceError(SessionError):
    """The device that the operator chose is not there."""


class ApiError(Exception):
    """A response other than 200.

    Attributes:
        status: HTTP status.
        code: Stable word for programs.
        type: Family of the error, in the words of the OpenAI API.
        param: The field or header at fault, if one is.
        headers: Further response headers.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_sec: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message[:MAX_MESSAGE_CHARS]
        self.param = param[:64] if param else None
        self.code = code or self.default_code
        self.headers: dict[str, str] = {}
        if retry_after_sec is not None:
            self.headers["Retry-After"] = str(retry_after_sec)

    def body(self) -> bytes:
        """The error as the JSON that clients get."""
        error = {
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "type": self.type,
        }
        # ASCII escapes hold even the lone surrogates that JSON requests can carry.
        return json.dumps({"error": error}).encode("ascii")


class BadRequest(ApiError):
    """400: malformed, unknown, missing or out of range."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class Unauthorized(ApiError):
    """401: no key, or a wrong one."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"

    def __init__(
        self, message: str, *, code: str | None = None, retry_after_sec: int | None = None
    ) -> None:
        super().__init__(message, code=code, retry_after_sec=retry_after_sec)
        self.headers["WWW-Authenticate"] = "Bearer"


class Forbidden(ApiError):
    """403: the key lacks the scope that this needs."""

    status = 403
    type = "permission_error"
    default_code = "missing_scope"


class NotFound(ApiError):
    """404: unknown route or model."""

    status = 404
    type = "invalid_request_error"
    default_code = "not_found"


class MethodNotAllowed(ApiError):
    """405: the route exists, the method does not."""

    status = 405
    type = "invalid_request_error"
    default_code = "method_not_allowed"


class SlowClient(ApiError):
    """408: the body came too slowly, or not at all."""

    status = 408
    type = "invalid_request_error"
    default_code = "request_timeout"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers["Connection"] = "close"


class Conflict(ApiError):
    """409: the Idempotency-Key came with another request, or its first request still runs."""

    status = 409
    type = "invalid_request_error"
    default_code = "idempotency_key_reused"


class TooLarge(ApiError):
    """413: body bytes or image pixels over the cap."""

    status = 413
    type = "invalid_request_error"
    default_code = "too_large"


class UnsupportedImage(ApiError):
    """415: the bytes are no image of an accepted type."""

    status = 415
    type = "invalid_request_error"
    default_code = "unsupported_image"


class UndecodableImage(ApiError):
    """422: an accepted type that can't be decoded."""

    status = 422
    type = "invalid_request_error"
    default_code = "undecodable_image"


class HeadTooLarge(ApiError):
    """431: the request's line and headers are too long."""

    status = 431
    type = "invalid_request_error"
    default_code = "head_too_large"


class Busy(ApiError):
    """429: the key's rate or quota is used up, or the queue is full."""

    status = 429
    type = "rate_limit_error"
    default_code = "queue_full"


class NotReady(ApiError):
    """503: no model is loaded, or the service is shutting down."""

    status = 503
    default_code = "not_ready"


class TimedOut(ApiError):
    """504: the work took longer than the limit."""

    status = 504
    default_code = "timeout"

"""The body of every error."""

from pydantic import BaseModel


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    param: str | None
    type: str


class ErrorResponse(BaseModel):
    """The body of every response that is not a success."""

    error: ErrorDetail

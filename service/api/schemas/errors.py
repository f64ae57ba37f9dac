"""What every error answers."""

from pydantic import (
    BaseModel,
)


class ErrorDetail(BaseModel):
    """What went wrong."""

    code: str
    message: str
    param: str | None
    type: str


class ErrorResponse(BaseModel):
    """The shape of every answer that is not a success."""

    error: ErrorDetail

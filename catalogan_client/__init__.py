"""Typed client of a Catalogan service, synchronous and asynchronous.

with Catalogan("https://images.example.org", "KEY") as client:
    client.images.generate("a mug", n=2).images[0].save("mug.png")
"""

from catalogan_client.client import AsyncCatalogan, Catalogan
from catalogan_client.errors import (
    APIConnectionError,
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    BrokenAnswerError,
    CataloganError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    NotReadyError,
    PermissionDeniedError,
    RateLimitError,
    RequestTimeoutError,
    TooLargeError,
    UndecodableImageError,
    UnsupportedImageError,
)

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "AsyncCatalogan",
    "AuthenticationError",
    "BadRequestError",
    "BrokenAnswerError",
    "Catalogan",
    "CataloganError",
    "ConflictError",
    "InternalServerError",
    "NotFoundError",
    "NotReadyError",
    "PermissionDeniedError",
    "RateLimitError",
    "RequestTimeoutError",
    "TooLargeError",
    "UndecodableImageError",
    "UnsupportedImageError",
]

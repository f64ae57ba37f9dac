"""Who sent a request, and how many images it got: noted in the request's ASGI scope."""

from typing import Final

from starlette.requests import Request
from starlette.types import Scope

from service.access.api_keys import ANYBODY, ApiKey

_KEY: Final = "catalogan.key"
_IMAGES: Final = "catalogan.images"


def set_key(scope: Scope, key: ApiKey) -> None:
    """Note the key that a request came with."""
    scope[_KEY] = key


def key_of(request: Request) -> ApiKey:
    """The key that a request came with."""
    key: ApiKey = request.scope[_KEY]
    return key


def caller_id(scope: Scope) -> str:
    """Whose request it is: its key's id; empty before there is one."""
    key: ApiKey | None = scope.get(_KEY)
    return "" if key is None else key.id


def is_stranger(request: Request) -> bool:
    """Whether a request came without a key, where the operator lets anybody verify images."""
    return key_of(request).name == ANYBODY


def note_images(request: Request, images: int) -> None:
    """Have the images that were created for a request counted as its key's."""
    request.scope[_IMAGES] = images


def images_of(scope: Scope) -> int:
    """How many images were created for a request."""
    images: int = scope.get(_IMAGES, 0)
    return images

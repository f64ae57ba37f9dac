"""OpenAPI parts for routes that parse their bodies themselves."""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeVar

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import BaseModel

from service import errors
from service.api.endpoint import Endpoint
from service.api.schemas.errors import ErrorResponse
from service.errors import ApiError
from service.rendering.encoding import MEDIA_TYPES

STATUS_TEXT: Final = {
    kind.status: (kind.__doc__ or "").partition(":")[2].strip() or "Something went wrong."
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ApiError)
}
IDEMPOTENCY_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same request with the same key gets the first one's response for a day.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}
Handler = TypeVar("Handler", bound=Callable[..., Any])
_REFERENCES: Final = "#/components/schemas/{model}"


def describe(app: FastAPI, *, keyed: bool) -> dict[str, Any]:
    """The app's OpenAPI document, with the schemas of hand-parsed bodies.

    Args:
        app: The public API.
        keyed: Whether callers need a key.
    """
    document = copy.deepcopy(app.openapi())  # FastAPI keeps its own
    components = document.setdefault("components", {})
    for path in document["paths"].values():
        for operation in path.values():
            if "409" in operation["responses"]:
                operation.setdefault("parameters", []).append(IDEMPOTENCY_KEY)
            for body in operation.get("requestBody", {}).get("content", {}).values():
                definitions = body["schema"].pop("$defs", {})
                components.setdefault("schemas", {}).update(definitions)
    if keyed:
        key = {"type": "http", "scheme": "bearer", "description": "Or the header x-api-key."}
        components["securitySchemes"] = {"key": key}
        document["security"] = [{"key": []}]
    return document


def json_body(model: type[BaseModel]) -> dict[str, Any]:
    """An operation's request body that is JSON."""
    schema = model.model_json_schema(ref_template=_REFERENCES)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def form_body(
    model: type[BaseModel], *json_fields: str, files: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """An operation's request body that is a form with files; some fields are JSON.

    Args:
        model: The text fields.
        json_fields: Those that are JSON.
        files: How many files there may be of each name; by default one `image`.
    """
    schema = model.model_json_schema(ref_template=_REFERENCES)
    one = {"type": "string", "contentMediaType": "application/octet-stream"}
    parts = {
        name: one if most == 1 else {"type": "array", "items": one, "maxItems": most}
        for name, most in (files or {"image": 1}).items()
    }
    if "maxItems" in parts["image"]:
        parts["image"] = {**parts["image"], "minItems": 1}
    schema["properties"] = {**parts, **schema["properties"]}
    schema["required"] = ["image"]
    content = {
        "schema": schema,
        "encoding": {name: {"contentType": "application/json"} for name in json_fields},
    }
    return {"requestBody": {"required": True, "content": {"multipart/form-data": content}}}


def route(
    app: FastAPI,
    endpoint: Endpoint,
    *,
    images: type[BaseModel] | None = None,
    files: Sequence[str] = (),
    **more: Any,
) -> Callable[[Handler], Handler]:
    """Decorate the function that serves an endpoint.

    Args:
        app: Gets the route.
        endpoint: Its record.
        images: As of `_responses`.
        files: As of `_responses`.
        more: For FastAPI.
    """
    if images or files:
        more["response_class"] = Response
    return app.api_route(
        endpoint.path,
        methods=[endpoint.method],
        summary=endpoint.summary,
        include_in_schema=endpoint.summary is not None,
        responses=_responses(images, endpoint.statuses, files),
        **more,
    )


def _responses(
    images: type[BaseModel] | None, statuses: Sequence[int], files: Sequence[str]
) -> dict[int | str, dict[str, Any]]:
    """An operation's table of responses.

    Args:
        images: The JSON response of a route that also returns files; None = it returns none.
        statuses: Errors that it can return.
        files: Media types of the files; by default bare images and archives.
    """
    table: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorResponse, "description": STATUS_TEXT[status]}
        for status in sorted(statuses)
    }
    media = files or ((*MEDIA_TYPES.values(), "application/zip") if images else ())
    if media:
        binary = {one: {"schema": {"type": "string", "contentMediaType": one}} for one in media}
        table[200] = {"description": "The images", "content": binary}
    if images is not None:
        table[200]["model"] = images
    return table

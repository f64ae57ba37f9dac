"""One record for each endpoint: who may call it, what it is counted as, what it takes and returns.

Routes, middleware, usage, metrics and OpenAPI all read these. A path or method without a record
gets no access: the authentication answers 404 or 405, whatever routes there are.
"""

import re
from dataclasses import dataclass
from typing import Final, Literal

from service.access.api_keys import Scope
from service.augmentation.budget import WorkLimits

Body = Literal["none", "json", "form", "json or form"]
QueueName = Literal["generations", "links", "interpolations", "uploads", "strangers", "datasets"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """What is said of an endpoint.

    Attributes:
        method: HTTP's.
        path: As routes write it; each path has one method.
        summary: For OpenAPI; None = it is not described there.
        scope: What the key must open; None = any key will do.
        kind: What requests, images and records are counted as; None = they are not counted, and
            take nothing of the key's rate.
        body: What it takes: forms hold photos, and may be longer than JSON.
        queue: Where its requests wait. Forms that came have a slot among the uploads, too.
        statuses: The errors that it can return.
        work: What its images may cost on their way; None = that follows from their number.
    """

    method: Literal["GET", "POST"]
    path: str
    summary: str | None = None
    scope: Scope | None = None
    kind: str | None = None
    body: Body = "none"
    queue: QueueName | None = None
    statuses: tuple[int, ...] = ()
    work: WorkLimits | None = None


# What any endpoint may return: the key, the scope or the origin is wrong.
_GUARDED: Final = (401, 403, 500)
# What any that creates images may return.
_CREATING: Final = (*_GUARDED, 400, 408, 409, 413, 429, 503, 504)

GENERATIONS: Final = Endpoint(
    method="POST",
    path="/v1/images/generations",
    summary="Generate images",
    scope="generate",
    kind="generation",
    body="json",
    queue="generations",
    statuses=(*_CREATING, 404),
)
# Its path is signed, and needs no key; clients get it from responses.
LINKS: Final = Endpoint(method="GET", path="/v1/images/links/{link}", queue="links")
INTERPOLATIONS: Final = Endpoint(
    method="POST",
    path="/v1/images/interpolations",
    summary="Interpolate between images",
    scope="generate",
    kind="interpolation",
    body="json or form",
    queue="interpolations",
    statuses=(*_CREATING, 404, 415, 422),
)
DATASETS: Final = Endpoint(
    method="POST",
    path="/v1/datasets",
    summary="Create a labelled set",
    scope="generate",
    kind="dataset",
    body="json",
    queue="datasets",
    statuses=(*_CREATING, 404),
)
AUGMENTATIONS: Final = Endpoint(
    method="POST",
    path="/v1/images/augmentations",
    summary="Augment photos",
    scope="generate",
    kind="augmentation",
    body="form",
    queue="uploads",
    statuses=(*_CREATING, 415, 422),
    # Above what 160 images of 512 px of the largest photos take by the longest policy.
    work=WorkLimits(pixels=2_000_000_000, points=200_000, annotation_bytes=10_000_000),
)
VARIATIONS: Final = Endpoint(
    method="POST",
    path="/v1/images/variations",
    summary="Vary a photo",
    scope="generate",
    kind="variation",
    body="form",
    queue="uploads",
    statuses=(*_CREATING, 404, 415, 422),
)
MODELS: Final = Endpoint(method="GET", path="/v1/models", summary="List models", statuses=_GUARDED)
MODEL: Final = Endpoint(
    method="GET", path="/v1/models/{model}", summary="Show a model", statuses=(*_GUARDED, 404)
)
USAGE: Final = Endpoint(
    method="GET",
    path="/v1/usage",
    summary="Show usage and quotas",
    statuses=(*_GUARDED, 400, 503),
)
VERIFICATIONS: Final = Endpoint(
    method="POST",
    path="/v1/verifications",
    summary="Verify an image",
    kind="verification",
    body="form",
    queue="uploads",
    statuses=(*_GUARDED, 400, 408, 413, 415, 429, 503, 504),
)
OPENAPI: Final = Endpoint(method="GET", path="/v1/openapi.json")
METRICS: Final = Endpoint(method="GET", path="/metrics", scope="metrics")

ENDPOINTS: Final = (
    GENERATIONS,
    LINKS,
    INTERPOLATIONS,
    DATASETS,
    AUGMENTATIONS,
    VARIATIONS,
    MODELS,
    MODEL,
    USAGE,
    VERIFICATIONS,
    OPENAPI,
    METRICS,
)
# A template's parameters as Starlette's routes read them: each is one part of a path.
_PATTERNS: Final = [
    (re.compile("[^/]+".join(map(re.escape, re.split(r"\{\w+\}", endpoint.path)))), endpoint)
    for endpoint in ENDPOINTS
]


def endpoint_at(path: str) -> Endpoint | None:
    """The record of exactly `path`; what is below a record's path is not its."""
    return next((one for pattern, one in _PATTERNS if pattern.fullmatch(path)), None)

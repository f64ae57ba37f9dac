"""Which type and format the Accept header and the body ask for."""

from collections.abc import Sequence
from typing import Final, Literal, TypeVar

from service.datasets.plan import CONTAINER_TYPES, Container, DatasetRequest
from service.errors import BadRequest
from service.generation.interpolation_requests import FILE_TYPES, InterpolationFormat
from service.rendering.encoding import MEDIA_TYPES, OutputFormat

Answer = Literal["application/json", "image/png", "image/webp", "image/jpeg", "application/zip"]
ANSWERS: Final[tuple[Answer, ...]] = (
    "application/json",
    "image/png",
    "image/webp",
    "image/jpeg",
    "application/zip",
)

Served = TypeVar("Served", bound=str)


def choose_answer(accept: str | None, preferred_image: str | None = None) -> Answer:
    """Choose the served media type that the client likes best.

    Args:
        accept: The Accept header; None or empty means anything.
        preferred_image: Media type of the asked output format, which wins among images of
            equal weight.

    Returns:
        JSON where the client does not mind.

    Raises:
        BadRequest: Nothing that is served is acceptable.
    """
    liked = best_liked(accept, ANSWERS)
    if liked[0] != "application/json" and preferred_image in liked:
        return next(answer for answer in liked if answer == preferred_image)
    return liked[0]


def best_liked(accept: str | None, served: Sequence[Served]) -> list[Served]:
    """Those of the served media types that the client likes best, in the served order.

    Args:
        accept: The Accept header; None or empty means anything.
        served: What there is.

    Raises:
        BadRequest: Nothing that is served is acceptable.
    """
    ranges = _parse(accept or "*/*")
    weights = {media: _weight(media, ranges) for media in served}
    best = max(weights.values())
    if best <= 0:
        raise BadRequest(
            f"none of the accepted types is served; served are {', '.join(served)}",
            param="Accept",
            code="not_acceptable",
        )
    return [media for media in served if weights[media] == best]


def _parse(accept: str) -> list[tuple[str, float]]:
    ranges = []
    for part in accept.split(",")[:50]:
        media, *parameters = (piece.strip().lower() for piece in part.split(";"))
        quality = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                quality = _quality(value.strip())
        if media:
            ranges.append(("*/*" if media == "*" else media, quality))
    return ranges or [("*/*", 1.0)]


def _quality(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0.0 <= value <= 1.0 else 0.0


def _weight(answer: str, ranges: list[tuple[str, float]]) -> float:
    """Weight of the most specific range that covers `answer`; 0 if none does."""
    for candidate in (answer, answer.split("/")[0] + "/*", "*/*"):
        weights = [quality for media, quality in ranges if media == candidate]
        if weights:
            return max(weights)
    return 0.0


def settle_answer(
    accept: str | None, asked: OutputFormat | None, n: int
) -> tuple[Answer, OutputFormat]:
    """Settle kind of answer and format of pictures; see `choose_answer` and `image_format`."""
    kind = choose_answer(accept, MEDIA_TYPES[asked] if asked else None)
    return kind, image_format(kind, asked, n)


def image_format(kind: Answer, asked: OutputFormat | None, n: int) -> OutputFormat:
    """Settle the pictures' format from the Accept header and the body's output_format.

    Raises:
        BadRequest: They contradict each other, or several bare pictures are asked for.
    """
    if not kind.startswith("image/"):
        return asked or "png"
    if n != 1:
        raise BadRequest(
            f"a bare picture is one picture, but n is {n}: accept application/json or "
            "application/zip",
            param="n",
        )
    accepted = next(name for name, media in MEDIA_TYPES.items() if media == kind)
    if asked not in (None, accepted):
        raise BadRequest(
            f"output_format is {asked}, but only {kind} is accepted", param="output_format"
        )
    return accepted


def settle_format(accept: str | None, asked: InterpolationFormat | None) -> InterpolationFormat:
    """Settle the answer's format from the Accept header and the body's output_format.

    Raises:
        BadRequest: They contradict each other, or nothing that is served is accepted.
    """
    liked = best_liked(accept, list(FILE_TYPES.values()))
    if asked is None:
        return next(name for name, media in FILE_TYPES.items() if media == liked[0])
    try:
        best_liked(accept, [FILE_TYPES[asked]])
    except BadRequest:
        raise BadRequest(
            f"output_format is {asked}, but {FILE_TYPES[asked]} is not accepted",
            param="output_format",
        ) from None
    return asked


def settle_container(accept: str | None, request: DatasetRequest) -> Container:
    """Settle the answer's container from the Accept header and the body.

    Raises:
        BadRequest: They contradict each other, or nothing that is served is accepted.
    """
    liked = best_liked(accept, list(CONTAINER_TYPES.values()))
    if request.container is None:
        preferred: Container = "tar" if request.layout == "webdataset" else "zip"
        found = [name for name, media in CONTAINER_TYPES.items() if media in liked]
        return preferred if preferred in found else found[0]
    try:
        best_liked(accept, [CONTAINER_TYPES[request.container]])
    except BadRequest:
        raise BadRequest(
            f"container is {request.container}, but {CONTAINER_TYPES[request.container]} is not "
            "accepted",
            param="container",
        ) from None
    return request.container

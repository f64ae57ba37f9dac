"""Which type and format the Accept header and the body request."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeVar

from service.errors import BadRequest
from service.rendering.encoding import MEDIA_TYPES, OutputFormat

ResponseType = Literal[
    "application/json", "image/png", "image/webp", "image/jpeg", "application/zip"
]
RESPONSE_TYPES: Final[tuple[ResponseType, ...]] = (
    "application/json",
    "image/png",
    "image/webp",
    "image/jpeg",
    "application/zip",
)

Served = TypeVar("Served", bound=str)
Name = TypeVar("Name", bound=str)


def choose_response_type(accept: str | None, preferred_image: str | None = None) -> ResponseType:
    """Choose the served media type that the client likes best.

    Args:
        accept: The Accept header; None or empty means anything.
        preferred_image: Media type of the requested output format, which wins among images of
            equal weight.

    Returns:
        JSON where the client does not mind.

    Raises:
        BadRequest: Nothing that is served is acceptable.
    """
    liked = most_wanted_types(accept, RESPONSE_TYPES)
    if liked[0] != "application/json" and preferred_image in liked:
        return next(media for media in liked if media == preferred_image)
    return liked[0]


def most_wanted_types(accept: str | None, served: Sequence[Served]) -> list[Served]:
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


def _weight(media: str, ranges: list[tuple[str, float]]) -> float:
    """Weight of the most specific range that covers `media`; 0 if none does."""
    for candidate in (media, media.split("/")[0] + "/*", "*/*"):
        weights = [quality for accepted, quality in ranges if accepted == candidate]
        if weights:
            return max(weights)
    return 0.0


def resolve_response(
    accept: str | None, wanted: OutputFormat | None, n: int
) -> tuple[ResponseType, OutputFormat]:
    """Choose the kind of response and the images' format by Accept header and output_format.

    Raises:
        BadRequest: They contradict each other, or several bare images are requested.
    """
    kind = choose_response_type(accept, MEDIA_TYPES[wanted] if wanted else None)
    if not kind.startswith("image/"):
        return kind, wanted or "png"
    if n != 1:
        raise BadRequest(
            f"a bare image is one image, but n is {n}: accept application/json or application/zip",
            param="n",
        )
    accepted = next(name for name, media in MEDIA_TYPES.items() if media == kind)
    if wanted not in (None, accepted):
        raise BadRequest(
            f"output_format is {wanted}, but only {kind} is accepted", param="output_format"
        )
    return kind, accepted


def resolve_file(
    accept: str | None,
    types: Mapping[Name, str],
    wanted: Name | None,
    field: str,
    preferred: Name | None = None,
) -> Name:
    """Choose the kind of file of a response that is one file.

    Args:
        accept: The Accept header.
        types: Media type by name, of what is served.
        wanted: What the body requests; None = as the header likes best.
        field: The body's field that says so.
        preferred: Of what the header likes equally well.

    Raises:
        BadRequest: They contradict each other, or nothing that is served is accepted.
    """
    liked = most_wanted_types(accept, list(types.values()))
    if wanted is None:
        found = [name for name, media in types.items() if media in liked]
        return preferred if preferred in found else found[0]
    if _weight(types[wanted], _parse(accept or "*/*")) <= 0:
        raise BadRequest(f"{field} is {wanted}, but {types[wanted]} is not accepted", param=field)
    return wanted

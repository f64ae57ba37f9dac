"""What an interpolation request says: a path through the images of seeds and photos."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from service.decoding.uploads import File
from service.errors import BadRequest
from service.fields import Background, ImageSize, Seed, Strict, Weights, refuse_both
from service.inference.generation import SEED_LIMIT

MAX_WAYPOINTS: Final = 10
MAX_FRAMES: Final = 300
MAX_NAME_CHARS: Final = 255

InterpolationFormat = Literal["zip", "webp", "gif"]
FILE_TYPES: Final[dict[InterpolationFormat, str]] = {
    "zip": "application/zip",
    "webp": "image/webp",
    "gif": "image/gif",
}
# A seed, or a photo.
WaypointSource = int | File


def _check_waypoint(value: Any) -> Any:
    """Says at once what a union's branches would say one by one."""
    seed = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < SEED_LIMIT
    if not seed and not (isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARS):
        raise ValueError("a waypoint is a seed, or the file name of a photo")
    return value


PhotoName = Annotated[str, Field(min_length=1, max_length=MAX_NAME_CHARS)]
WaypointName = Annotated[Seed | PhotoName, BeforeValidator(_check_waypoint)]


class PathRequest(Strict):
    """What every interpolation request may say; user changes nothing."""

    frames: Annotated[
        int,
        Field(
            ge=2,
            le=60,
            description="From one waypoint to the next, both counted; one where two legs meet is "
            f"one frame. At most {MAX_FRAMES} in all.",
        ),
    ] = 12
    loop: Annotated[
        bool, Field(description="Lead back to the first waypoint, and play for ever.")
    ] = False
    category: Annotated[
        str | None,
        Field(
            max_length=200,
            description="Else each photo's is the nearest, of up to 32, and seeds have the first "
            "photo's; where there is no photo, the first seed chooses.",
        ),
    ] = None
    truncation_psi: Annotated[
        float | None,
        Field(ge=0, le=1, description="Of seeds: 0 = the mean image, 1 = full variety."),
    ] = None
    frame_duration_ms: Annotated[
        int,
        Field(
            ge=20,
            le=1000,
            description="Of animations; GIF rounds it to 10 ms. Equal frames in a row become one "
            "that stays longer.",
        ),
    ] = 80
    size: ImageSize | None = None
    background: Background | None = None
    output_format: Annotated[
        InterpolationFormat | None,
        Field(description="zip = PNG frames, the default; webp and gif are animated."),
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    user: Annotated[str | None, Field(max_length=512)] = None


class InterpolationRequest(PathRequest):
    """JSON body of POST /v1/images/interpolations."""

    seeds: Annotated[
        list[Seed],
        Field(
            min_length=2,
            max_length=MAX_WAYPOINTS,
            description="Waypoints; all have the first's noise.",
        ),
    ]
    categories: Annotated[
        Weights | None, Field(description="A mixture, in place of `category`.")
    ] = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        refuse_both(self, "categories", "category")
        return self


class PhotoInterpolationRequest(PathRequest):
    """Fields of the form that POST /v1/images/interpolations takes beside files `image`."""

    waypoints: Annotated[
        list[WaypointName] | None,
        Field(
            min_length=2,
            max_length=MAX_WAYPOINTS,
            description="Seeds, and file names of photos; by default the photos in their order. "
            "All have the first seed's noise.",
        ),
    ] = None


@dataclass(frozen=True)
class RequestedPath:
    """An interpolation, however it was sent.

    Attributes:
        path: What is requested.
        sources: Seeds and photos in the order of the path.
        photos: In the order that they came in.
    """

    path: PathRequest
    sources: Sequence[WaypointSource]
    photos: Sequence[File] = ()

    @property
    def frame_count(self) -> int:
        """Number of frames in all."""
        legs = len(self.sources) if self.path.loop else len(self.sources) - 1
        return legs * (self.path.frames - 1) + (0 if self.path.loop else 1)

    @property
    def noise_seed(self) -> int:
        """Whose noise all frames have: the first seed's, so that it doesn't flicker."""
        return next((source for source in self.sources if isinstance(source, int)), 0)

    def check_length(self) -> None:
        """Refuse what takes too long.

        Raises:
            BadRequest: There are more frames than are served.
        """
        if self.frame_count > MAX_FRAMES:
            raise BadRequest(
                f"that is {self.frame_count} frames: at most {MAX_FRAMES} are served",
                param="frames",
            )


def resolve_waypoints(
    request: PhotoInterpolationRequest, photos: Sequence[File]
) -> list[WaypointSource]:
    """Say which photos the waypoints name.

    Raises:
        BadRequest: Fewer than two, a name that no photo or several have, or a photo that is not
            named.
    """
    if request.waypoints is None:
        if len(photos) < 2:
            raise BadRequest(
                "one photo is no path: send another `image`, or name photo and seeds in "
                '`waypoints`, such as ["mug.png", 7]',
                param="image",
                code="missing_field",
            )
        return list(photos)
    by_name = {photo.name: photo for photo in photos}
    if len(by_name) != len(photos):
        raise BadRequest(
            "two photos have the same file name: `waypoints` needs different ones", param="image"
        )
    for index, name in enumerate(request.waypoints):
        if isinstance(name, str) and name not in by_name:
            raise BadRequest(
                "no `image` has this file name: send one, or name another",
                param=f"waypoints.{index}",
            )
    if unused := by_name.keys() - set(request.waypoints):
        raise BadRequest(
            f"the path leaves out {len(unused)} of the photos: name every one, or leave it out",
            param="waypoints",
        )
    return [by_name[source] if isinstance(source, str) else source for source in request.waypoints]

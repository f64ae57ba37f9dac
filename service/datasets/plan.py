"""A request for a labelled set -> what is generated, and where it goes."""

import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from models.manifest import GeneratorManifest
from service.datasets.numbering import Item, Shard, all_items, first_seed
from service.errors import BadRequest
from service.fields import Background, Compression, ImageSize, Seed, Strict
from service.generation.categories import find_category
from service.inference.generation import SEED_LIMIT
from service.rendering.encoding import OutputFormat
from service.rendering.presentation import Presentation, check_transparency, choose_presentation

# What a number of seven digits names; a set that is larger is several sets.
MAX_IMAGES: Final = 9_999_999
MAX_SHARDS: Final = 10_000
# Of one .tar of a set in WebDataset's layout, where several lie in a ZIP or a directory.
TAR_IMAGES: Final = 1000

Layout = Literal["folder", "coco", "webdataset"]
Container = Literal["zip", "tar"]
CONTAINER_TYPES: Final[dict[Container, str]] = {
    "zip": "application/zip",
    "tar": "application/x-tar",
}
ImageCount = Annotated[int, Field(ge=1, le=MAX_IMAGES)]


class AskedShard(Strict):
    """One of several parts that together are the set."""

    index: Annotated[int, Field(ge=1, le=MAX_SHARDS, description="From 1 on.")]
    of: Annotated[int, Field(ge=1, le=MAX_SHARDS)]


class DatasetRequest(Strict):
    """Body of POST /v1/datasets; user changes nothing."""

    categories: Annotated[
        dict[Annotated[str, Field(max_length=200)], ImageCount] | None,
        Field(min_length=1, max_length=10_000, description="Images of each category."),
    ] = None
    count: Annotated[
        ImageCount | None,
        Field(description="Images of each of the model's categories, in place of `categories`."),
    ] = None
    seed: Annotated[
        Seed | None, Field(description="All images' seeds follow from it; else a random one.")
    ] = None
    shard: Annotated[
        AskedShard | None, Field(description="Only this part of the set; needs `seed`.")
    ] = None
    layout: Annotated[
        Layout,
        Field(description="CATEGORY/NUMBER.png; COCO's annotations.json; or WebDataset's pairs."),
    ] = "folder"
    container: Annotated[
        Container | None,
        Field(
            description="By default as accepted, or zip; tar for webdataset, which then is one "
            f"WebDataset shard, where a zip holds shards of {TAR_IMAGES}."
        ),
    ] = None
    truncation_psi: Annotated[
        float | None, Field(ge=0, le=1, description="0 = the mean image, 1 = full variety.")
    ] = None
    size: ImageSize | None = None
    background: Background | None = None
    output_format: OutputFormat = "png"
    output_compression: Annotated[
        Compression | None, Field(description="Quality of JPEG and WebP; 100 is lossless WebP.")
    ] = None
    model: Annotated[str | None, Field(max_length=128)] = None
    user: Annotated[str | None, Field(max_length=512)] = None

    @property
    def usual_container(self) -> Container:
        """What the layout's files are usually in."""
        return "tar" if self.layout == "webdataset" else "zip"

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if (self.categories is None) == (self.count is None):
            raise BadRequest(
                "send either categories, with a count for each, or count, for all",
                param="categories",
                code="missing_field" if self.count is None else None,
            )
        if self.shard is not None:
            if self.shard.index > self.shard.of:
                raise BadRequest(
                    f"of {self.shard.of} shards there is no number {self.shard.index}",
                    param="shard.index",
                )
            if self.seed is None and self.shard.of > 1:
                raise BadRequest(
                    "send a seed: the shards of a set are those of one seed",
                    param="seed",
                    code="missing_field",
                )
        check_transparency(self.background, self.output_format)
        return self


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """A set, resolved for one model.

    Attributes:
        counts: Images by index of category, of the whole set.
        seed: The set's.
        shard: Which part is generated.
        layout: How the files lie.
        in_tars: Images lie in tars, within what is generated.
        truncation_psi: Of all images.
        presentation: ImageSize and background of all.
        output_format: Of all images.
        output_compression: Their quality; None = the format's usual one.
    """

    counts: Mapping[int, int]
    seed: int
    shard: Shard
    layout: Layout
    in_tars: bool
    truncation_psi: float
    presentation: Presentation
    output_format: OutputFormat
    output_compression: int | None

    @property
    def total(self) -> int:
        """Images of the whole set."""
        return sum(self.counts.values())

    @property
    def numbers(self) -> range:
        """Numbers of the images that are generated."""
        return self.shard.numbers(self.total, TAR_IMAGES if self.in_tars else 1)

    @property
    def digits(self) -> int:
        """Of the numbers in names, so that names sort in order."""
        return max(6, len(str(self.total)))

    def items(self) -> Iterator[Item]:
        """The images that are generated, in order."""
        numbers = self.numbers
        return islice(all_items(self.counts, self.seed, numbers.start), len(numbers))

    def first_seed(self, category: int) -> int:
        """Seed of a category's first image."""
        return first_seed(self.seed, category)


def plan_dataset(
    request: DatasetRequest,
    manifest: GeneratorManifest,
    *,
    container: Container | None,
    limit: int = MAX_IMAGES,
) -> DatasetPlan:
    """Resolve which images are generated, and how they are shown.

    Args:
        request: What is requested.
        manifest: The model's.
        container: What the files go into; None = a directory.
        limit: The most images that may be generated.

    Raises:
        BadRequest: The model can't give it, or it would be too many images.
    """
    known = manifest.categories
    if request.categories is not None:
        counts = _find_categories(request.categories, manifest)
    else:
        counts = dict.fromkeys(range(len(known)), request.count or 0)
    psi = manifest.truncation_psi if request.truncation_psi is None else request.truncation_psi
    plan = DatasetPlan(
        counts=counts,
        seed=secrets.randbelow(SEED_LIMIT) if request.seed is None else request.seed,
        shard=Shard(request.shard.index, request.shard.of) if request.shard else Shard(),
        layout=request.layout,
        in_tars=request.layout == "webdataset" and container != "tar",
        truncation_psi=psi,
        presentation=choose_presentation(request.size, request.background, manifest),
        output_format=request.output_format,
        output_compression=request.output_compression,
    )
    if plan.total > MAX_IMAGES or len(plan.numbers) > limit:
        most = min(limit, MAX_IMAGES)
        raise BadRequest(
            f"that is {len(plan.numbers)} of {plan.total} images, and at most {most} are "
            "generated at a time: send lower counts, or request shards",
            param="count" if request.categories is None else "categories",
            code="too_many_pictures",
        )
    return plan


def _find_categories(requested: Mapping[str, int], manifest: GeneratorManifest) -> dict[int, int]:
    known: dict[str, int] = {}
    for index, name in enumerate(manifest.categories):
        known.setdefault(name.casefold(), index)
    counts: dict[int, int] = {}
    for name, count in requested.items():
        wanted = name.strip().casefold()
        index = (
            known[wanted]
            if wanted in known
            else find_category(name, manifest.categories, "categories")
        )
        if index in counts:
            raise BadRequest(
                "a category is named twice: letter case and blanks don't count",
                param="categories",
            )
        counts[index] = count
    return counts

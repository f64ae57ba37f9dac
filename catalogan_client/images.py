"""Calls that create images: arguments -> call.

The fields are those of docs/api.md; what is None is left to the service.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import httpx

from catalogan_client.calls import Call, FileInput, OutputFormat, given, is_one_file
from catalogan_client.methods import AnyTransport, Endpoint, Resource
from catalogan_client.parsing import archive_metadata, build, header_metadata, json_reader
from catalogan_client.results import Augmentation, Generation, Interpolation, Variation

AnimationFormat = Literal["zip", "webp", "gif"]

ANIMATION_TYPES: Final[dict[str, str]] = {
    "zip": "application/zip",
    "webp": "image/webp",
    "gif": "image/gif",
}


def generate(
    prompt: str | None = None,
    *,
    category: str | None = None,
    categories: Mapping[str, float] | None = None,
    n: int | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    style_mixing: Mapping[str, int] | None = None,
    truncation_psi: float | None = None,
    model: str | None = None,
    size: str | None = None,
    background: str | None = None,
    output_format: OutputFormat | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Generation]:
    """Generate 1 to 10 images of a category, or of what the prompt names."""
    body = given(
        prompt=prompt,
        category=category,
        categories=categories and dict(categories),
        n=n,
        seed=seed,
        seeds=seeds and list(seeds),
        style_mixing=style_mixing and dict(style_mixing),
        truncation_psi=truncation_psi,
        model=model,
        size=size,
        background=background,
        output_format=output_format,
        output_compression=output_compression,
        user=user,
    )
    read = json_reader(Generation)
    return Call("POST", "/v1/images/generations", read, body, idempotency_key=idempotency_key)


def vary(
    photo: FileInput,
    *,
    strength: float | None = None,
    category: str | None = None,
    n: int | None = None,
    seed: int | None = None,
    seeds: Sequence[int] | None = None,
    model: str | None = None,
    size: str | None = None,
    output_format: OutputFormat | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Variation]:
    """Generate 1 to 10 images like a photo, by a model that has an encoder."""
    body = given(
        strength=strength,
        category=category,
        n=n,
        seed=seed,
        seeds=seeds and list(seeds),
        model=model,
        size=size,
        output_format=output_format,
        output_compression=output_compression,
        user=user,
    )
    return Call(
        "POST",
        "/v1/images/variations",
        json_reader(Variation),
        body,
        files=[("image", "photo", photo)],
        idempotency_key=idempotency_key,
    )


def interpolate(
    waypoints: Sequence[int | FileInput],
    *,
    frames: int | None = None,
    loop: bool | None = None,
    category: str | None = None,
    categories: Mapping[str, float] | None = None,
    truncation_psi: float | None = None,
    frame_duration_ms: int | None = None,
    model: str | None = None,
    size: str | None = None,
    background: str | None = None,
    output_format: AnimationFormat = "zip",
    user: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Interpolation]:
    """Lead from the image of one seed or photo to those of others.

    Photos need a model with an encoder, and go without `categories`.
    """
    sources, files = _named(waypoints)
    body = given(
        **({"waypoints": sources} if files else {"seeds": sources}),
        frames=frames,
        loop=loop,
        category=category,
        categories=categories and dict(categories),
        truncation_psi=truncation_psi,
        frame_duration_ms=frame_duration_ms,
        model=model,
        size=size,
        background=background,
        output_format=output_format,
        user=user,
    )
    return Call(
        "POST",
        "/v1/images/interpolations",
        _read_interpolation,
        body,
        files=files,
        accept=ANIMATION_TYPES.get(output_format, "*/*"),
        idempotency_key=idempotency_key,
    )


def augment(
    photos: FileInput | Sequence[FileInput],
    *,
    masks: Sequence[FileInput | None] | None = None,
    annotations: Sequence[Mapping[str, Any] | None] | None = None,
    policy: str | None = None,
    operations: Sequence[Mapping[str, Any]] | None = None,
    canvas: Mapping[str, Any] | None = None,
    n: int | None = None,
    seed: int | None = None,
    replay: Sequence[Mapping[str, Any]] | None = None,
    min_visible: float | None = None,
    output_format: OutputFormat | None = None,
    output_compression: int | None = None,
    user: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Augmentation]:
    """Create variants of up to 16 photos; masks and annotations, one for each, go along.

    `replay` takes what `AugmentedImage.replay()` returns.
    """
    body = given(
        annotations=annotations and list(annotations),
        policy=policy,
        operations=operations and list(operations),
        canvas=canvas,
        n=n,
        seed=seed,
        replay=replay and list(replay),
        min_visible=min_visible,
        output_format=output_format,
        output_compression=output_compression,
        user=user,
    )
    # A mask belongs to the photo that has its name.
    files = [("image", str(i), photo) for i, photo in enumerate(_listed(photos))]
    files += [("mask", f"{i}.png", mask) for i, mask in enumerate(masks or ()) if mask is not None]
    return Call(
        "POST",
        "/v1/images/augmentations",
        json_reader(Augmentation),
        body,
        files=files,
        idempotency_key=idempotency_key,
    )


class Images(Resource[AnyTransport]):
    """Images from seeds, photos and paths between them."""

    generate = Endpoint(generate)
    vary = Endpoint(vary)
    interpolate = Endpoint(interpolate)
    augment = Endpoint(augment)


def _listed(photos: FileInput | Sequence[FileInput]) -> Sequence[FileInput]:
    return [photos] if is_one_file(photos) else photos  # type: ignore[list-item, return-value]


def _named(
    waypoints: Sequence[int | FileInput],
) -> tuple[list[int | str], list[tuple[str, str, FileInput]]]:
    """Seeds and photos' names in their order, and the photos by these names, each once."""
    photos = {id(one): one for one in waypoints if not isinstance(one, int)}
    names = {key: f"photo-{index}" for index, key in enumerate(photos)}
    sources = [one if isinstance(one, int) else names[id(one)] for one in waypoints]
    return sources, [("image", names[key], photo) for key, photo in photos.items()]


def _read_interpolation(response: httpx.Response) -> Interpolation:
    data = response.content
    if response.headers.get("content-type", "").startswith("application/zip"):
        metadata = archive_metadata(data) | {"output_format": "zip"}
    else:
        metadata = header_metadata(response, Interpolation)
    found: Interpolation = build(Interpolation, {**metadata, "b64_json": data})
    return found

"""Encoded images -> the kind of response that the client accepts."""

import asyncio
import base64
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import Response

from service.api.parsing.accept import ResponseType
from service.errors import ApiError
from service.inference.workers import to_the_end
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import OutputFormat

MAX_HEADER_CHARS: Final = 1000
# The earliest date that ZIP can hold: equal requests give equal archives.
ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
# What is encoded on the event loop, in well under a millisecond.
MAX_IMAGES_ON_LOOP: Final = 10
MAX_BYTES_ON_LOOP: Final = 50_000
# Encoded at a time; a multiple of 3, so that the pieces are one text together.
BASE64_BYTES: Final = 750_000


async def image_response(
    kind: ResponseType,
    output_format: OutputFormat,
    images: Sequence[EncodedImage],
    metadata: Mapping[str, Any],
) -> Response:
    """Wrap images up; what takes long not on the event loop.

    Args:
        kind: JSON with Base64, the bare image, or a ZIP with a manifest.
        output_format: Of the images.
        images: At least one; exactly one for a bare image.
        metadata: What holds for all of them.
    """
    if kind not in ("application/json", "application/zip"):
        return file_response(kind, images[0].data, {**metadata, **images[0].metadata})
    encode = partial(_json, images, metadata)
    if kind == "application/zip":
        encode = partial(_archive, output_format, images, metadata)
    if _is_small(images):
        return Response(encode(), media_type=kind)
    return Response(await to_the_end(asyncio.to_thread(encode)), media_type=kind)


def file_response(media: str, data: bytes, metadata: Mapping[str, Any]) -> Response:
    """A file as it is, its metadata in headers."""
    headers = {
        # Header values are Latin-1 at best; categories may be in any script.
        f"X-Catalogan-{name.replace('_', '-').title()}": quote(_text(value), safe=' :,.{}[]"')
        for name, value in metadata.items()
        if name != "created"
    }
    # Proxies refuse responses with long headers; the image's own mark holds everything.
    short = {name: value for name, value in headers.items() if len(value) <= MAX_HEADER_CHARS}
    return Response(data, media_type=media, headers=short)


def error_response(error: ApiError) -> Response:
    """An error in the one shape of all errors."""
    return Response(
        error.body(),
        status_code=error.status,
        headers=error.headers,
        media_type="application/json",
    )


def _is_small(images: Sequence[EncodedImage]) -> bool:
    """Whether a response takes less to encode than a thread takes to start."""
    return len(images) <= MAX_IMAGES_ON_LOOP and not any(
        image.mask or "annotations" in image.metadata or len(image.data) > MAX_BYTES_ON_LOOP
        for image in images
    )


def _json(images: Sequence[EncodedImage], metadata: Mapping[str, Any]) -> bytes:
    """JSON with Base64, in pieces: each call of a library holds up all other threads."""
    head = _dump({**metadata, "data": []})
    pieces = [head.removesuffix(b"]}")]
    for index, image in enumerate(images):
        pieces += [b"," if index else b"", b'{"b64_json":"', *_base64(image.data), b'"']
        if image.mask is not None:
            pieces += [b',"mask_b64_json":"', *_base64(image.mask), b'"']
        if image.metadata:
            pieces += [b",", _dump(image.metadata)[1:-1]]
        pieces.append(b"}")
    return b"".join([*pieces, b"]}"])


def _dump(value: Mapping[str, Any]) -> bytes:
    """JSON as Starlette writes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _base64(data: bytes) -> Iterator[bytes]:
    whole = memoryview(data)
    for start in range(0, len(data), BASE64_BYTES):
        yield base64.b64encode(whole[start : start + BASE64_BYTES])


def _archive(
    output_format: OutputFormat, images: Sequence[EncodedImage], metadata: Mapping[str, Any]
) -> bytes:
    digits = max(2, len(str(len(images) - 1)))  # so that names sort in order
    stems = [f"{index:0{digits}d}" for index in range(len(images))]
    files: list[tuple[str, bytes]] = []
    listed = []
    for stem, image in zip(stems, images, strict=True):
        own = [(f"{stem}.{output_format}", image.data)]
        if image.mask is not None:
            own.append((f"{stem}-mask.png", image.mask))
        names = dict(zip(("file", "mask_file"), (name for name, _ in own), strict=False))
        listed.append({**names, **image.metadata})
        files += own
    manifest = json.dumps({**metadata, "data": listed}, indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json", ZIP_EPOCH), manifest)
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), data)
    return buffer.getvalue()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

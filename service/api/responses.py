"""Encoded images -> the kind of response that the client accepts."""

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from service.api.parsing.accept import ResponseType
from service.errors import ApiError
from service.rendering.encoded_image import EncodedImage
from service.rendering.encoding import OutputFormat

MAX_HEADER_CHARS: Final = 1000
# The earliest date that ZIP can hold: equal requests give equal archives.
ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def image_response(
    kind: ResponseType,
    output_format: OutputFormat,
    images: Sequence[EncodedImage],
    metadata: Mapping[str, Any],
) -> Response:
    """Wrap images up.

    Args:
        kind: JSON with Base64, the bare image, or a ZIP with a manifest.
        output_format: Of the images.
        images: At least one; exactly one for a bare image.
        metadata: What holds for all of them.
    """
    if kind == "application/zip":
        return Response(_archive(output_format, images, metadata), media_type=kind)
    if kind == "application/json":
        data = [{"b64_json": _base64(image.data), **_with_mask(image)} for image in images]
        return JSONResponse({**metadata, "data": data})
    return file_response(kind, images[0].data, {**metadata, **images[0].metadata})


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


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _with_mask(image: EncodedImage) -> dict[str, Any]:
    mask = {} if image.mask is None else {"mask_b64_json": _base64(image.mask)}
    return {**mask, **image.metadata}


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

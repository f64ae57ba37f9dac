"""Finished pictures -> the kind of response that the client asked for."""

import base64
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from starlette.responses import JSONResponse, Response

from service.api.parsing.accept import Answer
from service.errors import ApiError
from service.rendering.encoded_image import Finished
from service.rendering.encoding import OutputFormat

MAX_HEADER_CHARS: Final = 1000
# The earliest date that ZIP can hold: equal requests give equal archives.
ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def answer(
    kind: Answer,
    output_format: OutputFormat,
    pictures: Sequence[Finished],
    facts: Mapping[str, Any],
) -> Response:
    """Wrap pictures up.

    Args:
        kind: JSON with Base64, the bare picture, or a ZIP with a manifest.
        output_format: Of the pictures.
        pictures: At least one; exactly one for a bare picture.
        facts: What holds for all of them.
    """
    if kind == "application/zip":
        return Response(_archive(output_format, pictures, facts), media_type=kind)
    if kind == "application/json":
        data = [{"b64_json": _base64(picture.data), **_with_mask(picture)} for picture in pictures]
        return JSONResponse({**facts, "data": data})
    return bare(kind, pictures[0].data, {**facts, **pictures[0].facts})


def bare(media: str, data: bytes, facts: Mapping[str, Any]) -> Response:
    """A file as it is, its facts in headers."""
    headers = {
        # Header values are Latin-1 at best; categories may be in any script.
        f"X-Catalogan-{name.replace('_', '-').title()}": quote(_text(value), safe=' :,.{}[]"')
        for name, value in facts.items()
        if name != "created"
    }
    # Proxies refuse answers with long headers; the picture's own mark holds everything.
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


def _with_mask(picture: Finished) -> dict[str, Any]:
    mask = {} if picture.mask is None else {"mask_b64_json": _base64(picture.mask)}
    return {**mask, **picture.facts}


def _archive(
    output_format: OutputFormat, pictures: Sequence[Finished], facts: Mapping[str, Any]
) -> bytes:
    digits = max(2, len(str(len(pictures) - 1)))  # so that names sort in order
    stems = [f"{index:0{digits}d}" for index in range(len(pictures))]
    files: list[tuple[str, bytes]] = []
    listed = []
    for stem, picture in zip(stems, pictures, strict=True):
        own = [(f"{stem}.{output_format}", picture.data)]
        if picture.mask is not None:
            own.append((f"{stem}-mask.png", picture.mask))
        names = dict(zip(("file", "mask_file"), (name for name, _ in own), strict=False))
        listed.append({**names, **picture.facts})
        files += own
    manifest = json.dumps({**facts, "data": listed}, indent=2).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("manifest.json", ZIP_EPOCH), manifest)
        for name, data in files:
            archive.writestr(zipfile.ZipInfo(name, ZIP_EPOCH), data)
    return buffer.getvalue()


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))

"""Responses with images: the same bytes as ever, and nothing long on the event loop."""

import asyncio
import base64
import io
import json
import threading
import zipfile
from collections.abc import Sequence
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from service.api import responses
from service.api.parsing.accept import ResponseType
from service.api.responses import BASE64_BYTES, image_response
from service.provenance.xmp import GENERATED, Mark
from service.rendering.encoded_image import EncodedImage

METADATA = {"created": 1, "output_format": "png", "category": "café „lamps“"}


def images(count: int, size: int, **metadata: Any) -> list[EncodedImage]:
    mask = bytes(1000) if metadata else None
    mark = Mark(GENERATED, 1)
    return [
        EncodedImage.of(bytes([index]) * size, {"seed": index, **metadata}, mark, mask)
        for index in range(count)
    ]


def wrapped(kind: ResponseType, encoded: Sequence[EncodedImage]) -> Response:
    return asyncio.run(image_response(kind, "png", encoded, METADATA))


@pytest.mark.parametrize("size", [0, 1, 100, BASE64_BYTES, BASE64_BYTES + 1])
@pytest.mark.parametrize("more", [{}, {"annotations": {"boxes": [{"label": 'ä"', "box": [0.5]}]}}])
def test_json_is_as_a_library_writes_it(size: int, more: dict[str, Any]) -> None:
    encoded = images(2, size, **more)
    data = [
        {
            "b64_json": base64.b64encode(one.data).decode(),
            **({} if one.mask is None else {"mask_b64_json": base64.b64encode(one.mask).decode()}),
            **one.metadata,
        }
        for one in encoded
    ]
    response = wrapped("application/json", encoded)
    assert response.body == JSONResponse({**METADATA, "data": data}).body
    assert response.media_type == "application/json"


@pytest.mark.parametrize("kind", ["application/json", "application/zip"])
def test_large_responses_are_encoded_in_pieces_off_the_loop(
    kind: ResponseType, monkeypatch: pytest.MonkeyPatch
) -> None:
    main, encode, dump = threading.current_thread(), base64.b64encode, json.dumps
    seen: list[int] = []

    def watched_encode(data: Any) -> bytes:
        assert threading.current_thread() is not main
        seen.append(len(data))
        return encode(data)

    def watched_dump(value: Any, **options: Any) -> str:
        assert threading.current_thread() is not main
        return dump(value, **options)

    monkeypatch.setattr(responses.base64, "b64encode", watched_encode)
    monkeypatch.setattr(responses.json, "dumps", watched_dump)
    encoded = images(10, 8_000_000)
    response, stall_sec = asyncio.run(_with_longest_stall(kind, encoded))
    monkeypatch.undo()
    if kind == "application/json":
        assert sum(seen) == 80_000_000
        assert max(seen) <= BASE64_BYTES
        assert len(json.loads(response.body)["data"]) == 10
    else:
        assert len(zipfile.ZipFile(io.BytesIO(response.body)).namelist()) == 11
    assert stall_sec < 5  # a busy machine; it was a second on an idle one


async def _with_longest_stall(
    kind: ResponseType, encoded: Sequence[EncodedImage]
) -> tuple[Response, float]:
    """Wrap images up, and measure for how long the loop did nothing else."""
    loop, longest = asyncio.get_running_loop(), 0.0
    wrapping = asyncio.create_task(image_response(kind, "png", encoded, METADATA))
    while not wrapping.done():
        before = loop.time()
        await asyncio.sleep(0.001)
        longest = max(longest, loop.time() - before)
    return wrapping.result(), longest

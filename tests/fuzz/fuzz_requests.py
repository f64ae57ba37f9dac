"""Fuzzes the parsers of JSON bodies, forms and Accept headers.

    python tests/fuzz/fuzz_requests.py -max_total_time=60 -rss_limit_mb=1024

The first byte of an input chooses the parser. Further arguments are libFuzzer's. Anything
raised but an error of the API is a finding.
"""

import asyncio
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
with atheris.instrument_imports(include=["models", "service", "starlette", "python_multipart"]):
    from starlette.requests import Request

    from service.api.parsing.accept import choose_response_type
    from service.api.parsing.json_body import parse_json
    from service.api.parsing.multipart import Form, read_files
    from service.api.routes.augmentations import parse_fields
    from service.api.routes.interpolations import parse_path_fields
    from service.api.routes.variations import parse_variation_fields
    from service.augmentation.requests import MAX_PHOTOS
    from service.datasets.plan import DatasetRequest
    from service.errors import ApiError
    from service.fields import validate
    from service.generation.interpolation_requests import InterpolationRequest, resolve_waypoints
    from service.generation.requests import GenerationRequest

CHUNK_BYTES = 61
BOUNDARY = "edge"


def generation(data: bytes) -> None:
    validate(GenerationRequest, parse_json(data))


def interpolation(data: bytes) -> None:
    validate(InterpolationRequest, parse_json(data))


def interpolation_form(data: bytes) -> None:
    form = _form(data)
    resolve_waypoints(parse_path_fields(form.fields), form.files["image"])


def augmentation_form(data: bytes) -> None:
    form = _form(data)
    parse_fields(form.fields, len(form.files["image"]))


def variation_form(data: bytes) -> None:
    parse_variation_fields(_form(data).fields)


def dataset(data: bytes) -> None:
    validate(DatasetRequest, parse_json(data))


def accept(data: bytes) -> None:
    choose_response_type(data.decode("latin-1"), "image/webp")


PARSERS: list[Callable[[bytes], None]] = [
    generation,
    interpolation,
    augmentation_form,
    variation_form,
    accept,
    dataset,
    interpolation_form,
]
SEEDS = [
    b'\0{"n": 2, "seed": 7, "category": "boxes", "truncation_psi": 0.5, "size": "24x16"}',
    b'\0{"categories": {"a": 0.5, "b": 1}, "style_mixing": {"coarse": 1, "fine": 2}}',
    b'\0{"seeds": [1, 2], "background": "#ff0000", "output_format": "webp", "prompt": "a mug"}',
    b'\1{"seeds": [1, 2, 3], "frames": 4, "loop": true, "frame_duration_ms": 80}',
    b"\2",
    b"\3",
    b'\5{"categories": {"a": 3}, "seed": 1, "layout": "coco", "shard": {"index": 1, "of": 2}}',
    b"\6",
    b"\4image/png;q=0.5, image/*;q=0.3, application/json",
]
FIELDS = {
    2: {"n": "2", "operations": '[{"name": "flip", "probability": 1}]', "output_format": "png"},
    6: {"waypoints": '["x.png", 7]', "frames": "3", "loop": "true"},
    3: {"n": "2", "seeds": "[1, 2]", "strength": "0.5", "category": "boxes"},
}


def parse(data: bytes) -> None:
    """Let the parser that the first byte names read the rest."""
    if not data:
        return
    try:
        PARSERS[data[0] % len(PARSERS)](data[1:])
    except ApiError as error:
        assert error.status in (400, 413), error
        assert len(json.loads(error.body())["error"]["message"]) <= 600


def _form(data: bytes) -> Form:
    chunks = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)] or [b""]

    async def receive() -> dict[str, object]:
        body = chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(chunks)}

    media = f"multipart/form-data; boundary={BOUNDARY}".encode()
    scope = {"type": "http", "method": "POST", "headers": [(b"content-type", media)]}
    files = {"image": MAX_PHOTOS, "mask": MAX_PHOTOS}
    return asyncio.run(read_files(Request(scope, receive), 10_000, files))


def _form_seed(fields: dict[str, str]) -> bytes:
    parts = [f'Content-Disposition: form-data; name="{k}"\r\n\r\n{v}' for k, v in fields.items()]
    parts.append('Content-Disposition: form-data; name="image"; filename="x.png"\r\n\r\nxyz')
    body = "".join(f"--{BOUNDARY}\r\n{part}\r\n" for part in parts)
    return f"{body}--{BOUNDARY}--\r\n".encode()


def main() -> None:
    """Fuzz from the seeds on."""
    with tempfile.TemporaryDirectory() as corpus:
        for index, seed in enumerate(SEEDS):
            form = _form_seed(FIELDS[seed[0]]) if seed[0] in FIELDS else b""
            (Path(corpus) / str(index)).write_bytes(seed + form)
        atheris.Setup([*sys.argv, corpus], parse)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""An export's weights: taken when they are plain numbers, refused when they only look it."""

import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import RegistryError
from service.registry import Registry

pytestmark = pytest.mark.usefixtures("bento_home")


def safetensors(shapes: dict[str, list[int]], **changes: Any) -> bytes:
    """Zeros of these shapes in the safetensors format."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [position, end]} | changes
        position = end
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


SHAPES = {"generator.constant": [2, 3], "discriminator.embed": [4], "discriminator.scale": []}


@pytest.fixture
def with_weights(make_export: Callable[..., Path]) -> Callable[[bytes], Path]:
    """Makes an export that lists `weights.safetensors` with these bytes."""

    def make(data: bytes) -> Path:
        export = make_export()
        (export / "weights.safetensors").write_bytes(data)
        manifest = json.loads((export / "manifest.json").read_text())
        record = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest["files"]["weights.safetensors"] = record
        (export / "manifest.json").write_text(json.dumps(manifest))
        return export

    return make


def test_an_export_with_weights_is_stored_whole(with_weights: Callable[[bytes], Path]) -> None:
    data = safetensors(SHAPES)
    model = Registry().register(with_weights(data))
    assert (model.folder / "weights.safetensors").read_bytes() == data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no safetensors file"),
        (pickle.dumps({"generator.constant": [0.0]}), "no safetensors file"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "no safetensors file"),
        ((3).to_bytes(8, "little") + b"{,}", "header"),
        (safetensors(SHAPES, dtype="F64"), "generator.constant"),
        (safetensors(SHAPES, extra=1), "extra"),
        (safetensors(SHAPES, data_offsets=[0, 24]), "not where its header says"),
        (safetensors(SHAPES) + b"more", "48 bytes of numbers, not 44"),
        (safetensors({"optimizer.step": [1]}), "'optimizer.step' is of neither network"),
    ],
)
def test_what_is_no_plain_numbers_is_refused(
    with_weights: Callable[[bytes], Path], data: bytes, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        Registry().register(with_weights(data))
    assert Registry().list() == []

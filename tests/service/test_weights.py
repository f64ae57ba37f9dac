"""An export's weights: taken when they are plain numbers, refused when they only look it."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import RegistryError
from service.model_store.registry import Registry

pytestmark = pytest.mark.usefixtures("bento_home")


def safetensors(shapes: dict[str, list[int]], dtype: str = "F32", **changes: Any) -> bytes:
    """Zeros of these shapes in the safetensors format."""
    header, position = {}, 0
    for name, shape in shapes.items():
        end = position + (2 if dtype == "F16" else 4) * int(np.prod(shape))
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, end]} | changes
        position = end
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(position)


SHAPES = {"generator.constant": [2, 3], "discriminator.embed": [4], "discriminator.scale": []}


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_an_export_with_weights_is_stored_whole(
    make_export: Callable[..., Path], dtype: str
) -> None:
    data = safetensors(SHAPES, dtype=dtype)
    model = Registry().register(make_export(others={"weights.safetensors": data}))
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
        (safetensors(SHAPES, dtype="F16", data_offsets=[0, 24]), "not where its header says"),
        (safetensors(SHAPES) + b"more", "48 bytes of numbers, not 44"),
        (safetensors({"optimizer.step": [1]}), "'optimizer.step' is of neither network"),
    ],
)
def test_what_is_no_plain_numbers_is_refused(
    make_export: Callable[..., Path], data: bytes, message: str
) -> None:
    with pytest.raises(RegistryError, match=message):
        Registry().register(make_export(others={"weights.safetensors": data}))
    assert Registry().list() == []

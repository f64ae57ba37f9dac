"""Exports with styles: the optional offset, the mapping and the encoder, in order or spoiled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import ValidationError

from models.manifest import GeneratorManifest
from service.errors import OperatorError
from service.inference.generation import GeneratorSession, ImageSpec
from service.model_store.exports import read_export
from service.model_store.inspection import inspect_export

from .conftest import ENCODER_RECORD, STYLES
from .small_graphs import NUM_WS, W_DIM, encoder_file, mapping_file, with_offset


def test_styles_mapping_and_encoder_are_accepted(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    others = {"mapping.onnx": mapping_file(), "encoder.onnx": encoder_file()}
    export = make_export(with_offset(make_graph()), others=others, encoder=ENCODER_RECORD, **STYLES)
    manifest, files = inspect_export(export)
    assert manifest.encoder is not None
    assert manifest.encoder.errors.photos == 30
    assert files["encoder.onnx"] == others["encoder.onnx"]


def test_an_offset_left_out_changes_no_pixel(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    pictures = []
    for export in (make_export(), make_export(with_offset(make_graph()), **STYLES)):
        manifest, files = read_export(export)
        session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
        pictures.append(session.render([ImageSpec(seed, 1, 0.7) for seed in range(3)]))
    np.testing.assert_array_equal(pictures[0], pictures[1])


def test_an_offset_of_zero_or_of_another_picture_changes_no_pixel(styled_export: Path) -> None:
    manifest, files = read_export(styled_export)
    session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
    none = np.zeros((NUM_WS, W_DIM), dtype=np.float32)
    plain, moved = ImageSpec(1, 1, 0.7), ImageSpec(2, 1, 0.7, none + 0.5)
    expected, other = session.render([plain])[0], session.render([moved])[0]
    together = session.render([moved, plain, ImageSpec(1, 1, 0.7, none)])
    np.testing.assert_array_equal(together, [other, expected, expected])


def test_the_encoder_is_shown_pixels_between_minus_1_and_1(styled_export: Path) -> None:
    manifest, files = read_export(styled_export)
    encoder = {"encoder.onnx": files["encoder.onnx"]}
    session = GeneratorSession(files["generator.onnx"], manifest, others=encoder, device="cpu")
    photo = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    (weights, *_) = onnx.load_model_from_string(files["encoder.onnx"]).graph.initializer
    shown = photo.transpose(2, 0, 1).ravel() / 127.5 - 1
    expected = 1 / (1 + np.exp(-shown @ onnx.numpy_helper.to_array(weights)))
    offset = session.encode(photo, 2)
    np.testing.assert_allclose(offset, expected.reshape(NUM_WS, W_DIM), atol=1e-5)


def test_styles_and_offsets_are_the_same_at_any_thread_count(styled_export: Path) -> None:
    manifest, files = read_export(styled_export)
    others = {name: files[name] for name in ("mapping.onnx", "encoder.onnx")}
    photo = np.random.default_rng(1).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    found = set()
    for threads in (1, 2, 4):
        session = GeneratorSession(
            files["generator.onnx"], manifest, others=others, intra_op_threads=threads
        )
        offset = session.encode(photo, 2)
        (picture,) = session.render([ImageSpec(3, 2, 0.5, offset)])
        found.add((session.style(ImageSpec(3, 2, 0.5)).tobytes(), picture.tobytes()))
    assert len(found) == 1


def test_graphs_that_were_not_loaded_say_so(styled_export: Path) -> None:
    manifest, files = read_export(styled_export)
    session = GeneratorSession(files["generator.onnx"], manifest, device="cpu")
    with pytest.raises(OperatorError, match=r"mapping.onnx was not loaded"):
        session.style(ImageSpec(1, 1, 0.7))


def test_an_offset_that_is_not_as_declared_is_refused(
    make_export: Callable[..., Path], make_graph: Callable[..., Any]
) -> None:
    fixed = with_offset(make_graph())
    fixed.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = 1
    renamed = with_offset(make_graph())
    renamed.graph.input[-1].name = renamed.graph.initializer[-1].name = "secret"
    (reader,) = (node for node in renamed.graph.node if "style_offset" in node.input)
    reader.input[0] = "secret"
    for model, changes, message in (
        (with_offset(make_graph()), {}, "leave out"),
        (make_graph(), STYLES, "leave out"),
        (renamed, STYLES, "leave out"),
        (with_offset(make_graph(), w_dim=1), STYLES, "style_offset has shape"),
        (fixed, STYLES, "style_offset has a fixed batch"),
        (with_offset(make_graph(), default=0.5), STYLES, "default of style_offset is not zero"),
    ):
        with pytest.raises(OperatorError, match=message):
            inspect_export(make_export(model, **changes))


@pytest.mark.parametrize(
    ("file", "data", "message"),
    [
        ("encoder.onnx", b"\xff" * 100, "encoder.onnx is no ONNX model"),
        ("encoder.onnx", encoder_file(w_dim=4), "encoder.onnx: style_offset has shape"),
        ("encoder.onnx", encoder_file("Log"), "encoder.onnx returns .* finite"),
        ("encoder.onnx", encoder_file("Evil", domain="evil"), "encoder.onnx: 'Evil' is a custom"),
        ("encoder.onnx", mapping_file(), "encoder.onnx: the graph takes"),
        ("mapping.onnx", mapping_file("style"), "mapping.onnx: the graph returns"),
        ("mapping.onnx", encoder_file(), "mapping.onnx: the graph takes"),
    ],
)
def test_a_spoiled_graph_beside_the_generator_is_refused(
    make_export: Callable[..., Path],
    make_graph: Callable[..., Any],
    file: str,
    data: bytes,
    message: str,
) -> None:
    record = ENCODER_RECORD if file == "encoder.onnx" else None
    export = make_export(with_offset(make_graph()), others={file: data}, encoder=record, **STYLES)
    with pytest.raises(OperatorError, match=message):
        inspect_export(export)


@pytest.mark.parametrize(
    ("others", "changes", "message"),
    [
        ({"encoder.onnx": b"x"}, STYLES, "go together"),
        ({}, {**STYLES, "encoder": ENCODER_RECORD}, "go together"),
        ({"mapping.onnx": b"x"}, {}, "need num_ws and w_dim"),
        ({}, {"num_ws": 2}, "go together"),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    make_export: Callable[..., Path], others: Any, changes: Any, message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        make_export(others=others, **changes)


def test_a_manifest_of_before_styles_is_still_valid(export: Path) -> None:
    text = (export / "manifest.json").read_text()
    manifest = GeneratorManifest.model_validate_json(text)
    assert (manifest.num_ws, manifest.w_dim, manifest.encoder) == (None, None, None)

"""What the graphs of an export take and give, and whether a loaded graph keeps to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from models.manifest import (
    ENCODER_FILE,
    ENCODER_INPUT_NAMES,
    GENERATOR_FILE,
    INPUT_NAMES,
    MAPPING_FILE,
    MAPPING_INPUT_NAMES,
    MAPPING_OUTPUT_NAME,
    OUTPUT_NAME,
    STYLE_OFFSET_NAME,
    UPSCALER_FILE,
    UPSCALER_INPUT_NAMES,
    UPSCALER_OUTPUT_NAME,
    WATERMARK_DECODER_FILE,
    WATERMARK_ENCODER_FILE,
    GeneratorManifest,
)
from models.watermark import (
    DECODER_NAMES,
    ENCODER_NAMES,
    FRAME_PX,
    LOGIT_NAME,
    PATTERN_NAME,
    PATTERN_PX,
    PAYLOAD_BITS,
)
from service.errors import SessionError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """Names and shapes, the batch apart, of a graph's float32 inputs and its one output.

    Attributes:
        file: The export's file.
        inputs: What a caller must give.
        output: The name of what comes back.
        output_shape: Its shape.
        optional: What a caller may leave out.
        opset: Of the graph, as the manifest says; None = any that is accepted.
    """

    file: str
    inputs: Mapping[str, Shape]
    output: str
    output_shape: Shape
    optional: Mapping[str, Shape] = field(default_factory=dict)
    opset: int | None = None


def signatures(manifest: GeneratorManifest) -> dict[str, Signature]:
    """The contract of models.manifest for each graph that the manifest lists, by file name."""
    shapes: dict[str, Shape] = {
        "z": (manifest.z_dim,),
        "category": (len(manifest.categories),),
        "truncation_psi": (),
        "noise": (manifest.noise_dim,),
        "images": (manifest.channels, manifest.height, manifest.width),
    }

    def shapes_of(names: tuple[str, ...]) -> dict[str, Shape]:
        return {name: shapes[name] for name in names}

    style = (manifest.num_ws or 0, manifest.w_dim or 0)
    factor = manifest.upscaler.factor if manifest.upscaler else 1
    upscaled = (manifest.channels, factor * manifest.height, factor * manifest.width)
    known = (
        Signature(
            GENERATOR_FILE,
            shapes_of(INPUT_NAMES),
            OUTPUT_NAME,
            shapes[OUTPUT_NAME],
            optional={} if manifest.num_ws is None else {STYLE_OFFSET_NAME: style},
        ),
        Signature(MAPPING_FILE, shapes_of(MAPPING_INPUT_NAMES), MAPPING_OUTPUT_NAME, style[1:]),
        Signature(ENCODER_FILE, shapes_of(ENCODER_INPUT_NAMES), STYLE_OFFSET_NAME, style),
        Signature(UPSCALER_FILE, shapes_of(UPSCALER_INPUT_NAMES), UPSCALER_OUTPUT_NAME, upscaled),
        *watermark_signatures(),
    )
    return {
        one.file: replace(one, opset=manifest.opset) for one in known if one.file in manifest.files
    }


def watermark_signatures() -> tuple[Signature, Signature]:
    """The contract of models.watermark, the same for all models."""
    pattern, bits, frame = (3, PATTERN_PX, PATTERN_PX), (PAYLOAD_BITS,), (3, FRAME_PX, FRAME_PX)
    taken = dict(zip(ENCODER_NAMES, (pattern, bits), strict=True))
    return (
        Signature(WATERMARK_ENCODER_FILE, taken, PATTERN_NAME, pattern),
        Signature(WATERMARK_DECODER_FILE, dict.fromkeys(DECODER_NAMES, frame), LOGIT_NAME, bits),
    )


def check_signature(session: Any, wanted: Signature) -> None:
    """Compare names, types and fixed sizes of a session with its signature.

    Raises:
        SessionError: Names the input or output at fault; the batch, too, must be free.
    """
    # An input with an initializer of its name may be left out; a runtime lists it apart.
    inputs, optional = session.get_inputs(), session.get_overridable_initializers()
    outputs = session.get_outputs()
    for what, nodes, names in (
        ("takes", inputs, wanted.inputs),
        ("lets its callers leave out", optional, wanted.optional),
        ("returns", outputs, (wanted.output,)),
    ):
        found = sorted(node.name for node in nodes)
        if found != sorted(names):
            raise SessionError(f"the graph {what} {found}, but must have {sorted(names)} there")
    expected = {**wanted.inputs, **wanted.optional, wanted.output: wanted.output_shape}
    for node in (*inputs, *optional, *outputs):
        _check_node(node.name, node.type, list(node.shape), expected[node.name])


def _check_node(name: str, kind: str, shape: list[Any], expected: Shape) -> None:
    if kind != "tensor(float)":
        raise SessionError(f"{name} is {kind}, not tensor(float)")
    # A size that the graph leaves open is checked by the first run.
    fits = len(shape) == 1 + len(expected) and all(
        not isinstance(actual, int) or actual == wanted
        for actual, wanted in zip(shape[1:], expected, strict=True)
    )
    if not fits:
        raise SessionError(f"{name} has shape {shape}, the manifest says [N, *{expected}]")
    if isinstance(shape[0], int):
        raise SessionError(f"{name} has a fixed batch of {shape[0]}: it must be dynamic")

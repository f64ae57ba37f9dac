"""Small ONNX graphs that keep an export's contract: generator and all that may lie beside it."""

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from models.watermark import FRAME_PX, PATTERN_PX, PAYLOAD_BITS

CATEGORIES = ("mugs", "shoe boxes", "boxes", "café lamps")
Z_DIM, NOISE_DIM, OPSET = 8, 64, 20
NUM_WS, W_DIM = 3, Z_DIM


def generator_graph(
    height: int = 16,
    width: int = 24,
    channels: int = 3,
    seed: int = 0,
    categories: int = len(CATEGORIES),
) -> Any:
    """A generator of MatMul, Resize, Conv and Tanh that keeps the contract."""
    rng = np.random.default_rng(seed)

    def weights(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(rng.normal(0, 0.7, shape).astype(np.float32), name)

    small_h, small_w = height // 4, width // 4
    constants = [
        weights("category_style", categories, Z_DIM),
        weights("to_map", Z_DIM, 6 * small_h * small_w),
        weights("kernel", channels, 6, 3, 3),
        numpy_helper.from_array(np.array([0, 6, small_h, small_w], dtype=np.int64), "map_shape"),
        numpy_helper.from_array(np.array([0, 1, 8, 8], dtype=np.int64), "noise_shape"),
        numpy_helper.from_array(np.array([1], dtype=np.int64), "last_axis"),
        numpy_helper.from_array(np.array([], dtype=np.float32), "no_roi"),
        numpy_helper.from_array(np.array([1, 1, 4, 4], dtype=np.float32), "scales"),
        numpy_helper.from_array(
            np.array([1, 1, height / 8, width / 8], dtype=np.float32), "noise_scales"
        ),
        numpy_helper.from_array(np.array(0.1, dtype=np.float32), "noise_strength"),
    ]
    nodes = [
        helper.make_node("MatMul", ["category", "category_style"], ["mean_style"]),
        helper.make_node("Unsqueeze", ["truncation_psi", "last_axis"], ["psi"]),
        helper.make_node("Mul", ["z", "psi"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean_style"], ["style"]),
        helper.make_node("MatMul", ["style", "to_map"], ["flat"]),
        helper.make_node("Reshape", ["flat", "map_shape"], ["map"]),
        helper.make_node("Resize", ["map", "no_roi", "scales"], ["large"], mode="linear"),
        helper.make_node("Reshape", ["noise", "noise_shape"], ["noise_map"]),
        helper.make_node("Resize", ["noise_map", "no_roi", "noise_scales"], ["grain"]),
        helper.make_node("Mul", ["grain", "noise_strength"], ["faint"]),
        helper.make_node("Add", ["large", "faint"], ["noisy"]),
        helper.make_node("Conv", ["noisy", "kernel"], ["raw"], pads=[1, 1, 1, 1]),
        helper.make_node("Tanh", ["raw"], ["images"]),
    ]

    def value(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *shape])

    graph = helper.make_graph(
        nodes,
        "generator",
        [
            value("z", Z_DIM),
            value("category", categories),
            value("truncation_psi"),
            value("noise", NOISE_DIM),
        ],
        [value("images", channels, height, width)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    return model


def value(name: str, *shape: int | str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def constant(name: str, array: Any) -> Any:
    return numpy_helper.from_array(np.asarray(array), name)


def graph_file(nodes: list[Any], inputs: list[Any], output: Any, constants: list[Any]) -> bytes:
    graph = helper.make_graph(nodes, "graph", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = 10
    return bytes(model.SerializeToString())


def with_offset(model: Any, default: float = 0.0, w_dim: int = W_DIM) -> Any:
    """Give the small generator NUM_WS layers, each with a style for its share of the features.

    As in a trained generator, all start from one style, to which the offset is added.
    """
    weights = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    layers = weights["to_map"].reshape(Z_DIM, NUM_WS, -1).transpose(1, 0, 2)
    model.graph.input.append(value("style_offset", "M", NUM_WS, w_dim))
    model.graph.initializer.extend(
        [
            constant("layers_to_map", np.ascontiguousarray(layers)),
            constant("style_axes", np.array([1, 2], dtype=np.int64)),
            constant("offset_axis", np.array([2], dtype=np.int64)),
            constant("style_offset", np.full((1, NUM_WS, w_dim), default, dtype=np.float32)),
        ]
    )
    nodes = list(model.graph.node)
    place = next(i for i, node in enumerate(nodes) if list(node.output) == ["flat"])
    nodes[place : place + 1] = [
        helper.make_node("Unsqueeze", ["style", "style_axes"], ["style4"]),
        helper.make_node("Unsqueeze", ["style_offset", "offset_axis"], ["offset4"]),
        helper.make_node("Add", ["style4", "offset4"], ["styles"]),
        helper.make_node("MatMul", ["styles", "layers_to_map"], ["flat"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def mapping_file(output: str = "w", seed: int = 0) -> bytes:
    """What the small generator of the same seed makes of z, category and truncation."""
    drawn = generator_graph(seed=seed).graph.initializer
    nodes = [
        helper.make_node("MatMul", ["category", "category_style"], ["mean_style"]),
        helper.make_node("Unsqueeze", ["truncation_psi", "last_axis"], ["psi"]),
        helper.make_node("Mul", ["z", "psi"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean_style"], [output]),
    ]
    constants = [one for one in drawn if one.name in ("category_style", "last_axis")]
    inputs = [value("z", "N", Z_DIM), value("category", "N", len(CATEGORIES))]
    inputs.append(value("truncation_psi", "N"))
    return graph_file(nodes, inputs, value(output, "N", W_DIM), constants)


def encoder_file(
    operator: str = "Sigmoid",
    w_dim: int = W_DIM,
    domain: str = "",
    channels: int = 3,
    categories: int = len(CATEGORIES),
) -> bytes:
    """Pictures of 16 x 24 and a category to an offset, by one matrix and `operator`."""
    weights = np.random.default_rng(0).normal(0, 0.1, (channels * 16 * 24, NUM_WS * w_dim))
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["mixed"]),
        helper.make_node("ReduceSum", ["category", "axis"], ["sum"], keepdims=1),
        helper.make_node("Mul", ["mixed", "sum"], ["weighed"]),
        helper.make_node(operator, ["weighed"], ["bent"], domain=domain),
        helper.make_node("Reshape", ["bent", "shape"], ["style_offset"]),
    ]
    constants = [
        constant("weights", weights.astype(np.float32)),
        constant("axis", np.array([1], dtype=np.int64)),
        constant("shape", np.array([-1, NUM_WS, w_dim], dtype=np.int64)),
    ]
    inputs = [value("images", "N", channels, 16, 24), value("category", "N", categories)]
    return graph_file(nodes, inputs, value("style_offset", "N", NUM_WS, w_dim), constants)


def upscaler_file(factor: int = 4, channels: int = 3, size: tuple[int, int] = (16, 24)) -> bytes:
    """Images in negative, each pixel a square of `factor` by `factor`.

    In every channel: with transparency, what is opaque becomes clear.
    """
    nodes = [
        helper.make_node(
            "Resize",
            ["images", "", "scales"],
            ["large"],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        helper.make_node("Neg", ["large"], ["upscaled"]),
    ]
    scales = constant("scales", np.array([1, 1, factor, factor], dtype=np.float32))
    taken = value("images", "N", channels, *size)
    given = value("upscaled", "N", channels, *(side * factor for side in size))
    return graph_file(nodes, [taken], given, [scales])


def watermark_graphs(seed: int = 0) -> tuple[bytes, bytes]:
    """Spread spectrum: each bit turns a pattern of its own, which the decoder correlates with."""
    rng = np.random.default_rng(seed)
    half = PATTERN_PX // 2
    signs = rng.choice([-1.0, 1.0], (PAYLOAD_BITS * 3, half, half)).astype(np.float32)
    # A checkerboard within each sign: what a picture shows is smoother than that.
    planes = np.kron(signs, np.array([[[1, -1], [-1, 1]]], np.float32))
    frame = (FRAME_PX, FRAME_PX)
    bilinear = Image.Resampling.BILINEAR
    seen = [np.asarray(Image.fromarray(plane).resize(frame, bilinear)) for plane in planes]
    encoder = [
        helper.make_node("Mul", ["bits", "two"], ["doubled"]),
        helper.make_node("Sub", ["doubled", "one"], ["signs"]),
        helper.make_node("MatMul", ["signs", "patterns_of_bits"], ["flat"]),
        # The picture decides nothing here, but is an input that must be used.
        helper.make_node("Mul", ["pictures", "nothing"], ["blank"]),
        helper.make_node("Reshape", ["flat", "shape"], ["summed"]),
        helper.make_node("Add", ["summed", "blank"], ["patterns"]),
    ]
    decoder = [
        helper.make_node("Flatten", ["frames"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "seen"], ["logits"]),
    ]
    small, large = (3, PATTERN_PX, PATTERN_PX), (3, *frame)
    scalars = {"two": 2.0, "one": 1.0, "nothing": 0.0}
    constants = [numpy_helper.from_array(np.float32(v), name) for name, v in scalars.items()]
    constants += [
        numpy_helper.from_array(planes.reshape(PAYLOAD_BITS, -1), "patterns_of_bits"),
        numpy_helper.from_array(np.array([-1, *small], dtype=np.int64), "shape"),
    ]
    weights = [
        numpy_helper.from_array(
            np.ascontiguousarray(np.stack(seen).reshape(PAYLOAD_BITS, -1).T), "seen"
        )
    ]
    return (
        _graph(encoder, {"pictures": small, "bits": (PAYLOAD_BITS,)}, "patterns", small, constants),
        _graph(decoder, {"frames": large}, "logits", (PAYLOAD_BITS,), weights),
    )


def _graph(
    nodes: list[Any], inputs: dict[str, Any], output: str, shape: Any, constants: list[Any]
) -> bytes:
    def value(name: str, sizes: Any) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", *sizes])

    graph = helper.make_graph(
        nodes,
        "watermark",
        [value(name, sizes) for name, sizes in inputs.items()],
        [value(output, shape)],
        constants,
    )
    opset = [helper.make_opsetid("", OPSET)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString())

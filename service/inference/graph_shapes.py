"""The size of every tensor of a graph, found before the graph runs, and the memory they take.

Sizes are followed node by node with a batch of a known size: the sizes that a graph computes from
its inputs' shapes are then numbers. Only short vectors are computed, of known length, so that
inspecting a graph costs little, whatever it says.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.defs import get_schema
from onnx.reference import ReferenceEvaluator
from onnx.shape_inference import infer_node_outputs

from service.errors import SessionError
from service.inference.signatures import Signature

# Batches that a graph's sizes are followed for.
BATCHES: Final = (1, 2, 4, 8)
# What a row of a batch may take at once: for any graph, and for each number in and out.
BASE_BYTES: Final = 256 * 2**20
BYTES_PER_NUMBER: Final = 2_048
# A size, a scale or an axis is among so many numbers at most.
_MAX_COMPUTED: Final = 1_024
# Operators that graphs compute sizes with.
_COMPUTED: Final = frozenset(
    {"Add", "Cast", "Ceil", "Concat", "Constant", "ConstantOfShape", "Div", "Equal", "Expand"}
    | {"Floor", "Gather", "Identity", "Max", "Min", "Mul", "Neg", "Range", "ReduceProd"}
    | {"Reshape", "Slice", "Squeeze", "Sub", "Unsqueeze", "Where"}
)

Shape = tuple[int, ...]


def check_shapes(model: onnx.ModelProto, signature: Signature) -> None:
    """Refuse a graph whose sizes depend on its inputs' numbers, or that needs too much memory.

    Raises:
        SessionError: Names the operator; begins where the file's name ends.
    """
    shapes = {**signature.inputs, **signature.optional, "": signature.output_shape}
    numbers = sum(math.prod(shape) for shape in shapes.values())
    limit = BASE_BYTES + BYTES_PER_NUMBER * numbers
    for batch in BATCHES:
        for optional_batch in {1, batch} if signature.optional else {batch}:
            needed = _Walk.of(model, signature, batch, optional_batch).peak_bytes(model)
            if needed > batch * limit:
                raise SessionError(
                    f" needs {needed / 1e6:,.0f} MB at once for a batch of {batch}; its images "
                    f"may take {batch * limit / 1e6:,.0f}: export a smaller model"
                )


@dataclass
class _Walk:
    """What is known of the tensors up to a node.

    Attributes:
        types: Element type and shape by name.
        values: Those that are short and follow from shapes and constants alone.
        constant: Names of what follows from no input: a runtime computes it once, and keeps it.
    """

    types: dict[str, TypeProto]
    values: dict[str, NDArray[Any]] = field(default_factory=dict)
    constant: set[str] = field(default_factory=set)

    @classmethod
    def of(
        cls, model: onnx.ModelProto, signature: Signature, batch: int, optional_batch: int
    ) -> "_Walk":
        """Begin with the inputs and the weights."""
        shapes = {**signature.inputs, **signature.optional}
        walk = cls({})
        for tensor in model.graph.initializer:
            walk.types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
            walk.constant.add(tensor.name)
            if math.prod(tensor.dims) <= _MAX_COMPUTED:
                walk.values[tensor.name] = numpy_helper.to_array(tensor)
        for given in model.graph.input:
            rows = optional_batch if given.name in signature.optional else batch
            declared = given.type.tensor_type
            sides = [rows, *shapes.get(given.name, ())] + [rows] * len(declared.shape.dim)
            # What differs from the signature is refused, in its words, once the graph is loaded.
            sizes = [side.dim_value or sides[k] for k, side in enumerate(declared.shape.dim)]
            walk.types[given.name] = helper.make_tensor_type_proto(declared.elem_type, sizes)
            walk.values.pop(given.name, None)
            walk.constant.discard(given.name)
        return walk

    def peak_bytes(self, model: onnx.ModelProto) -> int:
        """The most bytes that the nodes' outputs take at a time, where each is dropped early.

        Raises:
            SessionError: As of `check_shapes`.
        """
        nodes, opsets = model.graph.node, list(model.opset_import)
        last_use = {name: index for index, node in enumerate(nodes) for name in node.input}
        last_use |= {output.name: len(nodes) for output in model.graph.output}
        alive: dict[str, int] = {}
        total = peak = 0
        for index, node in enumerate(nodes):
            self._follow(node, opsets)
            added = {name: _bytes(self.types[name]) for name in node.output if name}
            alive |= added
            total += sum(added.values())
            peak = max(peak, total)
            for name in (*node.input, *node.output):
                if last_use.get(name, index) <= index and name not in self.constant:
                    total -= alive.pop(name, 0)
        return peak

    def _follow(self, node: NodeProto, opsets: list[Any]) -> None:
        """Find the types of a node's outputs, and their values where they are short."""
        taken = {name: self.types[name] for name in node.input if name in self.types}
        outputs = [name for name in node.output if name]
        missing = [name for name in node.input if name and name not in taken]
        if missing or set(outputs) & self.types.keys():
            name = (missing or outputs)[0]
            raise SessionError(f": {name[:60]!r} is not computed once, before it is used")
        known = {name: self.values[name] for name in taken if name in self.values}
        found = _infer(node, taken, known, opsets)
        for name in outputs:
            if not _is_sized(found.get(name)):
                raise SessionError(
                    f": the size of what {node.op_type[:60]} returns is known only when it runs: "
                    "export with fixed sizes, the batch apart"
                )
            self.types[name] = found[name]
        if all(name in self.constant for name in taken):
            self.constant.update(outputs)
        if node.op_type == "Shape" and taken:
            whole = _shape(next(iter(taken.values())))
            ends = {one.name: one.i for one in node.attribute}
            part = whole[ends.get("start", 0) : ends.get("end", len(whole))]
            self.values[outputs[0]] = np.array(part, dtype=np.int64)
        elif self._is_short(node, taken, known, outputs):
            wanted = {name: found[name] for name in outputs}
            self.values |= _compute(node, taken, known, wanted, opsets)

    def _is_short(
        self,
        node: NodeProto,
        taken: Mapping[str, TypeProto],
        known: Mapping[str, Any],
        outputs: list[str],
    ) -> bool:
        return (
            node.op_type in _COMPUTED
            and len(known) == len(taken)
            and all(math.prod(_shape(self.types[name])) <= _MAX_COMPUTED for name in outputs)
        )


def _infer(
    node: NodeProto,
    taken: Mapping[str, TypeProto],
    known: Mapping[str, NDArray[Any]],
    opsets: list[Any],
) -> dict[str, TypeProto]:
    version = next(entry.version for entry in opsets if entry.domain in ("", "ai.onnx"))
    data = {name: numpy_helper.from_array(value, name) for name, value in known.items()}
    try:
        schema = get_schema(node.op_type, version, "")
        found: dict[str, TypeProto] = infer_node_outputs(
            schema, node, dict(taken), data, opset_imports=opsets
        )
    except Exception as error:  # onnx's own exceptions have no common parent
        raise SessionError(
            f": operator {node.op_type[:60]!r} is not used as ONNX defines it: export the run again"
        ) from error
    return found


def _compute(
    node: NodeProto,
    taken: Mapping[str, TypeProto],
    known: Mapping[str, NDArray[Any]],
    outputs: Mapping[str, TypeProto],
    opsets: list[Any],
) -> dict[str, NDArray[Any]]:
    """Run one node on short vectors; what can't be run is left unknown."""

    def values(types: Mapping[str, TypeProto]) -> list[Any]:
        return [helper.make_value_info(name, kind) for name, kind in types.items()]

    graph = helper.make_graph([node], "node", values(taken), values(outputs))
    model = helper.make_model(graph, opset_imports=opsets)
    try:
        results = ReferenceEvaluator(model).run(None, dict(known))
    except Exception:  # of whatever it meets in the node's attributes
        return {}
    return dict(zip(outputs, map(np.asarray, results), strict=True))


def _is_sized(kind: TypeProto | None) -> bool:
    """Whether it is a tensor of numbers of which every side is known."""
    if kind is None or not kind.HasField("tensor_type") or not kind.tensor_type.HasField("shape"):
        return False
    return kind.tensor_type.elem_type not in (TensorProto.UNDEFINED, TensorProto.STRING) and all(
        side.HasField("dim_value") and side.dim_value >= 0 for side in kind.tensor_type.shape.dim
    )


def _shape(kind: TypeProto) -> Shape:
    return tuple(side.dim_value for side in kind.tensor_type.shape.dim)


def _bytes(kind: TypeProto) -> int:
    item = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).itemsize
    return item * math.prod(_shape(kind))

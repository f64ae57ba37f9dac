"""Quantises the convolutions of a generator's float32 graph to int8, by ONNX Runtime's tools.

Only the synthesis convolutions are quantised: they take nearly all the time. Mapping, modulation,
activations, to-RGB and upsampling stay in float32, and so do the graph's inputs and its output.

Scales are static, from images of the generator itself, so that an image does not depend on the
others of its batch. Activations are uint8. Weights are int8 with a scale for each output channel,
of which seven bits are used: CPUs without VNNI add products in pairs in 16 bits, which
255 * 64 * 2 fits into and 255 * 127 * 2 does not. With all eight bits the same file would generate
different, wrong images there.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx
import onnxruntime
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from models.generator import Generator
from training.export.graphs import seal
from training.export.loss import Setting, inputs
from training.learning.samplers import Arrays

# A range that cuts off the rarest values has finer steps for the others: 2.5 dB on an earlier base.
_PERCENTILE: Final = 99.995
_SEED: Final = 0


def quantize(graph: bytes, generator: Generator, settings: Sequence[Setting]) -> bytes:
    """Quantise the convolutions of `graph`.

    Args:
        graph: Float32 graph of `generator`, from `to_onnx`.
        generator: Its images determine the ranges of all activations.
        settings: Truncation and noise of those images.
    """
    feeds = [feed for one in settings for feed in inputs(generator, one, _SEED)]
    with tempfile.TemporaryDirectory(prefix="catalogan-int8-") as folder, _quiet():
        traced, plain, quantized = (Path(folder) / f"{n}.onnx" for n in ("traced", "plain", "int8"))
        traced.write_bytes(graph)
        # Folds the weights' part of demodulation, while the float32 weights are still there.
        quant_pre_process(traced, plain, skip_symbolic_shape=True)
        quantize_static(
            plain,
            quantized,
            _Feeds(feeds),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": _PERCENTILE,
                "CalibTensorRangeSymmetric": False,
                "CalibStridedMinMax": 1,  # a batch at a time; otherwise memory holds all at once
            },
        )
        model = onnx.load(quantized)
    _drop_unused_opsets(model)
    return seal(model)


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Batches, for a calibrator that reads ranges of them."""

    def __init__(self, feeds: Sequence[Arrays]) -> None:
        self._feeds = feeds
        self._rest = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._rest = iter(self._feeds[start_index:end_index])

    def get_next(self) -> Any:
        return next(self._rest, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the tools' prints, and the runtime's warnings about the optional input."""
    onnxruntime.set_default_logger_severity(3)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    """Remove unused operator sets, which the tools declare and other runtimes may not know."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)

"""A generator's float32 graph -> its convolutions in int8, by ONNX Runtime's own tools.

Only the synthesis convolutions are quantised: they take nearly all the time. Mapping, modulation,
activations, to-RGB and upsampling stay in float32, and so do the graph's inputs and its output.

Scales are static, from pictures of the generator itself, so that a picture does not depend on
those it shares a batch with. Activations are uint8. Weights are int8 with a scale for each
output channel, of which seven bits are used: the processors that lack VNNI add products in
pairs in 16 bits, which 255 * 64 * 2 fits into and 255 * 127 * 2 does not. With all eight the
same file would paint other, wrong pictures there.
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

# A range cut at the rarest values leaves finer steps for all others: of an earlier base, 2.5 dB.
_PERCENTILE: Final = 99.995
_SEED: Final = 0


def quantize(graph: bytes, generator: Generator, settings: Sequence[Setting]) -> bytes:
    """Quantise the convolutions of `graph`.

    Args:
        graph: What `to_onnx` gave of `generator` in float32.
        generator: Whose pictures give the ranges of all activations.
        settings: How those pictures are asked for.
    """
    feeds = [feed for one in settings for feed in inputs(generator, one, _SEED)]
    with tempfile.TemporaryDirectory(prefix="catalogan-int8-") as folder, _quiet():
        traced, plain, quantized = (Path(folder) / f"{n}.onnx" for n in ("traced", "plain", "int8"))
        traced.write_bytes(graph)
        # Folds what demodulation needs of the float32 weights, while these are still there.
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
                "CalibStridedMinMax": 1,  # a batch at a time, or all activations are held at once
            },
        )
        model = onnx.load(quantized)
    _drop_unused_opsets(model)
    return seal(model)


class _Feeds(CalibrationDataReader):  # type: ignore[misc]
    """Batches, for a calibrator that asks for stretches of them."""

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
    """Without the tools' prints, and the runtime's warnings about the optional input."""
    onnxruntime.set_default_logger_severity(3)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        onnxruntime.set_default_logger_severity(2)


def _drop_unused_opsets(model: onnx.ModelProto) -> None:
    """The runtime declares all operator sets it knows; another may know none of them."""
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)

"""Arrays through ONNX graphs: the only module of the service that uses ONNX Runtime."""

import threading
from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import SessionError
from service.inference.graph_inspection import inspect_graph
from service.inference.signatures import Signature, check_signature
from service.telemetry.observation import stage

Device = Literal["auto", "cpu", "cuda"]
Arrays = Mapping[str, NDArray[np.float32]]


class Graph:
    """A loaded graph that keeps its signature. Safe to call from several threads at once.

    Attributes:
        device: "cpu" or "cuda", where it really runs.
    """

    def __init__(
        self, data: bytes, signature: Signature, *, device: Device = "cpu", threads: int = 1
    ) -> None:
        """Inspect and load: no graph runs that was not inspected.

        Args:
            data: The ONNX file's bytes, so that no other file can be drawn in.
            signature: What the graph must take and give.
            device: "auto" takes CUDA where it works.
            threads: Threads of one run; does not change numbers.

        Raises:
            SessionError: Names the file and what is wrong with it.
        """
        self._signature: Final = signature
        self._session = _create(inspect_graph(data, signature), signature.file, device, threads)
        self.device: Final = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"
        try:
            check_signature(self._session, signature)
        except SessionError as error:
            raise SessionError(f"{signature.file}: {error}") from None

    def run(self, feeds: Arrays) -> NDArray[np.float32]:
        """Give the output [N, ...] for inputs [N, ...].

        Raises:
            SessionError: The graph failed, or returned another shape or numbers not finite.
        """
        file, name = self._signature.file, self._signature.output
        try:
            with stage("inference"):
                (output,) = self._session.run([name], dict(feeds))
        except Exception as error:
            raise SessionError(f"{file} failed: {_first_line(error)}") from error
        count = len(next(iter(feeds.values())))
        expected = (count, *self._signature.output_shape)
        if output.shape != expected:
            raise SessionError(f"{file} returned {output.shape}, the manifest says {expected}")
        self.check_output(output)
        return np.asarray(output, dtype=np.float32)

    def bind(self, batch: int) -> "BoundGraph":
        """Reserve memory on the graph's device for runs of `batch` rows.

        Raises:
            SessionError: The device has no room for it.
        """
        try:
            return BoundGraph(self._session, self._signature, self.device, batch)
        except Exception as error:
            raise SessionError(f"{self._signature.file}: {_first_line(error)}") from error

    def check_feeds(self, feeds: Arrays) -> int:
        """Give N of inputs [N, ...], if the graph takes them.

        Raises:
            SessionError: Names the input at fault.
        """
        return _check_feeds(self._signature, feeds)

    def check_output(self, output: NDArray[np.float32]) -> None:
        """Refuse what is no image.

        Raises:
            SessionError: Some numbers are not finite.
        """
        if not np.isfinite(output).all():
            raise SessionError(
                f"{self._signature.file} returns values that are not finite: export the run again"
            )


class BoundGraph:
    """A graph with buffers of its own on the device, which all runs of one batch size use.

    Safe to call from several threads at once: they take turns.
    """

    def __init__(self, session: Any, signature: Signature, device: str, batch: int) -> None:
        """Reserve the buffers.

        Args:
            session: ONNX Runtime's.
            signature: Its inputs and outputs.
            device: "cpu" or "cuda", where it runs.
            batch: Rows of each run.
        """
        self._session: Final = session
        self._signature: Final = signature
        self._batch: Final = batch
        self._turn: Final = threading.Lock()

        def reserve(shape: tuple[int, ...]) -> Any:
            sizes = [batch, *shape]
            return ort.OrtValue.ortvalue_from_shape_and_type(sizes, np.float32, device, 0)

        shapes = {**signature.inputs, **signature.optional}
        self._inputs: Final = {name: reserve(shape) for name, shape in shapes.items()}
        self._binding: Final = session.io_binding()
        self._binding.bind_ortvalue_output(signature.output, reserve(signature.output_shape))

    def run(self, feeds: Arrays) -> NDArray[np.float32]:
        """As Graph.run, for a batch of the size that was bound; finite or not.

        Raises:
            SessionError: An input doesn't fit, or the graph failed.
        """
        file = self._signature.file
        # ONNX Runtime copies without a look at shape and type.
        count = _check_feeds(self._signature, feeds)
        if count != self._batch:
            raise SessionError(f"{file} is bound to {self._batch} rows, not {count}")
        try:
            with self._turn:
                return self._run(feeds)
        except Exception as error:
            raise SessionError(f"{file} failed: {_first_line(error)}") from error

    def _run(self, feeds: Arrays) -> NDArray[np.float32]:
        binding = self._binding
        # Bound anew each time: an optional input may be left out this time, and binding is
        # when an input that the graph wants on the processor is copied there.
        binding.clear_binding_inputs()
        for name, array in feeds.items():
            self._inputs[name].update_inplace(array)
            binding.bind_ortvalue_input(name, self._inputs[name])
        binding.synchronize_inputs()
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        # A copy, on the processor too: the next run writes over the buffer.
        (output,) = binding.copy_outputs_to_cpu()
        return np.asarray(output, dtype=np.float32)


def try_graph(data: bytes, signature: Signature, device: Device = "cpu", threads: int = 1) -> Graph:
    """Load a graph, check it, and run it once on zeros; arguments as of Graph.

    Raises:
        SessionError: Names the file and what is wrong with it.
    """
    graph = Graph(data, signature, device=device, threads=threads)
    zeros = {
        name: np.zeros((1, *shape), dtype=np.float32) for name, shape in signature.inputs.items()
    }
    graph.run(zeros)
    return graph


def may_use_cuda(device: Device) -> bool:
    """Whether a graph for `device` is tried on CUDA."""
    return device != "cpu" and "CUDAExecutionProvider" in ort.get_available_providers()


def _check_feeds(signature: Signature, feeds: Arrays) -> int:
    missing = set(signature.inputs) - set(feeds)
    if missing:
        raise SessionError(f"{signature.file} needs {sorted(missing)}")
    shapes = {**signature.inputs, **signature.optional}
    count = len(next(iter(feeds.values())))
    for name, array in feeds.items():
        if name not in shapes:
            raise SessionError(f"{signature.file} takes no {name}")
        expected = (count, *shapes[name])
        if array.shape != expected or array.dtype != np.float32:
            raise SessionError(
                f"{signature.file}: {name} is {array.dtype} {array.shape}, not float32 {expected}"
            )
    return count


def _create(data: bytes, file: str, device: Device, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Bytes can also be a model in ONNX Runtime's own format, which nobody inspected.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    providers: list[Any] = ["CPUExecutionProvider"]
    if may_use_cuda(device):
        # Finds the CUDA and cuDNN libraries that the extra `gpu` puts into site-packages.
        ort.preload_dlls()
        # TF32 alone would move images by more than 1/255.
        cuda = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    try:
        return ort.InferenceSession(data, options, providers=providers)
    except Exception as error:
        raise SessionError(
            f"{file}: ONNX Runtime can't load the graph: {_first_line(error)}"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

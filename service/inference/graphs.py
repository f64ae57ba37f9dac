"""Arrays through ONNX graphs: the only module of the service that uses ONNX Runtime."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.errors import SessionError
from service.inference.signatures import Signature, check_signature
from service.observation import stage

Device = Literal["auto", "cpu", "cuda"]


class Graph:
    """A loaded graph that keeps its signature. Safe to call from several threads at once.

    Attributes:
        device: "cpu" or "cuda", where it really runs.
    """

    def __init__(
        self, data: bytes, signature: Signature, *, device: Device = "cpu", threads: int = 1
    ) -> None:
        """Load and check.

        Args:
            data: The ONNX file's bytes, so that no other file can be drawn in.
            signature: What the graph must take and give.
            device: "auto" takes CUDA where it works.
            threads: Threads of one run; does not change numbers.

        Raises:
            SessionError: Names the file and what is wrong with it.
        """
        self._signature: Final = signature
        self._session = _create(data, signature.file, device, threads)
        self.device: Final = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"
        try:
            check_signature(self._session, signature)
        except SessionError as error:
            raise SessionError(f"{signature.file}: {error}") from None

    def run(self, feeds: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Give the output [N, ...] for inputs [N, ...].

        Raises:
            SessionError: The graph failed, or gave another shape or numbers not finite.
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
            raise SessionError(f"{file} gave {output.shape}, the manifest says {expected}")
        if not np.isfinite(output).all():
            raise SessionError(f"{file} gives values that are not finite: export the run again")
        return np.asarray(output, dtype=np.float32)


def try_graph(data: bytes, signature: Signature) -> Graph:
    """Load a graph, check it, and run it once on zeros.

    Raises:
        SessionError: Names the file and what is wrong with it.
    """
    graph = Graph(data, signature)
    zeros = {
        name: np.zeros((1, *shape), dtype=np.float32) for name, shape in signature.inputs.items()
    }
    graph.run(zeros)
    return graph


def _create(data: bytes, file: str, device: Device, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    providers: list[Any] = ["CPUExecutionProvider"]
    if device != "cpu" and "CUDAExecutionProvider" in ort.get_available_providers():
        # Finds the CUDA and cuDNN libraries that the extra `gpu` puts into site-packages.
        ort.preload_dlls()
        # TF32 alone would move pictures by more than 1/255.
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

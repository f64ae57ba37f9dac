"""Arrays in, pictures out: the only module of the service that uses ONNX Runtime."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from models.manifest import GENERATOR_FILE, OUTPUT_NAME, GeneratorManifest
from service.errors import DeviceError, SessionError
from service.signatures import Signature, check_signature, signatures

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]

# Seeds stay exact in every JSON reader, JavaScript's doubles among them.
SEED_LIMIT: Final = 2**53
# CUDA chooses kernels by batch size, so a few fixed sizes are warmed up and padded to.
CUDA_BATCH_SIZES: Final = (1, 2, 4, 8)


@dataclass(frozen=True)
class PictureSpec:
    """What fixes one picture of a model.

    Attributes:
        seed: 0 <= seed < SEED_LIMIT.
        category: Index into the manifest's categories.
        truncation_psi: 0 = the category's mean picture, 1 = full variety.
    """

    seed: int
    category: int
    truncation_psi: float


def latents(
    manifest: GeneratorManifest, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw a picture's z [z_dim] and noise [noise_dim]: standard normal, noise at its scale.

    A seed belongs to a picture, not to a request, so batching can't change a picture.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    z = rng.standard_normal(manifest.z_dim, dtype=np.float32)
    noise = rng.standard_normal(manifest.noise_dim, dtype=np.float32)
    return z, noise * np.float32(manifest.noise_scale)


class GeneratorSession:
    """A loaded generator. Safe to call from several threads at once.

    Attributes:
        manifest: What the generator was exported with.
        device: "cpu" or "cuda", where it really runs.
    """

    def __init__(
        self,
        generator: bytes,
        manifest: GeneratorManifest,
        *,
        device: Device = "auto",
        intra_op_threads: int = 1,
    ) -> None:
        """Load, check against the manifest, and run once.

        Args:
            generator: The ONNX file's bytes, so that no other file can be drawn in.
            manifest: The contract that the graph must keep.
            device: "auto" takes CUDA where it works.
            intra_op_threads: Threads of one run; does not change pixels.

        Raises:
            DeviceError: CUDA was asked for in vain.
            SessionError: Not loadable, or not as the manifest says.
        """
        self.manifest: Final = manifest
        self._session = _create(generator, device, intra_op_threads)
        self.device: Final = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"
        if device == "cuda" and self.device != "cuda":
            raise DeviceError(
                "CUDA was asked for, but ONNX Runtime fell back to the CPU: install the extra "
                "`gpu` with its CUDA libraries, or set the device to auto or cpu"
            )
        check_signature(self._session, signatures(manifest)[GENERATOR_FILE])
        self._warm_up()
        logger.info("generator %s runs on %s", manifest.model_hash[:12], self.device)

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        """Batches that are run: alone on a CPU, which gains nothing from more."""
        return CUDA_BATCH_SIZES if self.device == "cuda" else (1,)

    def render(self, specs: Sequence[PictureSpec]) -> list[NDArray[np.uint8]]:
        """Generate pictures; each depends on its own spec alone.

        Returns:
            One uint8 [height, width, channels] for each spec.

        Raises:
            SessionError: The graph failed or gave values that are not finite.
        """
        pictures: list[NDArray[np.uint8]] = []
        largest = self.batch_sizes[-1]
        for start in range(0, len(specs), largest):
            pictures += self._render_batch(specs[start : start + largest])
        return pictures

    def _render_batch(self, specs: Sequence[PictureSpec]) -> list[NDArray[np.uint8]]:
        size = next(s for s in self.batch_sizes if s >= len(specs))
        padded = [*specs, *[specs[-1]] * (size - len(specs))]
        images = self._run(padded)[: len(specs)]
        if not np.isfinite(images).all():
            raise SessionError("the generator gave values that are not finite")
        scaled = np.rint((np.clip(images, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
        return [np.ascontiguousarray(image.transpose(1, 2, 0)) for image in scaled]

    def _run(self, specs: Sequence[PictureSpec]) -> NDArray[np.float32]:
        drawn = [latents(self.manifest, spec.seed) for spec in specs]
        category = np.zeros((len(specs), len(self.manifest.categories)), dtype=np.float32)
        category[np.arange(len(specs)), [spec.category for spec in specs]] = 1.0
        feeds = {
            "z": np.stack([z for z, _ in drawn]),
            "category": category,
            "truncation_psi": np.array([s.truncation_psi for s in specs], dtype=np.float32),
            "noise": np.stack([noise for _, noise in drawn]),
        }
        try:
            (images,) = self._session.run([OUTPUT_NAME], feeds)
        except Exception as error:
            raise SessionError(f"the generator failed: {_first_line(error)}") from error
        expected = (len(specs), self.manifest.channels, self.manifest.height, self.manifest.width)
        if images.shape != expected:
            raise SessionError(f"the generator gave {images.shape}, the manifest says {expected}")
        return np.asarray(images, dtype=np.float32)

    def _warm_up(self) -> None:
        """Run each batch size once, so that no request pays for it."""
        spec = PictureSpec(seed=0, category=0, truncation_psi=self.manifest.truncation_psi)
        for size in self.batch_sizes:
            self._render_batch([spec] * size)


def _create(generator: bytes, device: Device, threads: int) -> Any:
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
        return ort.InferenceSession(generator, options, providers=providers)
    except Exception as error:
        raise SessionError(
            f"ONNX Runtime can't load the generator: {_first_line(error)}"
        ) from error


def try_graph(graph: bytes, signature: Signature) -> None:
    """Load a graph that is not served itself, check it, and run it once on zeros.

    Raises:
        SessionError: Names the file and what is wrong with it.
    """
    try:
        session = _create(graph, "cpu", 1)
        check_signature(session, signature)
        zeros = {
            name: np.zeros((1, *shape), dtype=np.float32)
            for name, shape in signature.inputs.items()
        }
        (output,) = session.run([signature.output], zeros)
    except Exception as error:
        raise SessionError(f"{signature.file}: {_first_line(error)}") from error
    if output.shape != (1, *signature.output_shape) or not np.isfinite(output).all():
        raise SessionError(
            f"{signature.file} gives {output.shape}, not {(1, *signature.output_shape)} of finite "
            "numbers: export the run again"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

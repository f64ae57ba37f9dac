"""Seeds and styles in, images out: a model's loaded graphs."""

import logging
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from models.manifest import (
    ENCODER_FILE,
    GENERATOR_FILE,
    MAPPING_FILE,
    OUTPUT_NAME,
    STYLE_OFFSET_NAME,
    UPSCALER_FILE,
    WATERMARK_ENCODER_FILE,
    GeneratorManifest,
)
from service.errors import DeviceError, SessionError
from service.inference.graphs import Device, Graph, may_use_cuda, try_graph
from service.inference.micro_batching import BY_DEVICE, Batching, MicroBatcher
from service.inference.signatures import signatures
from service.inference.watermarks import Watermarker

logger = logging.getLogger(__name__)

# Seeds stay exact in every JSON reader, JavaScript's doubles among them.
SEED_LIMIT: Final = 2**53
# CUDA chooses kernels by batch size, so a few fixed sizes are warmed up and padded to.
CUDA_BATCH_SIZES: Final = (1, 2, 4, 8)

# Pairs of an index into the manifest's categories and its weight; the weights sum to 1.
Mixture = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class ImageSpec:
    """What fixes one image of a model.

    Attributes:
        seed: 0 <= seed < SEED_LIMIT.
        category: Index into the manifest's categories, or a mixture of several.
        truncation_psi: 0 = the category's mean image, 1 = full variety.
        style_offset: Added to each layer's style, [num_ws, w_dim]; None = nothing.
        noise_seed: Whose noise it has; None = its own.
    """

    seed: int
    category: int | Mixture
    truncation_psi: float
    style_offset: NDArray[np.float32] | None = field(default=None, compare=False)
    noise_seed: int | None = None

    @property
    def mixture(self) -> Mixture:
        """The category as a mixture."""
        return ((self.category, 1.0),) if isinstance(self.category, int) else self.category


def waiting_threads(device: Device) -> int:
    """Threads that may wait for the device beside those that compute.

    Enough for single images to fill the batch that runs and the one after it.
    """
    return 2 * CUDA_BATCH_SIZES[-1] if may_use_cuda(device) else 0


def consecutive_seeds(first: int | None, count: int) -> list[int]:
    """The seeds of `count` images; from a random one on where `first` is None."""
    start = secrets.randbelow(SEED_LIMIT) if first is None else first
    return [(start + index) % SEED_LIMIT for index in range(count)]


def latents(
    manifest: GeneratorManifest, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw an image's z [z_dim] and noise [noise_dim]: standard normal, noise at its scale.

    A seed belongs to an image, not to a request, so batching can't change an image.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    z = rng.standard_normal(manifest.z_dim, dtype=np.float32)
    noise = rng.standard_normal(manifest.noise_dim, dtype=np.float32)
    return z, noise * np.float32(manifest.noise_scale)


class GeneratorSession:
    """A loaded generator. Safe to call from several threads at once.

    Attributes:
        manifest: What the generator was exported with.
        watermark: The model's own; None if the export has none.
        device: "cpu" or "cuda", where it really runs.
        batch_sizes: Images of a run, ascending.
    """

    def __init__(
        self,
        generator: bytes,
        manifest: GeneratorManifest,
        *,
        others: Mapping[str, bytes] | None = None,
        device: Device = "auto",
        intra_op_threads: int = 1,
        batching: Batching = BY_DEVICE,
    ) -> None:
        """Load, check against the manifest, and run each batch size once.

        Args:
            generator: The ONNX file's bytes, so that no other file can be drawn in.
            manifest: The contract that the graph must keep.
            others: The export's other graphs by file name; what needs one that is left out
                can't be called.
            device: "auto" takes CUDA where it works.
            intra_op_threads: Threads of one run; does not change pixels.
            batching: How images of several callers are run together.

        Raises:
            DeviceError: CUDA was chosen, and is not there.
            SessionError: Not loadable, or not as the manifest says.
        """
        self.manifest: Final = manifest
        known = signatures(manifest)
        self._generator = Graph(
            generator, known[GENERATOR_FILE], device=device, threads=intra_op_threads
        )
        self.device: Final = self._generator.device
        if device == "cuda" and self.device != "cuda":
            raise DeviceError(
                "CUDA was chosen, but ONNX Runtime fell back to the CPU: install the extra "
                "`gpu` with its CUDA libraries, or set the device to auto or cpu"
            )
        # Small enough for the processor, which computes the same numbers in every batch, but for
        # the upscaler, whose work is of the generator's size.
        self._others: Final = {
            file: try_graph(data, known[file], self.device, intra_op_threads)
            if file == UPSCALER_FILE
            else try_graph(data, known[file])
            for file, data in (others or {}).items()
        }
        self.watermark: Final = self._watermark()
        # Batches that are run: alone on a CPU, which gains nothing from more.
        fitting = CUDA_BATCH_SIZES if self.device == "cuda" else (1,)
        self.batch_sizes: Final = batching.sizes or fitting
        self._batcher: Final = self._warm_up(batching)
        logger.info("generator %s runs on %s", manifest.model_hash[:12], self.device)

    def batches(self, specs: Sequence[ImageSpec]) -> list[Sequence[ImageSpec]]:
        """Split images into the largest batches that pay on the device."""
        size = self.batch_sizes[-1]
        return [specs[start : start + size] for start in range(0, len(specs), size)]

    def render(self, specs: Sequence[ImageSpec], upscaled: bool = False) -> list[NDArray[np.uint8]]:
        """Generate images; each depends on its own spec alone.

        Args:
            specs: What to generate.
            upscaled: Enlarge each by the model's upscaler.

        Returns:
            One uint8 [height, width, channels] for each spec, both sides times the upscaler's
            factor where it was used.

        Raises:
            SessionError: A graph failed, returned values that are not finite, or was not loaded.
        """
        images = [image for part in self.batches(specs) for image in self._render_batch(part)]
        return [self._upscale(image) for image in images] if upscaled else images

    def style(self, spec: ImageSpec) -> NDArray[np.float32]:
        """The style w [w_dim] that all layers of an image start from, before any offset.

        Raises:
            SessionError: The graph failed, or was not loaded.
        """
        z, _ = latents(self.manifest, spec.seed)
        feeds = {
            "z": z[np.newaxis],
            "category": self._weights([spec]),
            "truncation_psi": np.array([spec.truncation_psi], dtype=np.float32),
        }
        return np.asarray(self._other(MAPPING_FILE).run(feeds)[0])

    def encode(self, photo: NDArray[np.uint8], category: int) -> NDArray[np.float32]:
        """The style offset [num_ws, w_dim] that, at truncation_psi 0, generates a photo.

        Args:
            photo: uint8 [height, width, channels].
            category: Index of the category that the offset is to be used with.

        Raises:
            SessionError: The graph failed, or was not loaded.
        """
        spec = ImageSpec(seed=0, category=category, truncation_psi=0.0)
        feeds = {OUTPUT_NAME: _from_pixels(photo), "category": self._weights([spec])}
        return np.asarray(self._other(ENCODER_FILE).run(feeds)[0])

    def _upscale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        # Alone, since a batch's size may change what CUDA computes.
        (upscaled,) = self._other(UPSCALER_FILE).run({OUTPUT_NAME: _from_pixels(image)})
        return _to_pixels(upscaled)

    def _render_batch(self, specs: Sequence[ImageSpec]) -> list[NDArray[np.uint8]]:
        feeds = self._feeds(specs)
        images = self._batcher.run(feeds) if self._batcher else self._generator.run(feeds)
        return [_to_pixels(image) for image in images]

    def _feeds(self, specs: Sequence[ImageSpec]) -> dict[str, NDArray[np.float32]]:
        drawn = [self._latents(spec) for spec in specs]
        feeds = {
            "z": np.stack([z for z, _ in drawn]),
            "category": self._weights(specs),
            "truncation_psi": np.array([s.truncation_psi for s in specs], dtype=np.float32),
            "noise": np.stack([noise for _, noise in drawn]),
        }
        offsets = [spec.style_offset for spec in specs]
        known = next((offset for offset in offsets if offset is not None), None)
        if known is not None:
            none = np.zeros_like(known)
            feeds[STYLE_OFFSET_NAME] = np.stack([none if o is None else o for o in offsets])
        return feeds

    def _latents(self, spec: ImageSpec) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        z, noise = latents(self.manifest, spec.seed)
        if spec.noise_seed is not None:
            _, noise = latents(self.manifest, spec.noise_seed)
        return z, noise

    def _weights(self, specs: Sequence[ImageSpec]) -> NDArray[np.float32]:
        """Category weights [N, categories]."""
        weights = np.zeros((len(specs), len(self.manifest.categories)), dtype=np.float32)
        for row, spec in zip(weights, specs, strict=True):
            for index, weight in spec.mixture:
                row[index] = weight
        return weights

    def _other(self, file: str) -> Graph:
        if file not in self._others:
            raise SessionError(f"{file} was not loaded")
        return self._others[file]

    def _watermark(self) -> Watermarker | None:
        encoder = self._others.get(WATERMARK_ENCODER_FILE)
        return None if encoder is None else Watermarker(encoder, self.manifest.model_hash)

    def _warm_up(self, batching: Batching) -> MicroBatcher | None:
        """Run each batch size once, so that no request pays for it."""
        spec = ImageSpec(seed=0, category=0, truncation_psi=self.manifest.truncation_psi)
        example = self._feeds([spec])
        if self.batch_sizes == (1,):
            self._generator.run(example)
            return None
        return MicroBatcher(self._generator, self.batch_sizes, example, batching.on_run)


def _from_pixels(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [height, width, channels] -> [1, channels, height, width] in [-1, 1]."""
    planes = image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)
    return planes / np.float32(127.5) - np.float32(1)


def _to_pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[channels, height, width] in [-1, 1] -> uint8 [height, width, channels]."""
    scaled = np.rint((np.clip(image, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
    return np.ascontiguousarray(scaled.transpose(1, 2, 0))

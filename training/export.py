"""Run -> export: ONNX graph, weights, manifest and preview, with parity measured.

Written aside and renamed, so that a folder that exists is whole.
"""

import datetime
import hashlib
import io
import logging
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save
from torch import Tensor, nn

from models.discriminator import Discriminator
from models.generator import Generator
from models.manifest import (
    GENERATOR_FILE,
    INPUT_NAMES,
    MANIFEST_FILE,
    OUTPUT_NAME,
    PARITY_TOLERANCE,
    PREVIEW_FILE,
    WEIGHTS_FILE,
    FileRecord,
    GeneratorManifest,
    ParityCertificate,
)
from training.recorder import GridSampler
from training.run import load_networks
from training.samplers import random_inputs

logger = logging.getLogger(__name__)

OPSET: Final = 20
PARITY_PSI: Final = (0.5, 1.0)
PARITY_BATCHES: Final = (1, 2, 7)
Precision = Literal["fp32", "fp16"]


class ExportError(RuntimeError):
    """The export failed or would not paint what torch paints; nothing was written."""


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the person who exports decides."""

    name: str
    precision: Precision = "fp32"
    truncation_psi: float = 0.7
    licence: str = "unspecified"
    author: str = "unspecified"
    metrics: dict[str, float] | None = None


class _Graph(nn.Module):
    """The exported signature: float32 in and out, feature maps in the chosen precision."""

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        super().__init__()
        self.generator = generator
        self.dtype = dtype

    def forward(self, z: Tensor, category: Tensor, truncation_psi: Tensor, noise: Tensor) -> Tensor:
        images: Tensor = self.generator(z, category, truncation_psi, noise, self.dtype)
        return images


def export_run(run: Path, out: Path, options: ExportOptions) -> GeneratorManifest:
    """Export the averaged generator of a run's newest whole checkpoint, with its weights.

    Args:
        run: A training run.
        out: The export directory; must not exist.
        options: Name, precision, licence and such.

    Raises:
        ExportError: `out` exists, the graph is not portable, or parity is over tolerance.
        RunError, CheckpointError: The run has nothing to export.
    """
    if out.exists():
        raise ExportError(f"{out} exists: choose another --out, or remove it")
    generator, discriminator, config, info, nimg = load_networks(run)
    graph = to_onnx(generator, options.precision)
    parity = measure_parity(generator, graph, options.precision)
    files = {
        GENERATOR_FILE: graph,
        PREVIEW_FILE: _preview(generator, config.seed),
        WEIGHTS_FILE: pack_weights(generator, discriminator),
    }
    settings = config.model_dump(mode="json")
    manifest = GeneratorManifest(
        name=options.name,
        created=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        categories=info.categories,
        width=info.width,
        height=info.height,
        channels=info.channels,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        truncation_psi=options.truncation_psi,
        precision=options.precision,
        opset=OPSET,
        preset=config.preset,
        nimg=nimg,
        dataset_hash=info.hash,
        masking=settings.pop("masking"),
        training=settings,
        metrics=options.metrics or {},
        licence=options.licence,
        author=options.author,
        parity=parity,
        files={
            name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
            for name, data in files.items()
        },
    )
    files[MANIFEST_FILE] = (manifest.model_dump_json(indent=2) + "\n").encode()
    _write_aside(out, files)
    return manifest


def to_onnx(generator: Generator, precision: Precision) -> bytes:
    """Trace the generator with a dynamic batch; one self-contained protobuf.

    Raises:
        ExportError: The graph would depend on other files or on operators of ours.
    """
    dtype = torch.float16 if precision == "fp16" else torch.float32
    z, category, noise = (torch.from_numpy(a) for a in _probe(generator, 2))
    example = (z, category, torch.full((2,), 0.7), noise)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            _Graph(generator, dtype).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(INPUT_NAMES),
            output_names=[OUTPUT_NAME],
            dynamic_shapes=tuple({0: batch} for _ in INPUT_NAMES),
            optimize=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for entry in (model.graph.node, *(f.node for f in model.functions)):
        foreign = {node.domain for node in entry} - {"", "ai.onnx"}
        if foreign:
            raise ExportError(f"the graph uses operators of {', '.join(sorted(foreign))}")
    _forget_source(model)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _forget_source(model: Any) -> None:
    """Drop the tracer's notes: they hold paths of the machine that exported."""
    del model.metadata_props[:]
    del model.graph.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def measure_parity(generator: Generator, graph: bytes, precision: Precision) -> ParityCertificate:
    """Compare ONNX Runtime with torch on every category, several psi and batch sizes.

    Raises:
        ExportError: A pixel differs by more than the precision's tolerance.
    """
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    categories = generator.shape.categories
    worst = 0.0
    for psi in PARITY_PSI:
        for batch in PARITY_BATCHES:
            for first in range(0, categories, batch):
                labels = (first + np.arange(batch)) % categories
                worst = max(worst, _difference(generator, session, labels, psi))
    tolerance = PARITY_TOLERANCE[precision]
    if not worst <= tolerance:
        raise ExportError(
            f"ONNX Runtime differs from torch by {worst:.2g}, over the tolerance of {tolerance:g} "
            f"for {precision}"
        )
    logger.info("parity: at most %.2g off over %d categories", worst, categories)
    return ParityCertificate(
        max_abs_error=worst,
        tolerance=tolerance,
        truncation_psi=PARITY_PSI,
        batch_sizes=PARITY_BATCHES,
        categories=categories,
        torch_version=torch.__version__,
        onnxruntime_version=onnxruntime.__version__,
    )


@torch.no_grad()
def _difference(generator: Generator, session: Any, labels: Any, psi: float) -> float:
    """Largest absolute difference of one batch, in pictures of [-1, 1]."""
    z, category, noise = _probe(generator, len(labels), labels)
    truncation = np.full(len(labels), psi, dtype=np.float32)
    arrays = (z, category, truncation, noise)
    (ours,) = session.run([OUTPUT_NAME], dict(zip(INPUT_NAMES, arrays, strict=True)))
    theirs = generator(*(torch.from_numpy(a) for a in arrays)).numpy()
    return float(np.abs(ours - theirs).max())


def _probe(generator: Generator, count: int, labels: Any = None) -> tuple[Any, Any, Any]:
    labels = np.arange(count) % generator.shape.categories if labels is None else labels
    return random_inputs(
        labels,
        categories=generator.shape.categories,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        seed=int(labels[0]),
    )


def pack_weights(generator: Generator, discriminator: Discriminator) -> bytes:
    """Both networks in float32, as safetensors: what fine-tuning starts from, without a pickle.

    Returns:
        Tensors `generator.<name>` and `discriminator.<name>`, named as in their state_dicts.
    """
    networks = {"generator": generator, "discriminator": discriminator}
    tensors = {
        f"{network}.{name}": tensor.detach().float().cpu().contiguous()
        for network, module in networks.items()
        for name, tensor in module.state_dict().items()
    }
    return save(tensors)


def _preview(generator: Generator, seed: int) -> bytes:
    """A row of pictures for each category."""
    buffer = io.BytesIO()
    GridSampler(generator, seed, truncation_psi=0.7).draw(generator).save(buffer, "PNG")
    return buffer.getvalue()


def _write_aside(out: Path, files: dict[str, bytes]) -> None:
    aside = out.with_name(f".{out.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        for name, data in files.items():
            (aside / name).write_bytes(data)
        aside.rename(out)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise ExportError(f"can't write {out}: {error}") from error

"""Run -> export: ONNX graph, weights, manifest, preview and card, with parity measured."""

import datetime
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import save
from torch import nn

from models.discriminator import Discriminator
from models.generator import Generator
from models.manifest import (
    ENCODER_FILE,
    GENERATOR_FILE,
    MAPPING_FILE,
    PREVIEW_FILE,
    SERVED_NOISE_SCALE,
    SERVED_TRUNCATION_PSI,
    UPSCALER_FILE,
    WEIGHTS_FILE,
    EncoderRecord,
    GeneratorManifest,
    ImageLoss,
    Name,
    ParityCertificate,
    UpscalerRecord,
    check_synonyms,
)
from models.upscaler import Upscaler
from training.evaluation.record import read_headline
from training.export.folder import check_new, file_records, write_export
from training.export.further_graphs import (
    encoder_to_onnx,
    mapping_to_onnx,
    upscaler_to_onnx,
)
from training.export.graphs import OPSET, ExportError, FloatPrecision, Precision, to_onnx
from training.export.loss import FULL_VARIETY, Setting, measure_loss
from training.export.parity import measure_parity
from training.export.quantization import quantize
from training.export.watermarking import export_watermark
from training.inversion.encoder_run import load_encoder
from training.learning.config import Snapshot
from training.learning.recorder import GridSampler
from training.learning.run import load_networks
from training.upscaling.upscaler_run import UpscalerCard, load_upscaler


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Options of `catalogan export`."""

    name: str
    precision: Precision = "fp32"
    snapshot: Snapshot = "last"
    truncation_psi: float = SERVED_TRUNCATION_PSI
    noise_scale: float = SERVED_NOISE_SCALE
    licence: str = "unspecified"
    author: str = "unspecified"
    data: str = "unspecified"  # where the photos are from, and their licence
    metrics: dict[str, float] | None = None  # None: from `catalogan evaluate` of the run
    synonyms: Mapping[str, Sequence[str]] = field(default_factory=dict)  # by category, for prompts
    encoder: bool = True  # include the run's encoder, if it has one
    upscaler: bool = True  # include its upscaler, if it has one
    watermark: Path | None = None  # a folder of `catalogan train-watermark`


def export_run(run: Path, out: Path, options: ExportOptions) -> GeneratorManifest:
    """Export the averaged generator of one moment of a run, with its weights.

    Args:
        run: A training run.
        out: The export directory; must not exist.
        options: Name, precision, licence and such.

    Raises:
        ExportError: The name is invalid, `out` exists, the graph is not portable, parity is over
            tolerance, or the precision costs too much.
        CompanionError: The run's encoder or upscaler or the watermark is damaged, or the encoder
            is of another generator.
        RunError, CheckpointError: The run has nothing to export.
        ValueError: A synonym belongs to no category, or to two.
    """
    _check_name(options.name)
    check_new(out)
    generator, discriminator, config, info, nimg = load_networks(run, options.snapshot)
    check_synonyms(options.synonyms, info.categories)
    trained = load_encoder(run, config, generator) if options.encoder else None
    enlarging = load_upscaler(run, info) if options.upscaler else None
    served = Setting(options.truncation_psi, options.noise_scale)
    graph, parity, losses = generator_graph(generator, options.precision, served)
    files = {
        GENERATOR_FILE: graph,
        MAPPING_FILE: mapping_to_onnx(generator),
        PREVIEW_FILE: _preview(generator, config.seed, options),
        WEIGHTS_FILE: pack_weights(generator, discriminator),
    }
    encoder = upscaler = watermark = None
    if trained is not None:
        network, card = trained
        files[ENCODER_FILE], encoder_parity = encoder_to_onnx(network, generator)
        encoder = EncoderRecord(nimg=card.nimg, parity=encoder_parity, errors=card.errors)
    if enlarging is not None:
        files[UPSCALER_FILE], upscaler = _upscaler(*enlarging, generator)
    if options.watermark is not None:
        graphs, watermark = export_watermark(options.watermark)
        files |= graphs
    num_ws, w_dim = generator.style_shape
    settings = _portable(config.model_dump(mode="json"))
    manifest = GeneratorManifest(
        name=options.name,
        created=datetime.datetime.now(datetime.UTC).replace(microsecond=0),
        categories=info.categories,
        synonyms={name: tuple(others) for name, others in options.synonyms.items()},
        width=info.width,
        height=info.height,
        channels=info.channels,
        z_dim=generator.z_dim,
        noise_dim=generator.noise_dim,
        num_ws=num_ws,
        w_dim=w_dim,
        truncation_psi=options.truncation_psi,
        noise_scale=options.noise_scale,
        precision=options.precision,
        opset=OPSET,
        preset=config.preset,
        nimg=nimg,
        dataset_hash=info.hash,
        masking=settings.pop("masking"),
        training=settings,
        metrics=read_headline(run, nimg, info.hash) if options.metrics is None else options.metrics,
        licence=options.licence,
        author=options.author,
        data=options.data,
        parity=parity,
        losses=losses,
        encoder=encoder,
        upscaler=upscaler,
        watermark=watermark,
        files=file_records(files),
    )
    return write_export(out, manifest, files)


def generator_graph(
    generator: Generator, precision: Precision, served: Setting
) -> tuple[bytes, ParityCertificate, tuple[ImageLoss, ...]]:
    """Export the graph in a precision, and compare it with torch in float32.

    Args:
        generator: The generator to export.
        precision: Precision of its feature maps.
        served: Default truncation and noise of requests; an int8 graph is calibrated with these
            images, too.

    Raises:
        ExportError: The graph is not portable, parity is over tolerance, or the precision costs
            too much.
    """
    traced: FloatPrecision = "fp16" if precision == "fp16" else "fp32"
    graph = to_onnx(generator, traced)
    parity = measure_parity(generator, graph, traced)
    if precision == "fp32":
        return graph, parity, ()
    settings = (FULL_VARIETY, served)
    if precision == "int8":
        graph = quantize(graph, generator, settings)
        parity = measure_parity(generator, graph, precision)
    losses = (measure_loss(generator, graph, precision, one) for one in settings)
    return graph, parity, tuple(losses)


def _check_name(name: str) -> None:
    """Check the name now, since the manifest would refuse it only after minutes of work."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError as error:
        raise ExportError(
            f"--name {name!r}: give a name of at most 63 lower-case letters, digits, dots, dashes "
            "and underscores that begins with a letter or a digit"
        ) from error


def _portable(settings: dict[str, Any]) -> dict[str, Any]:
    """Remove this machine's folders from the settings: they mean nothing elsewhere."""
    source = settings["fine_tuning"]["source"]
    if source is not None:
        settings["fine_tuning"]["source"] = Path(source).name
    return settings


def _upscaler(
    upscaler: Upscaler, card: UpscalerCard, generator: Generator
) -> tuple[bytes, UpscalerRecord]:
    graph, parity = upscaler_to_onnx(upscaler, generator)
    return graph, UpscalerRecord(
        factor=upscaler.shape.factor,
        nimg=card.nimg,
        parity=parity,
        judged=card.judged,
        photos=card.photos,
        generated=card.generated,
    )


def pack_weights(generator: Generator, discriminator: Discriminator) -> bytes:
    """Pack both networks in float16 as safetensors, without a pickle, for fine-tuning.

    The first steps of training change weights more than the rounding does.

    Returns:
        Tensors `generator.<name>` and `discriminator.<name>`, named as in their state_dicts.

    Raises:
        ExportError: A weight does not fit.
    """
    networks = nn.ModuleDict({"generator": generator, "discriminator": discriminator})
    tensors = {
        name: tensor.detach().half().cpu().contiguous()
        for name, tensor in networks.state_dict().items()
    }
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ExportError(f"{name} has values beyond float16: the run has diverged")
    return save(tensors)


def _preview(generator: Generator, seed: int, options: ExportOptions) -> bytes:
    """Draw a row of images for each category."""
    buffer = io.BytesIO()
    grid = GridSampler(generator, seed, options.truncation_psi, options.noise_scale)
    grid.draw(generator).save(buffer, "PNG")
    return buffer.getvalue()

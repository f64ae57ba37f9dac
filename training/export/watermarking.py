"""A trained watermark in an export: with the run's other graphs, or added to a finished export."""

from pathlib import Path

from models.manifest import WATERMARK_FILES, GeneratorManifest, WatermarkRecord
from training.companion import CompanionError
from training.export.folder import check_new, read_export, write_export
from training.export.further_graphs import watermark_to_onnx
from training.watermark.watermark_folder import load_watermark


def export_watermark(folder: Path) -> tuple[dict[str, bytes], WatermarkRecord]:
    """Export a watermark's two graphs, and compare them with torch.

    Args:
        folder: A folder of `catalogan train-watermark`.

    Returns:
        The graphs by file name, and what the manifest says of them.

    Raises:
        CompanionError: The watermark is damaged, or has not been evaluated.
        ExportError: A graph is not portable, or the difference is over the tolerance.
    """
    encoder, decoder, card = load_watermark(folder)
    if card.judgement is None:
        raise CompanionError(
            f"{folder} has not been evaluated yet: "
            f"run `catalogan judge-watermark {folder} --data DATASET`"
        )
    graphs, error = watermark_to_onnx(encoder, decoder)
    record = WatermarkRecord(
        nimg=card.nimg,
        dataset_hash=card.dataset_hash,
        max_abs_error=error,
        **card.judgement.model_dump(),
    )
    return dict(zip(WATERMARK_FILES, graphs, strict=True)), record


def add_watermark(export: Path, watermark: Path, out: Path) -> GeneratorManifest:
    """Write a copy of an export that has a watermark, in the place of an earlier one if any.

    The generator is the same, and so are its images and the model's hash; the registry sees
    another version.

    Args:
        export: An export.
        watermark: A folder of `catalogan train-watermark`.
        out: The copy's directory; must not exist.

    Raises:
        ExportError: `export` is no intact export, `out` exists or can't be written, or parity is
            over tolerance.
        CompanionError: The watermark is damaged, or has not been evaluated.
    """
    check_new(out)
    manifest, files = read_export(export)
    graphs, record = export_watermark(watermark)
    return write_export(out, manifest.model_copy(update={"watermark": record}), files | graphs)

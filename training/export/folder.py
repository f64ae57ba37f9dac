"""An export's folder: its files, their hashes in the manifest, and the model card.

It is written to a temporary folder and renamed, so that an existing export is complete.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from models.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    FileRecord,
    GeneratorManifest,
    ManifestError,
)
from training.export.card import model_card
from training.export.graphs import ExportError
from training.faults import first_fault
from training.files import temporary_folder


def check_new(out: Path) -> None:
    """Refuse a folder that exists, before minutes of work; raises ExportError."""
    if out.exists():
        raise ExportError(f"{out} exists: choose another --out, or remove it")


def file_records(files: Mapping[str, bytes]) -> dict[str, FileRecord]:
    """Sizes and hashes, as a manifest lists them."""
    return {
        name: FileRecord(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in files.items()
    }


def read_export(folder: Path) -> tuple[GeneratorManifest, dict[str, bytes]]:
    """Read an export's manifest and the files that it lists, with their hashes checked.

    Raises:
        ExportError: It is no export, or a file is missing or changed.
    """
    files: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        files[name] = (folder / name).read_bytes()
        return files[name]

    try:
        manifest = GeneratorManifest.model_validate_json((folder / MANIFEST_FILE).read_bytes())
        manifest.verify_files(read)
    except (OSError, ValidationError, ManifestError) as error:
        raise ExportError(f"{folder} is no usable export: {first_fault(error)}") from error
    return manifest, files


def write_export(
    out: Path, manifest: GeneratorManifest, files: Mapping[str, bytes]
) -> GeneratorManifest:
    """Write an export's files with their model card and manifest, completely or not at all.

    Args:
        out: The export directory; must not exist.
        manifest: Everything but the files' records, which are replaced.
        files: Content by name; a card among them is replaced.

    Returns:
        The manifest as written.

    Raises:
        ExportError: It can't be written.
    """
    written = {name: data for name, data in files.items() if name != CARD_FILE}
    written[CARD_FILE] = model_card(manifest)
    manifest = manifest.model_copy(update={"files": file_records(written)})
    written[MANIFEST_FILE] = (manifest.model_dump_json(indent=2) + "\n").encode()
    try:
        with temporary_folder(out) as temporary:
            for name, data in written.items():
                (temporary / name).write_bytes(data)
    except OSError as error:
        raise ExportError(f"can't write {out}: {error}") from error
    return manifest

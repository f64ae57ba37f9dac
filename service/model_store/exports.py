"""Reads an export directory: plain files only, exactly those that its manifest lists."""

import hashlib
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from models.manifest import (
    ENCODER_FILE,
    GENERATOR_FILE,
    MANIFEST_FILE,
    MAX_GENERATOR_BYTES,
    MAX_WEIGHTS_BYTES,
    WEIGHTS_FILE,
    GeneratorManifest,
    ManifestError,
)
from models.validation import problems
from service.errors import RegistryError

MAX_MANIFEST_BYTES: Final = 5_000_000
MAX_OTHER_BYTES: Final = 100_000_000


def export_version(files: Mapping[str, bytes]) -> str:
    """The version that an export has in every registry: it follows from the manifest."""
    return hashlib.sha256(files[MANIFEST_FILE]).hexdigest()[:12]


def read_export(export: Path) -> tuple[GeneratorManifest, dict[str, bytes]]:
    """Read an export and check its files against its manifest.

    Args:
        export: Directory that holds the manifest and exactly the files it lists.

    Returns:
        The manifest, and the bytes of all files by name, the manifest's included, so that
        what is used is what was checked.

    Raises:
        RegistryError: Names the file at fault and the way out.
    """
    if not export.is_dir():
        raise RegistryError(f"{export} is no directory: name what `catalogan export` wrote")
    files = {MANIFEST_FILE: _read(export, MANIFEST_FILE, MAX_MANIFEST_BYTES)}
    manifest = parse_manifest(files[MANIFEST_FILE], export / MANIFEST_FILE)
    _check_file_set(export, manifest)
    for name in manifest.files:
        files[name] = _read(export, name, _limit(name))
    try:
        manifest.verify_files(files.__getitem__)
    except ManifestError as error:
        raise RegistryError(f"{export}: {error}") from error
    return manifest, files


def parse_manifest(data: bytes, path: Path) -> GeneratorManifest:
    """Parse a manifest.

    Raises:
        RegistryError: Names `path` and the field at fault.
    """
    try:
        return GeneratorManifest.model_validate_json(data)
    except ValidationError as error:
        first = problems(error)[0]
        raise RegistryError(
            f"{path}: {first.place or 'content'}: {first.message[:200]}; export the run again "
            "with this version"
        ) from None


def _limit(name: str) -> int:
    """The most bytes that are accepted of a file."""
    if name in (GENERATOR_FILE, ENCODER_FILE):
        return MAX_GENERATOR_BYTES
    return MAX_WEIGHTS_BYTES if name == WEIGHTS_FILE else MAX_OTHER_BYTES


def _check_file_set(export: Path, manifest: GeneratorManifest) -> None:
    listed = {MANIFEST_FILE, *manifest.files}
    present = {path.name for path in export.iterdir()}
    if present != listed:
        extra, missing = sorted(present - listed), sorted(listed - present)
        raise RegistryError(
            f"{export} and its manifest disagree: not listed {extra[:5]}, missing {missing[:5]}; "
            "register the directory as it was exported"
        )


def _read(export: Path, name: str, limit: int) -> bytes:
    """Read a plain file of at most `limit` bytes; never follow a link, never wait on a pipe."""
    path = export / name
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise RegistryError(f"{path} is not a plain file: links and the like are refused")
        if status.st_size > limit:
            raise RegistryError(f"{path} has {status.st_size} bytes, over the limit of {limit}")
        return path.read_bytes()
    except OSError as error:
        raise RegistryError(f"{path} can't be read: {error.strerror or error}") from error

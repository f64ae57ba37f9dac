"""The trained models that ship with Catalogan: exports, as package data."""

from importlib.resources import files
from pathlib import Path

from models.manifest import MANIFEST_FILE


def base_names() -> list[str]:
    """List the names of the bases, sorted."""
    return sorted(manifest.parent.name for manifest in base_path("").glob(f"*/{MANIFEST_FILE}"))


def base_path(name: str) -> Path:
    """Path of a base's export directory."""
    return Path(str(files("training"))) / "data" / "bases" / name

"""The trained models that ship with Catalogan: exports, as package data."""

from importlib.resources import files
from pathlib import Path

from models.manifest import MANIFEST_FILE


def base_names() -> list[str]:
    """Names, in order, of what ships."""
    return sorted(manifest.parent.name for manifest in base_path("").glob(f"*/{MANIFEST_FILE}"))


def base_path(name: str) -> Path:
    """The export directory of a base."""
    return Path(str(files("training"))) / "data" / "bases" / name

"""The trained models that ship with Catalogan: exports, as package data."""

from importlib.resources import files
from pathlib import Path


def base_names() -> list[str]:
    """Names, in order, of what ships."""
    folder = base_path("")
    return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []


def base_path(name: str) -> Path:
    """The export directory of a base."""
    return Path(str(files("training"))) / "data" / "bases" / name

"""The sample catalogue: 1,000 rendered product photos that ship with Catalogan, as package data."""

import zipfile
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Final, Literal

from training.files import temporary_folder

Part = Literal["first", "second"]

# Fine-tuning learns the second part's categories from a model of the first's.
PARTS: Final[dict[Part, tuple[str, ...]]] = {
    "first": ("bag", "bottle", "box", "chair", "lamp", "mug"),
    "second": ("shirt", "shoe"),
}
LICENCE: Final = "CC0-1.0"


class SampleCatalogueError(ValueError):
    """The photos can't be unpacked into the folder; the message names it."""


def unpack_sample_catalogue(out: Path, part: Part | None = None) -> dict[str, int]:
    """Unpack the photos into a new folder, with a folder for each category.

    The folder appears under its name only when it is complete.

    Args:
        out: Folder to create; it must not exist, or be empty.
        part: The first six categories or the other two; None = all eight.

    Returns:
        Number of photos in each category.

    Raises:
        SampleCatalogueError: `out` is not empty, or can't be written; nothing half-written is left.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SampleCatalogueError(
            f"--out {out} exists and is not an empty folder: choose another or remove it"
        )
    file = Path(str(files("training"))) / "data" / "sample-catalogue" / "photos.zip"
    categories = [name for key, names in PARTS.items() if part in (None, key) for name in names]
    try:
        with temporary_folder(out) as temporary, zipfile.ZipFile(file) as archive:
            photos = [name for name in archive.namelist() if name.split("/")[0] in categories]
            archive.extractall(temporary, photos)
    except OSError as error:
        raise SampleCatalogueError(f"--out {out} can't be written: {error.strerror}") from error
    return dict(Counter(name.split("/")[0] for name in photos))

"""Writes a prepared dataset to a temporary folder, and renames it in one step."""

import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib import format as npy

from training.dataset import IMAGES_FILE, INDEX_FILE, INFO_FILE
from training.files import temporary_folder
from training.photos.curation import KeptPhoto
from training.photos.decode_pool import ImagesFile
from training.photos.scan import PhotoRef, PrepareError


def check_destination(out: Path, photos: Sequence[Path], *, overwrite: bool) -> Path:
    """Check the dataset's folder, and resolve its links.

    Args:
        out: Folder that was requested.
        photos: Folders that are read.
        overwrite: An existing dataset may be replaced.

    Raises:
        PrepareError: The folder holds something that must not be lost, or one of `out` and a
            folder of photos contains the other.
    """
    place = Path(os.path.realpath(out))
    for folder in photos:
        real = Path(os.path.realpath(folder))
        if place.is_relative_to(real) or real.is_relative_to(place):
            raise PrepareError(f"--out {out} and the photos in {folder} must be apart")
    if not place.parent.is_dir():
        raise PrepareError(f"--out {out}: there is no folder {place.parent}")
    if place.exists() and not place.is_dir():
        raise PrepareError(f"--out {out} is a file: choose a new folder")
    if place.is_dir() and any(place.iterdir()):
        if not (place / INFO_FILE).is_file():
            raise PrepareError(f"--out {out} holds other things: choose a new folder")
        if not overwrite:
            raise PrepareError(f"--out {out} holds a dataset: --overwrite replaces it")
    return place


@contextmanager
def temporary_dataset(out: Path) -> Iterator[Path]:
    """Yield a new folder that is renamed to `out` when the block succeeds.

    Raises:
        PrepareError: The folder can't be written.
    """
    try:
        with temporary_folder(out, replace=True) as temporary:
            yield temporary
    except OSError as error:
        raise PrepareError(f"{out} can't be written: {error.strerror or error}") from error


def allocate_images(folder: Path, shape: tuple[int, int, int, int]) -> ImagesFile:
    """Create the images file [N, height, width, channels] and reserve its disk space.

    Raises:
        PrepareError: The disk has not enough space.
    """
    path = folder / IMAGES_FILE
    with path.open("wb") as stream:
        _write_header(stream, shape)
        offset_bytes = stream.tell()
        size = offset_bytes + int(np.prod(shape, dtype=np.int64))
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(stream.fileno(), 0, size)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise PrepareError(
                    f"the dataset needs {size / 1e9:.1f} GB, more than {folder.parent} has free"
                ) from error
        stream.truncate(size)
    return ImagesFile(path=path, offset_bytes=offset_bytes)


def compact_images(
    images: ImagesFile, shape: tuple[int, int, int, int], rows: Sequence[int]
) -> Iterator[bytes]:
    """Keep only `rows` of the images file, in place.

    Args:
        images: A file of `allocate_images`.
        shape: Its shape.
        rows: Ascending rows to keep.

    Yields:
        Bytes of each image in `rows`, in order; the file is complete when all were consumed.
    """
    image_bytes = int(np.prod(shape[1:]))
    with images.path.open("r+b") as stream:
        for to, row in enumerate(rows):
            stream.seek(images.offset_bytes + row * image_bytes)
            pixels = stream.read(image_bytes)
            yield pixels
            if to != row:  # ascending, so that nothing is overwritten before it is read
                stream.seek(images.offset_bytes + to * image_bytes)
                stream.write(pixels)
        stream.truncate(images.offset_bytes + len(rows) * image_bytes)
        stream.seek(0)
        _write_header(stream, (len(rows), *shape[1:]))
        if stream.tell() != images.offset_bytes:
            raise AssertionError("the header's length must not depend on the image count")


def _write_header(stream: Any, shape: tuple[int, ...]) -> None:
    npy.write_array_header_1_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})


def write_index(
    folder: Path, refs: Sequence[PhotoRef], labels: Sequence[int], kept: Sequence[KeptPhoto]
) -> None:
    """Write index.parquet, a row for each photo of the dataset.

    If a further column of the manifest has the name of one of the index's own columns, it gets
    the prefix "manifest_".
    """
    table = {
        "path": pa.array([ref.path for ref in refs], pa.string()),
        "category": pa.array([ref.category for ref in refs], pa.string()),
        "label": pa.array(labels, pa.int64()),
        "sku": pa.array([ref.sku for ref in refs], pa.string()),
        "split": pa.array([photo.split for photo in kept], pa.string()),
        "sha256": pa.array([photo.sha256 for photo in kept], pa.string()),
        "near_duplicate": pa.array([photo.near_duplicate for photo in kept], pa.int64()),
    }
    for further in dict.fromkeys(itertools.chain.from_iterable(ref.further for ref in refs)):
        name = further
        while name in table:
            name = f"manifest_{name}"
        table[name] = _column([ref.further.get(further) for ref in refs])
    pq.write_table(pa.table(table), folder / INDEX_FILE)


def _column(values: Sequence[Any]) -> Any:
    """Build a column of one type: text if the values have several types."""
    with suppress(pa.ArrowException):
        return pa.array(values)
    return pa.array([None if value is None else str(value) for value in values])

"""A small shop's catalogue, rendered: folders of JPEG photos, one folder for each category."""

import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from training.sample_catalogue.photo import photograph
from training.sample_catalogue.products.bag import bag
from training.sample_catalogue.products.bottle import bottle
from training.sample_catalogue.products.box import box
from training.sample_catalogue.products.chair import chair
from training.sample_catalogue.products.lamp import lamp
from training.sample_catalogue.products.mug import mug
from training.sample_catalogue.products.shirt import shirt
from training.sample_catalogue.products.shoe import shoe
from training.sample_catalogue.studio import Product

log = logging.getLogger(__name__)

PRODUCTS: Final[dict[str, Callable[[np.random.Generator], Product]]] = {
    "bag": bag,
    "bottle": bottle,
    "box": box,
    "chair": chair,
    "lamp": lamp,
    "mug": mug,
    "shirt": shirt,
    "shoe": shoe,
}
LICENCE_FILE: Final = "LICENSE.txt"
_LICENCE: Final = """\
These pictures were rendered by Catalogan's sample-catalogue command. They show no real
product. They are dedicated to the public domain under CC0 1.0:
https://creativecommons.org/publicdomain/zero/1.0/
"""
_JPEG_QUALITY: Final = 92
# Below this, starting worker processes costs more than it saves.
_SERIAL_COUNT: Final = 24


class SampleCatalogueError(ValueError):
    """The catalogue can't be rendered as asked; the message names the argument."""


@dataclass(frozen=True)
class _Shot:
    """One photo to take."""

    category: str
    index: int
    path: Path
    size_px: int
    seed: int


def render_catalogue(
    out: Path,
    *,
    count: int = 1000,
    size_px: int = 256,
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, int]:
    """Render `count` photos, spread evenly over the categories, into a new folder.

    Picture i of a category depends on `seed`, the category and i alone. All cores are
    used. The folder appears under its name only when it is complete.

    Args:
        out: Folder to make; it must not exist, or be empty.
        count: Photos in all, at least one for each category.
        size_px: Width and height, 32 to 1024.
        seed: 0 or above.
        on_progress: Told how many photos are done, after each.

    Returns:
        Photos in each category.

    Raises:
        SampleCatalogueError: `out` is not free, or a number is out of range.
        OSError: The folder can't be written.
    """
    _check(out, count, size_px, seed)
    shares = {
        name: count // len(PRODUCTS) + (place < count % len(PRODUCTS))
        for place, name in enumerate(PRODUCTS)
    }
    with _written_aside(out) as folder:
        (folder / LICENCE_FILE).write_text(_LICENCE, encoding="utf-8")
        for name in shares:
            (folder / name).mkdir()
        shots = _shots(folder, shares, size_px, seed)
        for done, _ in enumerate(_taken(shots), start=1):
            if on_progress:
                on_progress(done)
    log.info("%d photos in %d categories in %s", count, len(shares), out)
    return shares


def render_photo(category: str, index: int, *, size_px: int, seed: int) -> Image.Image:
    """Photo number `index` of a category, an sRGB picture of size_px x size_px."""
    rng = np.random.default_rng([seed, zlib.crc32(category.encode()), index])
    return Image.fromarray(photograph(PRODUCTS[category](rng), size_px, rng))


def _shots(folder: Path, shares: dict[str, int], size_px: int, seed: int) -> list[_Shot]:
    """All photos; categories take turns, so that the work is even however it is dealt out."""
    return [
        _Shot(name, i, folder / name / f"{name}-{i + 1:04d}.jpg", size_px, seed)
        for i in range(max(shares.values()))
        for name, share in shares.items()
        if i < share
    ]


def _check(out: Path, count: int, size_px: int, seed: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SampleCatalogueError(
            f"out: {out} exists and is not an empty folder; choose another or remove it"
        )
    if count < len(PRODUCTS):
        raise SampleCatalogueError(
            f"count: {count} is less than one for each of {len(PRODUCTS)} categories"
        )
    if not 32 <= size_px <= 1024:
        raise SampleCatalogueError(f"size_px: {size_px} is not within 32 to 1024")
    if seed < 0:
        raise SampleCatalogueError(f"seed: {seed} is negative")


@contextmanager
def _written_aside(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name when all went well, and else goes."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.partial")
    aside.mkdir()
    try:
        yield aside
        if out.exists():
            out.rmdir()
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _taken(shots: list[_Shot]) -> Iterator[None]:
    """Take all shots, yielding after each."""
    if len(shots) < _SERIAL_COUNT:
        yield from map(_take, shots)
        return
    # Fresh interpreters: a fork would inherit the caller's threads in unknown states.
    with ProcessPoolExecutor(_cores(), mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_take, shots, chunksize=8)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _take(shot: _Shot) -> None:
    photo = render_photo(shot.category, shot.index, size_px=shot.size_px, seed=shot.seed)
    photo.save(shot.path, "JPEG", quality=_JPEG_QUALITY, subsampling=0)


def _cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Files and folders that are there whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write beside `path`, sync, rename: whatever fails, what was there stays.

    Raises:
        OSError: It can't be written; nothing half-written is left.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise


@contextmanager
def folder_aside(place: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `place` that becomes `place` when all went well.

    Args:
        place: A new folder, or an empty one.
        replace: It may hold something, which goes only after the new folder is in its place.

    Raises:
        OSError: It can't be written; `place` is as it was, and nothing half-written is left.
    """
    place = place.resolve()  # of a link, what it points to is replaced
    mark = secrets.token_hex(4)
    aside = place.with_name(f".{place.name}.{mark}.partial")
    try:
        aside.mkdir(parents=True)
        yield aside
        for file in filter(Path.is_file, aside.rglob("*")):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())  # on disk before the rename is
        if replace and place.is_dir() and any(place.iterdir()):
            _exchange(aside, place, place.with_name(f".{place.name}.{mark}.old"))
        else:
            aside.rename(place)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(aside: Path, place: Path, old: Path) -> None:
    place.rename(old)
    try:
        aside.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)

"""Files and folders that are written completely or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Write a temporary file, sync, and rename it to `path`: on failure the old file remains.

    Raises:
        OSError: It can't be written; nothing half-written is left.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def temporary_folder(out: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a new folder that is renamed to `out` when the block succeeds.

    Args:
        out: A new folder, or an empty one.
        replace: `out` may hold something, which is deleted once the new folder has replaced it.

    Raises:
        OSError: It can't be written; `out` is unchanged, and nothing half-written is left.
    """
    out = out.resolve()  # if it is a link, the folder that it points to is replaced
    suffix = secrets.token_hex(4)
    temporary = out.with_name(f".{out.name}.{suffix}.partial")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in filter(Path.is_file, temporary.rglob("*")):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())  # content reaches the disk before the new name does
        if replace and out.is_dir() and any(out.iterdir()):
            _replace(out, temporary, out.with_name(f".{out.name}.{suffix}.old"))
        else:
            temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(out: Path, temporary: Path, old: Path) -> None:
    """Rename `out` to `old` and `temporary` to `out`, then delete `old`."""
    out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)

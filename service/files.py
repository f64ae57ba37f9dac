"""Files that are there whole or not at all, and for their owner alone."""

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def replace_text(path: Path, text: str, mode: int) -> None:
    """Write a file aside, flush it to the disk, and put it in the place of `path`.

    Raises:
        OSError: It can't be written; what was there is as it was.
    """
    descriptor, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(mode)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def keep_private(path: Path, mode: int = 0o600) -> None:
    """Let nobody else read a file or folder; one of another owner, or none, stays as it is."""
    with suppress(OSError):
        path.chmod(mode)

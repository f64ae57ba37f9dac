"""Checkpoints: everything that a resumed run needs, written completely or not at all.

Each `checkpoint-<nimg>.pt` has its hash in `checkpoint-<nimg>.pt.sha256`. Loading checks the hash
and then reads with weights_only, so that no pickled code runs. When a checkpoint replaces another
of the same name, as after a rollback, the hash file lists both hashes, so that either file is
accepted if the write is interrupted. `best-<nimg>.pt` is stored in the same way: the averaged
generator of the moment with the best validation score.
"""

import hashlib
import logging
import os
import re
from pathlib import Path
from typing import Any, Final

import torch

logger = logging.getLogger(__name__)

_NAME: Final = re.compile(r"checkpoint-(\d{12})\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint can't be read or written; the message says what to do."""


def checkpoint_path(run: Path, nimg: int) -> Path:
    """Path of the checkpoint at image count `nimg`."""
    return run / f"checkpoint-{nimg:012d}.pt"


def save_checkpoint(run: Path, nimg: int, state: dict[str, Any], keep: int) -> Path:
    """Save a checkpoint, then delete all but the newest `keep`.

    Raises:
        CheckpointError: The disk is full or not writable; older checkpoints are untouched.
    """
    path = checkpoint_path(run, nimg)
    _save(path, state)
    for old in list_checkpoints(run)[keep:]:
        _delete(old)
    return path


def save_best(run: Path, nimg: int, state: dict[str, Any]) -> Path:
    """Save the best snapshot by validation, replacing the previous one.

    Raises:
        CheckpointError: The disk is full or not writable; the previous one is untouched.
    """
    path = run / f"best-{nimg:012d}.pt"
    _save(path, state)
    for old in run.glob("best-*.pt"):
        if old != path:
            _delete(old)
    return path


def load_best(run: Path) -> dict[str, Any]:
    """Load the best snapshot by validation.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    found = sorted(run.glob("best-*.pt"), reverse=True)
    if not found:
        raise CheckpointError(f"{run} has no best snapshot: use its last checkpoint")
    return load_checkpoint(found[0])


def _delete(path: Path) -> None:
    path.unlink()
    _digest_file(path).unlink(missing_ok=True)


def _digest_file(path: Path) -> Path:
    return Path(f"{path}.sha256")


def _save(path: Path, state: dict[str, Any]) -> None:
    """Write temporary files, sync, and rename them."""
    temporary = path.with_suffix(".partial")
    digest_file = _digest_file(path)
    temporary_digest = Path(f"{digest_file}.partial")
    try:
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        digests = [_sha256(temporary), *(_digests(path) if path.exists() else ())]
        temporary_digest.write_text("\n".join(digests) + "\n", encoding="ascii")
        temporary_digest.replace(digest_file)
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        for file_to_remove in (temporary, temporary_digest):
            file_to_remove.unlink(missing_ok=True)
        if not path.exists():
            digest_file.unlink(missing_ok=True)
        raise CheckpointError(
            f"can't write {path}: {error}. Free disk space, then continue with --resume"
        ) from error


def list_checkpoints(run: Path) -> list[Path]:
    """List the checkpoints of a run, newest first."""
    return sorted((p for p in run.glob("checkpoint-*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def load_newest(run: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load the newest intact checkpoint; damaged ones are named in the log.

    Raises:
        CheckpointError: There is none.
    """
    found = list_checkpoints(run)
    for path in found:
        try:
            return load_checkpoint(path, device)
        except CheckpointError as error:
            logger.warning("%s; using the previous one", error)
    what = "none of its checkpoints is intact" if found else "it has no checkpoint"
    way_out = "; its best moment is there: --snapshot best" if any(run.glob("best-*.pt")) else ""
    raise CheckpointError(f"can't load {run}: {what}{way_out}")


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Check a checkpoint's hash and load it.

    Raises:
        CheckpointError: It is damaged, or its hash is missing.
    """
    try:
        if _sha256(path) not in _digests(path):
            raise CheckpointError(f"{path} is damaged (SHA-256 differs)")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # torch does not document what a damaged archive raises
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return state


def _digests(path: Path) -> list[str]:
    """Hashes that a checkpoint may have."""
    return _digest_file(path).read_text(encoding="ascii").split()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

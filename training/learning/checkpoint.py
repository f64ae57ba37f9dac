"""Checkpoints: everything that a resumed run needs, written whole or not at all.

Beside `checkpoint-<nimg>.pt` lies `checkpoint-<nimg>.pt.sha256`. Loading checks the hash
and then reads with weights_only, so that no pickled code runs. Where a checkpoint takes
another's place, as after a rollback, the hashes of both are there: whichever file it is, it
is known. `best-<nimg>.pt` is kept likewise: what can be sampled, of the moment that did best
on the validation photos.
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
    """No usable checkpoint, or one that can't be written; the message says what to do."""


def checkpoint_path(run: Path, nimg: int) -> Path:
    """Where the checkpoint at image count `nimg` lies."""
    return run / f"checkpoint-{nimg:012d}.pt"


def save_checkpoint(run: Path, nimg: int, state: dict[str, Any], keep: int) -> Path:
    """Save a checkpoint; then delete all but the newest `keep`.

    Raises:
        CheckpointError: The disk is full or not writable; older checkpoints are untouched.
    """
    path = checkpoint_path(run, nimg)
    _save(path, state)
    for old in list_checkpoints(run)[keep:]:
        _delete(old)
    return path


def save_best(run: Path, nimg: int, state: dict[str, Any]) -> Path:
    """Save the best snapshot by validation in place of the one before.

    Raises:
        CheckpointError: The disk is full or not writable; the one before is untouched.
    """
    path = run / f"best-{nimg:012d}.pt"
    _save(path, state)
    for old in run.glob("best-*.pt"):
        if old != path:
            _delete(old)
    return path


def load_best(run: Path) -> dict[str, Any]:
    """The best snapshot by validation.

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
    """Write aside, sync, rename."""
    aside = path.with_suffix(".partial")
    digest_file = _digest_file(path)
    digest_aside = Path(f"{digest_file}.partial")
    try:
        with aside.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        digests = [_sha256(aside), *(_digests(path) if path.exists() else ())]
        digest_aside.write_text("\n".join(digests) + "\n", encoding="ascii")
        digest_aside.replace(digest_file)
        aside.replace(path)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
        for left in (aside, digest_aside):
            left.unlink(missing_ok=True)
        if not path.exists():
            digest_file.unlink(missing_ok=True)
        raise CheckpointError(
            f"can't write {path}: {error}. Make room, then go on with --resume"
        ) from error


def list_checkpoints(run: Path) -> list[Path]:
    """Checkpoints of a run, newest first."""
    return sorted((p for p in run.glob("checkpoint-*.pt") if _NAME.fullmatch(p.name)), reverse=True)


def load_newest(run: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """The newest checkpoint that is whole; each damaged one is named in the log.

    Raises:
        CheckpointError: There is none.
    """
    found = list_checkpoints(run)
    for path in found:
        try:
            return load_checkpoint(path, device)
        except CheckpointError as error:
            logger.warning("%s; using the one before it", error)
    what = "none of its checkpoints is whole" if found else "it has no checkpoint"
    way_out = "; its best moment is there: --snapshot best" if any(run.glob("best-*.pt")) else ""
    raise CheckpointError(f"can't load {run}: {what}{way_out}")


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """One checkpoint, hash checked.

    Raises:
        CheckpointError: It is damaged, or its hash is missing.
    """
    try:
        if _sha256(path) not in _digests(path):
            raise CheckpointError(f"{path} is damaged (SHA-256 differs)")
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # what a damaged archive raises is not documented
        raise CheckpointError(f"{path} can't be read: {error}") from error
    return state


def _digests(path: Path) -> list[str]:
    """What a checkpoint's hash may be."""
    return _digest_file(path).read_text(encoding="ascii").split()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

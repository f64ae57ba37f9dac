"""Checkpoints are complete or absent."""

import logging
from pathlib import Path

import pytest
import torch

from training.learning.checkpoint import (
    CheckpointError,
    list_checkpoints,
    load_checkpoint,
    load_newest,
    save_best,
    save_checkpoint,
)


def save(run: Path, nimg: int, keep: int = 3) -> Path:
    return save_checkpoint(run, nimg, {"nimg": nimg, "w": torch.arange(4.0)}, keep)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    path = save(tmp_path, 1000)
    state = load_checkpoint(path)
    assert state["nimg"] == 1000
    assert torch.equal(state["w"], torch.arange(4.0))
    assert not list(tmp_path.glob("*.partial"))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for nimg in (1, 2, 3, 10, 20):
        save(tmp_path, nimg, keep=2)
    assert [int(p.stem.split("-")[1]) for p in list_checkpoints(tmp_path)] == [20, 10]
    assert len(list(tmp_path.glob("*.sha256"))) == 2


@pytest.mark.parametrize("damage", ["flip", "truncate", "no digest", "empty"])
def test_a_damaged_newest_is_named_and_the_one_before_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
        newest.write_bytes(data)
    elif damage == "truncate":
        newest.write_bytes(data[:100])
    elif damage == "empty":
        newest.write_bytes(b"")
    else:
        Path(f"{newest}.sha256").unlink()
    with caplog.at_level(logging.WARNING):
        assert load_newest(tmp_path)["nimg"] == 1
    assert newest.name in caplog.text


def test_a_checkpoint_that_could_not_be_replaced_stays_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollback saves again at the same image count; a full disk or a kill may interrupt it."""
    path = save(tmp_path, 1)

    def fails(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError("no space left")
        return rename(self, target)

    rename = Path.replace
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fails)
        for _ in range(2):
            with pytest.raises(CheckpointError, match="Free disk space"):
                save_checkpoint(tmp_path, 1, {"nimg": 1, "w": torch.zeros(4)}, 3)
            assert torch.equal(load_checkpoint(path)["w"], torch.arange(4.0))
    save_checkpoint(tmp_path, 1, {"nimg": 1, "w": torch.zeros(4)}, 3)
    assert torch.equal(load_checkpoint(path)["w"], torch.zeros(4))
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_none_left_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_newest(tmp_path)
    save(tmp_path, 1).write_bytes(b"junk")
    with pytest.raises(CheckpointError, match="none of its checkpoints is intact"):
        load_newest(tmp_path)


def test_a_run_of_which_only_its_best_moment_is_there_says_how_to_use_it(tmp_path: Path) -> None:
    save_best(tmp_path, 8, {"nimg": 8})
    with pytest.raises(CheckpointError, match=r"no checkpoint; .* --snapshot best"):
        load_newest(tmp_path)


class Trap:
    """What a hostile checkpoint would run on loading."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("trap-was-run"),)


def test_pickled_code_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save_checkpoint(tmp_path, 1, {"nimg": 1, "trap": Trap()}, 2)
    with pytest.raises(CheckpointError, match="can't be read"):
        load_checkpoint(path)
    assert not Path("trap-was-run").exists()


def test_a_full_disk_is_said_and_older_checkpoints_stay(tmp_path: Path, full_disk: Path) -> None:
    old = save(full_disk, 1)
    with pytest.raises(CheckpointError, match="Free disk space"):
        save_checkpoint(full_disk, 2, {"w": torch.zeros(3_000_000)}, 2)
    assert list_checkpoints(full_disk) == [old]
    assert not list(full_disk.glob("*.partial"))
    assert load_newest(full_disk)["nimg"] == 1

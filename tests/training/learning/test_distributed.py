"""Several processes: they agree with each other, and with one process of the same batch."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from training.learning.checkpoint import list_checkpoints, load_newest
from training.learning.config import resolve

from ...processes import started, wait_for

STEPS, BATCH = 7, 32
BIN = Path(sys.executable).parent
CATALOGAN = BIN / "catalogan"
TORCHRUN = [str(BIN / "torchrun"), "--standalone", "--nproc-per-node=2"]


def settings(tiny: dict[str, Any]) -> dict[str, Any]:
    """Masks, adaptive augmentation and R1 in the steps that are compared, no checkpoint."""
    return {
        **tiny,
        "batch_size": BATCH,
        "max_kimg": STEPS * BATCH / 1000,
        "tick_kimg": 5 * BATCH / 1000,
        "augment": {"adjust_kimg": 2.0, "p": 0.5},
        "masking": {**tiny["masking"], "interval_kimg": BATCH / 1000, "period_kimg": 1.0},
    }


@pytest.fixture(
    scope="module",
    params=["convolutional", pytest.param("both", marks=pytest.mark.slow)],
)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_dataset: Path,
    tiny_settings: dict[str, Any],
) -> tuple[Path, Path]:
    """Folders with the states of one process, and of two, for each kind of discriminator."""
    alone, pair = tmp_path_factory.mktemp("alone"), tmp_path_factory.mktemp("pair")
    wanted = {**settings(tiny_settings), "discriminator": request.param}
    config = resolve(wanted).model_dump_json()
    for run, command in ((alone, [sys.executable]), (pair, TORCHRUN)):
        (run / "config.json").write_text(config)
        arguments = [str(run), str(tiny_dataset), str(run / "config.json")]
        command = [*command, str(Path(__file__).with_name("save_state.py")), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
    return alone, pair


def load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


def test_ranks_agree_bit_by_bit(runs: tuple[Path, Path]) -> None:
    first, second = (load(runs[1] / f"end-{rank}.pt") for rank in (0, 1))
    for part in ("generator", "discriminator", "ema"):
        names = first[part].keys() - {"mapping.w_avg"}  # only the main process draws grids
        assert all(torch.equal(first[part][n], second[part][n]) for n in names)
    for a, b in zip(first["averages"]["weights"], second["averages"]["weights"], strict=True):
        assert torch.equal(a["synthesis.constant"], b["synthesis.constant"])
    assert first["augment"] == second["augment"]
    assert first["mask"]["since"] is not None  # else the test would say nothing of masks
    assert first["mask"]["since"] == second["mask"]["since"]
    assert first["mask"]["lag"]["first"] == second["mask"]["lag"]["first"]
    assert torch.equal(*(state["mask"]["lag"]["kept"] for state in (first, second)))
    assert first["meter"]["steps"] == STEPS % 5  # so that there are sums to compare
    assert torch.equal(first["meter"]["sums"], second["meter"]["sums"])


def test_two_of_sixteen_are_one_of_thirty_two(runs: tuple[Path, Path]) -> None:
    """In float64, sums of another order differ by next to nothing: see save_state.py."""
    start = load(runs[0] / "start-0.pt")
    alone, pair = (load(run / "end-0.pt") for run in runs)
    assert alone["nimg"] == pair["nimg"] == STEPS * BATCH
    for part in ("generator", "discriminator"):
        names = [n for n in start[part] if n != "mapping.w_avg"]
        moved = torch.cat([(alone[part][n] - start[part][n]).flatten() for n in names])
        difference = torch.cat([(alone[part][n] - pair[part][n]).flatten() for n in names])
        assert moved.norm() > 0.1
        assert difference.norm() < 1e-9 * moved.norm()
    assert alone["mask"]["since"] == pair["mask"]["since"]
    assert alone["augment"]["strength"] == pytest.approx(pair["augment"]["strength"])
    assert alone["augment"]["strength"] not in (0.0, 0.5, 1.0)  # it moved, and to no bound
    assert alone["mask"]["lag"]["first"] == pytest.approx(pair["mask"]["lag"]["first"], rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_ends_the_run_and_another_number_of_ranks_resumes(
    tmp_path: Path, tiny_dataset: Path, victim: int
) -> None:
    run = tmp_path / "run"
    small = ["model.channel_base=128", "model.channel_max=16", "checkpoint_kimg=0.16"]
    options = [
        "--batch-size",
        "16",
        "--device",
        "cpu",
        *(f"--set={s}" for s in small),
    ]
    command = [*TORCHRUN, str(CATALOGAN), "train", str(tiny_dataset)]
    command += ["--out", str(run), "--max-kimg", "1000", *options]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        wait_for(lambda: run.exists() and len(list_checkpoints(run)) >= 2, process)
        os.kill(rank_pid(process.pid, victim), signal.SIGKILL)
        output, _ = process.communicate()
    assert process.returncode != 0
    assert "SIGKILL" in output  # torchrun names the rank and what ended it
    nimg = load_newest(run)["nimg"]
    assert nimg > 0
    resume = [str(CATALOGAN), "train", str(tiny_dataset), "--out", str(run), "--resume"]
    resume += ["--max-kimg", str(nimg / 1000 + 0.1), "--device", "cpu"]
    done = subprocess.run(resume, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert load_newest(run)["nimg"] >= nimg + 100


def rank_pid(parent: int, rank: int) -> int:
    """The process that torchrun started for `rank`."""
    listed = subprocess.run(
        ["pgrep", "-P", str(parent)], capture_output=True, text=True, check=True
    ).stdout.split()
    for pid in listed:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in environment:
            return int(pid)
    raise AssertionError(f"no process of rank {rank} among {listed}")

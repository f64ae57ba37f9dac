"""Is there a lag to answer? Signals of it along runs without masks.

    python bench/lag.py --data DATASET --work DIR [--seeds 0 1 2] [--kimg 60]

Trains runs that keep both networks at every kimg, then discriminators alone along the same saved
generators, from BRANCH_KIMG on, at the configured learning rate and at a quarter of it; all go on
where they were stopped. For each moment, with fresh latents, signals compare what the generator of
that moment makes with what it made LAG_KIMG before, as the discriminator of that moment sees it.
bench/lag.json says what docs/masking.md shows: each signal's lag-1 autocorrelation, without its
trend and unsmoothed, and how much it rises with a quarter of the learning rate.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean
from typing import Any, Final

import numpy as np
import torch
from measuring import commit
from numpy.typing import NDArray
from torch import Tensor

from training.dataset import PreparedDataset
from training.learning import trainer as trainer_module
from training.learning.checkpoint import list_checkpoints
from training.learning.config import merge, resolve
from training.learning.device import keep_freed_memory
from training.learning.distributed import Ranks
from training.learning.loader import to_float
from training.learning.presets import PRESETS
from training.learning.recorder import Tick
from training.learning.run import write_run
from training.learning.trainer import Trainer

OUT = Path(__file__).with_suffix(".json")
PROBES: Final = 64
LAG_KIMG: Final = (1, 2, 4, 8)
BRANCH_KIMG: Final = 10
RATES: Final = {"same": 1.0, "quarter": 0.25}
Signals = dict[str, float]


def make_trainer(run: Path, data: PreparedDataset, seed: int, kimg: float) -> Trainer:
    """A run without masks, where it was stopped."""
    settings = {
        **{"seed": seed, "max_kimg": kimg, "checkpoint_kimg": 5.0, "grid_kimg": 1e6},
        "masking": {"mode": "off"},
    }
    config = resolve(merge(PRESETS["cpu-demo"], settings))
    (run / "states").mkdir(parents=True, exist_ok=True)
    trainer = Trainer(run, data, config, torch.device("cpu"), Ranks())
    if list_checkpoints(run):
        trainer.resume()
    else:
        write_run(run, config, data)
    return trainer


def state_path(run: Path, kimg: int) -> Path:
    return run / "states" / f"{kimg:04d}.pt"


def train_without_masks(run: Path, data: PreparedDataset, seed: int, kimg: int) -> None:
    """Keep both networks, and the discriminator's optimizer where branches begin."""
    trainer = make_trainer(run, data, seed, kimg)

    def keep(tick: Tick) -> None:
        torch.save(
            {
                "generator": trainer.generator.state_dict(),
                "discriminator": trainer.discriminator.state_dict(),
                "optimizer": trainer.pair.discriminator_optimizer.state_dict(),
                "p": trainer.augmentation.p,
            },
            state_path(run, round(tick.nimg / 1000)),
        )

    trainer.train(keep, lambda: False)


def train_along(run: Path, branch: Path, data: PreparedDataset, kimg: int, rate: float) -> None:
    """Teach the run's discriminator alone, at `rate` of its learning rate.

    The generator's weights go in a straight line from each saved moment to the next.
    """
    (branch / "states").mkdir(parents=True, exist_ok=True)
    done = [k for k in range(BRANCH_KIMG, kimg) if state_path(branch, k).exists()]
    start = max(done, default=BRANCH_KIMG)
    trainer = make_trainer(branch, data, 0, kimg)
    pair, batch_size = trainer.pair, trainer.config.batch_size
    pair.set_learning_rate(rate)
    saved = torch.load(state_path(branch if done else run, start))
    trainer.discriminator.load_state_dict(saved["discriminator"])
    rates = [group["lr"] for group in pair.discriminator_optimizer.param_groups]
    pair.discriminator_optimizer.load_state_dict(saved["optimizer"])
    for group, lr in zip(pair.discriminator_optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
    pair._deceive = lambda _: torch.zeros(())  # type: ignore[method-assign]
    pair.generator_optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
    nimg = start * 1000
    for batch in trainer.loader.batches(nimg // batch_size * batch_size, trainer.ranks):
        kimg_now = int(nimg // 1000)
        if nimg % 1000 < batch_size:
            before, after = (torch.load(state_path(run, k)) for k in (kimg_now, kimg_now + 1))
            if kimg_now > start:
                found = {
                    "generator": before["generator"],
                    "discriminator": trainer.discriminator.state_dict(),
                    "optimizer": pair.discriminator_optimizer.state_dict(),
                    "p": before["p"],
                }
                torch.save(found, state_path(branch, kimg_now))
            if kimg_now + 1 >= kimg:
                return
        between = {
            name: torch.lerp(w, after["generator"][name], nimg % 1000 / 1000)
            for name, w in before["generator"].items()
        }
        trainer.generator.load_state_dict(between)
        pair.step(batch, nimg, before["p"], trainer.ranks)
        nimg += batch_size


@torch.inference_mode()
def measure(run: Path, generators: Path, data: PreparedDataset, kimg: int) -> list[Signals]:
    """Signals at each saved moment of a run's discriminator."""
    trainer = make_trainer(run, data, 0, kimg)
    generator, discriminator = trainer.generator, trainer.discriminator.eval()
    rows, found = data.indices("train"), []
    for now in range(max(LAG_KIMG), kimg):
        if not state_path(run, now).exists():
            continue
        random = torch.Generator().manual_seed(1_000_000 + now)
        z = torch.randn(PROBES, generator.z_dim, generator=random)
        noise = torch.randn(PROBES, generator.noise_dim, generator=random)
        shown = rows[torch.randint(len(rows), (PROBES,), generator=random).numpy()]
        labels = torch.from_numpy(data.labels[shown].astype(np.int64))
        category = torch.eye(len(data.info.categories))[labels]
        discriminator.load_state_dict(torch.load(state_path(run, now))["discriminator"])

        def logits(images: Tensor, category: Tensor = category) -> dict[str, Tensor]:
            parts = {"own": discriminator.convolutional, "heads": discriminator.projected}
            return {name: part(images, category) for name, part in parts.items()}

        def images(
            at: int, z: Tensor = z, category: Tensor = category, noise: Tensor = noise
        ) -> Any:
            generator.load_state_dict(torch.load(state_path(generators, at))["generator"])
            return generator(z, category, None, noise)

        real, present = logits(to_float(torch.from_numpy(data.images[shown]))), logits(images(now))
        signals: Signals = {"kimg": now}
        for lag in LAG_KIMG:
            past = logits(images(now - lag))
            for name in ("own", "heads"):
                signals |= {
                    f"{signal} {name} {lag}": value
                    for signal, value in compared(real[name], past[name], present[name]).items()
                }
        found.append(signals)
    return found


def compared(real: Tensor, past: Tensor, present: Tensor) -> Signals:
    """How much worse the discriminator does on present images than on past ones, in six units."""
    gap, separation = present.mean() - past.mean(), real.mean() - past.mean()
    wins = [(real[:, None] > fakes[None]).float().mean() for fakes in (past, present)]
    return {
        "gap": float(gap),
        "deviations": float(gap / past.std()),
        "ranks": float((present[:, None] > past[None]).float().mean()),
        "share of separation": float(gap / separation.clamp(min=0.1)),
        "accuracy": float((past < 0).float().mean() - (present < 0).float().mean()),
        "pairs": float(wins[0] - wins[1]),
    }


def autocorrelation(values: NDArray[np.float64]) -> float:
    """Of neighbours, without a straight trend."""
    steps = np.arange(len(values))
    rest = values - np.polyval(np.polyfit(steps, values, 1), steps)
    return float((rest[1:] * rest[:-1]).sum() / (rest**2).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kimg", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    trainer_module.ValidationMonitor.is_possible = staticmethod(lambda _: False)  # type: ignore[method-assign]
    data = PreparedDataset(options.data)
    curves: dict[str, list[Signals]] = {}
    for seed in options.seeds:
        run = options.work / f"off-{seed}"
        if not state_path(run, options.kimg).exists():
            train_without_masks(run, data, seed, options.kimg)
        curves[f"off {seed}"] = measure(run, run, data, options.kimg)
        print(f"{time.strftime('%H:%M')} off {seed}", flush=True)
        for name, rate in RATES.items():
            branch = options.work / f"{name}-{seed}"
            train_along(run, branch, data, options.kimg, rate)
            curves[f"{name} {seed}"] = measure(branch, run, data, options.kimg)
            print(f"{time.strftime('%H:%M')} {name} {seed}", flush=True)
    table = {}
    for signal in sorted(curves[f"off {options.seeds[0]}"][0].keys() - {"kimg"}):
        values = {
            name: np.array([moment[signal] for moment in moments])
            for name, moments in curves.items()
        }
        table[signal] = {
            "autocorrelation": [autocorrelation(values[f"off {s}"]) for s in options.seeds],
            "same": [mean(values[f"same {s}"]) for s in options.seeds],
            "quarter": [mean(values[f"quarter {s}"]) for s in options.seeds],
        }
    OUT.write_text(json.dumps({"commit": commit(), "signals": table, "curves": curves}) + "\n")
    for signal, row in table.items():
        print(signal, {key: [round(value, 3) for value in values] for key, values in row.items()})


if __name__ == "__main__":
    main()

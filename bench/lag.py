"""Is there a lag to answer? Signals of it along runs without masks.

    python bench/lag.py --data DATASET --work DIR [--seeds 0 1 2] [--kimg 60] [--device cuda]

Trains runs that keep both networks at every kimg, then discriminators alone along the same saved
generators, from BRANCH_KIMG on, at the configured learning rate and at a quarter of it; all go on
where they were stopped. For each moment, with fresh latents, signals compare what the generator of
that moment makes with what it made LAG_KIMG before, as the discriminator of that moment sees it.
bench/lag.json says what docs/masking.md shows: each signal's lag-1 autocorrelation, without its
trend and unsmoothed, between measurements that share no moment, and how much it rises with a
quarter of the learning rate.
"""

import argparse
import json
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any, Final

import matplotlib.pyplot as plt
import numpy as np
import torch
from measuring import commit, cores
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
PROBES: Final = 256
LAG_KIMG: Final = (1, 2, 4, 8)
BRANCH_KIMG: Final = 10
RATES: Final = {"same": 1.0, "quarter": 0.25}
# What `dynamic` measures, at two distances, and what wavers the most slowly.
CURVES: Final = (
    "deviations own 1 kimg",
    "deviations own 4 kimg",
    "separation since heads 8 kimg",
)
Signals = dict[str, float]


@dataclass(frozen=True)
class Call:
    """The options of the command line."""

    data: Path
    work: Path
    kimg: int
    device: str

    def prepare(self) -> PreparedDataset:
        """Of a process: its settings, and the photos."""
        torch.set_num_threads(1)
        keep_freed_memory()
        # Nothing is judged here; the validation would take longer than the training.
        trainer_module.ValidationMonitor.is_possible = staticmethod(lambda _: False)  # type: ignore[method-assign]
        return PreparedDataset(self.data)

    def trainer(self, run: Path, data: PreparedDataset, seed: int) -> Trainer:
        """Make a run without masks, where it was stopped."""
        settings = {
            **{"seed": seed, "max_kimg": self.kimg, "checkpoint_kimg": 5.0, "grid_kimg": 1e6},
            "masking": {"mode": "off"},
        }
        config = resolve(merge(PRESETS["cpu-demo"], settings))
        (run / "states").mkdir(parents=True, exist_ok=True)
        trainer = Trainer(run, data, config, torch.device(self.device), Ranks())
        if list_checkpoints(run):
            trainer.resume()
        else:
            write_run(run, config, data)
        return trainer

    def load(self, run: Path, kimg: int) -> Any:
        """Load what was kept at a moment."""
        return torch.load(state_path(run, kimg), map_location=self.device)


def state_path(run: Path, kimg: int) -> Path:
    return run / "states" / f"{kimg:04d}.pt"


def train_without_masks(call: Call, seed: int) -> None:
    """Keep both networks, and the discriminator's optimizer where branches begin."""
    run = call.work / f"off-{seed}"
    if state_path(run, call.kimg).exists():
        return
    trainer = call.trainer(run, call.prepare(), seed)

    def keep(tick: Tick) -> None:
        kimg = round(tick.nimg / 1000)
        found = {
            "generator": trainer.generator.state_dict(),
            "discriminator": trainer.discriminator.state_dict(),
            "p": trainer.augmentation.p,
        }
        if kimg == BRANCH_KIMG:
            found["optimizer"] = trainer.pair.discriminator_optimizer.state_dict()
        torch.save(found, state_path(run, kimg))

    trainer.train(keep, lambda: False)
    print(f"{time.strftime('%H:%M:%S')} off {seed}", flush=True)


def train_along(call: Call, seed: int, name: str) -> None:
    """Teach a run's discriminator alone, at another learning rate.

    The generator's weights go in a straight line from each saved moment to the next.
    """
    run, branch = call.work / f"off-{seed}", call.work / f"{name}-{seed}"
    if state_path(branch, call.kimg - 1).exists():
        return
    trainer = call.trainer(branch, call.prepare(), 0)
    pair, batch_size = trainer.pair, trainer.config.batch_size
    pair.set_learning_rate(RATES[name])
    saved = call.load(run, BRANCH_KIMG)
    trainer.discriminator.load_state_dict(saved["discriminator"])
    rates = [group["lr"] for group in pair.discriminator_optimizer.param_groups]
    pair.discriminator_optimizer.load_state_dict(saved["optimizer"])
    for group, lr in zip(pair.discriminator_optimizer.param_groups, rates, strict=True):
        group["lr"] = lr
    # The pair's own step, so that nothing else differs from training, but the discriminator's half
    # alone has an effect.
    nothing = torch.zeros((), device=call.device)  # a graph records its copy
    pair._deceive = lambda _: nothing.clone()  # type: ignore[method-assign]
    pair.generator_optimizer.step = lambda: None  # type: ignore[method-assign, assignment]
    present = list(trainer.generator.state_dict().values())
    nimg = BRANCH_KIMG * 1000
    for batch in trainer.loader.batches(nimg // batch_size * batch_size, trainer.ranks):
        if nimg % 1000 < batch_size:
            kimg = nimg // 1000
            before, after = (call.load(run, k) for k in (kimg, kimg + 1))
            if kimg > BRANCH_KIMG:
                found = {"discriminator": trainer.discriminator.state_dict()}
                torch.save(found, state_path(branch, kimg))
            if kimg + 1 >= call.kimg:
                print(f"{time.strftime('%H:%M:%S')} {name} {seed}", flush=True)
                return
            ends = [list(moment["generator"].values()) for moment in (before, after)]
        for weights, start, end in zip(present, *ends, strict=True):
            weights.copy_(torch.lerp(start, end, nimg % 1000 / 1000))
        pair.step(batch, nimg, before["p"], trainer.ranks)
        nimg += batch_size


@torch.inference_mode()
def measure(call: Call, seed: int, name: str) -> list[Signals]:
    """Signals at each saved moment of a discriminator along a run's generators."""
    data, run, own = call.prepare(), call.work / f"off-{seed}", call.work / f"{name}-{seed}"
    trainer = call.trainer(run, data, seed)
    generator, discriminator = trainer.generator, trainer.discriminator.eval()
    rows, found = data.indices("train"), []
    first = max(LAG_KIMG) + 1 + (0 if name == "off" else BRANCH_KIMG)
    for now in range(first, call.kimg):
        random = torch.Generator().manual_seed(1_000_000 + now)
        z = torch.randn(PROBES, generator.z_dim, generator=random).to(call.device)
        noise = torch.randn(PROBES, generator.noise_dim, generator=random).to(call.device)
        shown = rows[torch.randint(len(rows), (PROBES,), generator=random).numpy()]
        labels = torch.from_numpy(data.labels[shown].astype(np.int64))
        category = torch.eye(len(data.info.categories))[labels].to(call.device)
        photos = to_float(torch.from_numpy(data.images[shown])).to(call.device)
        images = {}
        for lag in (0, *LAG_KIMG):
            generator.load_state_dict(call.load(run, now - lag)["generator"])
            images[lag] = generator(z, category, None, noise)

        def logits(shown: Tensor, category: Tensor = category) -> dict[str, Tensor]:
            parts = {"own": discriminator.convolutional, "heads": discriminator.projected}
            chunks = list(zip(shown.split(64), category.split(64), strict=True))
            return {name: torch.cat([p(*c) for c in chunks]) for name, p in parts.items()}

        discriminator.load_state_dict(call.load(own, now)["discriminator"])
        real, seen = logits(photos), {lag: logits(made) for lag, made in images.items()}
        signals: Signals = {"kimg": now}
        for lag in LAG_KIMG:
            discriminator.load_state_dict(call.load(own, now - lag)["discriminator"])
            then_real, then = logits(photos), logits(images[lag])
            for part in ("own", "heads"):
                five = (real, seen[lag], seen[0], then_real, then)
                values = compared(*(logits[part] for logits in five))
                signals |= {f"{signal} {part} {lag} kimg": v for signal, v in values.items()}
        found.append(signals)
    print(f"{time.strftime('%H:%M:%S')} measured {name} {seed}", flush=True)
    return found


def compared(
    real: Tensor, past: Tensor, present: Tensor, then_real: Tensor, then_past: Tensor
) -> Signals:
    """How much worse the discriminator does on present images than on past ones, in many units.

    Logits [N] of the present discriminator; `then` of the past one.
    """
    gap, separation = present.mean() - past.mean(), real.mean() - past.mean()
    wins = [(real[:, None] > fakes[None]).float().mean() for fakes in (past, present)]
    before = (then_real[:, None] > then_past[None]).float().mean()
    return {
        "gap": float(gap),
        "deviations": float(gap / past.std()),
        "ranks": float((present[:, None] > past[None]).float().mean()),
        "share of separation": float(gap / separation.clamp(min=0.1)),
        "accuracy": float((past < 0).float().mean() - (present < 0).float().mean()),
        "pairs": float(wins[0] - wins[1]),
        # Not only of the present discriminator: how well each did on its own generator.
        "pairs since": float(before - wins[1]),
        "separation since": float(then_real.mean() - then_past.mean() - real.mean())
        + float(present.mean()),
        "loss now": float(torch.nn.functional.softplus(present).mean()),
    }


def autocorrelation(values: NDArray[np.float64], step: int) -> float:
    """Of neighbours `step` apart, each phase by itself without its straight trend."""
    products, squares = 0.0, 0.0
    for phase in range(step):
        part = values[phase::step]
        steps = np.arange(len(part))
        rest = part - np.polyval(np.polyfit(steps, part, 1), steps)
        products, squares = products + (rest[1:] * rest[:-1]).sum(), squares + (rest**2).sum()
    return float(products / squares)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kimg", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processes", type=int, default=cores())
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    call = Call(options.data, options.work, options.kimg, options.device)
    seeds, arms = options.seeds, ("off", *RATES)
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        list(pool.map(train_without_masks, [call] * len(seeds), seeds))
        branches = [(seed, name) for seed in seeds for name in RATES]
        list(pool.map(train_along, [call] * len(branches), *zip(*branches, strict=True)))
        runs = [(seed, name) for seed in seeds for name in arms]
        measured = pool.map(measure, [call] * len(runs), *zip(*runs, strict=True))
        curves = {f"{name} {s}": found for (s, name), found in zip(runs, measured, strict=True)}
    write(options.out, curves, seeds)


def write(out: Path, curves: dict[str, list[Signals]], seeds: list[int]) -> None:
    """Write each signal's figures, and the curves of those in CURVES with a plot of them."""
    table = {}
    for signal in sorted(curves[f"off {seeds[0]}"][0].keys() - {"kimg"}):
        values = {name: np.array([m[signal] for m in moments]) for name, moments in curves.items()}
        lag = int(signal.removesuffix(" kimg").split()[-1])
        off = [values[f"off {seed}"] for seed in seeds]
        table[signal] = {
            "autocorrelation": rounded(autocorrelation(v, lag) for v in off),
            "autocorrelation_1_kimg": rounded(autocorrelation(v, 1) for v in off),
            **{rate: rounded(mean(values[f"{rate} {s}"]) for s in seeds) for rate in RATES},
        }
        print(signal, table[signal])
    kept = {
        signal: {name: rounded(m[signal] for m in moments) for name, moments in curves.items()}
        for signal in ("kimg", *CURVES)
    }
    out.write_text(json.dumps({"commit": commit(), "signals": table, "curves": kept}) + "\n")
    draw(kept, seeds, out.parent.parent / "docs/masking/lag.svg")


def rounded(values: Iterable[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def draw(curves: dict[str, dict[str, list[float]]], seeds: list[int], out: Path) -> None:
    """Draw each signal over thousand images: off runs above, both branches below."""
    figure, axes = plt.subplots(
        2, len(CURVES), figsize=(11, 5.5), sharex=True, layout="constrained"
    )
    styles = {"off": "-", "same": "-", "quarter": "--"}
    for column, signal in zip(axes.T, CURVES, strict=True):
        column[0].set_title(signal)
        for name, values in curves[signal].items():
            arm, seed = name.split()
            axis = column[0 if arm == "off" else 1]
            colour = f"C{seeds.index(int(seed))}"
            axis.plot(curves["kimg"][name], values, styles[arm], color=colour, linewidth=1.2)
        column[1].set_xlabel("thousand images")
    axes[0][0].set_ylabel("runs without masks")
    axes[1][0].set_ylabel("along their generators:\nsame rate, a quarter (dashed)")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    main()

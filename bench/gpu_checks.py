"""What `make gpu` checks: a step and a resumed run on the GPU give what they should."""

import argparse
import itertools
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_bundle import MemoryDataset, read_photos
from gpu_weights import read_pieces
from torch import Tensor
from torch.overrides import TorchFunctionMode
from training_speed import new_trainer

from training.dataset import PreparedDataset
from training.export.export import ExportOptions, export_run
from training.learning.adversarial import AdversarialPair
from training.learning.config import TrainingConfig, merge, resolve
from training.learning.cuda_graphs import StepGraphs
from training.learning.device import memory_mb, pick_device
from training.learning.distributed import Ranks
from training.learning.loader import Batch, to_float
from training.learning.mask_control import MaskController
from training.learning.presets import PRESETS, default_preset
from training.learning.run import build_networks
from training.learning.trainer import Trainer

AUGMENT_P = 0.3  # of the augmentation; at any other above 0 a step takes as long
SCHEDULED = {"mode": "scheduled", "schedule_kimg": [0], "period_kimg": 1e6}
MASKED = {"masking": SCHEDULED, "augment": {"mode": "fixed", "p": AUGMENT_P}}
LIMITS = {  # of losses and gradients, and of weights, which Adam moves by signs
    (torch.float64, torch.float64): (1e-4, 1e-3),
    (torch.float32, torch.float32): (1e-2, 1e-1),
    (torch.float32, torch.bfloat16): (0.3, 0.5),
}
SECONDS_TO_SAVE = 20


class Call:
    """One call of `make gpu`: what was requested, and what it found out."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        """Look for the device, and for what will be trained on.

        Raises:
            ValueError: One of them is missing.
        """
        self.options, self.work = options, work
        self.device: torch.device = pick_device(options.device)
        self.on_cpu = self.device.type == "cpu"
        self.photos = read_photos(options.bundle) if options.train else None
        self.weights = read_pieces(options.weights) if options.weights else None
        self.deadline = time.monotonic() + options.minutes * 60 - SECONDS_TO_SAVE
        self.figures: dict[str, Any] = {}
        self.failures: list[str] = []

    def add(self, prefix: str, limit: float = float("inf"), **figures: float) -> None:
        """Keep and print figures; over the limit, or not a number, they are failures."""
        for name, value in figures.items():
            self.figures[f"{prefix}_{name}"] = value
            print(f"{f'{prefix}_{name}':48} {value:.5g}", flush=True)
            if not value <= limit:
                self.failures.append(f"{prefix}_{name} is {value:.3g}, over {limit:.3g}")

    def config(self, size_px: int, *settings: Any, on_cpu: bool | None = None) -> TrainingConfig:
        """The preset for a size on this device, `settings` over it, and --set over all."""
        preset = default_preset(size_px, self.on_cpu if on_cpu is None else on_cpu)
        resolved: dict[str, Any] = {"max_kimg": 1000.0, "preset": preset, **PRESETS[preset]}
        for over in (*settings, *self.options.set):
            resolved = merge(resolved, over)
        return resolve(resolved)

    def trainer(self, run: str, dataset: PreparedDataset, config: TrainingConfig) -> Trainer:
        """As `catalogan train` creates it."""
        return new_trainer(self.work / run, dataset, config, self.device)

    def seconds(self, work: Any) -> float:
        """Time of a call, until the device has done all of it."""
        wait = (lambda: None) if self.on_cpu else torch.cuda.synchronize
        wait()
        start = time.perf_counter()
        work()
        wait()
        return time.perf_counter() - start

    def peak_mb(self) -> float:
        """Most memory that was allocated on the GPU since the last time, else what is resident."""
        if self.on_cpu:
            return memory_mb(self.device)
        peak = torch.cuda.max_memory_allocated() / 1e6
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return peak


def noise(count: int, size_px: int) -> MemoryDataset:
    """Photos of two categories, for what does not depend on what they show."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    return MemoryDataset(images, np.arange(count) % 2, ("even", "odd"))


def flat(tensors: Iterable[Tensor]) -> Tensor:
    """All values in one float64 vector on the CPU."""
    return torch.cat([t.detach().cpu().double().flatten() for t in tensors])


class HostDraws(TorchFunctionMode):
    """Random numbers that do not depend on the device: drawn on the processor, then copied."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype, self._hosts = dtype, {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Draw in place of torch.rand and torch.randn; pass all else on."""
        kwargs = dict(kwargs or {})
        if func not in (torch.rand, torch.randn):
            return func(*args, **kwargs)
        seed, device = kwargs.pop("generator").initial_seed(), kwargs.pop("device")
        host = self._hosts.setdefault(seed, torch.Generator().manual_seed(seed))
        return func(*args, **kwargs, generator=host).to(device, self._dtype)


def two_steps(
    call: Call,
    size: int,
    device: torch.device | str,
    dtypes: tuple[torch.dtype, torch.dtype],
    graphs: StepGraphs | None = None,
) -> dict[str, Tensor]:
    """Losses, gradients and moved weights of a step with R1 and one without, under a mask.

    Of the processor's preset, as a processor is slow in float64. Gradients are taken at a learning
    rate of 0: Adam's first step follows signs, and rounding would grow with it.
    """
    config = call.config(size, {"batch_size": 8}, MASKED, on_cpu=True)
    photos = noise(config.batch_size, size)
    networks = build_networks(config, photos.info)
    for network in networks:
        network.to(device, dtypes[0])
    MaskController(config.masking, config.seed).update(*networks, 0, dtypes[1])
    pair = AdversarialPair(*networks, config, dtypes[1])
    pair.graphs = graphs
    before = [flat(network.parameters()) for network in networks]
    images = to_float(torch.from_numpy(photos.images)).to(device, dtypes[0])
    batch = Batch(images, torch.eye(2)[photos.labels].to(device, dtypes[0]))
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    with HostDraws(dtypes[0]):
        for rate, step in itertools.product((0.0, 1.0), (0, 1)):
            pair.set_learning_rate(rate)
            seen = pair.step(batch, step * config.batch_size, AUGMENT_P, Ranks())
            if rate == 0.0:
                measured = [seen.discriminator_loss, seen.generator_loss, seen.real_logits]
                measured += [] if seen.r1_penalty is None else [seen.r1_penalty]
                losses += [value.clone() for value in measured]  # replays overwrite them
                gradients += [
                    p.grad.clone() for n in networks for p in n.parameters() if p.grad is not None
                ]
    moved = [flat(n.parameters()) - b for n, b in zip(networks, before, strict=True)]
    return {"losses": flat(losses), "gradients": flat(gradients), "weights": flat(moved)}


def check_step(call: Call, size: int) -> None:
    """The device in float64, float32 and bfloat16 against the processor in float64.

    In float64 from recorded graphs, too.
    """
    expected = two_steps(call, size, "cpu", (torch.float64, torch.float64))

    def compare(dtypes: tuple[torch.dtype, torch.dtype], graphs: StepGraphs | None = None) -> None:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            found = two_steps(call, size, call.device, dtypes, graphs)
        limit, weights_limit = LIMITS[dtypes]
        how = "graphs" if graphs else str(dtypes[1]).removeprefix("torch.")
        for what, values in expected.items():
            error = float((found[what] - values).norm() / values.norm())
            name, most = f"step_{how}_{what}", weights_limit if what == "weights" else limit
            call.add(name, most, error=error)

    for dtypes in LIMITS:
        compare(dtypes)
    if not call.on_cpu:
        compare((torch.float64, torch.float64), StepGraphs(plain_steps=0))


def check_resume(call: Call, size: int) -> None:
    """How far resuming leads away, over how far training moved; the same of repeats; the export."""
    dataset, batch = noise(64, size), call.config(size).batch_size / 1000
    often = {
        "tick_kimg": 4 * batch,
        "augment": {"p": AUGMENT_P},
        "masking": {
            **{"interval_kimg": batch, "period_kimg": 3 * batch, "probes": 16},
            **{"lag_baseline": 2, "lag_deviations": 0.0},
        },
        "optimizer": {"r1_interval_steps": 4},
    }

    def trained(run: str, steps: int, resume: bool = False) -> Tensor:
        config = call.config(size, often, {"max_kimg": steps * batch})
        trainer = call.trainer(run, dataset, config)
        if resume:
            trainer.resume()
        trainer.train(lambda _: None, lambda: False)
        networks = (trainer.generator, trainer.discriminator, trainer.ema.generator)
        return flat(p for network in networks for p in network.parameters())

    torch.use_deterministic_algorithms(True, warn_only=True)  # names those that are not
    try:
        straight, *repeats = (trained(f"straight-{i}", 16) for i in range(3))
        half, resumed = trained("resumed", 8), trained("resumed", 16, resume=True)
    finally:
        torch.use_deterministic_algorithms(False)
    *repeats, resumed = (
        float((w - straight).norm() / (straight - half).norm()) for w in (*repeats, resumed)
    )
    call.add("repeat", difference=max(repeats))
    call.add("resume", 10 * max(repeats), difference=resumed)
    manifest = export_run(call.work / "resumed", call.work / "export", ExportOptions(name="gpu"))
    call.add("export", manifest.parity.tolerance, max_abs_error=manifest.parity.max_abs_error)

"""`make gpu`: all measurements that need a GPU, in one call of a few minutes, without a network.

    step             losses, gradients, weights after two steps, compared with a CPU in float64
    resume           a run that was stopped and resumed, compared with others; its export
    speed            images/s and memory at each size, and of the same convolutions on their own
    lightweight_gan  the same for lightweight-gan, by its own trainer
    train            a base for --train minutes, from the 16-bit weights of an earlier call, which
                     may be of smaller images

Figures are printed at once, and gpu.json is written after each part. If a part fails, the others
still run, and the exit code is 1. With --device cpu all of it runs on a CPU.
"""

import argparse
import gc
import itertools
import shutil
import statistics
import sys
import tempfile
import time
import traceback
from contextlib import nullcontext
from functools import reduce
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from convolutions import ConvolutionRecorder, ConvolutionReplay
from gpu_checks import AUGMENT_P, MASKED, Call, check_resume, check_step, noise
from gpu_weights import pieces_of
from measuring import commit, interleaved, machine, quotients, read_results, write_results
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode
from training_speed import Intervals

from training.learning.cuda_graphs import PLAIN_STEPS
from training.learning.recorder import Tick

HERE = Path(__file__).parent
# The categories are the same, so there is no need to compare them.
CONTINUED = {"optimizer": {"warmup_kimg": 2.0}, "fine_tuning": {"new_categories": "mean"}}


def measure_speed(call: Call, size: int) -> None:
    """Time training with the size's preset, with a mask and R1 at its interval."""
    trainer = call.trainer(f"speed-{size}", noise(256, size), call.config(size, MASKED))
    steps = Intervals(trainer)
    graphs, trainer.pair.graphs = trainer.pair.graphs, None  # replays have no calls to record
    steps.run()
    with ConvolutionRecorder() as recorder:
        steps.run()
    plain_s = call.seconds(steps.run)
    trainer.pair.graphs = graphs
    call.peak_mb()
    for _ in range(PLAIN_STEPS + 1):  # steps with R1 have been recorded, too
        steps.run()
    peak = call.peak_mb()
    replay = ConvolutionReplay(recorder.calls, call.device)
    with FlopCounterMode(display=False) as counter:
        replay.run()
    training, alone = interleaved(
        call.options.rounds, lambda: call.seconds(steps.run), lambda: call.seconds(replay.run)
    )
    images, convolutions = steps.steps * trainer.config.batch_size, statistics.median(alone)
    call.add(
        f"speed_{size}",
        images_per_s=images / statistics.median(training),
        images_per_s_without_graphs=images / plain_s,
        convolutions_images_per_s=images / convolutions,
        step_over_convolutions=statistics.median(quotients(training, alone)),
        convolutions_teraflops=counter.get_total_flops() / convolutions / 1e12,
        memory_mb=peak,
        parameters_m=millions(trainer.generator, trainer.discriminator),
    )


def millions(*networks: torch.nn.Module) -> float:
    """Number of parameters, in millions."""
    return sum(p.numel() for network in networks for p in network.parameters()) / 1e6


class OnProcessor(TorchFunctionMode):
    """Lets code that requires CUDA run on a CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Keep tensors on the CPU."""
        kwargs = dict(kwargs or {})
        if "cuda" in str(kwargs.get("device")):
            kwargs["device"] = "cpu"
        return args[0] if func is Tensor.cuda else func(*args, **kwargs)


def measure_lightweight_gan(call: Call, size: int) -> None:
    """Time its trainer, with the defaults of its command line, on images in memory.

    It runs at our batch size, in mixed precision, with its gradient penalty every fourth step. The
    time for reading photos, and for its average after 20,000 steps, is not included.
    """
    with mock.patch("torch.cuda.is_available", return_value=True):  # or its import fails
        from lightweight_gan import Trainer as TheirTrainer
    batch = call.config(size).batch_size
    count = 1 if call.on_cpu else 4  # one of four has its penalty; a CPU takes seconds
    theirs = TheirTrainer(
        base_dir=call.work, image_size=size, batch_size=batch, attn_res_layers=[32],
        aug_prob=AUGMENT_P, amp=not call.on_cpu, use_aim=False,
    )  # fmt: skip
    photos = torch.rand(batch, 3, size, size, device=call.device)
    theirs.loader = (photos.clone() for _ in itertools.count())  # it needs their gradients
    theirs.steps = 1  # at 0 it saves and samples

    def steps() -> None:
        for _ in range(count):
            theirs.train()

    call.peak_mb()
    with OnProcessor() if call.on_cpu else nullcontext():
        if not call.on_cpu:
            steps()  # warms up
        seconds = statistics.median(call.seconds(steps) for _ in range(call.options.rounds))
    call.add(
        f"lightweight_gan_{size}",
        images_per_s=count * batch / seconds,
        memory_mb=call.peak_mb(),
        parameters_m=millions(theirs.GAN.G, theirs.GAN.D),
    )


def show(tick: Tick) -> None:
    """Print the progress of training."""
    losses = f"{tick.discriminator_loss:.3f} {tick.generator_loss:.3f}"
    print(tick.nimg, tick.images_per_sec, losses, f"{tick.augment_strength:.3f}", flush=True)


def train(call: Call, _: int) -> None:
    """Train the base for the time that is left, and write its weights and samples."""
    weights, out = call.weights, call.options.out
    photos = call.photos.smaller(call.options.train_size)
    minutes = min(call.options.train, (call.deadline - time.monotonic()) / 60)
    before: list[Any] = [CONTINUED] if weights else []
    if weights and weights.info.width == photos.info.width:
        before.insert(0, weights.config.model_dump())
    elif weights:
        before.append({"model": weights.config.model.model_dump()})
    end = {"max_minutes": minutes, "optimizer": {"decay": 0.3}}
    end |= dict.fromkeys(("max_kimg", "grid_kimg", "checkpoint_kimg"), 1e6)
    trainer = call.trainer("base", photos, call.config(photos.info.width, *before, end))
    pieces_of(trainer)  # fails now, not after training, if they would not fit
    if weights:
        weights.continue_in(trainer)
    first, start = trainer.nimg, time.monotonic()
    trainer.train(show, lambda: False)
    seconds = time.monotonic() - start
    for name, data in pieces_of(trainer).items():
        (out / name).write_bytes(data)
    shutil.copy(max((trainer.run / "grids").iterdir()), out / "samples.png")
    per_s = (trainer.nimg - first) / seconds
    call.add("train", minutes=seconds / 60, images_per_s=per_s, images=trainer.nimg)
    call.add("train", augment_p=trainer.augmentation.p)


PARTS = {
    "step": check_step,
    "resume": check_resume,
    "speed": measure_speed,
    "lightweight_gan": measure_lightweight_gan,
    "train": train,
}
EACH_SIZE = ("speed", "lightweight_gan")


def setting(text: str) -> Any:
    """Parse `a.b=1` as {"a": {"b": "1"}}; the configuration converts numbers."""
    path, _, value = text.partition("=")
    return reduce(lambda tree, name: {name: tree}, reversed(path.split(".")), value)


def main() -> None:
    """Run the parts one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="for gpu.json, weights, samples")
    parser.add_argument("--bundle", type=Path, help="folder of make gpu-bundle")
    parser.add_argument("--weights", type=Path, help="pieces that an earlier call wrote")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 128, 256, 512])
    parser.add_argument("--minutes", type=float, default=9, help="for the whole call")
    parser.add_argument("--rounds", type=int, default=3, help="of which speeds are medians")
    parser.add_argument("--train", type=float, help="minutes of training, or what is left of them")
    parser.add_argument("--train-size", type=int, help="px; by default the photos' size")
    parser.add_argument("--set", nargs="*", type=setting, default=[], help="as of catalogan train")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="catalogan-gpu-") as work:
        try:
            call = Call(options, Path(work))
        except ValueError as error:
            sys.exit(f"gpu: {error}")
        for name in [p for p in options.parts if p != "train" or options.train]:
            for size in options.sizes if name in EACH_SIZE else options.sizes[:1]:
                run_part(call, name, size)
    for failure in call.failures:
        print(f"failed: {failure}", file=sys.stderr)
    sys.exit(bool(call.failures))


def run_part(call: Call, name: str, size: int) -> None:
    """Run one part, if there is time, and write all figures so far."""
    gc.collect()  # frees the GPU's memory of the previous part
    start = time.monotonic()
    try:
        if start > call.deadline:
            raise TimeoutError("no time left")
        PARTS[name](call, size)
    except Exception as error:  # the other parts' figures are worth having
        traceback.print_exc()
        call.failures.append(f"{name} at {size} px: {error}")
    call.add(f"{name}_{size}", seconds=time.monotonic() - start)
    metadata = {"commit": commit(), "machine": machine(), "failures": call.failures}
    metadata["gpu"] = "none" if call.on_cpu else torch.cuda.get_device_name()
    kept = HERE / "gpu.json"
    before = {} if call.on_cpu else read_results(kept)
    results = {**before, **call.figures, **metadata}
    for path in [call.options.out / "gpu.json", *([] if call.on_cpu else [kept])]:
        write_results(path, results)


if __name__ == "__main__":
    main()

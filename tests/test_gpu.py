"""`make gpu-bundle` and `make gpu` for real, on a processor, and without the network."""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from training.learning.checkpoint import list_checkpoints
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.run import load_generator
from training.learning.trainer import Trainer
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions

ROOT = Path(__file__).parents[1]
BENCH = ROOT / "bench"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
# What the machine with the GPU has: these, and what they need.
MACHINE = ("torch", "torchvision", "onnxruntime", "pip", "setuptools")
TINY = (
    *("batch_size=4", "model.channel_base=64", "model.channel_max=8", "model.w_dim=8"),
    *("model.z_dim=8", "masking.level=0", "optimizer.r1_interval_steps=4"),
)
SIZE_PX = 32  # the smallest that lightweight-gan takes


def closure(*names: str) -> Iterator[importlib.metadata.Distribution]:
    """Installed distributions that these need, themselves included."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in seen:
            seen.add(name)
            yield distribution
            needed = map(Requirement, distribution.requires or ())
            waiting += [
                r.name for r in needed if r.marker is None or r.marker.evaluate({"extra": ""})
            ]


def top_level(distribution: importlib.metadata.Distribution) -> set[str]:
    """Files and folders of a distribution in its site-packages."""
    return {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed here of the bundle's packages, packed into wheels again."""
    folder = tmp_path_factory.mktemp("wheels")
    sys.path.insert(0, str(BENCH))
    from gpu_bundle import PACKAGES

    for name in PACKAGES:
        distribution = importlib.metadata.distribution(name)
        facts = (distribution.read_text("WHEEL") or "").splitlines()
        tag = [line.removeprefix("Tag: ") for line in facts if line.startswith("Tag: ")][-1]
        wheel = f"{canonicalize_name(name).replace('-', '_')}-{distribution.version}-{tag}.whl"
        with zipfile.ZipFile(folder / wheel, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
            for file in distribution.files or ():
                if ".." not in file.parts and "__pycache__" not in file.parts:
                    packed.write(distribution.locate_file(file), str(file))
    return folder


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has torch, torchvision and ONNX Runtime only."""
    folder = tmp_path_factory.mktemp("machine")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    site = folder / "lib" / f"python{PYTHON}" / "site-packages"
    here = Path(sysconfig.get_paths()["purelib"])
    for name in {name for one in closure(*MACHINE) for name in top_level(one)}:
        (site / name).symlink_to(here / name)
    return folder / "bin" / "python"


def offline(wheels: Path) -> dict[str, str]:
    """What has pip take packages from a folder."""
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}


Bundle = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def bundle(wheels: Path) -> Bundle:
    """Runs gpu_bundle.py, with the folder of wheels in place of the network."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, BENCH / "gpu_bundle.py", "--python", PYTHON, *arguments]
        environment = {**os.environ, **offline(wheels)}
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return run


def make_gpu(machine: Path, **variables: str | Path) -> subprocess.CompletedProcess[str]:
    """`make gpu` as on the machine: nothing of this environment is to be found."""
    given = {
        "PYTHON": machine,
        "DEVICE": "cpu",
        "SIZES": SIZE_PX,
        "MINUTES": 60,
        "SET": " ".join(TINY),
        **variables,
    }
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        ["make", "gpu", *(f"{name}={value}" for name, value in given.items())],
        cwd=ROOT, env=environment, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(3600)  # minutes where the machine is busy
def test_all_parts_run_from_the_bundle_alone_and_training_goes_on(
    tmp_path: Path, machine: Path, bundle: Bundle
) -> None:
    random = np.random.default_rng(0)
    for category in ("cups", "hats"):
        (tmp_path / "photos" / category).mkdir(parents=True)
        for i in range(12):
            coarse = Image.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8))
            coarse.resize((48, 40)).save(tmp_path / "photos" / category / f"{i}.png")
    folder = tmp_path / "bundle"
    gathered = bundle("--out", folder, "--photos", tmp_path / "photos", "--size", str(SIZE_PX))
    assert gathered.returncode == 0, gathered.stdout + gathered.stderr

    first, second = tmp_path / "first", tmp_path / "second"
    done = make_gpu(machine, BUNDLE=folder, OUT=first, TRAIN="0.05", ROUNDS="1", TRAIN_SIZE="16")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((first / "gpu.json").read_text())
    assert found["failures"] == []
    assert found["step_float64_gradients_error"] == 0  # one processor against itself
    assert 0 < found["step_float32_gradients_error"] < 1e-3
    assert found["resume_difference"] == found["repeat_difference"] == 0
    assert 0 < found["export_max_abs_error"] <= 1e-4
    for figure in ("images_per_s", "convolutions_images_per_s", "convolutions_teraflops"):
        assert found[f"speed_32_{figure}"] > 0
    assert found["lightweight_gan_32_images_per_s"] > 0
    assert found["lightweight_gan_32_parameters_m"] > 1
    assert found["train_images"] % 4 == 0
    with Image.open(first / "samples.png") as samples:
        assert samples.size == (8 * 16, 2 * 16)

    given = {"BUNDLE": folder, "TRAIN": "0.02", "PARTS": "train"}
    again = make_gpu(machine, **given, OUT=second, WEIGHTS=first, SET="", TRAIN_SIZE="16")
    assert again.returncode == 0, again.stdout + again.stderr
    shown = json.loads((second / "gpu.json").read_text())["train_images"]
    assert shown > found["train_images"] > 0
    grown = make_gpu(machine, **given, OUT=tmp_path / "third", WEIGHTS=second)
    assert grown.returncode == 0, grown.stdout + grown.stderr

    for pieces, size, count in ((second, 16, shown), (tmp_path / "third", SIZE_PX, None)):
        dataset, run = (tmp_path / f"{name}-{size}" for name in ("dataset", "run"))
        prepare_dataset(tmp_path / "photos", dataset, PrepareOptions(width=size, height=size))
        command = [sys.executable, BENCH / "gpu_weights.py", pieces, run, dataset]
        subprocess.run(command, check=True)
        generator, config, info, nimg = load_generator(run, "best")
        assert (info.categories, config.batch_size) == (("cups", "hats"), 4)
        assert nimg == count or count is None
        noise = torch.zeros(2, generator.noise_dim)
        images = generator(torch.zeros(2, 8), torch.eye(2), None, noise)
        assert images.shape == (2, 3, size, size)
    wrong = subprocess.run([*command[:3], tmp_path / "no", tmp_path / "dataset-16"], check=False)
    assert wrong.returncode == 1
    assert not (tmp_path / "no").exists()


def make_trainer(folder: Path, kimg: float) -> Trainer:
    """A tiny one on noise at 16 px."""
    from gpu_checks import noise

    settings = {
        "batch_size": 8,
        "max_kimg": kimg,
        "precision": "fp32",
        "model": {"z_dim": 8, "w_dim": 8, "channel_base": 64, "channel_max": 8},
        "augment": {"p": 0.25},
        "optimizer": {"warmup_kimg": 0.08},
    }
    folder.mkdir()
    return Trainer(folder, noise(64, 16), resolve(settings), torch.device("cpu"), Ranks())


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Trainer, Path]:
    """A run of 64 images, and its weights in several pieces."""
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_weights

    trainer = make_trainer(tmp_path / "stopped", 0.064)
    trainer.train(lambda _: None, lambda: False)
    monkeypatch.setattr(gpu_weights, "PIECE_BYTES", 20_000)
    (tmp_path / "pieces").mkdir()
    for name, data in gpu_weights.pieces_of(trainer).items():
        (tmp_path / "pieces" / name).write_bytes(data)
    return trainer, tmp_path / "pieces"


def test_training_goes_on_from_16_bit_weights_and_warms_up(
    tmp_path: Path, stopped: tuple[Trainer, Path]
) -> None:
    from gpu_weights import read_pieces

    before, pieces = stopped
    assert len(list(pieces.iterdir())) > 1
    trainer = make_trainer(tmp_path / "continued", 0.1)
    full = trainer.pair.generator_optimizer.param_groups[0]["lr"]
    read_pieces(pieces).continue_in(trainer)
    assert trainer.nimg == 64
    assert trainer.augmentation.p == before.augmentation.p > 0
    for name in ("generator", "discriminator", "ema"):
        for key, was in before.state_dict()[name].items():
            assert torch.equal(trainer.state_dict()[name][key], was.half().float()), key
    rates = []

    def note() -> bool:
        rates.append(trainer.pair.generator_optimizer.param_groups[0]["lr"] / full)
        return False

    trainer.train(lambda _: None, note)
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4])  # not at the end
    assert len(list_checkpoints(tmp_path / "continued")) == 2  # one to go back to from the start


def test_pieces_that_are_not_whole_are_refused(stopped: tuple[Trainer, Path]) -> None:
    from gpu_weights import read_pieces

    _, folder = stopped
    first, second, *_ = sorted(folder.iterdir())
    whole = first.read_bytes()
    first.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ValueError, match="unchanged, and no others"):
        read_pieces(folder)
    first.write_bytes(whole)
    read_pieces(folder)
    second.unlink()
    with pytest.raises(ValueError, match="unchanged, and no others"):
        read_pieces(folder)


def test_weights_in_too_many_pieces_are_refused(
    stopped: tuple[Trainer, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import gpu_weights

    monkeypatch.setattr(gpu_weights, "PIECE_BYTES", 1000)
    with pytest.raises(ValueError, match=r"smaller model\.channel_max"):
        gpu_weights.pieces_of(stopped[0])


@pytest.mark.slow
def test_a_bundle_that_is_too_large_replaces_nothing(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    import gpu_bundle

    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "before").touch()
    others = [name for name in gpu_bundle.PACKAGES if name != "tqdm"]
    arguments = ["--out", str(tmp_path / "bundle"), "--without", *others]
    monkeypatch.setattr(sys, "argv", ["gpu_bundle.py", *arguments])
    for name, value in offline(wheels).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(gpu_bundle, "MAX_BYTES", 10_000)
    with pytest.raises(SystemExit, match="WITHOUT"):
        gpu_bundle.main()
    assert [path.name for path in (tmp_path / "bundle").iterdir()] == ["before"]
    monkeypatch.setattr(gpu_bundle, "MAX_BYTES", 1_000_000)
    gpu_bundle.main()
    (wheel,) = (tmp_path / "bundle").iterdir()
    assert wheel.name.startswith("tqdm-")


def test_photos_become_smaller_by_whole_factors_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    from gpu_checks import noise

    photos = noise(2, 32)
    cells = photos.images[:, :2, :2].astype(float).mean(axis=(1, 2)).round()
    assert (photos.smaller(16).images[:, 0, 0] == cells).all()
    assert photos.smaller(None) is photos
    with pytest.raises(ValueError, match="--train-size 24 does not divide 32"):
        photos.smaller(24)


def test_training_without_photos_is_refused_at_once(tmp_path: Path) -> None:
    command = [sys.executable, BENCH / "gpu.py", "--device", "cpu", "--train", "1"]
    command += ["--out", tmp_path / "out", "--bundle", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"gpu: {tmp_path} has no photos to train on")

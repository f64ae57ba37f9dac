"""Upscalers: what training teaches, how it is judged, and what an export takes along."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from models.manifest import GeneratorManifest
from models.upscaler import Upscaler, UpscalerShape
from training.companion_cli import app as upscaler_app
from training.export.export import ExportOptions, export_run
from training.export.parity import open_graph
from training.features.extractor import LiteFeatures
from training.learning.loader import to_float
from training.learning.run import read_run
from training.model_cli import app as model_app
from training.upscaling.critic import Critic, adversarial_loss, critic_loss
from training.upscaling.crops import CropSampler, resize
from training.upscaling.judging import enlarge_by, judge
from training.upscaling.upscaler_run import UpscalerSettings, load_upscaler
from training.upscaling.upscaler_training import UpscalerTrainer


def invoke(app: Any, *arguments: object) -> tuple[int, str]:
    given = [str(a) for a in arguments]
    if given[0] == "train-upscaler":
        given += ["--device", "cpu"]
    result = CliRunner().invoke(app, given)
    return result.exit_code, " ".join(re.sub("[│┃╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="module")
def photos(tiny_dataset: Path) -> Path:
    """What the tiny run's dataset was prepared from: 40 x 48 px."""
    return tiny_dataset.parent / "photos"


@pytest.fixture(scope="module")
def held_out(
    tmp_path_factory: pytest.TempPathFactory, fill: Callable[[Path, range], list[Path]]
) -> Path:
    """Others of the same kind."""
    folder = tmp_path_factory.mktemp("held-out")
    for i, category in enumerate(("cups", "hats", "mats")):
        fill(folder / category, range(1000 * i + 500, 1000 * i + 504))
    return folder


@pytest.fixture(scope="module")
def run_with_upscaler(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, photos: Path, held_out: Path
) -> Path:
    """The tiny run with an upscaler of 48 crops, through the command line."""
    run = tmp_path_factory.mktemp("upscaler") / "run"
    shutil.copytree(tiny_run, run)
    code, output = invoke(
        upscaler_app, "train-upscaler", run, "--photos", photos, "--validation", held_out,
        "--factor", "2", "--max-kimg", "0.048",
    )  # fmt: skip
    assert code == 0, output
    assert re.search(r"upscaler Lanczos.*made small 0\.\d+ 0\.\d+.*generated \d", output), output
    return run


def shapes(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Polygons with hard edges on plain grounds, uint8 [count, side, side, 3]."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(count):
        ground, colour = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
        image = Image.new("RGB", (side, side), ground)
        corners = [tuple(int(v) for v in rng.integers(0, side, 2)) for _ in range(4)]
        ImageDraw.Draw(image).polygon(corners, fill=colour)
        images.append(np.asarray(image))
    return np.stack(images)


def untrained(seed: int = 0, kimg: float = 0.064, **settings: Any) -> UpscalerTrainer:
    photos = shapes(40, 48)
    given = UpscalerSettings(factor=2, crop_px=32, max_kimg=kimg, seed=seed, **settings)
    crops = CropSampler(photos, resize(photos, (24, 24)), 2, given.crop_px, True)
    torch.manual_seed(seed)
    upscaler = Upscaler(UpscalerShape(channels=3, factor=2))
    return UpscalerTrainer(upscaler, crops, given)


def trained(seed: int = 0, kimg: float = 0.064, **settings: Any) -> UpscalerTrainer:
    trainer = untrained(seed, kimg, **settings)
    trainer.train(lambda _: None, lambda: False)
    return trainer


@pytest.mark.slow
def test_an_upscaler_learns_the_edges_of_its_photos() -> None:
    enlarge = enlarge_by(trained(kimg=2).trained)
    unseen = shapes(24, 48, seed=1)
    small = resize(unseen, (24, 24))
    of_photos, _ = judge(enlarge, unseen, small, LiteFeatures())
    assert of_photos.upscaler < 0.7 * of_photos.lanczos  # two seeds: 0.50 and 0.51


def test_a_seed_fixes_the_upscaler() -> None:
    def weights(seed: int) -> torch.Tensor:
        return torch.cat([p.flatten() for p in trained(seed, kimg=0.016).trained.parameters()])

    first = weights(0)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_what_is_used_is_the_average_of_the_weights() -> None:
    trainer = trained()
    latest = torch.cat([p.flatten() for p in trainer.network.parameters()])
    average = torch.cat([p.flatten() for p in trainer.trained.parameters()])
    assert not torch.equal(latest, average)
    assert not any(p.requires_grad for p in trainer.trained.parameters())


def test_each_loss_has_a_say() -> None:
    def weights(**settings: Any) -> torch.Tensor:
        trainer = trained(kimg=0.016, **settings)
        return torch.cat([p.flatten() for p in trainer.network.parameters()])

    whole = weights()
    for name in ("pixel_weight", "feature_weight", "critic_weight"):
        assert not torch.equal(weights(**{name: 0.0}), whole), name


def test_features_and_critic_look_from_changing_places() -> None:
    """At one place, strided layers would never see what is repeated with their stride."""
    trainer = untrained()
    sizes: dict[str, set[tuple[int, ...]]] = {"maps": set(), "critic": set()}
    for name, seen in sizes.items():
        network: torch.nn.Module = getattr(trainer, name)
        network.register_forward_pre_hook(
            lambda _, given, seen=seen: seen.add(tuple(given[0].shape[2:]))
        )
    for trainer.steps in range(6):
        trainer.step(0.0)
    assert sizes["maps"] == sizes["critic"]
    assert len(sizes["maps"]) > 2
    assert max(max(size) for size in sizes["maps"]) <= 48


def test_the_critic_is_content_beyond_one_and_the_upscaler_wants_more() -> None:
    def logits(value: float) -> list[torch.Tensor]:
        return [torch.full((2, 1, 3, 3), value), torch.full((2, 1, 1, 1), value)]

    assert critic_loss(logits(1.0), logits(-1.0)) == 0
    assert critic_loss(logits(5.0), logits(-5.0)) == 0
    assert critic_loss(logits(0.0), logits(0.0)) == 4
    assert critic_loss(logits(-1.0), logits(1.0)) == 8
    assert adversarial_loss(logits(3.0)) == -6


def test_the_critic_judges_pixels_and_each_map() -> None:
    images = torch.rand(2, 3, 64, 32)
    maps = [torch.rand(2, 24, 16, 8), torch.rand(2, 40, 8, 4)]
    critic = Critic((24, 40)).eval()
    logits = critic(images, maps)
    assert [one.shape[:2] for one in logits] == [(2, 1)] * 3
    # Each head sees its own alone.
    changed = critic(images, [maps[0], maps[1] + 1])
    assert [torch.equal(a, b) for a, b in zip(logits, changed, strict=True)] == [True, True, False]
    changed = critic(images + 1, maps)
    assert [torch.equal(a, b) for a, b in zip(logits, changed, strict=True)] == [False, True, True]


def test_a_photo_is_not_compared_with_itself() -> None:
    """Perfect copies of few photos would be nearer than other photos are."""
    photos = shapes(12, 32)
    of_photos, of_generated = judge(
        lambda _: photos, photos, resize(photos, (16, 16)), LiteFeatures()
    )
    assert of_photos.upscaler > of_generated.upscaler
    assert of_photos.lanczos > of_photos.upscaler


def test_the_run_holds_the_upscaler_its_card_and_a_sheet(run_with_upscaler: Path) -> None:
    folder = run_with_upscaler / "upscaler"
    names = ["enlarged.png", "upscaler.json", "upscaler.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == names
    card = json.loads((folder / "upscaler.json").read_text())
    assert (card["nimg"], card["generator_nimg"], card["judged"]) == (48, 200, 12)
    assert card["settings"]["factor"] == 2
    with Image.open(folder / "enlarged.png") as sheet:
        assert sheet.width > 6 * 32
        assert sheet.height > 5 * 32
    # Nothing is left of the photos that were prepared.
    assert not [p for p in run_with_upscaler.iterdir() if "photos" in p.name]


def test_an_export_takes_the_upscaler_along(tmp_path: Path, run_with_upscaler: Path) -> None:
    export = tmp_path / "shop"
    code, output = invoke(model_app, "export", run_with_upscaler, "--out", export)
    assert code == 0, output
    manifest = GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())
    manifest.verify_files(lambda name: (export / name).read_bytes())
    card = json.loads((run_with_upscaler / "upscaler" / "upscaler.json").read_text())
    record = manifest.upscaler
    assert record is not None
    assert (record.factor, record.nimg, record.judged) == (2, 48, 12)
    assert record.photos.model_dump() == card["photos"]
    assert record.generated.model_dump() == card["generated"]
    assert record.parity.max_abs_error <= record.parity.tolerance == 1e-4
    assert record.parity.batch_sizes == (1, 2, 7)
    readme = (export / "README.md").read_text()
    assert "2 times as large, 32 x 32 px" in readme
    assert f"{record.generated.lanczos:.4f}" in readme

    # The graph enlarges as the network does.
    found = load_upscaler(run_with_upscaler, read_run(run_with_upscaler)[1])
    assert found is not None
    session = open_graph((export / "upscaler.onnx").read_bytes())
    assert [i.name for i in session.get_inputs()] == ["images"]
    for batch in (1, 2, 5):
        images = np.random.default_rng(batch).uniform(-1, 1, (batch, 3, 16, 16)).astype(np.float32)
        (upscaled,) = session.run(["upscaled"], {"images": images})
        np.testing.assert_allclose(upscaled, found[0](torch.from_numpy(images)), atol=1e-4)


def test_the_judge_enlarges_as_the_graph_does(run_with_upscaler: Path) -> None:
    found = load_upscaler(run_with_upscaler, read_run(run_with_upscaler)[1])
    assert found is not None
    images = shapes(19, 16)  # more than a batch
    expected = found[0](to_float(torch.from_numpy(images))).clamp(-1, 1)
    enlarged = torch.from_numpy(enlarge_by(found[0])(images))
    assert (to_float(enlarged) - expected).abs().max() <= 1 / 127


def test_an_export_may_leave_the_upscaler_out(tmp_path: Path, run_with_upscaler: Path) -> None:
    export_run(run_with_upscaler, tmp_path / "out", ExportOptions(name="shop", upscaler=False))
    assert not (tmp_path / "out" / "upscaler.onnx").exists()
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["upscaler"] is None
    assert "Larger images" not in (tmp_path / "out" / "README.md").read_text()


def test_a_damaged_upscaler_is_named(tmp_path: Path, run_with_upscaler: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_with_upscaler, run)
    weights = run / "upscaler" / "upscaler.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out")
    assert (code, "upscaler.safetensors is damaged" in output) == (2, True), output
    assert "--no-upscaler" in output
    assert not (tmp_path / "out").exists()
    (run / "upscaler" / "upscaler.json").write_text("{}")
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out")
    assert (code, "upscaler can't be read" in output) == (2, True), output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--factor", "3"], "--factor 3: must be 2 or 4"),
        (["--factor", "4"], "try --factor 2"),
        (["--factor", "2"], "validation photos to judge by, fewer than 10"),
        (["--max-kimg", "0"], "--max-kimg"),
        (["--max-minutes", "nan"], "--max-minutes"),
        (["--seed", "-1"], "--seed"),
        (["--photos", "nowhere"], "nowhere is no readable folder"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_left(
    tiny_run: Path, photos: Path, arguments: list[str], message: str
) -> None:
    before = {p.name for p in tiny_run.iterdir()} | {".lock"}
    code, output = invoke(upscaler_app, "train-upscaler", tiny_run, "--photos", photos, *arguments)
    assert (code, message in output) == (2, True), output
    assert {p.name for p in tiny_run.iterdir()} | {".lock"} == before


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, photos: Path) -> None:
    code, output = invoke(upscaler_app, "train-upscaler", tmp_path, "--photos", photos)
    assert (code, "is no training run" in output) == (2, True), output

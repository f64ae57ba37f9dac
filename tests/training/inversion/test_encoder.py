"""Encoders: what training teaches, how it is evaluated, and which generator it belongs to."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load
from typer.testing import CliRunner

from models.manifest import GeneratorManifest
from training.companion import CompanionError
from training.companion_cli import app as encoder_app
from training.dataset import PreparedDataset
from training.export.parity import open_graph
from training.features.load import load_extractor
from training.inversion import reconstruction as reconstruction_module
from training.inversion.encoder_run import (
    EncoderSettings,
    build_encoder,
    load_encoder,
)
from training.inversion.encoder_training import EncoderTrainer, Inversion
from training.inversion.inversion import train_encoder
from training.inversion.reconstruction import evaluate_encoder, reconstructed
from training.learning.checkpoint import load_newest, save_checkpoint
from training.learning.run import load_networks
from training.learning.samplers import RunSampler
from training.model_cli import app as model_app
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions


def prepared(photos: Path, out: Path, **options: Any) -> PreparedDataset:
    settings = {"width": 16, "height": 16, "validation_share": 0.3, **options}
    prepare_dataset(photos, out, PrepareOptions.model_validate(settings))
    return PreparedDataset(out)


def untrained(run: Path) -> Inversion:
    generator, discriminator, config, *_ = load_networks(run)
    encoder = build_encoder(config, generator, 0)
    return Inversion(encoder, generator, discriminator, torch.float32)


@pytest.fixture(scope="module")
def run_with_encoder(
    tmp_path_factory: pytest.TempPathFactory, tiny_run: Path, tiny_dataset: Path
) -> Path:
    """The tiny run with an encoder of 160 photos, through the command line."""
    run = tmp_path_factory.mktemp("encoder") / "run"
    shutil.copytree(tiny_run, run)
    code, output = invoke(
        encoder_app, "train-encoder", run, "--data", tiny_dataset, "--max-kimg", "0.16"
    )
    assert code == 0, output
    assert re.search(r"reconstruction.*nearest photo.*mean photo.*0\.2 kimg", output), output
    return run


def invoke(app: Any, *arguments: str | Path) -> tuple[int, str]:
    given = [str(a) for a in arguments]
    if given[0] == "train-encoder":
        given += ["--device", "cpu"]
    result = CliRunner().invoke(app, given)
    return result.exit_code, " ".join(re.sub("[│╭╮╰╯─]", " ", result.output).split())


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory, tiny_run: Path) -> PreparedDataset:
    """A catalogue of images that the tiny run's generator generated."""
    root = tmp_path_factory.mktemp("generated")
    sampler = RunSampler(tiny_run)
    labels = np.arange(150, dtype=np.int64) % 3
    for i, image in enumerate(sampler.sample(labels, seed=5)):
        folder = root / "photos" / sampler.categories[labels[i]]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return prepared(root / "photos", root / "dataset")


def test_an_encoder_learns_to_reconstruct_photos(
    tiny_run: Path, generated: PreparedDataset
) -> None:
    networks = untrained(tiny_run)
    settings = EncoderSettings(max_kimg=5)
    ticks = []
    EncoderTrainer(networks, generated, settings, False).train(ticks.append, lambda: False)
    errors = evaluate_encoder(
        lambda photos, labels: reconstructed(networks, photos, labels),
        generated,
        load_extractor(),
    )
    for error in (errors.pixel_mse, errors.feature_distance):
        assert error.reconstruction < 0.8 * error.mean_photo, errors
        assert error.reconstruction < error.nearest_photo, errors
    for loss in ("pixels", "features", "style"):
        assert ticks[-1].means[loss] < 0.8 * ticks[0].means[loss], loss


def test_a_run_with_heads_teaches_an_encoder_by_what_they_see(
    run_with_heads: Path, tiny_dataset: Path
) -> None:
    networks, data = untrained(run_with_heads), PreparedDataset(tiny_dataset)
    before = {n: t.clone() for n, t in networks.discriminator.state_dict().items()}
    weights = {"pixel_weight": 0, "style_weight": 0, "pull_weight": 0}  # by features alone
    settings = EncoderSettings(max_kimg=0.016, batch_size=4, **weights)
    start = [p.detach().clone() for p in networks.encoder.parameters()]
    EncoderTrainer(networks, data, settings, True).train(lambda _: None, lambda: False)
    moved = [
        float((p - q).abs().max())
        for p, q in zip(networks.encoder.parameters(), start, strict=True)
    ]
    assert max(moved) > 0
    assert all(np.isfinite(moved))
    after = networks.discriminator.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_seed_fixes_the_encoder(tiny_run: Path, tiny_dataset: Path) -> None:
    def trained(seed: int) -> torch.Tensor:
        generator, discriminator, config, *_ = load_networks(tiny_run)
        encoder = build_encoder(config, generator, seed)
        networks = Inversion(encoder, generator, discriminator, torch.float32)
        settings = EncoderSettings(max_kimg=0.1, seed=seed)
        data = PreparedDataset(tiny_dataset)
        EncoderTrainer(networks, data, settings, True).train(lambda _: None, lambda: False)
        return torch.cat([p.flatten() for p in encoder.parameters()])

    first = trained(0)
    assert torch.equal(first, trained(0))
    assert not torch.equal(first, trained(1))


def test_training_leaves_the_generator_alone(tiny_run: Path, tiny_dataset: Path) -> None:
    networks = untrained(tiny_run)
    before = {n: t.clone() for n, t in networks.generator.state_dict().items()}
    trainer = EncoderTrainer(
        networks, PreparedDataset(tiny_dataset), EncoderSettings(max_kimg=0.05), True
    )
    trainer.train(lambda _: None, lambda: False)
    for name, tensor in networks.generator.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_photos_are_mirrored_only_where_the_run_mirrored_its_images(
    tmp_path: Path, tiny_run: Path, tiny_dataset: Path
) -> None:
    def trained(name: str, **augment: Any) -> str:
        run = tmp_path / name
        shutil.copytree(tiny_run, run)
        config = json.loads((run / "config.json").read_text())
        config["augment"] |= augment
        (run / "config.json").write_text(json.dumps(config))
        data, settings = PreparedDataset(tiny_dataset), EncoderSettings(max_kimg=0.05)
        device = torch.device("cpu")
        return train_encoder(
            run, data, settings, device, lambda _: None, lambda: False
        ).weights_sha256

    mirrored = trained("mirrored")
    assert trained("off", mode="off") == mirrored  # photos are, whatever augmentation does
    assert trained("plain", mirror=False) != mirrored


def test_stopping_early_keeps_what_was_learned(
    tmp_path: Path, tiny_run: Path, tiny_dataset: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    steps = iter([False, False, True])
    card = train_encoder(
        run,
        PreparedDataset(tiny_dataset),
        EncoderSettings(max_kimg=100),
        torch.device("cpu"),
        lambda _: None,
        lambda: next(steps),
    )
    assert card.nimg == 32
    generator, _, config, *_ = load_networks(run)
    assert load_encoder(run, config, generator) is not None


def test_photos_are_compared_with_their_nearest_and_their_mean(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconstruction_module, "_BATCH", 5)  # several chunks
    data = PreparedDataset(tiny_dataset)
    train, rows = data.indices("train"), data.indices("validation")

    def mse(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.square((a.astype(float) - b.astype(float)) / 127.5).mean())

    nearest, mean = [], []
    for row in rows:
        mates = data.images[train[data.labels[train] == data.labels[row]]]
        nearest.append(min(mse(mate, data.images[row]) for mate in mates))
        mean.append(mse(mates.mean(axis=0).round(), data.images[row]))
    errors = evaluate_encoder(lambda photos, _: photos, data, load_extractor())
    assert errors.photos == len(rows)
    assert errors.pixel_mse.reconstruction == errors.feature_distance.reconstruction == 0
    assert errors.pixel_mse.nearest_photo == pytest.approx(np.mean(nearest), rel=1e-5)
    assert errors.pixel_mse.mean_photo == pytest.approx(np.mean(mean), rel=1e-5)
    assert errors.feature_distance.mean_photo > 0


def test_the_run_holds_the_encoder_its_card_and_a_sheet(run_with_encoder: Path) -> None:
    folder = run_with_encoder / "encoder"
    assert sorted(p.name for p in folder.iterdir()) == [
        "encoder.json",
        "encoder.safetensors",
        "reconstructions.png",
    ]
    card = json.loads((folder / "encoder.json").read_text())
    assert (card["nimg"], card["generator_nimg"]) == (160, 200)
    with Image.open(folder / "reconstructions.png") as sheet:
        assert sheet.width > sheet.height > 400


def test_an_export_takes_the_encoder_along(tmp_path: Path, run_with_encoder: Path) -> None:
    export = tmp_path / "shop"
    code, output = invoke(model_app, "export", run_with_encoder, "--out", export)
    assert code == 0, output
    manifest = GeneratorManifest.model_validate_json((export / "manifest.json").read_bytes())
    manifest.verify_files(lambda name: (export / name).read_bytes())
    card = json.loads((run_with_encoder / "encoder" / "encoder.json").read_text())
    record = manifest.encoder
    assert record is not None
    assert record.errors.model_dump() == card["errors"]
    assert record.parity.max_abs_error <= record.parity.tolerance == 1e-4
    assert record.parity.batch_sizes == (1, 2, 7)

    # Reconstructions by the two graphs are those of the two networks.
    generator, _, config, *_ = load_networks(run_with_encoder)
    found = load_encoder(run_with_encoder, config, generator)
    assert found is not None
    random = torch.Generator().manual_seed(0)
    photos, category = torch.rand(3, 3, 16, 16, generator=random) * 2 - 1, torch.eye(3)
    noise = torch.randn(3, generator.noise_dim, generator=random)
    anything, psi = torch.zeros(3, generator.z_dim), torch.zeros(3)
    with torch.no_grad():
        expected = generator(
            anything, category, psi, noise, style_offset=found[0](photos, category)
        ).numpy()
    feed = {"images": photos.numpy(), "category": category.numpy()}
    (offset,) = open_graph((export / "encoder.onnx").read_bytes()).run(None, feed)
    names = ("z", "category", "truncation_psi", "noise")
    arrays = (t.numpy() for t in (anything, category, psi, noise))
    feed = dict(zip(names, arrays, strict=True)) | {"style_offset": offset}
    (images,) = open_graph((export / "generator.onnx").read_bytes()).run(None, feed)
    assert np.abs(images - expected).max() <= 2e-4


def test_an_encoder_of_another_generator_is_not_exported(
    tmp_path: Path, run_with_encoder: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_with_encoder, run)
    state = load_newest(run)
    state["ema"]["synthesis.constant"] += 0.01
    state["nimg"] = 400
    save_checkpoint(run, 400, state, 3)
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out")
    assert code == 2
    assert "trained for another generator, that of 0.2 kimg" in output
    assert "train-encoder" in output
    assert "--no-encoder" in output
    assert not (tmp_path / "out").exists()
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out", "--no-encoder")
    assert code == 0, output
    assert not (tmp_path / "out" / "encoder.onnx").exists()


def test_a_damaged_encoder_is_named(tmp_path: Path, run_with_encoder: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_with_encoder, run)
    weights = run / "encoder" / "encoder.safetensors"
    assert load(weights.read_bytes())
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out")
    assert (code, "encoder.safetensors is damaged" in output) == (2, True), output
    (run / "encoder" / "encoder.json").write_text("{}")
    code, output = invoke(model_app, "export", run, "--out", tmp_path / "out")
    assert (code, "encoder can't be read" in output) == (2, True), output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-kimg", "0"], "--max-kimg"),
        (["--max-minutes", "nan"], "--max-minutes"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_a_bad_option_is_named(
    tiny_run: Path, tiny_dataset: Path, arguments: list[str], message: str
) -> None:
    code, output = invoke(
        encoder_app, "train-encoder", tiny_run, "--data", tiny_dataset, *arguments
    )
    assert (code, message in output) == (2, True), output
    assert not (tiny_run / "encoder").exists()


def test_wrong_runs_and_datasets_are_named(
    tmp_path: Path, tiny_run: Path, tiny_dataset: Path, generated: PreparedDataset
) -> None:
    for run, data, message in (
        (tmp_path, tiny_dataset, "is no training run"),
        (tiny_run, tmp_path, "is not a readable dataset"),
        (tiny_run, generated.path, "was trained on another dataset"),
    ):
        code, output = invoke(encoder_app, "train-encoder", run, "--data", data)
        assert (code, message in output) == (2, True), output


def test_a_dataset_without_validation_photos_is_named(
    tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PreparedDataset(tiny_dataset)
    monkeypatch.setattr(data, "splits", np.full_like(data.splits, "train"))
    with pytest.raises(CompanionError, match="no validation photos to compare"):
        evaluate_encoder(lambda photos, _: photos, data, load_extractor())

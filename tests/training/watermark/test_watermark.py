"""The watermark: its code, its distortions, and a short training from end to end."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import models.watermark as watermark_module
from models.manifest import (
    ALL_TREATMENTS,
    WATERMARK_FILES,
    WatermarkDetection,
    WatermarkRecord,
)
from models.watermark import (
    FRAME_PX,
    MIN_SIDE_PX,
    PATTERN_PX,
    PAYLOAD_BITS,
    PLACES,
    PSNR_DB,
    SEARCHED_PX,
    Place,
    allowed_errors,
    find,
    frames,
    lay_over,
    payload,
    thumbnail,
)
from service.inference.generation import GeneratorSession
from service.model_store.inspection import inspect_export
from training.companion import CompanionError, CompanionSettings, CompanionTick
from training.companion_cli import app as watermark_app
from training.dataset import PreparedDataset
from training.model_cli import app as model_app
from training.watermark import watermark as watermark_training
from training.watermark.detection import TREATMENTS, Watermark
from training.watermark.distortions import jpeg, place
from training.watermark.watermark_folder import load_watermark
from training.watermark.watermark_training import WatermarkTrainer, add_patterns

from .conftest import image_of, invoke


def in_torch(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 127.5 - 1


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


def test_chance_finds_no_more_marks_than_promised() -> None:
    for payloads in (1, 3, 40, 2000):
        errors = allowed_errors(payloads)
        tries = payloads * len(PLACES) / 2**PAYLOAD_BITS
        tail = sum(math.comb(PAYLOAD_BITS, k) for k in range(errors + 1))
        assert tries * tail <= 1e-6 < tries * (tail + math.comb(PAYLOAD_BITS, errors + 1))


def test_models_have_payloads_of_their_own() -> None:
    bits = np.stack([payload(f"{i:064x}") for i in range(200)])
    assert bits.shape == (200, PAYLOAD_BITS)
    assert 0.45 < bits.mean() < 0.55
    apart = (bits[:, None] != bits[None]).sum(axis=2)[~np.eye(200, dtype=bool)]
    assert apart.min() > allowed_errors(1)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("shape", [(128, 128), (130, 260)])
def test_a_pattern_has_the_same_energy_in_every_image(
    channels: int, shape: tuple[int, int]
) -> None:
    pixels = np.full((*shape, channels), 128, np.uint8)
    pattern = np.random.default_rng(1).normal(size=(3, PATTERN_PX, PATTERN_PX)).astype(np.float32)
    for strength in (0.1, 100):
        marked = lay_over(pixels, pattern * np.float32(strength))
        assert marked.shape == pixels.shape
        colours = slice(0, min(channels, 3))
        got = psnr(marked[..., colours], pixels[..., colours])
        # A grey image takes the pattern's luminance, which has less energy.
        assert got == pytest.approx(PSNR_DB, abs=0.1) or (channels == 1 and got > PSNR_DB)
        if channels == 4:
            assert np.array_equal(marked[..., 3], pixels[..., 3])


def test_white_and_black_stay_in_range() -> None:
    pattern = np.random.default_rng(1).normal(size=(3, PATTERN_PX, PATTERN_PX)).astype(np.float32)
    white = lay_over(np.full((128, 128, 3), 255, np.uint8), pattern)
    assert white.min() > 235
    assert (white == 255).mean() > 0.3


def test_training_marks_as_the_service_does() -> None:
    pixels = image_of(3)
    pattern = np.random.default_rng(2).normal(size=(3, PATTERN_PX, PATTERN_PX)).astype(np.float32)
    theirs = add_patterns(in_torch(pixels), torch.from_numpy(pattern)[None])
    ours = lay_over(pixels, pattern)
    back = ((theirs[0].permute(1, 2, 0).numpy() + 1) * 127.5).clip(0, 255)
    assert np.abs(back - ours).max() < 0.51  # rounding


@pytest.mark.parametrize("where", [Place(1.0, 0.0, 0.0), Place(0.75, 0.25, -0.25)])
def test_training_places_as_the_service_does(where: Place) -> None:
    pixels = image_of(4)
    theirs = place(in_torch(pixels), where)[0].numpy()
    (ours,) = frames(pixels, [where])
    assert ours.shape == theirs.shape == (3, FRAME_PX, FRAME_PX)
    inner = np.abs(ours - theirs)[:, 2:-2, 2:-2]
    assert np.median(inner) < 0.01


@pytest.mark.parametrize("quality", [60, 75, 90])
def test_jpeg_is_near_the_real_one(quality: int) -> None:
    pixels = image_of(5)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    real = np.asarray(Image.open(file))
    ours = ((jpeg(in_torch(pixels), quality)[0].permute(1, 2, 0).numpy() + 1) * 127.5).round()
    lost = psnr(real, pixels)
    assert psnr(ours, pixels) == pytest.approx(lost, abs=1.5)
    assert psnr(ours, real) > lost


def test_jpeg_lets_gradients_through() -> None:
    x = in_torch(image_of(6)).requires_grad_(True)
    jpeg(x, 70).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().mean() > 0


def test_a_thumbnail_lays_alpha_over_white() -> None:
    pixels = np.zeros((128, 128, 4), np.uint8)
    assert np.allclose(thumbnail(pixels, 8, 8), 1)
    assert np.allclose(thumbnail(pixels[..., :1], 8, 8), -1)


def test_a_mark_is_found_where_its_bits_are() -> None:
    bits = payload("a" * 64)
    pixels = image_of(7)
    (wanted,) = frames(pixels, [PLACES[40]])

    def read(shown: np.ndarray) -> np.ndarray:
        """Knows one frame, and sees noise in all others."""
        noise = np.random.default_rng(int(shown.sum() * 1e3) % 2**32).normal(
            size=(len(shown), PAYLOAD_BITS)
        )
        for i, one in enumerate(shown):
            if np.array_equal(one, wanted):
                noise[i] = np.where(bits, 1, -1)
                noise[i, :3] *= -1
        return noise.astype(np.float32)

    found = find(pixels, read, [payload("b" * 64), bits])
    assert found is not None
    assert (found.index, found.errors, found.place) == (1, 3, PLACES[40])
    assert find(pixels, read, [payload("b" * 64)]) is None
    assert find(pixels, read, []) is None


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_large_image_is_searched_like_a_small_one(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile photo of 40 megapixels must not be gone over again for each place."""
    large, sizes, seen = image_of(8, 1030, channels)[:900], [], []

    def noted(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
        sizes.append(max(pixels.shape[:2]))
        return thumbnail(pixels, width, height)

    def read(shown: np.ndarray) -> np.ndarray:
        seen.append(shown)
        return np.zeros((len(shown), PAYLOAD_BITS), np.float32)

    whole = frames(large, PLACES[:1])
    monkeypatch.setattr(watermark_module, "thumbnail", noted)
    assert find(large, read, [payload("a" * 64)]) is None
    assert max(sizes) < 2 * SEARCHED_PX
    assert len(sizes) < len(PLACES) / 5
    assert sum(map(len, seen)) == len(PLACES)
    assert np.abs(seen[0] - whole).max() < 0.05


@pytest.mark.slow
def test_a_watermark_learns_to_be_read(dataset: Path) -> None:
    ticks: list[CompanionTick] = []
    settings = CompanionSettings(
        max_kimg=16
    )  # 3.2 were enough here; rounding makes it more or less
    trainer = WatermarkTrainer(PreparedDataset(dataset), settings, torch.device("cpu"))
    trainer.train(ticks.append, lambda: bool(ticks) and ticks[-1].means["bits_right"] > 0.65)
    assert ticks[0].means["bits_right"] < 0.6
    assert ticks[-1].means["bits_right"] > 0.65


def test_a_watermark_is_kept_with_its_figures(watermark: Path) -> None:
    encoder, decoder, card = load_watermark(watermark)
    assert card.nimg == 32
    assert card.judgement is not None
    assert card.judgement.psnr_db > 40
    assert card.judgement.unmarked == 100
    assert [d.treatment for d in card.judgement.detections] == list(TREATMENTS)
    assert {d.pictures for d in card.judgement.detections} == {3}
    assert not any(p.requires_grad for p in (*encoder.parameters(), *decoder.parameters()))
    with Image.open(watermark / "watermark.png") as sheet:
        assert sheet.height > 3 * MIN_SIDE_PX
    weights = watermark / "watermark.safetensors"
    whole = weights.read_bytes()
    try:
        weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(CompanionError, match="damaged"):
            load_watermark(watermark)
    finally:
        weights.write_bytes(whole)


@pytest.mark.slow
def test_an_export_takes_the_watermark_along(
    watermark: Path, tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    code, output = invoke(model_app, "export", tiny_run, "--out", out, "--watermark", watermark)
    assert code == 0, output
    manifest, _ = inspect_export(out)
    assert manifest.watermark is not None
    assert manifest.watermark.max_abs_error < 1e-4
    assert not manifest.watermark.proven
    session = GeneratorSession(
        (out / "generator.onnx").read_bytes(),
        manifest,
        others={name: (out / name).read_bytes() for name in WATERMARK_FILES},
        device="cpu",
    )
    assert session.watermark is not None
    marked = session.watermark.mark(image_of(2))
    encoder, decoder, _ = load_watermark(watermark)
    theirs = Watermark(encoder, decoder).mark(image_of(2), payload(manifest.model_hash))
    assert np.abs(marked.astype(int) - theirs).max() <= 1


def test_judging_that_was_interrupted_goes_on(
    watermark: Path,
    dataset: Path,
    tiny_dataset: Path,
    tiny_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Half an hour of training is not lost with it."""

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    out, few = tmp_path / "watermark", ("--judged", "2", "--unmarked", "64")
    with monkeypatch.context() as patch:
        patch.setattr(watermark_training, "measure_false_positives", interrupted)
        training = ("train-watermark", dataset, "--out", out, "--max-kimg", "0.032", *few)
        assert invoke(watermark_app, *training)[0] == 130
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in watermark.iterdir())
    # Seed and photos are the other's, and so are the weights.
    weights = "watermark.safetensors"
    assert (out / weights).read_bytes() == (watermark / weights).read_bytes()
    assert load_watermark(out)[2].judgement is None
    export = ("export", tiny_run, "--out", tmp_path / "export", "--watermark", out)
    code, output = invoke(model_app, *export)
    assert code == 2
    assert "judge-watermark" in output
    code, output = invoke(watermark_app, "judge-watermark", out, "--data", tiny_dataset, *few)
    assert code == 2
    assert "another dataset" in output
    for count in (2, 4):  # and may be done again
        counts = ("--judged", str(count), "--unmarked", "64")
        code, output = invoke(watermark_app, "judge-watermark", out, "--data", dataset, *counts)
        assert code == 0, output
        judgement = load_watermark(out)[2].judgement
        assert judgement is not None
        assert judgement.detections[0].pictures == count
        assert f"{judgement.psnr_db:.1f} dB" in output


def test_proven_is_what_holds_after_each_single_treatment() -> None:
    def record(found: float, false_positives: float, treated: str = "JPEG 70") -> WatermarkRecord:
        held = [
            WatermarkDetection(treatment=name, pictures=9, found=share, bits_right=1)
            for name, share in (("as marked", 1.0), (treated, found))
        ]
        return WatermarkRecord(
            nimg=1,
            dataset_hash="0" * 64,
            psnr_db=40,
            detections=tuple(held),
            unmarked=1,
            payloads=1,
            false_positives=false_positives,
            max_abs_error=0,
        )

    assert record(0.99, 1e-6).proven
    assert not record(0.98, 1e-6).proven
    assert not record(1.0, 2e-6).proven
    for name in TREATMENTS:
        assert record(0.875, 1e-6, name).proven == (name == ALL_TREATMENTS)
    assert not record(0.99, 0).model_copy(update={"detections": ()}).proven


def test_what_can_not_be_trained_is_named(
    dataset: Path, tiny_dataset: Path, tmp_path: Path
) -> None:
    few, out = ("--max-kimg", "0.032"), tmp_path / "w"
    code, output = invoke(watermark_app, "train-watermark", tiny_dataset, "--out", out, *few)
    assert code == 2
    assert "128" in output
    assert not out.exists()
    code, output = invoke(watermark_app, "train-watermark", dataset, "--out", tmp_path, *few)
    assert code == 2
    assert "exists" in output


def test_a_damaged_watermark_is_named(tmp_path: Path) -> None:
    with pytest.raises(CompanionError, match="train-watermark"):
        load_watermark(tmp_path)

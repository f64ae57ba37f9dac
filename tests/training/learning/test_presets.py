"""Each preset is built, stepped once with R1, and exported."""

import numpy as np
import pytest
import torch

from training.dataset import DatasetInfo
from training.export import parity
from training.export.graphs import to_onnx
from training.learning.adversarial import AdversarialPair
from training.learning.config import merge, resolve
from training.learning.device import compute_dtype
from training.learning.distributed import Ranks
from training.learning.loader import Batch, to_float
from training.learning.presets import PRESET_SIZE_PX, PRESETS, default_preset
from training.learning.run import build_networks


def info(size: int) -> DatasetInfo:
    return DatasetInfo(
        hash="0" * 64,
        width=size,
        height=size,
        channels=3,
        categories=("a", "b"),
        fit="crop",
        background="white",
        counts={"train": {"a": 1, "b": 1}, "validation": {"a": 0, "b": 0}},
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_built_stepped_and_exported(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    size = PRESET_SIZE_PX[name]
    settings = {**PRESETS[name], "preset": name, "max_kimg": 1, "batch_size": 2}
    config = resolve(merge(settings, {}))
    generator, discriminator = build_networks(config, info(size))
    if size > 256:  # a step and an export take most of a minute, and are those of 256 px
        with torch.inference_mode():
            labels, noise = torch.eye(2)[:1], torch.zeros(1, generator.noise_dim)
            image = generator(torch.zeros(1, config.model.z_dim), labels, None, noise)
            assert image.shape == (1, 3, size, size)
            assert torch.isfinite(discriminator(image, labels)).all()
        return
    dtype = compute_dtype(config, torch.device("cpu"))
    pair = AdversarialPair(generator, discriminator, config, dtype)
    photos = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), dtype=np.uint8)
    before = generator.synthesis.constant.detach().clone()
    statistics = pair.step(
        Batch(to_float(torch.from_numpy(photos)), torch.eye(2)),
        0,
        p=0.5,
        ranks=Ranks(),
    )
    assert statistics.r1_penalty is not None
    assert torch.isfinite(torch.stack(list(vars(statistics).values()))).all()
    assert not torch.equal(generator.synthesis.constant, before)

    generator.eval().requires_grad_(False).update_w_avg(256)
    # All batch sizes would take minutes at 512 px; other tests have them at few.
    monkeypatch.setattr(parity, "PARITY_BATCHES", (1,))
    monkeypatch.setattr(parity, "PARITY_PSI", (0.7,))
    certificate = parity.measure_parity(generator, to_onnx(generator, "fp32"), "fp32")
    assert certificate.max_abs_error <= 1e-4


def test_every_preset_has_its_size_and_is_chosen_for_it() -> None:
    assert PRESETS.keys() == PRESET_SIZE_PX.keys()
    assert default_preset(32, on_cpu=True) == "cpu-demo"
    assert {default_preset(s, on_cpu=True) for s in (64, 128, 512)} == {"cpu-64"}
    assert [default_preset(s, on_cpu=False) for s in (64, 128, 192, 512, 1024)] == [
        "gpu-64",
        "gpu-128",
        "gpu-256",
        "gpu-512",
        "gpu-512",
    ]

"""Images of any kind become features; weights that are not there are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from training.features.efficientnet_lite import (
    WeightsError,
    load_efficientnet_lite,
    normalize,
)
from training.features.extractor import FEATURE_DIM, LiteFeatures, to_rgb_tensor
from training.features.load import load_extractor


@pytest.fixture(scope="module")
def extractor() -> LiteFeatures:
    return LiteFeatures()


@pytest.fixture(scope="module")
def photos(sample_images: Callable[[str, int, int], NDArray[np.uint8]]) -> NDArray[np.uint8]:
    return sample_images("mug", 6, 48)


def test_features_do_not_depend_on_the_batch(
    extractor: LiteFeatures, photos: NDArray[np.uint8]
) -> None:
    whole = extractor(photos)
    assert whole.shape == (len(photos), FEATURE_DIM)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, extractor(photos))
    alone = np.concatenate([extractor(photos[i : i + 1]) for i in range(len(photos))])
    np.testing.assert_allclose(whole, alone, atol=1e-4)


def test_they_are_what_the_network_pools_of_normalised_images(extractor: LiteFeatures) -> None:
    images = np.random.default_rng(1).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    with torch.no_grad():
        pooled = load_efficientnet_lite("lite2")(normalize(to_rgb_tensor(images)))
    np.testing.assert_allclose(extractor(images), pooled.numpy(), atol=1e-4)


def test_no_images_give_no_features(extractor: LiteFeatures) -> None:
    assert extractor(np.empty((0, 8, 8, 3), dtype=np.uint8)).shape == (0, FEATURE_DIM)


def test_the_report_can_say_what_they_are(extractor: LiteFeatures) -> None:
    assert "FID" not in extractor.info.frechet_name
    assert extractor.info.provenance


def test_grey_and_alpha_become_rgb(photos: NDArray[np.uint8]) -> None:
    grey = photos[..., :1]
    torch.testing.assert_close(to_rgb_tensor(grey, 64), to_rgb_tensor(grey.repeat(3, axis=3), 64))
    opaque = np.concatenate([photos, np.full_like(grey, 255)], axis=3)
    torch.testing.assert_close(to_rgb_tensor(opaque, 64), to_rgb_tensor(photos, 64))
    clear = np.concatenate([photos, np.zeros_like(grey)], axis=3)
    torch.testing.assert_close(to_rgb_tensor(clear, 64), torch.ones(len(photos), 3, 64, 64))


def test_images_of_any_size_and_aspect_fit(extractor: LiteFeatures) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 96, 3), dtype=np.uint8)
    assert to_rgb_tensor(images, 64).shape == (2, 3, 64, 64)
    assert to_rgb_tensor(images).shape == (2, 3, 40, 96)
    assert np.isfinite(extractor(images)).all()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 2), np.uint8)],
)
def test_other_arrays_are_refused(images: Any) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \[N, height, width"):
        to_rgb_tensor(images, 64)


def test_inception_without_its_weights_says_where_to_put_them(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    with pytest.raises(WeightsError, match=r"no weights at .*weights\.pth .*download https://"):
        load_extractor("inception", weights=weights)
    weights.write_bytes(b"something else")
    with pytest.raises(WeightsError, match=r"weights\.pth is not weights-inception-2015"):
        load_extractor("inception", weights=weights)


def test_dinov2_without_its_weights_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(WeightsError, match=r"no weights in timm's cache.*--feature-weights"):
        load_extractor("dinov2")
    weights = tmp_path / "model.safetensors"
    with pytest.raises(WeightsError, match=r"model\.safetensors holds no weights of timm/"):
        load_extractor("dinov2", weights=weights)
    torch.save({"code": 1}, weights)
    with pytest.raises(WeightsError, match=r"model\.safetensors holds no weights of timm/"):
        load_extractor("dinov2", weights=weights)
    save_file({"other": torch.zeros(1)}, weights)
    with pytest.raises(WeightsError, match=r"model\.safetensors holds no weights of timm/"):
        load_extractor("dinov2", weights=weights)


@pytest.mark.slow
def test_dinov2_takes_its_weights_from_a_file(tmp_path: Path, photos: NDArray[np.uint8]) -> None:
    torch.manual_seed(0)
    network = timm.create_model("vit_small_patch14_dinov2", pretrained=False)
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    extractor = load_extractor("dinov2", weights=tmp_path / "model.safetensors")
    features = extractor(photos)
    assert features.shape == (len(photos), extractor.info.dimensions)
    assert features.std(axis=0).max() > 0
    assert "FID" not in extractor.info.frechet_name

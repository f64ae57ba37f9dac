import hashlib

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from training.metrics import distances, features
from training.metrics.features import (
    FEATURE_DIM,
    CatalogueFeatures,
    FeatureError,
    load_extractor,
    to_rgb_tensor,
)

SIZE_PX = 48
PER_CATEGORY = 24
CATEGORIES = ("bag", "bottle", "box", "chair", "lamp")


@pytest.fixture(scope="module")
def extractor():
    return CatalogueFeatures()


@pytest.fixture(scope="module")
def photos(sample_images):
    """Rendered photos, uint8 [categories, PER_CATEGORY, SIZE_PX, SIZE_PX, 3]."""
    return np.asarray([sample_images(name, PER_CATEGORY, SIZE_PX) for name in CATEGORIES])


@pytest.fixture(scope="module")
def real(photos):
    """The first half of each category: what the other half is compared with."""
    return photos[:, : PER_CATEGORY // 2].reshape(-1, SIZE_PX, SIZE_PX, 3)


@pytest.fixture(scope="module")
def other(photos):
    """The second half of each category, in the same order."""
    return photos[:, PER_CATEGORY // 2 :].reshape(-1, SIZE_PX, SIZE_PX, 3)


def blurred(images, sigma_px):
    return gaussian_filter(images.astype(float), (0, sigma_px, sigma_px, 0)).astype(np.uint8)


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(0, deviation, images.shape)
    return (images + noise).clip(0, 255).astype(np.uint8)


def tinted(images, strength):
    return (images * [1, 1 - strength, 1 - 2 * strength]).astype(np.uint8)


def without_categories(images, dropped):
    """As many pictures, but of fewer categories."""
    kept = images[dropped * PER_CATEGORY // 2 :]
    return kept[np.arange(len(images)) % len(kept)]


def duplicated(images, distinct):
    """As many pictures, but only a few different ones of each category."""
    half = PER_CATEGORY // 2
    return images[np.arange(len(images)) // half * half + np.arange(len(images)) % distinct]


SPOILED = {
    "blur": [lambda x: blurred(x, 0.7), lambda x: blurred(x, 1.5)],
    "noise": [lambda x: noisy(x, 8), lambda x: noisy(x, 25)],
    "colour": [lambda x: tinted(x, 0.05), lambda x: tinted(x, 0.2)],
    "dropped category": [lambda x: without_categories(x, 1), lambda x: without_categories(x, 3)],
    "duplicates": [lambda x: duplicated(x, 4), lambda x: duplicated(x, 1)],
}


@pytest.mark.parametrize("measure", [distances.frechet_distance, distances.kernel_distance])
@pytest.mark.parametrize("kind", SPOILED)
def test_distances_rise_with_what_a_generator_gets_wrong(extractor, real, other, kind, measure):
    wanted = extractor(real)
    distances = [measure(wanted, extractor(other))]
    distances += [measure(wanted, extractor(spoil(other))) for spoil in SPOILED[kind]]
    assert distances[0] < distances[1] < distances[2]


def test_neighbour_scores_move_the_right_way(extractor, real, other):
    wanted, floor = extractor(real), extractor(other)
    few, dim = extractor(duplicated(other, 1)), extractor(noisy(other, 60))
    assert distances.recall(wanted, few) < 0.5 * distances.recall(wanted, floor)
    assert distances.coverage(wanted, few) < 0.7 * distances.coverage(wanted, floor)
    assert distances.precision(wanted, dim) < 0.5 * distances.precision(wanted, floor)
    assert distances.density(wanted, dim) < 0.5 * distances.density(wanted, floor)


def test_the_extractor_is_the_one_that_its_hash_fixes(extractor):
    path = features.files("training") / "data" / features.WEIGHTS_FILE
    data = path.read_bytes()
    assert hashlib.sha256(data).hexdigest() == extractor.info.sha256
    assert len(data) < 2_000_000
    assert "FID" not in extractor.info.frechet_name
    assert extractor.info.provenance


def test_another_file_is_refused(tmp_path):
    data = bytearray((features.files("training") / "data" / features.WEIGHTS_FILE).read_bytes())
    data[-1] ^= 1
    changed = tmp_path / "features.safetensors"
    changed.write_bytes(data)
    with pytest.raises(FeatureError, match=r"features\.safetensors has SHA-256 .* install"):
        CatalogueFeatures(weights=changed)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FeatureError, match=r"gone\.safetensors can't be read .* install"):
        CatalogueFeatures(weights=tmp_path / "gone.safetensors")


def test_features_do_not_depend_on_the_batch(extractor, other):
    whole = extractor(other)
    assert whole.shape == (len(other), FEATURE_DIM)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, extractor(other))
    alone = np.concatenate([extractor(other[i : i + 1]) for i in range(len(other))])
    np.testing.assert_allclose(whole, alone, atol=1e-4)


def test_no_pictures_give_no_features(extractor):
    assert extractor(np.empty((0, 8, 8, 3), dtype=np.uint8)).shape == (0, FEATURE_DIM)


def test_grey_and_alpha_become_rgb(other):
    grey = other[..., :1]
    torch.testing.assert_close(to_rgb_tensor(grey, 64), to_rgb_tensor(grey.repeat(3, axis=3), 64))
    opaque = np.concatenate([other, np.full_like(grey, 255)], axis=3)
    torch.testing.assert_close(to_rgb_tensor(opaque, 64), to_rgb_tensor(other, 64))
    clear = np.concatenate([other, np.zeros_like(grey)], axis=3)
    torch.testing.assert_close(to_rgb_tensor(clear, 64), torch.ones(len(other), 3, 64, 64))


def test_pictures_of_any_size_and_aspect_fit(extractor):
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 96, 3), dtype=np.uint8)
    assert to_rgb_tensor(images, 64).shape == (2, 3, 64, 64)
    assert to_rgb_tensor(images, None).shape == (2, 3, 40, 96)
    assert np.isfinite(extractor(images)).all()


@pytest.mark.parametrize(
    "images",
    [np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((2, 8, 8, 2), np.uint8)],
)
def test_other_arrays_are_refused(images):
    with pytest.raises(ValueError, match=r"expected uint8 \[N, height, width"):
        to_rgb_tensor(images, 64)


def test_inception_without_its_weights_says_where_to_put_them(tmp_path):
    weights = tmp_path / "weights.pth"
    with pytest.raises(FeatureError, match=r"no weights at .*weights\.pth .*download https://"):
        load_extractor("inception", inception_weights=weights)
    weights.write_bytes(b"something else")
    with pytest.raises(FeatureError, match=r"weights\.pth is not weights-inception-2015"):
        load_extractor("inception", inception_weights=weights)

"""What an upscaler is trained on: blur as the generator's, and crops that lie on each other."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from training.learning.loader import to_float
from training.upscaling.crops import CropSampler, resize
from training.upscaling.degradation import GeneratorBlur, weave


def noise_images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """White noise: as much of every frequency."""
    return np.random.default_rng(seed).integers(0, 256, (count, *size, 3), dtype=np.uint8)


def blurred(images: np.ndarray, radius: float) -> np.ndarray:
    kernel = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(image).filter(kernel)) for image in images])


def power(images: torch.Tensor) -> torch.Tensor:
    """Of the frequencies above a quarter of a cycle a pixel, over those below."""
    spectrum = torch.fft.rfft2(images.mean(dim=1)).abs().square().mean(dim=0)
    high = spectrum[spectrum.shape[0] // 4 : -spectrum.shape[0] // 4, spectrum.shape[1] // 2 :]
    return high.mean() / spectrum[1:8, 1:8].mean()


@pytest.mark.parametrize("size", [(32, 32), (48, 32), (14, 10)])
def test_photos_become_as_soft_as_the_generators_images(size: tuple[int, int]) -> None:
    photos, generated = noise_images(64, size), blurred(noise_images(64, size, 1), 0.8)
    blur = GeneratorBlur(to_float(torch.from_numpy(photos)), to_float(torch.from_numpy(generated)))
    sharp = to_float(torch.from_numpy(noise_images(64, size, 2)))
    soft = blur(sharp, torch.ones(64))
    assert soft.shape == sharp.shape
    expected = to_float(torch.from_numpy(blurred(noise_images(64, size, 2), 0.8)))
    assert (soft - expected).abs().mean() < 0.35 * (sharp - expected).abs().mean()


def test_each_image_has_its_own_exponent_and_zero_leaves_it_sharp() -> None:
    photos, generated = noise_images(64, (32, 32)), blurred(noise_images(64, (32, 32), 1), 0.8)
    blur = GeneratorBlur(to_float(torch.from_numpy(photos)), to_float(torch.from_numpy(generated)))
    sharp = to_float(torch.from_numpy(noise_images(3, (32, 32), 2)))
    soft = blur(sharp, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(soft[0], sharp[0], rtol=0, atol=1e-5)
    left = [float(power(one[None])) for one in soft]
    assert left[0] > 2 * left[1] > 4 * left[2]


def test_a_generator_with_more_detail_than_photos_sharpens_nothing() -> None:
    photos, generated = blurred(noise_images(64, (32, 32)), 1.0), noise_images(64, (32, 32), 1)
    blur = GeneratorBlur(to_float(torch.from_numpy(photos)), to_float(torch.from_numpy(generated)))
    assert blur.amplitudes.max() <= 1
    sharp = to_float(torch.from_numpy(noise_images(2, (32, 32), 2)))
    assert power(blur(sharp, torch.ones(2))) <= 1.01 * power(sharp)


def test_pale_images_are_not_taken_for_blurred_ones() -> None:
    photos = noise_images(64, (32, 32))
    pale = (128 + 0.5 * (noise_images(64, (32, 32), 1) - 128.0)).astype(np.uint8)
    blur = GeneratorBlur(to_float(torch.from_numpy(photos)), to_float(torch.from_numpy(pale)))
    sharp = to_float(torch.from_numpy(noise_images(2, (32, 32), 2)))
    assert (blur(sharp, torch.ones(2)) - sharp).abs().mean() < 0.15 * sharp.abs().mean()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_a_weave_is_what_changes_from_pixel_to_pixel_and_no_outline(channels: int) -> None:
    ramp = torch.linspace(-1, 1, 16).expand(2, channels, 16, 16).clone()
    assert weave(ramp)[..., 1:-1].abs().max() < 1e-6
    board = (torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2.0 - 1
    torch.testing.assert_close(
        weave(ramp / 2 + 0.05 * board)[..., 1:-1, 1:-1],
        (0.05 * board).expand_as(ramp)[..., 1:-1, 1:-1],
    )
    ramp[..., 8:] = -1
    assert weave(ramp).abs().max() <= 0.12


def smooth_photos(count: int, size: tuple[int, int]) -> np.ndarray:
    """Soft blobs, which lose little when made small."""
    return resize(noise_images(count, (6, 6)), (size[1], size[0]))


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("mirror", [False, True])
def test_small_and_large_crops_show_the_same_place(factor: int, mirror: bool) -> None:
    photos = smooth_photos(12, (24 * factor, 16 * factor))
    generated = resize(photos, (16, 24))  # as sharp as photos: no blur, and hardly a weave
    crops = CropSampler(photos, generated, factor, 8 * factor, mirror).draw(16, 0, 0)
    assert crops.small.shape == (16, 3, 8, 8)
    assert crops.large.shape == (16, 3, 8 * factor, 8 * factor)
    made_small = torch.nn.functional.avg_pool2d(crops.large, factor)
    assert (made_small - crops.small).abs().mean() < 0.03
    assert (made_small.flip(3) - crops.small).abs().mean() > 0.1


def test_mirrored_crops_occur_only_where_wanted() -> None:
    # Brightness rises to the right in all of them.
    row = np.linspace(0, 255, 32).astype(np.uint8)
    photos = np.broadcast_to(row[None, None, :, None], (4, 32, 32, 3)).copy()
    for mirror, expected in ((False, {1}), (True, {-1, 1})):
        crops = CropSampler(photos, resize(photos, (16, 16)), 2, 16, mirror).draw(32, 0, 0)
        for images in (crops.small, crops.large):
            rises = (images[..., -1] - images[..., 0]).mean(dim=(1, 2)).sign()
            assert {int(sign) for sign in rises} == expected


def test_seed_and_position_fix_what_is_drawn() -> None:
    photos = smooth_photos(12, (32, 32))
    sampler = CropSampler(photos, resize(photos, (16, 16)), 2, 16, True)
    first = sampler.draw(4, 0, 8)
    again = CropSampler(photos, resize(photos, (16, 16)), 2, 16, True).draw(4, 0, 8)
    for name in ("small", "large"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        for seed, position in ((1, 8), (0, 12)):
            assert not torch.equal(
                getattr(first, name), getattr(sampler.draw(4, seed, position), name)
            )


def test_small_crops_are_woven_as_generated_images_are_and_large_ones_are_not() -> None:
    photos = smooth_photos(12, (32, 32))
    board = ((np.arange(16)[:, None] + np.arange(16)) % 2 * 24 - 12)[..., None]
    woven = np.clip(resize(photos, (16, 16)) + board, 0, 255).astype(np.uint8)
    sampler = CropSampler(photos, woven, 2, 32, False)
    crops = sampler.draw(64, 0, 0)
    made_small = torch.nn.functional.avg_pool2d(crops.large, 2)
    sign = torch.from_numpy(np.sign(board)[..., 0])
    strengths = ((crops.small - made_small) * sign).mean(dim=(1, 2, 3)) / (12 / 127.5)
    assert strengths.max() > 0.7  # brightness is cut at black and white
    assert 0.1 < (strengths.abs() < 0.05).float().mean() < 0.6  # some stay clean


def test_crops_are_looked_at_from_every_place_of_a_stride() -> None:
    photos = smooth_photos(4, (32, 32))
    sampler = CropSampler(photos, resize(photos, (16, 16)), 2, 16, True)
    offsets = [sampler.draw(1, 0, position).offset for position in range(200)]
    for axis in (0, 1):
        assert {offset[axis] for offset in offsets} == set(range(8))


def test_a_crop_is_no_larger_than_a_small_image() -> None:
    photos = smooth_photos(4, (32, 48))
    crops = CropSampler(photos, resize(photos, (24, 16)), 2, 96, True).draw(2, 0, 0)
    assert crops.small.shape == (2, 3, 16, 24)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_resizing_keeps_channels_and_one_colour(channels: int) -> None:
    images = np.full((2, 16, 24, channels), 200, dtype=np.uint8)
    for size in ((12, 8), (96, 64)):
        resized = resize(images, size)
        assert resized.shape == (2, size[1], size[0], channels)
        assert np.abs(resized.astype(int) - 200).max() <= 1

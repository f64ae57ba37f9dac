"""The upscaler's shapes, and that its pixels come out where they belong."""

import pytest
import torch
from torch.nn import functional as F

from models.upscaler import Factor, Upscaler, UpscalerShape


def make_upscaler(factor: Factor = 4, channels: int = 3) -> Upscaler:
    torch.manual_seed(0)
    shape = UpscalerShape(channels=channels, factor=factor)
    return Upscaler(shape).eval().requires_grad_(False)


def images(*size: int) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [(16, 16), (14, 10), (48, 64)])
def test_both_sides_grow_by_the_factor(
    factor: Factor, channels: int, size: tuple[int, int]
) -> None:
    upscaled = make_upscaler(factor, channels)(images(2, channels, *size))
    assert upscaled.shape == (2, channels, factor * size[0], factor * size[1])


@pytest.mark.parametrize("factor", [2, 4])
def test_an_untrained_one_is_nearly_bilinear(factor: Factor) -> None:
    small = images(2, 3, 16, 16)
    bilinear = F.interpolate(small, scale_factor=factor, mode="bilinear")
    assert 0 < (make_upscaler(factor)(small) - bilinear).abs().mean() < 0.2


@pytest.mark.parametrize("factor", [2, 4])
def test_whatever_was_learnt_one_colour_has_no_checkerboard(factor: Factor) -> None:
    upscaler = make_upscaler(factor)
    torch.manual_seed(1)
    for parameter in upscaler.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    shown = upscaler(torch.full((1, 3, 64, 64), 0.3))
    edge = 22 * factor  # as far as padding is seen
    inside = shown[..., edge:-edge, edge:-edge]
    assert (inside - 0.3).abs().min() > 1e-3
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside), rtol=1e-4, atol=0)


@pytest.mark.parametrize("factor", [2, 4])
def test_what_moves_in_the_small_image_moves_as_far_in_the_large_one(factor: Factor) -> None:
    upscaler, small = make_upscaler(factor), images(1, 3, 48, 48)
    # By two, which is one position of the trunk; the edges see their padding.
    moved = upscaler(small.roll((2, 4), dims=(2, 3)))
    expected = upscaler(small).roll((2 * factor, 4 * factor), dims=(2, 3))
    inside = slice(20 * factor, 28 * factor)
    torch.testing.assert_close(
        moved[..., inside, inside], expected[..., inside, inside], rtol=1e-4, atol=1e-5
    )


def test_an_image_does_not_depend_on_its_batch() -> None:
    upscaler, small = make_upscaler(), images(3, 3, 16, 16)
    together = upscaler(small)
    for index in range(3):
        alone = upscaler(small[index : index + 1])
        torch.testing.assert_close(alone, together[index : index + 1], rtol=1e-5, atol=1e-6)
    assert (together[0] - together[1]).abs().max() > 0.1


def test_feature_maps_of_bfloat16_give_nearly_the_same() -> None:
    upscaler, small = make_upscaler(), images(1, 3, 16, 16)
    upscaled = upscaler(small, torch.bfloat16)
    assert upscaled.dtype == torch.float32
    assert (upscaled - upscaler(small)).abs().max() < 0.02

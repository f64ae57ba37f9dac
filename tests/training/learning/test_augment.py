"""Augmentation: identity at probability 0, gradients, ranges, and the adaptive p."""

import math

import pytest
import torch
from torch.nn import functional as F

from training.learning.augment import DRAWS, AdaptiveProbability, amounts_of, augment
from training.learning.config import AugmentConfig


def images(count: int = 4, channels: int = 3, height: int = 8, width: int = 6) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, channels, height, width, generator=random) * 2 - 1


def draws(count: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.rand(DRAWS, count, generator=torch.Generator().manual_seed(seed))


def test_probability_zero_is_the_identity() -> None:
    x = images()
    assert augment(x, amounts_of(draws(), 0.0)) is x


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_shape_stays_and_the_seed_decides(channels: int) -> None:
    x = images(channels=channels)
    once, again = (
        augment(x, amounts_of(draws(seed=1), 0.8)),
        augment(x, amounts_of(draws(seed=1), 0.8)),
    )
    assert once.shape == x.shape
    assert torch.equal(once, again)
    assert not torch.equal(once, augment(x, amounts_of(draws(seed=2), 0.8)))
    assert torch.isfinite(once).all()


NOT_CHOSEN, SPLIT = 0.9, 0.5


@pytest.mark.parametrize(
    "rows",
    [[0], [1], [2], [3], [4], [5], [6], [7, 8], list(range(DRAWS))],
    ids=[
        "brightness",
        "contrast",
        "saturation",
        "shift-x",
        "shift-y",
        "scale",
        "turn",
        "cutout",
        "all",
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_gradients_of_each_transform_are_right(rows: list[int], channels: int) -> None:
    """In float64 against finite differences, with all other transforms left out."""
    chosen = torch.full((DRAWS, 2), NOT_CHOSEN)
    chosen[rows] = torch.tensor([0.1, 0.4])
    x = images(2, channels, 6, 5).double().requires_grad_(True)
    if rows != [2] or channels > 1:  # grey has no saturation
        assert not torch.allclose(augment(x, amounts_of(chosen, SPLIT)), x)
    assert torch.autograd.gradcheck(lambda v: augment(v, amounts_of(chosen, SPLIT)), x)


def test_the_turn_is_what_affine_grid_gives_and_colour_what_its_formula_says() -> None:
    """All of it at once, but for the cutout: the shortcuts against the plain way."""
    x, given = images(), draws()
    given[7] = NOT_CHOSEN
    amounts = torch.where(given < SPLIT, given / SPLIT - 0.5, 0.0)
    shift, contrast, saturation = amounts[:3, :, None, None, None]
    grey = x.mean(dim=1, keepdim=True)
    coloured = (grey + (x - grey) * (1 + 2 * saturation)) * torch.exp2(contrast) + 0.8 * shift
    scale, angle, aspect = torch.exp2(0.5 * amounts[5]), math.radians(30) * amounts[6], 8 / 6
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = [cos, -sin * aspect, amounts[3] / 2, sin / aspect, cos, amounts[4] / 2]
    theta = torch.stack(rows, dim=1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    wanted = F.grid_sample(coloured, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(augment(x, amounts_of(given, SPLIT)), wanted, rtol=1e-4, atol=1e-5)


def test_images_augmented_together_equal_those_augmented_separately() -> None:
    reals, fakes = images().contiguous(memory_format=torch.channels_last), images().flip(0)
    given = torch.stack([draws(seed=1), draws(seed=2)])
    both = augment(torch.cat([reals, fakes]), amounts_of(given.transpose(0, 1).flatten(1), 0.8))
    separate = [augment(x, amounts_of(d, 0.8)) for x, d in zip((reals, fakes), given, strict=True)]
    torch.testing.assert_close(both, torch.cat(separate))


def test_a_low_probability_leaves_most_images_alone() -> None:
    x = images(400)
    changed = (augment(x, amounts_of(draws(400), 0.02)) - x).abs().amax(dim=(1, 2, 3)) > 1e-3
    assert 0.05 < changed.float().mean() < 0.3


def test_no_image_is_mirrored() -> None:
    """Left dark, right bright: a turn of 15 degrees at most keeps that order."""
    x = torch.linspace(-1, 1, 16).expand(200, 3, 16, 16).contiguous()
    rows = augment(x, amounts_of(draws(200), 1.0))[..., 4:12, :]
    rising = rows[..., 10:].mean(dim=(1, 2, 3)) >= rows[..., :6].mean(dim=(1, 2, 3))
    assert rising.float().mean() > 0.9


def test_alpha_keeps_out_of_photometric_changes() -> None:
    x = torch.ones(64, 4, 8, 8)
    out = augment(x, amounts_of(draws(64), 1.0))
    # Cutout makes alpha 0; nothing makes it another value.
    assert set(out[:, 3].unique().tolist()) <= {0.0, 1.0} | set(
        out[:, 3][(out[:, 3] - 1).abs() < 1e-5].unique().tolist()
    )


def test_p_rises_while_real_logits_are_sure_and_falls_back() -> None:
    adaptive = AdaptiveProbability(AugmentConfig(adjust_kimg=10.0, target=0.6))
    adaptive.update(0.9, 1000)
    assert adaptive.p == pytest.approx(0.1)
    adaptive.update(0.1, 3000)
    assert adaptive.p == 0.0
    for _ in range(20):
        adaptive.update(0.9, 1000)
    assert adaptive.p == 0.8  # above, the generator would learn the augmentations


def test_no_mode_and_no_saved_run_goes_above_the_cap() -> None:
    assert AdaptiveProbability(AugmentConfig(mode="fixed", p=1.0, max_p=0.5)).p == 0.5
    adaptive = AdaptiveProbability(AugmentConfig(max_p=0.5))
    adaptive.load_state_dict({"strength": 0.9})
    assert adaptive.p == 0.5


def test_fixed_and_off_do_not_move() -> None:
    fixed = AdaptiveProbability(AugmentConfig(mode="fixed", p=0.3))
    off = AdaptiveProbability(AugmentConfig(mode="off", p=0.3))
    fixed.update(1.0, 10_000)
    off.update(1.0, 10_000)
    assert (fixed.p, off.p) == (0.3, 0.0)

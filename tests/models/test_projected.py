"""Discriminators on a frozen network: shapes, what learns, what is saved, what the heads see."""

import copy
from typing import Any

import pytest
import torch

from models.discriminator import ConvolutionalDiscriminator, DiscriminatorShape
from models.projected import CombinedDiscriminator, ProjectedDiscriminator, ProjectedShape
from training.features.feature_maps import LiteFeatureMaps


def make(height: int = 32, width: int = 32, **settings: Any) -> ProjectedDiscriminator:
    torch.manual_seed(0)
    shape = ProjectedShape(height=height, width=width, categories=3, input_px=64, **settings)
    return ProjectedDiscriminator(shape, LiteFeatureMaps()).eval()


def images(count: int = 8, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, channels, height, width, generator=random) * 2 - 1


CATEGORY = torch.eye(3)[torch.arange(8) // 4]


@pytest.mark.parametrize(
    ("size", "seen"), [((32, 32), (64, 64)), ((48, 24), (64, 32)), ((100, 128), (64, 64))]
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_any_size_and_channels_give_one_logit_an_image(
    size: tuple[int, int], seen: tuple[int, int], channels: int
) -> None:
    discriminator = make(*size)
    assert discriminator.seen == seen
    x = images(8, channels, *size)
    logits = discriminator(x, CATEGORY)
    assert logits.shape == (8,)
    assert logits.dtype == torch.float32
    assert discriminator.features(x).shape == (8, *discriminator.mask.shape)


@pytest.mark.parametrize(
    ("height", "width", "seen"),
    [
        (16, 16, (64, 64)),
        (32, 32, (64, 64)),
        (64, 48, (128, 96)),
        (128, 128, (256, 256)),
        (192, 256, (192, 256)),
        (512, 512, (512, 512)),
    ],
)
def test_small_images_are_seen_enlarged(height: int, width: int, seen: tuple[int, int]) -> None:
    assert ProjectedShape(height=height, width=width, categories=1).seen(32) == seen
    assert ProjectedShape(height=64, width=64, categories=1, input_px=96).seen(32) == (96, 96)


def test_gradients_reach_images_and_heads_but_nothing_frozen() -> None:
    discriminator = make()
    before = copy.deepcopy(discriminator.state_dict())
    x = images().requires_grad_(True)
    discriminator.train()(x, CATEGORY).sum().backward()
    assert x.grad is not None
    assert (x.grad.abs().sum(dim=(1, 2, 3)) > 0).all()
    assert all(p.grad is not None for p in discriminator.parameters())
    assert all(name.startswith("heads.") for name, _ in discriminator.named_parameters())
    after = discriminator.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    # Estimates of spectral norms, and nothing else.
    assert changed
    assert all(name.endswith(("._u", "._v")) for name in changed)


def test_looking_without_teaching_changes_nothing() -> None:
    discriminator = make()
    before = copy.deepcopy(discriminator.state_dict())
    first, second = (discriminator(images(), CATEGORY) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(v, before[n]) for n, v in discriminator.state_dict().items())


def test_the_mixes_are_saved_and_the_pretrained_network_is_not() -> None:
    discriminator, other = make(), make()
    state = discriminator.state_dict()
    assert not any(name.startswith("backbone") for name in state)
    for weight in (*other.parameters(), *other.mix.buffers()):
        torch.nn.init.normal_(weight)
    other.load_state_dict(state)
    torch.testing.assert_close(other(images(), CATEGORY), discriminator(images(), CATEGORY))


def test_real_and_generated_halves_of_a_batch_do_not_mix() -> None:
    discriminator = make()
    a, b = images()[:4], images()[4:] * 0.3
    category = CATEGORY[:4]
    both = discriminator(torch.cat([a, b]), torch.cat([category, category]))
    apart = torch.cat([discriminator(a, category), discriminator(b, category)])
    torch.testing.assert_close(both, apart, rtol=1e-4, atol=1e-4)


def test_a_group_of_equal_images_is_told_from_one_of_different_ones() -> None:
    discriminator = make()
    x = images()
    alone = discriminator(x, CATEGORY)
    x[1:4] = x[0]
    assert (discriminator(x, CATEGORY)[0] - alone[0]).abs() > 1e-3
    torch.testing.assert_close(discriminator(x, CATEGORY)[4:], alone[4:], rtol=1e-4, atol=1e-4)


def test_the_category_changes_the_logit() -> None:
    discriminator = make()
    logits = [discriminator(images(), torch.eye(3)[[i] * 8]) for i in range(2)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_the_mask_hides_places_of_its_map_from_its_head(level: int) -> None:
    discriminator = make(mask_level=level)
    channels, height, width = discriminator.mask.shape
    assert (height, width) == (2 * 2**level, 2 * 2**level)
    off = discriminator.place_logits(images(), CATEGORY)
    discriminator.mask.held = torch.zeros(1, 1, height, width)
    hidden = discriminator.place_logits(images(), CATEGORY)
    changed = ((hidden - off).abs() > 1e-6).any(dim=0)
    assert 0 < changed.sum() <= 16  # the places of one head
    discriminator.mask.held = torch.ones(1, channels, 1, 1)
    assert torch.equal(discriminator.place_logits(images(), CATEGORY), off)


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="mask_level 4"):
        make(mask_level=4)


def test_transparent_places_look_white() -> None:
    discriminator = make()
    x = images(8, 4)
    x[:, 3] = 1.0
    torch.testing.assert_close(discriminator(x, CATEGORY), discriminator(x[:, :3], CATEGORY))
    x[:, 3] = -1.0
    white = torch.ones(8, 3, 32, 32)
    torch.testing.assert_close(discriminator(x, CATEGORY), discriminator(white, CATEGORY))


def test_less_precise_maps_are_near_the_exact_ones() -> None:
    maps = LiteFeatureMaps()
    x = torch.nn.functional.interpolate(images(), (64, 64), mode="bilinear")
    exact, fast = maps(x), maps(x, torch.bfloat16)
    with_gradient = maps(x.clone().requires_grad_(True), torch.bfloat16)
    for a, b, c, channels, stride in zip(
        exact, fast, with_gradient, maps.channels, maps.strides, strict=True
    ):
        assert a.shape == b.shape == c.shape == (8, channels, 64 // stride, 64 // stride)
        assert b.dtype == c.dtype == torch.bfloat16
        assert (a - b.float()).norm() < 0.15 * a.norm()
        assert (a - c.float()).norm() < 0.005 * a.norm()  # rounded at the end only


def test_both_masks_each_ones_map() -> None:
    torch.manual_seed(0)
    sizes = {"height": 32, "width": 32, "categories": 3}
    shape = DiscriminatorShape(**sizes, channels=3, channel_base=256, channel_max=32)
    both = CombinedDiscriminator(ConvolutionalDiscriminator(shape), make()).eval()
    assert both.masks == (both.convolutional.mask, both.projected.mask)
    assert both.features(images()).shape == (8, *both.masks[0].shape)
    parts = [d(images(), CATEGORY) for d in (both.convolutional, both.projected)]
    torch.testing.assert_close(both(images(), CATEGORY), sum(parts) / 2)
    assert {n.split(".")[0] for n in both.state_dict()} == {"convolutional", "projected"}

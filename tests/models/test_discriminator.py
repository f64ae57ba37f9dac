"""The discriminator: shapes, groups, conditioning and the mask on it."""

import pytest
import torch

from models.discriminator import (
    ConvolutionalDiscriminator,
    DiscriminatorShape,
    minibatch_deviation,
)
from models.masking import Granularity, feature_mask


def make(height: int = 16, width: int = 16, **settings: int) -> ConvolutionalDiscriminator:
    torch.manual_seed(0)
    values = {"channels": 3, "categories": 3, "channel_base": 256, "channel_max": 32, **settings}
    return ConvolutionalDiscriminator(DiscriminatorShape(height=height, width=width, **values))


def test_logits_are_one_a_picture_and_unit_scale() -> None:
    discriminator = make(16, 12)
    logits = discriminator(torch.randn(8, 3, 16, 12), torch.eye(3)[torch.arange(8) % 3])
    assert logits.shape == (8,)
    assert logits.dtype == torch.float32
    assert 0.05 < logits.std() < 5


def test_deviation_of_a_group_of_equal_pictures_is_zero_and_groups_are_apart() -> None:
    x = torch.randn(8, 2, 4, 4)
    x[:4] = x[0]
    plane = minibatch_deviation(x, 4)[:, 2]
    assert plane[:4].abs().max() < 1e-3
    assert plane[4:].min() > 0.3


def test_real_and_generated_halves_of_a_batch_do_not_mix() -> None:
    discriminator = make()
    a, b = torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16) * 3
    category = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    both = discriminator(torch.cat([a, b]), torch.cat([category, category]))
    apart = torch.cat([discriminator(a, category), discriminator(b, category)])
    torch.testing.assert_close(both, apart, rtol=1e-4, atol=1e-4)


def test_the_category_changes_the_logit() -> None:
    discriminator = make()
    x = torch.randn(4, 3, 16, 16)
    logits = [discriminator(x, torch.eye(3)[[i] * 4]) for i in range(2)]
    assert (logits[0] - logits[1]).abs().max() > 1e-3


@pytest.mark.parametrize("ratio", [0.0, 0.1, 0.2, 0.5, 0.95])
@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("spatial", (1, 1, 8, 8)), ("channel", (1, 16, 1, 1)), ("both", (1, 16, 8, 8))],
)
def test_a_mask_hides_the_asked_share_and_keeps_the_mean(
    ratio: float, granularity: Granularity, shape: tuple[int, ...]
) -> None:
    mask = feature_mask(
        (16, 8, 8),
        ratio=ratio,
        granularity=granularity,
        generator=torch.Generator().manual_seed(0),
    )
    assert mask.shape == shape
    assert int((mask == 0).sum()) == round(ratio * mask.numel())
    assert mask.mean().item() == pytest.approx(1.0)


def test_a_mask_never_hides_everything() -> None:
    mask = feature_mask((2, 2, 2), ratio=0.99, granularity="channel", generator=torch.Generator())
    assert (mask > 0).sum() == 1


def test_the_mask_covers_the_chosen_level_and_lifting_it_equals_off() -> None:
    discriminator = make(mask_level=1)
    assert discriminator.mask.shape == (32, 8, 8)
    x, category = torch.randn(4, 3, 16, 16), torch.eye(3)[[0, 1, 2, 0]]
    assert discriminator.features(x).shape == (4, 32, 8, 8)
    off = discriminator(x, category)
    mask = feature_mask(
        discriminator.mask.shape,
        ratio=0.5,
        granularity="spatial",
        generator=torch.Generator().manual_seed(0),
    )
    discriminator.mask.held = mask
    assert (discriminator(x, category) - off).abs().max() > 1e-3
    discriminator.mask.held = torch.ones(1, 1, 8, 8)
    assert torch.equal(discriminator(x, category), off)
    discriminator.mask.held = None
    assert torch.equal(discriminator(x, category), off)


def test_hidden_positions_do_not_reach_the_logit() -> None:
    discriminator = make(mask_level=1)
    category = torch.eye(3)[[0] * 4]
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :4] = 0
    discriminator.mask.held = mask
    x = torch.randn(4, 3, 16, 16, requires_grad=True)
    discriminator(x, category).sum().backward()
    assert x.grad is not None
    # The receptive field of a hidden column reaches a few pixels over the edge, no more. Some
    # processors' convolutions give nearly zero for zero.
    assert x.grad[..., :3].abs().max() < 1e-5 * x.grad[..., 12:].abs().max()


def test_a_level_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="mask_level 5"):
        make(mask_level=5)

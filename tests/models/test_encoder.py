"""The encoder's shapes, and what an offset of the styles means to the generator."""

import pytest
import torch

from models.encoder import Encoder, EncoderShape
from models.generator import Generator, GeneratorShape


def make_generator() -> Generator:
    torch.manual_seed(0)
    sizes = {"height": 16, "width": 16, "channels": 3, "categories": 3}
    widths = {"z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 32}
    generator = Generator(GeneratorShape(**sizes, **widths)).eval().requires_grad_(False)
    generator.update_w_avg(256)
    return generator


def make_encoder(height: int = 16, width: int = 16, channels: int = 3) -> Encoder:
    torch.manual_seed(0)
    return (
        Encoder(
            EncoderShape(
                height=height,
                width=width,
                channels=channels,
                categories=3,
                num_ws=5,
                w_dim=16,
                channel_base=256,
                channel_max=32,
            )
        )
        .eval()
        .requires_grad_(False)
    )


@pytest.mark.parametrize("size", [(16, 16), (16, 12), (12, 16), (64, 48)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_there_is_an_offset_for_each_layer(size: tuple[int, int], channels: int) -> None:
    images = torch.rand(2, channels, *size)
    assert make_encoder(*size, channels)(images, torch.eye(3)[:2]).shape == (2, 5, 16)


def test_offsets_depend_on_image_and_category_but_not_on_the_batch() -> None:
    encoder, category = make_encoder(), torch.eye(3)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    together = encoder(images, category)
    for i in range(3):
        alone = encoder(images[i : i + 1], category[i : i + 1])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=1e-5, atol=1e-6)
    assert (encoder(images.flip(0), category) - together).abs().max() > 1e-3
    assert (encoder(images, category.roll(1, dims=1)) - together).abs().max() > 1e-3


def test_an_untrained_encoder_starts_near_the_mean_style() -> None:
    generator, encoder = make_generator(), make_encoder()
    images = torch.rand(8, 3, 16, 16) * 2 - 1
    category = torch.eye(3)[torch.arange(8) % 3]
    w = generator.mapping(torch.randn(8, 16), category)
    spread = (w - category @ generator.mapping.w_avg).square().mean()
    assert encoder(images, category).square().mean() < 0.2 * spread


def test_an_offset_from_one_style_to_another_generates_the_other() -> None:
    generator = make_generator()
    z, category = torch.randn(2, 4, 16).unbind(0), torch.eye(3)[[0, 1, 2, 0]]
    noise, psi = torch.randn(4, generator.noise_dim), torch.ones(4)
    offset = generator.mapping(z[1], category) - generator.mapping(z[0], category)
    per_layer = offset[:, None].expand(-1, generator.style_shape[0], -1)
    moved = generator(z[0], category, psi, noise, style_offset=per_layer)
    torch.testing.assert_close(moved, generator(z[1], category, None, noise), rtol=1e-4, atol=1e-4)
    still = generator(z[0], category, psi, noise)
    assert (moved - still).abs().max() > 0.1
    zero = torch.zeros(1, *generator.style_shape)
    assert torch.equal(generator(z[0], category, psi, noise, style_offset=zero), still)


def test_each_layer_listens_to_its_own_offset() -> None:
    generator = make_generator()
    z, category, noise = torch.randn(1, 16), torch.eye(3)[:1], torch.randn(1, generator.noise_dim)
    still = generator(z, category, torch.zeros(1), noise)
    for layer in range(generator.style_shape[0]):
        offset = torch.zeros(1, *generator.style_shape)
        offset[:, layer] = 1.0
        moved = generator(z, category, torch.zeros(1), noise, style_offset=offset)
        assert (moved - still).abs().max() > 1e-3, layer


def test_no_latent_at_all_is_finite() -> None:
    """`z anything`, says the contract, for reconstructions; so zeros, too."""
    generator = make_generator()
    zeros = torch.zeros(1, 16)
    generated = generator(
        zeros, torch.eye(3)[:1], torch.zeros(1), torch.zeros(1, generator.noise_dim)
    )
    assert generated.isfinite().all()

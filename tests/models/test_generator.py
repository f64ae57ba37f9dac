"""Identities of the generator: shapes, truncation, batching, precision."""

import re

import numpy as np
import pytest
import torch

from models.generator import Generator, GeneratorShape, ModulatedConv, SynthesisBlock
from models.layers import LEAKY_GAIN, upsample
from models.pyramid import Pyramid


def make(
    height: int = 16,
    width: int = 16,
    channels: int = 3,
    categories: int = 3,
    noise_max_px: int | None = None,
) -> Generator:
    torch.manual_seed(0)
    generator = Generator(
        GeneratorShape(
            height=height,
            width=width,
            channels=channels,
            categories=categories,
            z_dim=16,
            w_dim=16,
            channel_base=256,
            channel_max=32,
            noise_max_px=noise_max_px,
        )
    )
    with torch.no_grad():  # so that noise counts
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.5)
    return generator.eval().requires_grad_(False)


def inputs(generator: Generator, count: int) -> tuple[torch.Tensor, ...]:
    random = torch.Generator().manual_seed(1)
    z = torch.randn(count, generator.z_dim, generator=random)
    category = torch.eye(generator.shape.categories)[
        torch.arange(count) % generator.shape.categories
    ]
    return z, category, torch.randn(count, generator.noise_dim, generator=random)


@pytest.mark.parametrize(
    ("height", "width", "base", "doublings"),
    [(32, 32, (4, 4), 3), (256, 192, (4, 3), 6), (96, 96, (3, 3), 5), (80, 64, (5, 4), 4)],
)
def test_pyramid_ends_in_a_small_base(
    height: int, width: int, base: tuple[int, int], doublings: int
) -> None:
    assert Pyramid.of(height, width) == Pyramid(base, doublings)
    assert Pyramid.of(height, width).shape(doublings) == (height, width)


@pytest.mark.parametrize(("height", "width"), [(100, 100), (31, 32), (64, 1024), (8, 9), (3, 3)])
def test_pyramid_names_a_size_that_does_not_halve(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=f"{width}x{height}"):
        Pyramid.of(height, width)


@pytest.mark.parametrize(
    ("height", "width", "near"),
    [
        (100, 100, "96x96 and 112x112"),
        (9, 9, "8x8 and 10x10"),
        (1000, 1000, "896x896 and 1024x1024"),
        (250, 200, "128x160 and 256x320"),
        (600, 400, "384x576 and 512x768"),
        (900, 1600, "1536x896 and 1664x896"),
        (8, 1024, "992x96 and 1024x96"),
        (8, 65, "64x8 and 64x10"),
    ],
)
def test_pyramid_names_the_nearest_sizes(height: int, width: int, near: str) -> None:
    with pytest.raises(ValueError, match=f"size {width}x{height}: .* the nearest are {near}$") as e:
        Pyramid.of(height, width)
    alike = all(
        int(w) * height == int(h) * width
        for w, h in (size.split("x") for size in near.split(" and "))
    )
    no_such = "none has its proportions, as one side is 3 to 8 parts and the other 3 to 32"
    assert (no_such in str(e.value)) != alike


def test_every_size_has_a_near_one_that_does() -> None:
    rng = np.random.default_rng(0)
    refused = 0
    for height, width in rng.integers(8, 1025, (60, 2)).tolist():
        try:
            Pyramid.of(height, width)
        except ValueError as error:
            refused += 1
            for near in re.findall(r"(\d+)x(\d+)", str(error))[1:]:
                w, h = map(int, near)
                assert Pyramid.of(h, w).doublings > 0
                assert 8 <= min(w, h) <= max(w, h) <= 2048
    assert refused > 30


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (16, 12), (12, 16)])
def test_images_have_the_requested_shape(height: int, width: int, channels: int) -> None:
    generator = make(height, width, channels)
    z, category, noise = inputs(generator, 2)
    assert generator(z, category, None, noise).shape == (2, channels, height, width)


def test_an_image_does_not_depend_on_its_batch() -> None:
    generator = make()
    z, category, noise = inputs(generator, 5)
    psi = torch.linspace(0.5, 1, 5)
    together = generator(z, category, psi, noise)
    for i in range(5):
        row = slice(i, i + 1)
        alone = generator(z[row], category[row], psi[row], noise[row])
        torch.testing.assert_close(alone, together[row], rtol=1e-5, atol=1e-5)


def test_truncation_goes_from_the_mean_style_to_the_style() -> None:
    generator = make()
    generator.update_w_avg(samples=512)
    z, category, _ = inputs(generator, 3)
    w = generator.mapping(z, category)
    truncated = generator.mapping.truncate(w, category, torch.tensor([0.0, 1.0, 0.5]))
    w_avg = generator.mapping.w_avg
    torch.testing.assert_close(truncated[0], w_avg[0])
    torch.testing.assert_close(truncated[1], w[1])
    torch.testing.assert_close(truncated[2], (w_avg[2] + w[2]) / 2)


def test_mean_style_is_that_of_many_latents_of_the_category() -> None:
    generator = make()
    generator.update_w_avg(samples=4096)
    z = torch.randn(8192, generator.z_dim, generator=torch.Generator().manual_seed(7))
    for i, row in enumerate(torch.eye(3)):
        mean = generator.mapping(z, row.expand(len(z), -1)).mean(dim=0)
        assert (mean - generator.mapping.w_avg[i]).abs().max() < 0.1


def test_latent_category_and_noise_each_change_the_image() -> None:
    generator = make()
    z, category, noise = inputs(generator, 2)
    base = generator(z, category, None, noise)
    for changed in (
        (z.flip(0), category, None, noise),
        (z, category.roll(1, dims=1), None, noise),
        (z, category, None, noise.flip(0)),
    ):
        assert (generator(*changed) - base).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("noise_max_px", "levels"), [(None, 3), (16, 3), (15, 2), (8, 2), (7, 1), (1, 1)]
)
def test_noise_ends_at_the_requested_level(noise_max_px: int | None, levels: int) -> None:
    """At 12 x 16 px levels are of 3 x 4, 6 x 8 and 12 x 16."""
    generator, whole = make(12, 16, noise_max_px=noise_max_px), make(12, 16)
    assert generator.noise_dim == sum([12, 48, 192][:levels])
    names = whole.state_dict().keys() - generator.state_dict().keys()
    assert len(names) == 3 - levels
    assert all(name.endswith("noise_strength") for name in names)
    whole.load_state_dict({**whole.state_dict(), **generator.state_dict()})
    z, category, noise = inputs(whole, 2)
    noise[:, generator.noise_dim :] = 0  # as if the finer ones were off
    image = generator(z, category, None, noise[:, : generator.noise_dim])
    torch.testing.assert_close(image, whole(z, category, None, noise))
    assert (image - generator(z, category, None, 0 * noise[:, : generator.noise_dim])).std() > 0.01


def demodulated(layer: ModulatedConv, style: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """StyleGAN2's weights of one sample, and what demodulation scaled each channel by."""
    weight = layer.conv.weight * style[None, :, None, None]
    demodulation = torch.rsqrt(weight.square().sum(dim=(1, 2, 3)) + 1e-8)
    return weight * demodulation[:, None, None, None], demodulation[:, None, None]


def test_activation_modulation_equals_weight_modulation() -> None:
    """StyleGAN2's modulated, demodulated weights of each sample; the bias is scaled, too."""
    torch.manual_seed(0)
    layer = ModulatedConv(6, 5, 8)
    torch.nn.init.normal_(layer.conv.bias)
    x, w, before = torch.randn(3, 6, 7, 7), torch.randn(3, 8), torch.rand(3, 6) + 0.5
    got, gain = layer(x, before, w)
    style = layer.affine(w)
    for i in range(3):
        weight, demodulation = demodulated(layer, style[i])
        activation = (x[i] * before[i][:, None, None])[None]
        expected = torch.nn.functional.conv2d(activation, weight, padding=1)
        expected = expected + demodulation * layer.conv.bias[:, None, None]
        torch.testing.assert_close(
            got[i : i + 1] * gain[i][None, :, None, None],
            expected * LEAKY_GAIN,
            rtol=1e-4,
            atol=1e-5,
        )


def test_demodulation_scales_a_blocks_noise_as_its_signal() -> None:
    torch.manual_seed(0)
    shape = GeneratorShape(height=16, width=16, channels=3, categories=1, w_dim=8)
    block = SynthesisBlock(6, 5, shape)
    torch.nn.init.constant_(block.noise_strength, 0.7)
    torch.nn.init.normal_(block.conv1.conv.bias)
    x, ws, noise = torch.randn(1, 6, 4, 4), torch.randn(2, 1, 8) * 3, torch.randn(1, 1, 8, 8)
    got, gain, _ = block(x, torch.ones(1, 6), torch.zeros(1, 3, 4, 4), ws.unbind(0), noise)
    first, carried = block.conv0(x, torch.ones(1, 6), ws[0])
    first = torch.nn.functional.leaky_relu(first, 0.2) * carried[..., None, None]
    weight, demodulation = demodulated(block.conv1, block.conv1.affine(ws[1])[0])
    signal = torch.nn.functional.conv2d(upsample(first), weight, padding=1)
    added = block.conv1.conv.bias[:, None, None] + 0.7 * noise
    expected = torch.nn.functional.leaky_relu(signal + demodulation * added, 0.2) * LEAKY_GAIN
    torch.testing.assert_close(got * gain[..., None, None], expected, rtol=1e-4, atol=1e-5)
    assert demodulation.min() < 0.7 * demodulation.max()  # else it would show little


def test_bfloat16_features_give_nearly_the_same_image() -> None:
    generator = make()
    z, category, noise = inputs(generator, 4)
    exact = generator(z, category, None, noise)
    rough = generator(z, category, None, noise, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.std()

"""StyleGAN2-family generator: latent -> style -> image.

Source: Karras et al. 2020, arXiv 1912.04958, with three changes. Activations are
modulated instead of weights, so that one convolution serves the whole batch and the
ONNX graph keeps a dynamic batch. Demodulation is merged into the next layer's
modulation: the leaky ReLU and the upsampling between them are positively homogeneous,
so one multiplication replaces two. The convolution that widens a block runs before the
upsampling, at a quarter of the cost.

Bias and noise are therefore added before demodulation and scaled by it: d (c + b + n), where
StyleGAN2 has d c + b + n. How much of them reaches a channel's normalised signal d c depends a
little on the image's style. In base:clothing d varies by 15 to 21 % over images (standard
deviation), and d b by 0.01 to 0.02 where d c has unit variance: not enough to justify one more
pass over every feature map.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.layers import (
    EPSILON,
    LEAKY_GAIN,
    Conv2d,
    Linear,
    leaky_relu,
    rms_normalize,
    upsample,
)
from models.pyramid import Pyramid


@dataclass(frozen=True, kw_only=True)
class GeneratorShape:
    """Sizes that determine the generator's parameters."""

    height: int
    width: int
    channels: int  # 1 = grey, 3 = RGB, 4 = RGB and alpha
    categories: int
    z_dim: int = 128
    w_dim: int = 128
    mapping_layers: int = 2
    channel_base: int = 2048  # feature maps at a level are channel_base / (4 * 2^level) ...
    channel_max: int = 128  # ... and never more than this
    noise_max_px: int | None = None  # longer side of the finest level with noise; None = all

    @property
    def pyramid(self) -> Pyramid:
        """Resolutions of the synthesis network."""
        return Pyramid.of(self.height, self.width)

    @property
    def noise_shapes(self) -> list[tuple[int, int]]:
        """Height and width of each level with noise: of the base, and up to noise_max_px."""
        shapes = [self.pyramid.shape(level) for level in range(self.pyramid.doublings + 1)]
        limit = self.noise_max_px or max(shapes[-1])
        return shapes[:1] + [size for size in shapes[1:] if max(size) <= limit]


class MappingNetwork(nn.Module):
    """Latent and category -> style: z [N, z_dim], category [N, categories] -> w [N, w_dim].

    Buffers:
        w_avg: Mean style of each category, [categories, w_dim]; truncation pulls towards it.
    """

    w_avg: Tensor

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.embed = Linear(shape.categories, shape.w_dim)
        nn.init.normal_(self.embed.weight)
        widths = [shape.z_dim + shape.w_dim] + [shape.w_dim] * shape.mapping_layers
        self.layers = nn.ModuleList(
            Linear(a, b, gain=1.0 if i == 0 else LEAKY_GAIN)
            for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.register_buffer("w_avg", torch.zeros(shape.categories, shape.w_dim))

    def forward(self, z: Tensor, category: Tensor) -> Tensor:
        """Map z [N, z_dim] and category weights [N, categories] to w [N, w_dim]."""
        x = torch.cat([rms_normalize(z), rms_normalize(self.embed(category))], dim=1)
        for layer in self.layers:
            x = leaky_relu(layer(x))
        return x * LEAKY_GAIN

    def truncate(self, w: Tensor, category: Tensor, truncation_psi: Tensor) -> Tensor:
        """Pull w towards its category's mean: psi [N], 1 = as it is, 0 = the mean."""
        w_avg = category @ self.w_avg
        return w_avg + truncation_psi[:, None] * (w - w_avg)


class ModulatedConv(nn.Module):
    """3 x 3 convolution of style-scaled activations, with demodulation left to the next layer."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias_init=1.0)
        self.conv = Conv2d(in_channels, out_channels, 3)

    def forward(
        self, x: Tensor, gain: Tensor, w: Tensor, *, up: bool = False
    ) -> tuple[Tensor, ...]:
        """Convolve, upsampling before it if `up`.

        Args:
            x: [N, in_channels, H, W]; the true activation is x * gain.
            gain: Demodulation left to do by the previous layer, [N, in_channels], float32.
            w: Style, [N, w_dim], float32.
            up: Double height and width first.

        Returns:
            Pre-activation [N, out_channels, H', W'] and its own gain [N, out_channels].
        """
        style = self.affine(w)
        x = x * (style * gain).to(x.dtype)[:, :, None, None]
        if up:
            x = upsample(x)
        power = self.conv.weight.square().sum(dim=(2, 3))  # [out, in]
        demodulation = torch.rsqrt(style.square() @ power.t() + EPSILON)
        return self.conv(x), demodulation * LEAKY_GAIN


class ToImage(nn.Module):
    """1 x 1 modulated convolution to image channels, as one batched matrix product."""

    def __init__(self, in_channels: int, channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = Linear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(channels, in_channels) / in_channels**0.5)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, gain: Tensor, w: Tensor) -> Tensor:
        """Turn features x [N, C, H, W] * gain [N, C] into pixels, float32 [N, channels, H, W]."""
        weight = (self.affine(w) * gain)[:, :, None] * self.weight.t()  # [N, C, channels]
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)  # a view where x is channels_last
        image = torch.bmm(pixels, weight.to(x.dtype)).float() + self.bias
        n, _, height, width = x.shape
        return image.reshape(n, height, width, -1).permute(0, 3, 1, 2)


class SynthesisBlock(nn.Module):
    """One level: double the resolution, two convolutions, noise, and a term of the image's sum."""

    def __init__(
        self, in_channels: int, out_channels: int, shape: GeneratorShape, noisy: bool = True
    ) -> None:
        super().__init__()
        self.conv0 = ModulatedConv(in_channels, out_channels, shape.w_dim)
        self.conv1 = ModulatedConv(out_channels, out_channels, shape.w_dim)
        self.noise_strength = nn.Parameter(torch.zeros(())) if noisy else None
        self.to_image = ToImage(out_channels, shape.channels, shape.w_dim)

    def forward(
        self, x: Tensor, gain: Tensor, image: Tensor, ws: tuple[Tensor, ...], noise: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the next level.

        Args:
            x: Features [N, C, H, W]; the true activation is x * gain.
            gain: [N, C], float32.
            image: Image so far, [N, channels, H, W].
            ws: A style for each convolution, [N, w_dim].
            noise: [N, 1, 2H, 2W], where this level has any.

        Returns:
            Features [N, C', 2H, 2W], their gain [N, C'], and the image [N, channels, 2H, 2W].
        """
        x, gain = self.conv0(x, gain, ws[0])
        x, gain = self.conv1(leaky_relu(x), gain, ws[1], up=True)
        if noise is not None and self.noise_strength is not None:
            x = x + (noise * self.noise_strength).to(x.dtype)
        x = leaky_relu(x)
        return x, gain, upsample(image) + self.to_image(x, gain, ws[1])


class SynthesisNetwork(nn.Module):
    """Styles and noise -> image: ws [N, num_ws, w_dim] -> [N, channels, H, W]."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        pyramid = shape.pyramid
        widths = [
            pyramid.channels(level, shape.channel_base, shape.channel_max)
            for level in range(pyramid.doublings + 1)
        ]
        self.noise_shapes = shape.noise_shapes
        self.constant = nn.Parameter(torch.randn(widths[0], *pyramid.base))
        self.conv = ModulatedConv(widths[0], widths[0], shape.w_dim)
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.to_image = ToImage(widths[0], shape.channels, shape.w_dim)
        self.blocks = nn.ModuleList(
            SynthesisBlock(a, b, shape, noisy=level < len(self.noise_shapes))
            for level, (a, b) in enumerate(itertools.pairwise(widths), start=1)
        )

    @property
    def num_ws(self) -> int:
        """One style for the base, two for each block."""
        return 1 + 2 * len(self.blocks)

    @property
    def noise_dim(self) -> int:
        """Length of one image's noise vector: one value a pixel of every level with noise."""
        return sum(height * width for height, width in self.noise_shapes)

    def forward(self, ws: Tensor, noise: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Generate images from styles.

        Args:
            ws: Styles [N, num_ws, w_dim], float32.
            noise: Standard normal [N, noise_dim].
            dtype: Data type of the feature maps; the image is summed in float32.

        Returns:
            float32 [N, channels, H, W], nominally in [-1, 1].
        """
        levels = noise.split([h * w for h, w in self.noise_shapes], dim=1)
        sized = zip(levels, self.noise_shapes, strict=True)
        base, *planes = [level.unflatten(1, (1, *size)) for level, size in sized]
        w, *rest = ws.unbind(dim=1)  # one gradient for all styles; each slice would fill its own
        x = self.constant.to(dtype).expand(ws.shape[0], -1, -1, -1)
        x = x.contiguous(memory_format=torch.channels_last)  # read in half the time
        x, gain = self.conv(x, torch.ones_like(x[:, :, 0, 0], dtype=ws.dtype), w)
        x = leaky_relu(x + (base * self.noise_strength).to(dtype))
        image: Tensor = self.to_image(x, gain, w)
        styles = zip(rest[::2], rest[1::2], strict=True)
        for block, pair, plane in itertools.zip_longest(self.blocks, styles, planes):
            x, gain, image = block(x, gain, image, pair, plane)
        return image


class Generator(nn.Module):
    """z, category, truncation and noise -> image; the module that is exported."""

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.shape = shape
        self.mapping = MappingNetwork(shape)
        self.synthesis = SynthesisNetwork(shape)

    @property
    def z_dim(self) -> int:
        """Length of a latent."""
        return self.shape.z_dim

    @property
    def noise_dim(self) -> int:
        """Length of one image's noise vector."""
        return self.synthesis.noise_dim

    @property
    def style_shape(self) -> tuple[int, int]:
        """Number of layers that take a style, and a style's length: num_ws, w_dim."""
        return self.synthesis.num_ws, self.shape.w_dim

    def forward(
        self,
        z: Tensor,
        category: Tensor,
        truncation_psi: Tensor | None,
        noise: Tensor,
        dtype: torch.dtype = torch.float32,
        style_offset: Tensor | None = None,
    ) -> Tensor:
        """Generate images.

        Args:
            z: Latents [N, z_dim], standard normal.
            category: Weights [N, categories] that sum to 1.
            truncation_psi: [N], or None for 1 without the truncation's cost.
            noise: [N, noise_dim], standard normal.
            dtype: Data type of the feature maps.
            style_offset: Added to each layer's style after truncation, [N or 1, num_ws, w_dim].

        Returns:
            float32 [N, channels, H, W], nominally in [-1, 1].
        """
        w = self.mapping(z, category)
        if truncation_psi is not None:
            w = self.mapping.truncate(w, category, truncation_psi)
        if style_offset is None:
            ws = w[:, None].expand(-1, self.synthesis.num_ws, -1)
        else:
            ws = w[:, None] + style_offset
        image: Tensor = self.synthesis(ws, noise, dtype)
        return image

    @torch.no_grad()
    def update_w_avg(self, samples: int = 4096, seed: int = 0) -> None:
        """Set each category's mean style from `samples` latents drawn on the CPU."""
        w_avg = self.mapping.w_avg
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(samples, self.z_dim, generator=generator).to(w_avg.device)
        for i, row in enumerate(torch.eye(len(w_avg), device=w_avg.device)):
            w_avg[i] = self.mapping(z, row.expand(samples, -1)).mean(dim=0)

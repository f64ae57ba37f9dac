"""Makes small photos as faulty as a generator's images: as blurred, and as coarsely woven.

A generator's images have less fine detail than photos of its size, and some that no photo has. An
upscaler that learned from clean small photos alone would take both for the product's own. Source:
Ji et al. 2020, arXiv 2005.01996 (noise for training from the images that are to be enlarged).
"""

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

# Bins of frequency from 0 to the highest along a side, half a cycle a pixel.
_BINS: Final = 32
_COARSE: Final = slice(1, 9)  # bins of waves of 8 pixels and longer, but for the mean
_LEAST: Final = 1e-3  # of the amplitude that is left at any frequency
_MOST_WEAVE: Final = 0.12  # of [-1, 1]: what is stronger is an outline


class GeneratorBlur:
    """A filter with the ratio of a generator's amplitudes to those of photos, by frequency."""

    def __init__(self, photos: Tensor, generated: Tensor) -> None:
        """Measure.

        Args:
            photos: Photos of the generator's size, [N, C, H, W] in [-1, 1].
            generated: Images of the generator, likewise.
        """
        ratio = (_spectrum(generated) / _spectrum(photos).clamp(min=1e-12)).sqrt()
        # Paler images as a whole are not blurred ones.
        ratio = ratio / ratio[_COARSE].mean()
        ratio[: _COARSE.stop] = 1
        # Never rising: what a generator has too much of at one frequency is no sharpness.
        self.amplitudes = ratio.clamp(_LEAST, 1.0).cummin(dim=0).values

    def __call__(self, images: Tensor, exponents: Tensor) -> Tensor:
        """Blur each image by the filter to the power of its exponent.

        Args:
            images: [N, C, H, W].
            exponents: [N]; 0 leaves an image as it is, 1 blurs as the generator does.

        Returns:
            [N, C, H, W].
        """
        height, width = images.shape[2:]
        # Mirrored at the edges, so that opposite ones do not run into each other.
        mirrored = torch.cat([images, images.flip(3)], dim=3)
        mirrored = torch.cat([mirrored, mirrored.flip(2)], dim=2)
        size = (2 * height, 2 * width)
        bins = _bins(size, images.device)[:, : width + 1]
        lower = bins.floor().long().clamp(max=_BINS - 2)
        logs = self.amplitudes.to(images.device).log()
        log_filter = torch.lerp(logs[lower], logs[lower + 1], (bins - lower).clamp(max=1))
        filters = torch.exp(exponents[:, None, None, None] * log_filter)
        blurred: Tensor = torch.fft.irfft2(torch.fft.rfft2(mirrored) * filters, s=size)
        return blurred[..., :height, :width]


def weave(images: Tensor) -> Tensor:
    """What changes from pixel to pixel in images [N, C, H, W], but for strong outlines."""
    taps = torch.tensor([0.25, 0.5, 0.25], device=images.device)
    kernel = torch.outer(taps, taps).expand(images.shape[1], 1, 3, 3)
    smooth = F.conv2d(F.pad(images, (1, 1, 1, 1), mode="reflect"), kernel, groups=images.shape[1])
    return (images - smooth).clamp(-_MOST_WEAVE, _MOST_WEAVE)


def _bins(size: tuple[int, int], device: torch.device) -> Tensor:
    """Which bin, as a fraction, each frequency of an image of `size` belongs to."""
    rows, columns = (torch.fft.fftfreq(side, device=device) for side in size)
    return torch.hypot(rows[:, None], columns[None].abs()) * (2 * _BINS)


def _spectrum(images: Tensor) -> Tensor:
    """Mean power of brightness by bin of frequency, [_BINS]."""
    grey = images.mean(dim=1)
    height, width = grey.shape[1:]
    window = torch.outer(
        *(torch.hann_window(side, periodic=False, device=grey.device) for side in (height, width))
    )
    centred = (grey - grey.mean(dim=(1, 2), keepdim=True)) * window
    power = torch.fft.fft2(centred).abs().square().mean(dim=0).flatten()
    bins = _bins((height, width), grey.device).round().long().clamp(max=_BINS - 1).flatten()
    sums = torch.zeros(_BINS, device=grey.device).index_add_(0, bins, power)
    counts = torch.zeros(_BINS, device=grey.device).index_add_(0, bins, torch.ones_like(power))
    # A small image has empty bins: they take the nearest lower one's value.
    filled = torch.where(counts > 0, torch.arange(_BINS, device=grey.device), 0).cummax(0).values
    return (sums / counts.clamp(min=1))[filled]

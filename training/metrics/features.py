"""The frozen feature extractor that every evaluation uses, unless asked otherwise.

A small residual ConvNet whose weights ship with the package: no download, and the same for
every run, fixed by SHA-256. `bench/train_features.py` made it. A Frechet distance on these
features is not FID, and is never called so.
"""

import hashlib
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from safetensors.torch import load
from torch import Tensor, nn
from torch.nn import functional

EXTRACTOR_NAME: Final = "catalogan-features-1"
FEATURE_DIM: Final = 128
INPUT_PX: Final = 64
WEIGHTS_FILE: Final = "features.safetensors"
WEIGHTS_SHA256: Final = "c571acd941d80737f062362e6d9a5bb7a02fae6b19ab7992b420c83b1bee5397"
PROVENANCE: Final = (
    "Trained from scratch by bench/train_features.py (seed 0, 1500 steps) on the 3,068 train "
    "photos of github.com/alexeygrigorev/clothing-dataset-small (CC0 1.0) and 640 pictures of "
    "the rendered sample catalogue: category, quarter turns, thumbnails, and the strength of "
    "blur, noise, warping and shuffled tiles. It sees pictures at 64 x 64 pixels: finer detail "
    "is not judged."
)
_WIDTHS: Final = (32, 48, 96, 128)
# Pictures a pass: bounds memory, and being fixed, keeps sums in one order.
_BATCH: Final = 128


class FeatureError(ValueError):
    """The features can't be computed; the message names the file and the way out."""


class ExtractorInfo(BaseModel):
    """What a report says about the features that its numbers rest on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str
    dimensions: int
    input_px: int
    provenance: str
    frechet_name: str


class FeatureExtractor(Protocol):
    """Pictures in, feature vectors out; the same picture gives the same vector."""

    info: ExtractorInfo

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features [N, info.dimensions] of pictures [N, height, width, 1 | 3 | 4]."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut; halves height and width."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(out_channels)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] -> [N, out, H / 2, W / 2]."""
        y = functional.relu(self.norm_1(self.conv_1(x)))
        y = self.norm_2(self.conv_2(y))
        return functional.relu(y + self.shortcut(functional.avg_pool2d(x, 2)))


class FeatureNetwork(nn.Module):
    """Residual ConvNet; features are a linear mix of every stage's pooled activations.

    Pooling the early stages too keeps sharpness, grain, and colour, which a network trained
    to name the goods alone would throw away. The mix is centred on clean photos, and scaled
    so that lightness and colour, which vary most, do not drown the rest.
    """

    def __init__(self) -> None:
        super().__init__()
        # 5x5 at stride 2 still sees the finest detail, at a quarter of the memory traffic.
        self.stem = nn.Conv2d(3, _WIDTHS[0], 5, stride=2, padding=2, bias=False)
        self.stem_norm = nn.BatchNorm2d(_WIDTHS[0])
        self.blocks = nn.ModuleList(ResidualBlock(i, o) for i, o in pairwise(_WIDTHS))
        self.embedding = nn.Linear(sum(_WIDTHS), FEATURE_DIM)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures [N, 3, INPUT_PX, INPUT_PX] in [-1, 1] -> features [N, FEATURE_DIM]."""
        x = functional.relu(self.stem_norm(self.stem(images)))
        pooled = [x.mean(dim=(2, 3))]
        for block in self.blocks:
            x = block(x)
            pooled.append(x.mean(dim=(2, 3)))
        embedded: Tensor = self.embedding(torch.cat(pooled, dim=1))
        return embedded


class CatalogueFeatures:
    """The package's own extractor, ready for use."""

    def __init__(self, device: str = "cpu", weights: Path | None = None) -> None:
        """Load and check the weights.

        Args:
            device: A torch device's name.
            weights: Another copy of the weights file; by default the package's.

        Raises:
            FeatureError: The file is missing, or is not the one whose SHA-256 is fixed here.
        """
        data = _checked_weights(weights)
        self.info = ExtractorInfo(
            name=EXTRACTOR_NAME,
            sha256=WEIGHTS_SHA256,
            dimensions=FEATURE_DIM,
            input_px=INPUT_PX,
            provenance=PROVENANCE,
            frechet_name=f"Frechet distance on {EXTRACTOR_NAME}",
        )
        network = FeatureNetwork()
        # Stored in half precision to keep the package small; computed in float32.
        network.load_state_dict({name: t.float() for name, t in load(data).items()}, strict=True)
        self._device = torch.device(device)
        self._network = network.eval().requires_grad_(False).to(self._device)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features of pictures.

        Args:
            images: uint8 [N, height, width, 1 | 3 | 4]; alpha lies over white.

        Returns:
            float32 [N, FEATURE_DIM].
        """
        features = np.empty((len(images), FEATURE_DIM), dtype=np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                batch = to_rgb_tensor(images[start : start + _BATCH], INPUT_PX)
                features[start : start + _BATCH] = self._network(batch.to(self._device)).cpu()
        return features


def load_extractor(
    kind: Literal["catalogan", "inception"],
    *,
    device: str = "cpu",
    inception_weights: Path | None = None,
) -> FeatureExtractor:
    """The extractor that an evaluation asks for.

    Args:
        kind: The package's own, or torch-fidelity's Inception.
        device: A torch device's name.
        inception_weights: Where Inception's weights are, if not in torch hub's cache.

    Raises:
        FeatureError: Its weights are not at hand, or not the expected ones.
    """
    if kind == "catalogan":
        return CatalogueFeatures(device)
    # Imported late: it needs a package that few install.
    from training.metrics.inception import InceptionFeatures

    return InceptionFeatures(device, inception_weights)


def to_rgb_tensor(images: NDArray[np.uint8], size_px: int | None) -> Tensor:
    """Pictures as a network takes them.

    Args:
        images: uint8 [N, height, width, channels]; 1 = grey, 3 = RGB, 4 = RGB and alpha.
        size_px: Side of the square that the pictures are scaled to, with antialiasing;
            None leaves their size.

    Returns:
        float32 [N, 3, height, width] in [-1, 1]; transparency over white.

    Raises:
        ValueError: Another shape or type.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"expected uint8 [N, height, width, 1 | 3 | 4], got {images.dtype} {images.shape}"
        )
    # A copy, since the dataset's memory map is read-only and torch can't say so.
    x = torch.from_numpy(np.array(images)).permute(0, 3, 1, 2).float() / 255
    if x.shape[1] == 4:
        x = x[:, :3] * x[:, 3:] + (1 - x[:, 3:])
    if size_px is not None and x.shape[2:] != (size_px, size_px):
        size = (size_px, size_px)
        x = functional.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False)
    return x.expand(-1, 3, -1, -1) * 2 - 1


def _checked_weights(path: Path | None) -> bytes:
    """The weights file's bytes, known to be the fixed ones."""
    source = path or files("training") / "data" / WEIGHTS_FILE
    try:
        data = source.read_bytes()
    except OSError as error:
        raise FeatureError(f"{source} can't be read ({error}): install catalogan again") from error
    found = hashlib.sha256(data).hexdigest()
    if found != WEIGHTS_SHA256:
        raise FeatureError(
            f"{source} has SHA-256 {found}, but evaluations rest on {WEIGHTS_SHA256}: "
            "install catalogan again"
        )
    return data

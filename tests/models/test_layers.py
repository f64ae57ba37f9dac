"""The first layer: a convolution in another form."""

import torch

from models.layers import FromImage


def test_the_first_layer_is_a_convolution_of_one_pixel() -> None:
    layer = FromImage(3, 8).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradgradcheck(layer, (x,))

"""The first layer: a convolution in another form; and what a viewer sees of an image."""

import torch

from models.layers import FromImage, to_rgb


def test_the_first_layer_is_a_convolution_of_one_pixel() -> None:
    layer = FromImage(3, 8).double()
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(2, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    expected = torch.nn.functional.conv2d(x, layer.weight[:, :, None, None], layer.bias)
    torch.testing.assert_close(layer(x), expected)
    assert layer(x).is_contiguous(memory_format=torch.channels_last)
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_transparency_is_seen_over_white_and_grey_as_grey() -> None:
    images = torch.tensor([-1.0, 0.0, 0.5, 1.0])[None, :, None, None]
    assert torch.equal(to_rgb(images), images[:, :3])
    for alpha, seen in ((-1.0, [1.0, 1.0, 1.0]), (0.0, [0.0, 0.5, 0.75])):
        images[:, 3] = alpha
        assert to_rgb(images).flatten().tolist() == seen
    assert to_rgb(images[:, :1]).flatten().tolist() == [-1.0] * 3

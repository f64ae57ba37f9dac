"""Fine-tuning: initialises a new pair of networks from the weights of a trained one.

Weights are matched by meaning, not by position: categories by name, blocks by resolution. Blocks
that a larger image needs are new, and contribute nothing to it at first.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.discriminator import ConvolutionalDiscriminator, Discriminator
from models.generator import Generator
from models.manifest import category_index
from models.projected import CombinedDiscriminator
from training.dataset import PreparedDataset
from training.learning.loader import to_float
from training.learning.run import RunError
from training.learning.samplers import GeneratorSampler
from training.learning.sources import Source, Weights

logger = logging.getLogger(__name__)

_BLOCK: Final = re.compile(r"blocks\.(\d+)\.(.*)")
COMPARED_PHOTOS: Final = 64  # per category, to find the nearest one


def transfer(
    source: Source,
    generator: Generator,
    discriminator: Discriminator,
    likeness: dict[str, str | None],
) -> list[str]:
    """Initialise both networks from the source's averaged generator and its discriminator.

    Args:
        source: Source of the weights.
        generator: Receives all weights that fit; blocks beyond the source's resolution contribute
            nothing at first.
        discriminator: Receives all weights that fit; its first layer only at equal resolution.
        likeness: For each category of the new dataset, in order, the source's category that
            it starts from, or None for the mean of all.

    Returns:
        Names of the tensors that keep their new initialisation.

    Raises:
        RunError: The generator's blocks don't fit, as when the widths differ.
    """
    rows = [None if c is None else source.categories.index(c) for c in likeness.values()]
    known = [category_index(name, source.categories) is not None for name in likeness]
    noisy = [not k and rows.count(row) > 1 for k, row in zip(known, rows, strict=True)]
    weights = _with_categories(source.generator, "mapping.embed.weight", 1, rows, noisy)
    del weights["mapping.w_avg"]  # of the old categories; computed again when it is needed
    new = _load_matching(generator, weights)
    if generator.shape.pyramid.base != source.pyramid.base:
        logger.info("%s has another base shape: layers of that size are reinitialised", source.name)
    if "synthesis.conv.conv.weight" in new:
        raise RunError(
            f"--from {source.name}: its layers have other widths "
            f"({source.model.model_dump()}); leave out --preset and --set model.*"
        )
    for i in range(source.pyramid.doublings, generator.shape.pyramid.doublings):
        weight = generator.get_parameter(f"synthesis.blocks.{i}.to_image.weight")
        torch.nn.init.zeros_(weight)
    deeper = generator.shape.pyramid.doublings - source.pyramid.doublings
    convolutional, projected = _by_kind(source.discriminator)
    convolutional = _renumbered(_with_categories(convolutional, "embed", 0, rows), deeper)
    for name in [name for name in projected if name.endswith("embed")]:
        projected = _with_categories(projected, name, 0, rows)
    matching = _named_for(discriminator, convolutional, projected)
    return new + _load_matching(discriminator, matching)


def _by_kind(weights: Weights) -> tuple[Weights, Weights]:
    """Split a discriminator's weights into convolutional and projected, which may be empty."""
    convolutional, projected = (
        {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        for prefix in ("convolutional.", "projected.")
    )
    return convolutional or weights, projected


def _named_for(discriminator: Discriminator, convolutional: Weights, projected: Weights) -> Weights:
    """Select the weights that a discriminator of this kind has, under its names."""
    if isinstance(discriminator, CombinedDiscriminator):
        named = {f"convolutional.{n}": w for n, w in convolutional.items()}
        return named | {f"projected.{n}": w for n, w in projected.items()}
    return convolutional


def _with_categories(
    weights: Weights, name: str, axis: int, rows: list[int | None], noisy: Sequence[bool] = ()
) -> Weights:
    """Replace the category table `name` by its `rows` along `axis`; None = the mean of all.

    Rows that are `noisy` become half noise: categories with equal embeddings would stay alike
    in a short training.
    """
    table = weights[name].movedim(axis, 0)
    picked = torch.stack([table.mean(dim=0) if row is None else table[row] for row in rows])
    if any(noisy):
        noise = torch.randn(picked.shape, generator=torch.Generator().manual_seed(0))
        scale = table.square().mean().sqrt()
        halves = (picked + noise.to(picked) * scale) / 2**0.5
        picked = torch.where(torch.tensor(noisy)[:, None], halves, picked)
    return {**weights, name: picked.movedim(0, axis).contiguous()}


def _renumbered(weights: Weights, deeper: int) -> Weights:
    """Shift discriminator blocks, which are counted from the finest, to equal resolutions."""
    if deeper == 0:
        return weights
    moved = {}
    for name, tensor in weights.items():
        block = _BLOCK.fullmatch(name)
        if block is not None and int(block[1]) + deeper >= 0:
            moved[f"blocks.{int(block[1]) + deeper}.{block[2]}"] = tensor
        elif block is None and not name.startswith("from_image."):
            moved[name] = tensor
    return moved


@torch.no_grad()
def recognise_new(discriminator: Discriminator, dataset: PreparedDataset, new: list[bool]) -> None:
    """Initialise the discriminator's embeddings of new categories from their photos.

    A category's term in a logit is linear in the features; the best embedding is the direction
    that distinguishes its photos from the others (Miyato and Koyama 2018, section 3, arXiv
    1802.05637). Each new embedding becomes the category's mean feature minus the mean of all
    categories, scaled to the length of the other embeddings.

    Args:
        discriminator: Discriminator of `dataset`'s categories, with a source's weights.
        dataset: Dataset to train on.
        new: Which categories the source does not have.
    """
    train, means = dataset.indices("train"), []
    present = np.unique(dataset.labels[train])
    chosen = [label for label in present if new[label]]
    if not chosen or len(present) < 2:
        return
    for label in present:
        rows = train[dataset.labels[train] == label][:COMPARED_PHOTOS]
        photos = to_float(torch.from_numpy(dataset.images[rows])).to(discriminator.device)
        means.append([hidden.mean(dim=0) for hidden in _hidden(discriminator, photos)])
    of_each_table = (torch.stack(table) for table in zip(*means, strict=True))
    for embed, mean in zip(_embeddings(discriminator), of_each_table, strict=True):
        differences = mean - mean.mean(dim=0)
        directions = torch.nn.functional.normalize(differences, dim=1) * embed.norm(dim=1).mean()
        for label, direction in zip(present, directions, strict=True):
            if label in chosen:
                embed[label] = direction


def _hidden(discriminator: Discriminator, images: Tensor) -> list[Tensor]:
    if isinstance(discriminator, CombinedDiscriminator):
        convolutional, projected = discriminator.convolutional, discriminator.projected
        return [*_hidden(convolutional, images), *projected.hidden_features(images)]
    assert isinstance(discriminator, ConvolutionalDiscriminator)
    return [discriminator.hidden_features(images)]


def _embeddings(discriminator: Discriminator) -> list[Tensor]:
    """Category embeddings [categories, features], in the order of `_hidden`."""
    return [p for name, p in discriminator.named_parameters() if name.split(".")[-1] == "embed"]


def _load_matching(module: torch.nn.Module, weights: Weights) -> list[str]:
    """Load the tensors whose name and shape match; returns the names of all others."""
    state = module.state_dict()
    fits = {n: w for n, w in weights.items() if n in state and state[n].shape == w.shape}
    module.load_state_dict({**state, **fits})
    return [name for name in state if name not in fits]


def find_likeness(
    source: Source,
    dataset: PreparedDataset,
    extractor: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None,
) -> dict[str, str | None]:
    """Find for each category of `dataset` the source's category to start from.

    Args:
        source: Source of the weights.
        dataset: Dataset to train on.
        extractor: Images uint8 [N, H, W, C] -> features [N, D], to compare photos of a category
            that the source does not have with generated images of those that it has; None = such
            a category starts from the mean of all.
    """
    likeness: dict[str, str | None] = {}
    for name in dataset.info.categories:
        index = category_index(name, source.categories)
        likeness[name] = None if index is None else source.categories[index]
    new = [name for name, known in likeness.items() if known is None]
    if new and extractor is not None:
        sampler = GeneratorSampler(source.build_generator(), source.categories)
        of_each = (np.full(COMPARED_PHOTOS, label) for label in range(len(source.categories)))
        generated = (sampler.sample(labels, seed=0, truncation_psi=0.7) for labels in of_each)
        centres = np.stack([extractor(images).mean(axis=0) for images in generated])
        train = dataset.indices("train")
        for name in new:
            of_name = train[dataset.labels[train] == dataset.info.categories.index(name)]
            if len(of_name) == 0:
                continue
            photos = np.ascontiguousarray(dataset.images[of_name[:COMPARED_PHOTOS]])
            distances = np.linalg.norm(centres - extractor(photos).mean(axis=0), axis=1)
            likeness[name] = source.categories[int(distances.argmin())]
    logger.info("categories start from: %s", json.dumps(likeness, ensure_ascii=False))
    return likeness


def freeze(discriminator: Discriminator, blocks: int) -> None:
    """Freeze the discriminator's first `blocks` blocks.

    The layers next to the image detect edges and textures of any product; with few photos it
    is better not to train them further. Source: Mo et al. 2020, arXiv 2002.10964.
    """
    if isinstance(discriminator, CombinedDiscriminator):
        discriminator = discriminator.convolutional
    if blocks and isinstance(discriminator, ConvolutionalDiscriminator):
        discriminator.from_image.requires_grad_(False)
        for block in list(discriminator.blocks)[:blocks]:
            block.requires_grad_(False)

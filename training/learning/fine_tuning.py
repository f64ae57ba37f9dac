"""Fine-tuning: a new pair of networks takes the weights of a trained one.

What crosses is matched by meaning, not by position: categories by name, blocks by their
resolution. Blocks that a larger image needs are new and start without a say in it.
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
COMPARED_PHOTOS: Final = 64  # of a category, to find the nearest one


def transfer(
    source: Source,
    generator: Generator,
    discriminator: Discriminator,
    likeness: dict[str, str | None],
) -> list[str]:
    """Start `generator` and `discriminator` from the source's averaged generator and critic.

    Args:
        source: Where the weights come from.
        generator: Takes what fits; blocks beyond the source's resolution add nothing at first.
        discriminator: Takes what fits; its first layer only at the same resolution.
        likeness: For each category of the new dataset, in order, the source's category that
            it starts from, or None for the mean of all.

    Returns:
        Names of the tensors that start afresh.

    Raises:
        RunError: Nothing of the generator's blocks fits, as when the widths differ.
    """
    rows = [None if c is None else source.categories.index(c) for c in likeness.values()]
    known = [category_index(name, source.categories) is not None for name in likeness]
    apart = [not k and rows.count(row) > 1 for k, row in zip(known, rows, strict=True)]
    theirs = _embedded(source.generator, "mapping.embed.weight", 1, rows, apart)
    del theirs["mapping.w_avg"]  # of the old categories; computed again when it is needed
    fresh = _take(generator, theirs)
    if generator.shape.pyramid.base != source.pyramid.base:
        logger.info("%s has another base shape: what depends on it starts afresh", source.name)
    if "synthesis.conv.conv.weight" in fresh:
        raise RunError(
            f"--from {source.name}: its layers are of other widths "
            f"({source.model.model_dump()}); leave out --preset and --set model.*"
        )
    for i in range(source.pyramid.doublings, generator.shape.pyramid.doublings):
        weight = generator.get_parameter(f"synthesis.blocks.{i}.to_image.weight")
        torch.nn.init.zeros_(weight)
    deeper = generator.shape.pyramid.doublings - source.pyramid.doublings
    own, seen = _parts(source.discriminator)
    own = _renumbered(_embedded(own, "embed", 0, rows), deeper)
    for name in [name for name in seen if name.endswith("embed")]:
        seen = _embedded(seen, name, 0, rows)
    return fresh + _take(discriminator, _joined(own, seen, discriminator))


def _parts(weights: Weights) -> tuple[Weights, Weights]:
    """A discriminator's weights by kind: convolutional and projected, the latter may be empty."""
    own, seen = (
        {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        for prefix in ("convolutional.", "projected.")
    )
    return own or weights, seen


def _joined(own: Weights, seen: Weights, discriminator: Discriminator) -> Weights:
    """Those of them that a discriminator of this kind has, under its names."""
    if isinstance(discriminator, CombinedDiscriminator):
        named = {f"convolutional.{n}": w for n, w in own.items()}
        return named | {f"projected.{n}": w for n, w in seen.items()}
    return own


def _embedded(
    weights: Weights, name: str, axis: int, rows: list[int | None], apart: Sequence[bool] = ()
) -> Weights:
    """`weights` with a category table whose rows along `axis` are those asked for.

    Rows that are to be told `apart` are half noise: what starts alike, a short training would leave
    alike.
    """
    table = weights[name].movedim(axis, 0)
    picked = torch.stack([table.mean(dim=0) if row is None else table[row] for row in rows])
    if any(apart):
        noise = torch.randn(picked.shape, generator=torch.Generator().manual_seed(0))
        scale = table.square().mean().sqrt()
        halves = (picked + noise.to(picked) * scale) / 2**0.5
        picked = torch.where(torch.tensor(apart)[:, None], halves, picked)
    return {**weights, name: picked.movedim(0, axis).contiguous()}


def _renumbered(weights: Weights, deeper: int) -> Weights:
    """Discriminator blocks are counted from the finest: shift them to the same resolution."""
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
    """Let the discriminator know new categories by what it sees in their photos.

    What a category adds to a logit is linear in the features; best is what tells its photos
    from the others' (Miyato and Koyama 2018, section 3, arXiv 1802.05637). Each new embedding
    becomes the category's mean feature less that of all, at the length of the others.

    Args:
        discriminator: Of `dataset`'s categories, with a source's weights.
        dataset: What is to be learnt.
        new: Which categories the source does not know.
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
        apart = mean - mean.mean(dim=0)
        directions = torch.nn.functional.normalize(apart, dim=1) * embed.norm(dim=1).mean()
        for label, direction in zip(present, directions, strict=True):
            if label in chosen:
                embed[label] = direction


def _hidden(discriminator: Discriminator, images: Tensor) -> list[Tensor]:
    if isinstance(discriminator, CombinedDiscriminator):
        own, seen = discriminator.convolutional, discriminator.projected
        return [*_hidden(own, images), *seen.hidden_features(images)]
    assert isinstance(discriminator, ConvolutionalDiscriminator)
    return [discriminator.hidden_features(images)]


def _embeddings(discriminator: Discriminator) -> list[Tensor]:
    """The tables of categories [categories, features], in the order of `_hidden`."""
    return [p for name, p in discriminator.named_parameters() if name.split(".")[-1] == "embed"]


def _take(module: torch.nn.Module, weights: Weights) -> list[str]:
    """Copy what has the same name and shape; the names of all others."""
    mine = module.state_dict()
    fits = {n: w for n, w in weights.items() if n in mine and mine[n].shape == w.shape}
    module.load_state_dict({**mine, **fits})
    return [name for name in mine if name not in fits]


def find_likeness(
    source: Source,
    dataset: PreparedDataset,
    extractor: Callable[[NDArray[np.uint8]], NDArray[np.float32]] | None,
) -> dict[str, str | None]:
    """For each category of `dataset`, the source's category to start from.

    Args:
        source: Where the weights come from.
        dataset: What is to be learnt.
        extractor: Pictures uint8 [N, H, W, C] -> features [N, D], by which a category that
            the source does not know is compared with the pictures of those that it does;
            None: it starts from the mean of all.
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
        centres = np.stack([extractor(pictures).mean(axis=0) for pictures in generated])
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
    """Keep the discriminator's first `blocks` blocks as they are.

    The layers next to the picture know edges and textures of any product; with few photos
    they are better kept than relearnt. Source: Mo et al. 2020, arXiv 2002.10964.
    """
    if isinstance(discriminator, CombinedDiscriminator):
        discriminator = discriminator.convolutional
    if blocks and isinstance(discriminator, ConvolutionalDiscriminator):
        discriminator.from_image.requires_grad_(False)
        for block in list(discriminator.blocks)[:blocks]:
            block.requires_grad_(False)

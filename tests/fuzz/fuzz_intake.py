"""Fuzzes what uploads go through: bytes -> a decoded, fitted picture, and its origin by its XMP.

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

    from models.images import ImageError
    from service.decoding.tasks import perform
    from service.provenance.origin import edited_source_type

LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000, "min_side_px": 16}


def take_in(data: bytes) -> None:
    """Do all that decoding processes do with an upload: as a photo, as a mask, and for a model."""
    assert edited_source_type(data)
    try:
        about, _ = perform({"task": "measure", "limits": LIMITS}, data)
        width, height = about["size"]
        assert width * height <= LIMITS["max_pixels"]
        about, parts = perform({"task": "open", "limits": LIMITS, "max_side_px": 512}, data)
    except ImageError:
        return
    # The stored size; EXIF may turn it.
    assert sorted(about["size"]) == sorted((width, height))
    frame = about["frame"][0] * about["frame"][1]
    assert [len(part) for part in parts] in ([3 * frame], [3 * frame, frame])
    with contextlib.suppress(ImageError):
        perform({"task": "mask", "limits": LIMITS, "size": [width, height]}, data)
    fit = {"task": "fit", "width": 32, "height": 16, "channels": 4}
    assert len(perform({"limits": LIMITS, **fit}, data)[1][0]) == 32 * 16 * 4


def main() -> None:
    """Fuzz, from the seeds and from what an earlier run found new."""
    with tempfile.TemporaryDirectory() as corpus:
        for name, data in picture_seeds().items():
            (Path(corpus) / name).write_bytes(data)
        atheris.Setup([*sys.argv, corpus], take_in, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

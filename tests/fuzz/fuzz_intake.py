"""Fuzzes what uploads go through: bytes -> a decoded, fitted picture, and its origin by its XMP.

    python tests/fuzz/fuzz_intake.py -max_total_time=60 -rss_limit_mb=1024

Further arguments are libFuzzer's. Anything raised but an answer of ours is a finding.
"""

import contextlib
import sys
import tempfile
import zlib
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
with atheris.instrument_imports(include=["models", "service", "PIL"]):
    from seeds import picture_seeds

    from models.images import ImageError
    from service.decoding.tasks import perform
    from service.provenance.xmp import edited_source_type

LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000, "min_side_px": 16}
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


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


def mutate(data: bytes, max_size: int, seed: int) -> bytes:
    """libFuzzer's mutation; most PNGs get right checksums again, to get past the first check."""
    changed = atheris.Mutate(data, max_size)
    return _with_checksums(changed) if changed.startswith(PNG_HEAD) and seed % 8 else changed


def _with_checksums(data: bytes) -> bytes:
    parts, at = [PNG_HEAD], len(PNG_HEAD)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            break
        parts += [data[at:end], zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")]
        at = end + 4
    return b"".join([*parts, data[at:]])


def main() -> None:
    """Fuzz, from the seeds and from what an earlier run found new."""
    with tempfile.TemporaryDirectory() as corpus:
        for name, data in picture_seeds().items():
            (Path(corpus) / name).write_bytes(data)
        atheris.Setup([*sys.argv, corpus], take_in, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Fuzzes what is read of a file's marks in our own process: XMP, manifest stores, signatures.

    python tests/fuzz/fuzz_marks.py -max_total_time=60 -rss_limit_mb=1024

Further arguments are libFuzzer's. Anything raised is a finding, and a claim that no key signed.
"""

import sys
import tempfile
from pathlib import Path

import atheris

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
with atheris.instrument_imports(include=["service.provenance"]):
    from cryptography.hazmat.primitives.asymmetric import ec
    from mutations import mutate
    from seeds import marked_seeds

    from service.provenance.claim_signature import active_manifest, is_signed_by
    from service.provenance.containers import MAX_XMP_BYTES, manifest_store, xmp_packets
    from service.provenance.origin import edited_source_type, read_xmp

NOBODYS = ec.generate_private_key(ec.SECP256R1()).public_key()


def read_marks(data: bytes) -> None:
    """Read what a verification and an augmentation read."""
    assert sum(map(len, xmp_packets(data))) <= 4 * MAX_XMP_BYTES
    read_xmp(data)
    assert edited_source_type(data).startswith("http")
    store = manifest_store(data) or data
    active = active_manifest(store)
    if active is not None:
        assert not is_signed_by(store, active[0], [NOBODYS])


def main() -> None:
    """Fuzz, from the seeds and from what an earlier run found new."""
    with tempfile.TemporaryDirectory() as corpus:
        for name, data in marked_seeds().items():
            (Path(corpus) / name).write_bytes(data)
        atheris.Setup([*sys.argv, corpus], read_marks, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

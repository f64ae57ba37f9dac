"""What the service is compared with: ONNX Runtime and the encoder in a few threads.

    python bench/bare_session.py EXPORT MODEL_ID THREADS

Reads a line with a number of seconds from stdin, works for so long, and answers with a
JSON line {pictures, seconds, cpu_s}; ends with stdin. The line "picture SEED" is answered
with what `unsigned_sha256` gives of that picture. The pictures are the service's: the same
latents, encoder and marks, signed with the same key, but no server, queue, checks, records
or log. It runs in a process of its own, without torch.
"""

import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from unsigned import unsigned_sha256

from models.manifest import GENERATOR_FILE, MANIFEST_FILE, OUTPUT_NAME, GeneratorManifest
from service.images.imaging import Encoding, encode_image
from service.inference.generation import latents
from service.marks.marker import open_marker
from service.marks.marking import GENERATED, Mark
from service.settings import load_settings


class BareSession:
    """One session that several threads share, one thread a run."""

    def __init__(self, export: Path, model_id: str) -> None:
        self._manifest = GeneratorManifest.model_validate_json(
            (export / MANIFEST_FILE).read_bytes()
        )
        self._model_id = model_id
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            (export / GENERATOR_FILE).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._seeds = itertools.count()
        self._encoding = Encoding(open_marker(load_settings()))

    def picture(self, seed: int) -> bytes:
        """The PNG of one seed, its category in turn."""
        manifest = self._manifest
        index = seed % len(manifest.categories)
        z, noise = latents(manifest, seed)
        category = np.zeros((1, len(manifest.categories)), dtype=np.float32)
        category[0, index] = 1.0
        feeds = {
            "z": z[None],
            "category": category,
            "truncation_psi": np.array([manifest.truncation_psi], dtype=np.float32),
            "noise": noise[None],
        }
        (images,) = self._session.run([OUTPUT_NAME], feeds)
        scaled = np.rint((np.clip(images[0], -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
        pixels = np.ascontiguousarray(scaled.transpose(1, 2, 0))
        mark = Mark(
            GENERATED,
            seed,
            self._model_id,
            manifest.model_hash,
            manifest.categories[index],
            truncation_psi=manifest.truncation_psi,
        )
        return encode_image(pixels, self._encoding, mark)

    def work(self, until: float) -> int:
        """Make pictures up to a time, but at least one; gives how many."""
        made = 0
        while made == 0 or time.perf_counter() < until:
            self.picture(next(self._seeds))
            made += 1
        return made


def main() -> None:
    """Serve stdin."""
    session, threads = BareSession(Path(sys.argv[1]), sys.argv[2]), int(sys.argv[3])
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            if line.startswith("picture "):
                digest = unsigned_sha256(session.picture(int(line.split()[1])))
                print(json.dumps(digest), flush=True)
                continue
            start, cpu_start = time.perf_counter(), time.process_time()
            made = sum(pool.map(session.work, [start + float(line)] * threads))
            result = {
                "pictures": made,
                "seconds": time.perf_counter() - start,
                "cpu_s": time.process_time() - cpu_start,
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()

"""What the service is compared with: the same images, without all that a service is.

    python bench/plain.py session EXPORT MODEL_ID THREADS
    python bench/plain.py fastapi EXPORT MODEL_ID THREADS PORT

session: ONNX Runtime and the encoder in a few threads. Reads lines from stdin and answers each with
one of JSON: a number of seconds, for which it works, with {pictures, seconds, cpu_s}; "picture
SEED" with `unsigned_sha256` of that image.

fastapi, and plain_litserve.py: servers that do what the service does at its core: compare the key
in constant time, validate the request by the service's schema, run the session, encode, write XMP
and sign. They serve one image of a seed and nothing else of the schema. What they leave out is the
service's to spend: records of hashes, usage and quotas in the database, idempotency, rates, limits
on bodies, connections, queues and time, content negotiation, one shape for errors, metadata in
headers, request ids, metrics, traces, log lines, and models that change while it runs.
"""

import asyncio
import hmac
import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from measuring import unsigned_sha256

from models.manifest import GENERATOR_FILE, MANIFEST_FILE, OUTPUT_NAME, GeneratorManifest
from service.images.imaging import Encoding, encode_image
from service.inference.generation import consecutive_seeds, latents
from service.marks.marker import open_marker
from service.marks.marking import GENERATED, Mark
from service.messages.schemas import GenerationRequest
from service.settings import load_settings

ROUTE = "/v1/images/generations"


class BareSession:
    """One session that several threads share, one thread a run."""

    def __init__(self, export: Path, model_id: str) -> None:
        self._manifest = GeneratorManifest.model_validate_json(
            (export / MANIFEST_FILE).read_bytes()
        )
        self._model_id = model_id
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            (export / GENERATOR_FILE).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._seeds = itertools.count()
        self._encoding = Encoding(open_marker(load_settings()))

    def picture(self, seed: int) -> bytes:
        """The PNG of one seed, its category in turn; the service's latents, encoder and marks."""
        manifest = self._manifest
        index, psi = seed % len(manifest.categories), manifest.truncation_psi
        z, noise = latents(manifest, seed)
        feeds = {
            "z": z[None],
            "category": np.eye(len(manifest.categories), dtype=np.float32)[index : index + 1],
            "truncation_psi": np.array([psi], dtype=np.float32),
            "noise": noise[None],
        }
        (images,) = self._session.run([OUTPUT_NAME], feeds)
        scaled = np.rint((np.clip(images[0], -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
        pixels = np.ascontiguousarray(scaled.transpose(1, 2, 0))
        model = (self._model_id, manifest.model_hash, manifest.categories[index])
        mark = Mark(GENERATED, seed, *model, truncation_psi=psi)
        return encode_image(pixels, self._encoding, mark)

    def answer(self, asked: GenerationRequest) -> Response:
        """The PNG of the seed that is asked for."""
        (seed,) = consecutive_seeds(asked.seed, 1)
        return Response(self.picture(seed), media_type="image/png")

    def work(self, until: float) -> int:
        """Make images up to a time, but at least one; gives how many."""
        made = 0
        while made == 0 or time.perf_counter() < until:
            self.picture(next(self._seeds))
            made += 1
        return made


def serve_stdin(session: BareSession, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            if line.startswith("picture "):
                digest = unsigned_sha256(session.picture(int(line.split()[1])))
                print(json.dumps(digest), flush=True)
                continue
            start, cpu_start = time.perf_counter(), time.process_time()
            result = {"pictures": sum(pool.map(session.work, [start + float(line)] * threads))}
            result["seconds"] = time.perf_counter() - start
            result["cpu_s"] = time.process_time() - cpu_start
            print(json.dumps(result), flush=True)


async def authorize(authorization: Annotated[str, Header()] = "") -> None:
    """Refuse who lacks the key; async, as FastAPI would pay for a thread otherwise."""
    scheme, _, given = authorization.partition(" ")
    key = os.environ["CATALOGAN_API_KEY"].encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key):
        raise HTTPException(401, "the API key is wrong")


def serve_fastapi(session: BareSession, threads: int, port: int) -> None:
    import uvicorn

    app, workers = FastAPI(), ThreadPoolExecutor(threads)

    @app.post(ROUTE, dependencies=[Depends(authorize)])
    async def generate(asked: GenerationRequest) -> Response:
        return await asyncio.get_running_loop().run_in_executor(workers, session.answer, asked)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


def main() -> None:
    kind, export, model_id, threads, *port = sys.argv[1:]
    model = (Path(export), model_id)
    if kind == "session":
        serve_stdin(BareSession(*model), int(threads))
    else:
        serve_fastapi(BareSession(*model), int(threads), int(port[0]))


if __name__ == "__main__":
    main()

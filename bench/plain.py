"""Servers that the service is compared with: the same images, without the rest of a service.

    python bench/plain.py fastapi|litserve EXPORT MODEL_ID THREADS PORT

BareSession is ONNX Runtime and the encoder in a few threads.

Run as a program, this is a server in plain FastAPI or LitServe that does what the service does at
its core: compare the key in constant time, validate the request by the service's schema, run the
session, encode, write XMP and sign. It serves one image of a seed and nothing else of the schema.
It leaves out what the service does besides: records of hashes, usage and quotas in the database,
idempotency, rates, limits on bodies, connections, queues and time, content negotiation, one format
for errors, metadata in headers, request ids, metrics, traces, log lines, and switching models
while it runs.
"""

import asyncio
import hmac
import itertools
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from litserve import LitAPI, LitServer

from models.manifest import GENERATOR_FILE, MANIFEST_FILE, OUTPUT_NAME, GeneratorManifest
from service.generation.requests import GenerationRequest
from service.inference.generation import consecutive_seeds, latents
from service.provenance.marker import open_marker
from service.provenance.xmp import GENERATED, Mark
from service.rendering.encoding import Encoding, encode_image
from service.settings import load_settings

ROUTE = "/v1/images/generations"


class BareSession:
    """One session that several threads share, with one thread per run."""

    def __init__(self, export: str, model_id: str, threads: int = 1) -> None:
        self._model_id, self._threads = model_id, threads
        self._manifest = GeneratorManifest.model_validate_json(
            Path(export, MANIFEST_FILE).read_bytes()
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(
            Path(export, GENERATOR_FILE).read_bytes(), options, providers=["CPUExecutionProvider"]
        )
        self._seeds = itertools.count()
        self._encoding = Encoding(open_marker(load_settings()))

    def image(self, seed: int) -> bytes:
        """Generate the PNG of one seed, which selects its category, with the service's parts."""
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

    def respond(self, request: GenerationRequest) -> Response:
        """Respond with the PNG of the requested seed."""
        (seed,) = consecutive_seeds(request.seed, 1)
        return Response(self.image(seed), media_type="image/png")

    def closed(self, seconds: float) -> dict[str, float]:
        """Generate images in all threads, like Load.closed; returns {images, seconds, cpu_s}."""
        start, cpu_start = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(self._threads) as pool:
            created = sum(pool.map(self._work, [start + seconds] * self._threads))
        return {
            "images": created,
            "seconds": time.perf_counter() - start,
            "cpu_s": time.process_time() - cpu_start,
        }

    def _work(self, until: float) -> int:
        """Generate images until a time, but at least one; returns how many."""
        created = 0
        while created == 0 or time.perf_counter() < until:
            self.image(next(self._seeds))
            created += 1
        return created


async def authorize(authorization: Annotated[str, Header()] = "") -> None:
    """Refuse requests without the key; async, since FastAPI would otherwise use a thread."""
    scheme, _, given = authorization.partition(" ")
    key = os.environ["CATALOGAN_API_KEY"].encode()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), key):
        raise HTTPException(401, "the API key is wrong")


def serve_fastapi(export: str, model_id: str, threads: int, port: int) -> None:
    session, workers = BareSession(export, model_id), ThreadPoolExecutor(threads)
    app = FastAPI()

    @app.post(ROUTE, dependencies=[Depends(authorize)])
    async def generate(request: GenerationRequest) -> Response:
        return await asyncio.get_running_loop().run_in_executor(workers, session.respond, request)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)


class ImageAPI(LitAPI):
    """Images of seeds; sent to LitServe's workers before `setup`."""

    authorize = staticmethod(authorize)

    def __init__(self, export: str, model_id: str) -> None:
        super().__init__(api_path=ROUTE)
        self._model = (export, model_id)

    def setup(self, device: str) -> None:
        """Open a worker's session."""
        self._session = BareSession(*self._model)

    def decode_request(self, request: GenerationRequest) -> GenerationRequest:
        """Return the request: FastAPI has validated the body by the annotation."""
        return request

    def predict(self, request: GenerationRequest) -> Response:
        """Generate the image and its response."""
        return self._session.respond(request)

    def encode_response(self, response: Response) -> Response:
        """Return the response, which is encoded already."""
        return response


def serve_litserve(export: str, model_id: str, threads: int, port: int) -> None:
    """Serve with its fast queue, a session per worker, and as many HTTP processes, its default."""
    # LitServe ends its processes on Ctrl-C alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    api = ImageAPI(export, model_id)
    server = LitServer(api, accelerator="cpu", workers_per_device=threads, fast_queue=True)
    quiet = {"log_level": "warning", "access_log": False, "generate_client_file": False}
    server.run(host="127.0.0.1", port=port, **quiet)


if __name__ == "__main__":
    framework, export, model_id, threads, port = sys.argv[1:]
    serve = {"fastapi": serve_fastapi, "litserve": serve_litserve}[framework]
    serve(export, model_id, int(threads), int(port))

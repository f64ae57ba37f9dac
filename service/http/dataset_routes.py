"""The route that streams a labelled set."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import Final
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from service.datasets.archives import Tar, Zip
from service.datasets.making import Maker, dataset_bytes
from service.datasets.plan import (
    CONTAINER_TYPES,
    Container,
    DatasetRequest,
    Plan,
    plan_dataset,
    settle_container,
)
from service.http.making import make
from service.http.openapi import json_body, responses
from service.http.recording import record
from service.http.runtime import COMMON, Runtime, find_model, require_json
from service.http.workers import time_limit
from service.images.imaging import Encoding
from service.messages.answers import Finished
from service.messages.schemas import parse_json, validate
from service.pictures.finishing import Finishing
from service.registry.model_pool import LoadedModel

logger = logging.getLogger(__name__)

_BODY: Final = "http.response.body"


def add_datasets(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/datasets."""

    @app.post(
        "/v1/datasets",
        summary="Make a labelled set",
        responses=responses(None, *COMMON, 404, files=tuple(CONTAINER_TYPES.values())),
        openapi_extra=json_body(DatasetRequest),
        response_class=Response,
    )
    async def make_dataset(request: Request) -> Response:
        """Stream pictures with their labels, made as they are taken.

        An answer that breaks off on the way has an open end: the connection is closed without
        its last chunk, and the archive has no manifest, its last file.
        """
        async with time_limit(runtime.settings.request_timeout_sec):
            require_json(request)
            asked = validate(DatasetRequest, parse_json(await request.body()))
            container = settle_container(request.headers.get("accept"), asked)
            model = await find_model(runtime, asked.model)
            plan = plan_dataset(
                asked,
                model.registered.manifest,
                container=container,
                limit=runtime.settings.max_dataset_pictures,
            )
            work = partial(_stream, plan, model, container, runtime)
            body = [await request.body()]
            return await make(request, runtime.state, body, len(plan.numbers), work)


async def _stream(
    plan: Plan, model: LoadedModel, container: Container, runtime: Runtime
) -> Response:
    manifest, model_id = model.registered.manifest, model.registered.model_id
    encoding = Encoding(runtime.marker, plan.output_format, plan.output_compression)
    watermark = runtime.marker.watermark_of(model.session)
    finishing = Finishing(model_id, manifest, encoding, plan.presentation, watermark)
    maker = Maker(model.session, finishing, runtime.painters.run, runtime.settings.workers)
    sink = Zip() if container == "zip" else Tar()
    made = runtime.metrics.pictures.labels("dataset", model_id)

    def note(picture: Finished) -> None:
        made.inc()
        record(runtime.state.records, "dataset", [picture])

    chunks = dataset_bytes(plan, sink, maker, note)
    return _Stream(runtime, chunks, _headers(plan, finishing, container))


def _headers(plan: Plan, finishing: Finishing, container: Container) -> dict[str, str]:
    name = f"{finishing.manifest.name}-{plan.seed}{plan.shard.suffix}.{container}"
    return {
        "Content-Type": CONTAINER_TYPES[container],
        "Content-Disposition": f"attachment; filename={quote(name)}",
        "X-Catalogan-Model": finishing.model_id,
        "X-Catalogan-Model-Hash": finishing.manifest.model_hash,
        "X-Catalogan-Seed": str(plan.seed),
        "X-Catalogan-Count": str(len(plan.numbers)),
    }


class _Stream(StreamingResponse):
    """An answer whose next chunk is made when the last has been taken.

    It holds a place in its queue to its end. There is no limit on the whole, but one on each
    chunk: on making it, and on the client's taking it.
    """

    def __init__(
        self, runtime: Runtime, chunks: AsyncGenerator[bytes, None], headers: dict[str, str]
    ) -> None:
        super().__init__(chunks, headers=headers)
        self._chunks: Final = chunks
        self._queue: Final = runtime.datasets
        self._endings: Final = runtime.metrics.streams
        self._limit_sec: Final = runtime.settings.request_timeout_sec
        self._ending = "disconnected"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold a place while it is sent, or until the client is gone."""
        async with self._queue.place(), aclosing(self._chunks):
            try:
                await super().__call__(scope, receive, send)
            except _Stalled:
                pass  # the server closes the connection of an answer without an end
            finally:
                self._endings.labels(self._ending).inc()
                if self._ending != "complete":
                    logger.warning("a dataset's stream broke off: %s", self._ending)

    async def stream_response(self, send: Send) -> None:
        """Send chunk by chunk; what fails before the first still gets an answer of its own."""
        chunk = await self._next()
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await self._send(send, start)
        while chunk is not None:
            await self._send(send, {"type": _BODY, "body": chunk, "more_body": True})
            chunk = await self._next()
        await self._send(send, {"type": _BODY, "body": b"", "more_body": False})
        self._ending = "complete"

    async def _next(self) -> bytes | None:
        try:
            async with time_limit(self._limit_sec):
                return await anext(self._chunks, None)
        except Exception:
            self._ending = "failed"
            raise

    async def _send(self, send: Send, message: Message) -> None:
        try:
            async with asyncio.timeout(self._limit_sec):
                await send(message)
        except TimeoutError:
            self._ending = "stalled"
            raise _Stalled from None


class _Stalled(Exception):
    """The client takes nothing any more."""

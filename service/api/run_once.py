"""A request that creates images, in one scope that puts back all that it took.

First its Idempotency-Key is claimed; then a slot in its queue and its images of the key's quota
are taken; then the work is done, and recorded and counted. What fails or is cancelled on the way
leaves claim, slot and quota as they were.
"""

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.caller import key_of, note_images
from service.api.endpoint import Endpoint
from service.api.queues import Queue
from service.api.runtime import Runtime
from service.errors import BadRequest, Busy, Conflict, NotReady
from service.rendering.encoded_image import EncodedImage
from service.rendering.recording import record
from service.storage.idempotency import Claim, Refusal, StoredResponse
from service.storage.quotas import Quota, utc_now
from service.storage.state import State

_KEY_SYNTAX: Final = re.compile(r"[\x21-\x7e]{1,255}")
IN_PROGRESS_RETRY_SEC: Final = 2


@dataclass(frozen=True, kw_only=True)
class Creation:
    """A request that creates images.

    Attributes:
        endpoint: What it is counted as.
        request: Whose Idempotency-Key counts, if it has one.
        body: The parts of its body, without what a client chooses newly for each try.
        images: What is taken from the quota of the request's key.
        queue: Where it takes its slot; None = the route, or the stream, holds one.
    """

    endpoint: Endpoint
    request: Request
    body: Iterable[bytes]
    images: int
    queue: Queue | None = None


@dataclass(frozen=True, kw_only=True)
class Created:
    """What the work came to.

    Attributes:
        response: For the client.
        images: The files in it, to be recorded; a stream records its own as they are taken.
        model_id: "name:version" of the model; empty where none was used.
        count: Images for the metrics, where these are not the files.
    """

    response: Response
    images: Sequence[EncodedImage] = ()
    model_id: str = ""
    count: int | None = None


async def run_once(
    creation: Creation, runtime: Runtime, work: Callable[[], Awaitable[Created]]
) -> Response:
    """Do `work`, or return the response that the same request got before.

    Raises:
        BadRequest: The Idempotency-Key is malformed.
        Conflict: It came with another request, or the first one still runs.
        Busy: The queue is full, or the quota does not have as many images left.
        NotReady: The database can't be reached.
    """
    claim = await _claim(creation, runtime.state)
    if isinstance(claim, StoredResponse):
        return _replayed(claim)
    async with (
        _forgotten_on_failure(claim, runtime.state),
        _slot(creation.queue),
        _quota_taken(creation, runtime.state),
    ):
        created = await work()
        _count(creation, created, runtime)
    if claim is None:
        return created.response
    return await _store(claim, created.response, runtime.state)


async def _claim(creation: Creation, state: State) -> Claim | StoredResponse | None:
    """Claim the request's Idempotency-Key; None where it has none."""
    request = creation.request
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _KEY_SYNTAX.fullmatch(key):
        raise BadRequest("must be 1 to 255 visible ASCII characters", param="Idempotency-Key")
    # Of up to megabytes, so not on the event loop.
    fingerprint = await asyncio.to_thread(_fingerprint, request, creation.body)
    claim = await state.responses.claim(key_of(request).id, key, fingerprint)
    if isinstance(claim, Refusal):
        raise _conflict(claim)
    return claim


def _replayed(stored: StoredResponse) -> Response:
    response = Response(stored.body, stored.status, dict(stored.headers))
    response.headers["Idempotency-Replayed"] = "true"
    return response


@asynccontextmanager
async def _forgotten_on_failure(claim: Claim | None, state: State) -> AsyncIterator[None]:
    """Let the key go where nothing was created that a mended request could create twice."""
    try:
        yield
    except BaseException:
        if claim is not None:
            await _to_the_end(state.responses.forget(claim))
        raise


def _slot(queue: Queue | None) -> AbstractAsyncContextManager[None]:
    return nullcontext() if queue is None else queue.slot()


@asynccontextmanager
async def _quota_taken(creation: Creation, state: State) -> AsyncIterator[None]:
    """Take images out of the quota, first, and put them back where none were created."""
    key, now = key_of(creation.request), utc_now()
    quota = Quota.of(key, now)
    if quota is None:
        yield
        return
    if not await state.quotas.take(key.id, quota, creation.images):
        raise Busy(
            f"{creation.images} images are more than is left of the quota of {quota.limit} a "
            f"{quota.per}; GET /v1/usage shows how many are left",
            code="quota_exceeded",
            retry_after_sec=math.ceil((quota.ends - now).total_seconds()),
        )
    try:
        yield
    except BaseException:
        await _to_the_end(state.quotas.give_back(key.id, quota, creation.images))
        raise


async def _to_the_end(giving_back: Awaitable[Any]) -> None:
    """Wait; should this request be cancelled meanwhile, it is put back all the same."""
    await asyncio.shield(giving_back)


def _count(creation: Creation, created: Created, runtime: Runtime) -> None:
    kind = creation.endpoint.kind or ""
    if created.images:
        record(runtime.state.records, kind, created.images)
        count = len(created.images) if created.count is None else created.count
        runtime.metrics.images.labels(kind, created.model_id).inc(count)
    note_images(creation.request, creation.images)


async def _store(claim: Claim, response: Response, state: State) -> Response:
    """Keep a response; the client gets it all the same where that fails."""
    headers = [(k, v) for k, v in response.headers.items() if k != "content-length"]
    try:
        if isinstance(response, StreamingResponse):  # its body isn't there yet
            await state.responses.release(claim)
            stored = False
        else:
            kept = StoredResponse(response.status_code, headers, bytes(response.body))
            stored = await state.responses.store(claim, kept)
    except NotReady:
        stored = False
    if not stored:
        response.headers["Idempotency-Stored"] = "false"
    return response


def _fingerprint(request: Request, body: Iterable[bytes]) -> bytes:
    """A hash of all that decides the response; each part with its length before it."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    head = (
        request.method,
        request.url.path,
        request.url.query,
        media_type,
        request.headers.get("accept", ""),
    )
    digest = hashlib.sha256()
    for part in (*(text.encode("utf-8", "surrogateescape") for text in head), *body):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _conflict(refusal: Refusal) -> Conflict:
    if refusal is Refusal.IN_PROGRESS:
        return Conflict(
            refusal.value,
            param="Idempotency-Key",
            code="idempotency_in_progress",
            retry_after_sec=IN_PROGRESS_RETRY_SEC,
        )
    return Conflict(refusal.value, param="Idempotency-Key")

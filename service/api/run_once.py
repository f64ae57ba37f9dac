"""A request that creates images, in one scope that puts back all that it took.

First its Idempotency-Key is claimed; then a slot in its queue and its images of the key's quota
are taken; then the work is done, and recorded and counted. What fails or is cancelled on the way
leaves claim, slot and quota as they were. A stream takes the scope along, and closes it at its end.
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from service.api.caller import key_of, note_images
from service.api.endpoint import Endpoint
from service.api.queues import Queue
from service.api.runtime import Runtime
from service.api.streaming import DatasetStream
from service.decoding.uploads import File
from service.errors import BadRequest, Busy, Conflict, NotReady
from service.inference.workers import to_the_end
from service.rendering.encoded_image import EncodedImage
from service.rendering.recording import record
from service.storage.idempotency import Claim, Refusal, StoredResponse
from service.storage.quotas import Quota, utc_now
from service.storage.state import State

_KEY_SYNTAX: Final = re.compile(r"[\x21-\x7e]{1,255}")
IN_PROGRESS_RETRY_SEC: Final = 2


@dataclass
class Delivery:
    """What of a request's images was delivered, and is charged.

    Attributes:
        images: All, where the response is not a stream; that counts them as they are read.
    """

    images: int = 0


@dataclass(frozen=True, kw_only=True)
class Creation:
    """A request that creates images.

    Attributes:
        endpoint: What it is counted as.
        request: Whose Idempotency-Key counts, if it has one.
        body: What its body says, checked: blanks, order and null make no difference.
        files: The files that came with it, by name.
        images: What is taken from the quota of the request's key.
        queue: Where it takes its slot; None = the route holds one.
        delivery: What was delivered.
    """

    endpoint: Endpoint
    request: Request
    body: BaseModel
    images: int
    files: Mapping[str, Sequence[File]] = field(default_factory=dict)
    queue: Queue | None = None
    delivery: Delivery = field(default_factory=Delivery)


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
    async with AsyncExitStack() as held:
        await held.enter_async_context(_forgotten_on_failure(claim, creation, runtime.state))
        if creation.queue is not None:
            await held.enter_async_context(creation.queue.slot())
        await held.enter_async_context(_charged(creation, runtime.state))
        created = await work()
        if isinstance(created.response, DatasetStream):
            created.response.hold(held.pop_all())
        else:
            _record(creation, created, runtime)
            creation.delivery.images = creation.images
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
    fingerprint = await asyncio.to_thread(_fingerprint, creation)
    claim = await to_the_end(state.responses.claim(key_of(request).id, key, fingerprint))
    if isinstance(claim, Refusal):
        raise _conflict(claim)
    return claim


def _replayed(stored: StoredResponse) -> Response:
    response = Response(stored.body, stored.status, dict(stored.headers))
    response.headers["Idempotency-Replayed"] = "true"
    return response


@asynccontextmanager
async def _forgotten_on_failure(
    claim: Claim | None, creation: Creation, state: State
) -> AsyncIterator[None]:
    """Let the key go where nothing was delivered that a corrected request could create twice."""
    try:
        yield
    except BaseException:
        if claim is not None and not creation.delivery.images:
            await to_the_end(state.responses.forget(claim))
        raise


@asynccontextmanager
async def _charged(creation: Creation, state: State) -> AsyncIterator[None]:
    """Take images out of the quota, first, and put back those that were not delivered."""
    key, now = key_of(creation.request), utc_now()
    quota = Quota.of(key, now)
    taken = creation.images
    if quota is not None and not await to_the_end(state.quotas.take(key.id, quota, taken)):
        raise Busy(
            f"{taken} images are more than is left of the quota of {quota.limit} a "
            f"{quota.per}; GET /v1/usage shows how many are left",
            code="quota_exceeded",
            retry_after_sec=math.ceil((quota.ends - now).total_seconds()),
        )
    try:
        yield
    finally:
        note_images(creation.request, creation.delivery.images)
        left = taken - creation.delivery.images
        if quota is not None and left > 0:
            await to_the_end(state.quotas.give_back(key.id, quota, left))


def _record(creation: Creation, created: Created, runtime: Runtime) -> None:
    kind = creation.endpoint.kind or ""
    if not created.images:
        return
    record(runtime.state.records, kind, created.images)
    count = len(created.images) if created.count is None else created.count
    runtime.metrics.images.labels(kind, created.model_id).inc(count)


async def _store(claim: Claim, response: Response, state: State) -> Response:
    """Keep a response; the client gets it all the same where that fails."""
    headers = [(k, v) for k, v in response.headers.items() if k != "content-length"]
    try:
        if isinstance(response, DatasetStream):  # its body isn't there yet
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


def _fingerprint(creation: Creation) -> bytes:
    """A hash of all that decides the response; each part with its length before it."""
    request = creation.request
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    head = (
        request.method,
        request.url.path,
        request.url.query,
        media_type,
        "".join(request.headers.get("accept", "*/*").lower().split()),
        json.dumps(creation.body.model_dump(exclude_none=True), sort_keys=True),
    )
    digest = hashlib.sha256()
    for part in (*map(_encoded, head), *_file_parts(creation.files)):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def _file_parts(files: Mapping[str, Sequence[File]]) -> Iterator[bytes]:
    """Files of one name in their order, which counts; the order of names does not."""
    for name, named in sorted(files.items()):
        for file in named:
            yield from (_encoded(name), _encoded(file.name), file.data)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _conflict(refusal: Refusal) -> Conflict:
    if refusal is Refusal.IN_PROGRESS:
        return Conflict(
            refusal.value,
            param="Idempotency-Key",
            code="idempotency_in_progress",
            retry_after_sec=IN_PROGRESS_RETRY_SEC,
        )
    return Conflict(refusal.value, param="Idempotency-Key")

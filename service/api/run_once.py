"""What all requests that make pictures have in common: once per Idempotency-Key, within quotas."""

import asyncio
import hashlib
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from service.api.caller import key_of, note_pictures
from service.errors import BadRequest, Busy, Conflict, NotReady
from service.storage.idempotency import Claim, Refusal, Stored
from service.storage.quotas import Quota, utc_now
from service.storage.state import State

_KEY_SYNTAX: Final = re.compile(r"[\x21-\x7e]{1,255}")
IN_PROGRESS_RETRY_SEC: Final = 2


async def make(
    request: Request,
    state: State,
    body: Iterable[bytes],
    pictures: int,
    work: Callable[[], Awaitable[Response]],
) -> Response:
    """Do `work`, or give the answer that the same request got before.

    Args:
        request: Whose Idempotency-Key counts, if it has one.
        state: Where answers and quotas are.
        body: The parts of its body, without what a client chooses anew for each try.
        pictures: What is taken from the quota of the request's key; comes back on failure.
        work: Makes the answer.

    Raises:
        BadRequest: The Idempotency-Key is malformed.
        Conflict: It came with another request, or the first one still runs.
        Busy: The quota does not have as many pictures left.
        NotReady: The database can't be reached.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return await _make_within_quota(request, state, pictures, work)
    if not _KEY_SYNTAX.fullmatch(key):
        raise BadRequest("must be 1 to 255 visible ASCII characters", param="Idempotency-Key")
    fingerprint = await asyncio.to_thread(_fingerprint, request, body)  # of up to megabytes
    claim = await state.answers.claim(key_of(request).name, key, fingerprint)
    if isinstance(claim, Refusal):
        raise _conflict(claim)
    if isinstance(claim, Stored):
        answer = Response(claim.body, claim.status, dict(claim.headers))
        answer.headers["Idempotency-Replayed"] = "true"
        return answer
    try:
        answer = await _make_within_quota(request, state, pictures, work)
    except BaseException:  # nothing was made that a mended request could make twice
        await state.answers.forget(claim)
        raise
    return await _store(state, claim, answer)


async def _make_within_quota(
    request: Request, state: State, pictures: int, work: Callable[[], Awaitable[Response]]
) -> Response:
    async with _taken(request, state, pictures):
        answer = await work()
    note_pictures(request, pictures)
    return answer


@asynccontextmanager
async def _taken(request: Request, state: State, pictures: int) -> AsyncIterator[None]:
    """Take pictures out of the quota, first, and put them back where none were made."""
    key, now = key_of(request), utc_now()
    quota = Quota.of(key, now)
    if quota is None:
        yield
        return
    if not await state.quotas.take(key.name, quota, pictures):
        raise Busy(
            f"{pictures} pictures are more than is left of the quota of {quota.limit} a "
            f"{quota.per}; GET /v1/usage tells how many are left",
            code="quota_exceeded",
            retry_after_sec=math.ceil((quota.ends - now).total_seconds()),
        )
    try:
        yield
    except BaseException:
        await state.quotas.give_back(key.name, quota, pictures)
        raise


async def _store(state: State, claim: Claim, answer: Response) -> Response:
    """Keep an answer; the client gets it all the same where that fails."""
    headers = [(k, v) for k, v in answer.headers.items() if k != "content-length"]
    try:
        if isinstance(answer, StreamingResponse):  # its body isn't there yet
            await state.answers.release(claim)
            stored = False
        else:
            kept = Stored(answer.status_code, headers, bytes(answer.body))
            stored = await state.answers.store(claim, kept)
    except NotReady:
        stored = False
    if not stored:
        answer.headers["Idempotency-Stored"] = "false"
    return answer


def _fingerprint(request: Request, body: Iterable[bytes]) -> bytes:
    """A hash of all that decides the answer; each part with its length before it."""
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

"""POST /v1/verifications: whether a picture is ours."""

import asyncio
from typing import Final

from fastapi import FastAPI, Request

from models.images import ImageLimits
from service.http.openapi import form_body, responses
from service.http.runtime import Runtime
from service.http.workers import time_limit
from service.messages.schemas import Strict, validate
from service.messages.uploads import read_form
from service.verification.verification import Verification, open_verifier
from service.verification.watermarks import WatermarkFinder

# Each may start a process of its own.
AT_A_TIME: Final = 2


class VerificationRequest(Strict):
    """Fields of POST /v1/verifications beside the file `image`: none."""


def add_verifications(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/verifications."""
    settings, signer = runtime.settings, runtime.marker.signer
    verifier = open_verifier(settings, signer.key if signer else None)
    limits = ImageLimits(max_bytes=settings.max_upload_bytes, max_pixels=settings.max_upload_pixels)
    find_watermark = WatermarkFinder(runtime.pool.registry, limits).find
    turn = asyncio.Semaphore(AT_A_TIME)

    @app.post(
        "/v1/verifications",
        summary="Verify a picture",
        responses=responses(None, 400, 401, 408, 413, 415, 429, 500, 503, 504),
        openapi_extra=form_body(VerificationRequest),
    )
    async def verify(request: Request) -> Verification:
        """Say whether a picture is this service's, by which marks, and what these prove."""
        async with time_limit(settings.request_timeout_sec), runtime.uploads.place():
            data, fields = await read_form(request, settings.max_upload_bytes)
            validate(VerificationRequest, fields)
            async with turn:
                # Not a worker's thread: it mostly waits for a process.
                find_record = runtime.state.records.find
                return await asyncio.to_thread(verifier.verify, data, find_record, find_watermark)

"""POST /v1/verifications: whether an image is from this service."""

import asyncio
from typing import Final

from fastapi import FastAPI, Request

from service.api.endpoint import VERIFICATIONS
from service.api.openapi import form_body, route
from service.api.parsing.multipart import read_form
from service.api.queues import time_limit
from service.api.runtime import Runtime
from service.fields import Strict, validate
from service.provenance.layers import Verification
from service.provenance.verification import open_verifier
from service.provenance.watermarks import WatermarkFinder

# Each may start a process of its own.
AT_A_TIME: Final = 2


class VerificationRequest(Strict):
    """Fields of POST /v1/verifications beside the file `image`: none."""


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/verifications."""
    settings, signer = runtime.settings, runtime.marker.signer
    verifier = open_verifier(settings, signer.key if signer else None)
    find_watermark = WatermarkFinder(runtime.pool.registry, settings.image_limits).find
    lock = asyncio.Semaphore(AT_A_TIME)

    @route(app, VERIFICATIONS, openapi_extra=form_body(VerificationRequest))
    async def verify(request: Request) -> Verification:
        """Say whether an image is this service's, by which marks, and what these prove."""
        async with time_limit(settings.request_timeout_sec), runtime.queues["uploads"].slot():
            data, fields = await read_form(request, settings.max_upload_bytes)
            validate(VerificationRequest, fields)
            async with lock:
                # Not a worker's thread: it mostly waits for a process.
                find_record = runtime.state.records.find
                return await asyncio.to_thread(verifier.verify, data, find_record, find_watermark)

"""POST /v1/verifications: whether an image is from this service."""

from functools import partial
from typing import Final

from fastapi import FastAPI, Request

from service.api.caller import is_stranger
from service.api.endpoint import VERIFICATIONS, QueueName
from service.api.openapi import form_body, route
from service.api.parsing.multipart import read_form
from service.api.runtime import Runtime
from service.decoding.uploads import decode_upload
from service.fields import Strict, validate
from service.inference.workers import Workers
from service.provenance.layers import Verification
from service.provenance.verification import open_verifier
from service.provenance.watermarks import WatermarkFinder

# Each may start a process of its own.
AT_A_TIME: Final[dict[QueueName, int]] = {"uploads": 2, "strangers": 1}


class VerificationRequest(Strict):
    """Fields of POST /v1/verifications beside the file `image`: none."""


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/verifications."""
    settings, signer = runtime.settings, runtime.marker.signer
    verifier = open_verifier(settings, signer.key if signer else None)
    find_watermark = WatermarkFinder(
        runtime.pool.registry, lambda data: runtime.decoder.call(partial(decode_upload, data))
    ).find
    # Not the workers, as it mostly waits for a process.
    threads = {
        name: Workers(count, settings.max_queue_wait_sec) for name, count in AT_A_TIME.items()
    }

    @route(app, VERIFICATIONS, openapi_extra=form_body(VerificationRequest))
    async def verify(request: Request) -> Verification:
        """Say whether an image is this service's, by which marks, and what these prove."""
        name: QueueName = "strangers" if is_stranger(request) else "uploads"
        runtime.queues[name].check()
        data, fields = await read_form(request, settings.max_upload_bytes)
        async with runtime.queues[name].slot():
            validate(VerificationRequest, fields)
            find_record = runtime.state.records.find
            verify = partial(verifier.verify, data, find_record, find_watermark)
            (verification,) = await threads[name].run([verify])
            return verification

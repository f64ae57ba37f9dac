"""The route of the images that responses link to: a link is a signed request for one image."""

from fastapi import FastAPI
from fastapi.responses import Response

from service.access.links import LIFETIME_SEC
from service.api.endpoint import GENERATIONS, LINKS
from service.api.openapi import route
from service.api.routes.generations import generate_images
from service.api.runtime import Runtime
from service.errors import NotFound
from service.fields import validate
from service.generation.requests import GenerationRequest
from service.rendering.encoding import MEDIA_TYPES
from service.rendering.recording import record


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add GET /v1/images/links/{link}."""

    @route(app, LINKS)
    async def open_link(link: str) -> Response:
        """Generate the image that a link stands for; needs no key, for an hour."""
        content = runtime.links.read(link)
        if content is None:
            raise NotFound(
                "no image here: the link was changed, or is more than an hour old; request the "
                "image again",
                code="link_expired",
            )
        requested = validate(GenerationRequest, content)
        accept = MEDIA_TYPES[requested.output_format or "png"]
        # Not `run_once`: it was charged with the links, and strangers store no responses.
        async with runtime.queues["links"].slot():
            created = await generate_images(accept, requested, runtime)
        kind = GENERATIONS.kind or ""
        record(runtime.state.records, kind, created.images)
        runtime.metrics.images.labels(kind, created.model_id).inc()
        created.response.headers["Cache-Control"] = f"private, max-age={LIFETIME_SEC}"
        return created.response

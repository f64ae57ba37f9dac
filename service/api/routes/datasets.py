"""The route that streams a labelled set."""

from functools import partial
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.responses import Response

from service.api.endpoint import DATASETS
from service.api.openapi import json_body, route
from service.api.parsing.accept import resolve_file
from service.api.parsing.json_body import read_json
from service.api.run_once import Created, Creation, Delivery, run_once
from service.api.runtime import Runtime, find_model
from service.api.streaming import DatasetStream
from service.datasets.archives import Tar, Zip
from service.datasets.plan import (
    CONTAINER_TYPES,
    Container,
    DatasetPlan,
    DatasetRequest,
    plan_dataset,
)
from service.datasets.stream import SetGenerator, dataset_bytes
from service.generation.output import ImageEncoder
from service.model_store.pool import LoadedModel
from service.rendering.encoded_image import EncodedImage
from service.rendering.recording import record


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/datasets."""

    @route(
        app,
        DATASETS,
        files=tuple(CONTAINER_TYPES.values()),
        openapi_extra=json_body(DatasetRequest),
    )
    async def make_dataset(request: Request) -> Response:
        """Stream images with their labels, generated as they are read.

        A response that breaks off on the way has an open end: the connection is closed without
        its last chunk, and the archive has no manifest, its last file.
        """
        requested = await read_json(request, DatasetRequest, runtime.workers)
        container = resolve_file(
            request.headers.get("accept"),
            CONTAINER_TYPES,
            requested.container,
            "container",
            requested.usual_container,
        )
        model = await find_model(runtime, requested.model)
        plan = plan_dataset(
            requested,
            model.registered.manifest,
            container=container,
            limit=runtime.settings.max_dataset_pictures,
        )
        creation = Creation(
            endpoint=DATASETS,
            request=request,
            body=requested,
            images=len(plan.numbers),
            queue=runtime.queues["datasets"],
        )
        work = partial(_stream, plan, model, container, creation.delivery, runtime)
        return await run_once(creation, runtime, work)


async def _stream(
    plan: DatasetPlan,
    model: LoadedModel,
    container: Container,
    delivery: Delivery,
    runtime: Runtime,
) -> Created:
    model_id = model.registered.model_id
    encoder = ImageEncoder.of_model(
        runtime.marker,
        model_id,
        model.session,
        plan.presentation,
        plan.output_format,
        plan.output_compression,
    )
    generator = SetGenerator(
        model.session, encoder, runtime.gpu_threads.run, runtime.settings.workers
    )
    sink = Zip() if container == "zip" else Tar()
    images = runtime.metrics.images.labels("dataset", model_id)

    def note(image: EncodedImage) -> None:
        delivery.images += 1
        images.inc()
        record(runtime.state.records, "dataset", [image])

    chunks = dataset_bytes(plan, sink, generator, note)
    stream = DatasetStream(runtime, chunks, _headers(plan, encoder, container))
    return Created(response=stream, model_id=model_id)


def _headers(plan: DatasetPlan, encoder: ImageEncoder, container: Container) -> dict[str, str]:
    name = f"{encoder.manifest.name}-{plan.seed}{plan.shard.suffix}.{container}"
    return {
        "Content-Type": CONTAINER_TYPES[container],
        "Content-Disposition": f"attachment; filename={quote(name)}",
        "X-Catalogan-Model": encoder.model_id,
        "X-Catalogan-Model-Hash": encoder.manifest.model_hash,
        "X-Catalogan-Seed": str(plan.seed),
        "X-Catalogan-Count": str(len(plan.numbers)),
    }

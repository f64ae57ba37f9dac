"""The route that leads from image to image."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from service.api.endpoint import INTERPOLATIONS
from service.api.openapi import form_body, json_body, route
from service.api.parsing.accept import resolve_file
from service.api.parsing.form_fields import typed_fields
from service.api.parsing.json_body import read_json
from service.api.parsing.multipart import is_form, read_files
from service.api.responses import file_response, image_response
from service.api.run_once import Created, Creation, run_once
from service.api.runtime import Runtime, find_model
from service.fields import validate
from service.generation.interpolation_requests import (
    FILE_TYPES,
    MAX_WAYPOINTS,
    InterpolationFormat,
    InterpolationRequest,
    PhotoInterpolationRequest,
    RequestedPath,
    WaypointSource,
    resolve_waypoints,
)
from service.generation.interpolations import (
    Frame,
    Waypoint,
    encode_frame,
    frame_jobs,
    path_mark,
    path_metadata,
    photo_waypoint,
    plan_frames,
    plan_waypoints,
    present_frame,
    present_frames,
    style_jobs,
)
from service.generation.output import ImageEncoder
from service.generation.variations import candidate_categories, fit_photo, inversion_jobs, nearest
from service.inference.fair_lock import FairLock
from service.inference.generation import GeneratorSession
from service.inference.workers import one_at_a_time
from service.model_store.pool import LoadedModel
from service.provenance.marker import Marker
from service.provenance.xmp import Mark
from service.rendering.animation import AnimationFormat, Timing, encode_animation
from service.rendering.encoded_image import EncodedImage

# Frames that are handed to the workers at a time, so that other requests get their turn.
FRAMES_AT_A_TIME: Final = 8
FILES: Final = {"image": MAX_WAYPOINTS}


def add_routes(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/interpolations."""
    # An animation's frames take hundreds of megabytes until they are encoded: one at a time.
    lock = FairLock()

    @route(app, INTERPOLATIONS, files=tuple(FILE_TYPES.values()), openapi_extra=_body())
    async def interpolate(request: Request) -> Response:
        """Return the frames of a path through the images of seeds and photos, or an animation.

        Seeds alone are sent as JSON, photos in a form.
        """
        if not is_form(request.headers):
            otherwise = ", or photos as multipart/form-data"
            path = await read_json(request, InterpolationRequest, runtime.workers, otherwise)
            return await serve(request, RequestedPath(path, path.seeds))
        runtime.queues["uploads"].check()
        form = await read_files(request, runtime.settings.max_upload_bytes, FILES)
        async with runtime.queues["uploads"].slot():
            photos, sent_path = form.files["image"], parse_path_fields(form.fields)
            requested = RequestedPath(sent_path, resolve_waypoints(sent_path, photos), photos)
            return await serve(request, requested)

    async def serve(request: Request, requested: RequestedPath) -> Response:
        requested.check_length()
        output_format = resolve_file(
            request.headers.get("accept"), FILE_TYPES, requested.path.output_format, "output_format"
        )
        creation = Creation(
            endpoint=INTERPOLATIONS,
            request=request,
            body=requested.path,
            files={"image": requested.photos},
            images=requested.frame_count,
            queue=runtime.queues["interpolations"],
        )
        return await run_once(creation, runtime, partial(in_turn, requested, output_format))

    async def in_turn(requested: RequestedPath, output_format: InterpolationFormat) -> Created:
        async with one_at_a_time(lock):
            return await _interpolate(requested, output_format, runtime)


def _body() -> dict[str, Any]:
    """An operation's request body that is JSON, or a form with photos."""
    body = json_body(InterpolationRequest)
    form = form_body(PhotoInterpolationRequest, "waypoints", "loop", files=FILES)
    body["requestBody"]["content"] |= form["requestBody"]["content"]
    return body


async def _interpolate(
    requested: RequestedPath, output_format: InterpolationFormat, runtime: Runtime
) -> Created:
    model = await find_model(runtime, requested.path.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    presentation = present_frames(requested, output_format, manifest)
    photos = await _find_photos(requested, model, runtime)
    waypoints = plan_waypoints(requested, photos, manifest)
    encoder = ImageEncoder.of_model(runtime.marker, model_id, model.session, presentation)
    metadata = {**encoder.metadata(), **path_metadata(requested, waypoints, manifest)}
    frames = plan_frames(requested.path, waypoints)
    (styles,) = await runtime.workers.run(style_jobs(model.session, waypoints))
    generate = partial(_generate, model.session, frames, styles, runtime, presentation.upscaled)
    if output_format == "zip":
        images = await generate(partial(encode_frame, encoder))
        response = await image_response("application/zip", "png", images, metadata)
    else:
        shown = await generate(partial(present_frame, presentation))
        timing = Timing(requested.path.frame_duration_ms, requested.path.loop)
        mark = path_mark(encoder, requested.path, waypoints)
        metadata |= {
            "output_format": output_format,
            "frame_duration_ms": requested.path.frame_duration_ms,
        }
        encode = partial(_animate, shown, output_format, timing, mark, runtime.marker)
        images = await runtime.workers.run([encode])
        response = file_response(FILE_TYPES[output_format], images[0].data, metadata)
    return Created(response=response, images=images, model_id=model_id, count=len(frames))


async def _find_photos(
    requested: RequestedPath, model: LoadedModel, runtime: Runtime
) -> dict[WaypointSource, Waypoint]:
    """Look at each photo once, however often it was sent or the path leads through it."""
    session, manifest = model.session, model.registered.manifest
    found: dict[bytes, Waypoint] = {}
    for index, sent in enumerate(requested.photos):
        if sent.data in found:
            continue
        categories = candidate_categories(requested.path.category, manifest)
        fit = partial(fit_photo, sent.data, manifest, f"image.{index}")
        photo = await runtime.decoder.run(fit)
        tried = await runtime.gpu_threads.run(inversion_jobs(session, photo, categories))
        found[sent.data] = photo_waypoint(photo, nearest(tried), requested.noise_seed)
    return {sent: found[sent.data] for sent in requested.photos}


def _animate(
    frames: Sequence[NDArray[np.uint8]],
    animation_format: AnimationFormat,
    timing: Timing,
    mark: Mark,
    marker: Marker,
) -> EncodedImage:
    return EncodedImage.of(
        encode_animation(frames, animation_format, timing, mark, marker), {}, mark
    )


async def _generate(
    session: GeneratorSession,
    frames: list[Frame],
    styles: Any,
    runtime: Runtime,
    upscaled: bool,
    render: Callable[..., Any],
) -> list[Any]:
    """Generate all frames, a few at a time; returns what `render` returns for each."""
    generated: list[Any] = []
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        part = frames[start : start + FRAMES_AT_A_TIME]
        batches = await runtime.gpu_threads.run(frame_jobs(session, part, styles, render, upscaled))
        generated += [one for job in batches for one in job]
    return generated


def parse_path_fields(fields: Mapping[str, str]) -> PhotoInterpolationRequest:
    """Turn a form's text fields into a checked request.

    Raises:
        BadRequest: Names the field at fault.
    """
    integers, json = ("frames", "frame_duration_ms"), ("waypoints", "loop")
    values = typed_fields(fields, integers=integers, numbers=("truncation_psi",), json=json)
    return validate(PhotoInterpolationRequest, values)

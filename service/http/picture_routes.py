"""Routes that paint pictures from seeds."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import Response
from numpy.typing import NDArray

from service.http.making import make
from service.http.openapi import json_body, responses
from service.http.recording import record
from service.http.runtime import COMMON, Runtime, find_model, require_json
from service.http.workers import one_at_a_time, time_limit
from service.images.animation import AnimationFormat, Timing, encode_animation
from service.images.imaging import Encoding
from service.images.presentation import check_transparency
from service.inference.generation import GeneratorSession
from service.marks.marker import Marker
from service.marks.marking import Mark
from service.messages.answers import Finished, answer, bare, finish, settle_answer
from service.messages.schemas import GenerationRequest, GenerationResponse, parse_json, validate
from service.pictures.finishing import Finishing
from service.pictures.generations import generation_jobs, plan_pictures
from service.pictures.interpolations import (
    FILE_TYPES,
    Frame,
    InterpolationFormat,
    InterpolationRequest,
    finish_picture,
    frame_jobs,
    plan_frames,
    present_frames,
    settle_format,
    show_frame,
    style_jobs,
    way_facts,
    way_mark,
)

# Frames that are handed to the workers at a time, so that other requests get their turn.
FRAMES_AT_A_TIME: Final = 8


def add_generations(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/generations."""

    @app.post(
        "/v1/images/generations",
        summary="Generate pictures",
        responses=responses(GenerationResponse, *COMMON, 404),
        openapi_extra=json_body(GenerationRequest),
        response_class=Response,
    )
    async def generate(request: Request) -> Response:
        """Generate 1 to 10 pictures of a category or a mixture, or, by default, of all in turn."""
        async with time_limit(runtime.settings.request_timeout_sec):
            require_json(request)
            asked = validate(GenerationRequest, parse_json(await request.body()))
            async with runtime.generations.place():
                work = partial(_generate, request, asked, runtime)
                return await make(request, runtime.state, [await request.body()], asked.count, work)


async def _generate(request: Request, asked: GenerationRequest, runtime: Runtime) -> Response:
    kind, output_format = settle_answer(
        request.headers.get("accept"), asked.output_format, asked.count
    )
    check_transparency(asked.background, output_format)
    model = await find_model(runtime, asked.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    plan = plan_pictures(asked, manifest)
    encoding = Encoding(runtime.marker, output_format, asked.output_compression)
    watermark = runtime.marker.watermark_of(model.session)
    finishing = Finishing(model_id, manifest, encoding, plan.presentation, watermark)
    made = await runtime.workers.run(generation_jobs(model.session, plan, finishing))
    pictures = [picture for job in made for picture in job]
    record(runtime.state.records, "generation", pictures)
    runtime.metrics.pictures.labels("generation", model_id).inc(len(pictures))
    facts = {**finishing.facts(), "truncation_psi": plan.specs[0].truncation_psi}
    return answer(kind, output_format, pictures, facts)


def add_interpolations(app: FastAPI, runtime: Runtime) -> None:
    """Add POST /v1/images/interpolations."""
    # An animation's frames take hundreds of megabytes until they are encoded: one at a time.
    turn = asyncio.Semaphore(1)

    @app.post(
        "/v1/images/interpolations",
        summary="Lead from picture to picture",
        responses=responses(None, *COMMON, 404, files=tuple(FILE_TYPES.values())),
        openapi_extra=json_body(InterpolationRequest),
        response_class=Response,
    )
    async def interpolate(request: Request) -> Response:
        """Give the frames of a way through the pictures of 2 to 10 seeds, or an animation."""
        async with time_limit(runtime.settings.request_timeout_sec):
            require_json(request)
            asked = validate(InterpolationRequest, parse_json(await request.body()))
            output_format = settle_format(request.headers.get("accept"), asked.output_format)
            async with runtime.interpolations.place():
                work = partial(in_turn, asked, output_format)
                body = [await request.body()]
                return await make(request, runtime.state, body, asked.frame_count, work)

    async def in_turn(asked: InterpolationRequest, output_format: InterpolationFormat) -> Response:
        async with one_at_a_time(turn):
            return await _interpolate(asked, output_format, runtime)


async def _interpolate(
    asked: InterpolationRequest,
    output_format: InterpolationFormat,
    runtime: Runtime,
) -> Response:
    model = await find_model(runtime, asked.model)
    manifest, model_id = model.registered.manifest, model.registered.model_id
    presentation = present_frames(asked, output_format, manifest)
    frames = plan_frames(asked, manifest)
    watermark = runtime.marker.watermark_of(model.session)
    encoding = Encoding(runtime.marker)
    finishing = Finishing(model_id, manifest, encoding, presentation, watermark)
    facts = {**finishing.facts(), **way_facts(asked, frames, manifest)}
    if output_format == "zip":
        finish: Callable[..., Any] = partial(finish_picture, finishing)
        pictures = await _paint(model.session, frames, finish, runtime)
        wrap = partial(answer, "application/zip", "png", pictures, facts)  # hundreds of files
        (answered,) = await runtime.workers.run([wrap])
    else:
        shown = await _paint(model.session, frames, partial(show_frame, presentation), runtime)
        timing = Timing(asked.frame_duration_ms, asked.loop)
        mark = way_mark(finishing, asked, frames)
        facts |= {"output_format": output_format, "frame_duration_ms": asked.frame_duration_ms}
        encode = partial(_animate, shown, output_format, timing, mark, runtime.marker)
        pictures = await runtime.workers.run([encode])
        answered = bare(FILE_TYPES[output_format], pictures[0].data, facts)
    record(runtime.state.records, "interpolation", pictures)
    runtime.metrics.pictures.labels("interpolation", model_id).inc(len(frames))
    return answered


def _animate(
    frames: Sequence[NDArray[np.uint8]],
    animation_format: AnimationFormat,
    timing: Timing,
    mark: Mark,
    marker: Marker,
) -> Finished:
    return finish(encode_animation(frames, animation_format, timing, mark, marker), {}, mark)


async def _paint(
    session: GeneratorSession, frames: list[Frame], finish: Callable[..., Any], runtime: Runtime
) -> list[Any]:
    """Paint all frames, a few at a time; gives what `finish` made of each."""
    (styles,) = await runtime.workers.run(style_jobs(session, frames))
    painted: list[Any] = []
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        part = frames[start : start + FRAMES_AT_A_TIME]
        made = await runtime.workers.run(frame_jobs(session, part, styles, finish))
        painted += [one for job in made for one in job]
    return painted

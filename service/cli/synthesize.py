"""`catalogan synthesize`: a labelled set into a directory or an archive, without a server."""

import asyncio
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast, get_args

import typer

from models.progress import progress
from models.terminal import printable
from service.cli.console import errors_console, operator_errors, say
from service.cli.options import (
    DeviceOption,
    ExportOption,
    FormatOption,
    ModelOption,
    SizeOption,
    TruncationOption,
)
from service.datasets.archives import Directory, Sink, Tar, Zip
from service.datasets.plan import Container, DatasetPlan, DatasetRequest, plan_dataset
from service.datasets.stream import SetGenerator, dataset_bytes
from service.errors import BadRequest, OperatorError
from service.fields import validate
from service.generation.output import ImageEncoder
from service.inference.generation import GeneratorSession
from service.inference.graphs import Device
from service.inference.workers import Workers
from service.model_store.sessions import open_session
from service.provenance.marker import open_marker
from service.rendering.encoded_image import EncodedImage
from service.rendering.recording import record_of
from service.settings import Settings, load_settings
from service.storage.records import Records
from service.storage.state import State

_SHARD: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
_COUNTED: Final = re.compile(r"(.+)=([0-9]{1,9})", re.DOTALL)

OnProgress = Callable[[int, int], None]

app = typer.Typer(add_completion=False)


@app.command()
def synthesize(
    out: Annotated[Path, typer.Option(help="A directory, or FILE.zip or FILE.tar; not there yet.")],
    count: Annotated[int | None, typer.Option(min=1, help="Images of each category.")] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(help="NAME, or NAME=COUNT; several times. Else all.", metavar="NAME[=COUNT]"),
    ] = None,
    layout: Annotated[Literal["folder", "coco", "webdataset"], typer.Option()] = "folder",
    shard: Annotated[
        str, typer.Option(help="I/N: the I-th of N parts, which together are the set.")
    ] = "1/1",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the set; needed for shards.")] = None,
    model: ModelOption = None,
    export: ExportOption = None,
    output_format: FormatOption = "png",
    truncation_psi: TruncationOption = None,
    size: SizeOption = None,
    background: Annotated[
        str | None, typer.Option(help="white, transparent or #rrggbb, where the model has alpha.")
    ] = None,
    device: DeviceOption = None,
) -> None:
    """Create a labelled synthetic set, the same as POST /v1/datasets returns."""
    with operator_errors():
        request = dataset_request(
            count=count,
            categories=category or [],
            shard=shard,
            seed=seed,
            layout=layout,
            output_format=output_format,
            truncation_psi=truncation_psi,
            size=size,
            background=background,
        )
        with progress(errors_console, "Synthesizing", "images") as update:
            plan = write_set(
                request, out, model_id=model, export=export, device=device, on_progress=update
            )
    summary = f"wrote {len(plan.numbers)} of {plan.total} images to {out}, seed {plan.seed}"
    say(summary)


def dataset_request(
    *, count: int | None, categories: Sequence[str], shard: str, **fields: Any
) -> DatasetRequest:
    """Turn the command's options into the request that they stand for.

    Args:
        count: Of each category that names none itself.
        categories: "NAME" or "NAME=COUNT"; none = all of the model's.
        shard: "I/N".
        fields: The request's others.

    Raises:
        BadRequest: Names the option's field.
    """
    match = _SHARD.fullmatch(shard)
    if match is None:
        raise BadRequest(f"--shard {shard[:40]}: write it as I/N, 2/8 for the second of eight")
    fields["shard"] = {"index": int(match[1]), "of": int(match[2])}
    if not categories:
        if count is None:
            raise BadRequest("say how many images: --count N, of each category")
        return validate(DatasetRequest, {**fields, "count": count})
    counts: dict[str, int | None] = {}
    for category in categories:
        counted = _COUNTED.fullmatch(category)
        name, number = (counted[1], int(counted[2])) if counted else (category, count)
        if number is None:
            raise BadRequest(f"--category {name[:80]}: add =COUNT, or --count for all")
        if name in counts:
            raise BadRequest(f"--category {name[:80]} is there twice")
        counts[name] = number
    return validate(DatasetRequest, {**fields, "categories": counts})


def write_set(
    request: DatasetRequest,
    out: Path,
    *,
    model_id: str | None = None,
    export: Path | None = None,
    device: Device | None = None,
    on_progress: OnProgress = lambda done, total: None,
) -> DatasetPlan:
    """Write a set to `out`, which is there whole or not at all.

    Args:
        request: The set; its container follows from the name of `out`.
        out: FILE.zip, FILE.tar, or else a directory; must not exist.
        model_id: "name" or "name:version"; None = the service's default.
        export: An export directory to use instead of a registered model.
        device: Overrides CATALOGAN_DEVICE.
        on_progress: Is notified of how many images of how many are written.

    Returns:
        What was written.

    Raises:
        OperatorError: Model, export or target can't be used.
        BadRequest: The model doesn't have what is requested.
    """
    if out.exists():
        raise OperatorError(f"{out} exists: choose another --out, or remove it")
    settings = load_settings(model=model_id, device=device)
    session, shown_id = open_session(settings.model, export, settings)
    suffix = out.suffix[1:].lower()
    container = cast(Container, suffix) if suffix in get_args(Container) else None
    plan = plan_dataset(request, session.manifest, container=container)
    encoder = ImageEncoder.of_model(
        open_marker(settings),
        shown_id,
        session,
        plan.presentation,
        plan.output_format,
        plan.output_compression,
    )
    line = printable(_settings_line(plan, encoder, session, settings))
    errors_console.print(line, markup=False, soft_wrap=True)
    workers = Workers(settings.workers, math.inf)  # nobody else is waiting
    generator = SetGenerator(session, encoder, workers.run, 2 * settings.workers)
    try:
        with _aside(out) as aside, closing(State(settings)) as state:
            asyncio.run(_write(plan, generator, container, aside, state.records, on_progress))
    except OSError as error:
        raise OperatorError(f"{out} can't be written: {error.strerror or error}") from error
    finally:
        workers.stop()
    return plan


def _settings_line(
    plan: DatasetPlan, encoder: ImageEncoder, session: GeneratorSession, settings: Settings
) -> str:
    """What the set will be, all that was left open resolved."""
    return (
        f"Synthesizing {len(plan.numbers)} images of {encoder.model_id}: layout {plan.layout}, "
        f"size {plan.presentation.size}, format {plan.output_format}, "
        f"truncation_psi {plan.truncation_psi:g}, seed {plan.seed}, "
        f"shard {plan.shard.index}/{plan.shard.of}; "
        f"{settings.workers} workers on {session.device}"
    )


async def _write(
    plan: DatasetPlan,
    generator: SetGenerator,
    container: Container | None,
    aside: Path,
    records: Records,
    on_progress: OnProgress,
) -> None:
    done = 0

    def note(image: EncodedImage) -> None:
        nonlocal done
        done += 1
        records.add([record_of(image, "dataset", int(time.time()))])
        on_progress(done, len(plan.numbers))

    if container is None:
        aside.mkdir()
        async with aclosing(dataset_bytes(plan, Directory(aside), generator, note)) as written:
            async for _ in written:
                pass
        return
    sink: Sink = Zip() if container == "zip" else Tar()
    with aside.open("xb") as file:
        async with aclosing(dataset_bytes(plan, sink, generator, note)) as chunks:
            async for chunk in chunks:
                file.write(chunk)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Where to write until it is whole: renamed at the end, removed where that isn't reached."""
    aside = out.with_name(f".{out.name}.partial")
    _remove(aside)  # of a run that was killed
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        if out.exists():
            raise OperatorError(f"{out} appeared meanwhile: it is left as it is")
        aside.rename(out)
    except BaseException:
        _remove(aside)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)

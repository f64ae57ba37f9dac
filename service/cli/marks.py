"""Command line of marks: make signing keys, verify pictures."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.console import console, operator_errors

if TYPE_CHECKING:
    from service.provenance.verification import FindRecord, FindWatermark, Verification
    from service.settings import Settings


app = typer.Typer(no_args_is_help=True, help="Serve trained models.")
keys_app = typer.Typer(no_args_is_help=True, help="Make keys that sign pictures.")
app.add_typer(keys_app, name="keys")


@keys_app.callback()
def _keys() -> None:
    """Make keys that sign pictures."""


@keys_app.command()
def create(
    out: Annotated[Path, typer.Option(help="Folder for the files; nothing is overwritten.")],
    name: Annotated[
        str, typer.Option(help="Your company, as readers of the pictures will see it.")
    ] = "Catalogan development",
) -> None:
    """Make a development root and a signer under it; readers trust it where they know the root."""
    with operator_errors():
        from service.errors import OperatorError
        from service.provenance.signing_keys import (
            CERTIFICATE_FILE,
            KEY_FILE,
            create_development_keys,
        )

        try:
            create_development_keys(out, name)
        except FileExistsError as error:
            raise OperatorError(str(error)) from None
        except OSError as error:
            raise OperatorError(f"{out} can't be written to: {error.strerror or error}") from None
        except ValueError as error:
            raise OperatorError(f"--name: {error}") from None
    # Plain, for a shell or an environment file.
    typer.echo(f"CATALOGAN_SIGNING_CERTIFICATE={(out / CERTIFICATE_FILE).resolve()}")
    typer.echo(f"CATALOGAN_SIGNING_KEY={(out / KEY_FILE).resolve()}")


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Pictures, as they were found.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say whether pictures are ours, offline; exit status 0 all are, 1 one is not, 2 bad input.

    Trusts the certificate that CATALOGAN_SIGNING_CERTIFICATE names and CATALOGAN_TRUST_ANCHORS.
    """
    with operator_errors():
        from service.provenance.verification import open_verifier
        from service.settings import load_settings

        settings = load_settings()
        verifier = open_verifier(settings)
        images = [(path, _read(path, settings.max_upload_bytes)) for path in files]
        find_watermark = _find_watermark(settings)
        with _records(settings) as find_record:
            found = [
                (path, verifier.verify(data, find_record, find_watermark)) for path, data in images
            ]
    if as_json:
        answers = [{"file": str(path), **one.model_dump(mode="json")} for path, one in found]
        typer.echo(json.dumps(answers, indent=2, ensure_ascii=False))
    else:
        for path, one in found:
            _show(path, one)
    raise typer.Exit(0 if all(one.ours for _, one in found) else 1)


def _read(path: Path, limit: int) -> bytes:
    """Read a picture.

    Raises:
        OperatorError: It can't be read, is too large, or is no picture.
    """
    from models.images import sniff_format
    from service.errors import OperatorError

    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise OperatorError(f"{path} has more than {limit} bytes; see CATALOGAN_MAX_UPLOAD_BYTES")
    if sniff_format(data) is None:
        raise OperatorError(f"{path} is no picture of an accepted type")
    return data


@contextmanager
def _records(settings: "Settings") -> "Iterator[FindRecord | None]":
    """The records of the service, where its database is in reach; makes none."""
    from service.settings import data_folder
    from service.storage.database import FILE
    from service.storage.state import State

    if settings.state_url is None and not (data_folder(settings) / FILE).exists():
        yield None
        return
    with closing(State(settings)) as state:
        yield state.records.find


def _find_watermark(settings: "Settings") -> "FindWatermark | None":
    """The search for the watermarks of registered models; None where there is no Model Store."""
    from service.model_store.registry import Registry
    from service.provenance.watermarks import WatermarkFinder
    from service.settings import model_store_home

    if not (model_store_home() / "models").is_dir():
        return None
    return WatermarkFinder(Registry(), settings.image_limits).find


_VERDICTS = {
    "ours": "ours, and intact",
    "tampered": "NOT intact: ours once, changed since",
    "derived": "made from one of ours: its watermark is there, the file is another",
    "claimed": "not proven: it only says that it is",
    "unknown": "not known",
}


def _show(path: Path, found: "Verification") -> None:
    console.print(f"{path}: {_VERDICTS[found.verdict]}", markup=False, soft_wrap=True)
    for layer in found.layers:
        line = f"  {layer.layer:<10}{layer.status:<12}{layer.says}"
        console.print(line, markup=False, soft_wrap=True)
    said = found.claims.model_dump(exclude_none=True)
    metadata = ", ".join(f"{name} {value}" for name, value in said.items())
    if metadata:
        console.print(f"  {metadata}", markup=False, soft_wrap=True, style="dim")

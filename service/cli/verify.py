"""`catalogan verify`: whether images are this service's, offline."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from models.image_formats import describe_unaccepted, sniff_format
from service.cli.console import operator_errors, say, say_json
from service.cli.options import JsonOption
from service.data_folder import data_folder, model_store_home
from service.decoding.processes import DecodingProcesses
from service.decoding.uploads import decode_upload
from service.errors import OperatorError
from service.model_store.registry import Registry
from service.provenance.layers import Verification
from service.provenance.verification import FindRecord, FindWatermark, open_verifier
from service.provenance.watermarks import WatermarkFinder
from service.settings import Settings, load_settings
from service.storage.database import FILE
from service.storage.state import State

app = typer.Typer(add_completion=False)


@app.command()
def verify(
    files: Annotated[list[Path], typer.Argument(help="Images, as they were found.")],
    as_json: JsonOption = False,
) -> None:
    """Say whether images are from this service; exit status 0 all are, 1 one is not, 2 bad input.

    Works offline. Trusts the certificates of CATALOGAN_SIGNING_CERTIFICATE and of
    CATALOGAN_TRUST_ANCHORS.
    """
    with operator_errors():
        settings = load_settings()
        verifier = open_verifier(settings)
        images = [(path, _read(path, settings.max_upload_bytes)) for path in files]
        with _records(settings) as find_record, _watermarks(settings) as find_watermark:
            found = [
                (path, verifier.verify(data, find_record, find_watermark)) for path, data in images
            ]
    if as_json:
        listed = [{"file": str(path), **one.model_dump(mode="json")} for path, one in found]
        say_json(listed)
    else:
        for path, one in found:
            _show(path, one)
    raise typer.Exit(0 if all(one.ours for _, one in found) else 1)


def _read(path: Path, limit: int) -> bytes:
    """Read an image file.

    Raises:
        OperatorError: It can't be read, is too large, or is no image.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror or error}") from None
    if len(data) > limit:
        raise OperatorError(f"{path} has more than {limit} bytes; see CATALOGAN_MAX_UPLOAD_BYTES")
    if sniff_format(data) is None:
        raise OperatorError(f"{path} can't be verified: {describe_unaccepted(data)}")
    return data


@contextmanager
def _records(settings: Settings) -> Iterator[FindRecord | None]:
    """The records of the service, where it has a database already; creates none."""
    if settings.state_url is None and not (data_folder(settings) / FILE).exists():
        yield None
        return
    with closing(State(settings)) as state:
        yield state.records.find


@contextmanager
def _watermarks(settings: Settings) -> Iterator[FindWatermark | None]:
    """The search for the watermarks of registered models; None where there is no Model Store."""
    if not (model_store_home() / "models").is_dir():
        yield None
        return
    with closing(DecodingProcesses(1, settings.image_limits)) as decoding:
        yield WatermarkFinder(Registry(), partial(decode_upload, decoding=decoding)).find


_VERDICTS = {
    "ours": "made by this service, and intact",
    "tampered": "NOT intact: made by this service, changed since",
    "expired": "made by this service, and unchanged, but its certificate has ended: no time stamp "
    "says that it was signed before",
    "derived": "made from an image of this service: its watermark is there, the file is another",
    "claimed": "not proven: it only says that it is",
    "unknown": "not known",
}


def _show(path: Path, found: Verification) -> None:
    say(f"{path}: {_VERDICTS[found.verdict]}")
    for layer in found.layers:
        say(f"  {layer.layer:<10}{layer.status:<12}{layer.says}")
    said = found.claims.model_dump(exclude_none=True)
    metadata = ", ".join(f"{name} {value}" for name, value in said.items())
    if metadata:
        say(f"  {metadata}", style="dim")

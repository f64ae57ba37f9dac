"""`catalogan serve`: the service over HTTP."""

import logging
import os
from typing import Annotated

import typer

from service.cli.console import operator_errors, say
from service.cli.options import DeviceOption
from service.server.runner import serve as run_server
from service.settings import load_settings
from service.telemetry.logs import configure_logging

app = typer.Typer(add_completion=False)


@app.command()
def serve(
    host: Annotated[
        str, typer.Option(help="Others than this machine need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 3000,
    model: Annotated[str | None, typer.Option(help="Default model, NAME or NAME:VERSION.")] = None,
    device: DeviceOption = None,
) -> None:
    """Serve the promoted model over HTTP, until Ctrl-C or SIGTERM."""
    with operator_errors():
        settings = load_settings(model=model, device=device)
        # The service reads its settings itself, however it is started.
        for variable, value in (("CATALOGAN_MODEL", model), ("CATALOGAN_DEVICE", device)):
            if value is not None:
                os.environ[variable] = value
        configure_logging(settings.log_format)
        key = "an API key is required" if settings.has_keys else "no API key: this machine only"

        def announce(bound: int) -> None:
            shown = f"[{host}]" if ":" in host else host
            line = f"listening on http://{shown}:{bound} ({key})"
            if settings.log_format == "json":
                logging.getLogger(__name__).info(line)
            else:
                say(line)

        run_server(settings, host, port, announce)

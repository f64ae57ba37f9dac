"""`catalogan keys`: keys that sign images."""

from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import operator_errors
from service.errors import OperatorError
from service.provenance.signing_keys import CERTIFICATE_FILE, KEY_FILE, create_development_keys

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Create keys that sign images.")


@app.callback()
def _keys() -> None:
    """Create keys that sign images."""


@app.command()
def create(
    out: Annotated[Path, typer.Option(help="Folder for the files; nothing is overwritten.")],
    name: Annotated[
        str, typer.Option(help="Your company, as readers of the images will see it.")
    ] = "Catalogan development",
) -> None:
    """Create a development root and a signer under it; readers that know the root trust it."""
    with operator_errors():
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

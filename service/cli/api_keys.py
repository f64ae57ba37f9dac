"""`catalogan api-keys`: create, list and revoke the keys of the service's callers."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from service.access.api_keys import create_key, read_keys, revoke_key
from service.cli.console import cell, console, errors_console, operator_errors, say, say_json
from service.cli.options import JsonOption
from service.telemetry.logs import configure_logging

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Create and revoke the keys of callers."
)

KeysFile = Annotated[
    Path,
    typer.Option("--file", envvar="CATALOGAN_KEYS_FILE", help="The keys file of the service."),
]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Of whoever gets the key; usage is counted by it.")],
    file: KeysFile,
    scope: Annotated[
        list[str],
        typer.Option(help="generate, train, admin or metrics; may be repeated."),
    ] = ["generate"],  # noqa: B006
    rate: Annotated[str | None, typer.Option(help="Requests, such as 60/minute.")] = None,
    quota: Annotated[
        str | None, typer.Option(help="Images, such as 1000/day or 20000/month.")
    ] = None,
) -> None:
    """Create a key, print it once, and keep only its hash; a running service reloads the file."""
    configure_logging("text")  # the audit log's line goes to stderr
    with operator_errors():
        key = create_key(file, name, scope, rate, quota)
    typer.echo(key)
    errors_console.print("keep it: it is not shown again", style="dim", markup=False)


@app.command("list")
def list_keys(
    file: KeysFile,
    as_json: JsonOption = False,
) -> None:
    """List keys by name, never their hashes."""
    with operator_errors():
        keys = read_keys(file).keys
    if as_json:
        metadata = [key.model_dump(mode="json", exclude={"sha256"}) for key in keys]
        say_json([{**one, "scopes": sorted(one["scopes"])} for one in metadata])
        return
    table = Table("name", "scopes", "rate", "quota", "created")
    for key in keys:
        created = f"{key.created:%Y-%m-%d %H:%M}" if key.created else ""
        scopes = " ".join(sorted(key.scopes))
        table.add_row(*map(cell, (key.name, scopes, key.rate, key.quota, created)))
    console.print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As `list` shows it.")],
    file: KeysFile,
) -> None:
    """Take a key out of the keys file; a running service refuses it within a second."""
    configure_logging("text")
    with operator_errors():
        revoke_key(file, name)
    say(f"revoked {name}")

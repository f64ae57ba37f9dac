"""Command line of API keys: create, list, revoke."""

import json
from pathlib import Path
from typing import Annotated

import typer

from service.cli.console import console, errors_console, operator_errors

app = typer.Typer(no_args_is_help=True, help="Serve trained models.")
api_keys_app = typer.Typer(no_args_is_help=True, help="Make and revoke the keys of callers.")
app.add_typer(api_keys_app, name="api-keys")

KeysFile = Annotated[
    Path,
    typer.Option("--file", envvar="CATALOGAN_KEYS_FILE", help="The keys file of the service."),
]


@api_keys_app.command()
def create(
    name: Annotated[str, typer.Argument(help="Of whoever gets the key; usage is counted by it.")],
    file: KeysFile,
    scope: Annotated[
        list[str],
        typer.Option(help="generate, train, admin or metrics; may be repeated."),
    ] = ["generate"],  # noqa: B006
    rate: Annotated[str | None, typer.Option(help="Requests, such as 60/minute.")] = None,
    quota: Annotated[
        str | None, typer.Option(help="Pictures, such as 1000/day or 20000/month.")
    ] = None,
) -> None:
    """Make a key, print it once, and keep only its hash; a running service takes it over."""
    with operator_errors():
        from service.access.api_keys import create_key

        key = create_key(file, name, scope, rate, quota)
    typer.echo(key)
    errors_console.print("keep it: it is not shown again", style="dim", markup=False)


@api_keys_app.command("list")
def list_keys(
    file: KeysFile,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """List keys by name, never their hashes."""
    with operator_errors():
        from service.access.api_keys import read_keys

        keys = read_keys(file).keys
    if as_json:
        metadata = [key.model_dump(mode="json", exclude={"sha256"}) for key in keys]
        typer.echo(json.dumps([{**f, "scopes": sorted(f["scopes"])} for f in metadata], indent=2))
        return
    from rich.table import Table

    table = Table("name", "scopes", "rate", "quota", "created")
    for key in keys:
        created = f"{key.created:%Y-%m-%d %H:%M}" if key.created else ""
        table.add_row(key.name, " ".join(sorted(key.scopes)), key.rate, key.quota, created)
    console.print(table)


@api_keys_app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As `list` shows it.")],
    file: KeysFile,
) -> None:
    """Take a key out of the keys file; a running service refuses it within a second."""
    with operator_errors():
        from service.access.api_keys import revoke_key

        revoke_key(file, name)
    console.print(f"revoked {name}", markup=False)

"""The command line's dispatcher: finds the module of a command and loads only that.

The one file that may import both service and training, and it does so when a command is run: a
serving install has no torch, and `catalogan --help` loads neither.
"""

import importlib
import importlib.metadata
import sys
from dataclasses import dataclass
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True, slots=True)
class _Module:
    """Where a command lives, and which extras it needs."""

    name: str
    extras: str


_TRAINING: Final = _Module("training.cli", "cpu,train")
_MODEL: Final = _Module("training.model_cli", "cpu,train")
_COMPANION: Final = _Module("training.companion_cli", "cpu,train")


def _service(module: str) -> _Module:
    return _Module(f"service.cli.{module}", "cpu")


# Command -> its module, and its line in the overview.
_COMMANDS: Final = {
    "sample-catalogue": (_TRAINING, "Unpack 1,000 rendered product photos to try things on."),
    "prepare": (_TRAINING, "Prepare a dataset from product photos."),
    "train": (_MODEL, "Train a generator on a dataset."),
    "bases": (_TRAINING, "List the trained models that ship with Catalogan."),
    "evaluate": (_MODEL, "Measure a run or an export against a dataset."),
    "report": (_MODEL, "Write a run's report.html."),
    "train-encoder": (_COMPANION, "Train an encoder for a run, from photo to style."),
    "train-upscaler": (_COMPANION, "Train an upscaler for a run, on larger photos."),
    "train-watermark": (_COMPANION, "Train an invisible mark on a dataset's photos."),
    "judge-watermark": (_COMPANION, "Measure how often a trained mark is found."),
    "add-watermark": (_COMPANION, "Add a trained mark to an export."),
    "export": (_MODEL, "Export a run's generator to ONNX."),
    "register": (_service("register"), "Check an export and put it into the Model Store."),
    "models": (_service("models"), "List, show, promote or roll back registered models."),
    "serve": (_service("serve"), "Serve generation and augmentation over HTTP."),
    "generate": (_service("generate"), "Generate images without a server."),
    "synthesize": (_service("synthesize"), "Create a labelled synthetic set without a server."),
    "keys": (_service("keys"), "Create keys that sign the images."),
    "verify": (_service("verify"), "Say whether images are from this service, by which marks."),
    "api-keys": (_service("api_keys"), "Create, list or revoke the keys of the service's callers."),
}


class _LazyGroup(TyperGroup):
    """Lists commands by name alone, and loads a command's module when it is run."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in _COMMANDS:
            return None
        return TyperCommand(name=cmd_name, help=_COMMANDS[cmd_name][1])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, listed, rest = super().resolve_command(ctx, args)
        return name, None if listed is None else _load(str(listed.name)), rest


def _load(command: str) -> Any:
    """Import the command's module; say which extra to install where that is why it fails."""
    module = _COMMANDS[command][0]
    try:
        loaded = importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        _refuse(command, module, error)
    found: Any = typer.main.get_command(loaded.app)
    # A module of several commands is a group of them; one's own is itself the command.
    return getattr(found, "commands", {}).get(command, found)


def _refuse(command: str, module: _Module, error: ModuleNotFoundError) -> Any:
    """One line that says what to install; exit code 2."""
    if error.name is None or error.name.split(".")[0] in ("models", "service", "training"):
        raise error  # Catalogan's own: not a matter of extras
    Console(stderr=True).print(
        f"catalogan {command} needs {error.name}, which is not installed: "
        f"pip install 'catalogan[{module.extras}]'",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    raise SystemExit(2)


app = typer.Typer(
    cls=_LazyGroup, no_args_is_help=True, add_completion=False, rich_markup_mode="rich"
)


def _print_version(wanted: bool) -> None:
    if wanted:
        Console().print(f"catalogan {importlib.metadata.version('catalogan')}", highlight=False)
        raise typer.Exit


@app.callback()
def _catalogan(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print it."),
    ] = False,
) -> None:
    """From your own product photos to a service that makes more of them."""


def main() -> None:
    """Run the command line."""
    try:
        app()
    except ModuleNotFoundError as error:
        # A command's own imports, made as it runs.
        command = next((name for name in sys.argv[1:] if name in _COMMANDS), None)
        if command is None:
            raise
        _refuse(command, _COMMANDS[command][0], error)


if __name__ == "__main__":
    main()

"""Options that several commands have in common."""

from pathlib import Path
from typing import Annotated

import typer

from service.inference.graphs import Device
from service.rendering.encoding import OutputFormat

ModelOption = Annotated[str | None, typer.Option("--model", help="NAME or NAME:VERSION.")]
ExportOption = Annotated[Path | None, typer.Option("--export", help="Use an export unregistered.")]
DeviceOption = Annotated[Device | None, typer.Option("--device")]
FormatOption = Annotated[OutputFormat, typer.Option("--format")]
TruncationOption = Annotated[float | None, typer.Option("--truncation-psi", min=0, max=1)]
SizeOption = Annotated[
    str | None, typer.Option("--size", help="WIDTHxHEIGHT, up to the model's max_size.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="For programs.")]

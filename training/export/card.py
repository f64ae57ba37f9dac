"""The model card of an export: what a person should know before using the model."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from models.manifest import PREVIEW_FILE, WEIGHTS_FILE, GeneratorManifest

_TEMPLATE: Final = "card.md.j2"


def model_card(manifest: GeneratorManifest) -> bytes:
    """Markdown that says what the model generates, what it learnt from, and how good it is.

    Args:
        manifest: Of the export, whose files need not be listed yet.
    """
    environment = Environment(
        autoescape=False,  # noqa: S701 -- Markdown, whose cells `_cell` keeps whole
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(cell=_cell, decibels=_decibels)
    template = (files("training") / "data" / _TEMPLATE).read_text(encoding="utf-8")
    card = environment.from_string(template).render(
        m=manifest, preview=PREVIEW_FILE, weights=WEIGHTS_FILE
    )
    return card.encode()


def _decibels(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f}"


def _cell(text: str) -> str:
    """Text that stays within its cell of a table."""
    return " ".join(text.replace("|", "\\|").split())

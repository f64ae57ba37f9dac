"""The model card of an export, for people who consider using the model."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from models.manifest import PREVIEW_FILE, WEIGHTS_FILE, GeneratorManifest

_TEMPLATE: Final = "card.md.j2"


def model_card(manifest: GeneratorManifest) -> bytes:
    """Write the card in Markdown: what the model generates, its training data and its quality.

    Args:
        manifest: The export's manifest, which need not list its files yet.
    """
    environment = Environment(
        autoescape=False,  # noqa: S701 -- Markdown, whose table cells `_cell` escapes
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
    """Escape text for a cell of a table."""
    return " ".join(text.replace("|", "\\|").split())

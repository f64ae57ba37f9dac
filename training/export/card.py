"""The model card of an export, for people who consider using the model."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from models.manifest import PREVIEW_FILE, WEIGHTS_FILE, GeneratorManifest
from models.markdown import plain_markdown
from models.watermark import MIN_SIDE_PX

_TEMPLATE: Final = "card.md.j2"


def model_card(manifest: GeneratorManifest) -> bytes:
    """Write the card in Markdown: what the model generates, its training data and its quality.

    Args:
        manifest: The export's manifest, which need not list its files yet.
    """
    environment = Environment(
        autoescape=False,  # noqa: S701 -- Markdown: `finalize` escapes every text in it
        finalize=_plain,
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(decibels=_decibels)
    template = (files("training") / "data" / _TEMPLATE).read_text(encoding="utf-8")
    card = environment.from_string(template).render(
        m=manifest, preview=PREVIEW_FILE, weights=WEIGHTS_FILE, watermark_px=MIN_SIDE_PX
    )
    return card.encode()


def _decibels(value: float | None) -> str:
    return "no difference" if value is None else f"{value:.1f}"


def _plain(value: object) -> object:
    """Escape what a manifest's author wrote; numbers are ours."""
    return plain_markdown(value) if isinstance(value, str) else value

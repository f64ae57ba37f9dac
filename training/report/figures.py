"""Curves of a run as inline SVG.

Text stays text, and colours are the page's CSS variables, so that a figure follows its light
or dark scheme. Nothing in a figure comes from outside but numbers.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.report.history import History, Series

# Colours that matplotlib writes out, each replaced by a CSS variable of the page.
_VARIABLES: Final = {
    "#010101": "--ink",
    "#020202": "--faint",
    "#030303": "--line",
    "#040404": "--series-1",
    "#050505": "--series-2",
    "#060606": "--mask",
}
_INK, _FAINT, _LINE, _SERIES_1, _SERIES_2, _MASK = _VARIABLES
# Any: the keys' types differ between versions of matplotlib.
_STYLE: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "catalogan",  # the same run gives the same page
    "font.size": 9,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "text.color": _INK,
}
# More points than this are finer than the screen.
_MAX_POINTS: Final = 400


@dataclass(frozen=True)
class Chart:
    """A figure of the report."""

    title: str
    explanation: str
    svg: Markup
    legend: tuple[str, ...] = ()  # what the lines are, in the order of the page's colours
    wide: bool = False


@dataclass(frozen=True)
class _Plan:
    """A figure to be drawn where the run has its numbers."""

    kind: str
    names: dict[str, str]  # of the quantities, with how they are called on the page
    title: str
    explanation: str
    logarithmic: bool = False


_PLANS: Final = (
    _Plan(
        "validation",
        {"kernel_distance": "kernel distance"},
        "Distance to validation photos",
        "How far generated images are from photos that were not trained on. It should fall, "
        "then level off; when it rises again, more training does harm.",
        logarithmic=True,
    ),
    _Plan(
        "validation",
        {"coverage": "coverage", "recall": "recall"},
        "Variety against validation photos",
        "Share of validation photos that have a generated image near them. Higher is better; "
        "a sudden fall means that the generator has given up part of the catalogue.",
    ),
    _Plan(
        "validation",
        {"diversity": "diversity"},
        "Diversity",
        "How much the generated images of a category differ from each other; 1 is as much as "
        "the photos do. A fall towards 0 is a collapse: the same image again and again.",
    ),
    _Plan(
        "validation",
        {"overfitting": "overfitting"},
        "Overfitting",
        "Where the discriminator places photos that it never saw: at 0 with those it was trained "
        "on, at 1 with generated images. Near 1 it goes by heart.",
    ),
    _Plan(
        "tick",
        {"generator_loss": "generator", "discriminator_loss": "discriminator"},
        "Losses",
        "The two networks work against each other, so neither loss has to fall. One that runs "
        "away says that training is out of balance.",
    ),
    _Plan(
        "tick",
        {"real_logits": "real photos", "fake_logits": "generated images"},
        "What the discriminator says",
        "Above 0 it takes an image for a photo. Lines that drift far apart mean that it can "
        "tell too easily, and teaches the generator little.",
    ),
    _Plan(
        "tick",
        {"augment_strength": "strength", "real_sign": "sign of real logits"},
        "Augmentation",
        "How often images are altered before the discriminator sees them. Adaptive "
        "augmentation raises it while the discriminator knows the photos by heart.",
    ),
)


def draw_charts(history: History) -> list[Chart]:
    """All figures that the run has numbers for."""
    with mpl.rc_context(_STYLE):
        planned = [_planned(history, plan) for plan in _PLANS]
        charts = [chart for chart in planned if chart is not None]
        masks = _mask_timeline(history)
    return charts if masks is None else [*charts, masks]


def _planned(history: History, plan: _Plan) -> Chart | None:
    drawn = [(history.series(plan.kind, name), label) for name, label in plan.names.items()]
    present = [(series, label) for series, label in drawn if series.values]
    if not present:
        return None
    figure, axes = _canvas(4.6, 2.3, history)
    for (series, _), colour in zip(present, (_SERIES_1, _SERIES_2), strict=False):
        _line(axes, series, colour)
    if plan.logarithmic and all(min(series.values) > 0 for series, _ in present):
        axes.set_yscale("log")
    labels = tuple(label for _, label in present)
    return Chart(plan.title, plan.explanation, _svg(figure), labels)


def _mask_timeline(history: History) -> Chart | None:
    """The lag, and shaded the times in which a mask was held."""
    # Runs of before lag was measured so have another signal.
    drawn = [(history.series("measure", name), name) for name in ("lag", "threshold", "adaptation")]
    present = [(series, label) for series, label in drawn if series.values]
    periods = history.mask_periods()
    if not present and not periods:
        return None
    figure, axes = _canvas(9.6, 2.4 if present else 0.9, history)
    spans = [(start / 1000, (end - start) / 1000) for start, end in periods]
    axes.broken_barh(
        spans, (0, 1), transform=axes.get_xaxis_transform(), color=_MASK, linewidth=0, zorder=0
    )
    for (series, _), colour in zip(present, (_SERIES_1, _SERIES_2), strict=False):
        _line(axes, series, colour)
    if not present:
        axes.set_yticks([])
    held = sum(end - start for start, end in periods) / max(history.nimg, 1)
    explanation = (
        f"Shaded: parts of the discriminator's features are hidden, {held:.0%} of the time."
    )
    if present and present[0][1] == "lag":
        explanation += (
            " The line is its lag: by how much more it takes what the generator makes now for "
            "photos than what it made some thousand images before. Above the threshold, a mask "
            "is drawn."
        )
    title = "Masks and lag" if present else "Masks"
    labels = tuple(label for _, label in present)
    return Chart(title, explanation, _svg(figure), labels, wide=True)


def _canvas(width: float, height: float, history: History) -> tuple[Figure, Axes]:
    """Empty axes over the whole run, so that figures line up."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.set_xlim(0, max(history.nimg, 1) / 1000)
    axes.set_xlabel("thousand images shown")
    return figure, axes


def _line(axes: Axes, series: Series, colour: str) -> None:
    x, y = _thinned(series)
    few = len(x) <= 40
    marker = "o" if few else None
    # Not clipped: the last point lies on the edge.
    axes.plot(x, y, color=colour, linewidth=1.6, marker=marker, markersize=3, clip_on=False)


def _thinned(series: Series) -> tuple[Sequence[float], Sequence[float]]:
    """Thousand images and values, neighbours averaged until a screen can show them."""
    kimg, values = np.asarray(series.nimg) / 1000, np.asarray(series.values)
    if len(kimg) > _MAX_POINTS:
        parts = np.array_split(np.arange(len(kimg)), _MAX_POINTS)
        kimg = np.asarray([kimg[part].mean() for part in parts])
        values = np.asarray([values[part].mean() for part in parts])
    return kimg.tolist(), values.tolist()


def _svg(figure: Figure) -> Markup:
    """A figure as an element of an HTML page."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # Only the ids that something in the figure refers to: several figures share a page.
    referred = set(re.findall(r'(?:url\(|href=")#([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in referred else "", text)
    # Namespaces go without saying in HTML, and would look like addresses to load.
    text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r' (width|height)="[\d.]+pt"', "", text, count=2)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return Markup(text)  # noqa: S704 -- drawn here, from numbers alone

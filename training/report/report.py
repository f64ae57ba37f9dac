"""A run on one self-contained page: RUN/report.html.

Images are embedded, and a Content-Security-Policy forbids loading anything. Names of
categories, files and settings are untrusted, and are escaped.
"""

import base64
import io
import json
import logging
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
from jinja2 import Environment, StrictUndefined
from PIL import Image

from training.dataset import DatasetInfo
from training.evaluation.evaluation import NEAREST_FILE, SHEET_FILE
from training.evaluation.record import REPORT_FILE as EVALUATION_FILE
from training.evaluation.record import EvaluationReport
from training.files import replace_file
from training.learning.checkpoint import list_checkpoints
from training.learning.run import (
    CONFIG_FILE,
    EVALUATION_FOLDER,
    GRID_FOLDER,
    INFO_FILE,
    STATS_FILE,
    RunError,
)
from training.report.figures import draw_charts
from training.report.history import read_history
from training.report.tables import duration, gain, number, percent, score, usefulness_verdict

_logger = logging.getLogger(__name__)

REPORT_FILE: Final = "report.html"
_TEMPLATE: Final = "report.html.j2"
_MAX_GRIDS: Final = 6
_GRID_WIDTH_PX: Final = 768
_SHEET_WIDTH_PX: Final = 2400
_Model = TypeVar("_Model", DatasetInfo, EvaluationReport)


def write_report(run: Path) -> Path:
    """Write RUN/report.html from the run's current files.

    Returns:
        The file's path.

    Raises:
        RunError: `run` is no training run.
        OSError: A file can't be read, or the report not written.
    """
    path = run / REPORT_FILE
    replace_file(path, _page(run).encode())
    return path


def try_report(run: Path) -> None:
    """Write the report; if that fails, only log it, since the run itself is unaffected."""
    try:
        write_report(run)
    except (ValueError, OSError) as error:
        _logger.warning("%s not written (%s): try `catalogan report`", run / REPORT_FILE, error)


def _page(run: Path) -> str:
    """Render the page."""
    config = _settings(run / CONFIG_FILE)
    history = read_history(run / STATS_FILE)
    notes: list[str] = []
    evaluation = _evaluation(run, notes)
    dataset = _dataset(run / INFO_FILE, evaluation, notes)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        number=number,
        percent=percent,
        duration=duration,
        score=score,
        gain=gain,
        verdict=usefulness_verdict,
    )
    template = (files("training") / "data" / _TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        name=run.resolve().name,
        history=history,
        settings=_flat(config),
        preset=config.get("preset"),
        masking=config.get("masking"),
        dataset=dataset,
        notes=notes,
        charts=draw_charts(history),
        grids=_grids(run),
        evaluation=evaluation,
        sheet=_embedded(run / EVALUATION_FOLDER / SHEET_FILE, _SHEET_WIDTH_PX, notes),
        nearest=_embedded(run / EVALUATION_FOLDER / NEAREST_FILE, _SHEET_WIDTH_PX, notes),
    )


def _settings(path: Path) -> dict[str, Any]:
    """Read the saved configuration, whichever version wrote it."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path.parent} is no training run ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{path.parent} is no training run ({path} has no settings)")
    return config


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """List settings by their dotted names, as `--set` takes them."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "not set" if value is None else str(value)))
    return rows


def _read(model: type[_Model], path: Path, notes: list[str], so: str) -> _Model | None:
    """Read a stored record, if it exists; adds a note if it can't be read."""
    if not path.exists():
        return None
    try:
        return model.model_validate_json(path.read_bytes())
    except ValueError:
        notes.append(f"{path.name} can't be read{so}")
        return None


def _dataset(
    path: Path, evaluation: EvaluationReport | None, notes: list[str]
) -> DatasetInfo | None:
    """Read the description of the run's dataset."""
    info = _read(DatasetInfo, path, notes, ", so the photos are not described here.")
    if info and evaluation and evaluation.dataset_hash != info.hash:
        notes.append(
            "The evaluation used another dataset than training did: its training photos are not "
            "those that the generator was trained on, so its memorised fraction says little."
        )
    return info


def _evaluation(run: Path, notes: list[str]) -> EvaluationReport | None:
    """Read the last result of `catalogan evaluate`."""
    path = run / EVALUATION_FOLDER / EVALUATION_FILE
    report = _read(EvaluationReport, path, notes, ": run `catalogan evaluate` again.")
    checkpoints = list_checkpoints(run)
    if report and checkpoints and path.stat().st_mtime < checkpoints[0].stat().st_mtime:
        notes.append(
            "The evaluation is older than the newest checkpoint, so it is of an earlier "
            "generator: run `catalogan evaluate` again."
        )
    return report


def _grids(run: Path) -> list[tuple[float, str]]:
    """Embed some grids, evenly spaced, including the first and the last.

    Returns:
        Thousand images shown, and data: URL, of each; unreadable grids, and files with other
        names, are left out.
    """
    paths = sorted((run / GRID_FOLDER).glob("grid-*.png"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _MAX_GRIDS)).round())
    grids = []
    for path in (paths[int(i)] for i in chosen):
        number = path.stem.removeprefix("grid-")
        url = _embedded(path, _GRID_WIDTH_PX, [])
        if number.isdecimal() and url is not None:
            grids.append((int(number) / 1000, url))
    return grids


def _embedded(path: Path, width_px: int, notes: list[str]) -> str | None:
    """Encode an image as a data: URL, no wider than `width_px`; None if it is missing."""
    if not path.exists():
        return None
    try:
        with Image.open(path) as image:
            shown = image.convert("RGBA" if image.mode == "RGBA" else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        notes.append(f"{path.name} can't be read, so it is not shown.")
        return None
    if shown.width > width_px:
        height = max(1, round(shown.height * width_px / shown.width))
        shown = shown.resize((width_px, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=85, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

"""A run on one page that needs nothing else: RUN/report.html.

Pictures are inside the page, nothing is loaded, and a Content-Security-Policy forbids it
to. Names of categories, files and settings come from outside, and are escaped.
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
    """Write RUN/report.html from whatever the run has so far.

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
    """Write the report; where that fails, say so, since what it tells of is safe."""
    try:
        write_report(run)
    except (ValueError, OSError) as error:
        _logger.warning("%s not written (%s): try `catalogan report`", run / REPORT_FILE, error)


def _page(run: Path) -> str:
    """The whole page."""
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
    """The configuration as it was saved, also by another version."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{path.parent} is no training run ({error})") from error
    if not isinstance(config, dict):
        raise RunError(f"{path.parent} is no training run ({path} holds no settings)")
    return config


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings by their dotted names, as `--set` takes them."""
    rows: list[tuple[str, str]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", "not set" if value is None else str(value)))
    return rows


def _read(model: type[_Model], path: Path, notes: list[str], so: str) -> _Model | None:
    """A stored record, if it is there; a note where it can't be read."""
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
    """What the run was trained on."""
    info = _read(DatasetInfo, path, notes, ", so the photos are not described here.")
    if info and evaluation and evaluation.dataset_hash != info.hash:
        notes.append(
            "The evaluation used another dataset than training did: its training photos are not "
            "the ones that the generator was trained on, so that its memorised share says little."
        )
    return info


def _evaluation(run: Path, notes: list[str]) -> EvaluationReport | None:
    """What `catalogan evaluate` found last."""
    path = run / EVALUATION_FOLDER / EVALUATION_FILE
    report = _read(EvaluationReport, path, notes, ": run `catalogan evaluate` again.")
    checkpoints = list_checkpoints(run)
    if report and checkpoints and path.stat().st_mtime < checkpoints[0].stat().st_mtime:
        notes.append(
            "The evaluation is older than the newest checkpoint, and so speaks of an earlier "
            "generator: run `catalogan evaluate` again."
        )
    return report


def _grids(run: Path) -> list[tuple[float, str]]:
    """Thousand images and data: address of some grids, evenly spread, first and last among them.

    Those that are not whole, or have another name, are left out.
    """
    paths = sorted((run / GRID_FOLDER).glob("grid-*.png"))
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _MAX_GRIDS)).round())
    grids = []
    for path in (paths[int(i)] for i in chosen):
        number = path.stem.removeprefix("grid-")
        picture = _embedded(path, _GRID_WIDTH_PX, [])
        if number.isdecimal() and picture is not None:
            grids.append((int(number) / 1000, picture))
    return grids


def _embedded(path: Path, width_px: int, notes: list[str]) -> str | None:
    """A picture as a data: address, no wider than `width_px`; None where there is none."""
    if not path.exists():
        return None
    try:
        with Image.open(path) as picture:
            shown = picture.convert("RGBA" if picture.mode == "RGBA" else "RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        notes.append(f"{path.name} can't be read, so it is not shown.")
        return None
    if shown.width > width_px:
        height = max(1, round(shown.height * width_px / shown.width))
        shown = shown.resize((width_px, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=85, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")

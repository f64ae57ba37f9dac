"""Sheets of images for visual inspection: labelled rows, one below the other."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.images import flatten

_GAP_PX: Final = 6
_MARGIN_PX: Final = 28
_PAPER: Final = (250, 250, 248)
_INK: Final = (32, 33, 36)


def draw_sheet(
    rows: Sequence[tuple[str, NDArray[np.uint8]]],
    names: Sequence[str],
    *,
    label_px: int = 130,
    cell_px: int = 96,
) -> bytes:
    """Draw labelled rows of images, transparency over white.

    Args:
        rows: Each row's label and images, uint8 [N, height, width, channels].
        names: Heading of each column.
        label_px: Width of the labels' column.
        cell_px: The longer side of each image on the sheet.

    Returns:
        A PNG.
    """
    height, width = rows[0][1].shape[1:3]
    scale = cell_px / max(height, width)
    cell = (max(1, round(width * scale)), max(1, round(height * scale)))
    pitch = (cell[0] + _GAP_PX, cell[1] + _GAP_PX)
    left, top = _MARGIN_PX + label_px, _MARGIN_PX + 20
    size = (
        left + len(names) * pitch[0] - _GAP_PX + _MARGIN_PX,
        top + len(rows) * pitch[1] - _GAP_PX + _MARGIN_PX,
    )
    sheet = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for column, name in enumerate(names):
        draw.text((left + column * pitch[0], top - 8), name[:14], _INK, font, anchor="ls")
    for line, (label, images) in enumerate(rows):
        y = top + line * pitch[1]
        draw.text((_MARGIN_PX, y + cell[1] // 2), label, _INK, font, anchor="lm")
        for column, image in enumerate(images):
            shown = flatten(to_pillow(image), 3, "white").resize(cell, Image.Resampling.LANCZOS)
            sheet.paste(shown, (left + column * pitch[0], y))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def to_pillow(image: NDArray[np.uint8]) -> Image.Image:
    """uint8 [height, width, 1 | 3 | 4] -> mode L, RGB or RGBA."""
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)

"""A sheet of images before and after marking, for visual inspection."""

import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

AMPLIFICATION: Final = 8
_GAP_PX: Final = 4


def draw_sheet(plain: Sequence[NDArray[np.uint8]], marked: Sequence[NDArray[np.uint8]]) -> bytes:
    """Draw three rows as a PNG: images, marked images, and the amplified difference on grey.

    Args:
        plain: uint8 [H, W, 3], all of one size.
        marked: The same images, marked.
    """
    height, width = plain[0].shape[:2]
    size = (len(plain) * (width + _GAP_PX) - _GAP_PX, 3 * (height + _GAP_PX) - _GAP_PX)
    sheet = Image.new("RGB", size, "white")
    for i, (before, after) in enumerate(zip(plain, marked, strict=True)):
        change = AMPLIFICATION * (after.astype(np.int16) - before) + 128
        rows = (before, after, np.clip(change, 0, 255).astype(np.uint8))
        for j, pixels in enumerate(rows):
            sheet.paste(Image.fromarray(pixels), (i * (width + _GAP_PX), j * (height + _GAP_PX)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()

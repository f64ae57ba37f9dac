"""How the C library returns memory to the system."""

import ctypes
from contextlib import suppress
from typing import Final

# malloc.h of glibc
_M_MMAP_THRESHOLD: Final = -3
LARGE_BYTES: Final = 1_000_000


def return_large_blocks() -> None:
    """Have blocks of a megabyte and more go back to the system as soon as they are freed.

    glibc raises this threshold by itself to up to 32 MB, and then keeps the 16 MB blocks that
    Pillow holds photos in: after one photo of 40 megapixels the service would stay at several
    times its size. Other C libraries are left as they are.
    """
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BYTES)

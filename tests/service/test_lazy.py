"""What photos compute once: each photo for itself, whatever others do."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image

from service.augmentation.pipeline import Photo

PIXELS = np.full((32, 32, 3), 255, dtype=np.uint8)


class HeldMask:
    """A mask that can be looked at only when `release` is set."""

    width = height = 32

    def __init__(self) -> None:
        self.begun, self.release, self.looks = threading.Event(), threading.Event(), 0

    def __array__(self, *_: Any, **__: Any) -> Any:
        self.looks += 1
        self.begun.set()
        self.release.wait()
        return np.ones((32, 32), dtype=np.uint8)


def test_a_photo_waits_for_no_other_and_computes_once() -> None:
    mask = HeldMask()
    held = Photo("image", (32, 32), "0", PIXELS, mask=mask)  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(lambda: held.subject) for _ in range(3)]
        mask.begun.wait()
        try:
            other = Photo("image", (32, 32), "1", PIXELS, mask=Image.new("L", (32, 32), 1))
            assert threads.submit(lambda: other.subject).result(timeout=60) is not None
        finally:
            mask.release.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert mask.looks == 1

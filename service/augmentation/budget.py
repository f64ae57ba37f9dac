"""What one request's images may cost on the way, counted while they are created."""

import threading
from dataclasses import dataclass
from typing import Final

from service.errors import BadRequest


@dataclass(frozen=True)
class WorkLimits:
    """The most that the images of one request may cost together.

    Attributes:
        pixels: Of intermediate images: what photos are resampled to, and each operation's image.
        points: Of annotations, taken along to every image: of polygons and keypoints, and the
            four corners of each box.
        annotation_bytes: Of the response's annotations, as JSON.
    """

    pixels: int
    points: int
    annotation_bytes: int


class Budget:
    """What is left of the limits; jobs on several threads take from it."""

    def __init__(self, limits: WorkLimits) -> None:
        self._limits: Final = limits
        self._lock: Final = threading.Lock()
        self._pixels = 0
        self._annotation_bytes = 0

    def check_points(self, points: int) -> None:
        """Refuse more points than all images together may have.

        Raises:
            BadRequest: There are more.
        """
        if points > self._limits.points:
            raise BadRequest(
                f"taken along to every image, these annotations have {points} points, and a "
                f"response may have {self._limits.points} (a box counts as four): request fewer "
                "images, or send polygons with fewer points",
                param="annotations",
                code="too_many_points",
            )

    def take_pixels(self, pixels: int, param: str) -> None:
        """Count the intermediate pixels of an image before it is created.

        Raises:
            BadRequest: They are more than what is left; names `param`.
        """
        with self._lock:
            self._pixels += pixels
            over = self._pixels > self._limits.pixels
        if over:
            raise BadRequest(
                f"creating these images takes more than {self._limits.pixels} pixels on the way: "
                "request fewer, with a smaller canvas, fewer operations or less perspective, or "
                "send smaller photos",
                param=param,
                code="too_many_pixels",
            )

    def take_annotation_bytes(self, size: int) -> None:
        """Count the bytes of an image's annotations.

        Raises:
            BadRequest: They are more than what is left.
        """
        with self._lock:
            self._annotation_bytes += size
            over = self._annotation_bytes > self._limits.annotation_bytes
        if over:
            raise BadRequest(
                f"the annotations of all images take more than {self._limits.annotation_bytes} "
                "bytes: request fewer images, or send fewer shapes or shorter labels",
                param="annotations",
                code="too_many_points",
            )

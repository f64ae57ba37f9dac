"""Decoded pixels of any mode and colour space -> sRGB of 8 bits, a strip at a time where deep."""

import io
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from models.image_files import MAX_PROFILE_BYTES

# Transforms to sRGB that are kept are of small profiles, as cameras and editors embed them.
_MAX_KEPT_BYTES: Final = 64_000
_STRIP_ROWS: Final = 256
# Tags and processing stages of a profile; honest ones have a few dozen of the first, five of the
# second, and each stage costs its work for every pixel or every point of a table.
_MAX_TAGS: Final = 100
_MAX_STAGES: Final = 16
# What 12 bits reach; 16-bit samples that stay below were not scaled to 16 bits.
_WHITE_12: Final = 4095.0
_WHITE_16: Final = 65535.0


def to_8_bits(image: Image.Image, *, inverted: bool = False, unsigned: bool = False) -> Image.Image:
    """Convert any mode to L, LA, RGB, RGBA, CMYK or LAB of 8 bits; the ICC profile stays.

    Args:
        image: Loaded.
        inverted: The brightest samples of deep grey are black.
        unsigned: Grey of 32 bits has no sign.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = Image.fromarray(_deep_grey(image, unsigned=unsigned, inverted=inverted))
        return _keep_profile(image, grey)
    if image.mode in ("CMYK", "LAB"):
        return image
    if image.has_transparency_data:
        mode = "LA" if image.mode in ("1", "L", "LA", "La") else "RGBA"
    else:
        mode = "L" if image.mode in ("1", "L") else "RGB"
    return image if image.mode == mode else _keep_profile(image, image.convert(mode))


def _deep_grey(image: Image.Image, *, unsigned: bool, inverted: bool) -> NDArray[np.uint8]:
    """16-bit, 32-bit or float grey -> uint8; the range is judged by the brightest sample."""
    tops = range(0, image.height, _STRIP_ROWS)

    def levels(top: int) -> NDArray[np.float64]:
        bottom = min(image.height, top + _STRIP_ROWS)
        strip = np.asarray(image.crop((0, top, image.width, bottom)))
        if unsigned and strip.dtype == np.int32:
            strip = strip.view(np.uint32)
        return np.nan_to_num(strip.astype(np.float64), copy=False, posinf=0.0, neginf=0.0)

    white = _white(image.mode, max((float(levels(top).max()) for top in tops), default=0.0))
    grey = np.empty((image.height, image.width), dtype=np.uint8)
    for top in tops:
        scaled = np.clip(np.rint(levels(top) * (255.0 / white)), 0, 255)
        grey[top : top + _STRIP_ROWS] = 255 - scaled if inverted else scaled
    return grey


def _white(mode: str, peak: float) -> float:
    """The smallest customary white that the brightest sample does not exceed."""
    if mode.startswith("I;16"):
        return _WHITE_12 if 0 < peak <= _WHITE_12 else _WHITE_16
    customary = (1.0, 255.0, _WHITE_16) if mode == "F" else (255.0, _WHITE_16)
    return next((white for white in customary if peak <= white), peak)


def _keep_profile(source: Image.Image, converted: Image.Image) -> Image.Image:
    if "icc_profile" in source.info:
        converted.info["icc_profile"] = source.info["icc_profile"]
    return converted


def to_srgb(image: Image.Image) -> Image.Image:
    """Apply the embedded profile; a broken, unsuitable or excessive one is ignored.

    Args:
        image: As `to_8_bits` returns it; its pixels may be changed.

    Returns:
        Mode L, LA, RGB or RGBA.
    """
    profile = image.info.get("icc_profile")
    transform = None
    if image.mode == "LAB":
        transform = _kept_transform(None, "LAB")
    elif isinstance(profile, bytes) and _is_reasonable(profile):
        transform = _find_transform(profile, "L" if image.mode == "LA" else image.mode)
    if transform is not None:
        image = _apply(transform, image)
    return image.convert("RGB") if image.mode == "CMYK" else image


def _apply(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    """Transform the colours; in place where possible: a large photo's copy costs 160 MB."""
    if image.mode in ("RGB", "RGBA"):
        return transform.apply_in_place(image)
    if image.mode != "LA":
        return transform.apply(image)
    colour = transform.apply(image.getchannel("L"))
    colour.putalpha(image.getchannel("A"))
    return colour


def _is_reasonable(profile: bytes) -> bool:
    """Whether a profile's size, tags and processing stages are such as real ones have."""
    count = int.from_bytes(profile[128:132])
    if not 0 < len(profile) <= MAX_PROFILE_BYTES or count > _MAX_TAGS:
        return False
    for entry in range(132, 132 + 12 * count, 12):
        start = int.from_bytes(profile[entry + 4 : entry + 8])
        stages = int.from_bytes(profile[start + 12 : start + 16])
        if profile[start : start + 4] == b"mpet" and stages > _MAX_STAGES:
            return False
    return True


def _find_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    find = _kept_transform if len(profile) <= _MAX_KEPT_BYTES else _build_transform
    try:
        return find(profile, mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None  # a photo with unconverted colours is better than none


def _build_transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform to sRGB; None where the profile is sRGB itself, as most are."""
    srgb = ImageCms.createProfile("sRGB")
    if profile is None:
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    else:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    target = "RGBA" if mode == "RGBA" else "RGB"
    transform = ImageCms.ImageCmsTransform(source, ImageCms.ImageCmsProfile(srgb), mode, target)
    if mode == target and _is_identity(transform, mode):
        return None
    return transform


_kept_transform = lru_cache(maxsize=8)(_build_transform)


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a 9 x 9 x 9 grid moves by more than rounding."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(27, 27, 3)
    moved = transform.apply(Image.fromarray(grid).convert(mode)).convert("RGB")
    return bool(np.abs(np.asarray(moved, dtype=np.int16) - grid).max() <= 2)

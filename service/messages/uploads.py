"""Multipart bodies -> fields and files, all in memory: no upload ever touches a disk."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from PIL import Image
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from models.images import (
    REDUCE_TO_PX,
    ImageError,
    ImageLimits,
    crop_to,
    flatten,
    measure_image,
    open_image,
    sniff_format,
)
from models.manifest import GeneratorManifest
from service.errors import ApiError, BadRequest, TooLarge, UndecodableImage, UnsupportedImage
from service.observation import note_rejection

MAX_FIELDS: Final = 12
MAX_FIELD_BYTES: Final = 50_000


@dataclass(frozen=True)
class File:
    """An uploaded file: the name that its sender gave it, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Form:
    """What a form holds: text fields by name, and files by name, in their order."""

    fields: dict[str, str] = field(default_factory=dict)
    files: dict[str, list[File]] = field(default_factory=dict)


def is_form(headers: Headers) -> bool:
    """Whether a body is declared to be a form with files."""
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


async def read_form(request: Request, max_file_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Read a form that holds a file named `image` and text fields; see `read_files`.

    Returns:
        The file's bytes, and the fields by name.
    """
    form = await read_files(request, max_file_bytes, {"image": 1})
    return form.files["image"][0].data, form.fields


async def read_files(
    request: Request,
    max_file_bytes: int,
    files: dict[str, int],
    max_field_bytes: int = MAX_FIELD_BYTES,
) -> Form:
    """Read a form that holds files and text fields.

    Args:
        request: A request whose body the guard caps.
        max_file_bytes: Cap on each file.
        files: How many files there may be of each name, which may also be sent as `name[]`.
            At least one named `image` must be there.
        max_field_bytes: Cap on each text field.

    Raises:
        BadRequest: No well-formed form, a field twice, too many files, or none named `image`.
        TooLarge: A file is over its cap.
    """
    if not is_form(request.headers):
        raise BadRequest("send the body as multipart/form-data", param="Content-Type")
    try:
        return await _parse(request, max_file_bytes, files, max_field_bytes)
    except ApiError as error:
        note_rejection(error.code)
        raise


async def _parse(
    request: Request, max_file_bytes: int, files: dict[str, int], max_field_bytes: int
) -> Form:
    parser = _MemoryParser(
        request.headers,
        request.stream(),
        # One more than fits: `_take_apart` says it better.
        max_files=sum(files.values()) + (1 if sum(files.values()) > 1 else 0),
        max_fields=MAX_FIELDS,
        max_part_size=max_field_bytes,
    )
    parser.spool_max_size = max_file_bytes + 1_000_000
    try:
        form = await parser.parse()
        if not parser.complete:
            raise BadRequest("the form is cut off", code="invalid_form")
        return await _take_apart(form, max_file_bytes, files)
    except MultiPartException as error:
        raise BadRequest(f"the form can't be read: {error.message}", code="invalid_form") from None
    except (ApiError, TimeoutError):
        raise
    except Exception:  # the parser lets its own library's errors and KeyErrors through
        raise BadRequest("the form can't be read", code="invalid_form") from None
    finally:
        parser.close()


class _MemoryParser(MultiPartParser):
    """Knows whether the form's end came, and lets go of files that never got theirs."""

    complete = False

    def on_end(self) -> None:
        super().on_end()
        self.complete = True

    def close(self) -> None:
        for file in self._files_to_close_on_error:
            file.close()


async def _take_apart(form: FormData, max_file_bytes: int, files: dict[str, int]) -> Form:
    taken = Form()
    for sent, value in form.multi_items():
        name = sent.removesuffix("[]")
        if name in files:
            known = taken.files.setdefault(name, [])
            if len(known) == files[name]:
                several = "occurs twice" if files[name] == 1 else f"occurs over {files[name]} times"
                raise BadRequest(f"the file {several}", param=name, code="invalid_form")
            data = await _file_bytes(value, max_file_bytes, name)
            known.append(File(str(getattr(value, "filename", "")), data))
        elif isinstance(value, UploadFile):
            wanted = " and ".join(f"`{one}`" for one in files)
            raise BadRequest(f"only {wanted} may be a file", param=sent, code="unknown_field")
        elif sent in taken.fields:
            raise BadRequest("the field occurs twice", param=sent, code="invalid_form")
        else:
            taken.fields[sent] = value
    if "image" not in taken.files:
        raise BadRequest("the file is missing", param="image", code="missing_field")
    return taken


async def _file_bytes(value: UploadFile | str, limit: int, param: str) -> bytes:
    if isinstance(value, str):
        raise BadRequest("send the picture as a file, not as text or a URL", param=param)
    if (value.size or 0) > limit:
        raise TooLarge(f"the file has more than {limit} bytes", param=param)
    return await value.read()


def measure_upload(data: bytes, limits: ImageLimits, param: str = "image") -> tuple[int, int]:
    """Width and height of an uploaded photo as they are stored, without decoding.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `open_upload`.
    """
    with image_errors(param):
        return measure_image(data, limits=limits)


def open_upload(data: bytes, limits: ImageLimits, param: str = "image") -> Image.Image:
    """Decode an uploaded photo: upright, in sRGB, with its transparency.

    Args:
        data: The file's bytes.
        limits: What it may cost.
        param: Names the file in errors.

    Returns:
        Mode L, LA, RGB or RGBA.

    Raises:
        TooLarge: Too many bytes or pixels; found out before decoding.
        UnsupportedImage: No picture of an accepted type.
        UndecodableImage: One that is damaged.
        BadRequest: One that is too small.
    """
    with image_errors(param):
        return open_image(data, limits=limits)


def open_mask(data: bytes, size: tuple[int, int], param: str) -> Image.Image:
    """Decode a mask as the class indexes that it holds.

    Args:
        data: A PNG with one channel of up to 8 bits, or a palette.
        size: Width and height that it must have; decided before decoding.
        param: Names the file in errors.

    Returns:
        Mode L, or P with its palette.

    Raises:
        UnsupportedImage: No PNG.
        UndecodableImage: A damaged one.
        BadRequest: Of another size, or with more channels or bits.
    """
    if sniff_format(data) != "PNG":
        raise UnsupportedImage("a mask must be a PNG", param=param)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its size is compared, not judged
            mask = Image.open(io.BytesIO(data), formats=("PNG",))
        found, mode = mask.size, mask.mode
    except Image.DecompressionBombError:
        raise BadRequest("the mask has far more pixels than a photo may", param=param) from None
    except Exception:
        raise UndecodableImage("the mask is a damaged PNG", param=param) from None
    if found != size:
        raise BadRequest(
            f"the mask has {found[0]}x{found[1]} pixels, its photo {size[0]}x{size[1]} when "
            "upright",
            param=param,
        )
    if mode not in ("1", "L", "P"):
        raise BadRequest(
            "a mask must have one channel of up to 8 bits, or a palette, without transparency",
            param=param,
        )
    try:
        mask.load()
        # 1-bit masks become 0 and 255.
        return mask.convert("L") if mode == "1" else mask
    except Exception:
        raise UndecodableImage("the mask is a damaged PNG", param=param) from None


def match_masks(photos: Sequence[File], masks: Sequence[File]) -> list[File | None]:
    """Say which mask belongs to each photo.

    A mask has its photo's file name, less the ending; where no mask has a photo's name, and
    there are as many, they follow their photos' order.

    Raises:
        BadRequest: They can't be matched.
    """
    names = [_stem(photo.name) for photo in photos]
    of_name: dict[str, File] = {}
    for mask in masks:
        stem = _stem(mask.name)
        if names.count(stem) != 1 or stem in of_name:
            break
        of_name[stem] = mask
    else:
        return [of_name.get(name) for name in names]
    if len(masks) == len(photos) and not of_name:
        return list(masks)
    raise BadRequest(
        f"{len(masks)} masks can't be matched to {len(photos)} photos: give each its photo's "
        "file name, or send as many masks as photos, in their order",
        param="mask",
    )


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def fit_upload(
    data: bytes, limits: ImageLimits, manifest: GeneratorManifest, param: str = "image"
) -> Any:
    """Decode an uploaded photo and fit it to a model, as `catalogan prepare` does by default.

    Args:
        data: The file's bytes.
        limits: What it may cost.
        manifest: The model's.
        param: Names the file in errors.

    Returns:
        uint8 [height, width, channels], upright sRGB, cut to the model's proportions;
        transparency lies over white where the model has none.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `open_upload`.
    """
    height, width, channels = manifest.height, manifest.width, manifest.channels
    with image_errors(param):
        photo = open_image(data, limits=limits, reduce_to_px=max(REDUCE_TO_PX, height, width))
    if channels != 4:
        photo = flatten(photo, 3, "white")
    fitted = crop_to(flatten(photo, channels, "white"), (width, height))
    return np.asarray(fitted).reshape(height, width, channels)


@contextmanager
def image_errors(param: str = "image") -> Iterator[None]:
    """Turn what is wrong with a picture into an answer, and note it."""
    kinds: dict[str, type[ApiError]] = {
        "too_many_bytes": TooLarge,
        "too_many_pixels": TooLarge,
        "too_small": BadRequest,
        "not_an_image": UnsupportedImage,
        "undecodable": UndecodableImage,
    }
    try:
        yield
    except ImageError as error:
        note_rejection(error.reason)
        raise kinds[error.reason](f"the picture can't be used: {error}", param=param) from None

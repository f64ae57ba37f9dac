"""Multipart bodies -> fields and one photo, all in memory: no upload ever touches a disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from models.images import (
    REDUCE_TO_PX,
    ImageError,
    ImageLimits,
    crop_to,
    decode_image,
    flatten,
    open_image,
)
from models.manifest import GeneratorManifest
from service.errors import ApiError, BadRequest, TooLarge, UndecodableImage, UnsupportedImage
from service.observation import note_rejection

MAX_FIELDS: Final = 10
MAX_FIELD_BYTES: Final = 50_000


async def read_form(request: Request, max_file_bytes: int) -> tuple[bytes, dict[str, str]]:
    """Read a form that holds a file named `image` and text fields.

    Args:
        request: A request whose body the guard caps.
        max_file_bytes: Cap on the file.

    Returns:
        The file's bytes, and the fields by name.

    Raises:
        BadRequest: No well-formed form, a name twice, or no file named `image`.
        TooLarge: The file is over its cap.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise BadRequest("send the body as multipart/form-data", param="Content-Type")
    try:
        return await _parse(request, max_file_bytes)
    except ApiError as error:
        note_rejection(error.code)
        raise


async def _parse(request: Request, max_file_bytes: int) -> tuple[bytes, dict[str, str]]:
    parser = _MemoryParser(
        request.headers,
        request.stream(),
        max_files=1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    parser.spool_max_size = max_file_bytes + 1_000_000
    try:
        form = await parser.parse()
        if not parser.complete:
            raise BadRequest("the form is cut off", code="invalid_form")
        return await _take_apart(form, max_file_bytes)
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


async def _take_apart(form: FormData, max_file_bytes: int) -> tuple[bytes, dict[str, str]]:
    fields: dict[str, str] = {}
    photo: bytes | None = None
    for name, value in form.multi_items():
        if name in fields or (name == "image" and photo is not None):
            raise BadRequest("the field occurs twice", param=name, code="invalid_form")
        if name == "image":
            photo = await _file_bytes(value, max_file_bytes)
        elif isinstance(value, UploadFile):
            raise BadRequest("only `image` is a file", param=name, code="unknown_field")
        else:
            fields[name] = value
    if photo is None:
        raise BadRequest("the file is missing", param="image", code="missing_field")
    return photo, fields


async def _file_bytes(value: UploadFile | str, limit: int) -> bytes:
    if isinstance(value, str):
        raise BadRequest("send the picture as a file, not as text or a URL", param="image")
    if (value.size or 0) > limit:
        raise TooLarge(f"the file has more than {limit} bytes", param="image")
    return await value.read()


def decode_upload(data: bytes, limits: ImageLimits) -> Any:
    """Decode an uploaded photo to upright sRGB, uint8 [height, width, 3].

    Raises:
        TooLarge: Too many bytes or pixels; found out before decoding.
        UnsupportedImage: No picture of an accepted type.
        UndecodableImage: One that is damaged.
        BadRequest: One that is too small.
    """
    with image_errors():
        return decode_image(data, limits=limits)


def fit_upload(data: bytes, limits: ImageLimits, manifest: GeneratorManifest) -> Any:
    """Decode an uploaded photo and fit it to a model, as `catalogan prepare` does by default.

    Args:
        data: The file's bytes.
        limits: What it may cost.
        manifest: The model's.

    Returns:
        uint8 [height, width, channels], upright sRGB, cut to the model's proportions;
        transparency lies over white where the model has none.

    Raises:
        TooLarge, UnsupportedImage, UndecodableImage, BadRequest: As `decode_upload`.
    """
    height, width, channels = manifest.height, manifest.width, manifest.channels
    with image_errors():
        photo = open_image(data, limits=limits, reduce_to_px=max(REDUCE_TO_PX, height, width))
    if channels != 4:
        photo = flatten(photo, 3, "white")
    fitted = crop_to(flatten(photo, channels, "white"), (width, height))
    return np.asarray(fitted).reshape(height, width, channels)


@contextmanager
def image_errors() -> Iterator[None]:
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
        raise kinds[error.reason](f"the picture can't be used: {error}", param="image") from None

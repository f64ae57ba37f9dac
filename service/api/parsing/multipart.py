"""Multipart bodies -> fields and files, all in memory: no upload ever touches a disk."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Final

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from service.api.parsing.file_names import extended_name, plain_name
from service.decoding.uploads import File
from service.errors import ApiError, BadRequest, TooLarge
from service.telemetry.observation import note_rejection

MAX_FIELDS: Final = 12
MAX_FIELD_BYTES: Final = 50_000
_EXAMPLE: Final = "as by curl: curl -F image=@photo.jpg URL"


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
        request: A request whose body is capped.
        max_file_bytes: Cap on each file.
        files: How many files there may be of each name, which may also be sent as `name[]`.
            At least one named `image` must be there.
        max_field_bytes: Cap on each text field.

    Raises:
        BadRequest: No well-formed form, a field twice, too many files, or none named `image`.
        TooLarge: A file is over its cap.
    """
    if not is_form(request.headers):
        raise BadRequest(f"send the body as multipart/form-data; {_EXAMPLE}", param="Content-Type")
    _refuse_charset(request.headers["content-type"])
    try:
        return await _parse(request, max_file_bytes, files, max_field_bytes)
    except ApiError as error:
        note_rejection(error.code)
        raise


def _refuse_charset(content_type: str) -> None:
    """Let no client choose the codec: some of Python's take minutes for a long name."""
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        raise BadRequest("a form is UTF-8: leave charset out", param="Content-Type")


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
    parser.file_fields = files
    parser.spool_max_size = max_file_bytes + 1_000_000
    try:
        form = await parser.parse()
        if not parser.complete:
            raise BadRequest("the form is cut off", code="invalid_form")
        return await _take_apart(form, max_file_bytes, files)
    except MultiPartException:
        raise BadRequest(
            f"the form can't be read: send at most {MAX_FIELDS} fields of {max_field_bytes} bytes "
            f"each and {sum(files.values())} files, every part with its name",
            code="invalid_form",
        ) from None
    except (ApiError, TimeoutError):
        raise
    except Exception:  # the parser lets its own library's errors and KeyErrors through
        raise BadRequest("the form can't be read", code="invalid_form") from None
    finally:
        parser.close()


class _MemoryParser(MultiPartParser):
    """Knows names, the form's end, and what was sent as text; lets go of files cut off."""

    complete = False
    file_fields: Container[str] = ()

    def on_headers_finished(self) -> None:
        part = self._current_part
        extended = extended_name(part.content_disposition or b"")
        if extended is not None:
            part.content_disposition = (part.content_disposition or b"") + b'; filename="named"'
        super().on_headers_finished()
        if part.file is not None:
            sent = part.file.filename or ""
            part.file.filename = plain_name(sent) if extended is None else extended
        elif part.field_name.removesuffix("[]") in self.file_fields:
            raise BadRequest(
                "send the image as a file with a name, not as text, a URL or a data: URL; "
                + _EXAMPLE,
                param=part.field_name,
            )

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._current_part
        if part.file is None and len(part.data) + end - start > self.max_part_size:
            raise BadRequest(
                f"the field has more than {self.max_part_size} bytes",
                param=part.field_name,
                code="invalid_form",
            )
        super().on_part_data(data, start, end)

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
        if name in files and isinstance(value, UploadFile):
            known = taken.files.setdefault(name, [])
            if len(known) == files[name]:
                several = "occurs twice" if files[name] == 1 else f"occurs over {files[name]} times"
                raise BadRequest(f"the file {several}", param=name, code="invalid_form")
            data = await _file_bytes(value, max_file_bytes, name)
            known.append(File(value.filename or "", data))
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


async def _file_bytes(file: UploadFile, limit: int, param: str) -> bytes:
    if (file.size or 0) > limit:
        raise TooLarge(f"the file has more than {limit} bytes", param=param)
    return await file.read()

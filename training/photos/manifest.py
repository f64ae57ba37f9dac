"""A manifest of photos, CSV or Parquet: path, category, sku, and further columns."""

import codecs
import csv
import io
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from training.photos.options import PrepareOptions
from training.photos.scan import (
    LeftOut,
    Listing,
    PrepareError,
    category_name,
    locate,
    scan_folder,
)

logger = logging.getLogger(__name__)

_BYTE_ORDER_MARKS: Final = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Excel's first line, which names the separator.
_SEPARATOR_LINE: Final = re.compile(r'"?sep=(.)"?\s*\r?\n')


def read_manifest(manifest: Path, root: Path, options: PrepareOptions) -> Listing:
    """List the photos that a manifest names.

    Args:
        manifest: A .csv (comma, semicolon or tab; UTF-8, UTF-16 or Windows-1252) or .parquet file.
        root: The folder that its paths are relative to.
        options: Names of the columns with a meaning, in any letter case; all others are copied to
            the index. The SKU column may be absent if it has its default name.

    Returns:
        Photos sorted by path, bytewise; photos of the folder that no row names are left out.

    Raises:
        PrepareError: The manifest is unreadable or lacks a column.
    """
    if not root.is_dir():
        raise PrepareError(f"{root} is no readable folder")
    names, rows = _read_rows(manifest)
    names, rows = _with_expected_names(names, rows, options)
    _check_columns(manifest, names, options)
    base = os.fsencode(os.path.realpath(root))
    _names_by_form.cache_clear()
    listing = Listing()
    for number, row in enumerate(rows, start=1):
        _add_row(row, f"{manifest.name} row {number}", base, options, listing)
    _leave_out_unnamed(root, manifest, options, listing)
    listing.photos.sort(key=lambda photo: photo.path.encode())
    return listing


def _leave_out_unnamed(
    root: Path, manifest: Path, options: PrepareOptions, listing: Listing
) -> None:
    """Say of each file in a category's folder that no row names it."""
    named = {photo.file for photo in listing.photos} | {os.path.realpath(manifest)}
    apart = options.validation and os.path.realpath(options.validation)
    for photo in scan_folder(root).photos:
        given_apart = apart and os.path.commonpath([apart, photo.file]) == apart
        if photo.file not in named and not given_apart:
            listing.left_out.append(LeftOut(photo.path, "not_in_manifest", "no row names it"))


def _with_expected_names(
    names: list[str], rows: Iterable[Mapping[str, Any]], options: PrepareOptions
) -> tuple[list[str], list[Mapping[str, Any]]]:
    """Rename columns that differ from the options' names in letter case only."""
    renamed = {}
    for wanted in (options.path_column, options.category_column, options.sku_column):
        alike = [name for name in names if name.casefold() == wanted.casefold()]
        if wanted not in names and len(alike) == 1:
            renamed[alike[0]] = wanted
    return (
        [renamed.get(name, name) for name in names],
        [{renamed.get(name, name): value for name, value in row.items()} for row in rows],
    )


def _check_columns(manifest: Path, names: list[str], options: PrepareOptions) -> None:
    """Refuse a manifest without a column that is needed or was requested."""
    wanted = [options.path_column, options.category_column]
    if options.sku_column != PrepareOptions.model_fields["sku_column"].default:
        wanted.append(options.sku_column)
    for name in wanted:
        if name not in names:
            raise PrepareError(
                f"{manifest} has no column {name!r}; its columns are: {', '.join(names)}"
            )
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise PrepareError(f"{manifest} has more than one column {', '.join(repeated)}")


def _add_row(
    row: Mapping[str, Any], where: str, base: bytes, options: PrepareOptions, listing: Listing
) -> None:
    """Add one row to the photos, or to those left out."""
    path = _text(row[options.path_column])
    category = category_name(_text(row[options.category_column]))
    if category:
        listing.categories.add(category)
    problem = _path_problem(path)
    if problem:
        listing.left_out.append(LeftOut(path or where, "bad_path", f"{where}: {problem}"))
        return
    if not category:
        listing.left_out.append(LeftOut(path, "no_category", f"{where} names no category"))
        return
    own_columns = (options.path_column, options.category_column, options.sku_column)
    listing.add(
        path,
        _locate(path, base),
        category=category,
        sku=_text(row.get(options.sku_column)) or None,
        further={name: value for name, value in row.items() if name not in own_columns},
    )


def _locate(path: str, base: bytes) -> bytes | tuple[str, str]:
    """Find a row's file, whose name on the disk may have another Unicode form (a Mac's, say)."""
    place = Path(os.fsdecode(base))
    found = locate(os.fsencode(place / path), base)
    if isinstance(found, bytes) or found[0] != "missing_file":
        return found
    for part in path.split("/"):
        name = _names_by_form(place).get(unicodedata.normalize("NFC", part))
        if name is None:
            return found
        place /= name
    return locate(os.fsencode(place), base)


@cache
def _names_by_form(folder: Path) -> dict[str, str]:
    """A folder's names by their composed form."""
    try:
        return {unicodedata.normalize("NFC", entry.name): entry.name for entry in folder.iterdir()}
    except OSError:
        return {}


def _path_problem(path: str) -> str | None:
    """Say why a path can't be used; None if it can."""
    if not path:
        return "no path"
    try:
        possible = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:
        possible = False
    if not possible:
        return "the path holds characters that no file name can"
    if "\\" in path:
        return "the path has a backslash: write folders with /"
    if path.startswith("/") or ".." in path.split("/"):
        return "the path leaves the folder of photos"
    return None


def _text(value: object) -> str:
    return "" if value is None else str(value).strip()


def _read_rows(manifest: Path) -> tuple[list[str], Iterable[Mapping[str, Any]]]:
    """Column names and rows."""
    suffix = manifest.suffix.lower()
    try:
        if suffix == ".parquet":
            table = pq.read_table(manifest)
            return table.column_names, table.to_pylist()
        if suffix == ".csv":
            return _read_csv(manifest)
    except (OSError, pa.ArrowException, csv.Error) as error:
        raise PrepareError(f"{manifest} can't be read: {error}") from error
    raise PrepareError(f"{manifest}: a manifest is a .csv or a .parquet file")


def _read_csv(manifest: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a CSV file whose first line names the columns."""
    text = _decoded(manifest)
    separator = _SEPARATOR_LINE.match(text)
    text = text[separator.end() :] if separator else text
    header = text.split("\n", 1)[0]
    delimiter = separator[1] if separator else max(",;\t", key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader, [])]
    if not names:
        raise PrepareError(f"{manifest} is empty")
    rows = []
    for cells in reader:
        if not cells:
            continue
        if len(cells) != len(names):
            raise PrepareError(
                f"{manifest} line {reader.line_num} has {len(cells)} cells, "
                f"but there are {len(names)} columns"
            )
        rows.append(dict(zip(names, cells, strict=True)))
    return names, rows


def _decoded(manifest: Path) -> str:
    """Decode a text file by its byte order mark, else as UTF-8, else as Windows-1252."""
    data = manifest.read_bytes()
    mark = next((mark for mark in _BYTE_ORDER_MARKS if data.startswith(mark)), None)
    encodings = [_BYTE_ORDER_MARKS[mark]] if mark else ["utf-8", "cp1252"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == "cp1252":
            logger.warning(
                "%s is not UTF-8: read as Windows-1252. If names are wrong, save it as UTF-8",
                manifest,
            )
        return text
    raise PrepareError(
        f"{manifest} is neither UTF-8, UTF-16 with a byte order mark nor Windows-1252: save it as "
        "UTF-8"
    )

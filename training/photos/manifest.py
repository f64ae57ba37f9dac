"""A manifest of photos, CSV or Parquet: path, category, sku, and further columns."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from training.photos.options import PrepareOptions
from training.photos.scan import LeftOut, Listing, PrepareError, category_name, locate


def read_manifest(manifest: Path, root: Path, options: PrepareOptions) -> Listing:
    """List the photos that a manifest names.

    Args:
        manifest: A .csv (comma, semicolon or tab; UTF-8) or .parquet file.
        root: The folder that its paths are relative to.
        options: Names of the columns with a meaning; all others are copied to the index. The
            SKU column may be absent if it has its default name.

    Returns:
        Photos sorted by path, bytewise.

    Raises:
        PrepareError: The manifest is unreadable or lacks a column.
    """
    if not root.is_dir():
        raise PrepareError(f"{root} is no readable folder")
    names, rows = _read_rows(manifest)
    _check_columns(manifest, names, options)
    base = os.fsencode(os.path.realpath(root))
    listing = Listing()
    for number, row in enumerate(rows, start=1):
        _add_row(row, f"{manifest.name} row {number}", base, options, listing)
    listing.photos.sort(key=lambda photo: photo.path.encode())
    return listing


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
        locate(os.fsencode(Path(os.fsdecode(base)) / path), base),
        category=category,
        sku=_text(row.get(options.sku_column)) or None,
        further={name: value for name, value in row.items() if name not in own_columns},
    )


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
    except (OSError, pa.ArrowException, csv.Error, UnicodeDecodeError) as error:
        raise PrepareError(f"{manifest} can't be read: {error}") from error
    raise PrepareError(f"{manifest}: a manifest is a .csv or a .parquet file")


def _read_csv(manifest: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Read a CSV file whose first line names the columns."""
    with manifest.open(encoding="utf-8-sig", newline="") as stream:
        header = stream.readline()
        delimiter = max(",;\t", key=header.count)
        stream.seek(0)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
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

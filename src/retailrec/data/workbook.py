"""Sheets of a workbook, as text."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.errors import DataError

_CHUNK = 1 << 20  # bytes of a sheet looked at together
_WIDE = re.compile(rb"""\br=["']([A-Za-z]{2,3})(\d{1,7})["']""")  # a cell beyond column Z
_ROW = re.compile(rb"""<(?:\w+:)?row\b[^>]*?\br=["'](\d{1,7})["']""")
_CELL = re.compile(rb"<(?:\w+:)?c[\s/>]")
_MOST_CELLS, _MOST_EMPTY = 50_000_000, 20  # between first and last; so many empty ones a filled one
_MOST_BYTES, _MOST_PACKED = 1 << 30, 200  # unpacked; so many times the packed ones


def read_sheets(file: Path) -> dict[str, pl.DataFrame]:
    """The sheets of a workbook by name, as text: every cell decides, not the first rows.

    Sheets without a line are passed over; the others have the same columns in one order.

    Raises
    ------
    DataError
        If no sheet holds a line, two columns share a name, or it would need far more memory than what
        is in it.
    """
    import fastexcel

    _refuse_bombs(file)

    book = fastexcel.read_excel(file.read_bytes())
    tables: dict[str, pl.DataFrame] = {}
    for name in book.sheet_names:
        _refuse_doubles(file, book, name)
        sheet = book.load_sheet(name, dtypes="string").to_polars()
        if sheet.height or (len(book.sheet_names) == 1 and sheet.width):
            tables[name] = sheet.rename({c: c.strip() for c in sheet.columns})
    if not tables:
        raise DataError(f"{file} holds no line; expected a header and lines below it in a sheet.")
    first = next(iter(tables.values())).columns
    for name, table in tables.items():
        if set(table.columns) != set(first):
            raise DataError(
                f"the sheets of {file} differ: {name!r} has columns {table.columns}, the first has "
                f"{first}. Keep alike sheets in one workbook."
            )
    return {name: table.select(first) for name, table in tables.items()}


def _refuse_doubles(file: Path, book: Any, name: str) -> None:
    """Raise if the header names a column twice; the library would call the second by another name."""
    head = book.load_sheet(name, header_row=None, n_rows=1, dtypes="string").to_polars()
    cells = [str(c).strip() for c in head.row(0) if c is not None] if head.height else []
    if doubled := sorted({c for c in cells if cells.count(c) > 1}):
        raise DataError(
            f"{file}: sheet {name!r} has two columns called {doubled[0]!r}, so it can't be told which "
            f"one is meant; rename one of them."
        )


def _refuse_bombs(file: Path) -> None:
    """Raise if reading would take much more memory than the cells that are filled.

    The library makes room for all cells from the first to the last: with one in XFD1048576, for 17
    thousand million. Without a column beyond Z there can't be too many.
    """
    try:
        with zipfile.ZipFile(file) as book:
            for entry in book.infolist():
                packed = max(entry.compress_size, 1)
                if entry.file_size > max(_MOST_BYTES, _MOST_PACKED * packed):
                    raise DataError(
                        f"{file} unpacks to {entry.file_size / 2**30:.1f} GB from {packed / 2**20:.1f} "
                        f"MB; that is no table. Export it as CSV."
                    )
                if entry.filename.lower().endswith(".xml") and "string" not in entry.filename.lower():
                    _refuse_far_cells(file, book, entry)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError):
        return  # damaged, locked or no workbook at all: the library that reads it says so


def _refuse_far_cells(file: Path, book: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    wide = [column for chunk in _chunks(book, entry) for column, _ in _WIDE.findall(chunk)]
    if not wide:
        return
    rows = [int(row) for chunk in _chunks(book, entry) for row in _ROW.findall(chunk)]
    rows += [int(row) for chunk in _chunks(book, entry) for _, row in _WIDE.findall(chunk)]
    filled = sum(len(_CELL.findall(chunk)) for chunk in _chunks(book, entry))
    last = max(set(wide), key=_number)
    if _number(last) * max(rows) > max(_MOST_CELLS, _MOST_EMPTY * filled):
        raise DataError(
            f"{file}: a sheet has {filled:,} cells, but reaches to column {last.decode()} and row "
            f"{max(rows):,}; the room for all cells between would be too much. Remove the cells far "
            f"away, or export the table as CSV."
        )


def _chunks(book: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The bytes of an entry, cut before a tag, so that no cell's head is parted."""
    rest = b""
    with book.open(entry) as stream:
        while part := stream.read(_CHUNK):
            rest += part
            cut = rest.rfind(b"<")
            if cut > 0:
                yield rest[:cut]
                rest = rest[cut:]
            elif len(rest) > 2 * _CHUNK:  # text without a tag
                rest = rest[-1:]
    yield rest


def _number(column: bytes) -> int:
    """Number of a column by its letters: 27 for AA."""
    number = 0
    for letter in column.upper():
        number = number * 26 + letter - 64
    return number

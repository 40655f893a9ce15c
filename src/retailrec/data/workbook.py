"""Sheets of a workbook, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from retailrec.errors import DataError


def read_sheets(file: Path) -> dict[str, pl.DataFrame]:
    """The sheets of a workbook by name, as text: every cell decides, not the first rows.

    Sheets without a line are passed over; the others have the same columns in one order.

    Raises
    ------
    DataError
        If no sheet holds a line, or two columns share a name.
    """
    import fastexcel

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

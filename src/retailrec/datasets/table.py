"""Anybody's own receipts: one file or folder, with a column mapping."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_parts, read_table
from retailrec.data.paths import find_file
from retailrec.datasets.base import NO_OPTIONS, Dataset, ReadOptions, Tables
from retailrec.errors import SettingError
from retailrec.schema import CATEGORIES, NAME, TRANSACTIONS

_DESCRIBING = (NAME, "brand", *CATEGORIES)


def open_table(
    path: Path, columns: Mapping[str, str] | None = None, options: ReadOptions = NO_OPTIONS
) -> Tables:
    """Receipts from a CSV, Parquet or Excel file, or from a folder of alike files.

    A folder may also hold ``transactions`` beside ``items`` and ``users`` (any of the endings), which
    are then the catalogue and the shoppers' attributes. `columns` maps standard names to the file's;
    beside the receipt columns it may name `name`, `brand` and `category_1` ... `category_4`, which
    then describe the items.

    Raises
    ------
    SettingError
        If `columns` names something that is not known here.
    """
    columns = dict(columns or {})
    known = [c.name for c in TRANSACTIONS] + list(_DESCRIBING)
    if unknown := sorted(set(columns) - set(known)):
        raise SettingError(
            f"--columns names {unknown}, which mean nothing here; expected some of {known}. "
            f"Write standard=yours, such as time=date."
        )
    receipts = find_file(path, "transactions", "receipts", "purchases") or path
    items = find_file(path, "items", "products", "catalogue") if receipts != path else None
    users = find_file(path, "users", "shoppers", "clients") if receipts != path else None
    encoding = options.encoding
    lines = read_parts(receipts, encoding=encoding, exports=True)
    first = next(lines)
    describing = [c for c in _DESCRIBING if c in columns or (c in first.columns and items is None)]
    return Tables(
        chain([first], lines),
        LoadReport(DATASET.name),
        None if items is None else read_table(items, encoding=encoding),
        None if users is None else read_table(users, encoding=encoding),
        columns=columns,
        item_columns=describing,
        time_format=options.time_format,
    )


DATASET = Dataset(
    name="table",
    source="your own file",
    licence="yours",
    files="one file or folder; or a folder with transactions, items, users",
    columns=", ".join(c.name if c.required else f"[{c.name}]" for c in TRANSACTIONS),
    open=open_table,
)

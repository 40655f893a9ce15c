"""Anybody's own receipts: one file or folder, with a column mapping."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from pathlib import Path

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import FILE, columns_of, read_parts, read_table
from retailrec.data.paths import find_file, others_in
from retailrec.datasets.base import NO_OPTIONS, Dataset, ReadOptions, Tables
from retailrec.errors import DataError, SettingError
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
    said = {"columns": columns, "encoding": encoding, "time_format": options.time_format}
    report = LoadReport(DATASET.name, reading={name: value for name, value in said.items() if value})
    if receipts != path:
        read = [file for file in (receipts, items, users) if file is not None]
        _say_others(path, read, first.columns, report, encoding)
    return Tables(
        chain([first], lines),
        report,
        None if items is None else read_table(items, encoding=encoding),
        None if users is None else read_table(users, encoding=encoding),
        columns=columns,
        item_columns=describing,
        time_format=options.time_format,
    )


def _say_others(
    folder: Path, read: list[Path], columns: list[str], report: LoadReport, encoding: str | None
) -> None:
    """Note what stands beside the tables of a folder and is not read; refuse what has receipts too."""
    unread = []
    for file in others_in(folder, read):
        try:
            theirs = columns_of(file, encoding)
        except DataError:
            theirs = []
        if set(theirs) == set(columns) - {FILE}:
            raise DataError(
                f"folder {folder} holds {file.name} beside {read[0].name}, with the same columns; it "
                f"may have receipts too, but would not be read. Put both into a folder of their own "
                f"({read[0].name.split('.')[0]}/), or move one of them away."
            )
        unread.append(file.name)
    if unread:
        more = [f"{len(unread) - 5:,} others"] if len(unread) > 5 else []
        names = ", ".join([*unread[:5], *more])
        report.notes.append(f"folder {folder}: beside {read[0].name}, {names} were not read")


DATASET = Dataset(
    name="table",
    source="your own file",
    licence="yours",
    files="one file or folder; or a folder with transactions, items, users",
    columns=", ".join(c.name if c.required else f"[{c.name}]" for c in TRANSACTIONS),
    open=open_table,
)

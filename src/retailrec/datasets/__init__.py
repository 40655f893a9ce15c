"""The formats that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data import RetailData
from retailrec.data.cleaning import LineRule
from retailrec.data.files import columns_of
from retailrec.data.parsing import as_instant
from retailrec.data.paths import mode_of
from retailrec.datasets import (
    complete_journey,
    instacart,
    online_retail,
    sort_of_real,
    ta_feng,
    table,
    x5_retailhero,
)
from retailrec.datasets.base import Dataset, ReadOptions, Tables
from retailrec.datasets.table import column_of, receipts_in
from retailrec.errors import DataError, SettingError
from retailrec.schema import TRANSACTIONS

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        online_retail,
        complete_journey,
        x5_retailhero,
        ta_feng,
        instacart,
        sort_of_real,
        table,
    )
}


def load_dataset(
    name: str,
    path: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
    where: Sequence[str] = (),
    until: str | datetime | None = None,
) -> RetailData:
    """Load the files of a known format; without a path those of an installed package.

    Only receipts before `until` are known, which is then the data's end. Other parameters and errors
    are those of `open_dataset`.

    Raises
    ------
    DataError
        If `until` is no instant, or no receipt lies before it or after it, as with a mistyped year.
    """
    end = None if until is None else as_instant(until, who="until")
    tables = open_dataset(name, path, columns, encoding=encoding, time_format=time_format, where=where)
    if end is None:
        return tables.data()
    later = LineRule(f"at or after {end:%Y-%m-%d %H:%M}", pl.col("time") >= end)
    rules = (*tables.rules, later)
    data = RetailData.from_frames(**vars(replace(tables, rules=rules)), end=end)
    if later.reason not in data.report.rejected:
        raise DataError(
            f"until {end:%Y-%m-%d %H:%M}: no receipt comes later, the last is of "
            f"{data.report.last:%Y-%m-%d %H:%M}. Correct the date, or leave it out."
        )
    return data


def open_dataset(
    name: str,
    path: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
    where: Sequence[str] = (),
) -> Tables:
    """The tables of a known format, whose receipt lines are read when they are asked for.

    `encoding` is that of text files which are not UTF-8; `time_format` says how times are written;
    `where` (``event=transaction``) says which lines of a table are purchases.

    Raises
    ------
    SettingError
        If the name is not known, the format needs a path, or `where` is given for other than a table.
    DataError
        If the files are missing or can't be used.
    """
    if name not in DATASETS:
        raise SettingError(
            f"there is no data set '{name}'; expected one of {', '.join(DATASETS)}. "
            f"For your own file use 'table' with a column mapping."
        )
    dataset = DATASETS[name]
    if path is None and not dataset.packaged:
        packaged = ", ".join(d.name for d in DATASETS.values() if d.packaged)
        raise SettingError(
            f"data set '{name}' needs the path of its files ({dataset.files}); only {packaged} comes "
            f"as a package. Write: retailrec run {name} PATH."
        )
    if where and name != table.DATASET.name:
        raise SettingError(
            f"data set '{name}' knows which of its lines are purchases; --where is for 'table' only. "
            f"Leave it out."
        )
    at = None if path is None else Path(path)
    if at is not None:
        mode_of(at)  # says what is wrong with a path that can't be
    options = ReadOptions(encoding, time_format, tuple(where))
    tables = dataset.open(at, columns or {}, options)
    said = {"columns": dict(columns or {}), **vars(options), "where": list(where)}
    tables.report.reading = reading_of(name, **said)
    return tables


def reading_of(dataset: str, **said: Any) -> dict[str, Any]:
    """How receipts were read, as a model keeps it: the data set's name, and what was said of it."""
    return {"dataset": dataset} | {key: value for key, value in said.items() if value}


def open_alike(
    kept: Mapping[str, Any],
    path: Path,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
    where: Sequence[str] = (),
) -> Tables:
    """Receipts read as those were that a model learnt from, but for what is said here.

    `kept` is the `reading` of the model's report. A file in standard columns is read as such. What was
    mapped and is not there is left out, and the report notes what the file was read by.

    Raises
    ------
    DataError, SettingError
        As `open_dataset`.
    """
    dataset = str(kept.get("dataset", "table"))
    options: dict[str, Any] = {
        "encoding": encoding or kept.get("encoding"),
        "time_format": time_format or kept.get("time_format"),
    }
    mode_of(path)
    there = _columns_of(path, options["encoding"])
    own = {c.name for c in TRANSACTIONS if c.required} <= set(there)
    if dataset != "table" and not (columns or own):
        return open_dataset(dataset, path, **options, where=where)
    columns, where, notes = as_fitted(kept, there, columns or {}, where)
    tables = open_dataset("table", path, columns, **options, where=where)
    tables.report.source = path.name
    tables.report.notes += notes
    return tables


def as_fitted(
    kept: Mapping[str, Any], there: Sequence[str], columns: Mapping[str, str], where: Sequence[str]
) -> tuple[Mapping[str, str], Sequence[str], list[str]]:
    """Columns and conditions by which receipts are read: those said here, else those of a model; notes.

    `kept` is the `reading` of the model's report, `there` the columns of the receipts.

    Examples
    --------
    >>> as_fitted({"columns": {"user_id": "who"}}, ["who", "item_id"], {}, [])
    ({'user_id': 'who'}, [], ['columns are read as when the model was fitted: user_id=who'])
    """
    notes = []
    if not columns:
        columns, _ = still_there(kept.get("columns", {}), there)
        pairs = ",".join(f"{name}={theirs}" for name, theirs in columns.items())
        notes += [f"columns are read as when the model was fitted: {pairs}"] if columns else []
    conditions = list(where) or list(kept.get("where", []))
    if not where and conditions:
        absent = [c for c in conditions if column_of(c, columns) not in there]
        conditions = [c for c in conditions if c not in absent]
        for lines, told in ((conditions, "read"), (absent, "no such column: all lines are read")):
            if lines:
                notes.append(f"as when the model was fitted, --where {' '.join(lines)} ({told})")
    return columns, conditions, notes


def still_there(
    columns: Mapping[str, str], there: Sequence[str]
) -> tuple[dict[str, str], dict[str, str]]:
    """The part of a mapping whose columns a file has, where it has none of the standard name; the rest.

    Examples
    --------
    >>> still_there({"user_id": "who", "time": "day+clock"}, ["who", "day", "clock", "item_id"])
    ({'user_id': 'who', 'time': 'day+clock'}, {})
    """
    held = {
        ours: theirs
        for ours, theirs in columns.items()
        if ours not in there and (theirs in there or set(theirs.split("+")) <= set(there))
    }
    return held, {ours: theirs for ours, theirs in columns.items() if ours not in held}


def _columns_of(path: Path, encoding: str | None) -> list[str]:
    """The columns of receipts; none where the path holds no table but other files."""
    receipts = receipts_in(path)
    try:
        return columns_of(receipts, encoding)
    except DataError:
        return []  # said by whoever reads it

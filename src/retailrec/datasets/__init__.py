"""The formats that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.components import checked
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LineRule, LoadReport
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
from retailrec.datasets.base import PLAIN, Dataset, Reading, Tables
from retailrec.datasets.other_items import likely
from retailrec.datasets.table import column_of, receipts_in, tables_beside
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


@checked
def load_dataset(
    name: str,
    path: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
    where: Sequence[str] = (),
    not_products: Sequence[str] = (),
    changed_ids: ChangedIds | None = None,
    until: str | datetime | None = None,
) -> RetailData:
    """Load the files of a known format; without a path those of an installed package.

    Parameters are those of `Reading`, errors those of `open_dataset` and `load_until`.
    """
    reading = Reading(columns or {}, encoding, time_format, where, not_products, changed_ids)
    return load_until(open_dataset(name, path, reading), until)


def load_until(tables: Tables, until: str | datetime | None) -> RetailData:
    """The data of tables; with `until` only receipts before it are known, which is then the end.

    Raises
    ------
    DataError
        If `until` is no instant, or no receipt lies before it or after it, as with a mistyped year.
    """
    later = None if until is None else later_rule(until)
    if later is None:
        data = RetailData.from_frames(**vars(tables))
    else:
        end, rule = later
        data = RetailData.from_frames(**vars(replace(tables, rules=(*tables.rules, rule))), end=end)
        require_later(end, rule, data.report)
    if data.report.reading.get("dataset") == table.DATASET.name:
        data.report.notes += likely(data)
    return data


def later_rule(until: str | datetime) -> tuple[datetime, LineRule]:
    """An instant, and the rule that leaves out what comes at it or later.

    Raises
    ------
    DataError
        If it is no instant.
    """
    end = as_instant(until, who="until")
    return end, LineRule(f"at or after {end:%Y-%m-%d %H:%M}", pl.col("time") >= end)


def require_later(end: datetime, rule: LineRule, report: LoadReport) -> None:
    """Raise a DataError where `later_rule` left out nothing: the date may be mistyped."""
    if rule.reason not in report.rejected:
        last = "" if report.last is None else f", the last is of {report.last:%Y-%m-%d %H:%M}"
        raise DataError(
            f"until {end:%Y-%m-%d %H:%M}: no receipt comes later{last}. Correct the date, or leave it "
            f"out."
        )


def open_dataset(name: str, path: str | Path | None = None, reading: Reading = PLAIN) -> Tables:
    """The tables of a known format, whose receipt lines are read when they are asked for.

    Raises
    ------
    SettingError
        If the name is not known, the format needs a path, or the reading says of another one than
        `table` what that format knows.
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
    if name != table.DATASET.name:
        own_table = "Use: retailrec run table PATH --columns ..."
        for said, what, option, cure in (
            (reading.columns, "its columns", "--columns", own_table),
            (reading.where, "which of its lines are purchases", "--where", "Leave it out."),
            (reading.not_products, "what is no product", "--not-products", "Leave it out."),
        ):
            if said:
                raise SettingError(
                    f"data set '{name}' knows {what}; {option} is for 'table' only. {cure}"
                )
    at = None if path is None else Path(path)
    if at is not None:
        mode_of(at)  # says what is wrong with a path that can't be
    tables = replace(dataset.open(at, reading), changed_ids=reading.changed_ids)
    tables.report.reading = reading.kept(name)
    return tables


def open_alike(kept: Mapping[str, Any], path: Path, reading: Reading = PLAIN) -> Tables:
    """Receipts read as those were that a model learnt from, but for what `reading` says.

    `kept` is the `reading` of the model's report. A file in standard columns is read as such. What was
    mapped and is not there is left out, and the report notes what the file was read by.

    Raises
    ------
    DataError, SettingError
        As `open_dataset`.
    """
    dataset = str(kept.get("dataset", "table"))
    mode_of(path)
    encoding = reading.encoding or kept.get("encoding")
    there = _columns_of(receipts_in(path), encoding)
    own = {c.name for c in TRANSACTIONS if c.required} <= set(there)
    if dataset != "table" and not (reading.columns or own):
        more = as_fitted(kept, (), reading)[0]
        return open_dataset(dataset, path, replace(more, where=reading.where))
    beside = [c for file in tables_beside(path) if file for c in _columns_of(file, encoding)]
    reading, notes = as_fitted(kept, [*there, *beside], reading)
    tables = open_dataset("table", path, reading)
    tables.report.source = path.name
    tables.report.notes += notes
    return tables


def as_fitted(
    kept: Mapping[str, Any], there: Sequence[str], reading: Reading
) -> tuple[Reading, list[str]]:
    """How receipts are read: as said here, else as those of a model; and notes.

    `kept` is the `reading` of the model's report, `there` the columns of the receipts. Changed ids said
    here come on top of the model's.

    Examples
    --------
    >>> as_fitted({"columns": {"user_id": "who"}}, ["who", "item_id"], Reading())[1]
    ['columns are read as when the model was fitted: user_id=who']
    """
    fitted, notes, columns = Reading.of(kept), [], reading.columns
    items = [] if fitted.catalogue is None else fitted.catalogue.columns
    known = {"where": there, "not_products": [*there, *items]}
    if not columns:
        columns, other = still_there(fitted.columns, there)
        gone = {c.name: other[c.name] for c in TRANSACTIONS if c.name in other and c.name not in there}
        for pairs, what in (
            (columns, "columns are read as when the model was fitted"),
            (gone, "columns of the fit that are not there, so what they say is missing"),
        ):
            shown = ",".join(f"{name}={theirs}" for name, theirs in pairs.items())
            notes += [f"{what}: {shown}"] if pairs else []
    conditions: dict[str, Sequence[str]] = {}
    for name, lacking in (("where", "all lines are read"), ("not_products", "nothing is left out")):
        conditions[name] = getattr(reading, name)
        if conditions[name]:
            continue
        said = getattr(fitted, name)
        absent = [c for c in said if column_of(c, columns) not in known[name]]
        conditions[name] = [c for c in said if c not in absent]
        for some, what in ((conditions[name], "read"), (absent, f"no such column: {lacking}")):
            if some:
                option = name.replace("_", "-")
                notes.append(f"as when the model was fitted, --{option} {' '.join(some)} ({what})")
    changed = fitted.changed_ids
    if changed is not None and reading.changed_ids is not None:
        changed = changed.updated(reading.changed_ids)
    return Reading(
        columns,
        reading.encoding or fitted.encoding,
        reading.time_format or fitted.time_format,
        **conditions,
        changed_ids=changed or reading.changed_ids,
        catalogue=fitted.catalogue,
    ), notes


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
    """The columns of a table; none where the path holds no table but other files."""
    try:
        return columns_of(path, encoding)
    except DataError:
        return []  # said by whoever reads it

"""Receipts of one's own: one file or folder, with a column mapping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import polars as pl

from retailrec.data.cleaning import LineRule, LoadReport, beside
from retailrec.data.columns import check_names, unread_columns
from retailrec.data.files import FILE, columns_of, read_parts, read_table
from retailrec.data.paths import find_file, others_in, without_bytes
from retailrec.datasets.base import PLAIN, Dataset, Reading, Tables
from retailrec.datasets.instacart import on_one_calendar
from retailrec.datasets.other_items import not_products, unmet
from retailrec.errors import DataError, SettingError
from retailrec.schema import CATEGORIES, ITEM_ID, NAME, TRANSACTIONS, USER_ID

_GAP = re.compile(r"days_?since_?(prior|previous|last)(_?order)?")
_WHOLE = r"^([+-]?\d+)\.0+$", r"\1"  # a whole number that a column of fractions holds, and without them
_ORDER_TIME = "retailrec_time"  # column: of orders that have numbers and gaps instead of dates
_DESCRIBING = (NAME, "brand", *CATEGORIES)


def open_table(path: Path, reading: Reading = PLAIN) -> Tables:
    """Receipts from a CSV, Parquet or Excel file, or from a folder of alike files.

    A folder may also hold ``transactions`` beside ``items`` and ``users`` (any of the endings), which
    are then the catalogue and the users' attributes. `columns` may name, beside the receipt columns,
    `name`, `brand` and `category_1` ... `category_4`, which then describe the items, and stand there or
    in the catalogue, whose id column may be called as in the receipts; ``time`` may name
    a date and a clock (``date+clock``), or numbers of orders where there is `days_since_prior_order`.

    Raises
    ------
    SettingError
        If `columns` names something that is not known here.
    """
    check_mapping(reading.columns)
    receipts = receipts_in(path)
    items, users = tables_beside(path)
    encoding = reading.encoding
    report = LoadReport(DATASET.name)
    lines = read_parts(receipts, encoding=encoding, exports=True, spans=report.spans)
    first = next(lines)
    if empty := without_bytes(receipts):
        names = ", ".join(file.name for file in empty[:3])
        report.notes.append(
            f"{len(empty):,} files of {receipts} have no byte and so no line: {names}; the export "
            f"failed, so export again"
        )
    catalogue = None if items is None else read_table(items, encoding=encoding)
    columns, describing = of_lines(reading, first.columns, catalogue)
    if catalogue is not None:
        catalogue = with_our_names(catalogue, reading.columns)
        report.notes += unmet(reading.not_products, catalogue)
    if receipts != path:
        read = [file for file in (receipts, items, users) if file is not None]
        say_others(path, read, first.columns, report, encoding)
    if reading.catalogue is None:  # else the columns are those that a model has learnt from
        report.notes += unread_columns(first, columns, catalogue)
    parts: Iterable[pl.DataFrame] = chain([first], lines)
    if (gap := _gaps(columns, first)) is not None:
        times, columns = _order_times(receipts, columns, gap, first.columns, encoding, report)
        parts = (_with_times(part, times) for part in parts)
    people = None if users is None else read_table(users, encoding=encoding)
    return Tables(
        parts,
        report,
        catalogue,
        None if people is None else with_our_names(people, reading.columns),
        columns=columns,
        rules=rules_of(replace(reading, columns=columns), first.columns, catalogue),
        item_columns=describing,
        time_format=reading.time_format,
    )


def check_mapping(columns: Mapping[str, str]) -> None:
    """Raise a SettingError if a mapping has a standard name that means nothing."""
    check_names(columns, [c.name for c in TRANSACTIONS] + list(_DESCRIBING))


def of_lines(
    reading: Reading, there: Sequence[str], catalogue: pl.DataFrame | None
) -> tuple[dict[str, str], list[str]]:
    """The mapping without what the catalogue alone has, and which columns of the lines describe items.

    `there` are the columns of the lines, `catalogue` is that beside them.

    Examples
    --------
    >>> reading = Reading({"user_id": "who", "category_1": "group", "name": "label"})
    >>> of_lines(reading, ["who", "item_id", "time", "group"], pl.DataFrame({"label": ["tea"]}))
    ({'user_id': 'who', 'category_1': 'group'}, ['category_1'])
    """
    known = reading.catalogue if catalogue is None else catalogue
    columns = dict(reading.columns)
    for name in _DESCRIBING:
        theirs = columns.get(name, name)
        if known is not None and theirs not in there and {name, theirs} & set(known.columns):
            columns.pop(name, None)
    return columns, [c for c in _DESCRIBING if c in columns or (c in there and catalogue is None)]


def with_our_names(table: pl.DataFrame, columns: Mapping[str, str]) -> pl.DataFrame:
    """A table of items or users whose columns are called as `columns` says, by the standard names.

    Examples
    --------
    >>> columns = {"user_id": "Kunde", "time": "Tag", "name": "Ware"}
    >>> with_our_names(pl.DataFrame({"Kunde": [1], "Tag": [2]}), columns).columns
    ['user_id', 'Tag']
    """
    ours = {
        theirs: name
        for name, theirs in columns.items()
        if name in (USER_ID, ITEM_ID, *_DESCRIBING) and name not in table.columns
    }
    return table.rename(ours, strict=False)


_RECEIPTS = ("transactions", "receipts", "purchases")
_ITEMS = ("items", "products", "catalogue", "catalog")
_USERS = ("users", "shoppers", "clients", "customers")
TABLES = frozenset({*_RECEIPTS, *_ITEMS, *_USERS})  # names of files that say what is in them


def receipts_in(path: Path) -> Path:
    """The receipts of a folder that holds `transactions` beside other tables, or the path itself."""
    return find_file(path, *_RECEIPTS) or path


def tables_beside(path: Path) -> tuple[Path | None, Path | None]:
    """The tables of items and of users that lie in a folder beside its receipts; None where none is."""
    if receipts_in(path) == path:
        return None, None
    return find_file(path, *_ITEMS), find_file(path, *_USERS)


def rules_of(
    reading: Reading, there: Sequence[str], items: pl.DataFrame | None = None
) -> tuple[LineRule, ...]:
    """Rules by which `reading` leaves lines out: no purchase, no product; `there` are their columns.

    Raises
    ------
    SettingError, DataError
        As `where_rules` and `not_products`.
    """
    items = reading.catalogue if items is None else items
    return (
        *where_rules(reading.where, reading.columns, there),
        *not_products(reading.not_products, items, there, reading.columns, reading.changed_ids),
    )


def where_rules(
    where: Sequence[str], columns: Mapping[str, str], there: Sequence[str]
) -> tuple[LineRule, ...]:
    """Rules that leave the lines where a column has one of some values: ``["event=transaction"]``.

    Several values of one column are alternatives, conditions on several columns hold together; none of
    the values that ``user_id!=0`` names is left.

    Raises
    ------
    SettingError
        If a condition is not of that form.
    DataError
        If there is no such column.
    """
    by_column: dict[tuple[str, bool], list[str]] = {}
    for condition in where:
        name, equals, value = condition.partition("=")
        if not (equals and name.rstrip("! ")):
            raise SettingError(
                f"--where is {condition!r}; expected column=value or column!=value, as "
                f"event=transaction."
            )
        name, other = column_of(condition, columns), name.endswith("!")
        if name not in there:
            raise DataError(f"--where {condition}: there is no column '{name}'; there are {[*there]}.")
        by_column.setdefault((name, other), []).append(re.sub(*_WHOLE, value.strip()))
    ours = {theirs: name for name, theirs in columns.items()}
    rules = []
    for (name, other), values in by_column.items():
        cells = pl.col(ours.get(name, beside(name))).cast(pl.String).str.strip_chars()
        has = cells.str.replace(_WHOLE[0], "$1").is_in(values).fill_null(False)
        reason = f"{'' if other else 'not '}{name}={' or '.join(values)}"
        unmet = f"no line is left out by {reason}, as --where says: is it written so?" if other else ""
        rules.append(LineRule(reason, has if other else ~has, "no purchase, as --where says", unmet))
    return tuple(rules)


def column_of(condition: str, columns: Mapping[str, str]) -> str:
    """The caller's column that a condition is about, which may be named by its standard name.

    Examples
    --------
    >>> column_of("store=5", {"store": "branch"}), column_of("event = order", {})
    ('branch', 'event')
    >>> column_of("store != 5", {"store": "branch"})
    'branch'
    """
    name = condition.partition("=")[0].rstrip("! ").strip()
    return columns.get(name, name)


def _gaps(columns: Mapping[str, str], first: pl.DataFrame) -> str | None:
    """The column of days since the order before, where `time` is mapped to numbers of orders."""
    time = first.schema.get(columns.get("time", ""))
    if time is None or not time.is_integer():
        return None
    return next((c for c in first.columns if _GAP.fullmatch(c.lower())), None)


def _order_times(
    receipts: Path,
    columns: dict[str, str],
    gap: str,
    there: Sequence[str],
    encoding: str | None,
    report: LoadReport,
) -> tuple[pl.DataFrame, dict[str, str]]:
    """A time for each user's order, by the gaps between them; and the mapping, `_ORDER_TIME` in it."""
    user, order = columns.get("user_id", "user_id"), columns["time"]
    if user not in there:
        return pl.DataFrame(), columns  # said with all that is missing
    needed = [user, order, gap, "order_dow", "order_hour_of_day"]
    raw = read_table(receipts, columns=needed, encoding=encoding)
    orders = raw.unique([user, order], keep="first").rename({user: "user_id", order: "order_number"})
    days = orders[gap].alias("days_since_prior_order")
    clocks = [pl.lit(0).alias(c) for c in ("order_dow", "order_hour_of_day") if c not in orders.columns]
    orders = orders.with_columns(days, *clocks).with_row_index("order_id")
    timed = on_one_calendar(orders).join(orders.select("order_id", "order_number"), on="order_id")
    report.notes.append(
        "no dates: each user's last order stands in the last week, others as far before it as "
        f"'{gap}' says"
    )
    basket = {} if "basket_id" in (*columns, *there) else {"basket_id": order}
    times = timed.select(pl.col("user_id").alias(user), pl.col("order_number").alias(order), "time")
    return times.rename({"time": _ORDER_TIME}), {**columns, **basket, "time": _ORDER_TIME}


def _with_times(part: pl.DataFrame, times: pl.DataFrame) -> pl.DataFrame:
    if times.is_empty():
        return part
    return part.join(
        times, on=[c for c in times.columns if c != _ORDER_TIME], how="left", maintain_order="left"
    )


def say_others(
    folder: Path, read: list[Path], columns: Sequence[str], report: LoadReport, encoding: str | None
) -> None:
    """Note what stands beside the tables of a folder and is not read.

    Raises
    ------
    DataError
        If it has the columns of the receipts, and so may be some too.
    """
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

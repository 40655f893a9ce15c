"""Instacart 2017: orders of an American grocery delivery, with gaps instead of dates."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_table
from retailrec.data.parsing import parse_number
from retailrec.data.paths import find_file
from retailrec.datasets import base
from retailrec.errors import DataError
from retailrec.schema import CATEGORIES

_LINES = ("order_products__prior", "order_products__train")
_ORDERS = ["order_id", "user_id", "order_number", "order_dow", "order_hour_of_day"]
_GAP = "days_since_prior_order"
_FIRST_DAY = datetime(2000, 1, 1)  # a Saturday, which is day 0 of a week here
_LONGEST_GAP = 30  # longer ones are written so


def open_instacart(path: Path, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Orders, their products and the catalogue from the folder of the published files.

    There is no calendar, so `on_one_calendar` makes one. Prior and train orders are read where their
    lines are; those of the contest's test have none. Categories are department and aisle.

    Raises
    ------
    DataError
        If a file or column is missing, or a user's orders are not numbered one by one.
    """
    if not path.is_dir():
        if not path.exists():
            raise DataError(f"there is no file or folder at {path}; check the path.")
        raise DataError(
            f"{path} is no folder; data set '{DATASET.name}' needs the folder with {DATASET.files}."
        )
    files = {name: file for name in _LINES if (file := find_file(path, name)) is not None}
    if not files:
        raise DataError(f"{path} holds no {_LINES[0]}.csv; put the published files there.")
    orders = _table(path, "orders", [*_ORDERS, "eval_set", _GAP], reading)
    orders = orders.filter(pl.col("eval_set").is_in([name.split("__")[1] for name in files]))
    report = LoadReport(DATASET.name)
    report.notes.append(
        f"no dates: each user's last order stands in the last week, on its weekday and hour, others as "
        f"far before it as the gaps say; a gap of {_LONGEST_GAP} days may have been longer"
    )
    times = on_one_calendar(orders).rename({"order_id": "basket_id"})
    lines = _lines(list(files.values()), times, reading, report)
    return base.Tables(lines, report, _products(path, reading))


def on_one_calendar(orders: pl.DataFrame) -> pl.DataFrame:
    """`order_id`, `user_id` and a made-up `time` of each order, true to gaps, weekdays and hours.

    A user's clock runs by `days_since_prior_order`. All clocks are set so that last orders fall into
    one week, each on its own weekday; so what is recent for one user is recent for all, and the week
    that comes is the next of each. Gaps are capped at 30 days in the published files, so weekdays of
    orders before such a gap may be off.

    Raises
    ------
    DataError
        If a user's orders are not numbered one by one, or a number can't be read.

    Examples
    --------
    >>> orders = pl.DataFrame({
    ...     "order_id": [10, 11, 20], "user_id": [1, 1, 2], "order_number": [1, 2, 1],
    ...     "order_dow": [6, 1, 3], "order_hour_of_day": [9, 17, 8],
    ...     "days_since_prior_order": [None, 9.0, None],
    ... })
    >>> on_one_calendar(orders)["time"].dt.to_string("%d %H h").to_list()
    ['07 09 h', '16 17 h', '18 08 h']
    """
    for name in ("order_number", "order_dow", "order_hour_of_day", _GAP):
        number = parse_number(orders[name], who="the orders")
        if len(odd := orders[name].filter(number.is_nan())):
            raise DataError(
                f"column '{name}' of the orders holds {odd[0]!r}, which is no number, in {len(odd):,} "
                f"rows; days can't be added up. Correct the cells."
            )
        orders = orders.with_columns(number if name == _GAP else number.cast(pl.Int64))
    orders = orders.sort("user_id", "order_number")
    expected = pl.int_range(pl.len()).over("user_id") + pl.col("order_number").first().over("user_id")
    wrong = orders.filter(pl.col("order_number").ne_missing(expected))
    if wrong.height:
        raise DataError(
            f"orders of user {wrong['user_id'][0]!r} are not numbered one by one (order_number "
            f"{wrong['order_number'][0]}); gaps can't be added up. Bring whole histories."
        )
    gap = (
        pl.when(pl.int_range(pl.len()).over("user_id") > 0).then(pl.col(_GAP).fill_null(0)).otherwise(0)
    )
    since_first = gap.cum_sum().over("user_id")
    before_last = since_first.last().over("user_id") - since_first
    orders = orders.with_columns(before_last=before_last.round().cast(pl.Int64))
    longest = orders["before_last"].max()
    last_week = -(-(longest if isinstance(longest, int) else 0) // 7) * 7
    day = last_week + pl.col("order_dow").last().over("user_id") - pl.col("before_last")
    time = pl.lit(_FIRST_DAY) + pl.duration(days=day, hours=pl.col("order_hour_of_day"))
    return orders.select("order_id", "user_id", time=time)


def _lines(
    files: list[Path], times: pl.DataFrame, reading: base.Reading, report: LoadReport
) -> Iterator[pl.DataFrame]:
    """Lines with their order's user and time; those of orders that are not there have no user."""
    for part in base.parts_of_files(files, reading, report, ["order_id", "product_id"]):
        lines = base.standard(part, {}, ["order_id", "product_id"], str(files[0].parent))
        lines = lines.rename({"order_id": "basket_id", "product_id": "item_id"})
        lines, dated = base.of_one_type(lines, times, ["basket_id"])
        yield lines.join(dated, on="basket_id", how="left", maintain_order="left")


def _table(folder: Path, name: str, needed: list[str], reading: base.Reading) -> pl.DataFrame:
    """One of the published tables."""
    file = base.find_one_of(folder, name, what=name)
    table = read_table(file, columns=needed, encoding=reading.encoding)
    return base.standard(table, {}, needed, str(file))


def _products(folder: Path, reading: base.Reading) -> pl.DataFrame | None:
    if find_file(folder, "products") is None:
        return None
    table = _table(
        folder, "products", ["product_id", "product_name", "aisle_id", "department_id"], reading
    )
    for level, name in zip(CATEGORIES, ("department", "aisle"), strict=False):
        key = f"{name}_id"
        if find_file(folder, f"{name}s") is None:  # numbers tell them apart as well
            table = table.rename({key: level})
            continue
        names = _table(folder, f"{name}s", [key, name], reading).rename({name: level})
        table, names = base.of_one_type(table, names, [key])
        table = table.join(names, on=key, how="left", maintain_order="left").drop(key)
    return table.rename({"product_id": "item_id", "product_name": "name"})


DATASET = base.Dataset(
    name="instacart",
    source="The Instacart Online Grocery Shopping Dataset 2017",
    licence="non-commercial",
    files="orders, order_products__prior, products, aisles, departments",
    columns="order_id, user_id, order_number, order_dow, order_hour_of_day, days_since_prior_order, "
    "product_id, product_name, aisle, department",
    open=open_instacart,
)

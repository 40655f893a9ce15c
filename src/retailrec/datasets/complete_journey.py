"""Dunnhumby Complete Journey: two years of a grocer's households."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import polars as pl

from retailrec.data import RetailData
from retailrec.data.cleaning import LoadReport, Rule
from retailrec.data.files import find_file, read_parts, read_table
from retailrec.data.timeformats import DAY_ONE
from retailrec.datasets.base import (
    NO_OPTIONS,
    Dataset,
    ReadOptions,
    find_one_of,
    lower_columns,
    refuse_mapping,
    require,
)
from retailrec.schema import CATEGORIES

_NAMES = {
    "household_key": "user_id",
    "product_id": "item_id",
    "sales_value": "value",
    "store_id": "store",
    "retail_disc": "discount",
}
_COLUMNS = ["user_id", "basket_id", "day", "item_id", "quantity", "value", "trans_time"]
_IDS = ["user_id", "item_id", "basket_id", "day", "trans_time"]
# Departments that ring up money, not goods: fuel, coupons, till corrections.
_NOT_GOODS = ("KIOSK-GAS", "COUP/STR & MFG", "MISC SALES TRAN", "MISC. TRANS.", "CHARITABLE CONT")
_RECEIPTS = ("transaction_data", "retail_train", "retail_test1", "retail_test", "transactions")


def load(
    path: Path, columns: Mapping[str, str] | None = None, options: ReadOptions = NO_OPTIONS
) -> RetailData:
    """Receipts, products and household attributes from the published or the course's files.

    Day 1 stands for 2000-01-01, and `TRANS_TIME` gives the minute. Where the course's
    ``retail_train`` and ``retail_test1`` stand side by side, both are read; lines of the second whose
    receipt the first already has are rejected. Fuel, coupons and till corrections are no products.
    """
    refuse_mapping(columns or {}, DATASET.name)
    product = find_file(path, "product", "product_features", "products")
    household = find_file(path, "hh_demographic", "households")
    return _build(
        [
            read_parts(
                file, columns=[*_NAMES, *_COLUMNS, "store", "discount"], encoding=options.encoding
            )
            for file in _files(path)
        ],
        None if product is None else read_table(product, encoding=options.encoding),
        None if household is None else read_table(household, encoding=options.encoding),
        DATASET.name,
    )


def from_tables(
    receipts: pl.DataFrame, products: pl.DataFrame, households: pl.DataFrame, source: str
) -> RetailData:
    """The same from frames in memory."""
    return _build([[receipts]], products, households, source)


def _build(
    receipts: list[Iterable[pl.DataFrame]], products: pl.DataFrame | None,
    households: pl.DataFrame | None, source: str,
) -> RetailData:  # fmt: skip
    rules = [Rule("receipt also in an earlier file", pl.col("overlapping"))]
    items = None if products is None else _products(products)
    if items is not None:
        other = items.filter(pl.col("category_1").is_in(_NOT_GOODS))["item_id"]
        rules.append(Rule("not a product", pl.col("item_id").is_in(other.to_list())))
    return RetailData.from_frames(
        _receipts(receipts), items, None if households is None else _households(households),
        rules=rules, report=LoadReport(source),
    )  # fmt: skip


def _files(path: Path) -> list[Path]:
    """One table, or the course's two; a folder of parts counts as one."""
    train, test = find_file(path, "retail_train"), find_file(path, "retail_test1", "retail_test")
    if train and test:
        return [train, test]
    if (path / "transaction_data").is_dir():
        return [path / "transaction_data"]
    return [find_one_of(path, *_RECEIPTS, what="receipts")]


def _receipts(tables: list[Iterable[pl.DataFrame]]) -> Iterator[pl.DataFrame]:
    """Parts of all tables in standard columns; `overlapping`: an earlier table has the receipt."""
    receipt = ["user_id", "basket_id"]
    earlier = pl.DataFrame(schema=dict.fromkeys(receipt, pl.Int64))
    for number, table in enumerate(tables, 1):
        seen = [earlier]
        for part in table:
            lines = _standard(part)
            known = lines.select(receipt).join(
                earlier.with_columns(known=True), on=receipt, how="left", maintain_order="left"
            )["known"]  # fmt: skip
            if number < len(tables):
                seen.append(lines.select(receipt).unique())
            yield lines.with_columns(overlapping=known.fill_null(False))
        earlier = pl.concat(seen).unique()


def _standard(table: pl.DataFrame) -> pl.DataFrame:
    table = lower_columns(table)
    table = table.rename({c: n for c, n in _NAMES.items() if c in table.columns})
    require(table, _COLUMNS, "receipts")
    columns = [pl.col(_IDS).cast(pl.Int64, strict=False)]
    columns += [pl.col(c) for c in ("quantity", "value", "discount") if c in table.columns]
    if "store" in table.columns:
        columns.append(pl.col("store").cast(pl.String))
    hour, minute = pl.col("trans_time") // 100, pl.col("trans_time") % 100
    clock = pl.when((hour < 24) & (minute < 60)).then(hour * 60 + minute).otherwise(0)
    day_one = pl.lit(DAY_ONE).cast(pl.Datetime("us"))
    time = day_one + pl.duration(days=pl.col("day") - 1, minutes=clock)
    return table.select(columns).with_columns(time=time).drop("day", "trans_time")


def _products(table: pl.DataFrame) -> pl.DataFrame:
    table = lower_columns(table)
    needed = ["product_id", "department", "commodity_desc", "sub_commodity_desc", "brand"]
    require(table, needed, "product file")
    text = [pl.col(c).cast(pl.String).str.strip_chars() for c in table.columns if c != "product_id"]
    table = table.with_columns(pl.col("product_id").cast(pl.Int64), *text).rename(
        {
            "product_id": "item_id",
            "department": CATEGORIES[0],
            "commodity_desc": CATEGORIES[1],
            "sub_commodity_desc": CATEGORIES[2],
            "curr_size_of_product": "size",
            "product_name": "name",
        },
        strict=False,
    )
    if "name" in table.columns:
        return table
    name = [c for c in (CATEGORIES[2], "size") if c in table.columns]
    return table.with_columns(name=pl.concat_str(name, separator=" ", ignore_nulls=True))


def _households(table: pl.DataFrame) -> pl.DataFrame:
    table = lower_columns(table)
    key = "household_key" if "household_key" in table.columns else "user_id"
    require(table, [key], "household file")
    return table.rename({key: "user_id"}).with_columns(pl.col("user_id").cast(pl.Int64))


DATASET = Dataset(
    name="complete-journey",
    source="dunnhumby Source Files, The Complete Journey (and the course files made from it)",
    licence="dunnhumby's terms",
    files="transaction_data | retail_train (+ retail_test1), product, hh_demographic",
    columns="household_key, BASKET_ID, DAY, PRODUCT_ID, QUANTITY, SALES_VALUE, STORE_ID, "
    "RETAIL_DISC, TRANS_TIME, ... or user_id, item_id, ... in lower case",
    load=load,
)

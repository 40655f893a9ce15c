"""Dunnhumby Complete Journey: two years of a grocer's households."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from retailrec.cleaning import LINE, LoadReport, Rule
from retailrec.columns import CATEGORIES
from retailrec.data import RetailData
from retailrec.datasets.base import Dataset, lower_columns, read_one_of, refuse_mapping, require
from retailrec.tables import find_file, read_table

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


def load(path: Path, columns: Mapping[str, str] | None = None) -> RetailData:
    """Receipts, products and household attributes from the published or the course's files.

    Day 1 stands for 2000-01-01, and `TRANS_TIME` gives the minute. Where the course's
    ``retail_train`` and ``retail_test1`` stand side by side, both are read; lines of the second whose
    receipt the first already has are rejected. Fuel, coupons and till corrections are no products.
    """
    refuse_mapping(columns or {}, DATASET.name)
    lines = _read_receipts(path)
    products = _read_products(path)
    rules = [Rule("receipt also in an earlier file", pl.col("overlapping"))]
    if products is not None:
        other = products.filter(pl.col("category_1").is_in(_NOT_GOODS))["item_id"]
        rules.append(Rule("not a product", pl.col("item_id").is_in(other.to_list())))
    return RetailData.from_frames(
        lines, products, _read_households(path), rules=rules, report=LoadReport(DATASET.name)
    )


def _read_receipts(path: Path) -> pl.DataFrame:
    train, test = find_file(path, "retail_train"), find_file(path, "retail_test1", "retail_test")
    if train and test:
        tables = [read_table(train), read_table(test)]
    else:
        tables = [read_one_of(path, *_RECEIPTS, what="receipts")]
    parts = []
    for number, table in enumerate(tables):
        table = lower_columns(table)
        table = table.rename({c: n for c, n in _NAMES.items() if c in table.columns})
        require(table, _COLUMNS, f"receipts in {path}")
        parts.append(
            table.select(
                pl.col(_IDS).cast(pl.Int64, strict=False),
                pl.col("quantity", "value").cast(pl.Float64, strict=False),
                *(
                    [pl.col("discount").cast(pl.Float64, strict=False)]
                    if "discount" in table.columns
                    else []
                ),
                *([pl.col("store").cast(pl.String)] if "store" in table.columns else []),
                file=pl.lit(number),
            )
        )
    hour, minute = pl.col("trans_time") // 100, pl.col("trans_time") % 100
    clock = pl.when((hour < 24) & (minute < 60)).then(hour * 60 + minute).otherwise(0)
    return (
        pl.concat(parts)
        .with_row_index(LINE)
        .with_columns(
            time=pl.lit(pl.Series([0]).cast(pl.Datetime("us"))[0])
            + pl.duration(days=pl.col("day") + 10_956, minutes=clock),
            overlapping=pl.col("file") > pl.col("file").min().over("user_id", "basket_id"),
        )
        .drop("file", "day", "trans_time")
    )


def _read_products(path: Path) -> pl.DataFrame | None:
    file = find_file(path, "product", "product_features", "products")
    if file is None:
        return None
    table = lower_columns(read_table(file))
    require(
        table,
        ["product_id", "department", "commodity_desc", "sub_commodity_desc", "brand"],
        str(file),
    )
    text = [pl.col(c).cast(pl.String).str.strip_chars() for c in table.columns if c != "product_id"]
    table = table.with_columns(pl.col("product_id").cast(pl.Int64), *text).rename(
        {
            "product_id": "item_id",
            "department": CATEGORIES[0],
            "commodity_desc": CATEGORIES[1],
            "sub_commodity_desc": CATEGORIES[2],
            "curr_size_of_product": "size",
        },
        strict=False,
    )
    if "product_name" in table.columns:
        return table.rename({"product_name": "name"})
    name = [c for c in (CATEGORIES[2], "size") if c in table.columns]
    return table.with_columns(name=pl.concat_str(name, separator=" ", ignore_nulls=True))


def _read_households(path: Path) -> pl.DataFrame | None:
    file = find_file(path, "hh_demographic", "households")
    if file is None:
        return None
    table = lower_columns(read_table(file))
    key = "household_key" if "household_key" in table.columns else "user_id"
    require(table, [key], str(file))
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

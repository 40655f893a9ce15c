"""Ta-Feng: four months of a Taiwanese grocer (2000-11 to 2001-02)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import stack
from retailrec.datasets import base
from retailrec.schema import CATEGORIES

_FILES = ("ta_feng_all_months_merged", "ta_feng", "baskets")


def open_ta_feng(path: Path, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Receipts from the published CSV, or from the next-basket Parquet (order numbers for days)."""
    file = base.find_one_of(path, *_FILES, what="receipts")
    report = LoadReport(DATASET.name)
    table = base.standard(stack(list(base.parts_of_files([file], reading, report))), {}, (), "")
    if "order_number" in table.columns:
        return _next_basket(table, report)
    needed = ["transaction_dt", "customer_id", "age_group", "product_subclass", "product_id"]
    base.require(table, [*needed, "amount", "sales_price"], "receipts")
    lines = table.select(
        user_id=pl.col("customer_id").cast(pl.String).str.strip_chars(),
        item_id=pl.col("product_id").cast(pl.String).str.strip_chars(),
        time="transaction_dt",
        quantity="amount",
        value="sales_price",
        age_group=pl.col("age_group").cast(pl.String).str.strip_chars(),
        **{CATEGORIES[0]: pl.col("product_subclass").cast(pl.String).str.strip_chars()},
    )
    return base.Tables(
        iter([lines]),
        report,
        item_columns=[CATEGORIES[0]],
        user_columns=["age_group"],
        time_format=reading.time_format,
    )


def _next_basket(table: pl.DataFrame, report: LoadReport) -> base.Tables:
    base.require(table, ["user_id", "item_id", "order_number"], "next-basket file")
    lines = table.select("user_id", "item_id", time="order_number")
    report.notes.append("no dates: a shopper's n-th order stands on day n (day 1 = 2000-01-01)")
    return base.Tables(iter([lines]), report)


DATASET = base.Dataset(
    name="ta-feng",
    source="ACM RecSys / Kaggle copies of Ta-Feng; the next-basket file of Li et al., TOIS 2023",
    licence="research use",
    files="ta_feng_all_months_merged.csv, or baskets.parquet",
    columns="TRANSACTION_DT, CUSTOMER_ID, AGE_GROUP, PRODUCT_SUBCLASS, PRODUCT_ID, AMOUNT, "
    "SALES_PRICE; or user_id, order_number, item_id",
    open=open_ta_feng,
)

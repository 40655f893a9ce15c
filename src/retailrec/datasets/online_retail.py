"""UCI Online Retail and Online Retail II: the receipts of a British gift shop and wholesaler."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retailrec.data.cleaning import RETURN, LineRule, LoadReport
from retailrec.data.files import FILE
from retailrec.data.paths import data_files
from retailrec.datasets import base

_NAMES = {
    "invoice": "basket_id",
    "invoiceno": "basket_id",
    "stockcode": "item_id",
    "description": "name",
    "quantity": "quantity",
    "invoicedate": "time",
    "price": "price",
    "unitprice": "price",
    "customer_id": "user_id",
    "customerid": "user_id",
    "country": "country",
}
# Five digits and at most two letters are a product; POST, M, D, DOT, ADJUST, BANK CHARGES are not.
_PRODUCT = r"^\d{5}[A-Z]{0,2}$"


def open_online_retail(path: Path, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Receipts from the xlsx, CSV or Parquet sheets; a folder's sheets are read in order of name.

    Rejected: lines without a customer, cancellations, returns, zero prices and codes that are no
    product. Receipts that stand in two sheets (those of the first nine days of December 2010) count
    once. An item's name is the first one it was sold under, which later
    lines can't change. Shoppers carry their first `country`.
    """
    rules = (
        LineRule(RETURN, pl.col("basket_id").str.starts_with("C")),
        LineRule("not a product", ~pl.col("item_id").str.contains(_PRODUCT)),
    )
    report = LoadReport(DATASET.name)
    return base.Tables(
        (_standard(part, path) for part in base.parts_of_files(data_files(path), reading, report)),
        report,
        rules=rules,
        item_columns=["name"],
        user_columns=["country"],
        time_format=reading.time_format,
    )


def _standard(part: pl.DataFrame, file: Path) -> pl.DataFrame:
    names = list(dict.fromkeys(_NAMES.values()))
    frame = base.standard(part, _NAMES, names, str(file))
    return frame.select(*names, *(c for c in (FILE,) if c in frame.columns)).with_columns(
        pl.col("basket_id").cast(pl.String),
        pl.col("item_id").cast(pl.String).str.strip_chars().str.to_uppercase(),
    )


DATASET = base.Dataset(
    name="online-retail",
    source="UCI Machine Learning Repository, Online Retail (352) and Online Retail II (502)",
    licence="CC BY 4.0",
    files="the workbook, or its sheets as CSV or Parquet, one file or a folder",
    columns="Invoice, StockCode, Description, Quantity, InvoiceDate, Price, Customer ID, Country",
    open=open_online_retail,
)

"""UCI Online Retail and Online Retail II: the receipts of a British gift shop and wholesaler."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from retailrec.data import RetailData
from retailrec.data.cleaning import LineRule, LoadReport
from retailrec.data.files import read_parts
from retailrec.data.paths import data_files
from retailrec.datasets.base import (
    NO_OPTIONS,
    Dataset,
    ReadOptions,
    lower_columns,
    refuse_mapping,
    require,
)

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


def load(
    path: Path, columns: Mapping[str, str] | None = None, options: ReadOptions = NO_OPTIONS
) -> RetailData:
    """Receipts from the xlsx, CSV or Parquet sheets; a folder's sheets are read in order of name.

    Rejected: lines without a customer, cancellations, returns, zero prices, codes that are no
    product, exact double lines, and receipts that an earlier sheet already has (the first nine days
    of December 2010 stand in both). An item's name is the first one it was sold under, which later
    lines can't change. Shoppers carry their first `country`.
    """
    refuse_mapping(columns or {}, DATASET.name)
    rules = (
        LineRule("receipt also in an earlier file", pl.col("overlapping")),
        LineRule("return or cancellation", pl.col("basket_id").str.starts_with("C")),
        LineRule("not a product", ~pl.col("item_id").str.contains(_PRODUCT)),
    )
    return RetailData.from_frames(
        _lines(data_files(path), options),
        rules=rules,
        report=LoadReport(DATASET.name),
        item_columns=["name"],
        user_columns=["country"],
        time_format=options.time_format,
    )


def _lines(sheets: list[Path], options: ReadOptions) -> Iterator[pl.DataFrame]:
    """Parts of all sheets in standard columns; `overlapping`: an earlier sheet has the receipt."""
    earlier = pl.Series("basket_id", [], pl.String)
    for sheet in sheets:
        seen = [earlier]
        for part in read_parts(sheet, encoding=options.encoding):
            frame = _standard(part, sheet)
            seen.append(frame["basket_id"].unique())
            yield frame.with_columns(overlapping=pl.col("basket_id").is_in(earlier.implode()))
        earlier = pl.concat(seen).unique()


def _standard(part: pl.DataFrame, file: Path) -> pl.DataFrame:
    frame = lower_columns(part)
    frame = frame.rename({c: _NAMES[c] for c in frame.columns if c in _NAMES})
    wanted = list(dict.fromkeys(_NAMES.values()))
    require(frame, wanted, str(file))
    return frame.select(wanted).with_columns(
        pl.col("basket_id").cast(pl.String),
        pl.col("item_id").cast(pl.String).str.strip_chars().str.to_uppercase(),
    )


DATASET = Dataset(
    name="online-retail",
    source="UCI Machine Learning Repository, Online Retail (352) and Online Retail II (502)",
    licence="CC BY 4.0",
    files="the workbook, or its sheets as CSV or Parquet, one file or a folder",
    columns="Invoice, StockCode, Description, Quantity, InvoiceDate, Price, Customer ID, Country",
    load=load,
)

"""X5 RetailHero: receipts of 400,000 clients of a Russian grocer (2018-11 to 2019-03)."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import read_table
from retailrec.data.parsing import parse_number
from retailrec.data.paths import find_file
from retailrec.datasets import base
from retailrec.schema import CATEGORIES

_NAMES = {
    "client_id": "user_id",
    "transaction_id": "basket_id",
    "tx_idx": "basket_id",
    "transaction_datetime": "time",
    "datetime": "time",
    "product_id": "item_id",
    "product_quantity": "quantity",
    "trn_sum_from_iss": "value",
    "store_id": "store",
}
_AGES = (14, 99)  # others are nonsense (-7000, 1900) and become missing


def open_x5_retailhero(path: Path, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Receipts, products and clients from the published files (CSV or Parquet).

    A line's value is `trn_sum_from_iss`. A missing quantity is an item sold by weight or by the
    piece without a count, and is taken as 1. Ages outside 14 to 99 become missing.
    """
    file = base.find_one_of(path, "purchases", "purchases_100_clients", what="receipts")
    report = LoadReport(DATASET.name)
    lines = (
        _standard(part, file) for part in base.parts_of_files([file], reading, report, list(_NAMES))
    )
    folder = path.parent if path.is_file() else path
    return base.Tables(
        lines,
        report,
        _products(folder, reading),
        _clients(folder, reading),
        time_format=reading.time_format,
    )


def _standard(lines: pl.DataFrame, file: Path) -> pl.DataFrame:
    needed = ["user_id", "basket_id", "time", "item_id", "quantity"]
    lines = base.standard(lines, _NAMES, needed, str(file))
    if lines.schema.get("value") == pl.Null:  # the contest's sample has none
        lines = lines.drop("value")
    number = parse_number(lines["quantity"], who="receipts")
    lines, quantity = lines.with_columns(number), pl.col("quantity")
    return lines.with_columns(
        pl.col("user_id", "item_id").cast(pl.String),
        pl.when(quantity.is_null() | (quantity == 0)).then(1.0).otherwise(quantity).alias("quantity"),
    )


def _products(folder: Path, reading: base.Reading) -> pl.DataFrame | None:
    file = find_file(folder, "products")
    if file is None:
        return None
    table = base.standard(
        read_table(file, encoding=reading.encoding), {}, ["product_id", "level_1"], str(file)
    )
    levels = {f"level_{i}": CATEGORIES[i - 1] for i in (1, 2, 3, 4)}
    return table.rename({"product_id": "item_id", "brand_id": "brand", **levels}, strict=False)


def _clients(folder: Path, reading: base.Reading) -> pl.DataFrame | None:
    file = find_file(folder, "clients")
    if file is None:
        return None
    table = base.standard(read_table(file, encoding=reading.encoding), {}, ["client_id"], str(file))
    if "age" in table.columns:
        age = pl.col("age").cast(pl.Int64, strict=False)
        table = table.with_columns(pl.when(age.is_between(*_AGES)).then(age).alias("age"))
    names = [c for c in ("client_id", "age", "gender") if c in table.columns]
    return table.select(names).rename({"client_id": "user_id"})


DATASET = base.Dataset(
    name="x5-retailhero",
    source="X5 RetailHero contest, recommender track",
    licence="contest terms",
    files="purchases, products, clients",
    columns="client_id, transaction_id, transaction_datetime, store_id, product_id, "
    "product_quantity, trn_sum_from_iss",
    open=open_x5_retailhero,
)

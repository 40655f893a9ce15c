"""Let's Get Sort-of-Real: weekly files of a made-up British grocer, published by dunnhumby."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from retailrec.data.cleaning import LoadReport
from retailrec.data.files import FILE
from retailrec.data.paths import data_files
from retailrec.datasets import base
from retailrec.errors import DataError
from retailrec.schema import CATEGORIES

_NAMES = {
    "cust_code": "user_id",
    "prod_code": "item_id",
    "basket_id": "basket_id",
    "quantity": "quantity",
    "spend": "value",
    "store_code": "store",
    "cust_price_sensitivity": "price_sensitivity",
    "seg_1": "price_sensitivity",  # the same in another release
    "cust_lifestage": "lifestage",
    "seg_2": "lifestage",
    "prod_code_40": CATEGORIES[0],
    "prod_code_30": CATEGORIES[1],
    "prod_code_20": CATEGORIES[2],
    "prod_code_10": CATEGORIES[3],
}
_NEEDED = ["cust_code", "prod_code", "basket_id", "shop_date", "shop_hour"]


def open_sort_of_real(path: Path, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Receipts from one weekly file or a folder of them; lines without a customer are rejected.

    A line's value is SPEND. Categories are PROD_CODE_40 (the broadest) to PROD_CODE_10. The calendar
    `time.csv` beside the weekly files is not needed.
    """
    files = [path] if path.is_file() else _weeks(path)
    report = LoadReport(DATASET.name)
    return base.Tables(
        _lines(files, reading, report),
        report,
        item_columns=list(CATEGORIES[:4]),
        user_columns=["price_sensitivity", "lifestage"],
    )


def _weeks(folder: Path) -> list[Path]:
    weeks = [file for file in data_files(folder) if file.name.lower().startswith("transactions")]
    if not weeks:
        raise DataError(f"{folder} holds no weekly file; expected {DATASET.files}.")
    return weeks


def _lines(files: list[Path], reading: base.Reading, report: LoadReport) -> Iterator[pl.DataFrame]:
    for part in base.parts_of_files(files, reading, report, [*_NAMES, "shop_date", "shop_hour"]):
        lines = base.standard(part, {}, _NEEDED, str(files[0]))
        day = (
            pl.col("shop_date").cast(pl.String).str.strptime(pl.Datetime("us"), "%Y%m%d", strict=False)
        )
        hour = pl.duration(hours=pl.col("shop_hour").cast(pl.Int64, strict=False))
        code = pl.col("cust_code").cast(pl.String).str.strip_chars()
        yield lines.select(
            *(c for c in (FILE,) if c in lines.columns),
            time=day + hour,
            **{
                name: code.replace("", None) if theirs == "cust_code" else pl.col(theirs)
                for theirs, name in _NAMES.items()
                if theirs in lines.columns
            },
        )


DATASET = base.Dataset(
    name="sort-of-real",
    source="dunnhumby, Source Files: Let's Get Sort-of-Real",
    licence="dunnhumby terms",
    files="transactions_200607.csv and so on, one a week",
    columns="SHOP_DATE, SHOP_HOUR, QUANTITY, SPEND, PROD_CODE, PROD_CODE_10 to 40, CUST_CODE, "
    "CUST_PRICE_SENSITIVITY or seg_1, CUST_LIFESTAGE or seg_2, BASKET_ID, STORE_CODE",
    open=open_sort_of_real,
)

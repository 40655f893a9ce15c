"""Promotions, campaigns, coupons and redemptions of the Complete Journey, as typed frames.

Each function takes the folder of the published files or of the package's, or, without one, reads the
installed package. What can't be matched is left out and said in `notes`, if the caller gives a list;
where nothing can be matched, that is an error. Ids are whole numbers, or text where the files have
text.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import polars as pl

from retailrec.data.files import read_table
from retailrec.data.parsing import parse_time, typed_ids
from retailrec.data.paths import find_file
from retailrec.datasets.base import find_one_of, of_one_type, standard
from retailrec.datasets.complete_journey import package_folder, receipt_times
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID

DISPLAYS = {
    "0": "not on display",
    "1": "store front",
    "2": "store rear",
    "3": "front end cap",
    "4": "mid-aisle end cap",
    "5": "rear end cap",
    "6": "side-aisle end cap",
    "7": "in aisle",
    "9": "secondary location",
    "A": "in shelf",
}
MAILERS = {
    "0": "not in mailer",
    "A": "interior page feature",
    "C": "interior page line item",
    "D": "front page feature",
    "F": "back page feature",
    "H": "wrap front feature",
    "J": "wrap interior coupon",
    "L": "wrap back feature",
    "P": "interior page coupon",
    "X": "free on interior page",
    "Z": "free on front page, back page or wrap",
}
_NAMES = {
    "household_key": USER_ID,
    "household_id": USER_ID,
    "product_id": ITEM_ID,
    "campaign": "campaign_id",
    "coupon_upc": "coupon_id",
    "description": "campaign_type",
    "start_date": "start",
    "start_day": "start",
    "end_date": "end",
    "end_day": "end",
    "redemption_date": "time",
    "day": "time",
    "week_no": "week",
    "store_id": "store",
    "display_location": "display",
    "mailer_location": "mailer",
}
_IDS = (USER_ID, ITEM_ID, "campaign_id", "coupon_id")
_CAMPAIGN_FILES = ("campaign_descriptions", "campaign_desc")


def campaigns(path: Path | None = None, notes: list[str] | None = None) -> pl.DataFrame:
    """Which households were sent which campaign, one row each.

    Columns: `user_id`, `campaign_id` (ids), `campaign_type` (String), `start` and `end` (Datetime;
    midnight before the first day, and after the last).

    Raises
    ------
    DataError
        If a file or column is missing, or none of the campaigns sent is described.
    """
    sent = _read(path, "campaigns", "campaign_table").select(USER_ID, "campaign_id")
    described = _described(path)
    sent, described = of_one_type(sent, described, _IDS)
    known = sent.join(described, on="campaign_id", how="inner", maintain_order="left")
    lost = sent.join(described, on="campaign_id", how="anti")["campaign_id"].unique().sort()
    _say_lost("campaigns sent", "described", lost, known, notes)
    return known.select(USER_ID, "campaign_id", "campaign_type", "start", "end").sort(
        "campaign_id", USER_ID
    )


def coupons(path: Path | None = None, notes: list[str] | None = None) -> pl.DataFrame:
    """The products of each campaign's coupons, one row a campaign, coupon and product.

    Columns: `campaign_id`, `coupon_id`, `item_id` (ids). Products that the catalogue lacks are left
    out; campaigns without any product are named in `notes`.

    Raises
    ------
    DataError
        If a file or column is missing, or the catalogue has none of the products.
    """
    listed = _read(path, "coupons", "coupon").select("campaign_id", "coupon_id", ITEM_ID).unique()
    products = _read(path, "products", "product").select(ITEM_ID)
    listed, products = of_one_type(listed, products, _IDS)
    sold = listed.join(products, on=ITEM_ID, how="semi")
    lost = listed.join(products, on=ITEM_ID, how="anti")[ITEM_ID].unique().sort()
    _say_lost("products of coupons", "in the catalogue", lost, sold, notes)
    described, sold = of_one_type(_described(path), sold, _IDS)
    empty = described.join(sold, on="campaign_id", how="anti")["campaign_id"].sort()
    if len(empty) and notes is not None:
        notes.append(f"campaigns without products, which nothing can be ranked for: {_few(empty)}")
    return sold.sort("campaign_id", "coupon_id", ITEM_ID)


def redemptions(path: Path | None = None, notes: list[str] | None = None) -> pl.DataFrame:
    """Which household redeemed which coupon when.

    Columns: `user_id`, `campaign_id`, `coupon_id` (ids), `time` (Datetime, midnight of the day).

    Raises
    ------
    DataError
        If the file or a column is missing, or no household that redeemed was sent a campaign.
    """
    redeemed = _read(path, "coupon_redemptions", "coupon_redempt")
    redeemed = redeemed.with_columns(_day(redeemed["time"])).select(
        USER_ID, "campaign_id", "coupon_id", "time"
    )
    sent = campaigns(path).select(USER_ID, "campaign_id").unique()
    redeemed, sent = of_one_type(redeemed, sent, _IDS)
    answers = redeemed.join(sent, on=[USER_ID, "campaign_id"], how="semi", maintain_order="left")
    lost = redeemed.join(sent, on=[USER_ID, "campaign_id"], how="anti")[USER_ID].unique().sort()
    _say_lost("households that redeemed", "sent the campaign", lost, answers, notes)
    return answers.sort("time", USER_ID, "coupon_id")


def promotions(
    path: Path | None = None, notes: list[str] | None = None, *, weeks: Collection[int] | None = None
) -> pl.DataFrame:
    """Which product was on display or in the mailer, in which store and week.

    Columns: `item_id` (ids), `store` (Categorical), `week` (Int16, as in the receipts), `start`
    (Datetime, midnight before the week's first day), `display` and `mailer` (Enum, in words). The
    package's year has 20.9 million rows, some 26 bytes each; `weeks` limits what is read.

    Raises
    ------
    DataError
        If a file or column is missing, a code is not known, or no week has receipts.
    """
    starts = _week_starts(path)
    table = _read(path, "promotions", "causal_data", weeks=weeks)
    for name, words in (("display", DISPLAYS), ("mailer", MAILERS)):
        unknown = set(table[name].unique().drop_nulls().to_list()) - set(words)
        if unknown:
            raise DataError(
                f"promotions: {name} has codes {sorted(unknown)[:5]}; expected some of {list(words)}. "
                f"Check that this is the published file."
            )
    known = table.join(starts, on="week", how="inner", maintain_order="left")
    lost = table.join(starts, on="week", how="anti")["week"].unique().sort()
    _say_lost("weeks of promotions", "in the receipts", lost, known, notes)
    return known.select(
        pl.col(ITEM_ID),
        pl.col("store").cast(pl.String).cast(pl.Categorical()),
        pl.col("week").cast(pl.Int16),
        pl.col("start"),
        pl.col("display").replace_strict(DISPLAYS, return_dtype=pl.Enum(list(DISPLAYS.values()))),
        pl.col("mailer").replace_strict(MAILERS, return_dtype=pl.Enum(list(MAILERS.values()))),
    )


def are_there(path: Path | None = None) -> bool:
    """Does the folder (without one, the package) hold campaigns, coupons and redemptions?"""
    folder = package_folder() if path is None else Path(path)
    needed = (
        ("campaigns", "campaign_table"),
        _CAMPAIGN_FILES,
        ("coupons", "coupon"),
        ("coupon_redemptions", "coupon_redempt"),
        ("products", "product"),
    )
    return all(find_file(folder, *names) is not None for names in needed)


def _read(path: Path | None, *names: str, weeks: Collection[int] | None = None) -> pl.DataFrame:
    """The first of these tables that is there, columns renamed, ids Int64."""
    folder = package_folder(names[0]) if path is None else Path(path)
    file = find_one_of(folder, *names, what=names[0])
    if weeks is not None and file.suffix == ".parquet" and "week" in pl.read_parquet_schema(file):
        table = pl.scan_parquet(file, glob=False).filter(pl.col("week").is_in(list(weeks))).collect()
    else:
        table = read_table(file)
    table = standard(table, _NAMES, _EXPECTED[names[0]], f"the file {file.name}")
    if "week" in table.columns:
        table = table.with_columns(pl.col("week").cast(pl.Int64, strict=False))
        table = table if weeks is None else table.filter(pl.col("week").is_in(list(weeks)))
    text = [pl.col(c).cast(pl.String) for c in ("display", "mailer") if c in table.columns]
    ids = [typed_ids(table[c]) for c in _IDS if c in table.columns]
    return table.with_columns(*ids, *text)


_EXPECTED = {  # columns, after renaming, of each table by its name in the package
    "campaigns": (USER_ID, "campaign_id"),
    "campaign_descriptions": ("campaign_id", "campaign_type", "start", "end"),
    "coupons": ("campaign_id", "coupon_id", ITEM_ID),
    "coupon_redemptions": (USER_ID, "campaign_id", "coupon_id", "time"),
    "products": (ITEM_ID,),
    "promotions": (ITEM_ID, "store", "week", "display", "mailer"),
}


def _described(path: Path | None) -> pl.DataFrame:
    """One row a campaign: id, type, start, end."""
    table = _read(path, *_CAMPAIGN_FILES)
    last = _day(table["end"])
    return table.select(
        "campaign_id",
        pl.col("campaign_type").cast(pl.String),
        _day(table["start"]),
        last.dt.offset_by("1d").alias("end"),
    )


def _day(values: pl.Series) -> pl.Series:
    """Midnight of dates, or of day numbers (day 1 is 2000-01-01)."""
    return parse_time(values, who="campaigns").dt.truncate("1d")


def _week_starts(path: Path | None) -> pl.DataFrame:
    """`week` of the receipts and the midnight before its first day."""
    lines = receipt_times(path)
    first = lines.group_by("week").agg(pl.col("time").min().dt.truncate("1d"))
    # a week may begin with a closed day, so most weeks decide where week 0 would have begun
    zero = first.select((pl.col("time") - pl.duration(days=7 * pl.col("week"))).mode().min()).item()
    if zero is None:
        raise DataError(
            "no line of the receipts has both a week and a time, so no promotion can be dated. Check "
            "the columns of the receipts."
        )
    start = (pl.lit(zero) + pl.duration(days=7 * pl.col("week"))).alias("start")
    return first.select("week", start.cast(pl.Datetime("us"))).sort("week")


def _say_lost(
    what: str, where: str, lost: pl.Series, kept: pl.DataFrame, notes: list[str] | None
) -> None:
    """Note how many ids are not where they should be; if nothing is left, that is an error."""
    if not len(lost):
        return
    if kept.is_empty():
        raise DataError(
            f"none of the {len(lost):,} {what} is {where}, for example {lost[0]}; ids may be written "
            f"in another way, or files of two different sets lie together. Use files of one set."
        )
    if notes is not None:
        notes.append(f"{len(lost):,} {what} are not {where} and are left out: {_few(lost)}")


def _few(ids: pl.Series) -> str:
    more = f" and {len(ids) - 3:,} more" if len(ids) > 3 else ""
    return ", ".join(str(i) for i in ids.head(3)) + more

"""Boards of other shapes: real receipts, each changed in one way that shops differ in.

All windows end before a claimed one of `board_data.py` begins, and users of the large shops are others.

    make bench-shapes [BOARDS="journey-one-store" SEEDS="0 1"]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache, partial

import polars as pl
from board_data import (
    Board,
    Maker,
    coop,
    instacart,
    journey,
    online_retail,
    sample,
    ta_feng,
    window,
    x5,
)
from boards_page import OTHERS, SHOWN

from retailrec.data import RetailData
from retailrec.simulator.shop import receipt_lines

METRICS = (*SHOWN, *OTHERS)
Load = Callable[[], RetailData]
Change = Callable[[RetailData], pl.DataFrame]  # the lines of the other shop

some_journey = lru_cache(1)(partial(sample, journey, "g", 300))
some_ta_feng = lru_cache(1)(partial(sample, ta_feng, "g", 250))


def reshaped(load: Load, changes: Sequence[Change], catalogue: bool) -> RetailData:
    """The shop after some changes; its catalogue holds what is sold and still has its id."""
    data = load()
    items = data.items.drop("recommendable", "known_from", strict=False)
    for change in changes:
        lines = change(data)
        if lines["item_id"].dtype != items["item_id"].dtype:
            items = items.with_columns(pl.col("item_id").cast(pl.String))
        sold = items.join(lines.select("item_id").unique(), on="item_id", how="semi")
        data = RetailData.from_frames(lines, items=sold if catalogue and sold.height else None)
        items = sold
    return data


def as_category(column: str) -> Change:
    """Items are what the catalogue calls `column`."""
    return lambda data: (
        receipt_lines(data)
        .with_columns(item_id=data.items[column].cast(pl.String).gather(data.log["item"]))
        .drop_nulls("item_id")
    )


def within(column: str, value: str) -> Change:
    """One department alone."""
    return lambda data: receipt_lines(data).filter(
        (data.items[column].cast(pl.String) == value).fill_null(False).gather(data.log["item"])
    )


def rare(most: int) -> Change:
    """Items that at most so many users bought."""
    return lambda data: receipt_lines(data).filter(pl.col("user_id").n_unique().over("item_id") <= most)


def since(day: str) -> Change:
    """Receipts from a day on."""
    return lambda data: receipt_lines(data).filter(pl.col("time") >= datetime.fromisoformat(day))


def users(n: int, draw: int | None = None) -> Change:
    """So many users: drawn, or those with the most lines."""

    def change(data: RetailData) -> pl.DataFrame:
        lines = receipt_lines(data)
        ids = lines.group_by("user_id").len()
        order = pl.col("len") if draw is None else pl.col("user_id").cast(pl.String).hash(draw)
        return lines.join(ids.sort(order, "user_id").tail(n), on="user_id", how="semi")

    return change


def bare(data: RetailData) -> pl.DataFrame:
    """User, item and day alone: a user's day is a receipt."""
    return receipt_lines(data).select("user_id", "item_id", pl.col("time").dt.truncate("1d"))


def valueless(data: RetailData) -> pl.DataFrame:
    """Neither amounts nor money."""
    return receipt_lines(data).drop("quantity", "value")


def once(data: RetailData) -> pl.DataFrame:
    """What a user bought before is never bought again: first purchases alone."""
    lines = receipt_lines(data).sort("time", "basket_id", "item_id")
    return lines.unique(["user_id", "item_id"], keep="first", maintain_order=True)


def renewed(day: str, fifths: int = 1) -> Change:
    """From a day on a fifth of the items (or more) are sold under ids never seen before."""
    item = pl.col("item_id").cast(pl.String)
    new = (item.hash(5) % 5 < fifths) & (pl.col("time") >= datetime.fromisoformat(day))
    return lambda data: receipt_lines(data).with_columns(
        item_id=pl.when(new).then(item + "-new").otherwise(item)
    )


def sellers(n: int) -> Change:
    """A market place: each item from `n` sellers, drawn by receipt, each with an id of its own."""
    seller = (pl.col("basket_id").hash(3) % n).cast(pl.String)
    return lambda data: receipt_lines(data).with_columns(
        item_id=pl.col("item_id").cast(pl.String) + "-" + seller
    )


def newcomers(board: Maker, days: int = 28) -> Board:
    """Only users are judged whose first receipt is not older."""
    made = board()
    first = made.past.log.group_by("user").agg(pl.col("time").min())
    late = first.filter(pl.col("time") >= made.past.end - timedelta(days=days))["user"]
    return replace(made, target=made.target.filter(pl.col("user").is_in(late.implode())))


def shop(load: Load, changes: Sequence[Change], catalogue: bool, cut: str, days: int) -> Board:
    """What is bought within `days` of a day in the changed shop."""
    made = window(partial(reshaped, load, changes, catalogue), cut, days)
    return replace(made, metrics=METRICS)


SHAPES: dict[str, Maker] = {}  # kind@cut -> board


def add(
    kind: str,
    load: Load,
    cuts: str,
    *changes: Change,
    days: int = 28,
    catalogue: bool = True,
    judged: Callable[[Maker], Board] = lambda make: make(),
    draw: int | None = None,
) -> None:
    """A kind of board, at some cuts."""
    for cut in cuts.split():
        SHAPES[f"{kind}@{cut}" + ("" if draw is None else f"-{draw}")] = partial(
            judged, partial(shop, load, changes, catalogue, cut, days)
        )


J, C, I, O, T, X = some_journey, coop, instacart, online_retail, some_ta_feng, x5  # noqa: E741
JOURNEY, COOP = "2017-09-11 2017-07-17", "2013-10-07 2013-07-01 2013-03-04"
INSTACART, RETAIL = "2000-11-06 2000-10-02", "2011-06-01 2011-03-30"
TA_FENG, X5 = "2001-01-04", "2019-02-18 2019-01-21"
# what is sold
add("journey-drugstore", J, JOURNEY, within("category_1", "DRUG GM"))
add("journey-produce", J, JOURNEY, within("category_1", "PRODUCE"))
add("journey-categories", J, JOURNEY, as_category("category_2"))
add("journey-rare", J, JOURNEY, rare(10))
add("journey-sellers", J, JOURNEY, sellers(5))
add("journey-renewed", J, "2017-09-11", renewed("2017-08-28"))
add("journey-one-store", partial(journey, 367), JOURNEY)
add("journey-departments", J, JOURNEY, as_category("category_1"), days=7)
add("instacart-departments", I, INSTACART, as_category("category_1"), days=7)
add("x5-groups", X, X5, as_category("category_2"), days=7)
add("coop-departments", C, COOP, as_category("category_1"), days=7)
add("coop-categories", C, COOP, as_category("category_3"))
add("ta-feng-categories", T, TA_FENG, as_category("category_1"))
add("instacart-aisles", I, INSTACART, as_category("category_2"))
add("x5-categories", X, X5, as_category("category_3"))
add("online-retail-sellers", O, RETAIL, sellers(10))
add("online-retail-renewed", O, "2011-06-01", renewed("2011-05-18", 2))
# what is bought again
add("journey-once", J, JOURNEY, once)
add("online-retail-once", O, RETAIL, once)
add("ta-feng-once", T, TA_FENG, once)
add("instacart-once", I, INSTACART, once)
# what is known
add("journey-bare", J, JOURNEY, bare, catalogue=False)
add("coop-bare", C, COOP, bare, catalogue=False)
add("online-retail-valueless", O, RETAIL, valueless, catalogue=False)
# how many users, and which
for draw in range(10):
    add("journey-5", J, JOURNEY, users(5, draw), draw=draw)
    add("journey-20", J, JOURNEY, users(20, draw), draw=draw)
    add("ta-feng-100", T, TA_FENG, users(100, draw), draw=draw)
    add("ta-feng-300", T, TA_FENG, users(300, draw), draw=draw)
for draw in range(3):
    add("journey-50", J, JOURNEY, users(50, draw), draw=draw)
    add("journey-100", J, JOURNEY, users(100, draw), draw=draw)
    add("online-retail-300", O, RETAIL, users(300, draw), draw=draw)
    add("coop-10", C, COOP, users(10, draw), draw=draw)
    add("instacart-20", I, INSTACART, users(20, draw), draw=draw)
    add("instacart-50", I, INSTACART, users(50, draw), draw=draw)
add("journey-heavy", J, JOURNEY, users(100))
add("online-retail-heavy", O, RETAIL, users(100))
add("online-retail-newcomers", O, "2011-06-01 2011-04-27 2011-03-30 2011-03-01", judged=newcomers)
add("ta-feng-newcomers", T, TA_FENG, judged=newcomers)
# how far back
add("journey-4-weeks", J, "2017-09-11", since("2017-08-14"), days=7)
add("journey-8-weeks", J, "2017-09-11", since("2017-07-17"))
add("journey-13-weeks", J, "2017-09-11", since("2017-06-12"))
add("coop-13-weeks", C, "2013-10-07", since("2013-07-08"))
add("instacart-8-weeks", I, "2000-11-06", since("2000-09-11"))
add("online-retail-26-weeks", O, "2011-06-01", since("2010-12-01"))
# how far ahead
add("journey-1-day", J, "2017-09-11 2017-09-14 2017-09-23", days=1)
add("journey-3-days", J, JOURNEY, days=3)
add("journey-14-days", J, JOURNEY, days=14)
add("journey-56-days", J, "2017-09-04", days=56)
add("coop-1-day", C, "2013-10-07 2013-10-10 2013-10-12 2013-10-22", days=1)
add("coop-56-days", C, COOP, days=56)
add("coop-canteen", C, COOP, as_category("category_2"), bare, days=7)
add("ta-feng-3-days", T, "2001-01-18", days=3)
add("instacart-7-days", I, INSTACART, days=7)
add("x5-7-days", X, "2019-03-04 2019-02-18 2019-02-04", days=7)
# when
add("journey-july", J, "2017-07-03")
add("coop-january", C, "2013-01-07 2012-01-09 2011-01-10")
add("online-retail-january", O, "2011-01-04")
add("ta-feng-new-year", T, "2001-01-25", days=7)

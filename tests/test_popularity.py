"""Bestsellers by their formulas: windows to the day, buyers and receipts, trends, segments, categories."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from conftest import CUTOFF
from retailrec.candidates import Pairs, PopularInCategories, PopularInSegment, Popularity
from retailrec.data import RetailData

END = datetime(2024, 3, 1)


def sold(*sales: tuple[str, float, str]) -> RetailData:
    """(item, days before the end, shoppers as letters)."""
    rows = [(u, item, END - timedelta(days=days)) for item, days, users in sales for u in users]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")
    return RetailData.from_frames(table, end=END)


def scores(source: Popularity, data: RetailData) -> dict[str, float]:
    """Item -> score, without the part that breaks ties by all-time buyers."""
    whole = source.fit(data).share_.astype(float)
    buyers = data.log.group_by("item").agg(pl.col("user").n_unique()).sort("item")["user"].to_numpy()
    return dict(zip(data.items["item_id"], (whole - buyers / (buyers.max() + 1)).round(5), strict=True))


def test_last_year_is_fifty_two_weeks_ago() -> None:
    """The seven days that began 364 days ago, the first one included and the eighth not."""
    days = {"before": 365, "first": 364, "middle": 360, "last": 357.5, "after": 357}
    data = sold(*[(item, day, "ab") for item, day in days.items()])
    found = scores(Popularity(days=7, kind="last_year"), data)
    assert found == {"before": 0, "first": 2, "middle": 2, "last": 2, "after": 0}


def test_recent_is_the_last_days_the_edge_included() -> None:
    data = sold(("edge", 7, "ab"), ("in", 1, "abc"), ("out", 7.5, "abcd"))
    assert scores(Popularity(days=7), data) == {"edge": 2, "in": 3, "out": 0}


def test_a_trend_is_the_share_of_four_windows() -> None:
    """Buyers of the week, times their share of the buyers of four weeks."""
    data = sold(("new", 1, "abcd"), ("old", 1, "abcd"), ("old", 25, "efgh"), ("old", 29, "xyz"))
    assert scores(Popularity(days=7, kind="trending"), data) == {"new": 4, "old": 4 * 4 / 8}


def test_receipts_count_repeats_and_buyers_do_not() -> None:
    data = sold(("a", 1, "x"), ("a", 2, "x"), ("b", 1, "x"), ("b", 30, "y"))
    assert scores(Popularity(days=7), data) == {"a": 1, "b": 1}
    receipts = Popularity(days=7, count="receipts").fit(data).share_
    np.testing.assert_allclose(receipts, [2 + 2 / 3, 1 + 2 / 3])  # a tie is broken by receipts too


def test_all_time_buyers_order_the_rest() -> None:
    data = sold(("b", 90, "xyz"), ("a", 90, "x"), ("c", 1, "x"))
    source = Popularity(days=7).fit(data)
    items = source.candidates(data.history(codes=[0]), 3).items[0]
    assert data.items["item_id"].gather(items).to_list() == ["c", "b", "a"]
    np.testing.assert_allclose(source.share_, [1 / 4, 3 / 4, 1 + 1 / 4])


def every_pair(data: RetailData) -> Pairs:
    n, m = data.n_users, data.n_items
    return Pairs(np.arange(n + 1, dtype=np.int64) * m, np.tile(np.arange(m, dtype=np.int32), n))


def test_a_segment_has_bestsellers_of_its_own(data: RetailData) -> None:
    """Buyers of the segment in 91 days, then everybody's; without a segment, everybody's."""
    known = data.asof(CUTOFF)
    source = PopularInSegment(days=30).fit(known)
    found = source.score(known.history(), every_pair(known)).reshape(known.n_users, -1)
    recent = known.log.filter(pl.col("time") >= CUTOFF - timedelta(days=30))
    pairs = recent.select("user", "item").unique()
    pairs = pairs.with_columns(segment=known.users["segment"].gather(pairs["user"]))
    everybody = np.bincount(pairs["item"].to_numpy(), minlength=known.n_items)
    for user, segment in enumerate(known.users["segment"]):
        own = everybody.astype(float)
        if segment is not None:
            mine = pairs.filter(pl.col("segment") == segment)["item"].to_numpy()
            own = np.bincount(mine, minlength=known.n_items) + everybody / (everybody.max() + 1)
        np.testing.assert_allclose(found[user], own, rtol=1e-5)


def test_categories_weigh_by_the_shoppers_lines(data: RetailData) -> None:
    """Share of the shopper's receipts in the category x share of its recent buyers who took the item."""
    known = data.asof(CUTOFF)
    source = PopularInCategories("category_1", days=60).fit(known)
    found = source.score(known.history(), every_pair(known)).reshape(known.n_users, -1)
    category = known.items["category_1"].to_list()
    recent = known.log.filter(pl.col("time") >= CUTOFF - timedelta(days=60))
    pairs = recent.select("user", "item").unique()["item"].to_numpy()
    buyers = np.bincount(pairs, minlength=known.n_items).astype(float)
    total = {c: sum(buyers[i] for i in range(30) if category[i] == c) for c in set(category)}
    for user in range(known.n_users):
        lines = known.log.filter(pl.col("user") == user)["item"].to_list()
        for item in range(known.n_items):
            share = sum(category[i] == category[item] for i in lines) / max(len(lines), 1)
            expected = share * buyers[item] / max(total[category[item]], 1)
            assert found[user, item] == pytest.approx(expected, abs=2e-3)

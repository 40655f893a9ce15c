"""Splits in time: windows, half windows, next receipts; and which of them a ranker learns from."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from purposes_support import quick, small_shop
from retailrec.candidates import Popularity
from retailrec.candidates.pool import check_pool
from retailrec.data import RetailData
from retailrec.data.splits import (
    HorizonSplits,
    NextBasketSplits,
    align_next_basket,
    rolling_folds,
)
from retailrec.errors import DataError, SettingError
from retailrec.rankers import LightGBMRanker


@pytest.fixture(scope="module")
def shop() -> RetailData:
    return small_shop()


def test_rolling_folds_touch_and_end_at_the_end() -> None:
    folds = rolling_folds(datetime(2024, 3, 1), horizon=timedelta(days=7), n=3)
    assert folds[-1].end == datetime(2024, 3, 1)
    assert all(a.end == b.cutoff for a, b in zip(folds, folds[1:], strict=False))
    with pytest.raises(ValueError, match="n must be at least 1"):
        rolling_folds(datetime(2024, 3, 1), horizon=timedelta(days=7), n=0)


def test_label_windows_stay_inside_the_data(data: RetailData) -> None:
    splits = list(HorizonSplits(14, n=20, stride_days=14).splits(data))
    assert splits[-1].target["time"].max() < data.end
    cutoffs = [s.past.end for s in splits]
    assert cutoffs == sorted(cutoffs)
    assert cutoffs[0] >= data.start + (data.end - data.start) * 0.6
    assert len(cutoffs) > 1
    more = list(HorizonSplits(14, n=20, stride_days=14, least_history=0.1).splits(data))
    assert len(more) > len(splits)
    newest = list(HorizonSplits(14, least_history=1.0).splits(data))  # is taken in any case
    assert [(data.end - split.past.end).days for split in newest] == [14]
    with pytest.raises(DataError, match=f"up to {data.end:%Y-%m-%d}, are too short for a horizon"):
        list(HorizonSplits(400).splits(data))


def test_next_basket_aligns_last_receipts_and_hides_when_they_come(data: RetailData) -> None:
    aligned, fold = align_next_basket(data)
    past, target = fold.split(aligned)
    last = data.log.group_by("user").agg(pl.col("basket").max())
    assert set(target["basket"].to_list()) == set(last["basket"].to_list())
    newest = past.log.group_by("user").agg(pl.col("time").max())["time"]
    assert newest.n_unique() == 1  # the gap to the last receipt is not given away
    users = data.log.group_by("user").agg(pl.col("basket").n_unique())
    assert past.active_users().tolist() == sorted(users.filter(pl.col("basket") > 1)["user"].to_list())
    splits = list(NextBasketSplits(2, parts=1).splits(data))
    assert splits[0].past.log.height < splits[1].past.log.height


def test_a_part_of_the_shoppers_is_asked_about_and_of_the_others_everything_is_known() -> None:
    """Three shoppers with two receipts each, days 1 and 9, 2 and 8, 3 and 7; item 10 x user + number."""
    rows = [(1, 11, 1), (1, 12, 9), (2, 21, 2), (2, 22, 8), (3, 31, 3), (3, 32, 7)]
    table = pl.DataFrame(
        {
            "user_id": [u for u, _, _ in rows],
            "item_id": [i for _, i, _ in rows],
            "time": [datetime(2024, 1, day) for _, _, day in rows],
        }
    )
    data = RetailData.from_frames(table)
    item = data.items["item_id"].to_list()
    splits = list(NextBasketSplits().splits(data))
    targets = [sorted(item[i] for i in s.target["item"]) for s in splits]
    assert targets == [[12, 32], [22]]  # of the first and third, of the second
    for split, known in zip(splits, ([11, 21, 22, 31], [11, 12, 21, 31, 32]), strict=True):
        assert sorted(item[i] for i in split.past.log["item"]) == known
        last = split.past.log.group_by("user").agg(pl.col("time").max()).sort("user")["time"]
        assert {(split.past.end - t).days for t in last} == {1}  # nobody's is newer than another's


def test_every_shopper_is_asked_about_in_one_part(data: RetailData) -> None:
    splits = list(NextBasketSplits(parts=3).splits(data))
    asked = [sorted(split.target["user"].unique()) for split in splits]
    assert sorted(user for users in asked for user in users) == data.active_users().tolist()


def test_a_label_window_needs_a_share_of_the_days_before_it() -> None:
    """100 days of receipts: with a quarter, cutoffs up to 75 days back; the newest one in any case."""
    days = [datetime(2024, 1, 1) + timedelta(days=d) for d in range(100)]
    table = pl.DataFrame({"user_id": [1] * 100, "item_id": [2] * 100, "time": days})
    data = RetailData.from_frames(table)

    def back(*given: float, **more: float) -> list[int]:
        splits = HorizonSplits(*given, **more).whole().splits(data)  # type: ignore[arg-type]
        return [(data.end - s.past.end).days for s in splits]

    assert back(15, n=9, least_history=0.25) == [75, 60, 45, 30, 15]
    assert back(20, n=9) == [40, 20]  # 60 of 100 days lie before the older one
    assert back(21, n=9) == [21]
    assert back(70, n=3) == [70]  # 30 days before it are few, but there is no other window
    assert back(15, n=2, stride_days=30, least_history=0) == [45, 15]


@pytest.mark.parametrize(
    ("horizon_days", "n", "expected"),
    [
        (28, 3, [(56, 28), (28, 28), (14, 14)]),
        (33, 2, [(33, 33), (14, 14)]),  # whole weeks
        (28, 1, [(28, 28)]),
        (27, 2, [(54, 27), (27, 27)]),  # half of it is less than two weeks
    ],
)
def test_the_newest_of_several_windows_is_half_as_long(
    horizon_days: float, n: int, expected: list[tuple[int, int]]
) -> None:
    """How many days before the end a window begins, and how long it is."""
    days = [datetime(2024, 1, 1) + timedelta(days=d) for d in range(250)]
    table = pl.DataFrame({"user_id": [1] * 250, "item_id": [2] * 250, "time": days})
    data = RetailData.from_frames(table)
    splits = HorizonSplits(horizon_days, n)
    found = [((data.end - s.past.end).days, s.target.height) for s in splits.splits(data)]
    assert found == expected
    shorter = [s.shorter for s in splits.splits(data)]
    assert shorter == [length < horizon_days for _, length in expected]
    whole = list(splits.whole().splits(data))
    assert len(whole) == n
    assert {s.target.height for s in whole} == {horizon_days}


def test_orders_are_learnt_from_half_a_window_too_and_probabilities_from_whole_ones(
    shop: RetailData,
) -> None:
    def days(kind: str, **more: Any) -> list[int]:
        fitted = quick(label_splits=HorizonSplits(28, n=2), **more).fit(shop)
        cutoffs = [datetime.fromisoformat(w["cutoff"]) for w in fitted.report_[kind]]
        return [(shop.end - cutoff).days for cutoff in cutoffs]

    assert days("windows") == days("windows", discover=None) == [28, 14]
    assert days("discover_windows") == [56, 28]
    assert days("windows", calibrate=True) == [56, 28]
    binary = LightGBMRanker("binary", iterations=5, threads=1)
    assert days("windows", ranker=binary) == days("discover_windows", ranker=binary) == [56, 28]


def test_rows_of_next_receipts_are_of_everybody_once_and_no_part_knows_its_own(
    shop: RetailData,
) -> None:
    """Also where sources are fitted once: what one part is asked about another part's sources know."""
    whole = quick(label_splits=NextBasketSplits(), negatives=1, idle_users=1, discover=None)
    rows = whole.training_frame(shop)
    (split,) = NextBasketSplits(parts=1).splits(shop)
    assert len(np.unique(rows.groups)) == len(split.past.active_users())
    once = replace(whole, refit="once").training_frame(shop)
    np.testing.assert_array_equal(rows.x, once.x)


def test_what_an_earlier_fit_ended_with_is_taken_over_for_the_window_that_begins_there(
    shop: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Popularity is fitted before each window and at the end: once less, and nothing else changes."""
    fitted: list[datetime] = []
    fit = Popularity.fit

    def counted(self: Popularity, data: RetailData) -> Popularity:
        fitted.append(data.end)
        return fit(self, data)

    monkeypatch.setattr(Popularity, "fit", counted)
    # a prior's usual weight follows the number of lists, and what is chosen is taken over as well
    more = {
        "label_splits": HorizonSplits(28, n=3),
        "negatives": 1,
        "idle_users": 1,
        "prior_weight": 0.2,
    }
    cut = shop.end - timedelta(days=28)
    before = quick(**more).fit(shop.asof(cut), keep_rows=True)
    fitted.clear()
    after = quick(**more).fit(shop, earlier=before.hand_over())
    assert fitted == [shop.end - timedelta(days=14), shop.end]
    fitted.clear()
    alone = quick(**more).fit(shop)
    assert cut in fitted
    ids = shop.users["user_id"]
    assert after.recommend(shop, users=ids).equals(alone.recommend(shop, users=ids))
    other = quick(**more).fit(shop.asof(cut - timedelta(days=1)), keep_rows=True)
    fitted.clear()
    quick(**more).fit(shop, earlier=other.hand_over())
    days = [(shop.end - end).days for end in fitted]
    assert days == [84, 56, 28, 14, 0]  # that one had not seen the day before


@pytest.mark.parametrize("n", [10**6, 10**20])
def test_numbers_without_end_are_refused_in_words(n: int) -> None:
    with pytest.raises(SettingError, match="begin before the calendar does"):
        rolling_folds(datetime(2024, 1, 1), horizon=timedelta(days=14), n=n)
    with pytest.raises(SettingError, match="n_candidates may be 100,000 at most"):
        check_pool([Popularity()], n)

"""Features by hand and in parts; `test_feature_oracle` has every one of them against SQL."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from conftest import CUTOFF
from retailrec.candidates import Pairs
from retailrec.data import RetailData
from retailrec.errors import SettingError
from retailrec.features import FEATURES, Events, feature
from retailrec.features.assemble import FeatureSet, _finite


@pytest.fixture(scope="module")
def known(data: RetailData) -> RetailData:
    return data.asof(CUTOFF)


def features_of_all_pairs(known: RetailData) -> pl.DataFrame:
    """Every feature of every (shopper, item)."""
    n, m = known.n_users, known.n_items
    pairs = Pairs(np.arange(n + 1, dtype=np.int64) * m, np.tile(np.arange(m, dtype=np.int32), n))
    fitted = FeatureSet().fit(known)
    block = pl.DataFrame(fitted.rows(known.history(), pairs), schema=fitted.names)
    return block.with_columns(
        user=pl.Series(np.repeat(np.arange(n), m)), item=pl.Series(pairs.items)
    ).fill_nan(None)


def test_item_features_are_the_same_from_parts(
    known: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FeatureSet().fit(known).items_
    monkeypatch.setattr(RetailData.histories_in_parts, "__defaults__", (7,))
    assert known.n_users > 3 * 7
    np.testing.assert_allclose(FeatureSet().fit(known).items_, whole, rtol=1e-5)


def test_an_item_feature_must_not_choose_aggregates_by_value(
    known: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    @feature("item", unit="x")
    def item_fickle(e: Events) -> NDArray[np.float64]:
        """Asks for what no part of the events was asked for."""
        return e.max(e.age) if len(e.age) else e.sum(e.age)

    monkeypatch.setattr(RetailData.histories_in_parts, "__defaults__", (7,))
    try:
        with pytest.raises(SettingError, match="must not depend on the values"):
            FeatureSet().fit(known)
    finally:
        FEATURES.pop("item_fickle")


def test_pairs_that_were_never_bought_have_no_pair_features(known: RetailData) -> None:
    block = features_of_all_pairs(known)
    bought = set(known.log.select("user", "item").iter_rows())
    for user, item, count in block.select("user", "item", "pair_receipts").iter_rows():
        assert (count is None) == ((user, item) not in bought)


def test_a_streak_by_hand() -> None:
    """Tea on the last three of four receipts, rye on the first and the last."""
    rows = [(1, "rye"), (2, "tea"), (3, "tea"), (4, "tea"), (4, "rye")]
    table = pl.DataFrame(
        {"user_id": [1] * 5, "item_id": [i for _, i in rows], "time": [d for d, _ in rows]}
    )
    block = features_of_all_pairs(RetailData.from_frames(table, end=datetime(2000, 1, 11)))
    by_item = dict(zip(["rye", "tea"], block.iter_rows(named=True), strict=True))
    assert by_item["tea"]["pair_streak"] == 3
    assert by_item["rye"]["pair_streak"] == 1
    assert by_item["rye"]["pair_gap"] == 3
    assert by_item["rye"]["match_due"] == pytest.approx(7 / 4)  # 7 days ago, usual gap 3 (+1)
    assert by_item["rye"]["match_overdue"] == pytest.approx(4)
    assert by_item["tea"]["match_receipt_share"] == pytest.approx(0.75)


def test_category_features_by_hand(known: RetailData) -> None:
    block = features_of_all_pairs(known).filter(pl.col("user") == 3)
    category = known.items["category_1"]
    lines = known.log.filter(pl.col("user") == 3)["item"].to_list()
    for item, found in block.select("item", "category_1_lines").iter_rows():
        expected = sum(category[i] == category[item] for i in lines)
        assert (found or 0) == expected


def test_an_item_without_category_has_no_category_features() -> None:
    table = pl.DataFrame({"user_id": [1, 1], "item_id": [1, 2], "time": [1, 2]})
    items = pl.DataFrame({"item_id": [1, 2], "category_1": ["a", None]})
    block = features_of_all_pairs(RetailData.from_frames(table, items))
    assert block["category_1_lines"].to_list() == [1.0, None]


def test_every_feature_has_a_unit_and_a_meaning() -> None:
    assert len(FEATURES) > 60
    for f in FEATURES.values():
        assert f.unit
        assert f.meaning.endswith((".", ")"))
        assert f.name.startswith(f"{f.scope}_")


def test_a_feature_needs_a_name_of_its_own_and_a_docstring() -> None:
    with pytest.raises(SettingError, match="the name is taken"):

        @feature("user", unit="x")
        def user_receipts(e):  # type: ignore[no-untyped-def]
            """Twice."""

    with pytest.raises(SettingError, match="docstring is missing"):

        @feature("user", unit="x")
        def user_nothing(e):  # type: ignore[no-untyped-def]
            return e.count()


def test_features_and_families_can_be_left_out(known: RetailData) -> None:
    names = FeatureSet(["cadence", "user_value"]).fit(known).names
    assert "match_due" not in names
    assert "user_value" not in names
    assert "pair_receipts" in names


def of_one_shopper(**columns: list[object]) -> dict[str, float]:
    """Features of the pair (first shopper, first item)."""
    data = RetailData.from_frames(pl.DataFrame(columns))
    fitted = FeatureSet().fit(data)
    rows = fitted.rows(data.history(codes=[0]), Pairs(np.array([0, 1]), np.array([0], np.int32)))
    return dict(zip(fitted.names, rows[0].tolist(), strict=True))


def test_midnight_belongs_to_its_day_as_of_any_time() -> None:
    """Ages are rounded: at half past nine every other date would be late on the day before."""
    days = pl.datetime_range(datetime(2023, 1, 2), datetime(2024, 1, 7), "1d", eager=True)
    lines = pl.DataFrame({"user_id": 1, "item_id": "tea", "time": days})
    for end in (datetime(2024, 1, 8), datetime(2024, 1, 8, 9, 30, 17)):
        data = RetailData.from_frames(lines, end=end)
        fitted = FeatureSet().fit(data)
        pairs = Pairs(np.array([0, 1]), np.array([0], np.int32))
        (row,) = fitted.rows(data.history(codes=[0]), pairs).tolist()
        found = dict(zip(fitted.names, row, strict=True))
        assert found["item_weekend_share"] == found["user_weekend_share"] == pytest.approx(2 / 7)
        assert found["user_hour"] == pytest.approx(0, abs=1e-3)


def test_weekday_and_hour_by_hand() -> None:
    """2024-01-06 is a Saturday, 2024-01-08 a Monday."""
    found = of_one_shopper(
        user_id=[1, 1, 2],
        item_id=["tea"] * 3,
        time=["2024-01-06 09:00:00", "2024-01-08 15:00:00", "2024-01-06 18:00:00"],
    )
    assert found["user_weekend_share"] == 0.5
    assert found["item_weekend_share"] == pytest.approx(2 / 3)
    assert found["user_hour"] == pytest.approx(12, abs=0.01)
    assert found["item_hour"] == pytest.approx(14, abs=0.01)
    assert found["match_hour_distance"] == pytest.approx(2, abs=0.01)


def test_discounts_by_hand() -> None:
    """Half off once; what receipts do not tell is missing."""
    days = ["2024-01-01", "2024-02-20", "2024-02-21"]
    found = of_one_shopper(
        user_id=[1, 1, 1],
        item_id=["tea", "tea", "rye"],
        time=days,
        value=[4.0, 2.0, 1.0],
        discount=[0.0, -2.0, 0.0],
    )
    assert found["item_discounted_share"] == 0  # codes follow the ids: item 0 is rye
    data = RetailData.from_frames(
        pl.DataFrame(
            {
                "user_id": [1] * 3,
                "item_id": ["tea", "tea", "zzz"],
                "time": days,
                "value": [4.0, 2.0, 1.0],
                "discount": [0.0, -2.0, 0.0],
            }
        )
    )
    fitted = FeatureSet().fit(data)
    row = fitted.rows(data.history(), Pairs(np.array([0, 1]), np.array([0], np.int32)))[0]
    tea = dict(zip(fitted.names, row.tolist(), strict=True))
    assert tea["item_discounted_share"] == tea["pair_discounted_share"] == 0.5
    assert tea["item_discount_28d"] == 0.5
    assert tea["user_discounted_share"] == pytest.approx(1 / 3)
    silent = of_one_shopper(user_id=[1], item_id=["tea"], time=["2024-01-01"], value=[4.0])
    assert np.isnan(silent["item_discounted_share"])
    assert np.isnan(silent["user_discounted_share"])


def test_weeks_by_hand() -> None:
    """Sold twice this week, once three weeks ago."""
    found = of_one_shopper(
        user_id=[1, 2, 1], item_id=["tea"] * 3, time=["2024-03-01", "2024-03-03", "2024-02-12"]
    )
    weeks = np.zeros(12)
    weeks[0], weeks[3 - 1] = 2, 1  # the 12th is 20 to 21 days before the end, in the third week
    assert found["item_week_count"] == 2
    assert found["item_week_spread"] == pytest.approx(weeks.std() / weeks.mean())
    assert found["item_week_of_peak"] == 1
    slope = np.polyfit(-np.arange(12), weeks, 1)[0]
    assert found["item_week_slope"] == pytest.approx(slope)


def test_cadence_in_receipts_by_hand() -> None:
    """Tea on the first, third and fifth of six receipts: due every second one, and due now."""
    found = of_one_shopper(
        user_id=[1] * 6, item_id=["tea", "x", "tea", "x", "tea", "x"], time=[1, 2, 3, 4, 5, 6]
    )
    assert found["pair_gap_receipts"] == 2
    assert found["match_due_receipts"] == 1
    assert found["match_receipt_share_from_first"] == 0.5
    assert found["match_line_share"] == 0.5


def test_a_feature_that_divides_by_nothing_is_missing() -> None:
    found = _finite(np.array([1.5, np.inf, -np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(found, np.array([1.5, np.nan, np.nan, np.nan], np.float32))


def test_values_that_version_0_2_learnt_with_blanks_meet_today_s() -> None:
    made = FeatureSet()
    words = pl.DataFrame({"column": ["age"] * 3, "value": [" old", "old", "young "]})
    made.attributes_ = words.with_columns(code=pl.int_range(3).cast(pl.Float32))
    layout = {"column": ["user_attribute_age"], "scope": ["user attribute"]}
    made.layout_ = pl.DataFrame(layout)
    users = pl.DataFrame({"age": ["old", "young", "young ", " old", "none"]})
    assert made._encode_users(users)[:4, 0].tolist() == [1, 2, 2, 0]

"""Small promises of data and candidates, each by a value worked out by hand."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import polars as pl
import pytest

from retailrec import RetailData
from retailrec.candidates import factors
from retailrec.candidates.factors import FactorIndex, rounded
from retailrec.candidates.neighbours import TifuKNN
from retailrec.candidates.pool import Pool, score_pool
from retailrec.candidates.popularity import Popularity
from retailrec.data.history import Pairs
from retailrec.data.parsing import typed_ids
from retailrec.data.splits import Fold
from retailrec.recommender.explanations import _habit
from retailrec.recommender.rules import _touched


def of_lines(*lines: tuple[str, str, str, float | None]) -> RetailData:
    """Receipts from (shopper, item, time, value)."""
    return RetailData.from_frames(
        pl.DataFrame(lines, schema=["user_id", "item_id", "time", "value"], orient="row")
    )


def test_ids_that_are_not_whole_numbers_are_text() -> None:
    assert typed_ids(pl.Series([7.0, 8.0])).to_list() == [7, 8]
    assert typed_ids(pl.Series([7.5, 8.0])).to_list() == ["7.5", "8"]  # as where all are whole


def test_a_price_is_paid_for_every_unit() -> None:
    lines = {"user_id": ["a"], "item_id": ["x"], "time": ["2024-01-01"], "quantity": [3]}
    data = RetailData.from_frames(pl.DataFrame(lines | {"price": [2.5]}))
    assert data.log["value"].to_list() == [7.5]
    some = pl.DataFrame(
        lines | {"price": [2.5], "value": [None]}, schema_overrides={"value": pl.Float64}
    )
    assert RetailData.from_frames(some).log["value"].to_list() == [7.5]


def test_a_receipt_that_names_an_item_twice_has_it_once_and_unknown_stays_unknown() -> None:
    data = of_lines(
        ("a", "x", "2024-01-01", None),
        ("a", "x", "2024-01-01", None),
        ("a", "y", "2024-01-01", None),
        ("a", "y", "2024-01-01", 2.0),
    )
    assert dict(data.log.select(data.items["item_id"].gather(data.log["item"]), "value").rows()) == {
        "x": None,
        "y": 2.0,
    }


def test_three_lines_stand_for_those_that_were_rejected() -> None:
    lines = pl.DataFrame({"user_id": ["a"] * 6, "item_id": ["x"] * 6, "time": ["2024-01-01"] * 6})
    report = RetailData.from_frames(lines.with_columns(quantity=pl.Series([1, 0, 0, 0, 0, 0]))).report
    assert report.rejected == {"zero quantity": 5}
    assert report.examples == {"zero quantity": [1, 2, 3]}


def test_the_age_of_a_pair_is_that_of_its_newest_event() -> None:
    data = of_lines(
        ("a", "x", "2024-01-01", 1), ("a", "x", "2024-01-07", 1), ("b", "x", "2024-01-03", 1)
    )
    history = data.history(["a", "b"])
    np.testing.assert_allclose(history.last_age(), [history.age.min(), history.age.min() + 4])


def test_a_fold_ends_where_it_says() -> None:
    data = of_lines(*[("a", "x", f"2024-01-0{day}", 1) for day in range(1, 8)])
    past, target = Fold(datetime(2024, 1, 3), datetime(2024, 1, 5)).split(data)
    assert past.log["time"].max() == datetime(2024, 1, 2)
    assert target["time"].to_list() == [datetime(2024, 1, 3), datetime(2024, 1, 4)]


def test_best_by_factors_is_the_best_of_what_is_allowed() -> None:
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(n, 8)).astype(np.float32) for n in (5, 300))
    allowed = rng.random(300) < 0.5
    best = FactorIndex(items, allowed).best(users, 4)
    exact = np.where(allowed, users.astype(float) @ items.T.astype(float), -np.inf)
    np.testing.assert_array_equal(best.items, np.argsort(-exact, axis=1)[:, :4])
    np.testing.assert_allclose(best.scores, -np.sort(-exact, axis=1)[:, :4], rtol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_best_by_factors_of_a_prefix_are_those_of_the_whole_catalogue(
    spread: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(5)
    items = rounded(rng.normal(size=(900, 6)) * np.exp(spread * rng.normal(size=(900, 1))))
    users = rounded(rng.normal(size=(40, 6)))
    users[7] = 0
    monkeypatch.setattr(factors, "_FIRST", 60)
    best = FactorIndex(items, np.arange(900) % 7 > 0).best(users, 9)
    scores = users.astype(float) @ items.astype(float).T
    scores[:, np.arange(900) % 7 == 0] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :9]
    expected[7] = -1
    np.testing.assert_array_equal(best.items, expected)


def test_a_pool_keeps_scores_and_ranks_with_their_pairs() -> None:
    scores = np.array([[4.0], [3.0], [9.0]], np.float32)
    pool = Pool(
        np.array([0, 2, 3]), np.array([5, 6, 5], np.int32), ("a",), scores, scores + 10, scores + 20
    )
    kept = pool.keep(np.array([False, True, True]))
    assert kept.indptr.tolist() == [0, 1, 2]
    assert kept.items.tolist() == [6, 5]
    assert [c.ravel().tolist() for c in (kept.scores, kept.ranks, kept.more)] == [
        [3, 9],
        [13, 19],
        [23, 29],
    ]


def test_ranks_of_given_pairs_begin_at_the_best_score() -> None:
    data = of_lines(*[(f"u{n}", "abc"[m], "2024-01-01", 1) for n in range(3) for m in range(n + 1)])
    source = Popularity().fit(data)
    items = np.arange(3, dtype=np.int32)
    pool = score_pool([source], data.history(["u0"]), Pairs(np.array([0, 3]), items))
    assert pool.scores[:, 0].argsort()[::-1].tolist() == pool.ranks[:, 0].argsort().tolist()


def test_nobody_is_like_a_shopper_without_receipts() -> None:
    data = of_lines(*[(f"u{n}", item, "2024-01-01", 1) for n in range(4) for item in "abc"])
    lists = TifuKNN(neighbours=2).fit(data).candidates(data.history(["nobody"]), 2)
    assert (lists.items == -1).all()
    assert lists.scores == pytest.approx(-np.inf)


def test_a_habit_takes_three_purchases() -> None:
    facts = {"pair_receipts": 2.0, "pair_gap": 7.0, "pair_days_since": 3.0}
    assert "usually" not in _habit(facts)
    assert "usually every 7 days" in _habit(facts | {"pair_receipts": 3.0})


def test_a_shopper_who_loses_two_items_to_a_rule_counts_once() -> None:
    first = np.array([[0, 1], [2, 3]], np.int32)
    pairs = Pairs(np.array([0, 3, 5]), np.array([0, 1, 4, 2, 4], np.int32))
    removed = np.array([True, True, True, False, True])
    assert _touched(first, pairs, np.array([0, 0, 0, 1, 1]), removed) == 1

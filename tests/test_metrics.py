"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from conftest import CUTOFF
from retailrec.data import RetailData
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import Judge, evaluate, means, unit_prices
from retailrec.metrics import METRICS
from retailrec.metrics.base import compute_metric
from retailrec.splits import Fold


def context(hits: np.ndarray, n_relevant: np.ndarray) -> dict:
    return {"hits": hits, "n_relevant": n_relevant}


def test_ranking_metrics_agree_with_scikit_learn() -> None:
    """Over full lists, where scikit-learn defines the same thing."""
    rng = np.random.default_rng(0)
    hits = rng.random((50, 12)) < 0.3
    hits[:, 0] |= ~hits.any(axis=1)
    scores = -np.arange(12.0)
    given = context(hits, hits.sum(axis=1))
    ndcg = compute_metric("ndcg@12", given)
    ap = compute_metric("average_precision@12", given)
    for row in range(50):
        assert ndcg[row] == pytest.approx(ndcg_score(hits[[row]], scores[None]))
        assert ap[row] == pytest.approx(average_precision_score(hits[row], scores))
    at5 = compute_metric("ndcg@5", given)
    for row in range(50):
        assert at5[row] == pytest.approx(ndcg_score(hits[[row]], scores[None], k=5))


def test_short_lists_are_counted_over_k() -> None:
    hits = np.array([[True], [False]])
    given = context(hits, np.array([1, 2]))
    assert compute_metric("precision@4", given).tolist() == [0.25, 0.0]
    assert compute_metric("recall@4", given).tolist() == [1.0, 0.0]


def test_nmap_as_x5_counts_it() -> None:
    """AP = sum over hits at rank i of (hits so far) / (i + 1), over 30; over the best possible AP."""
    hits = np.zeros((1, 30), bool)
    hits[0, [0, 2]] = True
    ap = (1 / 1 + 2 / 3) / 30
    best = 5 / 30  # five items bought: five hits on top
    assert compute_metric("nmap@30", context(hits, np.array([5])))[0] == pytest.approx(ap / best)
    assert compute_metric("nmap@30", context(hits & False, np.array([0])))[0] == 0


def test_money_metrics_by_hand() -> None:
    given = {
        "hits": np.array([[True, False], [False, False]]),
        "prices": np.array([[4.0, 1.0], [np.nan, np.nan]]),
        "bought_values": np.array([[8.0, 0.0], [0.0, 0.0]]),
        "spent": np.array([10.0, 0.0]),
    }
    np.testing.assert_array_equal(compute_metric("money_precision@2", given), [0.8, np.nan])
    np.testing.assert_array_equal(compute_metric("money_recall@2", given), [0.8, np.nan])
    np.testing.assert_array_equal(compute_metric("revenue@2", given), [8.0, 0.0])


def test_a_metric_says_what_it_needs() -> None:
    with pytest.raises(SettingError, match="metric 'recall' asks for 'n_relevant'"):
        compute_metric("recall@5", {"hits": np.ones((1, 5), bool)})
    with pytest.raises(SettingError, match="no metric 'accuracy'"):
        compute_metric("accuracy@5", {})
    with pytest.raises(SettingError, match="needs a k of at least 1"):
        compute_metric("precision@0", {})
    assert all(m.meaning for m in METRICS.values())


def test_the_judge_by_brute_force(data: RetailData) -> None:
    past, target = Fold(CUTOFF, data.end).split(data)
    judge = Judge.of(past, target)
    known = set(past.log["user"].to_list())
    buyers = set(target["user"].to_list())
    assert set(judge.users) == known & buyers
    assert judge.n_cold == len(buyers - known)
    rng = np.random.default_rng(2)
    items = np.array([rng.permutation(30)[:6] for _ in judge.users], np.int32)
    items[0, 3:] = -1
    found = judge.per_user(items, ("precision@5", "recall@6", "money_recall@6", "hit_rate@5"))
    for row, user in enumerate(judge.users):
        mine = target.filter(pl.col("user") == user)
        bought = set(mine["item"].to_list())
        assert found["precision@5"][row] == pytest.approx(sum(i in bought for i in items[row, :5]) / 5)
        assert found["recall@6"][row] == pytest.approx(len(bought & set(items[row])) / len(bought))
        spent = mine.filter(pl.col("item").is_in(items[row].tolist()))["value"].sum()
        assert found["money_recall@6"][row] == pytest.approx(spent / mine["value"].sum())
    assert means(found)["hit_rate@5"] == pytest.approx(np.mean(found["precision@5"] > 0))


def test_prices_are_those_of_the_last_day_of_sale(data: RetailData) -> None:
    prices = unit_prices(data.asof(CUTOFF))
    log = data.asof(CUTOFF).log
    for item in log["item"].unique():
        mine = log.filter(pl.col("item") == item)
        last = mine.filter(pl.col("time") == mine["time"].max())
        assert prices[item] == pytest.approx(last["value"].sum() / last["quantity"].sum())
    assert np.isnan(prices[29])  # never sold


def test_evaluate_takes_frames() -> None:
    mine = pl.DataFrame({"user_id": ["a", "a", "c"], "item_id": [1, 2, 1], "rank": [1, 2, 1]})
    bought = pl.DataFrame(
        {"user_id": ["a", "b"], "item_id": [2, 3], "value": [5.0, 1.0], "price": [5.0, 1.0]}
    )
    found = evaluate(mine.to_pandas(), bought, ["precision@2", "mrr@2", "money_recall@2"])
    assert found == {"precision@2": 0.25, "mrr@2": 0.25, "money_recall@2": 0.5}
    with pytest.raises(DataError, match="lack columns"):
        evaluate(mine.drop("rank"), bought)
    with pytest.raises(DataError, match="no purchase"):
        evaluate(mine, bought.clear())
    with pytest.raises(DataError, match="write the ids alike"):
        evaluate(mine.with_columns(pl.col("item_id").cast(pl.String)), bought)

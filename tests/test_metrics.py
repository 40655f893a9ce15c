"""Metrics against scikit-learn and by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from conftest import CUTOFF
from retailrec.data import RetailData, unit_prices
from retailrec.data.retail_data import category_codes
from retailrec.data.splits import Fold
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import Judge, evaluate, judge_frames, means
from retailrec.metrics import METRICS
from retailrec.metrics.base import compute_metric


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


def test_who_bought_more_than_the_list_is_long_can_reach_one() -> None:
    """Ten items bought, three recommended, two of them hits: over three, not over ten."""
    given = context(np.array([[True, False, True], [True, True, True]]), np.array([10, 10]))
    np.testing.assert_allclose(compute_metric("average_precision@3", given), [(1 + 2 / 3) / 3, 1])
    np.testing.assert_allclose(compute_metric("nmap@3", given), [(1 + 2 / 3) / 3, 1])
    assert compute_metric("recall@3", given).tolist() == [0.2, 0.3]
    ideal = [1, 1 / np.log2(3), 0.5]
    np.testing.assert_allclose(compute_metric("ndcg@3", given), [1.5 / sum(ideal), 1])
    full = sum(1 / np.log2(rank + 1) for rank in range(1, 11))
    np.testing.assert_allclose(compute_metric("ndcg_full@3", given), [1.5 / full, sum(ideal) / full])


def test_one_item_is_a_list_and_none_is_not() -> None:
    given = {"hits": np.zeros((3, 2), bool), "n_recommended": np.array([0, 1, 2])}
    assert compute_metric("served@2", given).tolist() == [0, 1, 1]


def test_categories_are_those_of_the_second_level_where_there_is_one() -> None:
    items = pl.DataFrame(
        {"item_id": [1, 2, 3], "category_1": ["a", "a", "b"], "category_2": ["y", "x", None]}
    )
    assert category_codes(items).tolist() == [1, 0, -1]
    assert category_codes(items.drop("category_2")).tolist() == [0, 0, 1]
    assert category_codes(items.select("item_id")) is None
    nothing = items.with_columns(category_2=pl.lit(None, pl.String))
    assert category_codes(nothing).tolist() == [0, 0, 1]


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


def test_money_of_receipts_without_any_is_not_known_which_is_not_nothing() -> None:
    day = [datetime(2024, 1, 1), datetime(2024, 1, 9)]
    log = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 7], "time": day})
    metrics = ("revenue@1", "money_recall@1", "money_precision@1")
    for money, expected in (({}, None), ({"value": [2.0, 3.0]}, [3.0, 1.0, 1.0])):
        priced = RetailData.from_frames(log.with_columns(**{n: pl.Series(v) for n, v in money.items()}))
        judge = Judge.of(*Fold(datetime(2024, 1, 8), priced.end).split(priced))
        found = means(judge.per_user(np.array([[0]], np.int32), metrics))
        assert list(found.values()) == (expected or [None] * 3)


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
        evaluate(mine.with_columns(item_id=pl.Series(["1", "2", "x"])), bought)
    texts = mine.with_columns(pl.col("item_id", "rank").cast(pl.String))  # as a CSV file has them
    assert evaluate(texts, bought, ["precision@2"]) == {"precision@2": 0.25}
    for ranks in ([0, 1, 1], [1, 1.5, 1], [1, None, 1]):
        with pytest.raises(DataError, match="ranks must be whole numbers from 1"):
            evaluate(mine.with_columns(rank=pl.Series(ranks, strict=False)), bought)


LIST_METRICS = (
    "repeat_precision@5",
    "explore_precision@5",
    "repeat_recall@5",
    "explore_recall@5",
    "novelty@5",
    "diversity@5",
    "serendipity@5",
    "coverage@5",
    "gini@5",
    "served@5",
)


def test_repeats_reach_and_surprise_by_brute_force(data: RetailData) -> None:
    past, target = Fold(CUTOFF, data.end).split(data)
    category = pl.Series("category_1", [f"c{i % 4}" if i % 7 else None for i in range(data.n_items)])
    past = replace(
        past, items=past.items.drop("category_1", "category_2", strict=False).with_columns(category)
    )
    judge = Judge.of(past, target)
    rng = np.random.default_rng(3)
    items = np.array([rng.permutation(30)[:6] for _ in judge.users], np.int32)
    items[0, 2:] = -1
    items[1] = -1
    found = judge.per_user(items, LIST_METRICS)
    pairs = set(past.log.select("user", "item").unique().rows())
    n_buyers = {i: sum(item == i for _, item in pairs) for i in range(data.n_items)}
    popular = set(sorted(n_buyers, key=lambda i: (-n_buyers[i], i))[:5])
    n_known = past.log["user"].n_unique()
    for row, user in enumerate(judge.users):
        bought = set(target.filter(pl.col("user") == user)["item"].to_list())
        mine = [i for i in items[row, :5].tolist() if i >= 0]
        repeats = {i for i in bought if (user, i) in pairs}
        assert found["repeat_precision@5"][row] == pytest.approx(len(repeats & set(mine)) / 5)
        assert found["explore_precision@5"][row] == pytest.approx(
            len((bought - repeats) & set(mine)) / 5
        )
        if repeats:
            assert found["repeat_recall@5"][row] == pytest.approx(
                len(repeats & set(mine)) / len(repeats)
            )
        else:
            assert np.isnan(found["repeat_recall@5"][row])
        assert found["serendipity@5"][row] == pytest.approx(len((bought - popular) & set(mine)) / 5)
        assert found["served@5"][row] == (row != 1)
        bits = [-np.log2(max(n_buyers[i], 0.5) / n_known) for i in mine]
        known = [category[i] for i in mine if category[i] is not None]
        different = [a != b for n, a in enumerate(known) for b in known[:n]]
        for name, values in (("novelty@5", bits), ("diversity@5", different)):
            if values:
                assert found[name][row] == pytest.approx(np.mean(values))
            else:
                assert np.isnan(found[name][row])
    shown = items[:, :5][items[:, :5] >= 0]
    counts = np.bincount(shown, minlength=data.n_items)
    n = int(past.recommendable.sum())
    assert found["coverage@5"] == pytest.approx([len(set(shown.tolist())) / n])
    spread = np.abs(counts[:, None] - counts[None]).sum() / (2 * n * counts.sum()) * n / (n - 1)
    assert found["gini@5"] == pytest.approx([spread])


def test_a_judge_of_some_shoppers_agrees_with_the_whole(data: RetailData) -> None:
    past, target = Fold(CUTOFF, data.end).split(data)
    judge = Judge.of(past, target)
    items = np.array([np.random.default_rng(u).permutation(30)[:6] for u in judge.users], np.int32)
    chosen = np.arange(len(judge.users)) % 3 == 1
    metrics = ("precision@5", "recall@5", "money_recall@5", "repeat_recall@5", "novelty@5")
    whole, part = judge.per_user(items, metrics), judge.select(chosen).per_user(items[chosen], metrics)
    for name in metrics:
        np.testing.assert_array_equal(part[name], whole[name][chosen])


def test_items_that_the_catalogue_lacks_are_no_part_of_its_coverage() -> None:
    mine = pl.DataFrame({"user_id": [1, 1, 1], "item_id": ["a", "b", "c"], "rank": [1, 2, 3]})
    catalogue = pl.DataFrame({"item_id": ["a", "z"]})
    found = evaluate(mine, mine, ["coverage@3", "gini@3"], items=catalogue)
    assert found == {"coverage@3": 0.5, "gini@3": 1.0}  # of a and z, a alone


def test_frames_with_history_and_catalogue() -> None:
    mine = pl.DataFrame({"user_id": [1, 1, 2, 9], "item_id": [7, 8, 7, 7], "rank": [1, 2, 1, 1]})
    bought = pl.DataFrame({"user_id": [1, 1, 2, 3], "item_id": [7, 8, 5, 7]})
    before = pl.DataFrame({"user_id": [1, 2, 2], "item_id": [7, 7, 5]})
    items = pl.DataFrame({"item_id": [5, 7, 8, 9], "category_1": ["a", "a", "b", "b"]})
    metrics = [
        "precision@2",
        "repeat_precision@2",
        "explore_precision@2",
        "coverage@2",
        "diversity@2",
        "novelty@1",
    ]
    found = evaluate(mine, bought, metrics, history=before, items=items)
    assert found == {
        "precision@2": 0.5,
        "repeat_precision@2": 0.25,
        "explore_precision@2": 0.25,
        "coverage@2": 0.5,
        "diversity@2": 1.0,
        "novelty@1": 0.0,
    }
    judged = judge_frames({"mine": mine}, bought, 2, history=before)
    assert judged.judge.n_cold == 1  # shopper 3
    assert judged.not_judged == {"mine": 1}  # shopper 9
    with pytest.raises(SettingError, match="asks for 'repeat_hits', which comes with history"):
        evaluate(mine, bought, ["repeat_precision@2"])
    with pytest.raises(SettingError, match="no metric 'repeat_revenue'"):
        evaluate(mine, bought, ["repeat_revenue@2"])


@pytest.mark.parametrize("column", ["rank", "item_id"])
def test_a_list_with_something_twice_is_refused(column: str) -> None:
    mine = pl.DataFrame({"user_id": [1, 1], "item_id": [7, 8], "rank": [1, 2]})
    mine = mine.with_columns(pl.lit(mine[column][0]).alias(column))
    with pytest.raises(DataError, match=f"the same {column} more than once"):
        evaluate(mine, mine)

"""Backtests: folds against the judge by hand, segments, resumption, history's worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.splits import Fold, HorizonSplits, rolling_folds
from retailrec.errors import DataError, SettingError
from retailrec.evaluation import Judge, means
from retailrec.evaluation.backtest import backtest, learning_curve
from retailrec.evaluation.judge import by_segment, segments
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.work import locked

METRICS = ("precision@5", "recall@10", "coverage@5", "repeat_precision@5")


def first_items(past: RetailData, users: np.ndarray, k: int) -> np.ndarray:
    return np.tile(np.arange(k, dtype=np.int32), (len(users), 1))


def test_each_fold_is_what_the_judge_says(shop: RetailData) -> None:
    small = TwoStageRecommender(
        sources=[OwnPurchases(), Popularity()],
        ranker=LightGBMRanker(iterations=10, threads=1),
        label_splits=HorizonSplits(14, 2),
    )
    models = {"own": OwnPurchases(), "function": first_items, "two_stage": small}
    found = backtest(shop, models, horizon_days=14, n_folds=2, metrics=METRICS)
    for fold in rolling_folds(shop.end, horizon=timedelta(days=14), n=2):
        past, target = fold.split(shop)
        judge = Judge.of(past, target)
        history = past.history(codes=judge.users)
        lists = {
            "own": OwnPurchases().fit(past).candidates(history, 10).items,
            "function": first_items(past, judge.users, 10),
            "two_stage": replace(small).fit(past).recommend_codes(history, 10).items,
        }
        for name, items in lists.items():
            rows = found.table.filter(cutoff=fold.cutoff, model=name, segment="all")
            assert dict(rows.select("metric", "mean").rows()) == pytest.approx(
                means(judge.per_user(items, METRICS))
            )
            assert rows["n_users"].unique().to_list() == [len(judge.users)]
    table = found.summary()
    per_fold = found.table.filter(model="own", segment="all", metric="precision@5")["mean"]
    row = table.filter(model="own", metric="precision@5").row(0, named=True)
    assert row["mean"] == pytest.approx(per_fold.mean())
    assert row["spread"] == pytest.approx(per_fold.std())
    assert row["n_folds"] == 2
    assert found.values.height == sum(
        found.table.filter(segment="all", metric="precision@5")["n_users"].to_list()
    )


def test_segments_are_known_before_the_cut(data: RetailData) -> None:
    past, target = Fold(data.end - timedelta(days=28), data.end).split(data)
    judge = Judge.of(past, target)
    found = segments(past, judge.users)
    assert set(found) == {"receipts", "tenure", "favourite", "segment"}
    log = past.log
    for row, user in enumerate(judge.users):
        mine = log.filter(pl.col("user") == user)
        n = mine["basket"].n_unique()
        group = "1" if n == 1 else "2 to 5" if n <= 5 else "6 to 20" if n <= 20 else "more than 20"
        assert found["receipts"][row] == group
        days = (past.end - mine["time"].min()).days
        assert found["tenure"][row] == (
            "0 to 4 weeks" if days <= 28 else "5 to 26 weeks" if days <= 182 else "over 26 weeks"
        )
        counts = past.items["category_1"].gather(mine["item"]).value_counts()
        assert (
            found["favourite"][row]
            in counts.filter(pl.col("count") == counts["count"].max())["category_1"].to_list()
        )
        assert found["segment"][row] == data.users["segment"][int(user)]


def test_groups_of_a_segment_add_up() -> None:
    values = {"precision@5": np.array([0.2, 0.4, 0.6, np.nan]), "coverage@5": np.array([0.5])}
    groups = {"size": pl.Series(["a", "b", "a", None])}
    found = by_segment(values, groups)
    assert found.rows() == [
        ("all", "all", "precision@5", pytest.approx(0.4), 4),
        ("all", "all", "coverage@5", 0.5, 4),
        ("size", "a", "precision@5", pytest.approx(0.4), 2),
        ("size", "b", "precision@5", 0.4, 1),
    ]


@dataclass
class Counting(OwnPurchases):
    """Notes each fit."""

    fits: list[str] = field(default_factory=list, repr=False, compare=False)

    def _fit(self, data: RetailData) -> None:
        self.fits.append(str(data.end))
        super()._fit(data)


def test_a_finished_fold_is_not_computed_again(shop: RetailData, tmp_path: Path) -> None:
    model = Counting()
    settings = {"horizon_days": 14, "n_folds": 2, "metrics": METRICS, "store": tmp_path}
    first = backtest(shop, {"own": model}, **settings)
    assert len(model.fits) == 2
    again = backtest(shop, {"own": model, "popular": Popularity()}, **settings)
    assert len(model.fits) == 2
    assert again.table.filter(model="own").equals(first.table)
    assert again.values.filter(model="own").equals(first.values)
    more = backtest(shop, {"own": model}, **(settings | {"n_folds": 3}))
    assert len(model.fits) == 3
    assert more.table["cutoff"].n_unique() == 3
    backtest(shop, {"own": replace(model, fits=model.fits, weighting="recency")}, **settings)
    assert len(model.fits) == 5  # other settings are another model
    other = replace(shop, log=shop.log.with_columns(pl.col("item").reverse()))
    backtest(other, {"own": model}, **settings)
    assert len(model.fits) == 7  # and so are other receipts


def test_more_history_is_worth_more(shop: RetailData) -> None:
    split = Fold(shop.end - timedelta(days=28), shop.end).split(shop)
    found = learning_curve(split, OwnPurchases(), days=(14, 56, 1000, 2000))
    assert found["days"].to_list() == [14, 56, 1000]  # 2000 days would be the same receipts
    assert found["lines"].is_sorted()
    assert found["precision@5"][0] < found["precision@5"][2]


def test_bad_asks(shop: RetailData) -> None:
    with pytest.raises(SettingError, match="no model"):
        backtest(shop, {})
    with pytest.raises(DataError, match="too short for 90 folds"):
        backtest(shop, {"own": OwnPurchases()}, n_folds=90)


def test_a_fold_that_was_cut_or_altered_is_computed_again(shop: RetailData, tmp_path: Path) -> None:
    model = Counting()
    settings = {"horizon_days": 14, "n_folds": 2, "metrics": METRICS, "store": tmp_path}
    first = backtest(shop, {"own": model}, **settings)
    one, two = sorted(tmp_path.glob("*.parquet"))
    one.write_bytes(one.read_bytes()[:-9])
    pl.read_parquet(two).with_columns(pl.lit(1.0).alias(METRICS[0])).write_parquet(two)
    again = backtest(shop, {"own": model}, **settings)
    assert len(model.fits) == 4
    assert again.values.equals(first.values)
    one.with_suffix(".json").unlink()
    two.with_suffix(".json").write_text('{"rows": 1}')
    assert backtest(shop, {"own": model}, **settings).values.equals(first.values)
    assert len(model.fits) == 6


def test_a_store_of_folds_is_held_while_it_is_in_use(shop: RetailData, tmp_path: Path) -> None:
    settings = {"horizon_days": 14, "n_folds": 1, "metrics": METRICS, "store": tmp_path}
    with locked(tmp_path), pytest.raises(DataError, match="another process is writing"):
        backtest(shop, {"own": OwnPurchases()}, **settings)


def test_functions_that_captured_different_things_are_different_models(
    shop: RetailData, tmp_path: Path
) -> None:
    def always(item: int) -> Callable[[RetailData, Any, int], Any]:
        return lambda data, users, k: np.tile(
            np.arange(item, item + k, dtype=np.int32), (len(users), 1)
        )

    settings = {"horizon_days": 14, "n_folds": 1, "metrics": METRICS, "store": tmp_path}
    models = {"first": always(0), "second": always(40)}
    found = backtest(shop, models, **settings)
    alone = backtest(shop, {"second": always(40)}, **(settings | {"store": None}))
    assert found.table.filter(model="second").equals(alone.table)
    assert not found.table.filter(model="first")["mean"].equals(alone.table["mean"])


def test_what_can_not_be_compared_is_judged_again_by_any_process(
    shop: RetailData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first process of a container has the same number, and its objects the same places, each time.
    monkeypatch.setattr("os.getpid", lambda: 1)
    taste = np.arange(5, dtype=np.int32)
    settings = {"horizon_days": 14, "n_folds": 1, "metrics": METRICS, "store": tmp_path}

    def judge() -> pl.DataFrame:
        model = {"taste": lambda data, users, k: np.tile(taste[:k], (len(users), 1))}
        return backtest(shop, model, **settings).table

    before = judge()
    taste += 40  # as another object at this place
    assert not judge()["mean"].equals(before["mean"])


@pytest.mark.parametrize(
    ("lists", "said"),
    [
        (lambda users, k: np.zeros((len(users), k), np.int32), "list with an item twice"),
        (lambda users, k: np.zeros((len(users), k)), "array of float64"),
        (lambda users, k: np.tile(np.arange(k) + 10**6, (len(users), 1)), "list with code"),
        (lambda users, k: np.tile(np.arange(k) - 9, (len(users), 1)), "list with code"),
        (lambda users, k: np.tile(np.arange(k), (2, 1)), "array of int64, (2, "),
        (lambda users, k: None, "array of object"),
    ],
)
def test_lists_of_a_function_are_looked_at(
    data: RetailData, lists: Callable[..., Any], said: str
) -> None:
    """An item that stands twice in a list was counted as two hits."""
    with pytest.raises(DataError) as refused:
        backtest(data, {"mine": lambda past, users, k: lists(users, k)}, horizon_days=14, n_folds=1)
    assert said in str(refused.value)
    assert "no item twice" in str(refused.value)


def test_a_longer_list_of_a_function_is_cut_and_none_fills_a_shorter_one(data: RetailData) -> None:
    def long(past: RetailData, users: Any, k: int) -> Any:
        return np.tile([*range(k), -1, -1, 9], (len(users), 1))

    settings: Any = {"horizon_days": 14, "n_folds": 1, "metrics": ["precision@3"]}
    cut = backtest(data, {"m": long}, **settings).values["precision@3"]
    assert cut.equals(backtest(data, {"m": first_items}, **settings).values["precision@3"])


def test_a_frame_of_receipts_is_judged_as_the_data_made_of_it(data: RetailData) -> None:
    lines = data.log.select(user_id="user", item_id="item", time="time")
    models = {"popular": Popularity()}
    options: dict[str, Any] = {"horizon_days": 7, "n_folds": 1, "metrics": ["recall@5"]}
    of_frame = backtest(lines, models, **options).summary()
    assert of_frame.equals(backtest(RetailData.from_frames(lines), models, **options).summary())


@pytest.mark.parametrize("settings", [{"metrics": []}, {"horizon_days": float("nan")}])
def test_without_a_metric_or_a_horizon_nothing_is_judged(
    data: RetailData, settings: dict[str, Any]
) -> None:
    with pytest.raises(SettingError, match=r"at least one|must be above 0"):
        backtest(data, {"own": OwnPurchases()}, **settings)

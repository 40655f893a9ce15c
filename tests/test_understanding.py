"""Reasons, importances, dependence and probabilities."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import (
    CandidateGenerator,
    ItemItem,
    OwnPurchases,
    PopularInCategories,
    Popularity,
    TifuKNN,
)
from retailrec.data import RetailData
from retailrec.data.splits import Fold, HorizonSplits
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.inspection import (
    by_family,
    held_out_reliability,
    importances,
    partial_dependence,
)
from retailrec.rankers import LightGBMRanker, TrainingFrame
from retailrec.recommender.explanations import reasons_in_words
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

DATA = small_data(users=250, items=500)


def sources() -> list[CandidateGenerator]:
    return [OwnPurchases(), TifuKNN(), Popularity(), ItemItem("tfidf", within="receipt")]


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    past = DATA.asof(DATA.end - timedelta(days=28))
    return TwoStageRecommender(
        sources=sources(),
        ranker=LightGBMRanker(threads=1),
        label_splits=HorizonSplits(28, n=3),
        calibrate=True,
    ).fit(past)


def test_reasons_state_the_facts_of_the_receipts() -> None:
    lines = {
        "user_id": ["ann"] * 4 + ["bob"] * 2,
        "item_id": ["pasta", "pasta", "pasta", "sauce", "pasta", "sauce"],
        "time": ["2024-01-01", "2024-01-11", "2024-01-21", "2024-01-21", "2024-01-05", "2024-01-05"],
    }
    data = RetailData.from_frames(pl.DataFrame(lines))
    source = ItemItem(within="receipt", profile="last_receipt").fit(data)
    score = f"source_{source.name}_score"
    names = ["pair_receipts", "pair_days_since", "pair_gap", score, "item_buyers_28d"]
    x = np.array([[3, 9, 10, 0, 2], [np.nan, np.nan, np.nan, 1, 2]], np.float32)
    why = np.array([[2, 0, 0, -1, 1], [0, 0, 0, 1, -1]], np.float32)
    shopper, items = np.array([0, 0]), np.array([0, 1], np.int32)
    found = reasons_in_words(
        x, names, why, shopper, items, data.history(codes=[0]), [source], ["Pasta", "Sauce"]
    )
    assert found == [
        "bought 3 times, usually every 10 days, last 9 days ago; bought by 2 shoppers in four weeks",
        "goes with Pasta, on the last receipt",
    ]


@pytest.mark.parametrize("tea", [False, True])
def test_a_reason_names_a_partner_once(tea: bool) -> None:
    days = ["2024-01-21", "2024-01-05", "2024-01-05"] + ["2024-01-11", "2024-01-06", "2024-01-06"] * tea
    lines = {
        "user_id": ["ann", "bob", "bob"] + ["ann", "bob", "bob"] * tea,
        "item_id": ["pasta", "pasta", "sauce"] + ["tea", "tea", "sauce"] * tea,
        "time": days,
    }
    data = RetailData.from_frames(pl.DataFrame(lines))
    profiles = ("last_receipt", "history")
    both = [ItemItem(within="receipt", profile=profile).fit(data) for profile in profiles]
    found = reasons_in_words(
        np.ones((1, 2), np.float32),
        [f"source_{source.name}_score" for source in both],
        np.array([[2, 1]], np.float32),
        np.zeros(1, np.int64),
        np.ones(1, np.int32),
        data.history(codes=[0]),
        both,
        ["Pasta", "Sauce", "Tea"],
    )
    assert found == ["goes with Pasta, on the last receipt" + "; goes with Tea, bought before" * tea]


def told(names: list[str], x: list[list[float]], why: list[list[float]], **more: bool) -> list[str]:
    """Reasons of one shopper's list, of a shop where pasta and sauce were bought."""
    lines = {"user_id": ["ann"] * 2, "item_id": ["pasta", "sauce"], "time": ["2024-01-01"] * 2}
    data = RetailData.from_frames(pl.DataFrame(lines))
    found = TifuKNN(), Popularity()
    n = len(x)
    return reasons_in_words(
        np.array(x, np.float32),
        names,
        np.array(why, np.float32),
        np.zeros(n, np.int64),
        np.arange(n, dtype=np.int32),
        data.history(codes=[0]),
        found,
        ["Pasta", "Sauce"],
        **more,
    )


def test_what_most_of_a_list_shares_gives_way_to_what_sets_an_item_apart() -> None:
    names = ["source_tifu_knn_score", "pair_receipts", "item_price_28d_ratio"]
    nan = np.nan
    x = [[1, 1, 0.8], [1, nan, 1], [1, 1, 1], [1, nan, 0.5]]
    why = [[9, 1, 1], [9, 1, 1], [9, 1, 1], [9, 1, 1]]
    assert told(names, x, why) == [
        "bought once; 20% below its usual price",
        "shoppers with a like basket buy it",
        "bought once",
        "50% below its usual price",
    ]
    assert told(names, x[:1], why[:1]) == [
        "shoppers with a like basket buy it; bought once; 20% below its usual price"
    ]


def test_what_was_due_long_ago_has_lapsed() -> None:
    names = ["match_due", "pair_receipts", "pair_days_since", "pair_gap"]
    found = told(names, [[1, 5, 61, 3], [1, 5, 9, 3], [1, 5, 3, 3], [1, 5, 2, 3]], [[2, 1, 0, 0]] * 4)
    assert [text.split("; ")[0] for text in found] == [
        "lapsed: not bought for 61 days, once every 3 days",
        "due: 9 days since the last purchase, usually 3 days",
        "due: 3 days since the last purchase, usually 3 days",
        "bought 5 times, usually every 3 days, last 2 days ago",
    ]


def test_an_item_for_which_nothing_speaks_is_called_what_it_is() -> None:
    names = ["item_buyers", "item_age", "item_buyers_28d"]
    x = [[np.nan] * 3, [0, np.nan, 0], [3, 5, 3], [7, 300, 4], [7, 300, 0], [1, 300, 0], [7, 300, 1]]
    said = [
        "new in the shop: nobody bought it yet",
        "new in the shop: nobody bought it yet",
        "new in the shop, for 5 days",
        "bought by 4 shoppers in four weeks",
        "bought by 7 shoppers so far",
        "bought by 1 shopper so far",
        "bought by 1 shopper in four weeks",
    ]
    assert told(names, x, [[-1.0] * 3] * len(x)) == said
    assert told(names, x, [[-1.0] * 3] * len(x), listed=True) == [
        f"on the campaign's list; {s}" for s in said
    ]
    assert told(["own"], [[1.0]], [[0.0]]) == ["next best by everything that is known"]


def test_a_bestseller_of_its_category_is_called_so() -> None:
    source = "source_popular_in_category_1"
    names = [f"{source}_score", f"{source}_rank", "item_buyers_28d"]
    lines = {"user_id": ["ann"], "item_id": ["tea"], "time": ["2024-01-01"]}
    items = pl.DataFrame({"item_id": ["tea"], "category_1": ["drinks"]})
    data = RetailData.from_frames(pl.DataFrame(lines), items)
    found = [
        reasons_in_words(
            np.array([[1, rank, 9]], np.float32),
            names,
            np.array([[1, 0, 0]], np.float32),
            np.zeros(1, np.int64),
            np.zeros(1, np.int32),
            data.history(codes=[0]),
            [PopularInCategories("category_1")],
            ["Tea"],
        )
        for rank in (20, 21)
    ]
    assert found == [["a bestseller of its category"], ["bought by 9 shoppers in four weeks"]]


def test_every_recommendation_has_a_reason_and_is_the_same(model: TwoStageRecommender) -> None:
    history = DATA.history(codes=np.arange(50))
    told = model.explain(history, k=5)
    assert told.drop("reasons").equals(model.recommend(history, k=5))
    assert (told["reasons"].str.len_chars() > 10).all()
    bought = DATA.log.filter(pl.col("user") < 50).group_by("user", "item").agg(pl.len().alias("n"))
    bought = bought.with_columns(
        user_id=DATA.users["user_id"].gather(bought["user"]),
        item_id=DATA.items["item_id"].gather(bought["item"]),
    )
    stated = told.with_columns(
        n=pl.col("reasons").str.extract(r"bought (\d+) times, usually").cast(int)
    )
    checked = stated.drop_nulls("n").join(bought, on=["user_id", "item_id"])
    assert checked.height > 50
    assert (checked["n"] == checked["n_right"]).all()
    unknown = model.explain(DATA.history(codes=[-1]), k=3)
    assert unknown["reasons"].str.contains("shoppers").all()


def test_shuffling_a_useful_column_costs_and_a_useless_one_does_not(model: TwoStageRecommender) -> None:
    """On rows of the window that the model was not fitted on."""
    later = TwoStageRecommender(sources=sources(), preranker=None, label_splits=HorizonSplits(28, n=1))
    frame = later.training_frame(DATA)
    found = importances(model.ranker_, frame, model.features_.families, shoppers=100)
    assert found.height == len(frame.names)
    assert found["gain"].sum() == pytest.approx(1)
    assert found["permutation"].is_sorted(descending=True)
    assert found["permutation"][0] > 0
    useless = found.filter(pl.col("gain") == 0)
    assert useless.height > 0
    assert (useless["permutation"] == 0).all()
    families = by_family(found)
    assert families["columns"].sum() == len(frame.names)
    assert {"source", "pair", "item"} <= set(families["family"])


def test_permutation_importance_by_hand() -> None:
    """What NDCG@10 loses when a column is dealt anew: all of it where the score is that column."""
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 25)
    x = rng.random((1000, 2)).astype(np.float32)
    best = x[:, 0].reshape(40, 25).argmax(axis=1) + 25 * np.arange(40)
    y = np.zeros(1000, np.float32)
    y[best] = 1  # one purchase a shopper, of the item that the column puts on top
    rows = TrainingFrame(x, y, groups, np.ones(1000, np.float32), np.zeros(1000), ["tells", "idle"])

    class First:
        """Scores by the first column, and says that it looked at both."""

        def predict(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0]

        def importances(self) -> np.ndarray:
            return np.array([0.5, 0.5])

    found = importances(First(), rows, {"tells": "pair"})  # type: ignore[arg-type]
    lost = dict(found.select("column", "permutation").iter_rows())
    assert lost["idle"] == 0
    by_chance = np.mean([1 / np.log2(r + 1) if r <= 10 else 0 for r in range(1, 26)])
    assert lost["tells"] == pytest.approx(1 - by_chance, abs=0.1)
    assert found["family"].to_list() == ["pair", "source"]


def test_dependence_follows_the_ranker() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((2000, 2)).astype(np.float32)
    y = (rng.random(2000) < x[:, 0]).astype(np.float32)
    rows = TrainingFrame(
        x, y, np.arange(2000) // 20, np.ones(2000, np.float32), np.zeros(2000), ["rises", "idle"]
    )
    ranker = LightGBMRanker("binary", iterations=30, column_share=1, min_rows=20, threads=1).fit(rows)
    rises = partial_dependence(ranker, rows, "rises")["score"].to_numpy()
    idle = partial_dependence(ranker, rows, "idle")["score"].to_numpy()
    assert rises[-1] - rises[0] > 0.6
    assert np.ptp(idle) < 0.2
    with pytest.raises(SettingError, match="no column 'age'"):
        partial_dependence(ranker, rows, "age")


def test_probabilities_hold_on_a_window_that_nothing_was_fitted_on(model: TwoStageRecommender) -> None:
    held_out = Fold(DATA.end - timedelta(days=28), DATA.end).split(DATA)
    table = held_out_reliability(model, held_out, k=40, bins=5)
    assert table["n"].sum() == 40 * len(held_out.past.active_users())
    off = (table["predicted"] - table["observed"]).abs()  # bins of equal size
    assert off.mean() < 0.06  # expected calibration error; .3 and more without the rows' weights
    assert off.max() < 0.12
    assert table["observed"][-1] > 3 * table["observed"][0]


def test_probability_is_a_column_and_survives_saving(
    model: TwoStageRecommender, tmp_path: Path
) -> None:
    history = DATA.history(codes=np.arange(20))
    found = model.recommend(history, k=5)
    assert found.columns == ["user_id", "item_id", "score", "rank", "probability"]
    assert found["probability"].is_between(0, 1).all()
    model.save(tmp_path / "m")
    assert TwoStageRecommender.load(tmp_path / "m").recommend(history, k=5).equals(found)


def test_margins_weigh_calibrated_probabilities(model: TwoStageRecommender) -> None:
    history = DATA.history(codes=np.arange(20))
    dear = model.recommend(history, k=5)["item_id"][3]
    margin = pl.DataFrame({"item_id": DATA.items["item_id"]}).with_columns(
        margin=pl.when(pl.col("item_id") == dear).then(1000.0).otherwise(1.0)
    )
    found = model.recommend(history, k=1, rules=Rules(margin=margin))
    assert (found["item_id"] == dear).mean() > (model.recommend(history, k=1)["item_id"] == dear).mean()


def test_calibration_needs_a_window_to_spare() -> None:
    few = TwoStageRecommender(
        sources=[Popularity()], preranker=None, calibrate=True, label_splits=HorizonSplits(n=1)
    )
    with pytest.raises(DataError, match="at least two label windows"):
        few.fit(DATA)

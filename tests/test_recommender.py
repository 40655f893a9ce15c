"""The recommender's own steps: the cut, label windows, early stopping, the present, the refit of `run`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray

from conftest import CUTOFF
from retailrec.candidates import OwnPurchases, Popularity
from retailrec.candidates.pool import merge_pool
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits, align_next_basket
from retailrec.features.assemble import FeatureSet
from retailrec.jobs.evaluate import hold_out
from retailrec.jobs.run import run
from retailrec.jobs.settings import Settings
from retailrec.rankers import CatBoostRanker, LightGBMRanker
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data


@dataclass
class Taste:
    """A pre-ranker that likes one of its columns, low or high, and shows what it was shown."""

    column: int = 0
    sign: float = 1.0
    seen: list[NDArray[np.float32]] = field(default_factory=list)

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        self.seen.append(x)
        return np.asarray(self.sign * x[:, self.column], np.float32)


@pytest.fixture(scope="module")
def small() -> RetailData:
    return small_data(users=60, weeks=40)


def quick(**more: Any) -> TwoStageRecommender:
    given = {
        "sources": [OwnPurchases(), Popularity()],
        "ranker": LightGBMRanker(iterations=8, threads=1),
        "n_candidates": 20,
        "label_splits": HorizonSplits(14, n=3),
        "preranker": None,
        "threads": 1,
    }
    return TwoStageRecommender(**(given | more))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_pool_is_cut_in_the_order_of_the_pre_rankers_scores(data: RetailData, sign: float) -> None:
    """By a column that no source orders by: an item's age. Ties go to the lower item."""
    known = data.asof(CUTOFF)
    sources = [OwnPurchases().fit(known), Popularity().fit(known)]
    features = FeatureSet().fit(known)
    whole = StageOne(sources, features, 12)
    taste = Taste(whole.preranker_names.index("item_days_since_sale"), sign)
    stage = StageOne(sources, features, 12, taste, pool_size=5)  # type: ignore[arg-type]
    history = known.history()
    pool, cut = whole.pool(history), stage.pool(history)
    age = sign * features.items_[:, features.item_names.index("item_days_since_sale")]
    for row in range(len(history)):
        proposed = pool.items[pool.indptr[row] : pool.indptr[row + 1]]
        best = sorted(proposed, key=lambda item: (-age[item], item))[:5]
        assert cut.items[cut.indptr[row] : cut.indptr[row + 1]].tolist() == sorted(best)
    assert len(cut.items) < len(pool.items)


def test_a_pre_ranker_sees_scores_ranks_and_what_is_known_of_the_item(data: RetailData) -> None:
    known = data.asof(CUTOFF)
    sources = [OwnPurchases().fit(known), Popularity().fit(known)]
    features, taste = FeatureSet().fit(known), Taste()
    stage = StageOne(sources, features, 12, taste, pool_size=5)  # type: ignore[arg-type]
    history = known.history()
    stage.pool(history)
    whole = merge_pool(sources, history, 12)
    expected = np.hstack([whole.scores, whole.ranks, features.items_[whole.items]])
    np.testing.assert_array_equal(taste.seen[0], expected)
    assert len(stage.preranker_names) == expected.shape[1]


def test_the_first_window_trains_the_pre_ranker_and_the_cut_is_as_wide_as_asked(
    small: RetailData,
) -> None:
    model = quick(preranker=CatBoostRanker(iterations=5, threads=1), pool_size=7).fit(
        small, keep_rows=True
    )
    frame = model.candidate_frame(small.history())
    assert np.diff(frame.pool.indptr).max() == 7
    cutoffs = [split.past.end.isoformat() for split in HorizonSplits(14, n=3).splits(small)]
    assert [w["cutoff"] for w in model.report_["windows"]] == cutoffs[1:]
    assert quick().fit(small).report_["windows"][0]["cutoff"] == cutoffs[0]


def test_early_stopping_finds_the_trees_then_learns_from_all_windows(small: RetailData) -> None:
    ranker = LightGBMRanker(
        iterations=200, early_stopping=5, learning_rate=0.5, min_rows=5, threads=1, column_share=1.0
    )
    given = {"early_stopping": True, "negatives": 1.0, "idle_users": 1.0, "prior": "none"}
    model = quick(ranker=ranker, **given)
    model.fit(small, keep_rows=True)
    rows = model.training_rows
    assert rows is not None
    newest = rows.fold == rows.fold.max()
    stopped = replace(ranker).fit(rows.rows(~newest), rows.rows(newest))
    assert 1 < stopped.n_trees < 200
    assert model.report_["trees"] == stopped.n_trees
    assert set(model.report_["learning_curve"]) == {"learn", "validation"}
    expected = replace(ranker, iterations=stopped.n_trees).fit(rows)
    fitted = model.ranker_
    assert fitted.n_trees == stopped.n_trees
    np.testing.assert_array_equal(fitted.predict(rows.x), expected.predict(rows.x))
    assert not np.array_equal(stopped.predict(rows.x), expected.predict(rows.x))
    assert quick(ranker=ranker, early_stopping=True, label_splits=HorizonSplits(14, n=1)).fit(small)
    plain = quick(ranker=replace(ranker, iterations=12)).fit(small)
    assert "trees" not in plain.report_
    assert plain.ranker_.n_trees == 12


@pytest.mark.parametrize("shift", [-30, 0, 30])
def test_the_present_is_the_later_of_the_two_ends(small: RetailData, shift: int) -> None:
    """A file whose last receipt is old is not a view from back then; a newer one moves the clock."""
    model = quick().fit(small)
    end = small.end + timedelta(days=shift)
    log = small.log.filter((pl.col("user") < 5) & (pl.col("time") < end))
    ids = log.select(
        small.users["user_id"].gather(log["user"]),
        small.items["item_id"].gather(log["item"]),
        "time",
        pl.col("basket").alias("basket_id"),
    )
    last = log.filter(pl.col("user") == 0)["time"].max()
    assert isinstance(last, datetime)
    for fresh in (
        RetailData(log, small.items, small.users, end),  # the model's codes
        RetailData.from_frames(ids, end=end),  # others, fewer
    ):
        served, unplaced = model.coded(fresh)
        assert served.end == max(end, small.end)
        assert unplaced.n_unknown == 0
        age = served.history(codes=[0]).age.min()
        assert age == pytest.approx((served.end - last).total_seconds() / 86_400, rel=1e-5)


def test_a_next_basket_comes_a_day_after_the_last_one(data: RetailData) -> None:
    """Gaps further back stay as they were; the gap to the target is the documented day."""
    aligned, fold = align_next_basket(data)
    assert fold.end - fold.cutoff == timedelta(days=1)
    past, target = fold.split(aligned)
    assert (target["time"] == fold.cutoff).all()
    newest = past.log.group_by("user").agg(pl.col("time").max())["time"]
    assert newest.unique().to_list() == [fold.cutoff - timedelta(days=1)]
    known = data.log.filter(pl.col("basket") < pl.col("basket").max().over("user"))
    for user in past.active_users()[:10]:
        before, after = (
            log.filter(pl.col("user") == user)["time"].unique().sort().diff().drop_nulls().to_list()
            for log in (known, past.log)
        )
        assert before == after


SETTINGS = Settings(
    horizon_days=14,
    k=3,
    label_windows=2,
    prerank=False,
    threads=1,
    n_candidates=20,
    ranker={"type": "lightgbm", "iterations": 8},
    sources=[{"type": "own_purchases"}, {"type": "popularity"}],
)


def test_run_judges_a_model_of_the_past_and_writes_one_of_everything(
    small: RetailData, tmp_path: Path
) -> None:
    result = run(small, SETTINGS, tmp_path / "out", page=False)
    written = pl.read_parquet(tmp_path / "out" / "recommendations.parquet")
    saved = TwoStageRecommender.load(tmp_path / "out" / "model")
    assert saved.end_ == small.end
    assert saved.recommend(small.history(), k=3).equals(written)
    held_out = hold_out(small, SETTINGS)
    past = SETTINGS.model().fit(held_out.past, keep_rows=True)
    assert result["evaluation"]["cutoff"] == held_out.past.end.isoformat()
    assert result["label_windows"] == past.report_["windows"]
    # its stage one is of all data, and its ranker learnt from the newest window, which the other lacks
    everything = SETTINGS.model().fit(small, earlier=past)
    assert everything.recommend(small.history(), k=3).equals(written)
    assert not past.recommend(small.history(), k=3).equals(written)
    popular = next(s for s in saved.sources_ if isinstance(s, Popularity))
    np.testing.assert_array_equal(popular.share_, Popularity().fit(small).share_)

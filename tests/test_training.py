"""Training rows: which are kept, taken over and put below each other."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.compute.draws import lots
from retailrec.data import RetailData
from retailrec.data.prefilters import AllowItems
from retailrec.data.splits import HorizonSplits
from retailrec.errors import DataError, SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import CatBoostRanker, LightGBMRanker, TrainingFrame
from retailrec.rankers.base import Calibrator
from retailrec.recommender.label_windows import (
    Sampling,
    Window,
    Windows,
    concatenate,
    preranker_rows,
)
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

WEEKS = 14.0


@pytest.fixture(scope="module")
def shop() -> RetailData:
    return small_data(users=120)


def model(**more: object) -> TwoStageRecommender:
    given = {
        "sources": [OwnPurchases(), Popularity()],
        "ranker": CatBoostRanker(iterations=5, threads=1),
        "n_candidates": 20,
        "label_splits": HorizonSplits(WEEKS, n=3),
        "preranker": None,
    }
    return TwoStageRecommender(**(given | more))  # type: ignore[arg-type]


def frame(n: int, value: float, groups: list[int], fold: int) -> TrainingFrame:
    x = np.full((n, 2), value, np.float32)
    flat = np.full(n, value, np.float32)
    return TrainingFrame(x, flat, np.array(groups), flat + 1, np.full(n, fold, np.int16), ["a", "b"])


def test_users_without_receipts_change_no_list_of_the_others() -> None:
    """Draws hang on ids: with those on places, every list was another one."""
    shop = small_data(users=80, weeks=30, items=180)
    people, log = shop.users.cast({"user_id": pl.Int64}), shop.log
    lines = log.select(
        people["user_id"].gather(log["user"]),
        shop.items["item_id"].gather(log["item"]),
        "time",
        "value",
    )
    more = [*range(-10, 0), *range(10**6, 10**6 + 10)]
    crowd = pl.concat([people, pl.DataFrame({"user_id": more})], how="diagonal")
    lists = []
    for users in (people, crowd):
        data = RetailData.from_frames(lines, users=users)
        model = TwoStageRecommender(
            ranker=LightGBMRanker(iterations=20, threads=1),
            label_splits=HorizonSplits(14, n=1),
            negatives=0.3,
            idle_users=0.5,
            max_users=40,
            threads=1,
        ).fit(data)
        lists.append(model.recommend(data, people["user_id"], k=8))
    assert lists[0].equals(lists[1])


def test_rows_come_below_each_other_and_groups_are_numbered_on() -> None:
    frames = [frame(3, 1, [0, 0, 2], 0), frame(0, 9, [], 0), frame(2, 2, [0, 1], 1)]
    whole = concatenate(frames)
    assert frames == []  # used up
    np.testing.assert_array_equal(whole.x, [[1, 1]] * 3 + [[2, 2]] * 2)
    assert whole.x.flags.f_contiguous
    assert whole.y.tolist() == [1, 1, 1, 2, 2]
    assert whole.weights.tolist() == [2, 2, 2, 3, 3]
    assert whole.groups.tolist() == [0, 0, 2, 3, 4]
    assert whole.fold.tolist() == [0, 0, 0, 1, 1]


def test_a_window_comes_out_as_it_went_in() -> None:
    kept = Windows.of(
        [
            Window("one", [frame(2, 1, [0, 1], 0)], {"rows": 2}),
            Window("two", [frame(1, 2, [0], 1), frame(2, 3, [0, 1], 1)], {"rows": 3}),
        ]
    )
    found = kept.window("two", 7)
    assert found.facts == {"rows": 3}
    assert found.frames[0].y.tolist() == [2, 3, 3]
    assert found.frames[0].groups.tolist() == [0, 1, 2]
    assert found.frames[0].fold.tolist() == [7, 7, 7]


def test_rows_are_kept_only_if_wanted(shop: RetailData) -> None:
    assert model().fit(shop).training_rows is None
    kept = model().fit(shop, keep_rows=True).training_rows
    assert kept is not None
    assert len(kept.y) == sum(w["rows"] for w in model().fit(shop).report_["windows"])


@pytest.mark.parametrize("refit", ["each", "once"])
def test_windows_of_an_earlier_fit_are_not_computed_again(
    shop: RetailData, refit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    past = shop.asof(next(iter(HorizonSplits(WEEKS, n=1).splits(shop))).past.end)
    more = {"refit": refit, "negatives": 1, "idle_users": 1}  # else draws go by the window's number
    earlier = model(**more).fit(past, keep_rows=True)
    computed: list[int] = []
    window = TwoStageRecommender._window

    def counted(self: TwoStageRecommender, *given: object) -> Window:
        computed.append(1)
        return window(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(TwoStageRecommender, "_window", counted)
    quick = model(**more)
    rows = quick.training_frame(shop, earlier=earlier)
    assert len(computed) == 1  # the newest; two are known
    assert earlier.training_rows is None  # they have moved
    assert [w["cutoff"] for w in quick.report_["windows"]] == sorted(
        w["cutoff"] for w in quick.report_["windows"]
    )
    assert np.unique(rows.fold).tolist() == [0, 1, 2]
    assert (np.diff(rows.groups) >= 0).all()
    handed = model(**more).fit(past, keep_rows=True)
    heir = handed.hand_over()
    assert handed.training_rows is None  # they have moved
    assert not hasattr(heir, "sources_")  # the rest stays
    np.testing.assert_array_equal(rows.x, model(**more).training_frame(shop, earlier=heir).x)
    if refit == "each":  # else the newest window's sources were fitted on other data, as documented
        np.testing.assert_array_equal(rows.x, model(**more).training_frame(shop).x)
    handed = model(**more).fit(past, keep_rows=True)
    assert handed.training_rows is not None
    before, learnt = len(handed.training_rows.y), handed.report_["windows"]
    pruned = handed.hand_over(shop)  # its oldest window is too old for the next fit
    assert pruned.training_rows is not None
    assert len(pruned.training_rows.y) == before - learnt[0]["rows"] < before
    computed.clear()
    np.testing.assert_array_equal(rows.x, model(**more).training_frame(shop, earlier=pruned).x)
    assert len(computed) == 1
    forgetful = model(**more).fit(past)
    computed.clear()
    model(**more).training_frame(shop, earlier=forgetful)
    assert len(computed) == 3  # that one kept no rows


def test_a_window_alone_trains_pre_ranker_and_ranker(shop: RetailData) -> None:
    alone = model(
        preranker=CatBoostRanker(iterations=5, threads=1),
        pool_size=10,
        label_splits=HorizonSplits(WEEKS, n=1),
    ).fit(shop, keep_rows=True)
    assert alone.preranker_ is not None
    assert alone.training_rows is not None
    assert len(alone.training_rows.y) == alone.report_["windows"][0]["rows"] > 0


def test_a_row_weighs_what_it_stands_for(shop: RetailData) -> None:
    """A purchase 1; an unbought candidate 1 / share, and of a shopper who bought nothing once more."""
    splits = HorizonSplits(WEEKS, n=1)
    rows = model(negatives=0.5, idle_users=0.4, label_splits=splits).training_frame(shop)
    whole = model(negatives=1, idle_users=1, label_splits=splits).training_frame(shop)
    bought = rows.y == 1
    assert (rows.weights[bought] == 1).all()
    (split,) = splits.splits(shop)
    active = set(split.target["user"].unique().to_list())
    known = split.past.active_users()
    n_idle = sum(int(u) not in active for u in known)
    weights = set(np.round(rows.weights[~bought].astype(float), 4).tolist())
    assert weights == ({2.0, 5.0} if n_idle else {2.0})
    by_group = {g: set(rows.weights[(rows.groups == g) & ~bought].tolist()) for g in set(rows.groups)}
    assert all(len(found) <= 1 for found in by_group.values())
    assert not {g for g, found in by_group.items() if found == {5.0}} & set(rows.groups[bought])
    assert rows.y.sum() == whole.y.sum()
    assert rows.weights.sum() == pytest.approx(len(whole.y), rel=0.1)
    assert set(whole.weights) == {1}
    assert len(set(whole.groups)) == len(known)


def test_idle_shoppers_are_drawn_and_weigh_more() -> None:
    """Half of the shoppers stop two weeks before the label window."""
    data = small_data(users=120, weeks=30)
    stops = (pl.col("user") % 2 == 0) & (pl.col("time") >= data.end - timedelta(days=30))
    data = replace(data, log=data.log.filter(~stops))
    splits = HorizonSplits(WEEKS, n=1)
    rows = model(negatives=0.5, idle_users=0.25, label_splits=splits).training_frame(data)
    whole = model(negatives=1, idle_users=1, label_splits=splits).training_frame(data)
    idle = rows.weights > 2.5
    assert set(rows.weights[idle].tolist()) == {8.0}
    assert 5 <= len(set(rows.groups[idle])) <= 28  # a quarter of 60
    assert not rows.y[idle].any()
    assert rows.weights.sum() == pytest.approx(len(whole.y), rel=0.25)


def test_the_pre_ranker_learns_from_whole_pools_and_their_labels(shop: RetailData) -> None:
    (split,) = HorizonSplits(WEEKS, n=1).splits(shop)
    sources = [OwnPurchases().fit(split.past), Popularity().fit(split.past)]
    stage = StageOne(sources, FeatureSet().fit(split.past), 20)
    rows = preranker_rows(split, stage, Sampling(1.0, 1.0, 1000, 0))
    assert rows is not None
    users = np.intersect1d(split.target["user"].unique().to_numpy(), split.past.active_users())
    pool = stage.pool(split.past.history(codes=users))
    bought = set(split.target.select("user", "item").unique().iter_rows())
    expected = [
        (int(users[row]), int(item)) in bought
        for row, item in zip(pool.user_of_pair, pool.items, strict=True)
    ]
    np.testing.assert_array_equal(rows.y, expected)
    np.testing.assert_array_equal(rows.x, stage.preranker_columns(pool))
    nobody = replace(split, target=split.target.clear())
    assert preranker_rows(nobody, stage, Sampling(1.0, 1.0, 1000, 0)) is None


def test_training_rows_hold_no_item_that_a_prefilter_hides(shop: RetailData) -> None:
    """With one item allowed there is at most one candidate a shopper."""
    best = shop.items["item_id"][int(shop.log["item"].mode()[0])]
    rows = model(
        prefilters=(AllowItems([best]),),
        negatives=1,
        idle_users=1,
        label_splits=HorizonSplits(WEEKS, n=1),
    ).training_frame(shop)
    assert len(rows.y) == len(set(rows.groups)) > 50


def test_probabilities_come_from_a_window_that_their_ranker_did_not_see(shop: RetailData) -> None:
    fitted = model(calibrate=True, ranker=CatBoostRanker(iterations=15, threads=1)).fit(
        shop, keep_rows=True
    )
    rows = fitted.training_rows
    assert rows is not None
    newest = rows.fold == rows.fold.max()
    later = rows.rows(newest)
    score = CatBoostRanker(iterations=15, threads=1, seed=0).fit(rows.rows(~newest)).predict(later.x)
    expected = Calibrator().fit(score, later.y, later.weights)
    assert fitted.calibrator_ is not None
    np.testing.assert_array_equal(fitted.calibrator_.steps_, expected.steps_)


def test_a_curve_of_probabilities_goes_by_weights() -> None:
    """One purchase in four by weight, though one in two by number."""
    curve = Calibrator().fit(np.zeros(2), np.array([0.0, 1.0]), np.array([3.0, 1.0]))
    assert curve.predict(np.zeros(1)).tolist() == [0.25]


def test_windows_in_which_nothing_was_proposed_are_said() -> None:
    few = pl.DataFrame(
        {"user_id": [4, 7, 2, 2, 6], "item_id": [2, 1, 2, 1, 1], "value": [5.0, 8, 1, 7, 3]}
    )
    days = (57, 22, 31, 17, 9)
    lines = few.with_columns(time=pl.Series([datetime(2024, 1, 1) + timedelta(days=d) for d in days]))
    model = TwoStageRecommender(label_splits=HorizonSplits(1))
    with pytest.raises(DataError, match="nothing to learn from; bring more data"):
        model.fit(RetailData.from_frames(lines))


def test_shares_that_are_none_are_refused() -> None:
    for negatives, idle in ((0.0, 0.5), (0.5, 0.0), (1.1, 0.5), (0.5, float("nan"))):
        with pytest.raises(SettingError):
            Sampling(negatives, idle, 100, 0)


def test_a_lot_is_drawn_from_its_key_and_the_seed_alone() -> None:
    keys = np.arange(100_000)
    drawn = lots(keys, 0, 1)
    assert 0 <= drawn.min() < drawn.max() < 1
    assert abs(drawn.mean() - 0.5) < 0.005
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01  # neighbours don't go together
    np.testing.assert_array_equal(lots(keys[::7], 0, 1), drawn[::7])
    assert abs(np.corrcoef(drawn, lots(keys, 1, 0))[0, 1]) < 0.01  # the seed's parts have an order


def test_one_more_candidate_leaves_the_sample_of_the_others_as_it_is(shop: RetailData) -> None:
    """Rounding on another processor changes a pool by a pair; it must not change the whole sample."""
    few = model(sources=[OwnPurchases()], n_candidates=[6]).training_frame(shop)
    more = model(sources=[OwnPurchases()], n_candidates=[7]).training_frame(shop)
    column = more.names.index("pair_days_since_first")
    drawn, again = (
        set(zip(rows.groups.tolist(), rows.x[:, column].tolist(), strict=True)) for rows in (few, more)
    )
    assert len(drawn) > 500
    assert drawn < again

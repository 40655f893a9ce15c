"""Training rows: which are kept, taken over and put below each other."""

from __future__ import annotations

import numpy as np
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import CatBoostRanker, TrainingFrame
from retailrec.recommender.label_windows import Window, Windows, concatenate
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

WEEKS = 14.0


@pytest.fixture(scope="module")
def shop() -> RetailData:
    return small_data(users=120)


def model(**more: object) -> TwoStageRecommender:
    given = {
        "sources": [OwnPurchases(), Popularity()], "ranker": CatBoostRanker(iterations=5, threads=1), "n_candidates": 20,
        "label_splits": HorizonSplits(WEEKS, n=3), "preranker": None,
    }  # fmt: skip
    return TwoStageRecommender(**(given | more))  # type: ignore[arg-type]


def frame(n: int, value: float, groups: list[int], fold: int) -> TrainingFrame:
    x = np.full((n, 2), value, np.float32)
    flat = np.full(n, value, np.float32)
    return TrainingFrame(x, flat, np.array(groups), flat + 1, np.full(n, fold, np.int16), ["a", "b"])


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
    past = shop.asof(list(HorizonSplits(WEEKS).splits(shop))[-1].past.end)
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
    assert [w["cutoff"] for w in quick.report_["windows"]] == sorted(
        w["cutoff"] for w in quick.report_["windows"]
    )
    assert np.unique(rows.fold).tolist() == [0, 1, 2]
    assert (np.diff(rows.groups) >= 0).all()
    if refit == "each":  # else the newest window's sources were fitted on other data, as documented
        np.testing.assert_array_equal(rows.x, model(**more).training_frame(shop).x)
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

"""The leak check finds planted leaks, and nothing in what we ship."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits, NextBasketSplits, Split
from retailrec.errors import DataError
from retailrec.evaluation.inspection import PROPOSALS, Leak, check_leaks
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import TrainingFrame
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

DATA = small_data(users=60)


def model(**changes: Any) -> TwoStageRecommender:
    sources = [OwnPurchases(), Popularity()]
    return TwoStageRecommender(sources=sources, preranker=None, n_candidates=40, **changes)


def leaks(build: Any) -> list[Leak]:
    return check_leaks(DATA, build).leaks


def test_what_we_ship_does_not_leak() -> None:
    report = check_leaks(
        DATA, lambda _: TwoStageRecommender(label_splits=HorizonSplits(28, n=2), threads=1)
    )
    assert report.leaks == []
    assert report.columns > 80
    assert min(report.labels_moved.values()) > 0.02


def test_attributes_without_times_are_named_as_not_checked() -> None:
    later = DATA.log.group_by("user").len("visits").sort("user")["visits"]  # counts of all receipts
    knowing = replace(DATA, users=DATA.users.select("user_id", visits=later, age=pl.lit(40)))
    knowing = replace(knowing, items=DATA.items.with_columns(sold=pl.lit(7)))
    report = check_leaks(knowing, lambda _: model())
    assert report.leaks == []
    assert report.undated == ["user_attribute_visits", "user_attribute_age", "item_attribute_sold"]
    assert "3 columns are attributes" in report.notes[0]
    assert check_leaks(replace(DATA, users=DATA.users.select("user_id")), lambda _: model()).notes == []


def test_next_basket_does_not_leak() -> None:
    report = check_leaks(DATA, lambda _: model(label_splits=NextBasketSplits(2)))
    assert report.leaks == []
    assert set(report.labels_moved) == {"shuffled", "replaced"}


@dataclass
class AllData(FeatureSet):
    """Learns about items from everything there is, not from what is known."""

    everything: RetailData | None = None

    def fit(self, data: RetailData) -> FeatureSet:
        return super().fit(replace(self.everything, items=data.items))


def test_features_over_all_data_are_found() -> None:
    found = leaks(lambda data: model(features=AllData(everything=data)))
    assert {"deleted", "shuffled", "replaced"} == {leak.change for leak in found}
    assert "item_buyers_28d" in {leak.column for leak in found}
    assert not any(leak.column.startswith("user_") for leak in found)


@dataclass(frozen=True)
class OneDayLate(HorizonSplits):
    """The past reaches a day into the label window."""

    def splits(self, data: RetailData) -> Any:
        for past, target in super().splits(data):
            yield Split(data.asof(past.end + timedelta(days=1)), target)


def test_an_off_by_one_cutoff_is_found() -> None:
    assert leaks(lambda _: model(label_splits=OneDayLate()))


class StageOneTooLate(TwoStageRecommender):
    """Sources that have seen the label window."""

    def training_frame(self, data: RetailData, *args: Any, **kwargs: Any) -> TrainingFrame:
        self.seen = data
        return super().training_frame(data, *args, **kwargs)

    def _fit_stage_one(self, data: RetailData, *args: Any, **kwargs: Any) -> None:
        super()._fit_stage_one(replace(self.seen, items=data.items), *args, **kwargs)


def test_stage_one_fitted_on_the_label_window_is_found() -> None:
    sources = [OwnPurchases(), Popularity()]
    found = leaks(lambda _: StageOneTooLate(sources=sources, preranker=None, n_candidates=40))
    assert any(leak.column in (PROPOSALS, "source_popular_score") for leak in found)


class LabelStatistics(TwoStageRecommender):
    """A column made of the labels of the training table."""

    leave_one_out = False

    def training_frame(self, data: RetailData, *args: Any, **kwargs: Any) -> TrainingFrame:
        frame = super().training_frame(data, *args, **kwargs)
        group = frame.x[:, list(frame.names).index("item_buyers_28d")]  # items that are alike
        rate = np.zeros(len(frame.y), np.float32)
        for value in np.unique(group):
            rows = group == value
            total, n = frame.y[rows].sum(), rows.sum()
            rate[rows] = (total - frame.y[rows]) / max(n - 1, 1) if self.leave_one_out else total / n
        names = [*frame.names, "item_label_rate"]
        return frame._replace(x=np.column_stack([frame.x, rate]), names=names)


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_statistics_of_the_labels_are_found(leave_one_out: bool) -> None:
    def build(_: RetailData) -> TwoStageRecommender:
        planted = LabelStatistics(
            sources=[OwnPurchases(), Popularity()], preranker=None, n_candidates=40
        )
        planted.leave_one_out = leave_one_out
        return planted

    assert {leak.column for leak in leaks(build)} == {"item_label_rate"}


def test_a_check_that_could_not_fail_is_refused() -> None:
    nothing = replace(DATA, log=DATA.log.filter(pl.col("time") < DATA.end - timedelta(days=28)))
    with pytest.raises(DataError, match="nothing was checked"):
        check_leaks(nothing, lambda _: model())

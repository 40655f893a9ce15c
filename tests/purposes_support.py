"""What the tests of purposes share: slots, a quick model that has learnt new items, its shop."""

from __future__ import annotations

from functools import cache
from typing import Any

from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

SLOTS = {"replenish": 3, "discover": 2}


def quick(**more: Any) -> TwoStageRecommender:
    chosen = {
        "sources": [
            OwnPurchases("decay"),
            Popularity(),
            ItemItem("tfidf", neighbours=10),
            ALS(factors=4, iterations=2),
        ],
        "ranker": LightGBMRanker(iterations=10, threads=1),
        "n_candidates": 20,
        "label_splits": HorizonSplits(28, n=2),
        "discover": Discovery(n_candidates=15),
        "threads": 1,
    }
    return TwoStageRecommender(**(chosen | more))


@cache
def small_shop() -> RetailData:
    return small_data(users=60, weeks=40)


@cache
def fitted_model() -> TwoStageRecommender:
    """The quick model of the shop; nobody may change it."""
    return quick().fit(small_shop())

"""What the tests of the door from Python share: a small shop, a quick model, receipts in ids."""

from __future__ import annotations

import polars as pl

from retailrec.candidates import ItemItem, OwnPurchases, Popularity
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits
from retailrec.rankers import CatBoostRanker
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

SHOP = small_data(users=60)


def quick(**settings: object) -> TwoStageRecommender:
    given = {
        "sources": [OwnPurchases(), Popularity(), ItemItem("tfidf")],
        "ranker": CatBoostRanker(iterations=8),
        "preranker": None,
        "n_candidates": 20,
        "label_splits": HorizonSplits(28, n=1),
        "threads": 1,
    }
    return TwoStageRecommender(**(given | settings))  # type: ignore[arg-type]


def lines_of(data: RetailData, item_prefix: str = "") -> pl.DataFrame:
    """The receipts in the caller's ids; items may be given other ones."""
    items = data.items["item_id"].gather(data.log["item"])
    return pl.DataFrame(
        {
            "user_id": data.users["user_id"].gather(data.log["user"]),
            "item_id": [f"{item_prefix}{i}" for i in items] if item_prefix else items,
            "time": data.log["time"],
            "basket_id": data.log["basket"],
            "quantity": data.log["quantity"],
            "value": data.log["value"],
        }
    )

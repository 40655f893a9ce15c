"""The matching report: groups of shoppers counted by hand, and drawn where there are too many."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data.splits import Fold, Split
from retailrec.evaluation.matching import judge_matching, pool_order
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import small_data

WEEKS = timedelta(days=28)


@pytest.fixture(scope="module")
def held_out() -> Split:
    data = small_data(users=150)
    return Fold(data.end - WEEKS, data.end).split(data)


@pytest.fixture(scope="module")
def model(held_out: Split) -> TwoStageRecommender:
    model = TwoStageRecommender(sources=[OwnPurchases(), Popularity()], preranker=None, prefilters=())
    model.report_ = {"source_seconds": {}}
    return model.fit_stage_one(held_out.past)


def test_recall_of_a_group_is_what_counting_gives(model: TwoStageRecommender, held_out: Split) -> None:
    found = judge_matching(model, held_out, grid=(20, 200))
    receipts = dict(held_out.past.log.group_by("user").agg(pl.col("basket").n_unique()).iter_rows())
    bought: dict[int, set[int]] = {}
    for user, item in held_out.target.select("user", "item").iter_rows():
        bought.setdefault(user, set()).add(item)
    group = sorted(user for user in bought if receipts.get(user, 0) > 5)
    lists = pool_order(model.stage_one, held_out.past.history(codes=group), 200)
    shares = [
        len(bought[user] & set(items.tolist())) / len(bought[user])
        for user, items in zip(group, lists, strict=True)
    ]
    assert found["cold"]["more"]["n_users"] == len(group) > 20
    assert found["cold"]["more"]["pool_recall@200"] == pytest.approx(np.mean(shares), abs=1e-5)


def test_shoppers_are_drawn_where_there_are_more(model: TwoStageRecommender, held_out: Split) -> None:
    whole = judge_matching(model, held_out, grid=(20, 200))
    drawn = judge_matching(model, held_out, grid=(20, 200), most_users=20)
    assert drawn["evaluation"]["n_users"] == 20 < whole["evaluation"]["n_users"]
    for group, facts in whole["cold"].items():
        if "n_users" in facts:
            assert drawn["cold"][group]["n_users"] == facts["n_users"]  # of all, drawn or not
    one, other = (r["cold"]["more"]["pool_recall@200"] for r in (whole, drawn))
    assert one != other
    assert abs(one - other) < 0.2
    again = judge_matching(model, held_out, grid=(20, 200), most_users=20)
    assert again["recall@k"] == drawn["recall@k"]
    assert again["cold"] == drawn["cold"]

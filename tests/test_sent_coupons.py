"""Shoppers who were sent coupons: described, group by group, and called a description."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl

from retailrec.data import RetailData
from retailrec.data.splits import Fold
from retailrec.evaluation import Judge
from retailrec.report.summary import SentCoupons, describe_sent

CUTOFF, END = datetime(2024, 3, 1), datetime(2024, 3, 29)


def sent_to(now: list[str], earlier: list[str]) -> SentCoupons:
    """Campaign 1 runs from before the window into it, campaign 2 ended on its first instant."""
    campaigns = pl.DataFrame(
        {
            "user_id": now + earlier,
            "campaign_id": [1] * len(now) + [2] * len(earlier),
            "start": [CUTOFF - timedelta(days=3)] * len(now)
            + [CUTOFF - timedelta(days=30)] * len(earlier),
            "end": [CUTOFF + timedelta(days=3)] * len(now) + [CUTOFF] * len(earlier),
        }
    )
    products = pl.DataFrame({"campaign_id": [1, 1, 2], "item_id": [3, 5, 7]})
    redemptions = pl.DataFrame({"user_id": [now[0]], "time": [CUTOFF]})
    return SentCoupons(campaigns, products, redemptions)


def test_groups_are_described_by_what_they_were_recommended_and_bought(data: RetailData) -> None:
    held_out = Fold(CUTOFF, END).split(data)
    judge = Judge.of(*held_out)
    ids = data.users["user_id"].gather(judge.users).to_list()
    now, earlier = ids[:2], ids[2:5]
    lists = np.tile(np.array([3, 7, -1], np.int32), (len(ids), 1))  # one campaign product of two
    lists[0] = [5, 3, -1]
    found = describe_sent(sent_to(now, earlier), held_out, judge, {"two_stage": lists}, 3, 28)
    assert found is not None
    assert (found["campaigns"], found["products"]) == (1, 2)
    groups = {g["group"]: g for g in found["groups"]}
    assert [g["n_users"] for g in found["groups"]] == [2, 3, len(ids) - 5]
    first = groups["sent coupons in these weeks"]
    assert first["recommended"] == 0.75
    assert first["redeemed"] == 0.5
    codes = judge.users[:2].tolist()
    pairs = held_out.target.filter(pl.col("user").is_in(codes)).select("user", "item").unique()
    assert first["bought"] == round(pairs["item"].is_in([3, 5]).mean(), 4)
    hits = [
        len(set(row[:2].tolist()) & set(pairs.filter(user=u)["item"])) / 3
        for row, u in zip(lists[:2], codes, strict=True)
    ]
    assert first["precision"] == round(float(np.mean(hits)), 4)
    assert groups["sent coupons earlier only"]["redeemed"] == 0.0


def test_a_window_without_a_campaign_has_no_description(data: RetailData) -> None:
    held_out = Fold(CUTOFF, END).split(data)
    judge = Judge.of(*held_out)
    sent = sent_to(["u01"], ["u02"])
    over = sent._replace(campaigns=sent.campaigns.filter(campaign_id=2))
    lists = {"two_stage": np.zeros((len(judge.users), 3), np.int32)}
    assert describe_sent(over, held_out, judge, lists, 3, 28) is None

"""How shoppers who were sent coupons differ: a description, and no claim about causes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.splits import Split
from retailrec.evaluation import Judge
from retailrec.schema import ITEM_ID, USER_ID

CAUTION = (
    "The shop chose whom it sends coupons to, and chose its good customers: what differs between these "
    "groups is described here, and says nothing about what coupons cause."
)


class SentCoupons(NamedTuple):
    """What was sent to whom, as `retailrec.datasets.journey_offers` reads it.

    Attributes
    ----------
    campaigns : `user_id`, `campaign_id`, `start`, `end` (exclusive)
    products : `campaign_id`, `item_id`
    redemptions : `user_id`, `time`
    """

    campaigns: pl.DataFrame
    products: pl.DataFrame
    redemptions: pl.DataFrame


def describe_sent(
    sent: SentCoupons,
    held_out: Split,
    judge: Judge,
    lists: Mapping[str, NDArray[np.int32]],
    k: int,
    horizon_days: float,
) -> dict[str, Any] | None:
    """Of each group of judged shoppers: what they were recommended, what they bought and redeemed.

    Groups: sent a campaign that runs in the window, sent one earlier only, never sent any. None if no
    campaign runs in the window.

    Returns
    -------
    dict with `campaigns` and `products` that run in the window, `caution`, and `groups`: rows with
    `group`, `n_users`, `receipts` (mean, before the window), `precision` at k of the two-stage lists,
    `recommended` and `bought` (shares that are products of the window's campaigns) and `redeemed`
    (share who redeemed a coupon in the window)
    """
    past = held_out.past
    start, end = past.end, past.end + timedelta(days=horizon_days)
    running = (pl.col("start") < end) & (pl.col("end") > start)
    now = sent.campaigns.filter(running)
    numbers = now["campaign_id"].unique()
    products = sent.products.filter(pl.col("campaign_id").is_in(numbers.implode()))[ITEM_ID].unique()
    if not len(products):
        return None
    offered = past.items[ITEM_ID].is_in(products.implode()).to_numpy()
    ids = past.users[USER_ID].gather(judge.users)
    got_now = ids.is_in(now[USER_ID].unique().implode()).to_numpy()
    earlier = sent.campaigns.filter(pl.col("start") < end)[USER_ID].unique()
    got_ever = ids.is_in(earlier.implode()).to_numpy()
    rows = [
        _group(name, mask, offered, ids, sent, held_out, judge, lists["two_stage"][:, :k], (start, end))
        for name, mask in (
            ("sent coupons in these weeks", got_now),
            ("sent coupons earlier only", got_ever & ~got_now),
            ("never sent coupons", ~got_ever),
        )
        if mask.any()
    ]
    return {"campaigns": len(numbers), "products": len(products), "caution": CAUTION, "groups": rows}


def _group(
    name: str,
    mask: NDArray[np.bool_],
    offered: NDArray[np.bool_],
    ids: pl.Series,
    sent: SentCoupons,
    held_out: Split,
    judge: Judge,
    items: NDArray[np.int32],
    window: tuple[datetime, datetime],
) -> dict[str, Any]:
    """One row of the description."""
    k = items.shape[1]
    chosen = pl.Series(judge.users[mask]).cast(pl.Int32).implode()
    recommended, there = items[mask], items[mask] >= 0
    pairs = held_out.target.filter(pl.col("user").is_in(chosen)).select("user", "item").unique()
    before = held_out.past.log.filter(pl.col("user").is_in(chosen))["basket"].n_unique()
    used = sent.redemptions.filter((pl.col("time") >= window[0]) & (pl.col("time") < window[1]))
    redeemed = ids.filter(pl.Series(mask)).is_in(used[USER_ID].unique().implode())
    precision = judge.select(mask).per_user(recommended, [f"precision@{k}"])[f"precision@{k}"]
    return {
        "group": name,
        "n_users": int(mask.sum()),
        "receipts": round(before / int(mask.sum()), 2),
        "precision": round(float(np.nanmean(precision)), 4),
        "recommended": round(float(offered[recommended[there]].mean()), 4) if there.any() else None,
        "bought": round(float(offered[pairs["item"].to_numpy()].mean()), 4),
        "redeemed": round(float(redeemed.cast(pl.Float64).mean() or 0.0), 4),  # type: ignore[arg-type]
    }

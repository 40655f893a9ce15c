"""Data at a glance: how often, how much, how regular, how concentrated."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl

from retailrec.data import RetailData


def at_a_glance(data: RetailData, *, horizon_days: float = 28) -> dict[str, Any]:
    """Figures that describe receipts; each says in its name what it is.

    ``repeat_share_*`` is the share of the (shopper, item) pairs of the last `horizon_days` (of the
    last receipt) that the shopper had bought before; None where there is no time before.
    """
    log = data.log
    baskets = log.group_by("basket").agg(
        pl.col("user").first(), pl.col("time").first(), pl.len().alias("lines")
    ).sort("user", "time")  # fmt: skip
    per_user = baskets.group_by("user").len()["len"]
    gap = baskets.select(pl.col("time").diff().over("user").dt.total_seconds().drop_nulls() / 86_400)[
        "time"
    ]
    per_item = log.group_by("item").len()["len"].sort(descending=True)
    price = (log["value"] / log["quantity"]).drop_nulls()
    weekday = np.bincount(log["time"].dt.weekday().to_numpy(), minlength=8)[1:]
    return {
        "shoppers": log["user"].n_unique(),
        "items_sold": len(per_item),
        "lines": log.height,
        "receipts_per_shopper_median": _number(per_user.median()),
        "receipts_per_shopper_mean": _number(per_user.mean()),
        "lines_per_receipt_median": _number(baskets["lines"].median()),
        "lines_per_receipt_mean": _number(baskets["lines"].mean()),
        "days_between_visits_median": _number(gap.median()),
        "days_between_visits_mean": _number(gap.mean()),
        "repeat_share_28d": _repeat_share(data, horizon_days),
        "repeat_share_last_receipt": _repeat_share_of_last(log),
        "sales_in_top_1_percent": _top_share(per_item, 0.01),
        "sales_in_top_10_percent": _top_share(per_item, 0.10),
        "items_sold_once": _number((per_item == 1).mean()),
        "unit_price_quartiles": [_number(price.quantile(q)) for q in (0.25, 0.5, 0.75)]
        if len(price)
        else None,
        "lines_by_weekday": [_number(n / log.height) for n in weekday],
    }


def _number(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)


def _repeat_share(data: RetailData, horizon_days: float) -> float | None:
    start = data.end - timedelta(days=horizon_days)
    if start <= data.start:
        return None
    past, target = data.asof(start), data.between(start, data.end)
    known = past.log.select("user", "item").unique()
    pairs = target.select("user", "item").unique()
    seen = pairs.filter(pl.col("user").is_in(known["user"].unique().implode()))
    if seen.is_empty():
        return None
    return _number(seen.join(known, on=["user", "item"], how="semi").height / seen.height)


def _repeat_share_of_last(log: pl.DataFrame) -> float | None:
    last = pl.col("basket") == pl.col("basket").max().over("user")
    marked = log.with_columns(last=last).filter(pl.col("basket").n_unique().over("user") > 1)
    if marked.is_empty():
        return None
    new, old = marked.filter("last"), marked.filter(~pl.col("last")).select("user", "item").unique()
    return _number(new.join(old, on=["user", "item"], how="semi").height / max(new.height, 1))


def _top_share(per_item: pl.Series, share: float) -> float | None:
    n = max(1, int(np.ceil(len(per_item) * share)))
    return _number(int(per_item.head(n).sum()) / max(int(per_item.sum()), 1))

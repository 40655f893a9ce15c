"""Data at a glance: how often, how much, how regular, how concentrated."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from retailrec.data import RetailData
from retailrec.report.results import Glance


def at_a_glance(data: RetailData, *, horizon_days: float = 28) -> Glance:
    """Figures that describe receipts; each says in its name what it is.

    ``repeat_share_*`` is the share of the (shopper, item) pairs of the last `horizon_days` (of the
    last receipt) that the shopper had bought before; None where there is no time before.
    """
    log, receipts = data.log, data.receipts()
    per_user = receipts["user"].value_counts()["count"]
    gap = days_between_visits(receipts)
    per_item = log["item"].value_counts(sort=True)["count"]
    price = (log["value"] / log["quantity"]).drop_nulls()
    weekday = np.bincount(receipts["time"].dt.weekday(), receipts["lines"], minlength=8)[1:]
    within, of_last = _repeats(data, horizon_days)
    return {
        "shoppers": len(per_user),
        "items_sold": len(per_item),
        "lines": log.height,
        "receipts_per_shopper_median": _number(per_user.median()),
        "receipts_per_shopper_mean": _number(per_user.mean()),
        "lines_per_receipt_median": _number(receipts["lines"].median()),
        "lines_per_receipt_mean": _number(receipts["lines"].mean()),
        "days_between_visits_median": _number(gap.median()),
        "days_between_visits_mean": _number(gap.mean()),
        "repeat_share_28d": within,
        "repeat_share_last_receipt": of_last,
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


def days_between_visits(receipts: pl.DataFrame) -> pl.Series:
    """Days from each receipt to the shopper's next one."""
    times, users = receipts["time"].to_numpy(), receipts["user"].to_numpy()
    return pl.Series("days", np.diff(times)[users[1:] == users[:-1]] / np.timedelta64(1, "D"))


def _repeats(data: RetailData, horizon_days: float) -> tuple[float | None, float | None]:
    """Shares of repeats: of the pairs of the last days, and of the last receipts."""
    counts = np.zeros(4, np.int64)
    for history in data.histories_in_parts():
        user = history.user_of_pair
        before = history.age[history.event_indptr[:-1]] > horizon_days
        known = np.bincount(user[before], minlength=len(history)) > 0
        asked = (history.last_age() <= horizon_days) & known[user]
        last = history.last_basket
        earlier = history.user_of_event[history.basket != last[history.user_of_event]]
        several = np.bincount(earlier, minlength=len(history)) > 0
        newest = history.basket[history.event_indptr[1:] - 1] == last[user]
        newest &= several[user]
        again = np.diff(history.event_indptr) > 1
        counts += [asked.sum(), (asked & before).sum(), newest.sum(), (newest & again).sum()]
    n, repeated, n_last, repeated_last = (int(n) for n in counts)
    return _number(repeated / n) if n else None, _number(repeated_last / n_last) if n_last else None


def _top_share(per_item: pl.Series, share: float) -> float | None:
    n = max(1, int(np.ceil(len(per_item) * share)))
    return _number(int(per_item.head(n).sum()) / max(int(per_item.sum()), 1))

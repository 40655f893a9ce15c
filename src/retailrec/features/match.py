"""Features of a candidate that put other columns side by side.

The function gets `Columns`: ``c["name"]`` is the column of that name over the candidate rows, NaN
where it is not known.
"""

from __future__ import annotations

import numpy as np

from retailrec.features.events import Columns
from retailrec.features.registry import Floats, feature
from retailrec.schema import CATEGORIES


@feature("match", unit="ratio", family="cadence")
def match_due(c: Columns) -> Floats:
    """Days since the last purchase over the shopper's own mean gap for the item."""
    return c["pair_days_since"] / (c["pair_gap"] + 1)


@feature("match", unit="ratio", family="cadence")
def match_due_item(c: Columns) -> Floats:
    """Days since the last purchase over the item's mean gap among all shoppers."""
    return c["pair_days_since"] / (c["item_gap"] + 1)


@feature("match", unit="days", family="cadence")
def match_overdue(c: Columns) -> Floats:
    """Days since the last purchase minus the longest gap so far; above 0 is later than ever."""
    return c["pair_days_since"] - c["pair_gap_largest"]


@feature("match", unit="deviations", family="cadence")
def match_due_deviations(c: Columns) -> Floats:
    """Days since the last purchase minus the mean gap, in standard deviations of the gap."""
    return (c["pair_days_since"] - c["pair_gap"]) / (c["pair_gap_std"] + 1)


@feature("match", unit="share", family="pair")
def match_receipt_share(c: Columns) -> Floats:
    """Share of the shopper's receipts that hold the item."""
    return c["pair_receipts"] / c["user_receipts"]


@feature("match", unit="share", family="pair")
def match_receipt_share_since_first(c: Columns) -> Floats:
    """Receipts with the item per day since it was first bought, over receipts per day."""
    item_rate = c["pair_receipts"] / (c["pair_days_since_first"] + 7)
    return item_rate / (c["user_receipts"] / (c["user_tenure"] + 7))


@feature("match", unit="receipts a week", family="pair")
def match_receipts_per_week(c: Columns) -> Floats:
    """Receipts with the item per week since the shopper first bought it."""
    return 7 * c["pair_receipts"] / (c["pair_days_since_first"] + 7)


@feature("match", unit="ratio", family="price")
def match_price_level(c: Columns) -> Floats:
    """The item's unit price over the shopper's usual unit price."""
    return c["item_price"] / c["user_price"]


@feature("match", unit="days", family="pair")
def match_sale_recency(c: Columns) -> Floats:
    """Days since the shopper bought the item minus days since anybody did."""
    return c["pair_days_since"] - c["item_days_since_sale"]


@feature("match", unit="days", family="item")
def match_newness(c: Columns) -> Floats:
    """Days since the item was first sold minus days since the shopper's last receipt.

    Below 0, the item came after the shopper's last visit.
    """
    return c["item_age"] - c["user_days_since_visit"]


@feature("match", unit="ratio", family="cadence")
def match_due_receipts(c: Columns) -> Floats:
    """The shopper's receipts since the item was last on one, over the usual number between two."""
    return (c["pair_receipts_back"] + 1) / c["pair_gap_receipts"]


@feature("match", unit="share", family="pair")
def match_receipt_share_from_first(c: Columns) -> Floats:
    """Share of the shopper's receipts that hold the item, from the first one with it on."""
    return c["pair_receipts"] / c["pair_receipts_since_first"]


@feature("match", unit="share", family="pair")
def match_line_share(c: Columns) -> Floats:
    """Share of the shopper's receipt lines that are the item."""
    return c["pair_receipts"] / (c["user_receipts"] * c["user_basket_size"])


@feature("match", unit="share", family="category")
def match_category_share(c: Columns) -> Floats:
    """Share of the shopper's lines in the item's finest known category that are the item."""
    for level in reversed(CATEGORIES):
        if f"{level}_lines" in c:
            return c["pair_receipts"] / c[f"{level}_lines"]
    return np.full(len(c["pair_receipts"]), np.nan)


@feature("match", unit="ratio", family="price")
def match_price_change(c: Columns) -> Floats:
    """The item's unit price of the last 28 days over what the shopper paid for it."""
    return c["item_price"] * c["item_price_28d_ratio"] / c["pair_price"]


@feature("match", unit="hours", family="habit")
def match_hour_distance(c: Columns) -> Floats:
    """Hours between the times of day at which the shopper shops and the item is bought."""
    return abs(c["user_hour"] - c["item_hour"])

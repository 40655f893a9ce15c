"""Features of a shopper and an item they bought: how often, how lately, and when it is due."""

from __future__ import annotations

import numpy as np

from retailrec.features.aggregates import Events
from retailrec.features.registry import Floats, feature


@feature("pair", unit="receipts")
def pair_receipts(e: Events) -> Floats:
    """The shopper's receipts with the item."""
    return e.count()


@feature("pair", unit="receipts")
def pair_receipts_28d(e: Events) -> Floats:
    """The shopper's receipts with the item in the last 28 days."""
    return e.sum(e.age <= 28)


@feature("pair", unit="receipts")
def pair_receipts_91d(e: Events) -> Floats:
    """The shopper's receipts with the item in the last 91 days."""
    return e.sum(e.age <= 91)


@feature("pair", unit="receipts")
def pair_receipts_last_year(e: Events) -> Floats:
    """The shopper's receipts with the item 336 to 364 days ago."""
    return e.sum((e.age > 336) & (e.age <= 364))


@feature("pair", unit="receipts, decayed")
def pair_decayed_30d(e: Events) -> Floats:
    """Receipts with the item, each counting half as much for every 30 days of age."""
    return e.sum(np.exp2(-e.age.astype(np.float64) / 30))


@feature("pair", unit="receipts, decayed")
def pair_decayed_120d(e: Events) -> Floats:
    """Receipts with the item, each counting half as much for every 120 days of age."""
    return e.sum(np.exp2(-e.age.astype(np.float64) / 120))


@feature("pair", unit="days")
def pair_days_since(e: Events) -> Floats:
    """Days since the shopper last bought the item."""
    return e.last(e.age)


@feature("pair", unit="days")
def pair_days_since_first(e: Events) -> Floats:
    """Days since the shopper first bought the item."""
    return e.max(e.age)


@feature("pair", unit="receipts")
def pair_receipts_back(e: Events) -> Floats:
    """Receipts of the shopper since the last one with the item; 0 if it is on the last."""
    return e.min(e.baskets_ago)


@feature("pair", unit="bits / 32")
def pair_last_five(e: Events) -> Floats:
    """Which of the last five receipts hold the item, as a binary fraction, newest first."""
    return e.sum(np.where(e.baskets_ago < 5, np.exp2(-e.baskets_ago - 1), 0))


@feature("pair", unit="receipts in ten")
def pair_last_ten(e: Events) -> Floats:
    """How many of the last ten receipts hold the item."""
    return e.sum(e.baskets_ago < 10)


@feature("pair", unit="receipts")
def pair_streak(e: Events) -> Floats:
    """Newest receipts in a row that hold the item."""
    # in a streak the i-th event from the newest is on the i-th receipt from the newest
    count = e.count().astype(np.int64)
    ends = np.cumsum(count)
    place = np.repeat(ends, count) - 1 - np.arange(len(e.baskets_ago))
    return e.sum(e.baskets_ago == place)


@feature("pair", unit="days")
def pair_gap(e: Events) -> Floats:
    """Mean days between the shopper's purchases of the item."""
    return e.mean(e.gap)


@feature("pair", unit="days")
def pair_gap_std(e: Events) -> Floats:
    """Spread of the days between the shopper's purchases of the item."""
    return e.std(e.gap)


@feature("pair", unit="days")
def pair_gap_largest(e: Events) -> Floats:
    """Longest time between two purchases of the item."""
    return e.max(e.gap)


@feature("pair", unit="days")
def pair_gap_last(e: Events) -> Floats:
    """Days between the two newest purchases of the item."""
    return e.last(e.gap)


@feature("pair", unit="units")
def pair_quantity(e: Events) -> Floats:
    """Mean units of the item when the shopper buys it."""
    return e.mean(e.quantity)


@feature("pair", unit="money")
def pair_value(e: Events) -> Floats:
    """Money the shopper spent on the item."""
    return e.sum(e.value)


@feature("pair", unit="money a unit")
def pair_price(e: Events) -> Floats:
    """Mean unit price the shopper paid for the item."""
    return e.mean(e.price)


@feature("pair", unit="items")
def pair_basket_size(e: Events) -> Floats:
    """Mean size of the shopper's receipts that hold the item."""
    return e.mean(e.basket_size)


@feature("pair", unit="units")
def pair_units(e: Events) -> Floats:
    """Units of the item that the shopper bought."""
    return e.sum(e.quantity)


@feature("pair", unit="money")
def pair_value_91d(e: Events) -> Floats:
    """Money the shopper spent on the item in the last 91 days."""
    return e.sum(np.where(e.age <= 91, e.value, np.nan))


@feature("pair", unit="receipts")
def pair_receipts_since_first(e: Events) -> Floats:
    """Receipts of the shopper from the first one with the item on, that one counted."""
    return e.max(e.baskets_ago) + 1


@feature("pair", unit="receipts")
def pair_gap_receipts(e: Events) -> Floats:
    """Mean number of receipts from one with the item to the next; missing after a single purchase."""
    gaps = e.count() - 1
    span = e.max(e.baskets_ago) - e.min(e.baskets_ago)
    return np.divide(span, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)


@feature("pair", unit="share", family="promotion")
def pair_discounted_share(e: Events) -> Floats:
    """Share of the shopper's purchases of the item at a discount, where receipts tell."""
    return e.mean(np.where(np.isnan(e.discount_share), np.nan, e.discount_share > 0.005))

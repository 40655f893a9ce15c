"""Features of an item: how popular, how new, how often it is bought again; its sales by week."""

from __future__ import annotations

import numpy as np

from retailrec.features.events import Events, Floats, Weeks, feature


@feature("item", unit="receipts")
def item_receipts(e: Events) -> Floats:
    """Receipts with the item."""
    return e.count()


@feature("item", unit="shoppers")
def item_buyers(e: Events) -> Floats:
    """Shoppers who ever bought the item."""
    return e.sum(e.last_of_pair)


@feature("item", unit="shoppers")
def item_buyers_7d(e: Events) -> Floats:
    """Shoppers who bought the item in the last 7 days."""
    return e.sum(e.last_of_pair & (e.age <= 7))


@feature("item", unit="shoppers")
def item_buyers_28d(e: Events) -> Floats:
    """Shoppers who bought the item in the last 28 days."""
    return e.sum(e.last_of_pair & (e.age <= 28))


@feature("item", unit="shoppers")
def item_buyers_91d(e: Events) -> Floats:
    """Shoppers who bought the item in the last 91 days."""
    return e.sum(e.last_of_pair & (e.age <= 91))


@feature("item", unit="receipts")
def item_receipts_last_year(e: Events) -> Floats:
    """Receipts with the item 336 to 364 days ago: the next four weeks, a year ago."""
    return e.sum((e.age > 336) & (e.age <= 364))


@feature("item", unit="ratio")
def item_trend(e: Events) -> Floats:
    """Receipts a day in the last 14 days over those in the last 56."""
    return 4 * e.sum(e.age <= 14) / np.maximum(e.sum(e.age <= 56), 1)


@feature("item", unit="days")
def item_age(e: Events) -> Floats:
    """Days since the item was first sold."""
    return e.max(e.age)


@feature("item", unit="days")
def item_days_since_sale(e: Events) -> Floats:
    """Days since the item was last sold."""
    return e.min(e.age)


@feature("item", unit="receipts a shopper")
def item_receipts_per_buyer(e: Events) -> Floats:
    """Receipts with the item per shopper who bought it."""
    return e.count() / e.sum(e.last_of_pair)


@feature("item", unit="share")
def item_repeat_share(e: Events) -> Floats:
    """Share of the item's sales that repeat a shopper's earlier purchase."""
    return e.sum(~np.isnan(e.gap)) / e.count()


@feature("item", unit="share")
def item_rebuy_rate_28d(e: Events) -> Floats:
    """Of those who bought it more than 28 days ago, the share that bought it in the last 28 days."""
    known = e.sum(e.last_of_pair & (e.first_age > 28))
    again = e.sum(e.last_of_pair & (e.first_age > 28) & (e.last_age <= 28))
    return (again + 0.5) / (known + 10)


@feature("item", unit="days")
def item_gap(e: Events) -> Floats:
    """Mean days between one shopper's purchases of the item."""
    return e.mean(e.gap)


@feature("item", unit="days")
def item_gap_std(e: Events) -> Floats:
    """Spread of the days between one shopper's purchases of the item."""
    return e.std(e.gap)


@feature("item", unit="money a unit")
def item_price(e: Events) -> Floats:
    """Mean unit price."""
    return e.mean(e.price)


@feature("item", unit="ratio")
def item_price_28d_ratio(e: Events) -> Floats:
    """Unit price of the last 28 days over the mean; below 1 while on offer."""
    recent = np.where(e.age <= 28, e.price, np.nan)
    return e.mean(recent) / e.mean(e.price)


@feature("item", unit="units a line")
def item_quantity(e: Events) -> Floats:
    """Mean units of a line."""
    return e.mean(e.quantity)


@feature("item", unit="items")
def item_basket_size(e: Events) -> Floats:
    """Mean size of the receipts that hold the item."""
    return e.mean(e.basket_size)


@feature("item", unit="shoppers")
def item_new_buyers_28d(e: Events) -> Floats:
    """Shoppers who bought the item for the first time in the last 28 days."""
    return e.sum(np.isnan(e.gap) & (e.age <= 28))


@feature("item", unit="units")
def item_units(e: Events) -> Floats:
    """Units of the item that were sold."""
    return e.sum(e.quantity)


@feature("item", unit="money")
def item_value(e: Events) -> Floats:
    """Money that the item took."""
    return e.sum(e.value)


@feature("item", unit="receipts a week")
def item_receipts_per_week(e: Events) -> Floats:
    """Receipts with the item per week since it was first sold."""
    return 7 * e.count() / (e.max(e.age) + 7)


@feature("item", unit="ratio", family="price")
def item_price_7d_ratio(e: Events) -> Floats:
    """Unit price of the last 7 days over the mean; below 1 while on offer."""
    return e.mean(np.where(e.age <= 7, e.price, np.nan)) / e.mean(e.price)


@feature("item", unit="share", family="habit")
def item_weekend_share(e: Events) -> Floats:
    """Share of the item's sales on Saturdays and Sundays."""
    return e.sum(e.is_weekend) / e.count()


@feature("item", unit="hour", family="habit")
def item_hour(e: Events) -> Floats:
    """Mean hour of the day at which the item is bought."""
    return e.mean(e.hour)


@feature("item", unit="share", family="promotion")
def item_discounted_share(e: Events) -> Floats:
    """Share of the item's sales at a discount, where receipts tell."""
    return e.mean(np.where(np.isnan(e.discount_share), np.nan, e.discount_share > 0.005))


@feature("item", unit="share", family="promotion")
def item_discount_28d(e: Events) -> Floats:
    """Mean share off the price in the last 28 days, where receipts tell."""
    return e.mean(np.where(e.age <= 28, e.discount_share, np.nan))


@feature("item_week", unit="weeks", family="item")
def item_week_count(w: Weeks) -> Floats:
    """Weeks of the last twelve in which the item was sold."""
    return (w.receipts > 0).sum(axis=1).astype(np.float64)


@feature("item_week", unit="ratio", family="item")
def item_week_spread(w: Weeks) -> Floats:
    """Spread of the item's weekly receipts over their mean: high for what comes in waves."""
    mean = w.receipts.mean(axis=1)
    return np.divide(w.receipts.std(axis=1), mean, out=np.full(len(mean), np.nan), where=mean > 0)


@feature("item_week", unit="ratio", family="item")
def item_week_of_peak(w: Weeks) -> Floats:
    """Receipts of the newest week over those of the best of twelve weeks; 1 is a peak now."""
    peak = w.receipts.max(axis=1)
    return np.divide(w.receipts[:, 0], peak, out=np.full(len(peak), np.nan), where=peak > 0)


@feature("item_week", unit="receipts a week", family="item")
def item_week_slope(w: Weeks) -> Floats:
    """Slope of a line through the item's receipts of the last twelve weeks; above 0 is rising."""
    time = -np.arange(w.receipts.shape[1], dtype=np.float64)
    time -= time.mean()
    return w.receipts @ time / (time @ time)

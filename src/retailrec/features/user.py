"""Features of a shopper: how often, how much, how regular, how adventurous."""

from __future__ import annotations

import numpy as np

from retailrec.features.events import Events, Floats, feature


@feature("user", unit="receipts")
def user_receipts(e: Events) -> Floats:
    """Receipts of the shopper."""
    return e.sum(e.first_in_basket)


@feature("user", unit="items")
def user_items(e: Events) -> Floats:
    """Different items the shopper bought."""
    return e.sum(e.last_of_pair)


@feature("user", unit="money")
def user_value(e: Events) -> Floats:
    """Money the shopper spent."""
    return e.sum(e.value)


@feature("user", unit="days")
def user_days_since_visit(e: Events) -> Floats:
    """Days since the shopper's last receipt."""
    return e.min(e.age)


@feature("user", unit="days")
def user_tenure(e: Events) -> Floats:
    """Days since the shopper's first receipt."""
    return e.max(e.age)


@feature("user", unit="receipts")
def user_receipts_28d(e: Events) -> Floats:
    """Receipts in the last 28 days."""
    return e.sum(e.first_in_basket & (e.age <= 28))


@feature("user", unit="receipts")
def user_receipts_91d(e: Events) -> Floats:
    """Receipts in the last 91 days."""
    return e.sum(e.first_in_basket & (e.age <= 91))


@feature("user", unit="receipts")
def user_receipts_last_year(e: Events) -> Floats:
    """Receipts 336 to 364 days ago: the next four weeks, a year ago."""
    return e.sum(e.first_in_basket & (e.age > 336) & (e.age <= 364))


@feature("user", unit="days")
def user_gap(e: Events) -> Floats:
    """Mean days between the shopper's receipts."""
    return e.mean(e.visit_gap)


@feature("user", unit="days")
def user_gap_std(e: Events) -> Floats:
    """Spread of the days between the shopper's receipts."""
    return e.std(e.visit_gap)


@feature("user", unit="items a receipt")
def user_basket_size(e: Events) -> Floats:
    """Mean number of different items on a receipt."""
    return e.count() / e.sum(e.first_in_basket)


@feature("user", unit="items")
def user_last_basket_size(e: Events) -> Floats:
    """Different items on the last receipt."""
    return e.sum(e.baskets_ago == 0)


@feature("user", unit="money a unit")
def user_price(e: Events) -> Floats:
    """Mean unit price of what the shopper buys."""
    return e.mean(e.price)


@feature("user", unit="units a line")
def user_quantity(e: Events) -> Floats:
    """Mean units of a line."""
    return e.mean(e.quantity)


@feature("user", unit="share")
def user_repeat_share(e: Events) -> Floats:
    """Share of lines that repeat an item the shopper bought before."""
    return e.sum(~np.isnan(e.gap)) / e.count()


@feature("user", unit="share")
def user_repeat_share_91d(e: Events) -> Floats:
    """The same over the last 91 days; missing without a receipt in them."""
    recent = e.sum(e.age <= 91)
    repeats = e.sum(~np.isnan(e.gap) & (e.age <= 91))
    return np.divide(repeats, recent, out=np.full(len(recent), np.nan), where=recent > 0)


@feature("user", unit="share")
def user_rebuy_rate_28d(e: Events) -> Floats:
    """Of the items bought more than 28 days ago, the share bought in the last 28 days."""
    known = e.sum(e.last_of_pair & (e.first_age > 28))
    again = e.sum(e.last_of_pair & (e.first_age > 28) & (e.last_age <= 28))
    return np.divide(again, known, out=np.full(len(known), np.nan), where=known > 0)


@feature("user", unit="money")
def user_value_28d(e: Events) -> Floats:
    """Money the shopper spent in the last 28 days."""
    return e.sum(np.where(e.age <= 28, e.value, np.nan))


@feature("user", unit="money")
def user_value_91d(e: Events) -> Floats:
    """Money the shopper spent in the last 91 days."""
    return e.sum(np.where(e.age <= 91, e.value, np.nan))


@feature("user", unit="money a receipt")
def user_value_per_receipt(e: Events) -> Floats:
    """Money on a receipt of the shopper."""
    return e.sum(e.value) / e.sum(e.first_in_basket)


@feature("user", unit="receipts a week")
def user_receipts_per_week(e: Events) -> Floats:
    """Receipts per week since the shopper's first one."""
    return 7 * e.sum(e.first_in_basket) / (e.max(e.age) + 7)


@feature("user", unit="units a week")
def user_units_per_week(e: Events) -> Floats:
    """Units bought per week since the shopper's first receipt."""
    return 7 * e.sum(e.quantity) / (e.max(e.age) + 7)


@feature("user", unit="ratio", family="cadence")
def user_visit_due(e: Events) -> Floats:
    """Days since the last receipt over the mean days between receipts; above 1 is late."""
    return e.min(e.age) / (e.mean(e.visit_gap) + 1)


@feature("user", unit="share", family="habit")
def user_weekend_share(e: Events) -> Floats:
    """Share of the shopper's receipts on Saturdays and Sundays."""
    return e.sum(e.first_in_basket & e.is_weekend) / e.sum(e.first_in_basket)


@feature("user", unit="hour", family="habit")
def user_hour(e: Events) -> Floats:
    """Mean hour of the day at which the shopper buys."""
    return e.mean(e.hour)


@feature("user", unit="share", family="promotion")
def user_discounted_share(e: Events) -> Floats:
    """Share of the shopper's lines that were bought at a discount, where receipts tell."""
    return e.mean(np.where(np.isnan(e.discount_share), np.nan, e.discount_share > 0.005))

"""The features: of an item, of a pair of user and item, of a user. One function each, over events."""

from __future__ import annotations

import numpy as np

from retailrec.features.events import Columns, Events, Floats, Weeks, feature
from retailrec.schema import CATEGORIES


@feature("item", unit="receipts")
def item_receipts(e: Events) -> Floats:
    """Receipts with the item."""
    return e.count()


@feature("item", unit="shoppers")
def item_buyers(e: Events) -> Floats:
    """Users who ever bought the item."""
    return e.sum(e.last_of_pair)


@feature("item", unit="shoppers")
def item_buyers_7d(e: Events) -> Floats:
    """Users who bought the item in the last 7 days."""
    return e.sum(e.last_of_pair & (e.age <= 7))


@feature("item", unit="shoppers")
def item_buyers_28d(e: Events) -> Floats:
    """Users who bought the item in the last 28 days."""
    return e.sum(e.last_of_pair & (e.age <= 28))


@feature("item", unit="shoppers")
def item_buyers_91d(e: Events) -> Floats:
    """Users who bought the item in the last 91 days."""
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
    """Receipts with the item per user who bought it."""
    return e.count() / e.sum(e.last_of_pair)


@feature("item", unit="share")
def item_repeat_share(e: Events) -> Floats:
    """Share of the item's sales that repeat a user's earlier purchase."""
    return e.sum(~np.isnan(e.gap)) / e.count()


@feature("item", unit="share")
def item_rebuy_rate_28d(e: Events) -> Floats:
    """Of those who bought it more than 28 days ago, the share that bought it in the last 28 days."""
    known = e.sum(e.last_of_pair & (e.first_age > 28))
    again = e.sum(e.last_of_pair & (e.first_age > 28) & (e.last_age <= 28))
    return (again + 0.5) / (known + 10)


@feature("item", unit="days")
def item_gap(e: Events) -> Floats:
    """Mean days between one user's purchases of the item."""
    return e.mean(e.gap)


@feature("item", unit="days")
def item_gap_std(e: Events) -> Floats:
    """Spread of the days between one user's purchases of the item."""
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
    """Users who bought the item for the first time in the last 28 days."""
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


@feature("pair", unit="receipts")
def pair_receipts(e: Events) -> Floats:
    """The user's receipts with the item."""
    return e.count()


@feature("pair", unit="receipts")
def pair_receipts_28d(e: Events) -> Floats:
    """The user's receipts with the item in the last 28 days."""
    return e.sum(e.age <= 28)


@feature("pair", unit="receipts")
def pair_receipts_91d(e: Events) -> Floats:
    """The user's receipts with the item in the last 91 days."""
    return e.sum(e.age <= 91)


@feature("pair", unit="receipts")
def pair_receipts_last_year(e: Events) -> Floats:
    """The user's receipts with the item 336 to 364 days ago."""
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
    """Days since the user last bought the item."""
    return e.last(e.age)


@feature("pair", unit="days")
def pair_days_since_first(e: Events) -> Floats:
    """Days since the user first bought the item."""
    return e.max(e.age)


@feature("pair", unit="receipts")
def pair_receipts_back(e: Events) -> Floats:
    """Receipts of the user since the last one with the item; 0 if it is on the last."""
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
    """Mean days between the user's purchases of the item."""
    return e.mean(e.gap)


@feature("pair", unit="days")
def pair_gap_std(e: Events) -> Floats:
    """Spread of the days between the user's purchases of the item."""
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
    """Mean units of the item when the user buys it."""
    return e.mean(e.quantity)


@feature("pair", unit="money")
def pair_value(e: Events) -> Floats:
    """Money the user spent on the item."""
    return e.sum(e.value)


@feature("pair", unit="money a unit")
def pair_price(e: Events) -> Floats:
    """Mean unit price the user paid for the item."""
    return e.mean(e.price)


@feature("pair", unit="items")
def pair_basket_size(e: Events) -> Floats:
    """Mean size of the user's receipts that hold the item."""
    return e.mean(e.basket_size)


@feature("pair", unit="units")
def pair_units(e: Events) -> Floats:
    """Units of the item that the user bought."""
    return e.sum(e.quantity)


@feature("pair", unit="money")
def pair_value_91d(e: Events) -> Floats:
    """Money the user spent on the item in the last 91 days."""
    return e.sum(np.where(e.age <= 91, e.value, np.nan))


@feature("pair", unit="receipts")
def pair_receipts_since_first(e: Events) -> Floats:
    """Receipts of the user from the first one with the item on, that one counted."""
    return e.max(e.baskets_ago) + 1


@feature("pair", unit="receipts")
def pair_gap_receipts(e: Events) -> Floats:
    """Mean number of receipts from one with the item to the next; missing after a single purchase."""
    gaps = e.count() - 1
    span = e.max(e.baskets_ago) - e.min(e.baskets_ago)
    return np.divide(span, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0)


@feature("pair", unit="share", family="promotion")
def pair_discounted_share(e: Events) -> Floats:
    """Share of the user's purchases of the item at a discount, where receipts tell."""
    return e.mean(np.where(np.isnan(e.discount_share), np.nan, e.discount_share > 0.005))


@feature("category", unit="lines")
def category_lines(e: Events) -> Floats:
    """Lines of the category that the user bought."""
    return e.count()


@feature("category", unit="lines")
def category_lines_28d(e: Events) -> Floats:
    """Lines of the category in the last 28 days."""
    return e.sum(e.age <= 28)


@feature("category", unit="days")
def category_days_since(e: Events) -> Floats:
    """Days since the user last bought of the category."""
    return e.min(e.age)


@feature("category", unit="items")
def category_items(e: Events) -> Floats:
    """Different items of the category that the user bought."""
    return e.sum(e.last_of_pair)


@feature("category", unit="money a unit")
def category_price(e: Events) -> Floats:
    """Mean unit price the user paid in the category."""
    return e.mean(e.price)


@feature("match", unit="ratio", family="cadence")
def match_due(c: Columns) -> Floats:
    """Days since the last purchase over the user's own mean gap for the item."""
    return c["pair_days_since"] / (c["pair_gap"] + 1)


@feature("match", unit="ratio", family="cadence")
def match_due_item(c: Columns) -> Floats:
    """Days since the last purchase over the item's mean gap among all users."""
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
    """Share of the user's receipts that hold the item."""
    return c["pair_receipts"] / c["user_receipts"]


@feature("match", unit="share", family="pair")
def match_receipt_share_since_first(c: Columns) -> Floats:
    """Receipts with the item per day since it was first bought, over receipts per day."""
    item_rate = c["pair_receipts"] / (c["pair_days_since_first"] + 7)
    return item_rate / (c["user_receipts"] / (c["user_tenure"] + 7))


@feature("match", unit="receipts a week", family="pair")
def match_receipts_per_week(c: Columns) -> Floats:
    """Receipts with the item per week since the user first bought it."""
    return 7 * c["pair_receipts"] / (c["pair_days_since_first"] + 7)


@feature("match", unit="ratio", family="price")
def match_price_level(c: Columns) -> Floats:
    """The item's unit price over the user's usual unit price."""
    return c["item_price"] / c["user_price"]


@feature("match", unit="days", family="pair")
def match_sale_recency(c: Columns) -> Floats:
    """Days since the user bought the item minus days since any user did."""
    return c["pair_days_since"] - c["item_days_since_sale"]


@feature("match", unit="days", family="item")
def match_newness(c: Columns) -> Floats:
    """Days since the item was first sold minus days since the user's last receipt.

    Below 0, the item came after the user's last visit.
    """
    return c["item_age"] - c["user_days_since_visit"]


@feature("match", unit="ratio", family="cadence")
def match_due_receipts(c: Columns) -> Floats:
    """The user's receipts since the item was last on one, over the usual number between two."""
    return (c["pair_receipts_back"] + 1) / c["pair_gap_receipts"]


@feature("match", unit="share", family="pair")
def match_receipt_share_from_first(c: Columns) -> Floats:
    """Share of the user's receipts that hold the item, from the first one with it on."""
    return c["pair_receipts"] / c["pair_receipts_since_first"]


@feature("match", unit="share", family="pair")
def match_line_share(c: Columns) -> Floats:
    """Share of the user's receipt lines that are the item."""
    return c["pair_receipts"] / (c["user_receipts"] * c["user_basket_size"])


@feature("match", unit="share", family="category")
def match_category_share(c: Columns) -> Floats:
    """Share of the user's lines in the item's finest known category that are the item."""
    for level in reversed(CATEGORIES):
        if f"{level}_lines" in c:
            return c["pair_receipts"] / c[f"{level}_lines"]
    return np.full(len(c["pair_receipts"]), np.nan)


@feature("match", unit="ratio", family="price")
def match_price_change(c: Columns) -> Floats:
    """The item's unit price of the last 28 days over what the user paid for it."""
    return c["item_price"] * c["item_price_28d_ratio"] / c["pair_price"]


@feature("match", unit="hours", family="habit")
def match_hour_distance(c: Columns) -> Floats:
    """Hours between the times of day at which the user shops and the item is bought."""
    return abs(c["user_hour"] - c["item_hour"])


@feature("user", unit="receipts")
def user_receipts(e: Events) -> Floats:
    """Receipts of the user."""
    return e.sum(e.first_in_basket)


@feature("user", unit="items")
def user_items(e: Events) -> Floats:
    """Different items the user bought."""
    return e.sum(e.last_of_pair)


@feature("user", unit="money")
def user_value(e: Events) -> Floats:
    """Money the user spent."""
    return e.sum(e.value)


@feature("user", unit="days")
def user_days_since_visit(e: Events) -> Floats:
    """Days since the user's last receipt."""
    return e.min(e.age)


@feature("user", unit="days")
def user_tenure(e: Events) -> Floats:
    """Days since the user's first receipt."""
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
    """Mean days between the user's receipts."""
    return e.mean(e.visit_gap)


@feature("user", unit="days")
def user_gap_std(e: Events) -> Floats:
    """Spread of the days between the user's receipts."""
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
    """Mean unit price of what the user buys."""
    return e.mean(e.price)


@feature("user", unit="units a line")
def user_quantity(e: Events) -> Floats:
    """Mean units of a line."""
    return e.mean(e.quantity)


@feature("user", unit="share")
def user_repeat_share(e: Events) -> Floats:
    """Share of lines that repeat an item the user bought before."""
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
    """Money the user spent in the last 28 days."""
    return e.sum(np.where(e.age <= 28, e.value, np.nan))


@feature("user", unit="money")
def user_value_91d(e: Events) -> Floats:
    """Money the user spent in the last 91 days."""
    return e.sum(np.where(e.age <= 91, e.value, np.nan))


@feature("user", unit="money a receipt")
def user_value_per_receipt(e: Events) -> Floats:
    """Money on a receipt of the user."""
    return e.sum(e.value) / e.sum(e.first_in_basket)


@feature("user", unit="receipts a week")
def user_receipts_per_week(e: Events) -> Floats:
    """Receipts per week since the user's first one."""
    return 7 * e.sum(e.first_in_basket) / (e.max(e.age) + 7)


@feature("user", unit="units a week")
def user_units_per_week(e: Events) -> Floats:
    """Units bought per week since the user's first receipt."""
    return 7 * e.sum(e.quantity) / (e.max(e.age) + 7)


@feature("user", unit="ratio", family="cadence")
def user_visit_due(e: Events) -> Floats:
    """Days since the last receipt over the mean days between receipts; above 1 is late."""
    return e.min(e.age) / (e.mean(e.visit_gap) + 1)


@feature("user", unit="share", family="habit")
def user_weekend_share(e: Events) -> Floats:
    """Share of the user's receipts on Saturdays and Sundays."""
    return e.sum(e.first_in_basket & e.is_weekend) / e.sum(e.first_in_basket)


@feature("user", unit="hour", family="habit")
def user_hour(e: Events) -> Floats:
    """Mean hour of the day at which the user buys."""
    return e.mean(e.hour)


@feature("user", unit="share", family="promotion")
def user_discounted_share(e: Events) -> Floats:
    """Share of the user's lines that were bought at a discount, where receipts tell."""
    return e.mean(np.where(np.isnan(e.discount_share), np.nan, e.discount_share > 0.005))

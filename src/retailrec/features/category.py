"""Features of a shopper and a category that the candidate belongs to, for each level known."""

from __future__ import annotations

from retailrec.features.aggregates import Events
from retailrec.features.registry import Floats, feature


@feature("category", unit="lines")
def category_lines(e: Events) -> Floats:
    """Lines of the category that the shopper bought."""
    return e.count()


@feature("category", unit="lines")
def category_lines_28d(e: Events) -> Floats:
    """Lines of the category in the last 28 days."""
    return e.sum(e.age <= 28)


@feature("category", unit="days")
def category_days_since(e: Events) -> Floats:
    """Days since the shopper last bought of the category."""
    return e.min(e.age)


@feature("category", unit="items")
def category_items(e: Events) -> Floats:
    """Different items of the category that the shopper bought."""
    return e.sum(e.last_of_pair)


@feature("category", unit="money a unit")
def category_price(e: Events) -> Floats:
    """Mean unit price the shopper paid in the category."""
    return e.mean(e.price)

"""Which items may be discovered, and which may be recommended at all. Histories stay whole.

A prefilter hides items from users who never bought them (``data.items["discoverable"]``): what a user
bought stays recommendable to that user. Only one that says an item can't be bought (``hides_from_all``)
hides it from all (``data.items["recommendable"]``). A prefilter looks at the data it is given and
nothing else, so applied to ``data.asof(t)`` it knows what was known at `t`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar, TypedDict

import polars as pl

from retailrec.components import Component, Count, Days, Share, registered
from retailrec.data.parsing import ids_meet
from retailrec.data.retail_data import RetailData, item_buyers, item_lines
from retailrec.errors import DataError, SettingError
from retailrec.schema import CATEGORIES, DISCOVERABLE, ITEM_ID, RECOMMENDABLE


class Prefilter(Component, ABC):
    """Keeps some items; one of one's own is a frozen dataclass below this one with `keeps`.

    Attributes
    ----------
    hides_from_all : items that are not kept can't be bought, so they are hidden from those who bought
        them before, too; otherwise only from those who never did
    """

    hides_from_all: ClassVar[bool] = False

    @abstractmethod
    def keeps(self, data: RetailData) -> pl.Series:
        """(n_items,) True for the items that may stay."""

    def __call__(self, data: RetailData) -> RetailData:
        """`data` with fewer items that may be recommended, to all or to those who never bought them."""
        keeps = self.keeps(data).fill_null(False)
        column = RECOMMENDABLE if self.hides_from_all else DISCOVERABLE
        before = data.recommendable if self.hides_from_all else data.discoverable
        return data.with_items(data.items.with_columns((pl.Series(before) & keeps).alias(column)))


@dataclass(frozen=True)
class MinItemsInCategory(Prefilter):
    """Items of categories (departments) that sold at least `n` different items."""

    n: Count = 150
    level: str = CATEGORIES[0]

    def keeps(self, data: RetailData) -> pl.Series:
        if self.level not in data.items.columns:
            raise DataError(
                f"prefilter MinItemsInCategory: items lack column '{self.level}'; "
                f"they have {data.items.columns}. Name another level or leave the filter out."
            )
        sold = _per_item(data, pl.len()) > 0
        category = data.items[self.level]
        rich = category.filter(sold).value_counts().filter(pl.col("count") >= self.n)[self.level]
        return category.is_in(rich.implode()) & category.is_not_null()


@dataclass(frozen=True)
class PriceBetween(Prefilter):
    """Items whose mean unit price lies above `above` and below `below`; unknown prices stay."""

    above: float = 2.0
    below: float = 50.0

    def keeps(self, data: RetailData) -> pl.Series:
        price = _per_item(data, pl.col("value").sum() / pl.col("quantity").sum())
        known = _per_item(data, pl.col("value").is_not_null().any().cast(pl.Int8)) > 0
        inside = (price > self.above) & (price < self.below)
        return inside.fill_null(False) | ~known


@dataclass(frozen=True)
class MostSold(Prefilter):
    """The `n` items of which most units were sold; ties go to the lower item."""

    n: Count = 5000

    def keeps(self, data: RetailData) -> pl.Series:
        sold = _per_item(data, pl.col("quantity").sum())
        best = (-sold).arg_sort()[: self.n]
        return pl.Series(range(data.n_items)).is_in(best.implode()) & (sold > 0)


@dataclass(frozen=True)
class SoldWithin(Prefilter):
    """Items sold in the last `days`."""

    days: Days = 182.0

    def keeps(self, data: RetailData) -> pl.Series:
        return pl.Series(item_lines(data, data.end - timedelta(days=self.days)) > 0)


@dataclass(frozen=True)
class MinBuyers(Prefilter):
    """Items that at least `n` different shoppers bought."""

    n: Count = 5

    def keeps(self, data: RetailData) -> pl.Series:
        return pl.Series(item_buyers(data) >= self.n)


@dataclass(frozen=True)
class StillSold(Prefilter):
    """Items whose silence fits their own rhythm; what is gone is hidden from all.

    An item that was sold on n days over a span of s, and on none since t, is gone if t is at least
    `days` and (s / (s + t))^(n - 1), the chance of so long a silence where sales come at a steady but
    unknown rate, is below `chance`.
    """

    days: Days = 56.0
    chance: Share = 1e-4
    hides_from_all = True

    def keeps(self, data: RetailData) -> pl.Series:
        day = pl.col("time").dt.date()
        sold = data.log.group_by("item").agg(n=day.n_unique(), first=day.min(), last=day.max())
        span = (pl.col("last") - pl.col("first")).dt.total_days().cast(pl.Float64)
        silent = (pl.lit(data.end).dt.date() - pl.col("last")).dt.total_days() - 1.0
        likely = (span / (span + silent)) ** (pl.col("n") - 1) >= self.chance
        sold = sold.select("item", keeps=(silent < self.days) | likely)
        kept = pl.Series([True] * data.n_items)
        return kept.scatter(sold["item"], sold["keeps"])


@dataclass(frozen=True)
class AllowItems(Prefilter):
    """Only these item ids."""

    hides_from_all = True

    item_ids: Sequence[Any] = ()

    def keeps(self, data: RetailData) -> pl.Series:
        return data.items[ITEM_ID].is_in(_same_type(self.item_ids, data, "allow_items").implode())


@dataclass(frozen=True)
class DenyItems(Prefilter):
    """All but these item ids."""

    hides_from_all = True

    item_ids: Sequence[Any] = ()

    def keeps(self, data: RetailData) -> pl.Series:
        return ~data.items[ITEM_ID].is_in(_same_type(self.item_ids, data, "deny_items").implode())


def _same_type(ids: Sequence[Any], data: RetailData, who: str) -> pl.Series:
    """The ids in the type of the catalogue's; an error if it knows none, or one by another notation.

    Ids that the data does not know yet, as at an earlier cutoff, are still in its catalogue.
    """
    text = pl.Series(ITEM_ID, [str(i) for i in ids], pl.String)
    known = data.items[ITEM_ID]
    if other := ids_meet(text, known, who=f"prefilter {who}", whose="the catalogue", share=0):
        raise DataError(other)
    return text.cast(known.dtype, strict=False).drop_nulls()


def _per_item(data: RetailData, value: pl.Expr) -> pl.Series:
    """(n_items,) an aggregate over each item's log rows; 0 for items without any."""
    found = data.log.group_by("item").agg(value.alias("_value"))
    codes = pl.DataFrame({"item": pl.Series(range(data.n_items), dtype=pl.Int32)})
    joined = codes.join(found, on="item", how="left", maintain_order="left")
    return joined["_value"].fill_null(0)


# those of the package; `registered(Prefilter)` knows those of one's own as well
PREFILTERS: dict[str, type[Prefilter]] = registered(Prefilter)
PRESETS: dict[str, tuple[Prefilter, ...]] = {
    "none": (),
    "default": (),
    "walk-through": (MinItemsInCategory(150), PriceBetween(2, 50), MostSold(5000)),
}


def preset(name: str) -> tuple[Prefilter, ...]:
    """The filters of a preset.

    Raises
    ------
    SettingError
        If there is no such preset.
    """
    if name not in PRESETS:
        raise SettingError(
            f"there is no prefilter preset '{name}'; expected one of {', '.join(PRESETS)}."
        )
    return PRESETS[name]


class Removed(TypedDict):
    """Items that a prefilter hides from those who never bought them, and how many it leaves."""

    prefilter: str
    removed: int
    left: int


def apply_prefilters(
    prefilters: Sequence[Prefilter], data: RetailData
) -> tuple[RetailData, list[Removed]]:
    """`data` after all filters in turn, and what each one removed.

    Raises
    ------
    DataError
        If no item is left.
    """
    removed: list[Removed] = []
    for prefilter in prefilters:
        before = int(data.discoverable.sum())
        data = prefilter(data)
        left = int(data.discoverable.sum())
        removed.append({"prefilter": repr(prefilter), "removed": before - left, "left": left})
        if not left:
            raise DataError(
                f"prefilter {prefilter!r} leaves no item of {before}; loosen it or leave it out."
            )
    return data, removed

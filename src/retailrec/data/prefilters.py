"""Which items may be recommended at all. Histories stay whole.

A prefilter turns items off in ``data.items["recommendable"]`` and says how many. It looks at the data
it is given and nothing else, so applied to ``data.asof(t)`` it knows what was known at `t`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import polars as pl

from retailrec.components import Component, Count, Days, registered
from retailrec.data.item_facts import item_buyers, item_lines
from retailrec.data.parsing import ids_meet
from retailrec.data.retail_data import RetailData
from retailrec.errors import DataError, SettingError
from retailrec.schema import CATEGORIES, ITEM_ID, RECOMMENDABLE


class Prefilter(Component, ABC):
    """Keeps some items; one of one's own is a frozen dataclass below this one with `keeps`."""

    @abstractmethod
    def keeps(self, data: RetailData) -> pl.Series:
        """(n_items,) True for the items that may stay."""

    def __call__(self, data: RetailData) -> RetailData:
        """`data` with fewer recommendable items."""
        keeps = self.keeps(data).fill_null(False)
        items = data.items.with_columns((pl.col(RECOMMENDABLE) & keeps).alias(RECOMMENDABLE))
        return data.with_items(items)


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
class AllowItems(Prefilter):
    """Only these item ids."""

    item_ids: Sequence[Any] = ()

    def keeps(self, data: RetailData) -> pl.Series:
        return data.items[ITEM_ID].is_in(_same_type(self.item_ids, data, "allow_items").implode())


@dataclass(frozen=True)
class DenyItems(Prefilter):
    """All but these item ids."""

    item_ids: Sequence[Any] = ()

    def keeps(self, data: RetailData) -> pl.Series:
        return ~data.items[ITEM_ID].is_in(_same_type(self.item_ids, data, "deny_items").implode())


def _same_type(ids: Sequence[Any], data: RetailData, who: str) -> pl.Series:
    """The ids in the type of the catalogue's; it is an error if it knows none of them.

    Ids that the data does not know yet, as at an earlier cutoff, are still in its catalogue.
    """
    given = pl.Series(ITEM_ID, [str(i) for i in ids], pl.String)
    known = data.items[ITEM_ID]
    ids_meet(given, known, who=f"prefilter {who}", whose="the catalogue", share=0)
    return given.cast(known.dtype, strict=False).drop_nulls()


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
    "default": (SoldWithin(), MinBuyers(2)),
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
    """Items that a prefilter removed, and how many it left."""

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
        before = int(data.recommendable.sum())
        data = prefilter(data)
        left = int(data.recommendable.sum())
        removed.append({"prefilter": repr(prefilter), "removed": before - left, "left": left})
        if not left:
            raise DataError(
                f"prefilter {prefilter!r} leaves no item of {before}; loosen it or leave it out."
            )
    return data, removed

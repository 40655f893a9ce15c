"""What a campaign's choice must keep to: limits, budgets, exclusions, as sets of items and bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.parsing import ids_meet, parse_number
from retailrec.errors import DataError, SettingError
from retailrec.offers.campaign import Budget, Campaign, Limit
from retailrec.schema import CATEGORIES


@dataclass(frozen=True)
class Constraint:
    """One bound on offers or on expected cost.

    Attributes
    ----------
    name : such as ``product 17``, ``supplier Arla: budget``
    is_cost : is expected cost added up (a budget) or are offers counted (a limit)?
    at_least, at_most : the bounds; -inf and inf where there is none
    items : (n,) codes of the items it counts, ascending
    """

    name: str
    is_cost: bool
    at_least: float
    at_most: float
    items: NDArray[np.int32]


def group_column(by: str, items: pl.DataFrame) -> str | None:
    """The items' column of suppliers or categories; the broadest category where none is called so."""
    names = {"supplier": ("supplier",), "category": ("category", CATEGORIES[0])}[by]
    return next((name for name in names if name in items.columns), None)


def constraints_of(
    campaign: Campaign, table: pl.DataFrame | None, item_ids: pl.Series, notes: list[str]
) -> list[Constraint]:
    """Limits and budgets, bounds of the same thing joined; limits of single products come first.

    What a limit can't count is added to `notes`: items without a group, names without pairs.

    Raises
    ------
    DataError
        If a limit speaks of a product or group that is not there, of a column that the items lack, or
        of a column of items without a row for each item of the pairs.
    SettingError
        If limits of the same thing contradict each other.
    """
    limits: dict[tuple[str, str], tuple[float, float]] = {}
    budgets: dict[tuple[str, str], float] = {}
    groups: dict[str, dict[str, NDArray[np.int32]]] = {}
    parts: list[Limit | Budget] = [*campaign.limit, *campaign.budget]
    for part in parts:
        if part.by not in groups:
            groups[part.by] = _groups(part.by, table, item_ids, notes)
        inside = groups[part.by]
        if part.of is not None and str(part.of) not in inside:
            some = ", ".join(list(inside)[:5])
            raise DataError(
                f"campaign: it speaks of {part.by} '{part.of}', which neither the pairs nor the items "
                f"hold; there are {some}{', ...' if len(inside) > 5 else ''}. Correct 'of'."
            )
        names = list(inside) if part.of is None else [str(part.of)]
        if part.of is not None and not len(inside[str(part.of)]):
            notes.append(f"{part.by} {part.of} has no pair to offer: its bound counts nothing.")
        if isinstance(part, Budget):
            for name in names:
                budgets[part.by, name] = min(part.at_most, budgets.get((part.by, name), np.inf))
            continue
        lows = _bounds(part.at_least, names, table, item_ids, -np.inf)
        highs = _bounds(part.at_most, names, table, item_ids, np.inf)
        for name, least, most in zip(names, lows, highs, strict=True):
            low, high = limits.get((part.by, name), (-np.inf, np.inf))
            limits[part.by, name] = (max(low, least), min(high, most))
    constraints = []
    for (by, name), (low, high) in sorted(limits.items(), key=lambda e: e[0][0] != "product"):
        label = by if by == "everything" else f"{by} {name}"
        if low > high:
            raise SettingError(
                f"campaign: {label} must get at least {low:,.0f} offers and at most {high:,.0f}; no "
                f"answer can keep to both. Correct one of the limits."
            )
        if low > 0 or high < np.inf:
            constraints.append(
                Constraint(label, False, low if low > 0 else -np.inf, high, groups[by][name])
            )
    for (by, name), most in budgets.items():
        label = "the budget" if by == "everything" else f"the budget of {by} {name}"
        constraints.append(Constraint(label, True, -np.inf, most, groups[by][name]))
    return constraints


def _groups(
    by: str, table: pl.DataFrame | None, item_ids: pl.Series, notes: list[str]
) -> dict[str, NDArray[np.int32]]:
    """Item codes of each product, supplier or category, by name; of items without pairs, none."""
    everything = np.arange(len(item_ids), dtype=np.int32)
    if by == "everything":
        return {"": everything}
    if by == "product":
        groups = {str(name): everything[at : at + 1] for at, name in enumerate(item_ids)}
        others = [] if table is None else table["item_id"].to_list()
        return groups | {str(n): everything[:0] for n in others if str(n) not in groups}
    column = None if table is None else group_column(by, table)
    if table is None or column is None:
        there = "no items were given" if table is None else f"items have {table.columns}"
        raise DataError(f"campaign: it speaks of a {by}; {there}. Bring a column '{by}' of items.")
    _require_rows(table, item_ids, column)
    codes = pl.DataFrame({"item_id": item_ids, "code": everything})
    mine = table.select("item_id", pl.col(column).cast(pl.String).alias("name")).join(
        codes, on="item_id", how="left", maintain_order="left"
    )
    nameless = mine.filter(pl.col("name").is_null() & pl.col("code").is_not_null())
    if not nameless.is_empty():
        notes.append(
            f"{nameless.height:,} items of the pairs have no {by}, such as {nameless['item_id'][0]}: "
            f"no bound by {by} counts them."
        )
    rows = mine.filter(pl.col("name").is_not_null()).group_by("name").agg(pl.col("code").drop_nulls())
    return {
        str(name): np.sort(np.array(inside, np.int32)) for name, inside in rows.sort("name").iter_rows()
    }


def _bounds(
    bound: int | str | None,
    names: Sequence[str],
    table: pl.DataFrame | None,
    item_ids: pl.Series,
    nothing: float,
) -> list[float]:
    """The numbers that a limit sets for products or groups of these names."""
    if bound is None or isinstance(bound, int):
        return [nothing if bound is None else float(bound)] * len(names)
    if table is None or bound not in table.columns:
        there = "no items were given" if table is None else f"items have {table.columns}"
        raise DataError(f"campaign: '{bound}' names a column of the items; {there}. Bring that column.")
    _require_rows(table, item_ids, bound)
    values = _column_of(table, bound)
    return [values.get(name, nothing) for name in names]


def _require_rows(table: pl.DataFrame, item_ids: pl.Series, column: str) -> None:
    """Refuse items that lack a row: a bound that is not known would be broken in silence."""
    ids_meet(item_ids, table["item_id"], who="the pairs' items", whose="the items", share=0)
    known = item_ids.is_in(table["item_id"].implode())
    if not known.all():
        raise DataError(
            f"campaign: it asks for '{column}' of the items, and {int((~known).sum()):,} of the "
            f"{len(item_ids):,} items of the pairs have no row there, such as "
            f"{item_ids.filter(~known)[0]}. Add their rows; an empty cell sets no bound."
        )


def _column_of(table: pl.DataFrame, column: str) -> dict[str, float]:
    """Filled cells of a column of whole numbers by item, as text."""
    values = parse_number(table[column], who="items")
    bad = table.filter(
        values.is_nan() | (values < 0) | values.is_infinite() | (values != values.floor())
    )
    if not bad.is_empty():
        raise DataError(
            f"items: column '{column}' must hold whole numbers of 0 or more; item "
            f"{bad['item_id'][0]} has {bad[column][0]}. Correct it."
        )
    filled = values.is_not_null()
    names = table["item_id"].filter(filled).cast(pl.String)
    return dict(zip(names, values.filter(filled), strict=True))


def local_groups(
    campaign: Campaign, table: pl.DataFrame | None, item_ids: pl.Series, notes: list[str]
) -> tuple[list[NDArray[np.int32]], list[int]]:
    """Groups of items of which one shopper may get only so many, and how many.

    Raises
    ------
    DataError
        If an exclusion speaks of a product that is not there, or a variety of a column that items lack.
    """
    groups, caps = [], []
    products = _groups("product", table, item_ids, notes) if campaign.exclusion else {}
    for exclusion in campaign.exclusion:
        names = [str(name) for name in exclusion.products]
        unknown = [name for name in names if name not in products]
        if unknown:
            raise DataError(
                f"campaign: an exclusion speaks of product '{unknown[0]}', which neither the pairs nor "
                f"the items hold. Correct its products."
            )
        if absent := [name for name in names if not len(products[name])]:
            notes.append(f"product {absent[0]} of an exclusion has no pair to offer.")
        groups.append(np.unique(np.concatenate([products[name] for name in names])))
        caps.append(1)
    for variety in campaign.variety:
        for inside in _groups(variety.by, table, item_ids, notes).values():
            if len(inside):
                groups.append(inside)
                caps.append(variety.at_most)
    return groups, caps


def by_item(
    groups: Sequence[NDArray[np.int32]], n_items: int
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Groups of each item (CSR) from the items of each group."""
    if not groups:
        return np.zeros(n_items + 1, np.int64), np.zeros(0, np.int32)
    item = np.concatenate(groups)
    number = np.repeat(np.arange(len(groups), dtype=np.int32), [len(g) for g in groups])
    order = np.argsort(item, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(np.bincount(item, minlength=n_items))])
    return indptr.astype(np.int64), number[order]

"""From scores and a campaign to the arrays that are solved: pairs by shopper, constraints by item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.ids import require_id, row_of_ids, runs_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import (
    bare_id,
    ids_like,
    ids_meet,
    look_alike_key,
    look_alikes,
    parse_number,
    typed_ids,
)
from retailrec.errors import DataError, SettingError
from retailrec.offers.campaign import VALUE_COLUMNS, Budget, Campaign, Limit
from retailrec.offers.ledger import Ledger
from retailrec.schema import CATEGORIES

NUMBERS = ("value", "score", "probability", "margin", "cost", "uplift_margin")
MOST = 1e15  # of a value or cost: beyond it doubles no longer tell cents apart
SLACK = 1e-12  # share of a budget that its sums may miss or exceed: the rounding of doubles
_ROUNDING = 2e-15  # of a product of a few doubles


@dataclass(frozen=True)
class Problem:
    """Pairs that may be offered, in rows by shopper, and what the choice must keep to."""

    user_ids: pl.Series  # the caller's, ascending; a code is a place in them
    item_ids: pl.Series
    indptr: NDArray[np.int64]  # pairs of shopper u are [indptr[u], indptr[u + 1])
    item: NDArray[np.int32]  # (n_pairs,) code, ascending for each shopper
    value: NDArray[np.float64]  # (n_pairs,) worth of the offer
    cost: NDArray[np.float64]  # (n_pairs,) its expected cost
    ticks: NDArray[np.float64]  # (n_pairs,) cost in whole numbers, whose sums are exact in any order
    per_unit: float  # ticks of one unit of cost
    ceiling: NDArray[np.float64]  # (n_constraints,) upper bounds, those of budgets in ticks
    most: NDArray[np.int32]  # (n_users,) offers a shopper
    least: NDArray[np.int32]
    short_of_candidates: int  # shoppers whose `least` had to give way, since they have fewer pairs
    constraints: tuple[Constraint, ...]
    notes: tuple[str, ...]  # sentences about what the campaign speaks of and the input does not have
    of_indptr: NDArray[np.int64]  # constraints of each item (CSR)
    of_constraint: NDArray[np.int32]
    local_indptr: NDArray[np.int64]  # per-shopper groups of each item (CSR)
    local_group: NDArray[np.int32]
    local_cap: NDArray[np.int32]  # (n_groups,) offers of the group that a shopper may get

    @property
    def n_users(self) -> int:
        """Shoppers with pairs."""
        return len(self.indptr) - 1

    @property
    def n_items(self) -> int:
        """Items with pairs."""
        return len(self.item_ids)

    @property
    def lower(self) -> NDArray[np.float64]:
        """(n_constraints,) lower bounds."""
        return np.array([c.at_least for c in self.constraints], float)

    @property
    def upper(self) -> NDArray[np.float64]:
        """(n_constraints,) upper bounds."""
        return np.array([c.at_most for c in self.constraints], float)

    @property
    def counts(self) -> Any:
        """(n_constraints, n_items) sparse matrix of ones: which items each constraint counts."""
        from scipy.sparse import csr_array

        sizes = [len(c.items) for c in self.constraints]
        indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        items = np.concatenate([c.items for c in self.constraints] or [np.zeros(0, np.int32)])
        ones = np.ones(len(items))
        return csr_array((ones, items, indptr), shape=(len(sizes), self.n_items))

    @property
    def is_cost(self) -> NDArray[np.bool_]:
        """(n_constraints,) is expected cost added up?"""
        return np.array([c.is_cost for c in self.constraints], bool)


def read_pairs(pairs: Any, campaign: Campaign, items: Any = None) -> pl.DataFrame:
    """Checked pairs: `user_id`, `item_id`, `value`, `cost` (expected), ordered by both ids.

    Parameters
    ----------
    pairs : frame of `user_id`, `item_id` and what the campaign's value is made of: `value`, `score`,
        `probability`, `margin`, `cost`. A budget needs `cost`, which is multiplied by `probability`
        (the chance of redemption) where that column is there and by 1 where it is not.
    items : one row an `item_id`; `margin` and `cost` are taken from there where the pairs have none

    Raises
    ------
    DataError
        If a column is missing, a value is NaN, missing or infinite, a probability or cost is out of
        range, a pair stands twice, or there is no pair.
    """
    frame = to_polars(pairs, who="pairs")
    needed = ["user_id", "item_id", *VALUE_COLUMNS[campaign.value]]
    if campaign.budget and "cost" not in needed:
        needed.append("cost")
    frame = _with_item_amounts(frame, needed, items)
    for name in needed:
        if name not in frame.columns:
            raise DataError(
                f"pairs lack column '{name}'; they have {frame.columns}. The campaign's value is "
                f"'{campaign.value}'"
                + (" and it has a budget" if campaign.budget else "")
                + ": bring the column, or choose another value."
                + _where_from(name)
            )
    if frame.is_empty():
        raise DataError("there is no pair of shopper and item to choose from; give at least one.")
    numbers = [n for n in NUMBERS if n in frame.columns]
    used = [n for n in numbers if n in needed or (n == "probability" and campaign.budget)]
    frame = frame.select(
        typed_ids(frame["user_id"]),
        typed_ids(frame["item_id"]),
        *(parse_number(_as_written(frame[name]), who="pairs") for name in used),
    )
    _refuse_bad_pairs(frame, used)
    worth = {
        "probability_margin": pl.col("probability") * pl.col("margin"),
        "probability_margin_less_cost": pl.col("probability") * (pl.col("margin") - pl.col("cost")),
    }.get(campaign.value, pl.col(campaign.value))
    spent = pl.lit(0.0)
    if campaign.budget:
        spent = pl.col("cost") * (pl.col("probability") if "probability" in used else 1.0)
    frame = frame.select("user_id", "item_id", worth.alias("value"), spent.alias("cost"))
    frame = frame.sort("user_id", "item_id")
    pair = pl.col("user_id", "item_id")
    same = frame.filter(pl.all_horizontal(pair == pair.shift(1)))
    if n := same.height:
        raise DataError(
            f"pairs: {n:,} pairs stand twice, such as shopper {same[0, 0]} and item {same[0, 1]}; "
            f"keep one row of each."
        )
    return frame


def _as_written(numbers: pl.Series) -> pl.Series:
    """Numbers of single precision by their shortest decimal: ten costs of 0.1 fit a budget of 1."""
    return numbers.cast(pl.String) if numbers.dtype == pl.Float32 else numbers


def build_problem(
    frame: pl.DataFrame,
    campaign: Campaign,
    *,
    items: Any = None,
    users: Any = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
) -> Problem:
    """The arrays of a campaign over checked pairs (`read_pairs`).

    Parameters
    ----------
    items : frame of `item_id` and the columns that the campaign speaks of: `supplier`, `category`,
        stocks; needed if it speaks of any
    users : frame of `user_id` and the segments of the campaign's floors
    ledger, now : past offers and the time of this campaign, for caps

    Raises
    ------
    DataError, SettingError
        If the campaign names a product, supplier, category or segment that is not there, bounds of one
        product contradict each other, or caps leave no pair.
    """
    table = _attributes(items, "item_id", frame["item_id"])
    notes: list[str] = []
    past = _past_offers(campaign, ledger, now, frame, notes)
    if campaign.floor or campaign.strata is not None:
        _note_absent_users(users, frame["user_id"], notes)
    for cap, offers in zip(campaign.cap, past, strict=True):
        if cap.per == "product":
            frame = _without(frame, offers.filter(pl.col("offers") >= cap.at_most))
    if frame.is_empty():
        raise DataError(
            "no pair is left: past offers in the ledger and the campaign's caps exclude all of them. "
            "Raise a cap, or wait."
        )
    user_ids, indptr = runs_of_ids(frame["user_id"])
    item_ids = frame["item_id"].unique().sort()
    most = np.full(len(user_ids), campaign.offers.at_most, np.int64)
    for cap, offers in zip(campaign.cap, past, strict=True):
        if cap.per == "shopper":
            names = pl.DataFrame({"user_id": user_ids.cast(pl.String)})
            had = names.join(offers, on="user_id", how="left", maintain_order="left")["offers"]
            most = np.minimum(most, np.maximum(cap.at_most - had.fill_null(0).to_numpy(), 0))
    least = np.full(len(user_ids), campaign.offers.at_least, np.int64)
    for floor in campaign.floor:
        inside = _in_segment(floor.column, floor.of, users, user_ids)
        least = np.maximum(least, inside * floor.at_least)
    possible = np.minimum(np.diff(indptr), most)
    constraints = constraints_of(campaign, table, item_ids, notes)
    cost = frame["cost"].to_numpy()
    item = row_of_ids(frame["item_id"], item_ids).astype(np.int32)
    ticks, per_unit, ceiling = _in_ticks(cost, item, constraints, len(item_ids))
    of_indptr, of_constraint = by_item([c.items for c in constraints], len(item_ids))
    groups, caps = local_groups(campaign, table, item_ids, notes)
    local_indptr, local_group = by_item(groups, len(item_ids))
    return Problem(
        user_ids=user_ids,
        item_ids=item_ids,
        indptr=indptr,
        item=item,
        value=frame["value"].to_numpy(),
        cost=cost,
        ticks=ticks,
        per_unit=per_unit,
        ceiling=ceiling,
        most=most.astype(np.int32),
        least=np.minimum(least, possible).astype(np.int32),
        short_of_candidates=int((least > possible).sum()),
        constraints=tuple(constraints),
        notes=tuple(dict.fromkeys(notes)),
        of_indptr=of_indptr,
        of_constraint=of_constraint,
        local_indptr=local_indptr,
        local_group=local_group,
        local_cap=np.array(caps, np.int32),
    )


def _whole_ticks(budget: float, places: int) -> int:
    """Ticks that fit a budget; one that misses a whole number by the rounding of sums has it all."""
    exact = Decimal(repr(budget)).scaleb(places)
    nearest = exact.to_integral_value()
    return int(nearest if abs(nearest - exact) <= nearest * Decimal(SLACK) else exact)


def _in_ticks(
    cost: NDArray[np.float64],
    item: NDArray[np.int32],
    constraints: Sequence[Constraint],
    n_items: int,
) -> tuple[NDArray[np.float64], float, NDArray[np.float64]]:
    """Costs as whole numbers of ticks, how many are one unit, and upper bounds, budgets in ticks.

    Decimal numbers of up to nine places become whole exactly, so that ten coupons of 0.1 fit a budget
    of 1. For others a tick is 2**-51 or less of the smallest budget. What costs more than its budget is
    never offered, so it does not count here: one such pair would make the ticks of all too coarse.
    """
    budgets = [c for c in constraints if c.is_cost]
    upper = np.array([c.at_most for c in constraints], float)
    affordable = np.full(n_items, np.inf)
    for c in budgets:
        affordable[c.items] = np.minimum(affordable[c.items], c.at_most)
    counts = cost <= affordable[item] * (1 + SLACK)
    of_item = np.bincount(item[counts], cost[counts], n_items)
    reached = np.array([min(c.at_most, of_item[c.items].sum()) for c in budgets])
    is_cost = np.array([c.is_cost for c in constraints], bool)
    for places in range(10):
        ticks = cost * 10.0**places
        whole = np.rint(ticks)
        if (reached * 10.0**places >= 2**52).any():
            break
        if (np.abs(ticks - whole) <= _ROUNDING * ticks)[counts].all():
            upper[is_cost] = [_whole_ticks(c.at_most, places) for c in budgets]
            return np.where(counts, whole, np.ceil(ticks)), 10.0**places, upper
    least = min(reached[reached > 0], default=1.0)
    per_unit = 2.0 ** min(np.floor(51 - np.log2(least)), 900)
    upper[is_cost] = np.floor(upper[is_cost] * (1 + SLACK) * per_unit)
    ticks = cost * per_unit
    return np.where(counts, np.rint(ticks), np.ceil(ticks)), per_unit, upper


def _refuse_bad_pairs(frame: pl.DataFrame, numbers: Sequence[str]) -> None:
    for name in ("user_id", "item_id"):
        if n := frame[name].null_count():
            raise DataError(f"pairs: {n:,} rows lack '{name}'; fill it or leave these rows out.")
    for name in numbers:
        cell = pl.col(name)
        holds, words = cell.is_finite(), "be a finite number"
        if name == "probability":
            holds, words = cell.is_between(0, 1), "lie between 0 and 1"
        if name == "cost":
            holds, words = cell.is_finite() & (cell >= 0), "be 0 or more"
        bad = frame.filter(~holds.fill_null(False))
        if bad.is_empty():
            bad, words = frame.filter(cell.abs() > MOST), f"be at most {MOST:,.0f}"
        if not bad.is_empty():
            row = bad.row(0, named=True)
            raise DataError(
                f"pairs: column '{name}' must {words} in every row; {bad.height:,} rows differ, "
                f"such as shopper {row['user_id']}, item {row['item_id']}: {row[name]}. "
                f"Correct or drop them."
            )


_OF_ITEMS = ("margin", "cost")  # what may be the same for every user


def _with_item_amounts(frame: pl.DataFrame, needed: Sequence[str], items: Any) -> pl.DataFrame:
    """The pairs with what is needed of margin and cost, from the table of items where they lack it."""
    if items is None or "item_id" not in frame.columns:
        return frame
    table = to_polars(items, who="items")
    taken = [c for c in _OF_ITEMS if c in needed and c not in frame.columns and c in table.columns]
    if not taken:
        return frame
    ids = typed_ids(frame["item_id"])
    known = _attributes(table, "item_id", ids)
    if known is None:
        return frame
    found = frame.with_columns(ids).join(
        known.select("item_id", *taken), on="item_id", how="left", maintain_order="left"
    )
    absent = found.filter(pl.any_horizontal(pl.col(c).is_null() for c in taken))["item_id"]
    if len(absent):
        raise DataError(
            f"items lack {' and '.join(taken)} of {absent.n_unique():,} items of the pairs, such as "
            f"{absent[0]!r}; add their rows, or rank only items that have one (--among)."
        )
    return found


def _where_from(name: str) -> str:
    if name == "probability":
        return (
            " Lists of a model have it if it was fitted with calibrate = true in the settings file of "
            "retailrec run."
        )
    return " It may stand in --items, one row an item_id." if name in _OF_ITEMS else ""


def _attributes(table: Any, key: str, like: pl.Series) -> pl.DataFrame | None:
    """A table of items or shoppers with one row an id, in the pairs' type of ids."""
    if table is None:
        return None
    who = "items" if key == "item_id" else "users"
    frame = to_polars(table, who=who)
    require_id(frame, key, who=who)
    frame = frame.with_columns(ids_like(frame[key], like, who=who)).filter(pl.col(key).is_not_null())
    if frame[key].n_unique() < frame.height:
        twice = frame[key].filter(frame[key].is_duplicated())[0]
        raise DataError(f"{who}: {key} {twice} stands twice; keep one row of each.")
    return frame


def _past_offers(
    campaign: Campaign,
    ledger: Ledger | None,
    now: datetime | None,
    frame: pl.DataFrame,
    notes: list[str],
) -> list[pl.DataFrame]:
    """Offers that each cap counts: `user_id`, (`item_id`,) `offers`."""
    if not campaign.cap:
        return []
    if ledger is None or now is None:
        raise SettingError(
            "campaign: a cap needs the ledger of past offers and the time of this campaign; give both."
        )
    if ledger.scan().head(1).collect().is_empty():
        notes.append(
            f"the ledger {ledger.folder} holds no offers yet: caps count those of this campaign alone."
        )
    past = [
        ledger.offers_around(now, timedelta(days=cap.days), item=cap.per == "product")
        for cap in campaign.cap
    ]
    for offers in past:
        for key in offers.columns[:-1]:
            who, whose = f"{key} of offers in the ledger", f"{key} of the pairs"
            words: dict[str, Any] = {"who": who, "whose": whose, "share": 0, "refuse": False}
            if note := ids_meet(offers[key], frame[key], **words, notation=False):
                notes.append(f"a cap counts no offer: {note}")
    return past


def alike_in_ledger(campaign: Campaign, ledger: Ledger, frame: pl.DataFrame) -> list[str]:
    """Sentences on ids of the ledger that are those of the pairs in another notation.

    Looked at are the users of this campaign, and with caps the users, or items too, of all.
    """
    notes = []
    rows = ledger.scan()
    if not campaign.cap:
        rows = rows.filter(pl.col("campaign") == campaign.name)
    for name in ["user_id", *["item_id"] * any(cap.per == "product" for cap in campaign.cap)]:
        mine = frame[name].unique().cast(pl.String).sort()
        there = rows.select(pl.col(name).drop_nulls().unique()).collect()[name]
        others = there.filter(~there.is_in(mine.implode())).sort()
        if campaign.cap and len(others) == len(there):
            continue  # that caps count none of them is said where they are counted
        of_mine, of_others = look_alike_key(mine), look_alike_key(others)
        alike = of_others.is_in(of_mine.implode()) & (of_others != "")
        if n := int(alike.sum()):
            one = mine.filter(of_mine == of_others.filter(alike)[0])[0]
            notes.append(
                f"{n:,} {name}s of the ledger differ from those of the pairs by notation only, such as "
                f"{others.filter(alike)[0]!r} there and {one!r} here, and count apart: no cap and no "
                f"campaign knows what they got. Write them alike."
            )
    return notes


def _note_absent_users(users: Any, user_ids: pl.Series, notes: list[str]) -> None:
    known = _attributes(users, "user_id", user_ids)
    if known is None:
        return
    absent = user_ids.unique().sort()
    absent = absent.filter(~absent.is_in(known["user_id"].implode()))
    if len(absent):
        notes.append(
            f"{len(absent):,} shoppers of the pairs have no row in the users, such as {absent[0]}: "
            f"no segment counts them."
        )


def _without(frame: pl.DataFrame, spent: pl.DataFrame) -> pl.DataFrame:
    keys = ["user_id", "item_id"]
    text = frame.with_columns(pl.col(key).cast(pl.String).alias(f"_{key}") for key in keys)
    return text.join(
        spent, left_on=["_user_id", "_item_id"], right_on=keys, how="anti", maintain_order="left"
    ).select(frame.columns)


def attribute_of(column: str, users: Any, user_ids: pl.Series) -> pl.Series:
    """An attribute of each shopper as text; null for those who are not in the table.

    Raises
    ------
    DataError
        If there is no such column.
    """
    people = _attributes(users, "user_id", user_ids)
    if people is not None:
        ids_meet(user_ids, people["user_id"], who="the pairs' shoppers", whose="the users", share=0)
    if people is None or column not in people.columns:
        there = "no users were given" if people is None else f"users have {people.columns}"
        raise DataError(f"campaign: it asks for the segment '{column}'; {there}. Bring that column.")
    names = pl.DataFrame({"user_id": user_ids})
    mine = people.select("user_id", segment=group_names(people[column]))
    return names.join(mine, on="user_id", how="left", maintain_order="left")["segment"]


def _in_segment(
    column: str, of: str | int | None, users: Any, user_ids: pl.Series
) -> NDArray[np.bool_]:
    """(n_users,) is the shopper in the segment? Without `of`, in any."""
    mine = attribute_of(column, users, user_ids)
    if of is None:
        return mine.is_not_null().to_numpy()
    there = group_names(to_polars(users, who="users")[column]).drop_nulls().unique().sort()
    if bare_id(str(of)) not in set(there):
        raise DataError(
            f"campaign: floor speaks of {column} '{of}', which no shopper has; there are "
            f"{', '.join(there[:5])}. Correct 'of'."
        )
    return (mine == bare_id(str(of))).fill_null(False).to_numpy()


@dataclass(frozen=True)
class Constraint:
    """One bound on offers or on expected cost."""

    name: str  # such as `product 17`
    is_cost: bool  # is expected cost added up (a budget), or are offers counted (a limit)?
    at_least: float  # -inf where there is no bound
    at_most: float  # inf where there is none
    items: NDArray[np.int32]  # (n,) codes of the items it counts, ascending


def group_names(values: pl.Series) -> pl.Series:
    """Names of suppliers, categories or segments, read as ids are: ``"x "`` is ``x``."""
    return typed_ids(values).cast(pl.String)


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
        inside, of = groups[part.by], None if part.of is None else bare_id(str(part.of))
        if of is not None and of not in inside:
            some = ", ".join(list(inside)[:5])
            raise DataError(
                f"campaign: it speaks of {part.by} '{of}', which neither the pairs nor the items "
                f"hold; there are {some}{', ...' if len(inside) > 5 else ''}. Correct 'of'."
            )
        names = list(inside) if of is None else [of]
        if of is not None and not len(inside[of]):
            notes.append(f"{part.by} {of} has no pair to offer: its bound counts nothing.")
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
    mine = table.select("item_id", name=group_names(table[column])).join(
        codes, on="item_id", how="left", maintain_order="left"
    )
    nameless = mine.filter(pl.col("name").is_null() & pl.col("code").is_not_null())
    if not nameless.is_empty():
        notes.append(
            f"{nameless.height:,} items of the pairs have no {by}, such as {nameless['item_id'][0]}: "
            f"no bound by {by} counts them."
        )
    rows = mine.filter(pl.col("name").is_not_null()).group_by("name").agg(pl.col("code").drop_nulls())
    notes += look_alikes(rows["name"].sort().alias(by))
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
        names = [bare_id(str(name)) for name in exclusion.products]
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

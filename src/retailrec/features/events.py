"""What a feature is, and what it sees: events grouped and added up in one pass, sales by week, columns.

A feature is one function: its name is the column, its docstring the entry in the dictionary, its
`scope` says whose aggregate it is. It gets `Events`, which hold nothing from after `end`, and returns
one float a group:

>>> @feature("pair", unit="receipts")
... def pair_example(e):
...     "Receipts that hold the item."
...     return e.count()
>>> FEATURES.pop("pair_example").unit
'receipts'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, time
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.groups import (
    group_extremes,
    group_moments,
    group_sums,
    run_extremes,
    run_moments,
    run_sums,
)
from retailrec.data.history import History
from retailrec.errors import SettingError

Scope = Literal["user", "item", "item_week", "pair", "category", "match"]
Floats = NDArray[Any]


@dataclass(frozen=True)
class Feature:
    """A registered feature."""

    name: str
    scope: Scope
    unit: str
    family: str
    meaning: str
    compute: Callable[[Any], Floats]


FEATURES: dict[str, Feature] = {}


def feature(
    scope: Scope, *, unit: str, family: str = ""
) -> Callable[[Callable[[Any], Floats]], Callable[[Any], Floats]]:
    """Register a function as a feature of `scope`, under the function's own name.

    Raises
    ------
    SettingError
        If the name is taken, or the function has no docstring.
    """

    def register(function: Callable[[Any], Floats]) -> Callable[[Any], Floats]:
        name = function.__name__
        if name in FEATURES or not function.__doc__:
            raise SettingError(
                f"feature '{name}' must have a name of its own and a docstring; "
                f"{'the name is taken' if name in FEATURES else 'the docstring is missing'}."
            )
        meaning = " ".join(function.__doc__.split())
        FEATURES[name] = Feature(name, scope, unit, family or scope, meaning, function)
        return function

    return register


def features_of(scope: Scope) -> list[Feature]:
    """Registered features of a scope, in the order of registration."""
    return [f for f in FEATURES.values() if f.scope == scope]


class EventColumns:
    """Per-event columns of a history, computed when first asked for, in the history's own order."""

    def __init__(self, history: History) -> None:
        self.history = history

    @cached_property
    def age(self) -> Floats:
        """Days before the end."""
        return self.history.age

    @cached_property
    def quantity(self) -> Floats:
        """Units bought."""
        return self.history.quantity

    @cached_property
    def value(self) -> Floats:
        """Money of the line; NaN where not known."""
        return self.history.value

    @cached_property
    def price(self) -> Floats:
        """Money of one unit."""
        return self.value / self.quantity

    @cached_property
    def discount_share(self) -> Floats:
        """Money off over the price before; NaN where not known."""
        if self.history.discount is None:
            return np.full(len(self.age), np.nan, np.float32)
        before = self.value + self.history.discount
        known = before > 0
        return np.divide(
            self.history.discount, before, out=np.full(len(self.age), np.nan, np.float32), where=known
        )

    @cached_property
    def _days(self) -> Floats:
        """Days from Monday, 1969-12-29, to the event."""
        end = (self.history.end - datetime(1969, 12, 29)).total_seconds() / 86_400
        return end - self.age.astype(np.float64)

    @cached_property
    def _day(self) -> NDArray[np.int32]:
        days = self._days
        if self.history.end.time() != time.min:  # ages are rounded, unless they are whole days
            days = days + np.spacing(self.age)  # midnight must not fall on the day before
        return np.floor(days).astype(np.int32)

    @cached_property
    def is_weekend(self) -> NDArray[np.bool_]:
        """Was it a Saturday or Sunday?"""
        return self._day % 7 >= 5

    @cached_property
    def hour(self) -> Floats:
        """Hour of the day, 0 to 24, with fractions."""
        return np.maximum((self._days - self._day) * 24, 0).astype(np.float32)

    @cached_property
    def _first_of_pair(self) -> NDArray[np.bool_]:
        flags = np.zeros(len(self.age), np.bool_)
        flags[self.history.event_indptr[:-1]] = True
        return flags

    @cached_property
    def last_of_pair(self) -> NDArray[np.bool_]:
        """Is this the pair's newest event; counting these counts pairs."""
        flags = np.zeros(len(self.age), np.bool_)
        flags[self.history.event_indptr[1:] - 1] = True
        return flags

    @cached_property
    def gap(self) -> Floats:
        """Days since the pair's event before; NaN at its first."""
        gap = np.full(len(self.age), np.nan, np.float32)
        gap[1:] = self.age[:-1] - self.age[1:]
        gap[self._first_of_pair] = np.nan
        return gap

    @cached_property
    def first_age(self) -> Floats:
        """Days since the pair's first event."""
        return self.age[self.history.event_indptr[:-1]][self.history.pair_of_event]

    @cached_property
    def last_age(self) -> Floats:
        """Days since the pair's newest event."""
        return self.history.last_age()[self.history.pair_of_event]

    @cached_property
    def _first_of_basket(self) -> NDArray[np.int64]:
        """(n_baskets,) the first event of each receipt."""
        return self.history.by_basket[self.history.basket_indptr[:-1]]

    @cached_property
    def first_in_basket(self) -> NDArray[np.bool_]:
        """One event of each receipt; counting these counts receipts."""
        flags = np.zeros(len(self.age), np.bool_)
        flags[self._first_of_basket] = True
        return flags

    @cached_property
    def basket_size(self) -> Floats:
        """Different items in the event's receipt."""
        return self.history.of_events(np.diff(self.history.basket_indptr).astype(np.float32))

    @cached_property
    def baskets_ago(self) -> Floats:
        """How many of the user's receipts are newer: 0 for the last one."""
        return self.history.of_events(self.history.baskets_ago.astype(np.float32))

    @cached_property
    def visit_gap(self) -> Floats:
        """Days since the user's receipt before, on one event of each receipt; NaN elsewhere."""
        age, user = self.age[self._first_of_basket], self.history.user_of_basket
        gap = np.full(len(age), np.nan, np.float32)
        gap[1:] = np.where(user[1:] == user[:-1], age[:-1] - age[1:], np.float32(np.nan))
        out = np.full(len(self.age), np.nan, np.float32)
        out[self._first_of_basket] = gap
        return out


WEEKS = 12  # that item x week features look back


@dataclass(frozen=True)
class Weeks:
    """Sales of items by week.

    Attributes
    ----------
    receipts : (n_items, `WEEKS`) float64 receipts with the item; the newest seven days come first
    """

    receipts: NDArray[np.float64]

    @classmethod
    def of(cls, history: History) -> Weeks:
        """From the histories of all users."""
        week = np.maximum(np.ceil(history.age / 7) - 1, 0).astype(np.int64)  # 7 days back is this week
        kept = week < WEEKS
        key = history.item_of_event[kept].astype(np.int64) * WEEKS + week[kept]
        counts = np.bincount(key, minlength=history.n_items * WEEKS).astype(np.float64)
        return cls(counts.reshape(history.n_items, WEEKS))


class Columns:
    """The columns of a (n_rows, n_columns) block by name."""

    def __init__(self, block: NDArray[np.float32], names: list[str]) -> None:
        self._block, self._place = block, {name: i for i, name in enumerate(names)}

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._place:
            raise SettingError(f"there is no feature '{name}' to build on; known: {[*self._place]}.")
        return self._block[:, self._place[name]]


class Events:
    """Event columns grouped by a key, with the aggregates that features are made of.

    A column is an attribute of `EventColumns`. Each aggregate returns one value a group; `mean`,
    `std`, `min` and `max` leave NaN out and return NaN for a group without values. Groups are
    runs of events that begin at `starts`, in the columns' own order.
    """

    def __init__(self, columns: EventColumns, starts: NDArray[np.int64]) -> None:
        self._columns, self._starts = columns, starts
        self._size = len(columns.history.age)

    def __getattr__(self, name: str) -> Floats:
        if name.startswith("_"):
            raise AttributeError(name)
        values: Floats = getattr(self._columns, name)
        return values

    @property
    def n_groups(self) -> int:
        """Number of groups."""
        return len(self._starts)

    def count(self) -> Floats:
        """Events in each group."""
        return self._counts

    @cached_property
    def _counts(self) -> Floats:
        counts = self._counted()
        counts.flags.writeable = False  # every feature gets the same array
        return counts

    def _counted(self) -> Floats:
        return np.diff(np.append(self._starts, self._size)).astype(np.float64)

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        """Sum; of a condition, how often it holds; NaN counts as nothing."""
        return np.asarray(run_sums(self._starts, self._size, values))

    def mean(self, values: Floats) -> Floats:
        """Mean of the known values."""
        n, total, _ = self._moments(values)
        return _ratio(total, n)

    def std(self, values: Floats) -> Floats:
        """Standard deviation of the known values; NaN with fewer than two."""
        n, total, squares = self._moments(values)
        spread = np.maximum(_ratio(squares, n) - _ratio(total, n) ** 2, 0)
        return np.where(n > 1, np.sqrt(spread), np.nan)

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Number, sum and sum of squares of the known values."""
        n, total, squares = run_moments(self._starts, self._size, values)
        return n, total, squares

    def min(self, values: Floats) -> Floats:
        """Smallest known value."""
        return np.asarray(run_extremes(self._starts, self._size, values, -1.0))

    def max(self, values: Floats) -> Floats:
        """Largest known value."""
        return np.asarray(run_extremes(self._starts, self._size, values, 1.0))

    def last(self, values: Floats) -> Floats:
        """Value at the last event of the group, which for pairs is the newest."""
        if not len(self._starts):
            return np.zeros(0)
        return values[np.append(self._starts[1:], self._size) - 1].astype(np.float64)


class CodedEvents(Events):
    """Events grouped by a code each, 0 to `n` - 1, without being sorted or copied.

    A group without events gets NaN from every feature (`compute_block`). There is no `last`, since the
    events of a group lie in no order of time.
    """

    def __init__(self, columns: EventColumns, codes: NDArray[np.integer[Any]], n: int) -> None:
        super().__init__(columns, np.zeros(0, np.int64))
        self._codes, self._n = codes, n

    @property
    def n_groups(self) -> int:
        return self._n

    def _counted(self) -> Floats:
        return np.bincount(self._codes, minlength=self._n).astype(np.float64)

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        return np.asarray(group_sums(self._codes, values, self._n))

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        n, total, squares = group_moments(self._codes, values, self._n)
        return n, total, squares

    def min(self, values: Floats) -> Floats:
        return np.asarray(group_extremes(self._codes, values, self._n, -1.0))

    def max(self, values: Floats) -> Floats:
        return np.asarray(group_extremes(self._codes, values, self._n, 1.0))

    def last(self, values: Floats) -> Floats:
        raise SettingError("events of items and categories come in no order, so there is no last one.")


def _ratio(a: Floats, b: Floats) -> Floats:
    return np.divide(a, b, out=np.full(len(a), np.nan), where=b > 0)


def compute_block(features: Iterable[Feature], events: Events) -> NDArray[np.float32]:
    """(n_groups, n_features) float32, column by column: all features of one scope in one pass.

    NaN without events.
    """
    features = list(features)
    block = np.empty((events.n_groups, len(features)), np.float32, order="F")
    with np.errstate(divide="ignore", invalid="ignore"):  # groups without events divide by zero
        for column, f in enumerate(features):
            block[:, column] = f.compute(events)
    block[events.count() == 0] = np.nan
    return block


def spread_rows(
    block: NDArray[np.float32], groups: NDArray[np.integer[Any]], n: int
) -> NDArray[np.float32]:
    """(n, width) with block[i] at row groups[i] and NaN elsewhere, column by column."""
    out = np.full((n, block.shape[1]), np.nan, np.float32, order="F")
    out[groups] = block
    return out


def group_starts(sorted_keys: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """First position of each run of equal keys."""
    if not len(sorted_keys):
        return np.zeros(0, np.int64)
    return np.flatnonzero(np.append(True, sorted_keys[1:] != sorted_keys[:-1]))

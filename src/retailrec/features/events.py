"""What a feature sees: columns of events, sales by week, columns of candidate rows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from retailrec.compute.csr import order_in_rows
from retailrec.data.history import History
from retailrec.errors import SettingError
from retailrec.features.registry import Floats


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
        return np.floor(self._days).astype(np.int32)

    @cached_property
    def is_weekend(self) -> NDArray[np.bool_]:
        """Was it a Saturday or Sunday?"""
        return self._day % 7 >= 5

    @cached_property
    def hour(self) -> Floats:
        """Hour of the day, 0 to 24, with fractions."""
        return ((self._days - self._day) * 24).astype(np.float32)

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
    def _by_basket(self) -> NDArray[np.int64]:
        """Order by shopper, then receipt."""
        return order_in_rows(self.history.event_indptr[self.history.indptr], self.history.basket)

    @cached_property
    def _basket_starts(self) -> NDArray[np.int64]:
        """Where each receipt starts in `_by_basket` order."""
        order = self._by_basket
        basket, user = self.history.basket[order], self.history.user_of_event[order]
        new = np.ones(len(order), np.bool_)
        new[1:] = (basket[1:] != basket[:-1]) | (user[1:] != user[:-1])
        return np.flatnonzero(new)

    @cached_property
    def _basket_users(self) -> NDArray[np.int64]:
        return self.history.user_of_event[self._by_basket[self._basket_starts]]

    def _per_event(self, per_basket: Floats) -> Floats:
        """Spread a value of each receipt over its events."""
        sizes = np.diff(np.append(self._basket_starts, len(self._by_basket)))
        out = np.empty(len(self._by_basket), per_basket.dtype)
        out[self._by_basket] = np.repeat(per_basket, sizes)
        return out

    @cached_property
    def first_in_basket(self) -> NDArray[np.bool_]:
        """One event of each receipt; counting these counts receipts."""
        flags = np.zeros(len(self.age), np.bool_)
        flags[self._by_basket[self._basket_starts]] = True
        return flags

    @cached_property
    def basket_size(self) -> Floats:
        """Different items in the event's receipt."""
        sizes = np.diff(np.append(self._basket_starts, len(self._by_basket)))
        return self._per_event(sizes.astype(np.float32))

    @cached_property
    def baskets_ago(self) -> Floats:
        """How many of the shopper's receipts are newer: 0 for the last one."""
        users = self._basket_users
        last = np.searchsorted(users, users, "right") - 1
        return self._per_event((last - np.arange(len(users))).astype(np.float32))

    @cached_property
    def visit_gap(self) -> Floats:
        """Days since the shopper's receipt before, on one event of each receipt; NaN elsewhere."""
        starts = self._by_basket[self._basket_starts]
        age = self.age[starts]
        gap = np.full(len(starts), np.nan, np.float32)
        gap[1:] = age[:-1] - age[1:]
        new_user = np.ones(len(starts), np.bool_)
        new_user[1:] = self._basket_users[1:] != self._basket_users[:-1]
        gap[new_user] = np.nan
        out = np.full(len(self.age), np.nan, np.float32)
        out[starts] = gap
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
        """From the histories of all shoppers."""
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

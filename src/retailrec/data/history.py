"""Histories: what a set of users bought up to an instant, as arrays; of many, built part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from retailrec.compute.csr import order_in_rows, row_of_pair

T = TypeVar("T")
_DAY_US = 86_400_000_000  # microseconds in a day


@dataclass(frozen=True)
class History:
    """CSR of shopper x item pairs, with the purchases behind each pair.

    Rows are shoppers in the order they were asked for; a shopper without purchases has an empty row.
    A *pair* is a (shopper, item); an *event* is one receipt in which the pair was bought.

    Attributes
    ----------
    users : frame, one row a shopper: `user_id` and attributes
    end : first instant that is not known; ages count back from it
    n_items : number of item codes
    catalogue_key : digest of the item ids behind the codes (`RetailData.catalogue_key`)
    indptr : (n_users + 1,) int64, where each shopper's pairs start
    items : (n_pairs,) int32, ascending within a shopper
    event_indptr : (n_pairs + 1,) int64, where each pair's events start
    age : (n_events,) float32, days before `end`, falling within a pair (oldest event first)
    basket : (n_events,) int32, rising with time within a shopper
    quantity, value : (n_events,) float32; NaN where not known
    discount : (n_events,) float32 money off the line; None where receipts do not tell
    """

    users: pl.DataFrame
    end: datetime
    n_items: int
    catalogue_key: str
    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    event_indptr: NDArray[np.int64]
    age: NDArray[np.float32]
    basket: NDArray[np.int32]
    quantity: NDArray[np.float32]
    value: NDArray[np.float32]
    discount: NDArray[np.float32] | None = None
    _memory: dict[int, tuple[object, Any]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def from_log(
        cls,
        log: pl.DataFrame | Mapping[str, NDArray[Any]],
        rows: NDArray[np.int64],
        users: pl.DataFrame,
        end: datetime,
        n_items: int,
        catalogue_key: str,
        lines: NDArray[np.int64] | None = None,
    ) -> History:
        """From log lines (one an item and receipt) in order of `rows`, the row of each, and time.

        `log` may be arrays by name too, `time` in microseconds. `lines` says which lines of it they
        are; all of them by default.
        """
        order = order_in_rows(_indptr(rows, users.height), _at(log["item"], lines))
        taken = order if lines is None else lines[order]
        item, rows = _at(log["item"], taken), rows[order]
        first = np.ones(len(item), np.bool_)
        first[1:] = (item[1:] != item[:-1]) | (rows[1:] != rows[:-1])
        starts = np.flatnonzero(first)
        end_us = int(np.datetime64(end, "us").astype(np.int64))
        return cls(
            users=users,
            end=end,
            n_items=n_items,
            catalogue_key=catalogue_key,
            indptr=_indptr(rows[starts], users.height),
            items=item[starts].astype(np.int32),
            event_indptr=np.append(starts, len(item)).astype(np.int64),
            age=((end_us - _at(log["time"], taken)) / _DAY_US).astype(np.float32),
            basket=_at(log["basket"], taken).astype(np.int32),
            quantity=_at(log["quantity"], taken).astype(np.float32),
            value=_at(log["value"], taken).astype(np.float32),
            discount=(
                np.abs(_at(log["discount"], taken), dtype=np.float32) if "discount" in log else None
            ),
        )

    def __len__(self) -> int:
        return len(self.indptr) - 1

    @property
    def n_pairs(self) -> int:
        """Number of distinct (shopper, item) pairs."""
        return len(self.items)

    @cached_property
    def user_of_pair(self) -> NDArray[np.int64]:
        """(n_pairs,) history row of each pair."""
        return row_of_pair(self.indptr)

    @cached_property
    def pair_of_event(self) -> NDArray[np.int64]:
        """(n_events,) pair of each event."""
        return row_of_pair(self.event_indptr)

    @cached_property
    def user_of_event(self) -> NDArray[np.int64]:
        """(n_events,) history row of each event."""
        return self.user_of_pair[self.pair_of_event]

    @cached_property
    def item_of_event(self) -> NDArray[np.int32]:
        """(n_events,) item of each event."""
        return self.items[self.pair_of_event]

    @cached_property
    def last_basket(self) -> NDArray[np.int64]:
        """(n_users,) code of each shopper's newest receipt; -1 without any."""
        last = np.full(len(self), -1, np.int64)
        np.maximum.at(last, self.user_of_event, self.basket)
        return last

    @cached_property
    def by_basket(self) -> NDArray[np.int64]:
        """(n_events,) places of the events, shopper by shopper, receipt by receipt, item by item."""
        return order_in_rows(self.event_indptr[self.indptr], self.basket)

    @cached_property
    def basket_indptr(self) -> NDArray[np.int64]:
        """(n_baskets + 1,) where each receipt starts in `by_basket`."""
        basket, user = self.basket[self.by_basket], self.user_of_event[self.by_basket]
        new = (basket[1:] != basket[:-1]) | (user[1:] != user[:-1])
        first = np.zeros(min(len(basket), 1), np.int64)
        return np.concatenate([first, np.flatnonzero(new) + 1, [len(basket)]])

    @cached_property
    def user_of_basket(self) -> NDArray[np.int64]:
        """(n_baskets,) history row of each receipt."""
        return self.user_of_event[self.by_basket[self.basket_indptr[:-1]]]

    @cached_property
    def baskets_ago(self) -> NDArray[np.int64]:
        """(n_baskets,) how many of the shopper's receipts are newer: 0 for the last one."""
        users = self.user_of_basket
        return np.searchsorted(users, users, "right") - 1 - np.arange(len(users))

    def of_events(self, per_basket: NDArray[Any]) -> NDArray[Any]:
        """(n_events,) the value of each event's receipt."""
        out = np.empty(len(self.by_basket), per_basket.dtype)
        out[self.by_basket] = np.repeat(per_basket, np.diff(self.basket_indptr))
        return out

    def remember(self, owner: object, compute: Callable[[], T]) -> T:
        """`compute()`, done once per history and `owner` (a fitted array of the source that asks).

        A source's candidates and scores often rest on the same product; this spares the second one.
        """
        if id(owner) not in self._memory:
            self._memory[id(owner)] = (owner, compute())  # the owner is kept, so its id stays its own
        found: T = self._memory[id(owner)][1]
        return found

    def counts(self, half_life: float | None = None) -> NDArray[np.float32]:
        """(n_pairs,) number of receipts with the item; each counts 0.5^(age / half_life days)."""
        if half_life is None:
            return np.diff(self.event_indptr).astype(np.float32)
        return self.sum_events(np.exp2(-self.age.astype(np.float64) / half_life))

    def sum_events(self, values: NDArray[np.floating]) -> NDArray[np.float32]:
        """(n_pairs,) sum of a per-event value over each pair's events."""
        if not self.n_pairs:
            return np.zeros(0, np.float32)
        return np.add.reduceat(values, self.event_indptr[:-1]).astype(np.float32)

    def last_age(self) -> NDArray[np.float32]:
        """(n_pairs,) days from each pair's newest event to `end`."""
        return self.age[self.event_indptr[1:] - 1]

    def matrix(self, weights: NDArray[np.float32]) -> sparse.csr_matrix:
        """Shopper x item CSR with a weight a pair; float32."""
        shape = (len(self), self.n_items)
        return sparse.csr_matrix((weights, self.items, self.indptr), shape=shape)

    def take(self, rows: Sequence[int] | NDArray[np.int64] | slice) -> History:
        """The histories of some rows, in their order; this one if they are all of its rows."""
        if rows == slice(0, len(self)):
            return self  # as for each request of one user
        picked = np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows, int)]
        pairs, indptr = _take_csr(self.indptr, picked)
        events, event_indptr = _take_csr(self.event_indptr, pairs)
        names = ("age", "basket", "quantity", "value", "discount")
        of_event = {name: known[events] for name in names if (known := getattr(self, name)) is not None}
        return replace(
            self,
            users=self.users[picked],
            indptr=indptr,
            items=self.items[pairs],
            event_indptr=event_indptr,
            **of_event,
        )


class Candidates(NamedTuple):
    """The best items of each shopper, best first.

    Attributes
    ----------
    items : (n_users, k) int32 codes; -1 where the source has no more to propose
    scores : (n_users, k) float32; -inf beside -1
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class Pairs(NamedTuple):
    """Shopper x item pairs as a CSR: row `i` holds items[indptr[i]:indptr[i + 1]], ascending."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]

    def rows(self, rows: slice) -> Pairs:
        """The pairs of consecutive rows.

        Examples
        --------
        >>> Pairs(np.array([0, 2, 3]), np.array([4, 7, 5], np.int32)).rows(slice(1, 2)).items.tolist()
        [5]
        """
        start, stop, _ = rows.indices(len(self.indptr) - 1)
        indptr = self.indptr[start : stop + 1]
        return Pairs(indptr - indptr[0], self.items[indptr[0] : indptr[-1]])


def _at(column: pl.Series | NDArray[Any], places: NDArray[np.int64] | None) -> NDArray[Any]:
    """Values at some places of a column, all by default; null is NaN, times are microseconds."""
    if isinstance(column, np.ndarray):
        return column if places is None else column[places]
    column = column.to_physical()
    if places is None:
        return column.to_numpy()
    if column.null_count() or column.n_chunks() > 1:  # as an array the whole column would be copied
        return column.gather(places).to_numpy()
    return np.asarray(column.to_numpy()[places])


def _indptr(rows: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """CSR row pointer of elements sorted by row."""
    return np.append(0, np.cumsum(np.bincount(rows, minlength=n))).astype(np.int64)


def _take_csr(
    indptr: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of all elements of the chosen rows, and the new row pointer."""
    sizes = np.diff(indptr)[rows]
    new = np.append(0, np.cumsum(sizes)).astype(np.int64)
    return np.repeat(indptr[rows] - new[:-1], sizes) + np.arange(new[-1]), new


class Unplaced(NamedTuple):
    """What of a log another catalogue does not know.

    Attributes
    ----------
    n_events, n_unknown : all events, and those of items that the catalogue lacks
    unknown_items : ids of these items, ascending
    """

    n_events: int
    n_unknown: int
    unknown_items: pl.Series


class Receipts(Protocol):
    """What histories are built from: a `RetailData`."""

    @property
    def log(self) -> pl.DataFrame: ...
    @property
    def end(self) -> datetime: ...
    @property
    def n_users(self) -> int: ...
    @property
    def n_items(self) -> int: ...
    @property
    def catalogue_key(self) -> str: ...
    def user_rows(self, codes: NDArray[np.int64], ids: pl.Series | None = None) -> pl.DataFrame: ...
    def history_of_codes(self, codes: NDArray[np.int64], ids: pl.Series | None = None) -> History: ...


@dataclass(frozen=True)
class Histories:
    """Histories of many shoppers that are never in memory together: `take` builds a part.

    Attributes
    ----------
    data : receipts
    codes : (n_users,) shopper codes; -1 is an unknown shopper
    ids : the ids that were asked for, if it was by id
    """

    data: Receipts
    codes: NDArray[np.int64]
    ids: pl.Series | None = None

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def end(self) -> datetime:
        """First instant that is not known."""
        return self.data.end

    @cached_property
    def users(self) -> pl.DataFrame:
        """One row a shopper: `user_id` and attributes."""
        return self.data.user_rows(self.codes, self.ids)

    @property
    def catalogue_key(self) -> str:
        """Stands for the item coding of the data."""
        return self.data.catalogue_key

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return self.data.n_items

    def rows(self, rows: slice) -> Histories:
        """Some of the shoppers, their histories still to be built."""
        return Histories(self.data, self.codes[rows], None if self.ids is None else self.ids[rows])

    def take(self, rows: slice | NDArray[np.int64]) -> History:
        """The histories of some rows."""
        return self.data.history_of_codes(
            self.codes[rows], None if self.ids is None else self.ids[rows]
        )

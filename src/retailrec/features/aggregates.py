"""One pass over the events of a scope: grouped events and their aggregates."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from typing import Any

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
from retailrec.errors import SettingError
from retailrec.features.events import EventColumns
from retailrec.features.registry import Feature, Floats


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

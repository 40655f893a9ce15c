"""Aggregates of all events, added up from those of parts."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import SettingError
from retailrec.features.aggregates import CodedEvents, Events
from retailrec.features.events import EventColumns
from retailrec.features.registry import Floats

Totals = list[tuple[np.ufunc, Floats]]  # aggregates of a part, and how those of two parts combine


class PartialEvents(CodedEvents):
    """Some of the events; `totals` keeps each aggregate that was asked for, in order.

    With the events that are left out kept in further parts, `add_totals` makes the aggregates of all.
    """

    def __init__(self, columns: EventColumns, codes: NDArray[np.integer[Any]], n: int) -> None:
        super().__init__(columns, codes, n)
        self.totals: Totals = []

    def count(self) -> Floats:
        return self._kept(np.add, super().count().copy())

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        return self._kept(np.add, super().sum(values))

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        n, total, squares = super()._moments(values)
        return self._kept(np.add, n), self._kept(np.add, total), self._kept(np.add, squares)

    def min(self, values: Floats) -> Floats:
        return self._kept(np.fmin, super().min(values))

    def max(self, values: Floats) -> Floats:
        return self._kept(np.fmax, super().max(values))

    def _kept(self, combine: np.ufunc, values: Floats) -> Floats:
        self.totals.append((combine, values))
        return values


def add_totals(totals: Totals, more: Totals) -> Totals:
    """The aggregates of two parts together; the arrays of the first are written over."""
    return [(combine, combine(a, b, out=a)) for (combine, a), (_, b) in zip(totals, more, strict=True)]


class WholeEvents(Events):
    """All events, of which only the aggregates of `PartialEvents` are known: they come in that order.

    `none` are the columns of an empty history, so a condition on events costs nothing here.
    """

    def __init__(self, none: EventColumns, totals: Totals, n: int) -> None:
        super().__init__(none, np.zeros(0, np.int64))
        self._totals, self._n = iter(totals), n

    @property
    def n_groups(self) -> int:
        return self._n

    def count(self) -> Floats:
        return self._next(np.add)

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        return self._next(np.add)

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        return self._next(np.add), self._next(np.add), self._next(np.add)

    def min(self, values: Floats) -> Floats:
        return self._next(np.fmin)

    def max(self, values: Floats) -> Floats:
        return self._next(np.fmax)

    def last(self, values: Floats) -> Floats:
        raise SettingError("the events of an item come in no order, so there is no last one.")

    def _next(self, wanted: np.ufunc) -> Floats:
        found = next(self._totals, None)
        if found is None or found[0] is not wanted:
            raise SettingError(
                "an item feature asked for other aggregates of all events than of a part of them; "
                "what it asks for must not depend on the values."
            )
        return found[1]

"""All shoppers' receipts, where a `RetailData` holds those of a sample."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retailrec.data.history import History

Totals = list[tuple[np.ufunc, NDArray[Any]]]  # (n_items, ...) sums of a part, and how two are combined


class WholeLog(Protocol):
    """What facts of items are asked of: they count everybody, also where models learn from a sample."""

    def totals(self, of_part: Callable[[History], Totals], end: datetime) -> Totals:
        """`of_part` of some shoppers, over all of them, of what lies before `end`."""

    def lines(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) receipts with the item in [start, end)."""

    def buyers(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) shoppers who bought the item in [start, end)."""

    def prices(self, end: datetime) -> NDArray[np.float64]:
        """(n_items,) unit price on the last day before `end` that the item was sold; NaN if unknown."""

    def shoppers(self, end: datetime) -> int:
        """Shoppers who bought anything before `end`."""

    def fingerprint(self) -> str:
        """Stands for all lines: the same ones give the same text."""

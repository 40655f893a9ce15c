"""What a fitted model knows of items and time, and requests in its item codes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import Histories, Recoded, RetailData, Unplaced
from retailrec.data.history import History
from retailrec.errors import DataError
from retailrec.recommender.among import AmongReport, Eligible, as_among
from retailrec.recommender.answers import receipt_notes
from retailrec.recommender.explanations import item_labels
from retailrec.schema import ITEM_ID, USER_ID


class Placed(NamedTuple):
    """A request in a model's item codes: histories, what has no place, and sentences about it."""

    history: History | Histories
    unplaced: Unplaced
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """What a fitted model knows of its items and of time.

    Attributes
    ----------
    items, prices : row i describes item code i; last known unit prices
    key : stands for the item coding
    start, end : time of the first receipt of `fit`, and first instant that was not known
    """

    items: pl.DataFrame
    prices: NDArray[np.float64]
    key: str
    start: datetime
    end: datetime

    @cached_property
    def labels(self) -> list[str]:
        """What each item is called, such that no two sold ones are called alike."""
        return item_labels(self.items, ~np.isnan(self.prices))

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in these item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        if data.catalogue_key == self.key:
            placed, unplaced = data, Unplaced(data.log.height, 0, data.items[ITEM_ID].clear())
        else:
            placed, unplaced = data.with_item_codes_of(self.items)
        if data.end < self.end:
            placed = replace(placed, end=self.end)
        return Recoded(placed, unplaced)

    def placed(self, data: Any, users: Any = None) -> Placed:
        """Histories in these item codes, and what of the receipts has no place there.

        Raises
        ------
        DataError
            If users are named beside a history, or the history is coded by another catalogue.
        """
        if isinstance(data, History | Histories):
            if users is not None:
                raise DataError(
                    "recommend: users name shoppers of a RetailData or a frame; a history has its own."
                )
            if data.catalogue_key != self.key:
                raise DataError(
                    f"recommend: the history is coded by another catalogue ({data.n_items:,} items) "
                    f"than the model's ({self.items.height:,} items). Hand over the RetailData or the "
                    f"frame of receipts instead, which is coded anew, or model.coded(data)."
                )
            return Placed(data, Unplaced(0, 0, self.items[ITEM_ID].clear()), ())
        data = RetailData.of(data)
        placed, unplaced = self.coded(data)
        notes = receipt_notes(unplaced, placed.end - data.start, self.end - self.start)
        return Placed(placed.histories(users), unplaced, notes)

    def eligible(
        self, history: History | Histories, among: Any, k: int
    ) -> tuple[Eligible | None, AmongReport | None]:
        """Given lists in these item codes, and what became of them; None without lists.

        Lists that are bound already have been reported on.

        Raises
        ------
        DataError
            If none of the items is known, or none of the shoppers listed has receipts.
        """
        if among is None or isinstance(among, Eligible):
            return among, None
        lists = as_among(among)
        codes = history.codes if isinstance(history, Histories) else np.zeros(1)
        if lists.users is not None and len(codes) and (codes < 0).all():
            raise DataError(
                f"among: none of the {len(codes):,} shoppers is in the receipts, for example "
                f"{history.users[USER_ID][0]!r}; write the ids as in the receipts."
            )
        bound = lists.bind(self.items, history.users)
        return bound, bound.report(k)

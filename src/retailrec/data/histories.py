"""Histories of many shoppers, built part by part; what of a log has no place in a catalogue."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.history import History


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

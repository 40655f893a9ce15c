"""Popularity: what many shoppers bought lately."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator, Candidates, Pairs
from retailrec.data import RetailData
from retailrec.errors import SettingError
from retailrec.history import History
from retailrec.kernels import topk_rows


@dataclass
class Popularity(CandidateGenerator):
    """Share of the active shoppers who bought the item in the last `days`.

    Items that fewer people bought lately follow in the order of all-time buyers, so the list does
    not end before the catalogue of sold items does.

    Parameters
    ----------
    days : length of the window
    offset : days between the window's end and now; 364 - 28 with `days=28` looks at the same weeks
        a year ago, as far as they lie ahead of us then
    """

    days: float = 28.0
    offset: float = 0.0
    share_: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.days <= 0:
            raise SettingError(f"popularity: days must be above 0, not {self.days}.")

    @property
    def name(self) -> str:
        return "popular_last_year" if self.offset else "popular"

    def _fit(self, data: RetailData) -> None:
        stop = data.end - pl.Series([self.offset * 86_400_000]).cast(pl.Duration("ms"))[0]
        start = stop - pl.Series([self.days * 86_400_000]).cast(pl.Duration("ms"))[0]
        recent, all_time = (_buyers(log, data.n_items) for log in (data.between(start, stop), data.log))
        self.share_ = (recent + all_time / (all_time.max(initial=0) + 1)).astype(np.float32)

    def _candidates(self, history: History, k: int) -> Candidates:
        items = np.flatnonzero(self.allowed_ & (self.share_ > 0)).astype(np.int32)
        best = topk_rows(np.array([0, len(items)]), items, self.share_[items], k)
        return Candidates(*(np.repeat(b, len(history), axis=0) for b in best))

    def score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """The item's score, whoever the shopper is."""
        return self.share_[pairs.items]


def _buyers(log: pl.DataFrame, n_items: int) -> NDArray[np.float64]:
    """(n_items,) number of distinct shoppers."""
    pairs = log.select("user", "item").unique()
    return np.bincount(pairs["item"].to_numpy(), minlength=n_items).astype(np.float64)

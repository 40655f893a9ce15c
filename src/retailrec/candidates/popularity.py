"""Popularity: what many users bought lately."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.components import Days
from retailrec.compute.csr import pair_keys, row_of_pair
from retailrec.compute.groups import count_buyers
from retailrec.compute.topk import popular_by_category, topk_rows
from retailrec.data import RetailData, item_buyers, item_lines
from retailrec.data.history import Candidates, History, Pairs
from retailrec.data.retail_data import text_codes
from retailrec.errors import SettingError


@dataclass
class Popularity(CandidateGenerator):
    """What most users bought in the last `days`, whoever asks.

    Items that fewer people bought lately follow in the order of all-time buyers, so the list does
    not end before the catalogue of sold items does.

    Parameters
    ----------
    days : length of the window
    count : what makes an item popular, its buyers or its receipts
    kind : ``recent``: buyers in the window. ``trending``: buyers in the window, times their share of
        the buyers in four such windows. ``last_year``: buyers in the coming `days`, 52 weeks ago.
    """

    days: Days = 28.0
    count: Literal["buyers", "receipts"] = "buyers"
    kind: Literal["recent", "trending", "last_year"] = "recent"
    theme = "popular"
    share_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    _best: tuple[int, Candidates] | None = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "popular" if self.kind == "recent" else f"popular_{self.kind}"

    @property
    def words(self) -> str:  # type: ignore[override]
        when = {"recent": f"the last {self.days:g} days", "last_year": "this season last year"}
        return f"bestsellers of {when.get(self.kind, 'the moment')}"

    def _fit(self, data: RetailData) -> None:
        window = timedelta(days=self.days)
        start = data.end - window
        if self.kind == "last_year":
            start = data.end - timedelta(days=364)
        counted = item_buyers if self.count == "buyers" else item_lines
        recent = counted(data, start, start + window)
        if self.kind == "trending":
            longer = counted(data, data.end - 4 * window)
            recent *= recent / np.maximum(longer, 1)
        all_time = counted(data)
        self.share_ = (recent + all_time / (all_time.max(initial=0) + 1)).astype(np.float32)
        self._best = None

    def unfiltered(self) -> Self:
        other = super().unfiltered()
        other._best = None
        return other

    def _candidates(self, history: History, k: int) -> Candidates:
        known = self._best
        if known is None or known[0] != k:  # the same for every shard
            items = np.flatnonzero(self.allowed_ & (self.share_ > 0)).astype(np.int32)
            best = topk_rows(np.array([0, len(items)]), items, self.share_[items], k)
            known = self._best = k, Candidates(*best)
        row, row_scores = known[1]
        n = len(history)
        return Candidates(np.repeat(row, n, axis=0), np.repeat(row_scores, n, axis=0))

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """The item's score, whoever the user is."""
        return self.share_[pairs.items]


@dataclass
class PopularInSegment(CandidateGenerator):
    """What most users of the same segment bought in the last `days`.

    Parameters
    ----------
    attribute : column of `users` whose values are the segments; users without a value, or with
        one that `fit` did not see, get the overall order
    days : length of the window
    """

    attribute: str = "segment"
    days: Days = 91.0
    theme = "popular"
    shares_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    segments_: pl.DataFrame = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"popular_in_{self.attribute}"

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"bestsellers of the shopper's {self.attribute}"

    def _fit(self, data: RetailData) -> None:
        if self.attribute not in data.users.columns:
            raise SettingError(
                f"popular_in_segment: users lack '{self.attribute}'; they have {data.users.columns}. "
                f"Name one of these."
            )
        _, distinct = text_codes(data.users[self.attribute])
        self.segments_ = pl.DataFrame({"value": distinct}).with_row_index("row", offset=1)
        recent = data.between(data.end - timedelta(days=self.days), data.end)
        overall = _buyers(recent, data.n_items)
        rows = [overall]
        segment = self._segment_of(data.users)[recent["user"].to_numpy()]
        for row in self.segments_["row"]:
            buyers = _buyers(recent.filter(pl.Series(segment == row)), data.n_items)
            rows.append(buyers + overall / (overall.max(initial=0) + 1))
        self.shares_ = np.stack(rows).astype(np.float32)

    def _candidates(self, history: History, k: int) -> Candidates:
        allowed = np.where(self.allowed_ & (self.shares_ > 0), self.shares_, -np.inf)
        n, width = self.shares_.shape
        items = np.tile(np.arange(width, dtype=np.int32), n)
        scores = allowed.astype(np.float32).ravel()
        best = topk_rows(np.arange(n + 1) * width, items, scores, k)
        segment = self._segment_of(history.users)
        return Candidates(best[0][segment], best[1][segment])

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """The item's score in the user's segment."""
        segment = self._segment_of(history.users)
        return self.shares_[segment[row_of_pair(pairs.indptr)], pairs.items]

    def _segment_of(self, users: pl.DataFrame) -> NDArray[np.int64]:
        """(n_users,) row of `shares_`; 0 is all users."""
        if self.attribute not in users.columns or self.segments_.is_empty():
            return np.zeros(users.height, np.int64)
        text = users[self.attribute].cast(pl.String)
        rows = text.replace_strict(
            self.segments_["value"], self.segments_["row"], default=0, return_dtype=pl.Int64
        )
        return rows.to_numpy()


@dataclass
class PopularInCategories(CandidateGenerator):
    """Popular items of the categories that the user buys from.

    Score: share of the user's lines in the item's category x share of the category's recent
    buyers that took the item.

    Parameters
    ----------
    level : category column of `items`
    days : window of popularity
    """

    level: str = "category_2"
    days: Days = 28.0
    theme = "bestseller"
    category_: NDArray[np.int32] = field(init=False, repr=False, compare=False)
    share_: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"popular_in_{self.level}"

    @property
    def words(self) -> str:  # type: ignore[override]
        return f"bestsellers of the shopper's categories ({self.level})"

    def _fit(self, data: RetailData) -> None:
        if self.level not in data.items.columns:
            raise SettingError(
                f"popular_in_categories: items lack '{self.level}'; they have {data.items.columns}. "
                f"Name another level or leave the source out."
            )
        self.category_, distinct = text_codes(data.items[self.level])
        buyers = item_buyers(data, data.end - timedelta(days=self.days))
        buyers[data.full_history.items] += 1e-3
        total = np.bincount(self.category_ + 1, buyers, len(distinct) + 1)
        self.share_ = (buyers / np.maximum(total[self.category_ + 1], 1)).astype(np.float32)
        self.share_[self.category_ < 0] = 0

    def _candidates(self, history: History, k: int) -> Candidates:
        best = popular_by_category(
            history.indptr,
            history.items,
            history.counts(),
            self.category_,
            self.share_,
            self.allowed_,
            k,
        )
        return Candidates(*best)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for items of categories that the user never bought from."""
        n = int(self.category_.max(initial=-1)) + 2
        key = pair_keys(history.user_of_pair, self.category_[history.items] + 1, n)
        counts = np.bincount(key, history.counts(), len(history) * n).reshape(-1, n)
        profile = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        weight = profile[row_of_pair(pairs.indptr), self.category_[pairs.items] + 1]
        return (weight * self.share_[pairs.items]).astype(np.float32)


def _buyers(log: pl.DataFrame, n_items: int) -> NDArray[np.float64]:
    """(n_items,) number of distinct users; the lines of each lie together, as in a log."""
    return np.asarray(count_buyers(log["user"].to_numpy(), log["item"].to_numpy(), n_items))

"""Own purchases: what the user bought before."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.popularity import Popularity
from retailrec.components import Positive
from retailrec.compute.csr import find_pairs, union_rows
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError

Weighting = Literal["count", "recency", "decay", "due"]
USUAL_HALF_LIFE = 120.0  # days
_PRIOR_GAPS = 1.0  # how many gaps the item's usual gap weighs beside the user's own


@dataclass
class OwnPurchases(CandidateGenerator):
    """The user's own items, in one of four orders.

    Parameters
    ----------
    weighting :
        ``count``: receipts with the item; `ties` breaks ties.
        ``recency``: newest purchase first.
        ``decay``: each receipt counts 0.5^(age / half_life).
        ``due``: receipts with the item, worth most when the days since the last one match the usual
        gap: log(1 + count) * exp(-ln(days / gap)^2 / 2). The usual gap is the mean of the user's
        own gaps and the item's mean gap, which counts as one gap.
    half_life : days; None: never; ``auto``: the recommender chooses, alone it is 120
    ties : for ``count``: the item bought last comes first (``newest``), the one bought first
        (``oldest``, as counting in order of purchase does), or the one that most users bought in
        the last 28 days (``popular``)
    fill : bestsellers follow where the user has no more items, as a shop would do it
    proposes : does a recommender's pool take candidates of it, and not only its scores and ranks?
    """

    weighting: Weighting = "count"
    half_life: Positive | Literal["auto"] | None = 60.0
    ties: Literal["newest", "oldest", "popular"] = "newest"
    fill: bool = False
    proposes: bool = True
    theme = "habit"
    gap_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    popular_: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ties != "newest" and self.weighting != "count":
            raise SettingError(
                f"own_purchases: ties='{self.ties}' belongs to weighting='count', not to "
                f"'{self.weighting}', which has other ties; leave it out."
            )

    @property
    def name(self) -> str:
        return "own_purchases" if self.weighting == "count" else f"own_{self.weighting}"

    @property
    def words(self) -> str:  # type: ignore[override]
        first = {"count": "most often", "recency": "most recent", "decay": "often and recent"}
        return f"own purchases, {first.get(self.weighting, 'due')} first"

    def _fit(self, data: RetailData) -> None:
        self.gap_ = _usual_gap(data.full_history) if self.weighting == "due" else np.zeros(0, "f4")
        self.popular_ = np.zeros(0, np.float32)
        if self.fill or self.ties == "popular":
            share = Popularity().fit(data).share_
            self.popular_ = share / (share.max(initial=0) + 1)

    def _candidates(self, history: History, k: int) -> Candidates:
        if self.fill:
            return self._filled(history, k)
        scores = np.where(self.allowed_[history.items], self._weights(history), -np.inf)
        return Candidates(*topk_rows(history.indptr, history.items, scores.astype(np.float32), k))

    def _filled(self, history: History, k: int) -> Candidates:
        # k bestsellers are enough: those that the user bought are in the list already
        sold = np.where(self.allowed_, self.popular_, 0)
        best = np.lexsort((np.arange(len(sold)), -sold))[:k].astype(np.int32)
        best = best[sold[best] > 0]
        allowed = np.where(self.allowed_[history.items], history.items, -1)
        rows = [np.append(allowed[a:b], best) for a, b in pairwise(history.indptr)]
        starts = np.append(0, np.cumsum([len(row) for row in rows])).astype(np.int64)
        listed = np.concatenate(rows).astype(np.int32) if rows else best[:0]
        indptr, items = union_rows(starts, listed, len(history))
        return Candidates(*topk_rows(indptr, items, self._score(history, Pairs(indptr, items)), k))

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for an item that the user never bought; with `fill` its popularity, below 1.

        With `fill`, items that the user bought score above 1.
        """
        position = find_pairs(history.indptr, history.items, pairs.indptr, pairs.items)
        weights = self._weights(history)
        if not self.fill:
            if not history.n_pairs:
                return np.zeros(len(position), np.float32)
            return np.where(position >= 0, weights[position], np.float32(0))
        if not history.n_pairs:
            return self.popular_[pairs.items]
        return np.where(position >= 0, 1 + weights[position], self.popular_[pairs.items])

    def _weights(self, history: History) -> NDArray[np.float32]:
        age = np.maximum(history.last_age(), 0)
        if self.weighting == "count":
            first = history.age[history.event_indptr[:-1]]
            if self.ties == "popular":
                return (history.counts() + 0.99 * self.popular_[history.items]).astype(np.float32)
            tie = 0.99 / (1 + age) if self.ties == "newest" else 0.99 - 0.99 / (1 + first)
            return (history.counts() + tie).astype(np.float32)
        if self.weighting == "recency":
            return (1 / (1 + age)).astype(np.float32)
        if self.weighting == "decay":
            return history.counts(USUAL_HALF_LIFE if self.half_life == "auto" else self.half_life)
        count = history.counts()
        first = history.age[history.event_indptr[:-1]]
        prior = self.gap_[history.items]
        gap = (first - age + _PRIOR_GAPS * prior) / (count - 1 + _PRIOR_GAPS)
        off = np.log(np.maximum(age, 0.5) / np.maximum(gap, 0.5))
        return (np.log1p(count) * np.exp(-0.5 * off**2)).astype(np.float32)


def _usual_gap(history: History) -> NDArray[np.float32]:
    """(n_items,) mean days between a user's purchases of the item; the overall mean helps out."""
    count = history.counts()
    span = history.age[history.event_indptr[:-1]] - history.last_age()
    gaps = np.bincount(history.items, count - 1, history.n_items)
    days = np.bincount(history.items, span, history.n_items)
    overall = days.sum() / max(gaps.sum(), 1)
    return ((days + overall * 5) / (gaps + 5)).astype(np.float32)

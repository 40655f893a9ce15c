"""Own purchases: what the shopper bought before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.components import Positive
from retailrec.compute.csr import find_pairs
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError

Weighting = Literal["count", "recency", "decay", "due"]
_PRIOR_GAPS = 1.0  # how many gaps the item's usual gap weighs beside the shopper's own


@dataclass
class OwnPurchases(CandidateGenerator):
    """The shopper's own items, in one of four orders.

    Parameters
    ----------
    weighting :
        ``count``: receipts with the item; `ties` breaks ties.
        ``recency``: newest purchase first.
        ``decay``: each receipt counts 0.5^(age / half_life).
        ``due``: receipts with the item, worth most when the days since the last one match the usual
        gap: log(1 + count) * exp(-ln(days / gap)^2 / 2). The usual gap is the mean of the shopper's
        own gaps and the item's mean gap, which counts as one gap.
    half_life : days
    ties : for ``count``: the item bought last comes first (``newest``), or the one bought first
        (``oldest``, as counting in order of purchase does)
    """

    weighting: Weighting = "count"
    half_life: Positive = 60.0
    ties: Literal["newest", "oldest"] = "newest"
    theme = "habit"
    gap_: NDArray[np.float32] = field(init=False, repr=False, compare=False)

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

    def _fit(self, data: RetailData) -> None:
        self.gap_ = _usual_gap(data.full_history) if self.weighting == "due" else np.zeros(0, "f4")

    def _candidates(self, history: History, k: int) -> Candidates:
        scores = np.where(self.allowed_[history.items], self._weights(history), -np.inf)
        return Candidates(*topk_rows(history.indptr, history.items, scores.astype(np.float32), k))

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for an item that the shopper never bought."""
        position = find_pairs(history.indptr, history.items, pairs.indptr, pairs.items)
        if not history.n_pairs:
            return np.zeros(len(position), np.float32)
        return np.where(position >= 0, self._weights(history)[position], np.float32(0))

    def _weights(self, history: History) -> NDArray[np.float32]:
        age = np.maximum(history.last_age(), 0)
        if self.weighting == "count":
            first = history.age[history.event_indptr[:-1]]
            tie = 0.99 / (1 + age) if self.ties == "newest" else 0.99 - 0.99 / (1 + first)
            return (history.counts() + tie).astype(np.float32)
        if self.weighting == "recency":
            return (1 / (1 + age)).astype(np.float32)
        if self.weighting == "decay":
            return history.counts(self.half_life)
        count = history.counts()
        first = history.age[history.event_indptr[:-1]]
        prior = self.gap_[history.items]
        gap = (first - age + _PRIOR_GAPS * prior) / (count - 1 + _PRIOR_GAPS)
        off = np.log(np.maximum(age, 0.5) / np.maximum(gap, 0.5))
        return (np.log1p(count) * np.exp(-0.5 * off**2)).astype(np.float32)


def _usual_gap(history: History) -> NDArray[np.float32]:
    """(n_items,) mean days between a shopper's purchases of the item; the overall mean helps out."""
    count = history.counts()
    span = history.age[history.event_indptr[:-1]] - history.last_age()
    gaps = np.bincount(history.items, count - 1, history.n_items)
    days = np.bincount(history.items, span, history.n_items)
    overall = days.sum() / max(gaps.sum(), 1)
    return ((days + overall * 5) / (gaps + 5)).astype(np.float32)

"""A blend of sources without training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.item_item import ItemItem
from retailrec.candidates.own_purchases import OwnPurchases
from retailrec.candidates.popularity import Popularity
from retailrec.components import NotNegative
from retailrec.compute.csr import rank_in_rows, union_rows
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError


@dataclass
class ReciprocalRankFusion(CandidateGenerator, type="fusion"):
    """Sum over sources of 1 / (constant + rank) (Cormack et al., SIGIR 2009).

    A fair baseline, and a good fallback when there is too little data to train a ranker.

    Parameters
    ----------
    sources : the generators to blend; own purchases, item-item and popularity by default
    constant : 60 in the paper
    """

    words = "several methods together, by their ranks"
    sources: list[CandidateGenerator] = field(
        default_factory=lambda: [OwnPurchases("decay"), ItemItem("tfidf"), Popularity()]
    )
    constant: NotNegative = 60.0
    sources_: list[CandidateGenerator] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.sources:
            raise SettingError("fusion needs at least one source.")

    @property
    def name(self) -> str:
        return "fusion"

    def _fit(self, data: RetailData) -> None:
        self.sources_ = [replace(source).fit(data) for source in self.sources]
        self.owners_only_ = None  # each source proposes what it may

    def unfiltered(self) -> Self:
        other = super().unfiltered()
        other.sources_ = [source.unfiltered() for source in self.sources_]
        return other

    def _candidates(self, history: History, k: int) -> Candidates:
        return self._blended(history, k, None)

    def _candidates_without(self, history: History, k: int, without: Pairs) -> Candidates:
        # what each source proposes decides the others' ranks, so each is asked for k, and not for more
        return self._blended(history, k, without)

    def _blended(self, history: History, k: int, without: Pairs | None) -> Candidates:
        proposed = np.hstack([s.candidates(history, k, without).items for s in self.sources_])
        starts = np.arange(len(history) + 1, dtype=np.int64) * proposed.shape[1]
        indptr, items = union_rows(starts, proposed.ravel(), len(history))
        return Candidates(*topk_rows(indptr, items, self._score(history, Pairs(indptr, items)), k))

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Ranks are places among the shopper's `pairs`."""
        total = np.zeros(len(pairs.items), np.float32)
        for source in self.sources_:
            rank = rank_in_rows(pairs.indptr, source.score(history, pairs))
            total += (1 / (self.constant + rank)).astype(np.float32)
        return total

"""The contract of a source: learn items in `fit`, answer for any history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.data import RetailData
from retailrec.errors import NotFittedError, SettingError
from retailrec.history import History


class Candidates(NamedTuple):
    """The best items of each shopper, best first.

    Attributes
    ----------
    items : (n_users, k) int32 codes; -1 where the source has no more to propose
    scores : (n_users, k) float32; -inf beside -1
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]


class Pairs(NamedTuple):
    """Shopper x item pairs as a CSR: row `i` holds items[indptr[i]:indptr[i + 1]], ascending."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]


@dataclass
class CandidateGenerator(ABC):
    """A source of candidates. Fields are its hyper-parameters; what `fit` learns ends in ``_``.

    `fit` learns about items only. A shopper's history comes with each request, so a new shopper or a
    fresher receipt needs no refit, and a fitted source holds nothing personal.
    """

    allowed_: NDArray[np.bool_] = field(init=False, repr=False, compare=False)

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, unique among the sources of a model; part of column names."""

    @abstractmethod
    def _fit(self, data: RetailData) -> None:
        """Learn item-side state."""

    @abstractmethod
    def _candidates(self, history: History, k: int) -> Candidates:
        """Candidates among the allowed items."""

    @abstractmethod
    def score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """This source's score of any pairs, (n_pairs,); row i of `pairs` is row i of `history`."""

    @property
    def more(self) -> tuple[str, ...]:
        """Names of what `score_more` tells beside the score; part of column names."""
        return ()

    def score_more(
        self, history: History, pairs: Pairs
    ) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32]]]:
        """The score, and one array for each of `more`; all (n_pairs,)."""
        return self.score(history, pairs), ()

    def fit(self, data: RetailData) -> Self:
        """Learn from everything in `data`, which ends at `data.end`."""
        self.allowed_ = np.ascontiguousarray(data.recommendable)
        self._fit(data)
        return self

    def candidates(self, history: History, k: int) -> Candidates:
        """The `k` best recommendable items of each shopper; ties go to the lower item code.

        Raises
        ------
        SettingError
            If `k` < 1.
        NotFittedError
            Before `fit`.
        """
        if k < 1:
            raise SettingError(f"{self.name}: k must be at least 1, not {k}.")
        if not hasattr(self, "allowed_"):
            raise NotFittedError(f"{self.name} has not seen any data; call fit(data) first.")
        return self._candidates(history, k)


def reference_history(data: RetailData, size: int, seed: int) -> History:
    """Histories to learn items from: those of all active shoppers, or of `size` drawn among them."""
    users = data.active_users()
    if len(users) > size:
        users = np.sort(np.random.default_rng(seed).choice(users, size, replace=False))
    return data.full_history if len(users) == data.n_users else data.history(users)

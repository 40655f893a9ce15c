"""The contract of a source: learn items in `fit`, answer for any history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.components import Component
from retailrec.compute.csr import leave_out
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import DataError, NotFittedError, SettingError


@dataclass
class CandidateGenerator(Component, ABC):
    """A source of candidates.

    Fields are its hyper-parameters; what `fit` learns ends in ``_``. `fit` learns about items only. A
    shopper's history comes with each request, so a new shopper or a fresher receipt needs no refit, and
    a fitted source holds nothing personal.

    A source of one's own is a dataclass that derives from this one and has `name`, `_fit`,
    `_candidates` and `_score`. It needs no registration: a config names it by `type_name`, artifacts
    by its class.

    Attributes
    ----------
    theme : which kind of reason this source's columns stand for in explanations (``habit``,
        ``receipt``, ``together``, ``alike``, ``popular``); other words are shown as they are; empty:
        no reason
    allowed_ : (n_items,) which items may be proposed
    catalogue_key_ : the item coding that was learnt from
    """

    theme: ClassVar[str] = ""
    allowed_: NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    catalogue_key_: str = field(init=False, repr=False, compare=False)

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
    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """This source's score of any pairs, (n_pairs,)."""

    def _candidates_without(self, history: History, k: int, without: Pairs) -> Candidates:
        """Candidates among the allowed items, less some pairs."""
        most = int(np.diff(without.indptr).max(initial=0))  # of so many more, k stay in any case
        found = self._candidates(history, k + most)
        return Candidates(*leave_out(*found, without.indptr, without.items, k))

    @property
    def more(self) -> tuple[str, ...]:
        """Names of what `score_more` tells beside the score; part of column names."""
        return ()

    def _score_more(
        self, history: History, pairs: Pairs
    ) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32]]]:
        """The score, and one array for each of `more`; all (n_pairs,)."""
        return self._score(history, pairs), ()

    def fit(self, data: RetailData) -> Self:
        """Learn from everything in `data`, which ends at `data.end`."""
        data = RetailData.of(data)
        self.allowed_ = np.ascontiguousarray(data.recommendable)
        self.catalogue_key_ = data.catalogue_key
        self._fit(data)
        return self

    def candidates(self, history: History, k: int, without: Pairs | None = None) -> Candidates:
        """The `k` best recommendable items of each shopper; ties go to the lower item code.

        `without` are pairs that are not wanted, a row a shopper: the `k` best others are given, as
        many as there are.

        Raises
        ------
        SettingError
            If `k` < 1.
        NotFittedError
            Before `fit`.
        DataError
            If the history is coded by another catalogue.
        """
        if k < 1:
            raise SettingError(f"{self.name}: k must be at least 1, not {k}.")
        self.require_codes_of(history)
        if without is None:
            return self._candidates(history, k)
        require_pairs_of(history, without)
        return self._candidates_without(history, k, without)

    def score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """This source's score of any pairs, (n_pairs,) float32; row i of `pairs` is row i of `history`.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the history is coded by another catalogue, or pairs do not fit it.
        """
        self.require_codes_of(history)
        require_pairs_of(history, pairs)
        return self._score(history, pairs)

    def score_more(
        self, history: History, pairs: Pairs
    ) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32]]]:
        """As `score`, and one array for each of `more`; all (n_pairs,)."""
        self.require_codes_of(history)
        require_pairs_of(history, pairs)
        return self._score_more(history, pairs)

    def require_codes_of(self, history: History) -> None:
        """Raise unless this source is fitted, and on the item codes that `history` has.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the history is coded by another catalogue.
        """
        if not hasattr(self, "allowed_"):
            raise NotFittedError(f"{self.name} has not seen any data; call fit(data) first.")
        if history.catalogue_key != self.catalogue_key_:
            raise DataError(
                f"{self.name}: the history is coded by another catalogue ({history.n_items:,} items) "
                f"than the one it was fitted with ({len(self.allowed_):,} items). Hand receipts to "
                f"model.recommend(data, users=...), which codes them, or use "
                f"data.with_item_codes_of(items)."
            )


def require_pairs_of(history: History, pairs: Pairs) -> None:
    """Raise a DataError unless every row and item of `pairs` is one of the history's."""
    rows, items = pairs.indptr, pairs.items
    fits = len(rows) == len(history) + 1 and rows[0] == 0 and rows[-1] == len(items)
    if not fits or (len(items) and not 0 <= int(items.min()) <= int(items.max()) < history.n_items):
        raise DataError(
            f"pairs must have a row for each of the {len(history):,} histories and item codes below "
            f"{history.n_items:,}; got {len(rows) - 1:,} rows and {len(items):,} items"
            + (f" from {items.min()} to {items.max()}." if len(items) else ".")
        )


def reference_history(data: RetailData, size: int, seed: int) -> History:
    """Histories to learn items from: those of all active shoppers, or of `size` drawn among them."""
    users = data.active_users()
    if len(users) > size:
        users = np.sort(np.random.default_rng(seed).choice(users, size, replace=False))
    return data.full_history if len(users) == data.n_users else data.history(codes=users)

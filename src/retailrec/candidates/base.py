"""The contract of a source: learn items in `fit`, answer for any history."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retailrec.components import Component
from retailrec.compute.csr import find_pairs, leave_out, product_gather, row_of_pair
from retailrec.compute.draws import lots
from retailrec.compute.topk import product_topk, topk_rows
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.data.ids import id_keys
from retailrec.errors import DataError, NotFittedError, SettingError
from retailrec.schema import USER_ID


@dataclass
class CandidateGenerator(Component, ABC):
    """A source of candidates.

    Fields are its hyper-parameters; what `fit` learns ends in ``_``. `fit` learns about items only. A
    user's history comes with each request, so a new user or a fresher receipt needs no refit, and
    a fitted source holds nothing personal.

    A source of one's own is a dataclass that derives from this one and has `name`, `_fit`,
    `_candidates` and `_score`. It needs no registration: a config names it by `type_name`, artifacts
    by its class.

    Attributes
    ----------
    theme : which kind of reason this source's columns are in explanations (``habit``,
        ``receipt``, ``together``, ``alike``, ``popular``, ``bestseller`` of a category); other words
        are shown as they are; empty: no reason
    partners : of which purchases, ``history`` or ``last_receipt``, a reason names the one that goes
        best with an item, by the source's `similarity_`; empty: of none
    words : what the source lists, for people, such as *own purchases, most recent first*
    allowed_ : (n_items,) which items may be proposed to any user
    owners_only_ : (n_items,) which may be proposed to users who bought them before and to no others;
        None: there are none
    catalogue_key_ : the item coding that was learnt from
    """

    theme: ClassVar[str] = ""
    words: ClassVar[str] = ""
    partners: ClassVar[str] = ""
    allowed_: NDArray[np.bool_] = field(init=False, repr=False, compare=False)
    owners_only_: NDArray[np.bool_] | None = field(init=False, repr=False, compare=False, default=None)
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
        self.allowed_ = np.ascontiguousarray(data.discoverable)
        owners_only = data.recommendable & ~self.allowed_
        self.owners_only_ = owners_only if owners_only.any() else None
        self.catalogue_key_ = data.catalogue_key
        self._fit(data)
        return self

    def candidates(self, history: History, k: int, without: Pairs | None = None) -> Candidates:
        """The `k` best recommendable items of each user; ties go to the lower item code.

        Items of `owners_only_` are proposed to those who bought them. `without` are pairs that are not
        wanted, a row a user: the `k` best others are given, as many as there are.

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
            return self._with_owned(history, self._candidates(history, k), k, None)
        require_pairs_of(history, without)
        found = self._candidates_without(history, k, without)
        return self._with_owned(history, found, k, without)

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

    def unfiltered(self) -> Self:
        """The same fitted source with no item hidden from any user."""
        other = copy(self)
        other.allowed_, other.owners_only_ = np.ones_like(self.allowed_), None
        return other

    def _with_owned(
        self, history: History, found: Candidates, k: int, without: Pairs | None
    ) -> Candidates:
        """The `k` best of what was found and of the owners' items that are hidden from others."""
        if self.owners_only_ is None:
            return found
        hidden = self.owners_only_[history.items]
        if without is not None:
            hidden &= find_pairs(without.indptr, without.items, history.indptr, history.items) < 0
        if not hidden.any():
            return found
        sizes = np.bincount(history.user_of_pair[hidden], minlength=len(history))
        own = Pairs(np.append(0, np.cumsum(sizes)).astype(np.int64), history.items[hidden])
        score = self._score(history, own)
        score = np.where(score == 0, np.float32(-np.inf), score)  # says nothing of the pair
        width = found.items.shape[1]
        rows = np.concatenate([np.repeat(np.arange(len(history)), width), row_of_pair(own.indptr)])
        order = np.argsort(rows, kind="stable")
        starts = np.arange(len(history) + 1, dtype=np.int64) * width + own.indptr
        items = np.concatenate([found.items.ravel(), own.items])[order]
        scores = np.concatenate([found.scores.ravel(), score])[order]
        return Candidates(*topk_rows(starts, items, scores, k))

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
    """Histories to learn items from: those of all active users, or of `size` drawn among them.

    The draw hangs on ids: users who come in beside take a place now and then, and change nothing else.
    """
    users = data.active_users()
    if len(users) > size:
        lot = lots(id_keys(data.users[USER_ID].gather(users)), seed, 96)
        users = np.sort(users[np.argsort(lot, kind="stable")[:size]])
    return data.full_history if len(users) == data.n_users else data.history(codes=users)


class Rows(NamedTuple):
    """What kernels read of a CSR matrix: making one of SciPy's costs a single request too much."""

    indptr: NDArray[np.integer]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]


class Product(NamedTuple):
    """weights (n_users, n) x matrix (n, n_items), which is never written out.

    Kernels read its best items and single pairs.
    """

    weights: Rows | sparse.csr_matrix
    matrix: sparse.csr_matrix

    def best(
        self, allowed: NDArray[np.bool_], k: int, plus: Rows | sparse.csr_matrix | None = None
    ) -> Candidates:
        """The `k` best allowed items of each row, of the product `plus` (n_users, n_items) if given."""
        w, m = self
        if plus is None:
            plus = Rows(np.zeros(len(w.indptr), np.int64), m.indices[:0], m.data[:0])
        return Candidates(
            *product_topk(
                *(w.indptr, w.indices, w.data, m.indptr, m.indices, m.data),
                *(plus.indptr, plus.indices, plus.data, allowed, k),
            )
        )

    def read(self, pairs: Pairs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n_pairs,) the product at some pairs, and the largest single term of each sum."""
        w, m = self
        total, largest = product_gather(
            *(w.indptr, w.indices, w.data, m.indptr, m.indices, m.data),
            *(pairs.indptr, pairs.items, m.shape[1]),
        )
        return total, largest

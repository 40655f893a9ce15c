"""Similar users: what those who bought alike bought.

These sources keep a bounded sample of reference histories, without ids. It is the one place where a
fitted model holds anything derived from single users.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates.base import CandidateGenerator, Product, Rows, reference_history
from retailrec.components import Count, Seed, Share, ShareOrNone
from retailrec.compute.csr import find_pairs
from retailrec.compute.topk import closest_rows, keep_largest
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs

_BATCH = 1024  # users compared with the reference sample at a time


@dataclass
class TifuKNN(CandidateGenerator):
    """TIFU-KNN: own and neighbours' decayed basket vectors (Hu et al., SIGIR 2020).

    A user's baskets, oldest first, form groups of `group_size` (the oldest group takes what is
    left over). A group's vector is the mean of its baskets, each weighted `within_decay` ^ (baskets
    until the group's last); the user's vector is the mean of the groups, each weighted
    `group_decay` ^ (groups until the last). The prediction is `alpha` x own vector + (1 - `alpha`) x
    mean vector of the `neighbours` nearest references (Euclidean). Defaults are the paper's for
    Ta-Feng.

    Parameters
    ----------
    reference : users sampled in `fit` to be neighbours
    """

    neighbours: Count = 300
    group_size: Count = 7
    within_decay: Share = 0.9
    group_decay: Share = 0.7
    alpha: ShareOrNone = 0.7
    reference: Count = 10_000
    seed: Seed | None = None
    theme = "alike"
    words = "receipts of one's own and of like shoppers"
    reference_: sparse.csr_matrix = field(init=False, repr=False, compare=False)
    _by_item: Any = field(init=False, repr=False, compare=False, default=None)

    @property
    def name(self) -> str:
        return "tifu_knn"

    def _fit(self, data: RetailData) -> None:
        self.reference_ = self.vectors(reference_history(data, self.reference, self.seed or 0))

    def vectors(self, history: History) -> sparse.csr_matrix:
        """(n_users, n_items) decayed basket vectors (eq. 1 to 4 of the paper)."""
        return history.matrix(self._weights(history))

    def _weights(self, history: History) -> NDArray[np.float32]:
        """(n_pairs,) entries of `vectors`."""
        back = history.baskets_ago
        group = back // self.group_size  # 0 is the newest group
        total = np.bincount(history.user_of_basket, minlength=len(history))[history.user_of_basket]
        groups = -(-total // self.group_size)
        oldest = total - (groups - 1) * self.group_size
        size = np.where(group == groups - 1, oldest, self.group_size)
        weight = self.within_decay ** (back % self.group_size) / size * self.group_decay**group / groups
        return history.sum_events(history.of_events(weight))

    def _prediction(self, history: History) -> Prediction:
        own = Rows(history.indptr, history.items, self._weights(history))
        by_item, norms = self._reference_by_item()
        n = min(self.neighbours, len(norms))
        closest = closest_rows(
            own.indptr, own.indices, own.data, by_item.indptr, by_item.indices, by_item.data, norms, n
        )
        share = np.float32(1 / max(n, 1)) * np.float32(1 - self.alpha)
        weights = np.full(closest.size, share, np.float32)
        near = Rows(np.arange(len(history) + 1) * n, np.sort(closest, axis=1).ravel(), weights)
        mine = Rows(own.indptr, own.indices, own.data * np.float32(self.alpha))
        return Prediction(near, self.reference_, mine)

    def _reference_by_item(self) -> tuple[sparse.csr_matrix, NDArray[np.float64]]:
        """The neighbours' vectors the other way round, and their squared norms."""
        kept = self._by_item
        if kept is None or kept[0] is not self.reference_:
            norms = np.asarray(self.reference_.multiply(self.reference_).sum(axis=1)).ravel()
            kept = self._by_item = self.reference_, self.reference_.T.tocsr(), norms
        return kept[1], kept[2]

    def _candidates(self, history: History, k: int) -> Candidates:
        return self._remembered(history).best(history, self.allowed_, k)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for items that neither the user nor a neighbour bought."""
        return self._remembered(history).read(pairs)

    def _remembered(self, history: History) -> Prediction:
        return history.remember(self.reference_, lambda: self._prediction(history))


@dataclass
class UPCF(CandidateGenerator, type="up_cf"):
    """User popularity with user-wise collaborative filtering (Faggioli et al., UMAP 2020).

    A user's vector is the share of the last `recency` baskets that hold each item. The prediction
    sums the references' vectors, weighted by similarity ^ `locality`; similarity is the asymmetric
    cosine n_both / (n_own ^ `asymmetry` x n_other ^ (1 - `asymmetry`)) of the sets of items. The
    user's own vector counts with similarity 1, whether they are in the sample or not; references
    with exactly the same items are left out. Only the `neighbours` most similar references are summed;
    the power makes the others' weight tiny.
    """

    recency: Count = 5
    locality: Count = 5
    asymmetry: ShareOrNone = 0.25
    neighbours: Count = 200
    reference: Count = 10_000
    seed: Seed | None = None
    theme = "alike"
    words = "popular with like shoppers"
    reference_: sparse.csr_matrix = field(init=False, repr=False, compare=False)
    sets_: sparse.csr_matrix = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "up_cf"

    def _fit(self, data: RetailData) -> None:
        history = reference_history(data, self.reference, self.seed or 0)
        self.reference_ = self.vectors(history)
        self.sets_ = history.matrix(np.ones(history.n_pairs, np.float32))

    def vectors(self, history: History) -> sparse.csr_matrix:
        """(n_users, n_items) share of the last baskets with the item."""
        n_baskets = np.bincount(history.user_of_basket, minlength=len(history))
        window = np.minimum(n_baskets, self.recency)[history.user_of_basket]
        share = (history.baskets_ago < self.recency) / window
        return history.matrix(history.sum_events(history.of_events(share)))

    def _prediction(self, history: History) -> Prediction:
        mine = history.matrix(np.ones(history.n_pairs, np.float32))
        norm = np.maximum(np.diff(history.indptr), 1) ** -self.asymmetry
        other = np.diff(self.sets_.indptr) ** -(1 - self.asymmetry)
        parts = []
        for at in range(0, len(history), _BATCH):
            rows = slice(at, at + _BATCH)
            similarity = (mine[rows] @ self.sets_.T).toarray()
            similarity *= norm[rows, None] * other
            similarity[similarity > 1 - 1e-6] = 0  # the user, or one with the same items
            near = nearest(similarity.astype(np.float32), self.neighbours)
            close = np.take_along_axis(similarity, near.indices.reshape(len(similarity), -1), 1)
            near.data = (close.ravel() ** self.locality).astype(np.float32)
            parts.append(near)
        weights = _stack(parts, self.reference_.shape[0])
        return Prediction(weights, self.reference_, self.vectors(history))

    def _candidates(self, history: History, k: int) -> Candidates:
        return self._remembered(history).best(history, self.allowed_, k)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for items that neither the user nor a similar reference bought lately."""
        return self._remembered(history).read(pairs)

    def _remembered(self, history: History) -> Prediction:
        return history.remember(self.reference_, lambda: self._prediction(history))


class Prediction(NamedTuple):
    """weights (n_users, n_references) x references (n_references, n_items) + own (n_users, n_items)."""

    weights: Rows | sparse.csr_matrix
    references: sparse.csr_matrix
    own: Rows | sparse.csr_matrix

    def best(self, history: History, allowed: NDArray[np.bool_], k: int) -> Candidates:
        """The `k` best allowed items; none for an empty history, as no user is like it."""
        best = Product(self.weights, self.references).best(allowed, k, self.own)
        unfounded = (np.diff(history.indptr) == 0)[:, None] | (best.scores <= 0)
        best.items[unfounded], best.scores[unfounded] = -1, -np.inf
        return best

    def read(self, pairs: Pairs) -> NDArray[np.float32]:
        """(n_pairs,) the prediction of some pairs."""
        o = self.own
        total, _ = Product(self.weights, self.references).read(pairs)
        place = find_pairs(o.indptr, o.indices, pairs.indptr, pairs.items)
        if len(o.data):
            total += np.where(place >= 0, o.data[place], np.float32(0))
        return total


def nearest(closeness: NDArray[np.float32], n: int) -> sparse.csr_matrix:
    """(n_users, n_references) 1/n at the `n` closest references; the lower one wins ties."""
    width = closeness.shape[1]
    n = min(n, width)
    columns = keep_largest(closeness, n)
    weights = np.full(columns.size, 1 / n, np.float32)
    indptr = np.arange(len(closeness) + 1) * n
    return sparse.csr_matrix((weights, columns.ravel(), indptr), shape=closeness.shape)


def _stack(parts: list[sparse.csr_matrix], width: int) -> sparse.csr_matrix:
    if parts:
        return sparse.vstack(parts, format="csr")
    return sparse.csr_matrix(np.zeros((0, width), np.float32))

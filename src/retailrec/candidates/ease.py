"""Linear regression of items on items: EASE."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from retailrec.candidates.base import CandidateGenerator, reference_history
from retailrec.candidates.factors import grid, rounded
from retailrec.components import Count, Positive, Seed
from retailrec.compute.csr import product_gather
from retailrec.compute.shards import one_blas_thread
from retailrec.compute.topk import keep_largest, product_topk
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs


@dataclass
class EASE(CandidateGenerator, type="ease"):
    """Embarrassingly shallow autoencoder (Steck, WWW 2019).

    A user's row x holds log(1 + decayed receipts) of each item, and scores are x B with B = I - P /
    diag(P), P = (X'X + `regularization` I)^-1: the ridge regression of each item on all others. The
    `neighbours` entries of each row of B that are farthest from zero are kept.

    Parameters
    ----------
    n_items : the most bought items that are regressed; the time to learn grows with their cube, some
        half a second of one core at 2,000
    regularization : of the regression
    half_life : days after which a receipt counts half; None: never
    neighbours : entries kept of each item's row
    reference : users that items are learnt from, drawn where there are more
    """

    n_items: Count = 2000
    regularization: Positive = 200.0
    half_life: Positive | None = 90.0
    neighbours: Count = 200
    reference: Count = 100_000
    seed: Seed | None = None
    theme = "together"
    similarity_: sparse.csr_matrix = field(init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return "ease"

    def _fit(self, data: RetailData) -> None:
        history = reference_history(data, self.reference, self.seed or 0)
        x = history.matrix(self._profile(history))
        bought = np.bincount(history.items, minlength=history.n_items)
        order = np.lexsort((np.arange(len(bought)), -bought))[: self.n_items]
        kept = np.sort(order[bought[order] > 0])
        x = x[:, kept].astype(np.float64)
        gram = (x.T @ x).toarray(order="F")
        gram[np.diag_indices(len(kept))] += self.regularization
        with one_blas_thread():
            factor, _ = linalg.lapack.dpotrf(gram, lower=1, overwrite_a=1)
            inverse, _ = linalg.lapack.dpotri(factor, lower=1, overwrite_c=1)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        weights = -inverse / np.diag(inverse)
        np.fill_diagonal(weights, 0)
        weights = rounded(weights, grid(weights))  # as those of ALS, for every processor the same
        n = min(self.neighbours, len(kept))
        columns = keep_largest(np.abs(weights), n)
        data_ = np.take_along_axis(weights, columns, axis=1).ravel()
        sizes = np.zeros(history.n_items + 1, np.int64)
        sizes[kept + 1] = n
        shape = (history.n_items, history.n_items)
        indices = kept[columns].ravel().astype(np.int32)
        self.similarity_ = sparse.csr_matrix((data_, indices, np.cumsum(sizes)), shape=shape)

    def _profile(self, history: History) -> NDArray[np.float32]:
        """(n_pairs,) log(1 + decayed receipts)."""
        return np.log1p(history.counts(self.half_life)).astype(np.float32)

    def _candidates(self, history: History, k: int) -> Candidates:
        s = self.similarity_
        none = np.zeros(len(history) + 1, np.int64)
        best = product_topk(
            history.indptr,
            history.items,
            self._profile(history),
            s.indptr,
            s.indices,
            s.data,
            none,
            s.indices[:0],
            s.data[:0],
            self.allowed_,
            k,
        )
        return Candidates(*best)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for items that are not regressed, and for users with none of them."""
        s = self.similarity_
        total, _ = product_gather(
            history.indptr,
            history.items,
            self._profile(history),
            s.indptr,
            s.indices,
            s.data,
            pairs.indptr,
            pairs.items,
            history.n_items,
        )
        return np.asarray(total, np.float32)

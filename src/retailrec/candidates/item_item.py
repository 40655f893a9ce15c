"""Items from items: item-item neighbours (same users, same receipts) and EASE, a linear regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from retailrec.candidates.base import CandidateGenerator, Product, Rows, reference_history
from retailrec.candidates.factors import grid, rounded
from retailrec.components import Count, NotNegative, Positive, Seed, Threads
from retailrec.compute.csr import common_counts
from retailrec.compute.shards import library_threads, map_shards, one_blas_thread
from retailrec.compute.topk import best_in_rows, keep_largest, product_rows
from retailrec.data import RetailData
from retailrec.data.history import Candidates, History, Pairs
from retailrec.errors import SettingError


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
        return self._product(history).best(self.allowed_, k)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Zero for items that are not regressed, and for users with none of them."""
        return self._product(history).read(pairs)[0]

    def _product(self, history: History) -> Product:
        return Product(Rows(history.indptr, history.items, self._profile(history)), self.similarity_)


_ITEMS = 2048  # whose neighbours one thread looks for


@dataclass
class ItemItem(CandidateGenerator):
    """Profile x nearest neighbours of each item (Deshpande & Karypis, TOIS 2004).

    Parameters
    ----------
    weighting : ``cosine``, ``tfidf`` or ``bm25``, applied as `implicit` does
    neighbours : kept per item, itself counted when `include_self`
    within : ``shopper``: items of one user go together; ``receipt``: items of one receipt;
        ``next_receipt``: items of a receipt with those of the user's next one. The last always takes
        the cosine of the two and has no `half_life` in fit
    profile : ``history``: all the user bought, ``last_receipt``: the newest receipt only,
        ``top``: the five items bought most
    half_life : days after which a purchase counts half, in fit and in the profile; None: never
    shrinkage : similarities of the neighbours that are kept are multiplied by n / (n + shrinkage), n
        being the users (or receipts) that hold both items
    include_self : an item is its own neighbour, so own purchases are proposed too
    longest : items of one user that similarities are learnt from, the heaviest ones; the time to
        learn grows with their square
    reference : users that similarities are learnt from, drawn where there are more
    """

    weighting: Literal["cosine", "tfidf", "bm25"] = "cosine"
    neighbours: Count = 50
    within: Literal["shopper", "receipt", "next_receipt"] = "shopper"
    profile: Literal["history", "last_receipt", "top"] = "history"
    half_life: Positive | None = None
    shrinkage: NotNegative = 0.0
    include_self: bool = False
    longest: Count = 200
    reference: Count = 100_000
    seed: Seed | None = None
    threads: Threads | None = None
    similarity_: sparse.csr_matrix = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.within == "next_receipt" and (self.weighting != "cosine" or self.include_self):
            raise SettingError(
                "item_item: within='next_receipt' always takes the cosine, and an item may follow "
                "itself; leave weighting and include_self out."
            )

    @property
    def name(self) -> str:
        suffix = "" if self.profile == "history" else f"_{self.profile}"
        if self.within == "next_receipt":
            return f"next{suffix}"
        return f"{'basket' if self.within == 'receipt' else 'item'}_{self.weighting}{suffix}"

    @property
    def words(self) -> str:  # type: ignore[override]
        bought = "the last receipt" if self.profile == "last_receipt" else "what was bought"
        return f"{'follows' if self.within == 'next_receipt' else 'goes with'} {bought}"

    @property
    def theme(self) -> str:  # type: ignore[override]
        last = self.profile == "last_receipt" or self.within == "next_receipt"
        return "receipt" if last else "together"

    @property
    def partners(self) -> str:  # type: ignore[override]
        return "last_receipt" if self.profile == "last_receipt" else "history"

    @property
    def more(self) -> tuple[str, ...]:
        return "largest", "mean"

    def _fit(self, data: RetailData) -> None:
        history = reference_history(data, self.reference, self.seed or 0)
        if self.within == "shopper":
            weights = np.sqrt(history.counts(self.half_life))
            held = history.matrix(keep_top(history, weights, self.longest))
            if (np.diff(history.indptr) > self.longest).any():
                held = held.copy()  # its places are those of the history, which others read too
                held.eliminate_zeros()
        else:
            held = receipts_matrix(history)
        before, after, same = held, held, self.include_self
        if self.within == "next_receipt":
            user = history.user_of_basket
            followed = np.flatnonzero(user[1:] == user[:-1])
            before, after, same = held[followed], held[followed + 1], True
        self.similarity_ = nearest_items(
            before, after, self.weighting, self.neighbours, self.shrinkage, same, self.threads
        )

    def _candidates(self, history: History, k: int) -> Candidates:
        return self._product(history).best(self.allowed_, k)

    def _score(self, history: History, pairs: Pairs) -> NDArray[np.float32]:
        """Sum over the profile of weight x similarity; zero without a common neighbour."""
        return self._score_more(history, pairs)[0]

    def _score_more(
        self, history: History, pairs: Pairs
    ) -> tuple[NDArray[np.float32], Sequence[NDArray[np.float32]]]:
        """The score, the largest single term of its sum, and the score over the profile's weight."""
        product = self._product(history)
        total, best = product.read(pairs)
        sums = np.bincount(history.user_of_pair, product.weights.data, len(history))
        weight: NDArray[np.float32] = np.maximum(sums, 1e-9).astype(np.float32)
        return total, (best, np.divide(total, np.repeat(weight, np.diff(pairs.indptr))))

    def _product(self, history: History) -> Product:
        return Product(Rows(history.indptr, history.items, self._profile(history)), self.similarity_)

    def _profile(self, history: History) -> NDArray[np.float32]:
        """(n_pairs,) weight of each item that the user bought."""
        if self.profile == "last_receipt":
            last = history.basket == history.last_basket[history.user_of_event]
            return history.sum_events(last.astype(np.float64))
        weights = np.sqrt(history.counts(self.half_life))
        if self.profile == "top":
            return keep_top(history, weights, 5)
        return weights


def keep_top(history: History, weights: NDArray[np.float32], n: int) -> NDArray[np.float32]:
    """The weights with all but each user's `n` largest set to zero; the lower item wins ties."""
    return np.where(best_in_rows(history.indptr, weights, n), weights, np.float32(0))


def receipts_matrix(history: History) -> sparse.csr_matrix:
    """Receipt x item CSR of ones, in order of user and receipt."""
    items = history.item_of_event[history.by_basket]
    shape = (len(history.basket_indptr) - 1, history.n_items)
    return sparse.csr_matrix(
        (np.ones(len(items), np.float32), items, history.basket_indptr), shape=shape
    )


def weighted(held: sparse.csr_matrix, weighting: str) -> sparse.csr_matrix:
    """What is held by whom, weighted as `implicit` does with items as documents, users as words."""
    n, items = held.shape[1], held.indices
    data = held.data.astype(np.float64)
    rare = np.repeat(np.log(n) - np.log1p(np.diff(held.indptr)), np.diff(held.indptr))
    if weighting == "bm25":  # K1 = 100, B = 0.5
        size = np.bincount(items, data, n)
        data *= 101 / (100 * (0.5 + 0.5 * size / size.mean())[items] + data) * rare
    else:
        if weighting == "tfidf":
            data = np.sqrt(data) * rare
        data /= np.sqrt(np.maximum(np.bincount(items, data**2, n), 1e-300))[items]
    return sparse.csr_matrix((data.astype(np.float32), items, held.indptr), shape=held.shape)


def nearest_items(
    before: sparse.csr_matrix,
    after: sparse.csr_matrix,
    weighting: str,
    neighbours: int,
    shrinkage: float,
    include_self: bool,
    threads: int | None,
) -> sparse.csr_matrix:
    """(n_items, n_items) similarity of each item of `before` to its nearest ones of `after`.

    Both hold a user (or receipt) a row; entry (a, b) is the dot product of two weighted columns, times
    n / (n + shrinkage), n being the rows that hold a before and b after.
    """
    of_item, right = weighted(before, weighting).T.tocsr(), weighted(after, weighting)

    def best(items: slice) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        block, own = of_item[items], -1 if include_self else items.start
        found: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]] = product_rows(
            *(block.indptr, block.indices, block.data, right.indptr, right.indices, right.data),
            *(right.shape[1], own, neighbours),
        )
        return found

    blocks = map_shards(best, right.shape[1], size=_ITEMS, threads=library_threads(threads))
    sizes, indices, data = (
        np.concatenate(part)
        for part in zip(*((np.diff(i), items, v) for i, items, v in blocks), strict=True)
    )
    shape = (right.shape[1], right.shape[1])
    similarity = sparse.csr_matrix((data, indices, np.append(0, np.cumsum(sizes))), shape=shape)
    if shrinkage:
        other = after.T.tocsr()
        common = common_counts(
            *(of_item.indptr, of_item.indices, other.indptr, other.indices),
            *(similarity.indptr, similarity.indices),
        )
        similarity.data *= common / (common + shrinkage)
    return similarity

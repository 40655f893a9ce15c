"""The pool: the union of what the sources propose, each one's view of every pair; rank fusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.candidates.item_item import ItemItem
from retailrec.candidates.own_purchases import OwnPurchases
from retailrec.candidates.popularity import Popularity
from retailrec.components import NotNegative
from retailrec.compute.csr import (
    pair_keys,
    pairs_of_keys,
    place_in_rows,
    rank_in_rows,
    row_of_pair,
    union_rows,
)
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
        """Ranks are places among the user's `pairs`."""
        total = np.zeros(len(pairs.items), np.float32)
        for source in self.sources_:
            rank = rank_in_rows(pairs.indptr, source.score(history, pairs))
            total += (1 / (self.constant + rank)).astype(np.float32)
        return total


@dataclass(frozen=True)
class Pool:
    """One row a (user, item) pair, in order of user and item.

    Attributes
    ----------
    indptr : (n_users + 1,) int64, where each user's pairs start
    items : (n_pairs,) int32
    sources : names, in the order of the columns below
    scores : (n_pairs, n_sources) float32; each source scores every pair, its own proposal or not
    ranks : (n_pairs, n_sources) float32; place of the score within the user's pool, 1 is best
    more : (n_pairs, n_more) float32; what sources tell beside their scores, in order of the sources
    beside : (n_pairs,) is the pair one of `with_items` that is not proposed? None: there are none
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    sources: tuple[str, ...]
    scores: NDArray[np.float32]
    ranks: NDArray[np.float32]
    more: NDArray[np.float32]
    beside: NDArray[np.bool_] | None = None

    @property
    def pairs(self) -> Pairs:
        """The pairs without the scores."""
        return Pairs(self.indptr, self.items)

    @property
    def user_of_pair(self) -> NDArray[np.int64]:
        """(n_pairs,) history row of each pair."""
        return row_of_pair(self.indptr)

    def keep(self, mask: NDArray[np.bool_]) -> Pool:
        """Only the pairs where `mask` is True; scores and ranks stay as they are."""
        sizes = np.bincount(self.user_of_pair[mask], minlength=len(self.indptr) - 1)
        return replace(
            self,
            indptr=np.append(0, np.cumsum(sizes)).astype(np.int64),
            items=self.items[mask],
            scores=self.scores[mask],
            ranks=self.ranks[mask],
            more=self.more[mask],
            beside=None if self.beside is None else self.beside[mask],
        )

    def best(self, score: NDArray[np.float32], k: int) -> Candidates:
        """The `k` best pairs of each user by a score of each pair; ties go to the lower item."""
        return Candidates(*topk_rows(self.indptr, self.items, score, k))


_MOST = 100_000  # candidates of one source


def check_pool(sources: Sequence[CandidateGenerator], n_candidates: int | Sequence[int]) -> list[int]:
    """Candidates taken from each source, one number a source.

    Raises
    ------
    SettingError
        If there is no source, two have one name, the number of `n_candidates` differs from that of the
        sources, or no source is to propose anything.
    """
    names = tuple(s.name for s in sources)
    if not names or len(set(names)) < len(names):
        raise SettingError(f"a pool needs sources with different names, not {names}.")
    single = isinstance(n_candidates, int | np.integer)
    taken = [int(n_candidates)] * len(names) if single else [int(n) for n in n_candidates]  # type: ignore
    if len(taken) != len(names) or min(taken) < 0 or not any(taken):
        raise SettingError(
            f"n_candidates must be one number, or one for each of the {len(names)} sources, 0 or more "
            f"and not all 0; it is {n_candidates}."
        )
    if max(taken) > _MOST:
        raise SettingError(f"n_candidates may be {_MOST:,} at most, not {max(taken)}; ask for fewer.")
    return taken


def merge_pool(
    sources: Sequence[CandidateGenerator],
    history: History,
    n_candidates: int | Sequence[int],
    without: Pairs | None = None,
) -> Pool:
    """Union of each source's best `n_candidates` (one number, or one a source), scored by all sources.

    `without` are pairs that no source is to propose: each gives its best others instead.

    Raises
    ------
    SettingError
        As `check_pool`.
    """
    return score_pool(sources, history, proposed_pairs(sources, history, n_candidates, without))


def proposed_pairs(
    sources: Sequence[CandidateGenerator],
    history: History,
    n_candidates: int | Sequence[int],
    without: Pairs | None = None,
) -> Pairs:
    """The pairs of `merge_pool`."""
    taken = check_pool(sources, n_candidates)
    proposed = np.hstack(
        [s.candidates(history, n, without).items for s, n in zip(sources, taken, strict=True) if n > 0]
    )
    width = proposed.shape[1]
    starts = np.arange(len(history) + 1, dtype=np.int64) * width
    return Pairs(*union_rows(starts, proposed.ravel(), len(history)))


def score_pool(sources: Sequence[CandidateGenerator], history: History, pairs: Pairs) -> Pool:
    """The pool of given pairs."""
    n = len(pairs.items)
    scores = np.empty((n, len(sources)), np.float32, order="F")
    ranks = np.empty_like(scores)
    more = np.empty((n, sum(len(s.more) for s in sources)), np.float32, order="F")
    at = 0
    for column, source in enumerate(sources):
        scores[:, column], others = source.score_more(history, pairs)
        ranks[:, column] = rank_in_rows(pairs.indptr, scores[:, column])
        for other in others:
            more[:, at] = other
            at += 1
    return Pool(pairs.indptr, pairs.items, tuple(s.name for s in sources), scores, ranks, more)


def with_items(
    sources: Sequence[CandidateGenerator],
    history: History,
    pool: Pool,
    items: NDArray[np.int32],
    n_items: int,
) -> Pool:
    """The pool with some items (codes, ascending) beside it for each user; see `place_in_pool`."""
    rows = len(history)
    wanted = pair_keys(np.repeat(np.arange(rows), len(items)), np.tile(items, rows), n_items)
    there = pair_keys(pool.user_of_pair, pool.items, n_items)
    user, item = pairs_of_keys(np.setdiff1d(wanted, there), n_items)
    indptr = np.searchsorted(user, np.arange(rows + 1))
    more = place_in_pool(sources, history, Pairs(indptr, item.astype(np.int32)), pool)
    order = np.argsort(np.append(there, pair_keys(user, item, n_items)), kind="stable")
    names = ("items", "scores", "ranks", "more")
    columns: dict[str, Any] = {
        n: np.concatenate([getattr(pool, n), getattr(more, n)])[order] for n in names
    }
    return replace(pool, indptr=pool.indptr + indptr, beside=order >= len(there), **columns)


def place_in_pool(
    sources: Sequence[CandidateGenerator], history: History, pairs: Pairs, pool: Pool
) -> Pool:
    """Given pairs, scored by all sources, with the ranks that their scores have in each user's pool.

    A pair of the pool gets the rank that it has there, so a ranker sees the same columns.
    """
    given = score_pool(sources, history, pairs)
    ranks = np.empty_like(given.ranks)
    for column in range(len(sources)):
        ranks[:, column] = place_in_rows(
            pool.indptr, pool.scores[:, column], pairs.indptr, given.scores[:, column]
        )
    return replace(given, ranks=ranks)

"""The first stage: fitted generators and features, the pre-ranker, and the one path to candidate rows.

Histories become the rows that a ranker is trained on and the rows that it scores by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import ALS, CandidateGenerator, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.candidates.pool import Pool, merge_pool, place_in_pool, with_items
from retailrec.compute.csr import gather, pair_keys, pairs_of_keys
from retailrec.compute.topk import best_in_rows
from retailrec.data.history import History, Pairs
from retailrec.errors import SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import CatBoostRanker, LightGBMRanker, Ranker
from retailrec.recommender.purposes import Purpose, allowed_for, for_purpose, owned_pairs


def default_sources() -> list[CandidateGenerator]:
    """The sources chosen by measurement on earlier windows of many shops (docs/experiments.md)."""
    return [
        OwnPurchases(ties="popular", fill=True, proposes=False),
        OwnPurchases("decay", half_life="auto"),
        TifuKNN(neighbours=100, alpha=0.5),
        Popularity(),
        ItemItem("tfidf", half_life=180, neighbours=30),
        ALS(factors=32, iterations=5),
        ItemItem(within="next_receipt", profile="last_receipt", neighbours=100),
    ]


def candidate_numbers(
    sources: Sequence[CandidateGenerator], given: int | Sequence[int] | None = None
) -> list[int]:
    """Candidates taken of each source; by default most of what was bought before.

    Parameters
    ----------
    given : one number, or one for each source that proposes; sources that do not may be left out

    Examples
    --------
    >>> sources = [OwnPurchases(proposes=False), OwnPurchases("decay"), Popularity()]
    >>> candidate_numbers(sources), candidate_numbers(sources, 20), candidate_numbers(sources, [30, 10])
    ([0, 150, 40], [0, 20, 20], [0, 30, 10])
    """
    proposes = [not isinstance(s, OwnPurchases) or s.proposes for s in sources]
    if given is None:
        given = [_n_candidates(s) for s, does in zip(sources, proposes, strict=True) if does]
    if isinstance(given, int | np.integer):
        return [int(given) * does for does in proposes]
    if len(given) != sum(proposes):
        return list(given)  # one for each source, if it fits
    left = iter(given)
    return [next(left) if does else 0 for does in proposes]


def _n_candidates(source: CandidateGenerator) -> int:
    if isinstance(source, OwnPurchases):
        return 150
    return 60 if isinstance(source, ItemItem) and source.within == "shopper" else 40


def default_preranker() -> Ranker:
    """The ranker that cuts the pool: quick, since it sees all of it."""
    return CatBoostRanker(iterations=70, depth=5, learning_rate=0.2)


def discovery_ranker(n_rows: int) -> Ranker:
    """The ranker of new items for so many training rows: few coarse trees with log loss.

    First purchases are rare and say little about one user, so what is learnt is learnt across
    users, and a leaf holds half a percent of the rows, 20 to 1,000.

    Examples
    --------
    >>> discovery_ranker(40_000).min_rows
    200
    """
    least = min(max(n_rows // 200, 20), 1000)
    return LightGBMRanker("binary", iterations=80, leaves=15, learning_rate=0.12, min_rows=least)


@dataclass
class StageOne:
    """Fitted sources and features, and the pre-ranker that cuts the pool.

    Attributes
    ----------
    sources : fitted generators
    features : fitted features
    n_candidates : taken from each source, one number or one a source
    preranker : orders the pool by its scores, ranks and item features; None takes the pool as it is
    pool_size : pairs a user that go on to ranking
    purpose : what the list is for, which decides what the pool may hold
    after_days : an item counts as new to a user so many days after the last purchase; None: never
    """

    sources: Sequence[CandidateGenerator]
    features: FeatureSet
    n_candidates: int | Sequence[int]
    preranker: Ranker | None = None
    pool_size: int = 200
    purpose: Purpose = "mixed"
    after_days: float | None = None

    @property
    def column_names(self) -> list[str]:
        """Names of the columns of a candidate frame."""
        names = [s.name for s in self.sources]
        scores = [f"source_{n}_score" for n in names]
        more = [f"source_{s.name}_{name}" for s in self.sources for name in s.more]
        return scores + [f"source_{n}_rank" for n in names] + more + self.features.names

    def pool(self, history: History, among: Pairs | None = None) -> Pool:
        """The merged pool, cut to `pool_size` pairs a user if there is a pre-ranker.

        To *discover*, each source is asked for items that are new to the user and no others. To
        *replenish*, those pairs of the usual pool that the user bought go on, with the ranks that
        they have there.

        Of `among`, all pairs that are of the purpose and no others, ranked by their places in the whole
        pool.
        """
        without = owned_pairs(history, self.after_days) if self.purpose == "discover" else None
        pool = merge_pool(self.sources, history, self.n_candidates, without)
        if among is not None:
            wanted = for_purpose(among, history, self.purpose, self.after_days)
            return place_in_pool(self.sources, history, wanted, pool)
        if self.purpose == "replenish":
            pool = pool.keep(allowed_for(pool.pairs, history, self.purpose, self.after_days))
        if self.preranker is None:
            return pool
        score = self.preranker.predict(self.preranker_columns(pool))
        return pool.keep(best_in_rows(pool.indptr, score, self.pool_size))

    def preranker_columns(self, pool: Pool) -> NDArray[np.float32]:
        """(n_pairs, n_columns) what the pre-ranker sees: cheap to have for the whole pool."""
        n, table = len(pool.sources), self.features.items_
        x = np.empty((len(pool.items), 2 * n + table.shape[1]), np.float32, order="F")
        x[:, :n], x[:, n : 2 * n] = pool.scores, pool.ranks
        gather(table, pool.items, x, 2 * n)
        return x

    def new_items(self, days: float, most: int) -> NDArray[np.int32]:
        """(n,) codes, ascending, of items first sold in the last `days` before `fit`'s end.

        Those that a prefilter hides are left out; of more than `most` those with most buyers are kept.

        Raises
        ------
        SettingError
            If the features that tell were dropped.
        """
        names = self.features.item_names
        if missing := [name for name in ("item_age", "item_buyers") if name not in names]:
            raise SettingError(
                f"recommend: fresh items are found by the feature {missing[0]}, which this model was "
                f"fitted without. Fit one with it."
            )
        age, buyers = (self.features.items_[:, names.index(n)] for n in ("item_age", "item_buyers"))
        new = np.flatnonzero(self.sources[0].allowed_ & (age <= days))
        return np.sort(new[np.argsort(-buyers[new], kind="stable")][:most]).astype(np.int32)

    @property
    def preranker_names(self) -> list[str]:
        """Names of the pre-ranker's columns."""
        n = 2 * len(self.sources)
        return self.column_names[:n] + self.features.item_names


Keep = Callable[[Pool], NDArray[np.bool_]]


@dataclass(frozen=True)
class CandidateFrame:
    """Candidate rows and their features.

    Attributes
    ----------
    pool : the pairs, with scores and ranks of the sources
    x : (n_pairs, n_columns) float32, column by column in memory, missing values NaN
    names : column names of `x`
    """

    pool: Pool
    x: NDArray[np.float32]
    names: list[str]

    def rows_of(
        self, shoppers: NDArray[np.integer], items: NDArray[np.integer], n_items: int
    ) -> NDArray[np.float32]:
        """(n, n_columns) the rows of some pairs of the pool."""
        keys = pair_keys(self.pool.user_of_pair, self.pool.items, n_items)
        return self.x[np.searchsorted(keys, pair_keys(shoppers, items, n_items))]


def candidate_frame(
    history: History,
    stage: StageOne,
    keep: Keep | None = None,
    among: Pairs | None = None,
    beside: NDArray[np.int32] | None = None,
) -> CandidateFrame:
    """Pool the sources' proposals for each history, cut the pool, and compute every column.

    Columns: each source's score and rank, what sources tell beside, then the features. Training and
    serving both come through here. `keep` thins the cut pool (a training sample); scores and ranks are
    those of the whole one. `among` are the only pairs wanted: all of them become rows, whether a source
    proposes them or not, with the columns that they have or would have in the pool. `beside` are codes
    of items that become rows of each user likewise, beside the pool.
    """
    pool = stage.pool(history, among)
    if beside is not None:
        pool = with_items(stage.sources, history, pool, beside, len(stage.features.items_))
        pool = pool.keep(allowed_for(pool.pairs, history, stage.purpose, stage.after_days))
    if keep is not None:
        pool = pool.keep(keep(pool))
    n, m = len(pool.sources), 2 * len(pool.sources) + pool.more.shape[1]
    shape = (len(pool.items), m + len(stage.features.names))
    x = np.empty(shape, np.float32, order="F")  # filled, and read by the rankers, by column
    x[:, :n], x[:, n : 2 * n], x[:, 2 * n : m] = pool.scores, pool.ranks, pool.more
    stage.features.rows(history, pool.pairs, out=x[:, m:])
    return CandidateFrame(pool, x, stage.column_names)


class Labels:
    """What was bought in a label window: the one place where candidate rows get their label."""

    def __init__(self, target: pl.DataFrame, n_items: int) -> None:
        bought = target.select("user", "item").unique()
        keys = pair_keys(bought["user"].to_numpy(), bought["item"].to_numpy(), n_items)
        self._keys, self._n_items = np.sort(keys), n_items

    def of(self, pool: Pool, users: NDArray[np.integer]) -> NDArray[np.bool_]:
        """(n_pairs,) was the pair bought? `users` are the codes of the pool's rows."""
        wanted = pair_keys(np.asarray(users)[pool.user_of_pair], pool.items, self._n_items)
        place = np.minimum(np.searchsorted(self._keys, wanted), max(len(self._keys) - 1, 0))
        return self._keys[place] == wanted if len(self._keys) else np.zeros(len(wanted), np.bool_)

    def n_bought(self, users: NDArray[np.integer]) -> int:
        """Pairs that these users bought."""
        return int(np.isin(pairs_of_keys(self._keys, self._n_items)[0], users).sum())

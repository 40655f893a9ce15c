"""The one path: histories to the rows that a ranker is trained on and the rows that it scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates.base import CandidateGenerator
from retailrec.features.assemble import FeatureSet
from retailrec.history import History
from retailrec.pool import Pool, merge_pool

Keep = Callable[[Pool], NDArray[np.bool_]]


@dataclass(frozen=True)
class CandidateFrame:
    """Candidate rows and their features.

    Attributes
    ----------
    pool : the pairs, with scores and ranks of the sources
    x : (n_pairs, n_columns) float32, missing values NaN
    names : column names of `x`
    """

    pool: Pool
    x: NDArray[np.float32]
    names: list[str]


def candidate_frame(
    history: History, sources: Sequence[CandidateGenerator], features: FeatureSet,
    k: int | Sequence[int], keep: Keep | None = None,
) -> CandidateFrame:  # fmt: skip
    """Pool the sources' proposals for each history and compute every column.

    Columns: each source's score and rank, then `features`. Training and serving both come through
    here. `keep` thins the pool (a training sample) after scores and ranks are known.
    """
    pool = merge_pool(sources, history, k)
    if keep is not None:
        pool = pool.keep(keep(pool))
    n = len(pool.sources)
    x = np.empty((len(pool.items), 2 * n + len(features.names)), np.float32)
    x[:, :n], x[:, n : 2 * n] = pool.scores, pool.ranks
    x[:, 2 * n :] = features.rows(history, pool.pairs)
    return CandidateFrame(pool, x, column_names(pool.sources, features))


def column_names(sources: Sequence[str], features: FeatureSet) -> list[str]:
    """Names of the columns of a candidate frame."""
    scores = [f"source_{s}_score" for s in sources]
    return scores + [f"source_{s}_rank" for s in sources] + features.names


def label_pairs(
    pool: Pool, target: pl.DataFrame, users: NDArray[np.integer], n_items: int
) -> NDArray[np.bool_]:
    """(n_pairs,) was the pair bought in the target? `users` are the codes of the history rows."""
    bought = target.select("user", "item").unique()
    keys = bought["user"].to_numpy().astype(np.int64) * n_items + bought["item"].to_numpy()
    pairs = np.asarray(users, np.int64)[pool.user_of_pair] * n_items + pool.items
    return np.isin(pairs, keys)

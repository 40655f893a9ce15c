"""What a ranker has learnt: which columns matter, how one of them acts, whether probabilities hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.pairs import pair_keys
from retailrec.compute.topk import topk_rows
from retailrec.data.splits import Split
from retailrec.errors import SettingError
from retailrec.metrics.ranking import ndcg
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.recommender.two_stage import TwoStageRecommender

_LEAST_GAIN = 1e-3  # share of the trees' gain under which shuffling a column is not worth the time


def importances(
    ranker: Ranker,
    frame: TrainingFrame,
    families: Mapping[str, str],
    *,
    shoppers: int = 500,
    seed: int = 0,
) -> pl.DataFrame:
    """`column`, `family`, `gain`, `permutation` of every column, the most useful first.

    `gain` is the share of the trees' gain. `permutation` is what NDCG@10 over the shoppers' labelled
    rows loses when the column is shuffled over all rows (Breiman, 2001), or 0, untried, for a column
    with under a thousandth of the gain: give rows that the ranker was not trained on. At most so many
    `shoppers` with a purchase are taken.

    Examples
    --------
    >>> from retailrec.rankers import LightGBMRanker
    >>> x = np.random.default_rng(0).random((400, 2)).astype(np.float32)
    >>> y = (x[:, 1] > 0.7).astype(np.float32)
    >>> groups = np.repeat(np.arange(20), 20)
    >>> rows = TrainingFrame(x, y, groups, np.ones(400), np.zeros(400), ["a", "b"])
    >>> found = importances(LightGBMRanker(min_rows=5, column_share=1).fit(rows), rows, {})
    >>> found["column"][0], found["permutation"][0] > 0.2
    ('b', True)
    """
    rng = np.random.default_rng(seed)
    buyers = np.unique(frame.groups[frame.y > 0])
    if len(buyers) > shoppers:
        buyers = rng.choice(buyers, shoppers, replace=False)
    rows = frame.rows(np.isin(frame.groups, buyers))
    whole = _ndcg(ranker, rows.x, rows)
    gain, lost = ranker.importances(), []
    for column in range(len(rows.names)):
        if gain[column] < _LEAST_GAIN:
            lost.append(0.0)
            continue
        x = rows.x.copy()
        x[:, column] = rng.permutation(x[:, column])
        lost.append(whole - _ndcg(ranker, x, rows))
    return pl.DataFrame(
        {
            "column": list(rows.names),
            "family": [families.get(n, "source") for n in rows.names],
            "gain": gain,
            "permutation": lost,
        }
    ).sort("permutation", "gain", descending=True)


def by_family(table: pl.DataFrame) -> pl.DataFrame:
    """`importances` added up over the columns of a family."""
    sums = table.group_by("family").agg(pl.len().alias("columns"), pl.col("gain", "permutation").sum())
    return sums.sort("permutation", descending=True)


def partial_dependence(
    ranker: Ranker,
    frame: TrainingFrame,
    column: str,
    *,
    points: int = 20,
    rows: int = 5000,
    seed: int = 0,
) -> pl.DataFrame:
    """`value`, `score`: the mean score if the column had this value in every row (Friedman, 2001).

    The values are quantiles of those present.

    Raises
    ------
    SettingError
        If there is no such column, or it is never known.
    """
    if column not in frame.names:
        raise SettingError(f"there is no column '{column}'; expected one of {', '.join(frame.names)}.")
    at = list(frame.names).index(column)
    present = frame.x[:, at][~np.isnan(frame.x[:, at])]
    if not len(present):
        raise SettingError(f"column '{column}' is missing in every row; there is nothing to vary.")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(frame.y), min(rows, len(frame.y)), replace=False))
    x = frame.x[chosen].copy()
    values = np.unique(np.quantile(present, np.linspace(0.01, 0.99, points)).astype(np.float32))
    scores = []
    for value in values:
        x[:, at] = value
        scores.append(float(ranker.predict(x).mean()))
    return pl.DataFrame({"value": values, "score": scores})


def reliability(
    probability: NDArray[Any], bought: NDArray[np.bool_], *, bins: int = 10
) -> pl.DataFrame:
    """`n`, `predicted`, `observed` for bins of equal size by probability: do probabilities hold?

    Examples
    --------
    >>> p = np.repeat([0.1, 0.5], 10)
    >>> hits = np.r_[np.zeros(9), 1, np.zeros(5), np.ones(5)].astype(bool)
    >>> reliability(p, hits, bins=2).select("predicted", "observed").rows()
    [(0.1, 0.1), (0.5, 0.5)]
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return pl.DataFrame(
        {
            "n": [len(part) for part in parts],
            "predicted": [float(np.mean(probability[part])) for part in parts],
            "observed": [float(np.mean(bought[part])) for part in parts],
        }
    )


def held_out_reliability(
    model: TwoStageRecommender, held_out: Split, *, k: int = 20, bins: int = 10
) -> pl.DataFrame:
    """`reliability` of a calibrated model's `k` best items of every shopper with history.

    All of them, those who buy nothing in the window included: the probabilities are theirs too.

    Raises
    ------
    SettingError
        If the model is not calibrated.
    """
    if model.calibrator_ is None:
        raise SettingError("the model gives no probabilities; fit it with calibrate=True.")
    past, target = held_out
    users = past.active_users().astype(np.int64)
    best = model.recommend_codes(past.history(codes=users), k)
    bought = pair_keys(target["user"].to_numpy(), target["item"].to_numpy(), past.n_items)
    hits = np.isin(pair_keys(users[:, None], best.items, past.n_items), bought)
    there = best.items >= 0
    return reliability(model.calibrator_.predict(best.scores[there]), hits[there], bins=bins)


def _ndcg(ranker: Ranker, x: NDArray[np.float32], rows: TrainingFrame) -> float:
    """Mean NDCG@10 of the groups by the ranker's scores."""
    _, group = np.unique(rows.groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    sizes = np.bincount(group)
    indptr = np.append(0, np.cumsum(sizes)).astype(np.int64)
    place = np.arange(len(order), dtype=np.int32)
    best = topk_rows(indptr, place, ranker.predict(x[order]), 10)[0]
    hits = (rows.y[order][best] > 0) & (best >= 0)
    return float(np.mean(ndcg(hits, np.bincount(group, rows.y).astype(np.int64))))

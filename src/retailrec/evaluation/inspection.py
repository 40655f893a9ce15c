"""What a ranker has learnt (columns, their effect, probabilities), and whether rows know the future.

`check_leaks` builds the newest label window again and again from receipts whose unknown part, all
that the window's past does not hold and all in its target, is deleted, shuffled or replaced.
Labels must move then, and nothing else may: no column, and not which items are proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import Count, Seed, checked
from retailrec.compute.csr import pair_keys
from retailrec.compute.progress import Progress, silent
from retailrec.compute.topk import topk_rows
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits, Split
from retailrec.errors import DataError, SettingError
from retailrec.features.assemble import ENCODED
from retailrec.metrics.ranking import ndcg
from retailrec.rankers import Ranker, TrainingFrame
from retailrec.recommender.two_stage import TwoStageRecommender

PROPOSALS = "(which items are proposed)"


@dataclass(frozen=True)
class Leak:
    """A column that moved.

    Attributes
    ----------
    column : its name, or `PROPOSALS` when the rows themselves changed
    change : what was done to the receipts after the cutoff
    rows : share of the rows in which it moved
    most : largest absolute difference
    """

    column: str
    change: str
    rows: float
    most: float


@dataclass(frozen=True)
class LeakReport:
    """What `check_leaks` found.

    Attributes
    ----------
    leaks : columns that moved; empty when all is well
    columns, rows : how much was compared
    labels_moved : share of the labels that moved, by change; none at all would make the check empty
    undated : columns of attributes, whose tables hold no times: no change of receipts moves them
    """

    leaks: list[Leak]
    columns: int
    rows: int
    labels_moved: dict[str, float]
    undated: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the check can't tell."""
        if not self.undated:
            return []
        some = ", ".join(self.undated[:5]) + ", ..." * (len(self.undated) > 5)
        return [
            f"{len(self.undated)} columns are attributes from tables that hold no times ({some}): "
            f"whether they were known before the window is not checked; leave out of the tables what "
            f"was learnt later, such as totals, last visits, or who left"
        ]


@checked
def check_leaks(
    data: RetailData,
    build: Callable[[RetailData], TwoStageRecommender] = lambda data: TwoStageRecommender(),
    *,
    max_users: Count = 2000,
    seed: Seed = 0,
    progress: Progress = silent,
) -> LeakReport:
    """Compare the training rows of the newest label window with those from changed futures.

    Parameters
    ----------
    build : makes the recommender that is checked, from the receipts as they are given to it; called
        anew for every change, so that whatever it takes from them is changed too
    max_users : shoppers that are compared

    Raises
    ------
    DataError
        If the data is too short, or no label moved, so that nothing was checked.

    Examples
    --------
    >>> from retailrec.simulator.shop import small_data
    >>> check_leaks(small_data(users=40)).leaks
    []
    """
    progress("training rows as they are")
    frame = _newest_rows(build(data), data, max_users)
    leaks: list[Leak] = []
    moved: dict[str, float] = {}
    for change, other in _changed(data, build(data), seed):
        progress(f"training rows after the future was {change}")
        again = _newest_rows(build(other), other, max_users)
        if again.x.shape != frame.x.shape or not np.array_equal(again.groups, frame.groups):
            leaks.append(Leak(PROPOSALS, change, 1.0, float("nan")))
            continue
        leaks += _moved_columns(frame, again, change)
        moved[change] = float(np.mean(frame.y != again.y))
    if not leaks and not any(moved.values()):
        raise DataError(
            "no label moved when the future was changed, so nothing was checked; give data in which "
            "candidates are bought in the newest label window."
        )
    undated = [n for n in frame.names if n.startswith(("user_attribute_", "item_attribute_"))]
    undated = [n for n in undated if n.removeprefix("item_attribute_") not in ENCODED]
    return LeakReport(leaks, len(frame.names), len(frame.y), moved, undated)


def _newest_rows(model: TwoStageRecommender, data: RetailData, max_users: int) -> TrainingFrame:
    """All rows of the newest label window, thinned by nothing that looks at labels."""
    if isinstance(model.label_splits, HorizonSplits):  # one window for the pre-ranker, one to check
        model.label_splits = replace(model.label_splits, n=2)
    if len(list(model.learning_splits.splits(data))) == 1:
        model.preranker = None
    model.negatives, model.idle_users, model.max_users = 1.0, 1.0, max_users
    frame = model.training_frame(data)
    return frame.rows(frame.fold == frame.fold.max())


def _changed(
    data: RetailData, model: TwoStageRecommender, seed: int
) -> Iterator[tuple[str, RetailData]]:
    """The data with what the newest label window must not know changed in one way or another."""
    split = list(model.learning_splits.splits(data))[-1]
    unknown = _unknown(data, split)
    rng = np.random.default_rng(seed)
    if isinstance(model.label_splits, HorizonSplits):  # else the windows themselves would move
        yield "deleted", replace(data, log=data.log.filter(pl.Series(~unknown)))
    places = np.flatnonzero(unknown)
    source = np.arange(data.log.height)
    source[places] = rng.permutation(places)
    what = data.log.select("item", "quantity", "value")
    yield "shuffled", _with_columns(data, what[source], unknown)
    n = data.log.height
    random = pl.DataFrame(
        {
            "item": rng.integers(0, data.n_items, n).astype(np.int32),
            "quantity": 1.0 + rng.integers(0, 9, n),
            "value": 1000.0 * rng.random(n),
        }
    )
    yield "replaced", _with_columns(data, random, unknown)


def _unknown(data: RetailData, split: Split) -> NDArray[np.bool_]:
    """(n_lines,) lines that the split's past does not hold, and those of its target."""
    past, target = (part["basket"].unique().implode() for part in (split.past.log, split.target))
    basket = pl.col("basket")
    return data.log.select(~basket.is_in(past) | basket.is_in(target)).to_series().to_numpy()


def _with_columns(data: RetailData, new: pl.DataFrame, where: NDArray[np.bool_]) -> RetailData:
    mask = pl.Series(where)
    log = data.log.with_columns(
        pl.when(mask).then(new[c]).otherwise(pl.col(c)).alias(c) for c in new.columns
    )
    log = log.unique(["basket", "item"], keep="first", maintain_order=True)  # one row an item
    return replace(data, log=log.sort("user", "time", "basket", "item", maintain_order=True))


def _moved_columns(frame: TrainingFrame, again: TrainingFrame, change: str) -> Iterator[Leak]:
    for column, name in enumerate(frame.names):
        a, b = frame.x[:, column], again.x[:, column]
        different = ~((a == b) | (np.isnan(a) & np.isnan(b)))
        if different.any():
            gap = np.abs(a[different].astype(np.float64) - b[different])
            most = float(np.nanmax(gap)) if not np.isnan(gap).all() else float("nan")
            yield Leak(name, change, float(different.mean()), most)


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
    rows = _of_buyers(frame, shoppers, rng)
    x = np.array(rows.x, order="F")  # rankers read by column
    whole = _ndcg(ranker, x, rows)
    gain, lost = ranker.importances(), []
    for column in range(len(rows.names)):
        if gain[column] < _LEAST_GAIN:
            lost.append(0.0)
            continue
        kept = x[:, column].copy()
        x[:, column] = rng.permutation(kept)
        lost.append(whole - _ndcg(ranker, x, rows))
        x[:, column] = kept
    return pl.DataFrame(
        {
            "column": list(rows.names),
            "family": [families.get(n, "source") for n in rows.names],
            "gain": gain,
            "permutation": lost,
        }
    ).sort("permutation", "gain", descending=True)


def ndcg_by_trees(
    ranker: Ranker, frame: TrainingFrame, *, shoppers: int = 500, points: int = 10, seed: int = 0
) -> list[tuple[int, float]]:
    """Numbers of trees, and NDCG@10 over the shoppers' labelled rows of so many of the ranker's first.

    Empty for a ranker without trees. Give rows that it was not trained on; at most so many `shoppers`
    with a purchase are taken.
    """
    if not ranker.n_trees:
        return []
    rows = _of_buyers(frame, shoppers, np.random.default_rng(seed))
    trees = np.unique(np.linspace(0, ranker.n_trees, points + 1).round().astype(int))[1:].tolist()
    x = np.asfortranarray(rows.x)
    return [(n, _ndcg(ranker.first_trees(n), x, rows)) for n in trees]


def _of_buyers(frame: TrainingFrame, most: int, rng: np.random.Generator) -> TrainingFrame:
    """The rows of at most so many users with a purchase."""
    buyers = np.unique(frame.groups[frame.y > 0])
    if len(buyers) > most:
        buyers = rng.choice(buyers, most, replace=False)
    return frame.rows(np.isin(frame.groups, buyers))


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
    starts = np.flatnonzero(np.diff(rows.groups, prepend=-1))  # rows of a group lie together
    indptr = np.append(starts, len(rows.y)).astype(np.int64)
    place = np.arange(len(rows.y), dtype=np.int32)
    best = topk_rows(indptr, place, ranker.predict(x), 10)[0]
    hits = (rows.y[best] > 0) & (best >= 0)
    return float(np.mean(ndcg(hits, np.add.reduceat(rows.y, starts).astype(np.int64))))

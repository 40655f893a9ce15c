"""Does any column of the training rows know what comes after its cutoff?

The newest label window is built again and again from receipts whose unknown part, everything that the
window's past does not hold and everything in its target, is deleted, shuffled or replaced. Labels must
move then, and nothing else may: no column, and not which items are proposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import HorizonSplits, Split
from retailrec.errors import DataError
from retailrec.rankers import TrainingFrame
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
    """

    leaks: list[Leak]
    columns: int
    rows: int
    labels_moved: dict[str, float]


def check_leaks(
    data: RetailData,
    build: Callable[[RetailData], TwoStageRecommender] = lambda data: TwoStageRecommender(),
    *,
    max_users: int = 2000,
    seed: int = 0,
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
    return LeakReport(leaks, len(frame.names), len(frame.y), moved)


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

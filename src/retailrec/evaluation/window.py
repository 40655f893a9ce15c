"""A window to judge models on: who is judged, in which groups, and what a model's lists are worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator
from retailrec.compute.shards import map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.evaluation.judge import Judge
from retailrec.evaluation.segments import segments
from retailrec.metrics import parse_metric
from retailrec.metrics.base import Values
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import USER_ID

Items = NDArray[np.int32]
Lists = Callable[[NDArray[np.int64], int], Items]
ModelFunction = Callable[[RetailData, NDArray[np.int64], int], Items]
Model = TwoStageRecommender | CandidateGenerator | ModelFunction


class Window(Protocol):
    """Judges models by what was bought in a window."""

    @property
    def users(self) -> pl.Series:
        """Ids of the judged shoppers, ascending."""

    @property
    def groups(self) -> Mapping[str, pl.Series]:
        """Segment -> (n_users,) group of each; see `segments`."""

    def values(self, model: Any, metrics: Sequence[str]) -> dict[str, Values]:
        """Metric -> (n_users,) values of the lists of a fitted model; (1,) of lists together."""

    def close(self) -> None:
        """Nobody asks again."""


MakeWindow = Callable[[Split, datetime], Window]  # a split, prefilters applied, and the window's end


@dataclass(frozen=True)
class LocalWindow:
    """A window on this machine."""

    past: RetailData
    judge: Judge

    @classmethod
    def of(cls, split: Split, end: datetime) -> LocalWindow:
        """Of shoppers who bought in the window and have history.

        Raises
        ------
        DataError
            If there is none.
        """
        return cls(split.past, Judge.of(*split))

    @property
    def users(self) -> pl.Series:
        """Ids of the judged shoppers, ascending."""
        return self.past.users[USER_ID].gather(self.judge.users)

    @property
    def groups(self) -> Mapping[str, pl.Series]:
        """Segment -> (n_users,) group of each."""
        return segments(self.past, self.judge.users)

    def values(self, model: Any, metrics: Sequence[str]) -> dict[str, Values]:
        """Metric -> (n_users,) values of the lists of a fitted model; (1,) of lists together."""
        lists = lists_of(model, self.past)(self.judge.users, longest(metrics))
        return self.judge.per_user(lists, metrics)

    def close(self) -> None:
        """Nothing is held."""


def longest(metrics: Sequence[str]) -> int:
    """The longest list that one of the metrics looks at."""
    return max(parse_metric(m)[1] for m in metrics)


def fitted(model: Model, past: RetailData) -> Lists:
    """Fit a copy of the model; the answer gives (n_users, k) item codes for codes of shoppers."""
    return lists_of(fitted_copy(model, past), past)


def fitted_copy(model: Model, past: RetailData) -> Model:
    """A copy of the model that has learnt from `past`; a function is taken as it is."""
    if isinstance(model, TwoStageRecommender | CandidateGenerator):
        return replace(model).fit(past)
    return model


def lists_of(model: Model, past: RetailData) -> Lists:
    """What gives the lists of a fitted model for codes of shoppers, whose receipts `past` holds."""
    if isinstance(model, TwoStageRecommender):
        return lambda users, k: model.recommend_codes(past.history(codes=users), k).items
    if isinstance(model, CandidateGenerator):

        def lists(users: NDArray[np.int64], k: int) -> Items:
            history = past.history(codes=users)
            parts = map_shards(
                lambda rows: model.candidates(history.take(rows), k).items,
                len(users),
                threads=n_threads(0),
            )
            return np.vstack([np.zeros((0, k), np.int32), *parts])

        return lists
    return lambda users, k: model(past, users, k)

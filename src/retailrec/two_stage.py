"""The whole recommender: sources, pool, features, ranker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.artifact import load_artifact, save_artifact
from retailrec.candidates import (
    ALS,
    GENERATORS,
    UPCF,
    CandidateGenerator,
    Candidates,
    ItemItem,
    OwnPurchases,
    Popularity,
    TifuKNN,
)
from retailrec.columns import ITEM_ID, USER_ID
from retailrec.data import Histories, RetailData
from retailrec.engine.local import map_shards, n_threads, release_memory
from retailrec.errors import ArtifactError, DataError, NotFittedError, SettingError
from retailrec.evaluation import unit_prices
from retailrec.features.assemble import FeatureSet
from retailrec.frames import CandidateFrame, StageOne, candidate_frame
from retailrec.history import History
from retailrec.prefilters import PREFILTERS, Prefilter, apply, preset
from retailrec.rankers import RANKERS, CatBoostRanker, LightGBMRanker, Ranker, TrainingFrame
from retailrec.rankers.calibration import Calibrator
from retailrec.reasons import reasons
from retailrec.rules import BoundRules, Rules
from retailrec.splits import HorizonSplits, LabelSplits, NextBasketSplits, Split
from retailrec.training import Sampling, Window, Windows, light_rows, window_rows

Progress = Callable[[str], None]


def default_sources() -> list[CandidateGenerator]:
    """The sources chosen by measurement on earlier windows (docs/experiments.md)."""
    return [
        OwnPurchases("due"),
        Popularity(),
        Popularity(kind="last_year"),
        ItemItem("tfidf", half_life=180),
        ItemItem("tfidf", within="receipt"),
        ItemItem("tfidf", within="receipt", profile="last_receipt"),
        ItemItem(within="next_receipt", profile="last_receipt", neighbours=100),
        ALS(),
        TifuKNN(neighbours=100, alpha=0.5),
        UPCF(),
    ]


def light_ranker() -> Ranker:
    """The ranker that cuts the pool: quick, since it sees all of it."""
    return CatBoostRanker(iterations=70, depth=5, learning_rate=0.2)


@dataclass
class TwoStageRecommender:
    """Sources propose, a ranker orders.

    Parameters
    ----------
    sources : generators; they are fitted anew for each label window
    ranker : anything that keeps the `Ranker` protocol
    prefilters : which items may be recommended
    label_splits : where the ranker's labels come from, always within the data given to `fit`
    k : candidates taken from each source, one number or one a source
    preranker : light ranker that cuts the pool to `pool_size` pairs a shopper; None ranks them all
    negatives : share of the candidates that were not bought that are trained on; each then weighs
        1 / share, so probabilities stay what they are
    idle_users : share of the shoppers who bought nothing in the label window that are trained on;
        their rows weigh 1 / share more
    max_users : shoppers sampled per label window
    refit : ``each``: sources and features are fitted before every label window; ``once``: before
        the oldest that is computed only, with fresh histories for each
    early_stopping : learn the number of trees on the newest label window, then train on all windows;
        without it the ranker's own number is taken
    calibrate : learn to turn scores into probabilities on the newest label window, with a ranker
        trained on the others; `recommend` then gives a column `probability`
    seed, threads : for everything inside; 0 threads are all cores

    Examples
    --------
    >>> from retailrec.datasets.simulate import small_data
    >>> data = small_data(users=60)
    >>> model = TwoStageRecommender(ranker=CatBoostRanker(iterations=20)).fit(data)
    >>> model.recommend(data.history([0, 1]), k=2).columns
    ['user_id', 'item_id', 'score', 'rank']
    """

    sources: list[CandidateGenerator] = field(default_factory=default_sources)
    ranker: Ranker = field(default_factory=LightGBMRanker)
    prefilters: Sequence[Prefilter] = field(default_factory=lambda: preset("default"))
    label_splits: LabelSplits = field(default_factory=HorizonSplits)
    features: FeatureSet = field(default_factory=FeatureSet)
    k: int | Sequence[int] = 150
    preranker: Ranker | None = field(default_factory=light_ranker)
    pool_size: int = 200
    negatives: float = 0.2
    idle_users: float = 0.07
    max_users: int = 20_000
    refit: str = "each"
    early_stopping: bool = False
    calibrate: bool = False
    seed: int = 0
    threads: int = 0
    _windows: Windows | None = field(init=False, repr=False, compare=False, default=None)
    preranker_: Ranker | None = field(init=False, repr=False, compare=False, default=None)
    items_: pl.DataFrame = field(init=False, repr=False, compare=False)
    calibrator_: Calibrator | None = field(init=False, repr=False, compare=False, default=None)
    prices_: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    end_: datetime = field(init=False, repr=False, compare=False)
    report_: dict[str, Any] = field(init=False, repr=False, compare=False)
    rules_report: dict[str, dict[str, int]] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        _ = self.sampling  # checks its settings
        if self.refit not in ("each", "once"):
            raise SettingError(f"refit must be 'each' or 'once', not '{self.refit}'.")

    def fit(
        self, data: RetailData, progress: Progress = lambda step: None, *,
        earlier: TwoStageRecommender | None = None, keep_rows: bool = False,
    ) -> Self:  # fmt: skip
        """Learn from everything before `data.end`.

        `earlier` is a recommender with the same settings that was fitted on `data.asof(t)` with
        `keep_rows`: its pre-ranker and label windows are taken over, and only newer windows are
        computed. `keep_rows` keeps `training_rows`.

        Raises
        ------
        DataError
            If the data is too short for a label window, or prefilters leave nothing.
        """
        frame = self.training_frame(data, progress, earlier=earlier)
        progress("ranker")
        started = perf_counter()
        self._fit_ranker(frame)
        del frame
        if not keep_rows:
            self._windows = None
        release_memory()
        self._took("ranker", started)
        started = perf_counter()
        self.fit_stage_one(data, progress)
        self.items_, self.prices_, self.end_ = data.items, unit_prices(data), data.end
        self._took("stage one on all data", started)
        return self

    def training_frame(
        self, data: RetailData, progress: Progress = lambda step: None, *,
        earlier: TwoStageRecommender | None = None,
    ) -> TrainingFrame:  # fmt: skip
        """The rows the ranker learns from: candidates of earlier label windows, labelled.

        The oldest window trains the pre-ranker and nothing else, if there are others.

        Raises
        ------
        DataError
            If the data is too short, or nobody with history bought within a label window.
        """
        started = perf_counter()
        self.report_ = {"windows": [], "seconds": {}}
        known = None if earlier is None else earlier._windows
        self.preranker_ = None if earlier is None or known is None else earlier.preranker_
        found: list[Window] = []
        alone: tuple[Any, Split] | None = None  # trained the pre-ranker, and none came after it
        number, ready = -1, False
        for split in self.label_splits.splits(data):
            number += 1
            progress(f"label window {number + 1}")
            key = (split.past.end, split.past.log.height, split.target.height)
            if known is not None and key in known.places:
                found.append(known.window(key, number))
            else:
                split = split._replace(past=apply(self.prefilters, split.past)[0])
                if self.refit == "each" or not ready:
                    self._fit_stage_one(split.past)
                    ready = True
                if self.preranker is not None and self.preranker_ is None:
                    self._fit_preranker(split)
                    alone = key, split
                else:
                    found.append(self._window(key, split, number))
                    alone = None
            del split  # its receipts go before those of the next window are cut out
        if not found and alone is not None:
            found.append(self._window(*alone, number))
        self._took("training rows", started)
        if not any(window.frames for window in found):
            raise DataError(
                "nobody with receipts before a label window bought anything within it, so there is "
                "nothing to learn from; bring more data or ask for a longer horizon."
            )
        self.report_["windows"] = [window.facts for window in found]
        self._windows = Windows.of(found)
        release_memory()
        return self._windows.rows

    def fit_matching(self, data: RetailData, progress: Progress = lambda step: None) -> Self:
        """Fit the sources and the pre-ranker, but no ranker: enough for `matching_report`.

        The pre-ranker learns from the newest label window.
        """
        self.report_ = {"windows": [], "seconds": {}}
        if self.preranker is not None:
            split = list(self.label_splits.splits(data))[-1]
            split = split._replace(past=apply(self.prefilters, split.past)[0])
            self._fit_stage_one(split.past, progress)
            self._fit_preranker(split)
        self.fit_stage_one(data, progress)
        return self

    def fit_stage_one(self, data: RetailData, progress: Progress = lambda step: None) -> Self:
        """Fit prefilters, sources and features alone: enough for `candidate_frame`."""
        filtered, self.report_["prefilters"] = apply(self.prefilters, data)
        self._fit_stage_one(filtered, progress)
        return self

    def recommend(
        self, history: History | Histories, k: int = 10, rules: Rules | None = None
    ) -> pl.DataFrame:
        """`user_id`, `item_id`, `score`, `rank` of each shopper's `k` best items.

        `data.history(users)` has the histories in memory; of `data.histories(users)` each shard's are
        built as it is answered, which suits many shoppers. An empty history gets popular items.
        `score` is a probability of purchase within the horizon when the ranker's objective is one. What
        `rules` did is in `rules_report` afterwards.

        Raises
        ------
        SettingError
            If `k` < 1.
        NotFittedError
            Before `fit`.
        """
        return self._named(history, self.recommend_codes(history, k, rules))

    def _named(self, history: History | Histories, best: Candidates) -> pl.DataFrame:
        """Recommended codes in the caller's ids."""
        row, rank = np.nonzero(best.items >= 0)
        score = best.scores[row, rank]
        frame = pl.DataFrame(
            {
                USER_ID: history.users[USER_ID].gather(row),
                ITEM_ID: self.items_[ITEM_ID].gather(best.items[row, rank]),
                "score": score,
                "rank": (rank + 1).astype(np.int32),
            }
        )
        if self.calibrator_ is None:
            return frame
        return frame.with_columns(probability=pl.Series(self.calibrator_.predict(score)))

    def recommend_codes(
        self, history: History | Histories, k: int, rules: Rules | None = None
    ) -> Candidates:
        """As `recommend`, in item codes: (n_users, k) arrays, -1 where there is no item."""
        if not hasattr(self, "items_"):
            raise NotFittedError("TwoStageRecommender has not seen any data; call fit(data) first.")
        if k < 1:
            raise SettingError(f"recommend: k must be at least 1, not {k}.")
        if not len(history):
            return Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))

        bound = None if rules is None else BoundRules(rules, self.items_, self.prices_, history.end)

        def shard(rows: slice) -> Candidates:
            part = history.take(rows)
            frame = self.candidate_frame(part)
            score = self.ranker.predict(frame.x)
            if bound is None:
                return frame.pool.best(score, k)
            probable = self.ranker.gives_probability
            if bound.rules.margin is not None and self.calibrator_ is not None:
                score, probable = self.calibrator_.predict(score), True
            return bound.choose(part, frame.pool.pairs, score, k, probable)

        parts = list(map_shards(shard, len(history), threads=n_threads(self.threads)))
        self.rules_report = {} if bound is None else bound.effects
        return Candidates(*(np.vstack(p) for p in zip(*parts, strict=True)))

    def explain(
        self, history: History | Histories, k: int = 10, rules: Rules | None = None
    ) -> pl.DataFrame:
        """As `recommend`, with a column `reasons`: up to three, in words, the strongest first.

        The reasons are those themes (habit, due, goes with, alike, popular, category, price) whose
        columns raised the score most by the ranker's SHAP values, with the facts behind them.
        """
        best = self.recommend_codes(history, k, rules)
        names = [c for c in self.items_.columns if c == "name"] or [ITEM_ID]
        labels = self.items_.select(
            pl.coalesce(pl.col(names[0]).cast(pl.String), pl.col(ITEM_ID).cast(pl.String))
        ).to_series().to_list()  # fmt: skip

        def shard(rows: slice) -> list[str]:
            part = history.take(rows)
            frame = self.candidate_frame(part)
            shopper, rank = np.nonzero(best.items[rows] >= 0)
            items = best.items[rows][shopper, rank]
            keys = frame.pool.user_of_pair * part.n_items + frame.pool.items
            x = frame.x[np.searchsorted(keys, shopper * part.n_items + items)]
            why = self.ranker.contributions(x)
            return reasons(x, frame.names, why, shopper, items, part, self.sources, labels)

        texts = [text for part in map_shards(shard, len(history)) for text in part]
        return self._named(history, best).with_columns(pl.Series("reasons", texts, pl.String))

    def candidate_frame(self, history: History) -> CandidateFrame:
        """The rows that the ranker scores for these histories."""
        return candidate_frame(history, self.stage_one)

    @property
    def stage_one(self) -> StageOne:
        """Sources, features and pre-ranker as they are now."""
        return StageOne(self.sources, self.features, self.k, self.preranker_, self.pool_size)

    def coded(self, data: RetailData) -> tuple[RetailData, int]:
        """Fresh data in the model's item codes, and how many events were left out.

        Events of items that the model does not know are. The present is the later of the two ends:
        that of the fresh data and that of the fit.
        """
        found, unknown = data.with_item_codes_of(self.items_)
        return replace(found, end=max(data.end, self.end_)), unknown

    def save(self, folder: str | Path) -> None:
        """Write the fitted model to a folder: see `retailrec.artifact`.

        Raises
        ------
        ArtifactError
            If the folder holds something else, or can't be written.
        """
        if not hasattr(self, "items_"):
            raise NotFittedError("TwoStageRecommender has nothing to save; call fit(data) first.")
        save_artifact(self, folder)

    @classmethod
    def load(cls, folder: str | Path) -> TwoStageRecommender:
        """The model that `save` wrote.

        Raises
        ------
        ArtifactError
            If it is missing, damaged, altered or of a newer format.
        """
        model = load_artifact(folder, _saved_types())
        if not isinstance(model, TwoStageRecommender):
            raise ArtifactError(f"{folder} holds a {type(model).__name__}, no TwoStageRecommender.")
        return model

    @property
    def column_names(self) -> list[str]:
        """Names of the ranker's columns."""
        return self.stage_one.column_names

    def _fit_stage_one(self, data: RetailData, progress: Progress = lambda step: None) -> None:
        self.sources = [replace(source) for source in self.sources]  # what they learnt before goes
        self.features = replace(self.features)
        seconds = self.report_["source_seconds"] = {}
        for source in self.sources:
            progress(f"source {source.name}")
            started = perf_counter()
            source.fit(data)
            release_memory()
            seconds[source.name] = perf_counter() - started
        progress("features")
        data.forget_history()  # the sources shared it
        self.features.fit(data)
        release_memory()

    @property
    def sampling(self) -> Sampling:
        """Which candidates are trained on."""
        return Sampling(self.negatives, self.idle_users, self.max_users, self.seed)

    def _window(self, key: Any, split: Split, number: int) -> Window:
        return window_rows(key, split, self.stage_one, self.sampling, number, self.threads)

    def _fit_preranker(self, split: Split) -> None:
        """Learn to cut the pool from one label window; no pre-ranker if nothing was bought there."""
        self.preranker_ = None
        rows = light_rows(split, self.stage_one, self.sampling)
        if rows is not None:
            fresh: Any = replace(self.preranker)  # type: ignore[type-var]
            self.preranker_ = fresh.fit(rows)

    @property
    def training_rows(self) -> TrainingFrame | None:
        """The rows that the ranker learnt from, if `fit` was told to keep them."""
        return None if self._windows is None else self._windows.rows

    def fresh_ranker(self) -> Any:
        """A ranker with the same settings that has learnt nothing."""
        return replace(self.ranker)  # type: ignore[type-var]

    def _fit_ranker(self, frame: TrainingFrame) -> None:
        newest = frame.fold == frame.fold.max()
        if self.calibrate:
            self.calibrator_ = self._calibrated(frame, newest)
        ranker = self.fresh_ranker()
        if not self.early_stopping or newest.all():
            self.ranker = ranker.fit(frame)
            return
        ranker.fit(frame.rows(~newest), frame.rows(newest))
        if hasattr(ranker, "learning_curve"):
            self.report_["learning_curve"] = ranker.learning_curve()
        trees = getattr(ranker, "n_trees", None)
        if trees is None:
            self.ranker = ranker.fit(frame)
        else:
            self.report_["trees"] = trees
            self.ranker = replace(ranker, iterations=max(trees, 1)).fit(frame)

    def _calibrated(self, frame: TrainingFrame, newest: NDArray[np.bool_]) -> Calibrator:
        """Scores of the newest label window by a ranker of the others, and what they were worth."""
        if newest.all():
            raise DataError(
                "calibrate needs at least two label windows beside the pre-ranker's; bring more data "
                "or shorter horizons."
            )
        later = frame.rows(newest)
        score = self.fresh_ranker().fit(frame.rows(~newest)).predict(later.x)
        return Calibrator().fit(score, later.y, later.weights)

    def _took(self, step: str, started: float) -> None:
        self.report_["seconds"][step] = round(perf_counter() - started, 3)


def _saved_types() -> dict[str, type]:
    """Classes that a saved model may hold."""
    types = [*GENERATORS.values(), *RANKERS.values(), *PREFILTERS.values()]
    types += [TwoStageRecommender, FeatureSet, Calibrator, HorizonSplits, NextBasketSplits]
    return {t.__name__: t for t in types}

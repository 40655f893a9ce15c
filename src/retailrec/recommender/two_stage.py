"""The whole recommender: sources, pool, features, ranker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator, Candidates
from retailrec.candidates.pool import check_pool
from retailrec.components import (
    Count,
    Natural,
    Seed,
    Share,
    Threads,
    check_parts,
    check_settings,
    known_classes,
    with_common,
)
from retailrec.compute.forks import require_threads
from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress, silent
from retailrec.data import Histories, Recoded, RetailData, unit_prices
from retailrec.data.history import History
from retailrec.data.prefilters import Prefilter, apply_prefilters, preset
from retailrec.data.splits import HorizonSplits, LabelSplits, Split
from retailrec.errors import ArtifactError, NotFittedError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import LightGBMRanker, Ranker, TrainingFrame
from retailrec.rankers.calibration import Calibrator
from retailrec.recommender.answering import Catalogue, Scorer
from retailrec.recommender.answers import Answer
from retailrec.recommender.artifact import load_artifact, save_artifact
from retailrec.recommender.artifact_formats import fill_in_format_1
from retailrec.recommender.defaults import candidate_numbers, default_sources
from retailrec.recommender.label_windows import (
    Sampling,
    Window,
    Windows,
    WindowSteps,
    label_windows,
    preranker_rows,
    window_rows,
)
from retailrec.recommender.learning import calibrated, learnt_ranker
from retailrec.recommender.rows import CandidateFrame, candidate_frame
from retailrec.recommender.rules import Rules
from retailrec.recommender.stage_one import StageOne

_WHO = "TwoStageRecommender"


@dataclass
class TwoStageRecommender:
    """Sources propose, a ranker orders.

    Parameters
    ----------
    sources : what proposes candidates; copies are fitted anew for each label window
    ranker : orders the candidates; a `Ranker`
    prefilters : which items may be recommended
    label_splits : where the ranker's labels come from, always within the data given to `fit`
    n_candidates : taken from each source, one number or one a source; None: `candidate_numbers`
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
    seed, threads : for everything inside that has none of its own; 0 threads are all cores
    features : which features are computed

    Attributes
    ----------
    sources_, features_, ranker_, preranker_, calibrator_ : the fitted parts; the settings stay as given
    items_, prices_ : the catalogue of `fit`; row i describes item code i. Last known unit prices.
    end_, start_ : time of the first receipt, and first instant that was not known
    report_ : facts of the fit: label windows, seconds a step, prefilters

    Examples
    --------
    >>> from retailrec.rankers import CatBoostRanker
    >>> from retailrec.simulator.shop import small_data
    >>> data = small_data(users=60)
    >>> model = TwoStageRecommender(ranker=CatBoostRanker(iterations=20)).fit(data)
    >>> model.recommend(data, users=[1, 2], k=2).columns
    ['user_id', 'item_id', 'score', 'rank']
    """

    sources: list[CandidateGenerator] = field(default_factory=default_sources)
    ranker: Ranker = field(default_factory=LightGBMRanker)
    prefilters: Sequence[Prefilter] = field(default_factory=lambda: preset("default"))
    label_splits: LabelSplits = field(default_factory=HorizonSplits)
    features: FeatureSet = field(default_factory=FeatureSet)
    n_candidates: Natural | Sequence[Natural] | None = None
    preranker: Ranker | None = None
    pool_size: Count = 200
    negatives: Share = 0.2
    idle_users: Share = 0.07
    max_users: Count = 20_000
    refit: Literal["each", "once"] = "each"
    early_stopping: bool = False
    calibrate: bool = False
    seed: Seed = 0
    threads: Threads = 0
    sources_: list[CandidateGenerator] = field(init=False, repr=False, compare=False)
    features_: FeatureSet = field(init=False, repr=False, compare=False)
    ranker_: Ranker = field(init=False, repr=False, compare=False)
    preranker_: Ranker | None = field(init=False, repr=False, compare=False, default=None)
    calibrator_: Calibrator | None = field(init=False, repr=False, compare=False, default=None)
    items_: pl.DataFrame = field(init=False, repr=False, compare=False)
    prices_: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    start_: datetime = field(init=False, repr=False, compare=False)
    end_: datetime = field(init=False, repr=False, compare=False)
    report_: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    _windows: Windows | None = field(init=False, repr=False, compare=False, default=None)
    _catalogue: Catalogue | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_settings(self, _WHO)
        check_parts(_WHO, "sources", self.sources, CandidateGenerator)
        check_parts(_WHO, "prefilters", self.prefilters, Prefilter)
        check_parts(_WHO, "ranker", [self.ranker], Ranker)
        check_parts(_WHO, "preranker", [self.preranker] if self.preranker else [], Ranker)
        check_pool(self.sources, self.taken)

    def fit(
        self,
        data: RetailData,
        progress: Progress = silent,
        *,
        earlier: TwoStageRecommender | None = None,
        keep_rows: bool = False,
    ) -> Self:
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
        self.calibrator_ = calibrated(frame, self.fresh_ranker) if self.calibrate else None
        self.ranker_, facts = learnt_ranker(frame, self.fresh_ranker, self.early_stopping)
        self.report_ |= facts
        del frame
        if not keep_rows:
            self._windows = None
        release_memory()
        self._took("ranker", started)
        started = perf_counter()
        self.fit_stage_one(data, progress)
        self.items_, self.prices_ = data.items, unit_prices(data)
        self.start_, self.end_ = data.start, data.end
        self._took("stage one on all data", started)
        return self

    def training_frame(
        self,
        data: RetailData,
        progress: Progress = silent,
        *,
        earlier: TwoStageRecommender | None = None,
    ) -> TrainingFrame:
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
        windows = label_windows(
            self.label_splits.splits(data),
            WindowSteps(self.prefilters, self._fit_stage_one, self._fit_preranker, self._window),
            known,
            refit=self.refit == "each",
            preranker=self.preranker is not None and self.preranker_ is None,
            progress=progress,
        )
        self._took("training rows", started)
        self.report_["windows"] = [window.facts for window in windows]
        self._windows = Windows.of(windows)
        release_memory()
        return self._windows.rows

    def fit_matching(self, data: RetailData, progress: Progress = silent) -> Self:
        """Fit the sources and the pre-ranker, but no ranker: enough for `matching_report`.

        The pre-ranker learns from the newest label window.
        """
        self.report_ = {"windows": [], "seconds": {}}
        if self.preranker is not None:
            split = list(self.label_splits.splits(data))[-1].filtered(self.prefilters)
            self._fit_stage_one(split.past, progress)
            self._fit_preranker(split)
        self.fit_stage_one(data, progress)
        return self

    def fit_stage_one(self, data: RetailData, progress: Progress = silent) -> Self:
        """Fit prefilters, sources and features alone: enough for `candidate_frame`."""
        filtered, self.report_["prefilters"] = apply_prefilters(self.prefilters, data)
        self._fit_stage_one(filtered, progress)
        return self

    def recommend(
        self,
        data: Any,
        users: Any = None,
        k: int = 10,
        rules: Rules | None = None,
        *,
        among: Any = None,
    ) -> pl.DataFrame:
        """`user_id`, `item_id`, `score`, `rank` of each shopper's `k` best items.

        Parameters
        ----------
        data : all receipts so far of the shoppers asked for: a `RetailData`, or any frame that
            `RetailData.from_frames` takes. Items are recognised by id; what the model does not know is
            left out and counted. A `History` or `Histories` of data in the model's own coding is taken
            as it is.
        users : ids of the shoppers to answer for, in this order; all of `data` by default. One that
            `data` does not know is answered as an unknown shopper, with popular items.
        k : items a shopper
        rules : business rules; `answer` tells what they did
        among : the only items to rank, proposed by a source or not: a frame of `item_id` (for
            everybody), of `user_id` and `item_id`, or two frames, of `campaign_id` and `user_id` and of
            `campaign_id` and `item_id`. Where it names shoppers, these are answered for by default.

        Raises
        ------
        SettingError
            If `k` < 1.
        DataError
            If the receipts can't be read, or a history is coded by another catalogue.
        NotFittedError
            Before `fit`.

        Warns
        -----
        RetailRecWarning
            If most receipt lines are of items that the model does not know.

        Notes
        -----
        `score` is a probability of purchase within the horizon when the ranker's objective is one;
        calibrated models add a column `probability`.
        """
        return self.answer(data, users, k, rules, among=among).lists

    def explain(
        self,
        data: Any,
        users: Any = None,
        k: int = 10,
        rules: Rules | None = None,
        *,
        among: Any = None,
    ) -> pl.DataFrame:
        """As `recommend`, with a column `reasons`: up to three, in words, the strongest first.

        The reasons are those themes (habit, due, goes with, alike, popular, category, price) whose
        columns raised the score most by the ranker's SHAP values, with the facts behind them.
        """
        return self.answer(data, users, k, rules, reasons=True, among=among).lists

    def answer(
        self,
        data: Any,
        users: Any = None,
        k: int = 10,
        rules: Rules | None = None,
        *,
        reasons: bool = False,
        among: Any = None,
    ) -> Answer:
        """As `recommend` (with `reasons`, `explain`), and a report of what could not be used.

        Nothing of the request is kept on the model, so many threads may ask one model.

        Raises
        ------
        SettingError, DataError
            As `recommend`.
        NotFittedError
            Before `fit`.
        """
        return self._scorer.answer(data, users, k, rules, reasons=reasons, among=among)

    def recommend_codes(self, history: History | Histories, k: int) -> Candidates:
        """The best items by code: (n_users, k) arrays, -1 where there is no item.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return self._scorer.choose(history, k)[0]

    @property
    def catalogue(self) -> Catalogue:
        """Items and their coding, prices and time as they were at `fit`."""
        self._require("items_")
        known = self._catalogue
        if known is None or known.items is not self.items_:
            known = Catalogue(self.items_, self.prices_, self.catalogue_key, self.start_, self.end_)
            self._catalogue = known  # the same for every request: it remembers what items are called
        return known

    @property
    def _scorer(self) -> Scorer:
        require_threads()
        self._require("items_")
        return Scorer(self.stage_one, self.ranker_, self.calibrator_, self.catalogue, self.threads)

    def _require(self, fitted: str) -> None:
        if not hasattr(self, fitted):
            raise NotFittedError(f"{_WHO} has not seen any data; call fit(data) first.")

    def candidate_frame(self, history: History) -> CandidateFrame:
        """The rows that the ranker scores for these histories."""
        return candidate_frame(history, self.stage_one)

    @property
    def taken(self) -> int | Sequence[int]:
        """Candidates taken of each source."""
        return candidate_numbers(self.sources) if self.n_candidates is None else self.n_candidates

    @property
    def stage_one(self) -> StageOne:
        """Sources, features and pre-ranker as they are now.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        self._require("sources_")
        return StageOne(self.sources_, self.features_, self.taken, self.preranker_, self.pool_size)

    @property
    def catalogue_key(self) -> str:
        """Stands for the item coding of `fit`."""
        return self.features_.catalogue_key_

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in the model's item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        return self.catalogue.coded(data)

    def save(self, folder: str | Path) -> None:
        """Write the fitted model to a folder: see `retailrec.recommender.artifact`.

        Raises
        ------
        ArtifactError
            If the folder holds something else, can't be written, or the model holds a part that could
            not be loaded again; what stood there stays.
        NotFittedError
            Before `fit`.
        """
        self._require("items_")
        save_artifact(self, folder, saved_types())

    @classmethod
    def load(cls, folder: str | Path, *, memory_map: bool = False) -> TwoStageRecommender:
        """The model that `save` wrote.

        With `memory_map` its arrays stay in their files, which several processes then share.

        Raises
        ------
        ArtifactError
            If it is missing, damaged, altered, of a newer format, or holds a part (a source, feature,
            ranker, prefilter of one's own) whose module has not been imported; the message names it.
        """
        require_threads()
        model = load_artifact(folder, saved_types(), memory_map=memory_map)
        if not isinstance(model, TwoStageRecommender):
            raise ArtifactError(f"{folder} holds a {type(model).__name__}, no {_WHO}.")
        return model

    def after_load(self) -> None:
        """Fill in what format 1 did not write down: the item coding, and when receipts began."""
        fill_in_format_1(self)

    @property
    def column_names(self) -> list[str]:
        """Names of the ranker's columns."""
        return self.stage_one.column_names

    def _fit_stage_one(self, data: RetailData, progress: Progress = silent) -> None:
        self.sources_ = [with_common(s, self.seed, self.threads) for s in self.sources]
        self.features_ = replace(self.features)
        seconds = self.report_["source_seconds"] = {}
        for number, source in enumerate(self.sources_, start=1):
            progress("sources", number, len(self.sources_))
            started = perf_counter()
            source.fit(data)
            release_memory()
            seconds[source.name] = perf_counter() - started
        progress("features")
        data.forget_history()  # the sources shared it
        self.features_.fit(data)
        release_memory()

    @property
    def sampling(self) -> Sampling:
        """Which candidates are trained on."""
        return Sampling(self.negatives, self.idle_users, self.max_users, self.seed)

    def _window(self, key: Any, split: Split, number: int) -> Window:
        return window_rows(key, split, self.stage_one, self.sampling, number, self.threads)

    def _fit_preranker(self, split: Split) -> bool:
        """Learn to cut the pool from one label window; False if nothing was bought there."""
        self.preranker_ = None
        rows = preranker_rows(split, self.stage_one, self.sampling)
        if rows is not None:
            self.preranker_ = with_common(self.preranker, self.seed, self.threads).fit(rows)
        return rows is not None

    @property
    def training_rows(self) -> TrainingFrame | None:
        """The rows that the ranker learnt from, if `fit` was told to keep them."""
        return None if self._windows is None else self._windows.rows

    def fresh_ranker(self) -> Ranker:
        """A ranker with the same settings that has learnt nothing."""
        ranker: Ranker = with_common(self.ranker, self.seed, self.threads)
        return ranker

    def _took(self, step: str, started: float) -> None:
        self.report_["seconds"][step] = round(perf_counter() - started, 3)


def saved_types() -> dict[str, type]:
    """Classes that a saved model may hold: those of the package, and of one's own that are imported."""
    return known_classes() | {t.__name__: t for t in (TwoStageRecommender, FeatureSet, Calibrator)}

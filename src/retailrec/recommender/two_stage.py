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

from retailrec.candidates import (
    CandidateGenerator,
    Candidates,
    ItemItem,
    OwnPurchases,
)
from retailrec.candidates.pool import check_pool
from retailrec.components import (
    Count,
    Natural,
    Seed,
    Share,
    Threads,
    check_settings,
    known_classes,
    parts_within,
    with_common,
)
from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import Histories, Recoded, RetailData, Unplaced, catalogue_key, unit_prices
from retailrec.data.history import History
from retailrec.data.prefilters import Prefilter, apply, preset
from retailrec.data.splits import HorizonSplits, LabelSplits, Split
from retailrec.errors import ArtifactError, DataError, NotFittedError, SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import LightGBMRanker, Ranker, TrainingFrame
from retailrec.rankers.calibration import Calibrator
from retailrec.recommender.among import AmongReport, Eligible, as_among
from retailrec.recommender.answers import (
    Answer,
    AnswerReport,
    Effects,
    receipt_notes,
    short_list_note,
    warn_if_most_is_unknown,
)
from retailrec.recommender.artifact import load_artifact, save_artifact
from retailrec.recommender.defaults import default_sources
from retailrec.recommender.explanations import item_labels, reasons_in_words
from retailrec.recommender.label_windows import Sampling, Window, Windows, light_rows, window_rows
from retailrec.recommender.rows import CandidateFrame, candidate_frame
from retailrec.recommender.rules import BoundRules, Rules
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import ITEM_ID, USER_ID


def candidate_numbers(sources: Sequence[CandidateGenerator]) -> list[int]:
    """Candidates taken of each source where nobody says: most of what people buy they bought before.

    Examples
    --------
    >>> from retailrec.candidates import Popularity
    >>> candidate_numbers([OwnPurchases(), Popularity()])
    [150, 40]
    """
    return [
        150 if isinstance(s, OwnPurchases)
        else 60 if isinstance(s, ItemItem) and s.within == "shopper"
        else 40
        for s in sources
    ]  # fmt: skip


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
    report_: dict[str, Any] = field(init=False, repr=False, compare=False)
    _windows: Windows | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        who = "TwoStageRecommender"
        check_settings(self, who)
        check_parts(who, "sources", self.sources, CandidateGenerator)
        check_parts(who, "prefilters", self.prefilters, Prefilter)
        check_parts(who, "ranker", [self.ranker], Ranker)
        check_parts(who, "preranker", [] if self.preranker is None else [self.preranker], Ranker)
        check_pool(self.sources, self.taken)

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
        self.calibrator_ = None
        self._fit_ranker(frame)
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
        self, data: Any, users: Any = None, k: int = 10, rules: Rules | None = None, *,
        among: Any = None,
    ) -> pl.DataFrame:  # fmt: skip
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

        `score` is a probability of purchase within the horizon when the ranker's objective is one;
        calibrated models add a column `probability`.

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
        """
        return self.answer(data, users, k, rules, among=among).lists

    def explain(
        self, data: Any, users: Any = None, k: int = 10, rules: Rules | None = None, *,
        among: Any = None,
    ) -> pl.DataFrame:  # fmt: skip
        """As `recommend`, with a column `reasons`: up to three, in words, the strongest first.

        The reasons are those themes (habit, due, goes with, alike, popular, category, price) whose
        columns raised the score most by the ranker's SHAP values, with the facts behind them.
        """
        return self.answer(data, users, k, rules, reasons=True, among=among).lists

    def answer(
        self, data: Any, users: Any = None, k: int = 10, rules: Rules | None = None, *,
        reasons: bool = False, among: Any = None,
    ) -> Answer:  # fmt: skip
        """As `recommend` (with `reasons`, `explain`), and a report of what could not be used.

        Nothing of the request is kept on the model, so many threads may ask one model.
        """
        if not hasattr(self, "items_"):
            raise NotFittedError("TwoStageRecommender has not seen any data; call fit(data) first.")
        if among is not None and not isinstance(among, Eligible):
            among = as_among(among)
            if users is None and not isinstance(data, History | Histories):
                users = among.users
        history, unplaced, notes = self.placed(data, users)
        warn_if_most_is_unknown(unplaced, notes)
        eligible, told = self.eligible(history, among, k)
        best, empty, effects = self._choose(history, k, rules, eligible)
        lists = self._named(history, best)
        if reasons:
            lists = lists.with_columns(self._reasons(history, best, eligible))
        n_short = int((best.items[:, -1] < 0).sum())
        notes += told.sentences(k) if told is not None else short_list_note(n_short, len(history), k)
        return Answer(lists, AnswerReport(
            n_shoppers=len(history), n_unknown_shoppers=empty, n_short=n_short,
            n_events=unplaced.n_events, n_unknown_events=unplaced.n_unknown,
            unknown_items=tuple(unplaced.unknown_items[:5].to_list()), rules=effects,
            among={} if told is None else told._asdict(), notes=notes,
        ))  # fmt: skip

    def eligible(
        self, history: History | Histories, among: Any, k: int
    ) -> tuple[Eligible | None, AmongReport | None]:
        """Given lists in the model's item codes, and what became of them; None without lists.

        Lists that are bound already have been reported on.

        Raises
        ------
        DataError
            If none of the items is known, or none of the shoppers listed has receipts.
        """
        if among is None or isinstance(among, Eligible):
            return among, None
        lists = as_among(among)
        codes = history.codes if isinstance(history, Histories) else np.zeros(1)
        if lists.users is not None and len(codes) and (codes < 0).all():
            raise DataError(
                f"among: none of the {len(codes):,} shoppers is in the receipts, for example "
                f"{history.users[USER_ID][0]!r}; write the ids as in the receipts."
            )
        found = lists.bind(self.items_, history.users)
        return found, found.report(k)

    def recommend_codes(self, history: History | Histories, k: int) -> Candidates:
        """The best items by code: (n_users, k) arrays, -1 where there is no item."""
        if not hasattr(self, "items_"):
            raise NotFittedError("TwoStageRecommender has not seen any data; call fit(data) first.")
        return self._choose(history, k, None, None)[0]

    def placed(
        self, data: Any, users: Any = None
    ) -> tuple[History | Histories, Unplaced, tuple[str, ...]]:
        """Histories in the model's item codes, what of the receipts has no place there, and notes."""
        if isinstance(data, History | Histories):
            if users is not None:
                raise DataError(
                    "recommend: users name shoppers of a RetailData or a frame; a history has its own."
                )
            if data.catalogue_key != self.catalogue_key:
                raise DataError(
                    f"recommend: the history is coded by another catalogue ({data.n_items:,} items) "
                    f"than the model's ({self.items_.height:,} items). Hand over the RetailData or the "
                    f"frame of receipts instead, which is coded anew, or model.coded(data)."
                )
            return data, Unplaced(0, 0, self.items_[ITEM_ID].clear()), ()
        if not isinstance(data, RetailData):
            data = RetailData.from_frames(data)
        placed, unplaced = self.coded(data)
        notes = receipt_notes(unplaced, placed.end - data.start, self.end_ - self.start_)
        return placed.histories(users), unplaced, notes

    def _choose(
        self, history: History | Histories, k: int, rules: Rules | None, eligible: Eligible | None
    ) -> tuple[Candidates, int, Effects]:
        """Best items, number of empty histories, and what rules did."""
        if k < 1:
            raise SettingError(f"recommend: k must be at least 1, not {k}.")
        if not len(history):
            return Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)), 0, {}
        bound = None if rules is None else BoundRules(rules, self.items_, self.prices_, history.end)
        stage = replace(self.stage_one, pool_size=max(self.pool_size, k))

        def shard(rows: slice) -> tuple[Candidates, int]:
            part = history.take(rows)
            empty = int((np.diff(part.indptr) == 0).sum())
            frame = candidate_frame(
                part, stage, among=None if eligible is None else eligible.take(rows)
            )
            score = self.ranker_.predict(frame.x)
            if bound is None:
                return frame.pool.best(score, k), empty
            probable = self.ranker_.gives_probability
            if bound.rules.margin is not None and self.calibrator_ is not None:
                score, probable = self.calibrator_.predict(score), True
            return bound.choose(part, frame.pool.pairs, score, k, probable), empty

        size = SHARD if eligible is None else eligible.shard_size
        parts = list(map_shards(shard, len(history), size=size, threads=n_threads(self.threads)))
        best = Candidates(*(np.vstack(p) for p in zip(*(c for c, _ in parts), strict=True)))
        return best, sum(empty for _, empty in parts), {} if bound is None else bound.effects

    def _reasons(
        self, history: History | Histories, best: Candidates, eligible: Eligible | None
    ) -> pl.Series:
        """Why each recommendation was made, in words."""
        labels = item_labels(self.items_, ~np.isnan(self.prices_))
        stage = replace(self.stage_one, pool_size=max(self.pool_size, best.items.shape[1]))

        def shard(rows: slice) -> list[str]:
            part = history.take(rows)
            frame = candidate_frame(
                part, stage, among=None if eligible is None else eligible.take(rows)
            )
            shopper, rank = np.nonzero(best.items[rows] >= 0)
            items = best.items[rows][shopper, rank]
            keys = frame.pool.user_of_pair * part.n_items + frame.pool.items
            x = frame.x[np.searchsorted(keys, shopper * part.n_items + items)]
            why = self.ranker_.contributions(x)
            return reasons_in_words(x, frame.names, why, shopper, items, part, self.sources_, labels)

        size = SHARD if eligible is None else eligible.shard_size
        texts = [text for part in map_shards(shard, len(history), size=size) for text in part]
        return pl.Series("reasons", texts, pl.String)

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

    def candidate_frame(self, history: History) -> CandidateFrame:
        """The rows that the ranker scores for these histories."""
        return candidate_frame(history, self.stage_one)

    @property
    def taken(self) -> int | Sequence[int]:
        """Candidates taken of each source."""
        return candidate_numbers(self.sources) if self.n_candidates is None else self.n_candidates

    @property
    def stage_one(self) -> StageOne:
        """Sources, features and pre-ranker as they are now."""
        if not hasattr(self, "sources_"):
            raise NotFittedError("TwoStageRecommender has not seen any data; call fit(data) first.")
        return StageOne(self.sources_, self.features_, self.taken, self.preranker_, self.pool_size)

    @property
    def catalogue_key(self) -> str:
        """Stands for the item coding of `fit`."""
        return self.features_.catalogue_key_

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in the model's item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        if data.catalogue_key == self.catalogue_key:
            placed, unplaced = data, Unplaced(data.log.height, 0, data.items[ITEM_ID].clear())
        else:
            placed, unplaced = data.with_item_codes_of(self.items_)
        if data.end < self.end_:
            placed = replace(placed, end=self.end_)
        return Recoded(placed, unplaced)

    def save(self, folder: str | Path) -> None:
        """Write the fitted model to a folder: see `retailrec.recommender.artifact`.

        Raises
        ------
        ArtifactError
            If the folder holds something else, can't be written, or the model holds a part that could
            not be loaded again; what stood there stays.
        """
        if not hasattr(self, "items_"):
            raise NotFittedError("TwoStageRecommender has nothing to save; call fit(data) first.")
        save_artifact(self, folder, saved_types())

    @classmethod
    def load(cls, folder: str | Path) -> TwoStageRecommender:
        """The model that `save` wrote.

        Raises
        ------
        ArtifactError
            If it is missing, damaged, altered, of a newer format, or holds a part (a source, feature,
            ranker, prefilter of one's own) whose module has not been imported; the message names it.
        """
        model = load_artifact(folder, saved_types())
        if not isinstance(model, TwoStageRecommender):
            raise ArtifactError(f"{folder} holds a {type(model).__name__}, no TwoStageRecommender.")
        return model

    def after_load(self) -> None:
        """Fill in what format 1 did not write down: the item coding, and when receipts began."""
        if not hasattr(self.features_, "catalogue_key_"):
            key = catalogue_key(self.items_[ITEM_ID])
            for part in (self.features_, *self.sources_):
                for within in parts_within(part):
                    within.catalogue_key_ = key
        if not hasattr(self, "start_"):
            self.start_ = self.end_

    @property
    def column_names(self) -> list[str]:
        """Names of the ranker's columns."""
        return self.stage_one.column_names

    def _fit_stage_one(self, data: RetailData, progress: Progress = lambda step: None) -> None:
        self.sources_ = [with_common(s, self.seed, self.threads) for s in self.sources]
        self.features_ = replace(self.features)
        seconds = self.report_["source_seconds"] = {}
        for source in self.sources_:
            progress(f"source {source.name}")
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

    def _fit_preranker(self, split: Split) -> None:
        """Learn to cut the pool from one label window; no pre-ranker if nothing was bought there."""
        self.preranker_ = None
        rows = light_rows(split, self.stage_one, self.sampling)
        if rows is not None:
            self.preranker_ = with_common(self.preranker, self.seed, self.threads).fit(rows)

    @property
    def training_rows(self) -> TrainingFrame | None:
        """The rows that the ranker learnt from, if `fit` was told to keep them."""
        return None if self._windows is None else self._windows.rows

    def fresh_ranker(self) -> Ranker:
        """A ranker with the same settings that has learnt nothing."""
        ranker: Ranker = with_common(self.ranker, self.seed, self.threads)
        return ranker

    def _fit_ranker(self, frame: TrainingFrame) -> None:
        newest = frame.fold == frame.fold.max()
        if self.calibrate:
            self.calibrator_ = self._calibrated(frame, newest)
        ranker = self.fresh_ranker()
        if not self.early_stopping or newest.all():
            self.ranker_ = ranker.fit(frame)
            return
        ranker.fit(frame.rows(~newest), frame.rows(newest))
        self.report_["learning_curve"] = ranker.learning_curve()
        trees = ranker.n_trees
        if trees is not None:
            self.report_["trees"] = trees
            ranker = ranker.with_trees(max(trees, 1))
        self.ranker_ = ranker.fit(frame)

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


def saved_types() -> dict[str, type]:
    """Classes that a saved model may hold: those of the package, and of one's own that are imported."""
    plain = {t.__name__: t for t in (TwoStageRecommender, FeatureSet, Calibrator)}
    return {**known_classes(), **plain}


def check_parts(who: str, name: str, parts: Sequence[Any], kind: type) -> None:
    """Raise a SettingError unless all parts are objects of a kind."""
    for part in parts:
        if not isinstance(part, kind):
            raise SettingError(
                f"{who}: {name} must hold a {kind.__name__}, one that retailrec ships or one of your "
                f"own that derives from it, not {part!r}."
            )

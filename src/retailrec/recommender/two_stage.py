"""The whole recommender: settings, how its parts are learnt, and how they answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator, Candidates
from retailrec.candidates.own_purchases import USUAL_HALF_LIFE
from retailrec.candidates.pool import check_pool
from retailrec.components import (
    Count,
    Natural,
    NotNegative,
    Positive,
    Seed,
    Share,
    Threads,
    as_component,
    check_settings,
    checked,
    known_classes,
    with_common,
)
from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import require_threads
from retailrec.data import Histories, Recoded, RetailData, unit_prices
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.history import History
from retailrec.data.prefilters import Prefilter, apply_prefilters, preset
from retailrec.data.splits import HorizonSplits, LabelSplits, Split
from retailrec.datasets.base import Reading
from retailrec.errors import ArtifactError, NotFittedError, SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers import LightGBMRanker, Ranker, TrainingFrame
from retailrec.rankers.base import Calibrator
from retailrec.recommender.answerer import Answerer, Part
from retailrec.recommender.answers import Answer
from retailrec.recommender.artifact import (
    check_codings,
    check_fitted,
    fill_in_format_1,
    load_artifact,
    save_artifact,
)
from retailrec.recommender.catalogue import Catalogue
from retailrec.recommender.choices import (
    Chosen,
    calibrated,
    choose_half_life,
    choose_prior,
    learnt_ranker,
    resolved,
    simple_orders,
)
from retailrec.recommender.label_windows import (
    Sampling,
    Window,
    Windows,
    WindowSteps,
    label_windows,
    preranker_rows,
    window_key,
    window_rows,
)
from retailrec.recommender.purposes import Discovery, Purpose, check_purpose
from retailrec.recommender.request import Request
from retailrec.recommender.stage_one import (
    CandidateFrame,
    StageOne,
    candidate_frame,
    candidate_numbers,
    default_sources,
    discovery_ranker,
)

WHO = "TwoStageRecommender"
NOT_LEARNT = (
    "purpose 'discover' needs a ranker of new items, and this model has learnt none. Fit with "
    "TwoStageRecommender(discover=Discovery()), or with a table [discover] in the settings file."
)


class HandedStage(NamedTuple):
    """Sources and features that an earlier fit ended with.

    Attributes
    ----------
    learnt_from : the data
    sources, discover_sources, features : as fitted on it
    """

    learnt_from: tuple[datetime, int, str]
    sources: list[CandidateGenerator]
    discover_sources: list[CandidateGenerator]
    features: FeatureSet

    @classmethod
    def of(cls, fitted: TwoStageRecommender) -> Self | None:
        """Those of a recommender; None where it has none."""
        if fitted._stage_key is None or not hasattr(fitted, "sources_"):
            return None
        return cls(fitted._stage_key, fitted.sources_, fitted.discover_sources_, fitted.features_)


def stage_key(data: RetailData) -> tuple[datetime, int, str]:
    """Identifies data that stage one learns from, among cuts of the same data."""
    return data.end, data.log.height, data.catalogue_key


@dataclass
class TwoStageRecommender:
    """Sources propose, a ranker orders.

    Parameters
    ----------
    sources : what proposes candidates; copies are fitted for each label window
    ranker : orders the candidates; a `Ranker`
    prefilters : which items may be recommended
    label_splits : where the ranker's labels come from, always within the data given to `fit`
    n_candidates : taken from each source, one number or one a source; None: `candidate_numbers`
    preranker : light ranker that cuts the pool to `pool_size` pairs a user; None ranks them all
    negatives : share of the candidates that were not bought that are trained on; each then weighs
        1 / share, so probabilities stay what they are
    idle_users : share of the users who bought nothing in the label window that are trained on;
        their rows weigh 1 / share more
    max_users : users sampled per label window
    refit : ``each``: sources and features are fitted before every label window; ``once``: before
        the oldest that is computed only, with fresh histories for each
    early_stopping : learn the number of trees on the newest label window, then train on all windows;
        without it the ranker's own number is taken
    calibrate : learn to turn scores into probabilities on the newest label window, with a ranker
        trained on the others; `recommend` then gives a column `probability`
    seed, threads : for everything inside that has none of its own; 0 threads are all cores
    features : which features are computed
    discover : how to learn lists of new items, for ``purpose="discover"``; None: not at all
    half_life : days after which a receipt counts half in own purchases that leave it open; ``auto``:
        the label windows choose, ``never``: it always counts
    prior : simple order that is added to a ranker's scores: a source, ``mean`` of those of a user's own
        past, ``auto``: the label windows choose, or ``none``
    prior_weight : how much of it, in standard deviations of the scores; None: the label windows choose

    Attributes
    ----------
    sources_, features_, ranker_, preranker_, calibrator_ : the fitted parts; the settings stay as given
    discover_sources_, discover_ranker_, discover_calibrator_ : the same for lists of new items
    items_, prices_ : the catalogue of `fit`; row i describes item code i. Last known unit prices.
    start_, end_ : time of the first receipt, and first instant that was not known
    has_quantity_ : had the receipts quantities other than 1?
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
    discover: Discovery | None = None
    half_life: Positive | Literal["auto", "never"] = "auto"
    prior: str = "auto"
    prior_weight: NotNegative | None = None
    sources_: list[CandidateGenerator] = field(init=False, repr=False, compare=False)
    features_: FeatureSet = field(init=False, repr=False, compare=False)
    ranker_: Ranker = field(init=False, repr=False, compare=False)
    preranker_: Ranker | None = field(init=False, repr=False, compare=False, default=None)
    calibrator_: Calibrator | None = field(init=False, repr=False, compare=False, default=None)
    discover_sources_: list[CandidateGenerator] = field(
        init=False, repr=False, compare=False, default_factory=list
    )
    discover_ranker_: Ranker | None = field(init=False, repr=False, compare=False, default=None)
    discover_calibrator_: Calibrator | None = field(init=False, repr=False, compare=False, default=None)
    items_: pl.DataFrame = field(init=False, repr=False, compare=False)
    prices_: NDArray[np.float64] = field(init=False, repr=False, compare=False)
    start_: datetime = field(init=False, repr=False, compare=False)
    end_: datetime = field(init=False, repr=False, compare=False)
    has_quantity_: bool = field(init=False, repr=False, compare=False)
    report_: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    _windows: dict[Purpose, Windows] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )
    _stage_key: tuple[datetime, int, str] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    _half_life: Chosen | None = field(init=False, repr=False, compare=False, default=None)
    _prior: Chosen | None = field(init=False, repr=False, compare=False, default=None)
    _handed: HandedStage | None = field(init=False, repr=False, compare=False, default=None)
    _catalogue: Catalogue | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        if isinstance(self.prefilters, str):
            self.prefilters = preset(self.prefilters)
        if isinstance(self.sources, list | tuple):
            self.sources = [as_component(s, CandidateGenerator, "source") for s in self.sources]
        self.ranker = as_component(self.ranker, Ranker, "ranker")
        self.preranker = as_component(self.preranker, Ranker, "ranker")
        check_settings(self, WHO)
        check_pool(self.sources, self.taken)
        orders = simple_orders(self.sources)
        if self.prior not in ("auto", "none", *orders):
            raise SettingError(
                f"{WHO}: prior must be auto, none or an order of the sources ({', '.join(orders)}), "
                f"not {self.prior!r}."
            )
        if self.discover is not None:
            both = [*self.sources, *self.discover.sources]
            check_pool(both, candidate_numbers(both, self.discover.n_candidates))

    def fit(
        self,
        data: Any,
        progress: Progress = silent,
        *,
        earlier: Self | None = None,
        keep_rows: bool = False,
    ) -> Self:
        """Learn from everything before `data.end`; `data` may also be a frame of receipts.

        `earlier` is a recommender with the same settings that was fitted on `data.asof(t)` with
        `keep_rows`, or what it handed over (`hand_over`): its pre-ranker and label windows are taken
        over (it lets go of its rows), and only newer windows are computed. Its sources and features
        are taken over for the window that begins at t. `keep_rows` keeps `training_rows`.

        Raises
        ------
        DataError
            If the data is too short for a label window, or prefilters leave nothing.
        """
        data = RetailData.of(data)
        frame = self.training_frame(data, progress, earlier=earlier)
        progress("ranker")
        started = perf_counter()
        self._choose_prior(frame)
        self._took("choice of a prior", started)
        started = perf_counter()
        self.calibrator_, self.ranker_, facts = self._learnt(frame, self.fresh_ranker)
        self.report_ |= facts
        del frame
        if not keep_rows:
            self._windows.pop("mixed")
        self._took("ranker", started)
        self._learn_discovery(keep_rows, progress)
        release_memory()
        started = perf_counter()
        self.fit_stage_one(data, progress)
        self.items_, self.prices_ = data.items, unit_prices(data)
        self.start_, self.end_ = data.start, data.end
        self.has_quantity_ = bool((data.log["quantity"] != 1).any())
        self._took("stage one on all data", started)
        return self

    def recommend(
        self,
        data: Any = None,
        users: Any = None,
        request: Request | int | None = None,
        **settings: Any,
    ) -> pl.DataFrame:
        """`user_id`, `item_id`, `score`, `rank` of each user's best items.

        Parameters
        ----------
        data : all receipts so far of the users asked for: a `RetailData`, or any frame that
            `RetailData.from_frames` takes. Items are recognised by id; what the model does not know is
            left out and counted. A `History` or `Histories` of data in the model's own coding is taken
            as it is.
        users : ids of the users to answer for, in this order; all of `data` by default. One that
            `data` does not know is answered as an unknown user (cold start), with popular items.
        request : items a user, 10 by default, or a whole `Request`
        settings : fields of `Request` as keywords, such as `k`, `rules` or `reasons`

        Raises
        ------
        SettingError
            If a setting makes no sense, or `fit` learnt no ranker of new items.
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
        calibrated models add a column `probability`, slots `purpose`, and `reasons=True` `reasons`.
        """
        return self.answer(data, users, request, **settings).lists

    def explain(
        self,
        data: Any = None,
        users: Any = None,
        request: Request | int | None = None,
        **settings: Any,
    ) -> pl.DataFrame:
        """As `recommend`, with a column `reasons`: up to three, in words, the strongest first.

        The reasons are those themes (habit, due, goes with, alike, popular, category, price) whose
        columns raised the score most by the ranker's SHAP values, with the facts behind them.
        """
        request = Request.of(request, **settings)
        return self.answer(data, users, replace(request, reasons=True)).lists

    def answer(
        self,
        data: Any = None,
        users: Any = None,
        request: Request | int | None = None,
        **settings: Any,
    ) -> Answer:
        """As `recommend`, and a report of what could not be used and of what rules did.

        Nothing of the request is kept on the model, so many threads may ask one model.

        Raises
        ------
        SettingError, DataError
            As `recommend`.
        NotFittedError
            Before `fit`.
        """
        request = self.request(request, **settings)
        if isinstance(data, RetailData):
            request = request.renamed(data.changed_ids)
        answerer = self.answerer(request)
        placed = answerer.catalogue.placed(data, users, request)
        if placed.receipts is not None:
            placed.receipts.warn_if_most_is_unknown()
        answer = answerer.answer(placed.histories, request, placed.eligible)
        report = answer.report.completed(request, placed.receipts, placed.among)
        return replace(answer, report=report)

    def recommend_codes(
        self, history: History | Histories, k: int, purpose: Purpose = "mixed"
    ) -> Candidates:
        """The best items by code: (n_users, k) arrays, -1 where there is no item.

        Raises
        ------
        SettingError
            As `recommend`.
        NotFittedError
            Before `fit`.
        """
        request = Request(k=k, purpose=purpose)
        return self.answerer(request).answer(history, request).best

    @property
    def catalogue(self) -> Catalogue:
        """Items and their coding, prices and time as they were at `fit`."""
        self._require("items_")
        known = self._catalogue
        if known is None or known.items is not self.items_:
            known = Catalogue(
                self.items_,
                self.prices_,
                self.catalogue_key,
                self.start_,
                self.end_,
                getattr(self, "has_quantity_", None),  # version 0.2 did not keep it
                self.changed_ids,
                self.reading.get("zone"),
            )
            self._catalogue = known  # the same for every request: it remembers what items are called
        return known

    def request(self, request: Request | int | None = None, **settings: Any) -> Request:
        """As `Request.of`; ids that had changed when it learnt are the new ones."""
        return Request.of(request, **settings).renamed(self.changed_ids)

    @property
    def changed_ids(self) -> ChangedIds | None:
        """Ids that had changed when it learnt; None: none had."""
        return Reading.of(self.reading).changed_ids

    def answerer(self, request: Request) -> Answerer:
        """The fitted parts that answer such a request.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SettingError
            If it is for new items, and `fit` learnt no ranker of these.
        """
        require_threads()
        self._require("items_")
        parts = {purpose: self.part(purpose) for purpose in request.by_purpose}
        return Answerer(parts, self.catalogue, self.threads)

    def part(self, purpose: Purpose) -> Part:
        """What scores the candidates for a purpose.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SettingError
            If there is no such purpose, or it is for new items and `fit` learnt no ranker of these.
        """
        check_purpose(purpose, "recommend")
        stage = self.stage_for(purpose)
        if purpose == "discover":
            if self.discover_ranker_ is None:
                raise SettingError(NOT_LEARNT)
            return Part(stage, self.discover_ranker_, self.discover_calibrator_)
        return Part(stage, self.ranker_, self.calibrator_)

    def candidate_frame(self, history: History) -> CandidateFrame:
        """The rows that the ranker scores for these histories."""
        return candidate_frame(history, self.stage_one)

    @property
    def reading(self) -> dict[str, Any]:
        """How the receipts were read that it learnt from, and its catalogue: to read others alike."""
        kept: dict[str, Any] = self.report_.get("reading", {})
        return {**kept, "catalogue": self.items_} if kept else {}

    @property
    def catalogue_key(self) -> str:
        """Identifies the item coding of `fit`."""
        return self.features_.catalogue_key_

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in the model's item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        return self.catalogue.coded(data)

    @checked
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
    @checked
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
            raise ArtifactError(f"{folder} holds a {type(model).__name__}, no {WHO}.")
        return model

    def after_load(self) -> None:
        """Fill in what format 1 did not write down; hold the parts against the catalogue.

        Raises
        ------
        ArtifactError
            If they do not fit each other.
        """
        check_fitted(self)
        fill_in_format_1(self)
        check_codings(self)

    @property
    def column_names(self) -> list[str]:
        """Names of the ranker's columns."""
        return self.stage_one.column_names

    def training_frame(
        self,
        data: RetailData,
        progress: Progress = silent,
        *,
        earlier: Self | None = None,
    ) -> TrainingFrame:
        """The rows the ranker learns from: candidates of earlier label windows, labelled.

        The oldest window trains the pre-ranker and nothing else, if there are others.

        Raises
        ------
        DataError
            If the data is too short, or no user with history bought within a label window.
        """
        started = perf_counter()
        self.report_ = {"windows": [], "seconds": {}}
        taken: dict[Purpose, Windows] = {}
        self._handed = None
        if earlier is not None:  # its rows would be in memory twice
            taken, earlier._windows = earlier._windows, {}
            self._handed, earlier._handed = earlier._handed or HandedStage.of(earlier), None
        self._half_life, self._prior = (
            (None, None) if earlier is None else (earlier._half_life, earlier._prior)
        )
        self._choose_half_life(data)
        release_memory()
        self.preranker_ = None if earlier is None or not taken else earlier.preranker_
        windows = label_windows(
            self._splits(data),
            WindowSteps(
                self.prefilters,
                self._fit_stage_one,
                self._fit_preranker,
                {purpose: partial(self._window, purpose) for purpose in self.learnt_purposes},
                probable=["discover"] if self._learns_both else [],
            ),
            taken,
            refit=self.refit == "each",
            preranker=self.preranker is not None and self.preranker_ is None,
            progress=progress,
        )
        self._took("training rows", started)
        self.report_["windows"] = [window.facts for window in windows["mixed"]]
        if "discover" in windows:
            self.report_["discover_windows"] = [window.facts for window in windows["discover"]]
        self._windows = {purpose: Windows.of(found) for purpose, found in windows.items()}
        release_memory()
        return self._windows["mixed"].rows

    def hand_over(self, data: RetailData | None = None) -> Self:
        """What `fit(data, earlier=...)` takes over from this recommender, without the rest.

        This one lets go of its rows, so that both are not in memory twice. With `data`, rows of label
        windows that a fit on it does not learn from go too.
        """
        heir = replace(self)
        heir.preranker_, heir._windows, self._windows = self.preranker_, self._windows, {}
        if data is not None:
            wanted = {window_key(split) for split in self._splits(data)}
            heir._windows = {p: windows.only(wanted) for p, windows in heir._windows.items()}
            release_memory()
        heir._half_life, heir._prior = self._half_life, self._prior
        heir._handed = HandedStage.of(self)
        return heir

    def fit_matching(self, data: RetailData, progress: Progress = silent) -> Self:
        """Fit the sources and the pre-ranker, but no ranker: enough for `matching_report`.

        The pre-ranker learns from the newest label window.
        """
        self.report_ = {"windows": [], "seconds": {}}
        if self.preranker is not None:
            split = list(self.learning_splits.splits(data))[-1].filtered(self.prefilters)
            self._fit_stage_one(split.past, progress)
            self._fit_preranker(split)
        self.fit_stage_one(data, progress)
        return self

    def fit_stage_one(self, data: RetailData, progress: Progress = silent) -> Self:
        """Fit prefilters, sources and features alone: enough for `candidate_frame`."""
        reading, zone = data.report.reading, data.report.zone
        own: dict[str, Any] = {"zone": zone} if zone else {}
        if data.changed_ids and "changed_ids" not in reading:  # as Python's frames came
            own["changed_ids"] = data.changed_ids.frame()
        self.report_["reading"] = {"dataset": "table", **reading, **own} if own else reading
        filtered, self.report_["prefilters"] = apply_prefilters(self.prefilters, data)
        self._fit_stage_one(filtered, progress)
        return self

    @property
    def taken(self) -> Sequence[int]:
        """Candidates taken of each source."""
        return candidate_numbers(self.sources, self.n_candidates)

    @property
    def stage_one(self) -> StageOne:
        """Sources, features and pre-ranker as they are now.

        Raises
        ------
        NotFittedError
            Before `fit`.
        """
        return self.stage_for("mixed")

    def stage_for(self, purpose: Purpose) -> StageOne:
        """Stage one as it is now, with a pool of what a list for the purpose may hold.

        Raises
        ------
        NotFittedError
            Before `fit`.
        SettingError
            If it is for new items, and the model has no settings for them.
        """
        self._require("sources_")
        if purpose != "discover":
            return StageOne(
                self.sources_, self.features_, self.taken, self.preranker_, self.pool_size, purpose
            )
        if self.discover is None:
            raise SettingError(NOT_LEARNT)
        sources = [*self.sources_, *self.discover_sources_]
        return StageOne(
            sources,
            self.features_,
            candidate_numbers(sources, self.discover.n_candidates),
            None,
            self.pool_size,
            purpose,
            self.discover.after_days,
        )

    @property
    def learning_splits(self) -> LabelSplits:
        """Those of `label_splits` that fit what is learnt."""
        return self.label_splits.whole() if self.learns_whole else self.label_splits

    @property
    def learns_whole(self) -> bool:
        """Does the ranker learn from windows of the whole horizon alone?

        Probabilities are of the whole horizon; half a window lies within another, so trees can't be
        judged on it that learnt from that one; and where a pre-ranker takes the oldest window, those
        that are left are whole ones.
        """
        judged = (
            self.calibrate or self.early_stopping
        )  # on the newest window, which others may not hold
        return judged or self.preranker is not None or self.ranker.gives_probability

    @property
    def _learns_both(self) -> bool:
        """Do rankers of one model learn orders and probabilities, each from windows of its own?"""
        return self.discover is not None and not self.learns_whole

    def _splits(self, data: RetailData) -> Iterator[Split]:
        """The label windows of all rankers, oldest first."""
        if self._learns_both:
            return self.label_splits.for_both(data)
        return self.learning_splits.splits(data)

    @property
    def learnt_purposes(self) -> tuple[Purpose, ...]:
        """Purposes that have a ranker of their own; *replenish* orders by the one of *mixed*."""
        return ("mixed",) if self.discover is None else ("mixed", "discover")

    def _require(self, fitted: str) -> None:
        if not hasattr(self, fitted):
            raise NotFittedError(f"{WHO} has not seen any data; call fit(data) first.")

    def _fit_stage_one(self, data: RetailData, progress: Progress = silent) -> None:
        handed, self._handed = self._handed, None  # it may not be in memory beside a newer one
        if handed is not None and handed.learnt_from == stage_key(data):
            self._stage_key, self.sources_, self.discover_sources_, self.features_ = handed
            return
        self._stage_key = stage_key(data)
        chosen = self._given_half_life or self._half_life
        days = USUAL_HALF_LIFE if chosen is None else chosen.value
        self.sources_ = [with_common(resolved(s, days), self.seed, self.threads) for s in self.sources]
        more = () if self.discover is None else self.discover.sources
        self.discover_sources_ = [with_common(s, self.seed, self.threads) for s in more]
        self.features_ = replace(self.features)
        seconds = self.report_["source_seconds"] = {}
        fitted = [*self.sources_, *self.discover_sources_]
        for number, source in enumerate(fitted, start=1):
            progress("sources", number, len(fitted))
            started = perf_counter()
            source.fit(data)
            release_memory()
            seconds[source.name] = perf_counter() - started
        progress("features")
        data.forget_history()  # the sources shared it
        self.features_.fit(data)
        release_memory()

    @property
    def _given_half_life(self) -> Chosen | None:
        """The half-life that the settings say; None where label windows choose."""
        if self.half_life == "auto":
            return None
        days = None if self.half_life == "never" else self.half_life
        return Chosen(days, days, given=True)

    def _choose_half_life(self, data: RetailData) -> None:
        """The half-life of own purchases, where it is left open."""
        if all(resolved(source, None) is source for source in self.sources):
            return
        self._half_life = (
            self._given_half_life
            or self._half_life
            or choose_half_life(self.learning_splits.splits(data), self.seed)
        )
        self.report_["half_life"] = self._half_life.facts

    def _choose_prior(self, frame: TrainingFrame) -> None:
        """The simple order that is added to the ranker's scores, where the ranker leaves it open."""
        columns = simple_orders(self.sources)
        if self.prior == "none" or not columns or not self.ranker.takes_prior:
            self._prior = None
            return
        if self._prior is None:
            order = None if self.prior == "auto" else self.prior
            fresh = partial(with_common, self.ranker, self.seed, self.threads)
            windows = self.report_["windows"]
            self._prior = choose_prior(frame, windows, fresh, columns, order, self.prior_weight)
        self.report_["prior"] = self._prior.facts

    def _learn_discovery(self, keep_rows: bool, progress: Progress) -> None:
        """The ranker of new items, if the settings ask for one."""
        self.discover_ranker_ = self.discover_calibrator_ = None
        if self.discover is None:
            return
        progress("ranker of new items")
        started, rows = perf_counter(), self._windows["discover"].rows
        chosen = self.discover.ranker or discovery_ranker(len(rows.y))
        self.discover_calibrator_, self.discover_ranker_, _ = self._learnt(
            rows, lambda: with_common(chosen, self.seed, self.threads)
        )
        del rows
        if not keep_rows:
            self._windows.clear()
        self._took("ranker of new items", started)

    def _learnt(
        self, frame: TrainingFrame, fresh: Callable[[], Ranker]
    ) -> tuple[Calibrator | None, Ranker, dict[str, Any]]:
        calibrator = calibrated(frame, fresh) if self.calibrate else None
        return calibrator, *learnt_ranker(frame, fresh, self.early_stopping)

    @property
    def sampling(self) -> Sampling:
        """Which candidates are trained on."""
        return Sampling(self.negatives, self.idle_users, self.max_users, self.seed)

    def _window(self, purpose: Purpose, key: Any, split: Split, number: int) -> Window:
        stage = self.stage_for(purpose)
        return window_rows(key, split, stage, self.sampling, number, self.threads)

    def _fit_preranker(self, split: Split) -> bool:
        """Learn to cut the pool from one label window; False if nothing was bought there."""
        self.preranker_ = None
        rows = preranker_rows(split, self.stage_one, self.sampling)
        if rows is not None:
            self.preranker_ = with_common(self.preranker, self.seed, self.threads).fit(rows)
        return rows is not None

    @property
    def training_rows(self) -> TrainingFrame | None:
        """The rows that the ranker learnt from, if `fit` was called with `keep_rows`."""
        return self._windows["mixed"].rows if "mixed" in self._windows else None

    def fresh_ranker(self) -> Ranker:
        """A ranker with the same settings that has learnt nothing."""
        ranker: Ranker = with_common(self.ranker, self.seed, self.threads)
        if self._prior is None:
            return ranker
        prior = self._prior.value
        return ranker.with_prior(simple_orders(self.sources)[prior.order], prior.weight)

    def _took(self, step: str, started: float) -> None:
        self.report_["seconds"][step] = round(perf_counter() - started, 3)


def saved_types() -> dict[str, type]:
    """Classes that a saved model may hold: those of the package, and of one's own that are imported."""
    parts = (TwoStageRecommender, FeatureSet, Calibrator, Discovery)
    return known_classes() | {part.__name__: part for part in parts}

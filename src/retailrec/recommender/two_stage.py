"""The whole recommender: sources, pool, features, ranker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.candidates import Candidates
from retailrec.components import known_classes
from retailrec.compute.forks import require_threads
from retailrec.data import Histories, Recoded, RetailData
from retailrec.data.history import History
from retailrec.errors import ArtifactError, SettingError
from retailrec.features.assemble import FeatureSet
from retailrec.rankers.calibration import Calibrator
from retailrec.recommender.answerer import Answerer, Part
from retailrec.recommender.answers import Answer
from retailrec.recommender.artifact import load_artifact, save_artifact
from retailrec.recommender.artifact_checks import check_codings, check_fitted
from retailrec.recommender.artifact_formats import fill_in_format_1
from retailrec.recommender.catalogue import Catalogue
from retailrec.recommender.discovery import Discovery
from retailrec.recommender.fitting import NOT_LEARNT, WHO, FittedParts
from retailrec.recommender.purposes import Purpose, check_purpose
from retailrec.recommender.request import Request
from retailrec.recommender.rows import CandidateFrame, candidate_frame


@dataclass
class TwoStageRecommender(FittedParts):
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
    discover : how to learn lists of new items, for ``purpose="discover"``; None: not at all
    half_life : days after which a receipt counts half in own purchases that leave it open; ``auto``:
        the label windows choose, ``never``: it always counts
    prior : simple order that is added to a ranker's scores: a source, ``mean`` of all of them,
        ``auto``: the label windows choose, or ``none``
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

    _catalogue: Catalogue | None = field(init=False, repr=False, compare=False, default=None)

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
        settings : the request's fields as keywords: `k`, `purpose`, `slots`, `rules`, `among`,
            `reasons`, `at`

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
        request = Request.of(request, **settings)
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
            )
            self._catalogue = known  # the same for every request: it remembers what items are called
        return known

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


def saved_types() -> dict[str, type]:
    """Classes that a saved model may hold: those of the package, and of one's own that are imported."""
    parts = (TwoStageRecommender, FeatureSet, Calibrator, Discovery)
    return known_classes() | {part.__name__: part for part in parts}

"""Scoring and naming: from histories to recommendations, with the parts of a fitted model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import Candidates
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import Histories, Recoded, RetailData, Unplaced
from retailrec.data.history import History
from retailrec.errors import DataError, SettingError
from retailrec.rankers import Ranker
from retailrec.rankers.calibration import Calibrator
from retailrec.recommender.among import AmongReport, Eligible, as_among
from retailrec.recommender.answers import (
    Answer,
    AnswerReport,
    receipt_notes,
    short_list_note,
    warn_if_most_is_unknown,
)
from retailrec.recommender.explanations import item_labels, reasons_in_words
from retailrec.recommender.rows import candidate_frame
from retailrec.recommender.rules import BoundRules, Rules
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import ITEM_ID, USER_ID


class Placed(NamedTuple):
    """A request in a model's item codes: histories, what has no place, and sentences about it."""

    history: History | Histories
    unplaced: Unplaced
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """What a fitted model knows of its items and of time.

    Attributes
    ----------
    items, prices : row i describes item code i; last known unit prices
    key : stands for the item coding
    start, end : time of the first receipt of `fit`, and first instant that was not known
    """

    items: pl.DataFrame
    prices: NDArray[np.float64]
    key: str
    start: datetime
    end: datetime

    @cached_property
    def labels(self) -> list[str]:
        """What each item is called, such that no two sold ones are called alike."""
        return item_labels(self.items, ~np.isnan(self.prices))

    def coded(self, data: RetailData) -> Recoded:
        """Fresh data in these item codes, and which events have no place there.

        The present is the later of the two ends: that of the fresh data and that of the fit.
        """
        if data.catalogue_key == self.key:
            placed, unplaced = data, Unplaced(data.log.height, 0, data.items[ITEM_ID].clear())
        else:
            placed, unplaced = data.with_item_codes_of(self.items)
        if data.end < self.end:
            placed = replace(placed, end=self.end)
        return Recoded(placed, unplaced)

    def placed(self, data: Any, users: Any = None) -> Placed:
        """Histories in these item codes, and what of the receipts has no place there.

        Raises
        ------
        DataError
            If users are named beside a history, or the history is coded by another catalogue.
        """
        if isinstance(data, History | Histories):
            if users is not None:
                raise DataError(
                    "recommend: users name shoppers of a RetailData or a frame; a history has its own."
                )
            if data.catalogue_key != self.key:
                raise DataError(
                    f"recommend: the history is coded by another catalogue ({data.n_items:,} items) "
                    f"than the model's ({self.items.height:,} items). Hand over the RetailData or the "
                    f"frame of receipts instead, which is coded anew, or model.coded(data)."
                )
            return Placed(data, Unplaced(0, 0, self.items[ITEM_ID].clear()), ())
        data = RetailData.of(data)
        placed, unplaced = self.coded(data)
        notes = receipt_notes(unplaced, placed.end - data.start, self.end - self.start)
        return Placed(placed.histories(users), unplaced, notes)

    def eligible(
        self, history: History | Histories, among: Any, k: int
    ) -> tuple[Eligible | None, AmongReport | None]:
        """Given lists in these item codes, and what became of them; None without lists.

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
        bound = lists.bind(self.items, history.users)
        return bound, bound.report(k)


@dataclass(frozen=True)
class Scorer:
    """The fitted parts that turn histories into recommendations; nothing of a request stays here."""

    stage: StageOne
    ranker: Ranker
    calibrator: Calibrator | None
    catalogue: Catalogue
    threads: int = 0

    def answer(
        self,
        data: Any,
        users: Any,
        k: int,
        rules: Rules | None,
        *,
        reasons: bool,
        among: Any,
    ) -> Answer:
        """Lists in the caller's ids, and a report; `TwoStageRecommender.recommend` has the rest."""
        if among is not None and not isinstance(among, Eligible):
            among = as_among(among)
            if users is None and not isinstance(data, History | Histories):
                users = among.users
        history, unplaced, notes = self.catalogue.placed(data, users)
        warn_if_most_is_unknown(unplaced, notes)
        eligible, told = self.catalogue.eligible(history, among, k)
        best, n_empty, bound = self.choose(history, k, rules, eligible)
        lists = self.named(history, best)
        if reasons:
            lists = lists.with_columns(self.reasons(history, best, eligible))
        n_short = int((best.items[:, -1] < 0).sum())
        notes += () if bound is None else bound.notes
        notes += told.sentences(k) if told is not None else short_list_note(n_short, len(history), k)
        report = AnswerReport(
            n_shoppers=len(history),
            n_unknown_shoppers=n_empty,
            n_short=n_short,
            n_events=unplaced.n_events,
            n_unknown_events=unplaced.n_unknown,
            unknown_items=tuple(unplaced.unknown_items[:5].to_list()),
            rules={} if bound is None else bound.effects,
            among={} if told is None else told._asdict(),
            notes=notes,
        )
        return Answer(lists, report)

    def choose(
        self,
        history: History | Histories,
        k: int,
        rules: Rules | None = None,
        eligible: Eligible | None = None,
    ) -> tuple[Candidates, int, BoundRules | None]:
        """Best items, number of empty histories, and the rules with what they did.

        Raises
        ------
        SettingError
            If `k` is below 1, or a rule or its value makes no sense.
        """
        if k < 1:
            raise SettingError(f"recommend: k must be at least 1, not {k}.")
        if not len(history):
            return Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)), 0, None
        items, prices = self.catalogue.items, self.catalogue.prices
        bound = None if rules is None else BoundRules(rules, items, prices, history.end)
        stage = self._stage_for(k)

        def shard(rows: slice) -> tuple[Candidates, int]:
            part = history.take(rows)
            empty = int((np.diff(part.indptr) == 0).sum())
            among = None if eligible is None else eligible.take(rows)
            frame = candidate_frame(part, stage, among=among)
            score = self.ranker.predict(frame.x)
            if bound is None:
                return frame.pool.best(score, k), empty
            probable = self.ranker.gives_probability
            if bound.rules.margin is not None and self.calibrator is not None:
                score, probable = self.calibrator.predict(score), True
            return bound.choose(part, frame.pool.pairs, score, k, probable), empty

        size = SHARD if eligible is None else eligible.shard_size
        parts = list(map_shards(shard, len(history), size=size, threads=n_threads(self.threads)))
        best = Candidates(*(np.vstack(p) for p in zip(*(c for c, _ in parts), strict=True)))
        return best, sum(empty for _, empty in parts), bound

    def reasons(
        self, history: History | Histories, best: Candidates, eligible: Eligible | None = None
    ) -> pl.Series:
        """Why each recommendation was made, in words."""
        labels = self.catalogue.labels
        stage = self._stage_for(best.items.shape[1])

        def shard(rows: slice) -> list[str]:
            part = history.take(rows)
            among = None if eligible is None else eligible.take(rows)
            frame = candidate_frame(part, stage, among=among)
            shopper, rank = np.nonzero(best.items[rows] >= 0)
            if not len(shopper):  # rankers' libraries refuse to explain nothing
                return []
            items = best.items[rows][shopper, rank]
            x = frame.rows_of(shopper, items, part.n_items)
            why = self.ranker.contributions(x)
            return reasons_in_words(x, frame.names, why, shopper, items, part, stage.sources, labels)

        size = SHARD if eligible is None else eligible.shard_size
        texts = [text for part in map_shards(shard, len(history), size=size) for text in part]
        return pl.Series("reasons", texts, pl.String)

    def named(self, history: History | Histories, best: Candidates) -> pl.DataFrame:
        """Recommended codes in the caller's ids."""
        row, rank = np.nonzero(best.items >= 0)
        score = best.scores[row, rank]
        frame = pl.DataFrame(
            {
                USER_ID: history.users[USER_ID].gather(row),
                ITEM_ID: self.catalogue.items[ITEM_ID].gather(best.items[row, rank]),
                "score": score,
                "rank": (rank + 1).astype(np.int32),
            }
        )
        if self.calibrator is None:
            return frame
        return frame.with_columns(probability=pl.Series(self.calibrator.predict(score)))

    def _stage_for(self, k: int) -> StageOne:
        """Stage one with a pool of at least `k` pairs a shopper."""
        return replace(self.stage, pool_size=max(self.stage.pool_size, k))

"""Scoring and naming: from histories to recommendations, with the parts of a fitted model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import Candidates
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import Histories
from retailrec.data.history import History
from retailrec.errors import SettingError
from retailrec.rankers import Ranker
from retailrec.rankers.calibration import Calibrator
from retailrec.recommender.among import Eligible, as_among
from retailrec.recommender.answers import (
    Answer,
    AnswerReport,
    purpose_notes,
    short_list_note,
    warn_if_most_is_unknown,
)
from retailrec.recommender.catalogue import Catalogue
from retailrec.recommender.explanations import reasons_in_words
from retailrec.recommender.greedy import Begun
from retailrec.recommender.purposes import Purpose, check_purpose
from retailrec.recommender.rows import candidate_frame
from retailrec.recommender.rules import BoundRules, Rules, Usable
from retailrec.recommender.slots import Composed, GivenSlots, Slots, check_slots, compose
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import ITEM_ID, USER_ID


class Part(NamedTuple):
    """What scores the candidates of one purpose.

    Attributes
    ----------
    stage : proposes them
    ranker : orders them
    calibrator : turns scores into probabilities; None without calibration
    """

    stage: StageOne
    ranker: Ranker
    calibrator: Calibrator | None


class Wish(NamedTuple):
    """What is asked for each shopper.

    Attributes
    ----------
    k : items a shopper
    slots : how many of each purpose; a single one for a list of one purpose
    rules : business rules
    eligible : the only items to rank
    """

    k: int
    slots: Slots
    rules: Rules | None = None
    eligible: Eligible | None = None

    @classmethod
    def of(
        cls,
        k: int,
        purpose: Purpose,
        slots: GivenSlots | None = None,
        rules: Rules | None = None,
    ) -> Wish:
        """`k` items of a purpose, or what the slots say.

        Raises
        ------
        SettingError
            If there is no such purpose, or slots make no sense.
        """
        check_purpose(purpose, "recommend")
        wanted: Slots = {purpose: k} if slots is None else check_slots(slots)
        return cls(k if slots is None else sum(wanted.values()), wanted, rules)

    @property
    def single(self) -> Purpose | None:
        """The purpose, if there is one only."""
        return next(iter(self.slots)) if len(self.slots) == 1 else None


class Chosen(NamedTuple):
    """Lists in item codes, and what there is to say of them.

    Attributes
    ----------
    lists : items, scores, and the purpose of each slot
    n_empty : shoppers without a purchase that the model knows
    bound : the rules, with what they did
    """

    lists: Composed
    n_empty: int
    bound: BoundRules | None


@dataclass(frozen=True)
class Scorer:
    """The fitted parts that turn histories into recommendations; nothing of a request stays here."""

    parts: Mapping[Purpose, Part]
    catalogue: Catalogue
    threads: int = 0

    def answer(self, data: Any, users: Any, wish: Wish, *, reasons: bool, among: Any) -> Answer:
        """Lists in the caller's ids, and a report; `TwoStageRecommender.recommend` has the rest."""
        if among is not None and not isinstance(among, Eligible):
            among = as_among(among)
            if users is None and not isinstance(data, History | Histories):
                users = among.users
        history, unplaced, notes = self.catalogue.placed(data, users)
        warn_if_most_is_unknown(unplaced, notes)
        k = wish.k
        eligible, told = self.catalogue.eligible(history, among, k)
        wish = wish._replace(eligible=eligible)
        lists, n_empty, bound = self.choose(history, wish)
        frame = self.named(history, lists, wish)
        if reasons:
            frame = frame.with_columns(self.reasons(history, lists, wish))
        n_short = int((lists.best.items[:, -1] < 0).sum())
        notes += () if bound is None else bound.notes
        notes += told.sentences(k) if told is not None else short_list_note(n_short, len(history), k)
        short = {} if wish.single else {str(name): n for name, n in lists.short.items()}
        notes += purpose_notes(wish.slots, short, n_empty, len(history))
        report = AnswerReport(
            n_shoppers=len(history),
            n_unknown_shoppers=n_empty,
            n_short=n_short,
            n_events=unplaced.n_events,
            n_unknown_events=unplaced.n_unknown,
            unknown_items=tuple(unplaced.unknown_items[:5].to_list()),
            rules={} if bound is None else bound.effects,
            among={} if told is None else told._asdict(),
            short_slots=short,
            notes=notes,
        )
        return Answer(frame, report)

    def choose(self, history: History | Histories, wish: Wish) -> Chosen:
        """The best items of each shopper.

        Raises
        ------
        SettingError
            If `k` is below 1, or a rule or its value makes no sense.
        """
        k, rules = wish.k, wish.rules
        if k < 1:
            raise SettingError(f"recommend: k must be at least 1, not {k}.")
        if not len(history):
            return Chosen(_nothing(k, wish.slots), 0, None)
        items, prices = self.catalogue.items, self.catalogue.prices
        bound = None if rules is None else BoundRules(rules, items, prices, history.end)
        picking = bound or BoundRules(Rules(), items, prices, history.end)
        stages = {purpose: self._stage_for(purpose, k) for purpose in wish.slots}

        def shard(rows: slice) -> tuple[Composed, int]:
            part = history.take(rows)
            empty = int((np.diff(part.indptr) == 0).sum())
            among = None if wish.eligible is None else wish.eligible.take(rows)
            usable: dict[Purpose, Usable] = {}
            for purpose, stage in stages.items():
                scorer = self.parts[purpose]
                frame = candidate_frame(part, stage, among=among)
                score = scorer.ranker.predict(frame.x)
                if bound is None and wish.single:
                    return single(frame.pool.best(score, k), purpose), empty
                probable = scorer.ranker.gives_probability
                if picking.rules.margin is not None and scorer.calibrator is not None:
                    score, probable = scorer.calibrator.predict(score), True
                if wish.single:
                    best = picking.choose(part, frame.pool.pairs, score, k, probable)
                    return single(best, purpose), empty
                usable[purpose] = picking.usable(part, frame.pool.pairs, score, k, probable)
            return fill(wish.slots, len(part), picking, usable), empty

        size = SHARD if wish.eligible is None else wish.eligible.shard_size
        parts = list(map_shards(shard, len(history), size=size, threads=n_threads(self.threads)))
        return Chosen(Composed.of([lists for lists, _ in parts]), sum(n for _, n in parts), bound)

    def reasons(self, history: History | Histories, lists: Composed, wish: Wish) -> pl.Series:
        """Why each recommendation was made, in words."""
        labels, best = self.catalogue.labels, lists.best
        stages = {purpose: self._stage_for(purpose, wish.k) for purpose in wish.slots}

        def shard(rows: slice) -> list[str]:
            part = history.take(rows)
            among = None if wish.eligible is None else wish.eligible.take(rows)
            there = best.items[rows] >= 0
            texts = np.full(there.shape, "", object)
            for number, (purpose, stage) in enumerate(stages.items()):
                shopper, rank = np.nonzero(there & (lists.purpose[rows] == number))
                if not len(shopper):  # rankers' libraries refuse to explain nothing
                    continue
                frame = candidate_frame(part, stage, among=among)
                items = best.items[rows][shopper, rank]
                x = frame.rows_of(shopper, items, part.n_items)
                why = self.parts[purpose].ranker.contributions(x)
                texts[shopper, rank] = reasons_in_words(
                    *(x, frame.names, why, shopper, items, part, stage.sources, labels),
                    listed=among is not None,
                )
            return list(texts[there])

        size = SHARD if wish.eligible is None else wish.eligible.shard_size
        texts = [text for part in map_shards(shard, len(history), size=size) for text in part]
        return pl.Series("reasons", texts, pl.String)

    def named(self, history: History | Histories, lists: Composed, wish: Wish) -> pl.DataFrame:
        """Recommended codes in the caller's ids."""
        best = lists.best
        row, rank = np.nonzero(best.items >= 0)
        score, number = best.scores[row, rank], lists.purpose[row, rank]
        frame = pl.DataFrame(
            {
                USER_ID: history.users[USER_ID].gather(row),
                ITEM_ID: self.catalogue.items[ITEM_ID].gather(best.items[row, rank]),
                "score": score,
                "rank": (rank + 1).astype(np.int32),
            }
        )
        calibrators = [self.parts[purpose].calibrator for purpose in wish.slots]
        probable = [c.predict(score) for c in calibrators if c is not None]
        if len(probable) == len(calibrators):
            frame = frame.with_columns(probability=pl.Series(np.choose(number, probable)))
        if wish.single:
            return frame
        names = pl.Series(list(wish.slots), dtype=pl.String)
        return frame.with_columns(purpose=names.gather(number))

    def _stage_for(self, purpose: Purpose, k: int) -> StageOne:
        """Stage one with a pool of at least `k` pairs a shopper."""
        stage = self.parts[purpose].stage
        return replace(stage, pool_size=max(stage.pool_size, k))


def single(best: Candidates, purpose: Purpose) -> Composed:
    """Lists of one purpose."""
    number = np.where(best.items >= 0, 0, -1).astype(np.int8)
    return Composed(best, number, {purpose: int((best.items[:, -1] < 0).sum())})


def fill(slots: Slots, n_users: int, rules: BoundRules, usable: Mapping[Purpose, Usable]) -> Composed:
    """The slots filled with the usable candidates of each purpose, under one set of rules."""

    def pick(purpose: Purpose, begun: Begun) -> tuple[Candidates, NDArray[np.int64]]:
        best = rules.pick(usable[purpose], begun)
        return best, usable[purpose].count_new(best)

    return compose(slots, n_users, pick)


def _nothing(k: int, slots: Slots) -> Composed:
    """Lists of nobody."""
    best = Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))
    return Composed(best, np.zeros((0, k), np.int8), dict.fromkeys(slots, 0))

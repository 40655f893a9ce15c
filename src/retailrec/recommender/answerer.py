"""The answerer: users' candidates retrieved, scored, ruled, composed and explained in one visit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates import Candidates
from retailrec.candidates.pool import Pool
from retailrec.compute.csr import find_listed
from retailrec.compute.shards import SHARD, map_shards, n_threads
from retailrec.data import Histories
from retailrec.data.history import History, Pairs
from retailrec.rankers import Ranker
from retailrec.rankers.base import Calibrator
from retailrec.recommender.among import Eligible
from retailrec.recommender.answers import Answer, AnswerReport
from retailrec.recommender.catalogue import Catalogue
from retailrec.recommender.dismissals import Dismissed, holding
from retailrec.recommender.explanations import reasons_in_words
from retailrec.recommender.exploration import MOST_NEW, NEW_DAYS, Explored, draw_lists, spare_items
from retailrec.recommender.purposes import Purpose
from retailrec.recommender.request import Request, Slots
from retailrec.recommender.rules import Begun, BoundRules, Rules, Usable
from retailrec.recommender.stage_one import StageOne, candidate_frame
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


class Scored(NamedTuple):
    """The candidates of one purpose, with the ranker's scores.

    Attributes
    ----------
    part : scored them
    pool : the pairs
    score : (n_pairs,)
    x : (n_pairs, n_columns) what the ranker saw; None where no reasons are asked for
    listed : are the pairs those of given lists, whatever is proposed?
    """

    part: Part
    pool: Pool
    score: NDArray[np.float32]
    x: NDArray[np.float32] | None
    listed: bool


@dataclass(frozen=True)
class Answerer:
    """The fitted parts that turn histories into lists; nothing of a request stays here.

    A batch asks with many histories, the service with one, a task on a cluster with those of its
    partition.

    Attributes
    ----------
    parts : what scores the candidates of each purpose that will be asked for
    catalogue : items in the model's coding
    threads : shards of users that are answered at a time; 0: all cores
    """

    parts: Mapping[Purpose, Part]
    catalogue: Catalogue
    threads: int = 0

    def answer(
        self,
        histories: History | Histories,
        request: Request,
        eligible: Eligible | None = None,
        *,
        rules: BoundRules | None = None,
        denied: Pairs | None = None,
    ) -> Answer:
        """Lists of all histories, each shard of users visited once.

        Parameters
        ----------
        histories : in the model's item codes
        eligible : the request's eligible items in these codes
        rules : the request's rules in these codes; by default they are bound here
        denied : items never to be listed, by history row

        Raises
        ------
        SettingError
            If a rule or its value makes no sense.
        """
        frames = (request.rules, request.dismissals, request.previous)
        ruled = request.explore > 0 or any(one is not None for one in frames)
        if rules is None and len(histories) and (ruled or denied is not None or request.slots):
            rules = self.bound(request, histories)

        def visit(rows: slice) -> Answer:
            part = histories.take(rows)
            among = None if eligible is None else eligible.take(rows)
            scored = self.score(part, request, among)
            return self.compose(
                part, scored, request, rules, None if denied is None else denied.rows(rows)
            )

        if not len(histories):
            return self._nothing(histories, request)
        size = SHARD if eligible is None else eligible.shard_size
        parts = map_shards(visit, len(histories), size=size, threads=n_threads(self.threads))
        answer = Answer.sum(list(parts))
        if rules is None:
            return answer
        return replace(answer, report=replace(answer.report, rules=rules.effects, notes=rules.notes))

    def bound(self, request: Request, histories: History | Histories) -> BoundRules:
        """The request's rules in these item codes, as they hold at the histories' end."""
        catalogue, dismissed, end = self.catalogue, None, histories.end
        if request.dismissals is not None:
            said = holding(request.dismissals, end, request.at)
            dismissed = Dismissed(said, catalogue.items)
        rules = Rules() if request.rules is None else request.rules
        bound = BoundRules(
            rules,
            catalogue.items,
            catalogue.prices,
            end,
            request.in_store,
            dismissed,
            request.previous,
            request.steady,
        )
        for who, frame in (
            ("the dismissals", request.dismissals),
            ("the previous lists", request.previous),
        ):
            if frame is not None:
                bound.note_items(frame, who, share=0, refuse=False)
        return bound

    def score(
        self, part: History, request: Request, among: Pairs | None = None
    ) -> dict[Purpose, Scored]:
        """Candidates for each purpose, at least k a user (or the explored pool's), and their scores."""
        scored, least = {}, max(request.k, request.pool) if request.explore else request.k
        for purpose in request.by_purpose:
            fitted = self.parts[purpose]
            stage = replace(fitted.stage, pool_size=max(fitted.stage.pool_size, least))
            beside = stage.new_items(NEW_DAYS, MOST_NEW) if request.fresh else None
            frame = candidate_frame(part, stage, among=among, beside=beside)
            score = fitted.ranker.predict(frame.x)
            x = frame.x if request.reasons else None
            scored[purpose] = Scored(fitted, frame.pool, score, x, among is not None)
        return scored

    def compose(
        self,
        part: History,
        scored: Mapping[Purpose, Scored],
        request: Request,
        rules: BoundRules | None,
        denied: Pairs | None = None,
    ) -> Answer:
        """The best candidates for the request's slots under the rules, and why."""
        slots, k = request.by_purpose, request.k
        usable: dict[Purpose, Usable] = {}
        for purpose, one in scored.items():
            if rules is None:
                break
            score, probable = one.score, one.part.ranker.gives_probability
            if rules.rules.margin is not None and one.part.calibrator is not None:
                score, probable = one.part.calibrator.predict(score), True
            usable[purpose] = rules.usable(part, one.pool.pairs, score, k, probable, denied)
        if rules is None:
            (one,) = scored.values()
            best = one.pool.best(one.score, k)
            purpose_of = np.where(best.items >= 0, 0, -1).astype(np.int8)
            short: dict[str, int] = {}
        else:
            proposed = {
                purpose: one if (beside := scored[purpose].pool.beside) is None else _only(one, ~beside)
                for purpose, one in usable.items()
            }
            best, purpose_of, short = _filled(slots, len(part), rules, proposed)
        explored = None
        if request.explore and rules is not None:
            explored = self._explored(part, request, rules, usable, best, purpose_of)
            best, purpose_of = _drawn(explored)
        places = [find_listed(o.pool.indptr, o.pool.items, best.items) for o in scored.values()]
        report = AnswerReport(
            n_shoppers=len(part),
            n_unknown_shoppers=int((np.diff(part.indptr) == 0).sum()),
            n_short=int((best.items[:, -1] < 0).sum()),
            short_slots=short if len(slots) > 1 else {},
        )
        return Answer(
            part.users[USER_ID],
            self.catalogue.items[ITEM_ID],
            best,
            tuple(slots),
            purpose_of,
            _probabilities(list(scored.values()), places, purpose_of),
            self._reasons(part, list(scored.values()), places, best, purpose_of)
            if request.reasons
            else None,
            report,
            explored,
        )

    def _explored(
        self,
        part: History,
        request: Request,
        rules: BoundRules,
        usable: Mapping[Purpose, Usable],
        best: Candidates,
        purpose_of: NDArray[np.int8],
    ) -> Explored:
        """The lists' pools, and what is drawn from them."""
        n, k = best.items.shape
        shape = (n, request.pool)
        items = np.full(shape, -1, np.int32)
        scores, purpose = np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int8)
        items[:, :k], scores[:, :k], purpose[:, :k] = best.items, best.scores, purpose_of
        end = np.full(n, k)
        spare = spare_items(request)
        sought = [(number, *of) for number, of in enumerate(zip(usable.values(), spare, strict=True))]
        if request.fresh:  # of a list of one purpose
            ((number, one, most),) = sought
            new = self.parts[request.purpose].stage.new_items(NEW_DAYS, MOST_NEW)
            only = _only(one, np.isin(one.pairs.items, new))
            sought = [(number, only, request.fresh), (number, one, most - request.fresh)]
        for number, one, most in sought:
            more = rules.pick_beside(one, Candidates(items, scores), np.full(n, most))
            row, rank = np.nonzero(more.items >= 0)
            place = end[row] + rank
            items[row, place], scores[row, place] = more.items[row, rank], more.scores[row, rank]
            purpose[row, place] = number
            end = end + np.bincount(row, minlength=n)
        stratum = purpose.astype(np.int64) * 2
        if rules.rules.min_new:
            for number, one in enumerate(usable.values()):
                found = find_listed(one.pairs.indptr, one.pairs.items, items)
                stratum += (purpose == number) & np.append(one.is_new, False)[found]
        return draw_lists(items, scores, purpose, stratum, request, part.users[USER_ID], part.end)

    def _reasons(
        self,
        part: History,
        scored: list[Scored],
        places: list[NDArray[np.int64]],
        best: Candidates,
        purpose: NDArray[np.int8],
    ) -> NDArray[np.object_]:
        """(n_users, k) why each item was chosen, in words; empty where there is none."""
        texts = np.full(best.items.shape, "", object)
        for number, (one, place) in enumerate(zip(scored, places, strict=True)):
            user, rank = np.nonzero(purpose == number)
            if not len(user) or one.x is None:
                continue  # rankers' libraries refuse to explain nothing
            x = np.asfortranarray(one.x[place[user, rank]])  # rankers read by column
            texts[user, rank] = reasons_in_words(
                x,
                one.part.stage.column_names,
                one.part.ranker.contributions(x),
                user,
                best.items[user, rank],
                part,
                one.part.stage.sources,
                self.catalogue.labels,
                listed=one.listed,
            )
        return texts

    def _nothing(self, histories: History | Histories, request: Request) -> Answer:
        """Lists of no user."""
        k = request.k
        best = Candidates(np.zeros((0, k), np.int32), np.zeros((0, k), np.float32))
        calibrated = all(self.parts[p].calibrator is not None for p in request.by_purpose)
        return Answer(
            histories.users[USER_ID],
            self.catalogue.items[ITEM_ID],
            best,
            tuple(request.by_purpose),
            np.zeros((0, k), np.int8),
            np.zeros((0, k), np.float32) if calibrated else None,
            np.zeros((0, k), object) if request.reasons else None,
            AnswerReport(0, short_slots=dict.fromkeys(request.slots or {}, 0)),
            Explored.of_nobody(request) if request.explore else None,
        )


def _filled(
    slots: Slots, n_users: int, rules: BoundRules, usable: Mapping[Purpose, Usable]
) -> tuple[Candidates, NDArray[np.int8], dict[str, int]]:
    """The slots filled purpose by purpose, in their order; what one leaves empty the others fill.

    Items and scores, the place of each item's purpose, and for each purpose the users for whom it had
    fewer items than slots.
    """
    k = sum(slots.values())
    items = np.full((n_users, k), -1, np.int32)
    scores = np.full((n_users, k), -np.inf, np.float32)
    purpose_of = np.full((n_users, k), -1, np.int8)
    n_listed, n_new = np.zeros(n_users, np.int64), np.zeros(n_users, np.int64)
    short: dict[str, int] = dict.fromkeys(slots, 0)
    for filling_up in (False, True):
        for number, (purpose, asked) in enumerate(slots.items()):
            room = k - n_listed
            wanted = room if filling_up else np.minimum(asked, room)
            if not wanted.any() or (filling_up and len(slots) == 1):
                continue
            best = rules.pick(usable[purpose], Begun(items, n_new, room, wanted))
            n_new = n_new + usable[purpose].count_new(best)
            row, rank = np.nonzero(best.items >= 0)
            place = n_listed[row] + rank
            items[row, place], scores[row, place] = best.items[row, rank], best.scores[row, rank]
            purpose_of[row, place] = number
            found = np.bincount(row, minlength=n_users)
            n_listed = n_listed + found
            if not filling_up:
                short[purpose] = int((found < asked).sum())
    return Candidates(items, scores), purpose_of, short


def _only(usable: Usable, keep: NDArray[np.bool_]) -> Usable:
    """The same, some pairs alone."""
    order = usable.order
    return usable._replace(
        score=np.where(keep, usable.score, -np.inf).astype(np.float32),
        order=None if order is None else np.where(keep, order, -np.inf).astype(np.float32),
    )


def _drawn(explored: Explored) -> tuple[Candidates, NDArray[np.int8]]:
    """Items and scores listed, and each item's purpose."""
    empty = explored.listed < 0
    items = np.where(empty, -1, explored.of_list(explored.items)).astype(np.int32)
    scores = np.where(empty, -np.inf, explored.of_list(explored.scores)).astype(np.float32)
    return (
        Candidates(items, scores),
        np.where(empty, -1, explored.of_list(explored.purpose)).astype(np.int8),
    )


def _probabilities(
    scored: list[Scored], places: list[NDArray[np.int64]], purpose: NDArray[np.int8]
) -> NDArray[np.float32] | None:
    """(n_users, k) probability of each chosen item, by its score; None unless all are calibrated."""
    found = np.full(purpose.shape, np.nan, np.float32)
    for number, (one, place) in enumerate(zip(scored, places, strict=True)):
        if one.part.calibrator is None:
            return None
        mine = purpose == number
        found[mine] = one.part.calibrator.predict(one.score[place[mine]])
    return found

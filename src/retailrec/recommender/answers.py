"""Answers: lists of users, and what there is to know about the request that they answer."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property, reduce
from operator import add
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data import Unplaced
from retailrec.data.history import Candidates
from retailrec.data.parsing import as_instant
from retailrec.errors import RetailRecWarning, SettingError
from retailrec.recommender.among import AmongReport
from retailrec.recommender.exploration import Explored
from retailrec.recommender.purposes import Purpose
from retailrec.recommender.request import Request
from retailrec.schema import ITEM_ID, POOL, USER_ID

Effects = dict[str, dict[str, int]]  # rule -> removed, bound, gave_way
Amounts = Counter[str]  # what lines say of money; those of parts add up
_SHORT_HISTORY = 0.5  # share of the fitted span below which receipts look cut off
_BEHIND, _AHEAD = timedelta(days=7), timedelta(days=182)  # ends apart by more than that are said
CROWD = 20  # of so many users somebody comes in every week
_LINES = 200_000  # lines that are looked at, of all
_SOME = 50  # lines below which nothing is said of their amounts
_MANY = 20  # users, of whom a ban is expected to meet one
EXAMPLES = 5  # ids of unknown items that are named
_COUNTS = ("n_shoppers", "n_unknown_shoppers", "n_short", "n_events", "n_unknown_events")


class ReceiptFacts(NamedTuple):
    """What there is to say of the receipts that came with a request.

    Attributes
    ----------
    unplaced : lines, and those of items that the model does not know
    first, end : time of the first receipt, and the instant after the last one
    fitted : the same of `fit`
    n_users : users who have receipts
    amounts : what lines say of money: `count_amounts`
    had : ``value`` and ``quantity`` -> did the receipts of `fit` have it? Absent where not known
    zones : of the times of `fit`, and of these; None where they tell none
    """

    unplaced: Unplaced
    first: datetime
    end: datetime
    fitted: tuple[datetime, datetime]
    n_users: int
    amounts: Amounts
    had: Mapping[str, bool]
    zones: tuple[str | None, str | None] = (None, None)

    @property
    def none_known(self) -> bool:
        """Are there lines, and all of items that the model does not know?"""
        return 0 < self.unplaced.n_events == self.unplaced.n_unknown

    @property
    def notes(self) -> tuple[str, ...]:
        """What a caller should know of them."""
        unplaced, notes = self.unplaced, []
        examples = ", ".join(repr(item) for item in unplaced.unknown_items[:EXAMPLES].to_list())
        if self.none_known:
            notes.append(
                f"None of the {unplaced.n_events:,} receipt lines is of an item that the model knows "
                f"(items such as {examples}); every list is that of an unknown shopper. Are the "
                f"receipts of the shop that the model was fitted on, with ids written alike?"
            )
        elif unplaced.n_unknown * 2 > unplaced.n_events:
            notes.append(
                f"{unplaced.n_unknown:,} of {unplaced.n_events:,} receipt lines are of items that the "
                f"model does not know (such as {examples}) and are left out; lists rest on the others. "
                f"Fit anew if the range has changed, and check that ids are written alike."
            )
        if unplaced.n_events:
            notes += [*self._of_time(), *self._of_money()]
        else:
            notes.append(
                f"No receipt is known before {self.end:%Y-%m-%d}; every list is that of an unknown "
                f"shopper."
            )
        return tuple(notes)

    def before(self, at: datetime) -> ReceiptFacts:
        """What there is to say if only receipts before an instant are known."""
        unplaced = self.unplaced if self.first < at else self.unplaced._replace(n_events=0, n_unknown=0)
        return self._replace(end=at, unplaced=unplaced)

    def _of_time(self) -> Iterator[str]:
        start, end = self.fitted
        fitted_span, span = end - start, max(self.end, end) - self.first
        behind, ends = end - self.end, f"The receipts end before {self.end:%Y-%m-%d}"
        fitted, now = self.zones
        instant = self.end.replace(tzinfo=UTC)
        clocks = {as_instant(instant, who="receipts", zone=zone) for zone in self.zones}
        if fitted and now and len(clocks) > 1:
            yield (
                f"Times of the receipts are in zone {now}, those that the model was fitted on in "
                f"{fitted}: hours, days and the end of the receipts are of another clock. Convert them."
            )
        if behind > fitted_span or (behind > _BEHIND and self.n_users >= CROWD):
            yield (
                f"{ends}, {behind.days:,} days before those that the model was fitted on "
                f"({end:%Y-%m-%d}). Lists are made as of {end:%Y-%m-%d}, and what was bought in "
                f"between is not known: is it an old file, or does its time count from another day?"
            )
        elif -behind > max(fitted_span, _AHEAD):
            yield (
                f"{ends}, {-behind.days:,} days after those that the model was fitted on "
                f"({end:%Y-%m-%d}). Fit anew, or check how the time is written."
            )
        if span < fitted_span * _SHORT_HISTORY:
            yield (
                f"The receipts reach back {span.days:,} days; the model was fitted on "
                f"{fitted_span.days:,}. A request needs all receipts so far, not only the newest: "
                f"what was bought earlier counts as never bought."
            )

    def _of_money(self) -> Iterator[str]:
        seen, n = self.amounts, self.amounts["lines"]
        if n < _SOME:
            return
        if self.had.get("value") and seen["value"] * 2 < n:
            lack = "have no money (value or price)" if not seen["value"] else "mostly have no value"
            yield (
                f"The receipts {lack}, which those of the fit had; what the model learnt of prices and "
                f"spending is missing from these lists. Bring the column as in the fit."
            )
        if self.had.get("quantity") and not seen["quantity"]:
            yield (
                "Every quantity is 1, or the column quantity is missing; the receipts of the fit had "
                "other quantities. Bring the column as in the fit."
            )
        powers = {name: k for name, k in seen.items() if name.startswith("10^")}
        far = Counter({name: k for name, k in powers.items() if name != "10^0"})
        if far.total() * 2 > sum(powers.values()) >= _SOME:
            (power, _), *_ = far.most_common(1)
            size = int(power[3:])
            times = f"{10**size:,} times" if size > 0 else f"1/{10**-size:,} of"
            yield (
                f"Unit prices are far from those of the fit, mostly about {times} them: is the money "
                f"in another unit or currency, or is value that of one piece? Write it as in the fit."
            )

    def warn_if_most_is_unknown(self) -> None:
        """Say it loudly when most of what came could not be used."""
        if self.unplaced.n_unknown * 2 > self.unplaced.n_events:
            warnings.warn(self.notes[0], RetailRecWarning, stacklevel=4)


def count_amounts(log: pl.DataFrame, prices: NDArray[np.float64]) -> Amounts:
    """How many lines (of at most some 200,000) say what of money; counts of parts add up.

    ``lines``, of these with a ``value``, with a ``quantity`` other than 1, and with a unit price that
    is so many powers of ten (``10^2``) times the item's own in `prices`.

    Examples
    --------
    >>> log = pl.DataFrame({"item": [0, 0, 1], "quantity": [1.0, 2.0, 1.0], "value": [250, 450, None]})
    >>> sorted(count_amounts(log, np.array([2.5, np.nan])).items())
    [('10^2', 2), ('lines', 3), ('quantity', 1), ('value', 2)]
    """
    log = log.gather_every(-(-log.height // _LINES)) if log.height > _LINES else log
    quantity, value = (log[c].cast(pl.Float64).to_numpy() for c in ("quantity", "value"))
    known = log["value"].is_not_null().to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        power = np.log10(value / quantity / prices[log["item"].to_numpy()])
    powers, n = np.unique(np.rint(power[np.isfinite(power)]).astype(int), return_counts=True)
    counted = {f"10^{p}": int(k) for p, k in zip(powers, n, strict=True)}
    of_columns = {"value": int(known.sum()), "quantity": int((quantity != 1).sum())}
    return Counter({"lines": log.height} | of_columns | counted)


@dataclass(frozen=True)
class AnswerReport:
    """What became of a request.

    Attributes
    ----------
    n_shoppers : users answered for
    n_unknown_shoppers : those without a single event that the model can use
    n_short : users who got fewer items than asked for
    n_events, n_unknown_events : receipt lines that came, and those of items unknown to the model
    unknown_items : up to five ids of such items
    rules : rule -> ``removed`` (candidates), ``bound`` (users whose list it changed), ``gave_way``
        (users whose list could not keep to it)
    among : what became of given lists of items, as counts; see `AmongReport`
    short_slots : purpose -> users for whom it had fewer items than slots; others filled up
    notes : sentences about what a caller should know
    """

    n_shoppers: int
    n_unknown_shoppers: int = 0
    n_short: int = 0
    n_events: int = 0
    n_unknown_events: int = 0
    unknown_items: tuple[object, ...] = ()
    rules: Effects = field(default_factory=dict)
    among: dict[str, int] = field(default_factory=dict)
    short_slots: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __add__(self, other: AnswerReport) -> AnswerReport:
        """The report of both parts of one request."""
        return replace(
            self,
            **{name: getattr(self, name) + getattr(other, name) for name in _COUNTS},
            unknown_items=tuple(dict.fromkeys((*self.unknown_items, *other.unknown_items))),
            rules=_add_effects(self.rules, other.rules),
            short_slots=_add(self.short_slots, other.short_slots),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )

    @classmethod
    def sum(cls, parts: Iterable[AnswerReport]) -> AnswerReport:
        """The report of all parts of one request."""
        return reduce(add, parts, cls(0))

    def completed(
        self, request: Request, receipts: ReceiptFacts | None, among: AmongReport | None
    ) -> AnswerReport:
        """The report of the whole, with its notes: the one place where they are put together.

        Parameters
        ----------
        receipts : facts of the receipts that came; None: the histories were at hand
        among : what became of the eligible items; None: none were given
        """
        slots, k, n = request.by_purpose, request.k, self.n_shoppers
        report = self
        if receipts is not None:
            unplaced = receipts.unplaced
            report = replace(
                report,
                n_events=unplaced.n_events,
                n_unknown_events=unplaced.n_unknown,
                unknown_items=tuple(unplaced.unknown_items[:EXAMPLES].to_list()),
            )
        if among is None:
            short = _short_list_note(report.n_short, n, k)
        else:
            short, report = among.sentences(k), replace(report, among=among._asdict())
        of_receipts = () if receipts is None else receipts.notes
        of_purpose = purpose_notes(slots, report.short_slots, report.n_unknown_shoppers, n)
        notes = of_receipts + report.notes + short + of_purpose + _idle_ban_note(report.rules, n)
        return replace(report, notes=notes)


@dataclass(frozen=True, eq=False)
class Answer:
    """Lists of some users, and their report; answers to parts of a request add up.

    Attributes
    ----------
    users : (n_users,) ids
    catalogue : ids of the items, by code
    best : (n_users, k) item codes and scores, each by the ranker of its purpose; -1 where there is none
    purposes : what was asked for, in order
    purpose : (n_users, k) int8, place of the item's purpose in `purposes`; -1 where there is no item
    probability : (n_users, k) of purchase within the horizon; None unless all rankers are calibrated
    reasons : (n_users, k) text; None unless asked for
    report : counts of what could not be used, and what rules did
    explored : the pools that lists were drawn from; None without exploration
    """

    users: pl.Series
    catalogue: pl.Series
    best: Candidates
    purposes: tuple[Purpose, ...]
    purpose: NDArray[np.int8]
    probability: NDArray[np.float32] | None
    reasons: NDArray[np.object_] | None
    report: AnswerReport
    explored: Explored | None = None

    def __add__(self, other: Answer) -> Answer:
        """The lists of both, one below the other, and the sum of their reports."""
        return replace(
            self,
            users=pl.concat([self.users, other.users]),
            best=Candidates(*(np.vstack(pair) for pair in zip(self.best, other.best, strict=True))),
            purpose=np.vstack([self.purpose, other.purpose]),
            probability=_below(self.probability, other.probability),
            reasons=_below(self.reasons, other.reasons),
            explored=_pools_below(self.explored, other.explored),
            report=self.report + other.report,
        )

    @classmethod
    def sum(cls, parts: Sequence[Answer]) -> Answer:
        """All parts together, in order; halves are added first, so that rows are copied seldom."""
        if len(parts) <= 2:
            return reduce(add, parts)
        half = len(parts) // 2
        return cls.sum(parts[:half]) + cls.sum(parts[half:])

    @cached_property
    def lists(self) -> pl.DataFrame:
        """`user_id`, `item_id`, `score`, `rank`, and what there is of other columns.

        These are `probability`, `purpose`, `reasons` and, of explored lists, `propensity`.
        """
        row, rank = np.nonzero(self.best.items >= 0)
        columns: dict[str, Any] = {
            USER_ID: self.users.gather(row),
            ITEM_ID: self.catalogue.gather(self.best.items[row, rank]),
            "score": self.best.scores[row, rank],
            "rank": (rank + 1).astype(np.int32),
        }
        if self.probability is not None:
            columns["probability"] = self.probability[row, rank]
        if len(self.purposes) > 1:
            names = pl.Series(self.purposes, dtype=pl.String)
            columns["purpose"] = names.gather(self.purpose[row, rank])
        if self.reasons is not None:
            columns["reasons"] = pl.Series(self.reasons[row, rank].tolist(), dtype=pl.String)
        if self.explored is not None:
            columns["propensity"] = self.explored.of_list(self.explored.propensity)[row, rank]
        return pl.DataFrame(columns)

    def exposures(
        self, policy: str, time: datetime, *, arm: str = "", shown_only: bool = False
    ) -> pl.DataFrame:
        """A row for every item of the explored pools, listed or not, in the columns of `POOL`.

        A request is called by policy, time and user, so that the same one has the same name.

        Parameters
        ----------
        policy : what proposed the lists, such as the model's name
        time : when they are shown or sent
        arm : of an experiment
        shown_only : only what is listed, k / pool of the rows: enough for caps, not for judging lists

        Raises
        ------
        SettingError
            If the request did not explore.
        """
        found = self.explored
        if found is None:
            raise SettingError(
                "exposures: lists were not explored, so there is no pool; ask with explore=0.1, say."
            )
        there, time = found.items >= 0, as_instant(time, who="time")
        row, place = np.nonzero(found.shown if shown_only else there)
        frame = pl.DataFrame(
            {
                USER_ID: self.users.gather(row).cast(pl.String),
                ITEM_ID: self.catalogue.gather(found.items[row, place]),
                "score": found.scores[row, place],
                "propensity": found.propensity[row, place],
                "shown": found.shown[row, place],
                "rank": np.cumsum(there, axis=1)[row, place],
                "pool": there.sum(axis=1)[row],
            }
        ).with_columns(
            request=pl.lit(f"{policy} {time.isoformat()} ") + pl.col(USER_ID),
            time=pl.lit(time),
            policy=pl.lit(policy),
            arm=pl.lit(arm),
        )
        return frame.select(pl.col(name).cast(kind) for name, kind in POOL.items())


def _below(one: Any, other: Any) -> Any:
    return None if one is None else np.vstack([one, other])


def _pools_below(one: Explored | None, other: Explored | None) -> Explored | None:
    if one is None or other is None:
        return None
    return Explored(*(_below(*pair) for pair in zip(one, other, strict=True)))


def _add_effects(one: Effects, other: Effects) -> Effects:
    """What rules did in two parts of a request together."""
    names = {**one, **other}
    return {name: _add(one.get(name, {}), other.get(name, {})) for name in names}


def _add(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def purpose_notes(
    slots: Mapping[Purpose, int], short: Mapping[str, int], n_empty: int, n_shoppers: int
) -> tuple[str, ...]:
    """What to say of lists for a purpose.

    Parameters
    ----------
    slots : how many items of each purpose were asked for
    short : purpose -> users for whom it had fewer
    n_empty : users without a purchase that the model knows

    Examples
    --------
    >>> purpose_notes({"replenish": 5}, {}, 2, 10)
    ("2 of 10 shoppers have no purchases to replenish, so they get no list; ask for purpose='mixed' or \
for slots.",)
    >>> purpose_notes({"replenish": 3, "discover": 2}, {"replenish": 4, "discover": 0}, 2, 10)
    ('replenish had fewer than 3 items for 4 of 10 shoppers; discover filled up.',)
    """
    if list(slots) == ["replenish"] and n_empty:
        return (
            f"{n_empty:,} of {n_shoppers:,} shoppers have no purchases to replenish, so they get no "
            f"list; ask for purpose='mixed' or for slots.",
        )
    return tuple(
        f"{name} had fewer than {slots[name]} items for {short[name]:,} of {n_shoppers:,} shoppers; "
        f"{' and '.join(other for other in slots if other != name)} filled up."
        for name in slots
        if short.get(name)
    )


def _idle_ban_note(rules: Effects, n_shoppers: int) -> tuple[str, ...]:
    """What to say of bans that kept nothing from any of many users, as where a value is mistyped."""
    removed: dict[str, int] = {}
    for rule, effect in rules.items():
        if rule.startswith("forbid"):
            ban = rule.partition(" (")[0]
            removed[ban] = removed.get(ban, 0) + effect["removed"]
    idle = [ban for ban, n in removed.items() if not n]
    if not idle or n_shoppers < _MANY:
        return ()
    return (
        f"rules: {', '.join(idle)} kept no candidate from any of {n_shoppers:,} shoppers; if some are "
        f"meant, compare the values of `when` with those that the table of users has.",
    )


def _short_list_note(n_short: int, n_shoppers: int, k: int) -> tuple[str, ...]:
    """What to say of lists with fewer than `k` items."""
    if not n_short:
        return ()
    return (
        f"{n_short:,} of {n_shoppers:,} shoppers got fewer than k={k} items, since sources propose no "
        f"more for them (or rules leave no more); raise n_candidates, or ask for fewer.",
    )

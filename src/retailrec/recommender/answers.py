"""Answers: recommendations, and what there is to know about the request that they answer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import polars as pl

from retailrec.data import Unplaced
from retailrec.errors import RetailRecWarning
from retailrec.recommender.purposes import Purpose

Effects = dict[str, dict[str, int]]  # rule -> removed, bound, gave_way
_SHORT_HISTORY = 0.5  # share of the fitted span below which receipts look cut off
_EXAMPLES = 5


@dataclass(frozen=True)
class AnswerReport:
    """What became of a request.

    Attributes
    ----------
    n_shoppers : shoppers answered for
    n_unknown_shoppers : those without a single event that the model can use
    n_short : shoppers who got fewer items than asked for
    n_events, n_unknown_events : receipt lines that came, and those of items unknown to the model
    unknown_items : up to five ids of such items
    rules : rule -> ``removed`` (candidates), ``bound`` (shoppers whose list it changed), ``gave_way``
        (shoppers whose list could not keep to it)
    among : what became of given lists of items, as counts; see `AmongReport`
    short_slots : purpose -> shoppers for whom it had fewer items than slots; others filled up
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
        """The report of both parts of one request; what is said of the receipts is said once."""
        return replace(
            self,
            n_shoppers=self.n_shoppers + other.n_shoppers,
            n_unknown_shoppers=self.n_unknown_shoppers + other.n_unknown_shoppers,
            n_short=self.n_short + other.n_short,
            rules=add_effects(self.rules, other.rules),
            short_slots=_add(self.short_slots, other.short_slots),
            notes=tuple(dict.fromkeys((*self.notes, *other.notes))),
        )


@dataclass(frozen=True)
class Answer:
    """Recommendations and their report.

    Attributes
    ----------
    lists : frame of `user_id`, `item_id`, `score`, `rank`, and `probability` and `reasons` if asked for
    report : counts of what could not be used, and what rules did
    """

    lists: pl.DataFrame
    report: AnswerReport


def add_effects(one: Effects, other: Effects) -> Effects:
    """What rules did in two parts of a request together."""
    total = {rule: dict(counts) for rule, counts in one.items()}
    for rule, counts in other.items():
        so_far = total.setdefault(rule, dict.fromkeys(counts, 0))
        for name, n in counts.items():
            so_far[name] = so_far.get(name, 0) + n
    return total


def _add(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


def purpose_notes(
    slots: Mapping[Purpose, int], short: Mapping[str, int], n_empty: int, n_shoppers: int
) -> tuple[str, ...]:
    """What to say of lists for a purpose.

    Parameters
    ----------
    slots : how many items of each purpose were asked for
    short : purpose -> shoppers for whom it had fewer
    n_empty : shoppers without a purchase that the model knows

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


def receipt_notes(unplaced: Unplaced, span: timedelta, fitted_span: timedelta) -> tuple[str, ...]:
    """What to say of the receipts that came with a request.

    Parameters
    ----------
    span, fitted_span : time from the first receipt to the present, of the request and of `fit`
    """
    notes = []
    examples = ", ".join(repr(item) for item in unplaced.unknown_items[:_EXAMPLES].to_list())
    if unplaced.n_unknown and unplaced.n_unknown == unplaced.n_events:
        notes.append(
            f"None of the {unplaced.n_events:,} receipt lines is of an item that the model knows "
            f"(items such as {examples}); every list is that of an unknown shopper. Are the receipts "
            f"of the shop that the model was fitted on, with ids written alike?"
        )
    elif unplaced.n_unknown * 2 > unplaced.n_events:
        notes.append(
            f"{unplaced.n_unknown:,} of {unplaced.n_events:,} receipt lines are of items that the "
            f"model does not know (such as {examples}) and are left out; lists rest on the others. "
            f"Fit anew if the range has changed, and check that ids are written alike."
        )
    if unplaced.n_events and span < fitted_span * _SHORT_HISTORY:
        notes.append(
            f"The receipts reach back {span.days:,} days; the model was fitted on "
            f"{fitted_span.days:,}. A request needs all receipts so far, not only the newest: what was "
            f"bought earlier counts as never bought."
        )
    return tuple(notes)


def short_list_note(n_short: int, n_shoppers: int, k: int) -> tuple[str, ...]:
    """What to say of lists with fewer than `k` items."""
    if not n_short:
        return ()
    return (
        f"{n_short:,} of {n_shoppers:,} shoppers got fewer than k={k} items, since sources propose no "
        f"more for them (or rules leave no more); raise n_candidates, or ask for fewer.",
    )


def warn_if_most_is_unknown(unplaced: Unplaced, notes: tuple[str, ...]) -> None:
    """Say it loudly when most of what came could not be used."""
    if unplaced.n_unknown * 2 > unplaced.n_events:
        warnings.warn(notes[0], RetailRecWarning, stacklevel=5)

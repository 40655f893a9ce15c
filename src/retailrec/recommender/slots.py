"""Slots: one list out of several purposes, no item twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.data.history import Candidates
from retailrec.errors import SettingError
from retailrec.recommender.greedy import Begun
from retailrec.recommender.purposes import PURPOSES, Purpose, check_purpose

Slots = dict[Purpose, int]
GivenSlots = Mapping[str, int] | Mapping[Purpose, int]


def check_slots(given: Any) -> Slots:
    """Slots of each purpose, those without any left out, in the order given.

    Raises
    ------
    SettingError
        If a purpose is not known, a number is none, or there is no slot at all.

    Examples
    --------
    >>> check_slots({"replenish": 3, "discover": 2})
    {'replenish': 3, 'discover': 2}
    """
    if not isinstance(given, Mapping) or not given:
        raise SettingError(
            f"slots must say how many items each purpose gets, such as "
            f"{{'replenish': 3, 'discover': 2}}, not {given!r}."
        )
    slots: Slots = {}
    for name, n in given.items():
        purpose = check_purpose(name, "slots")
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 0:
            raise SettingError(f"slots: {purpose} must be a whole number, at least 0, not {n!r}.")
        if n:
            slots[purpose] = int(n)
    if not slots:
        raise SettingError("slots: there is none; give at least one purpose at least one slot.")
    return slots


def parse_slots(text: str) -> Slots:
    """Slots written in one line.

    Raises
    ------
    SettingError
        As `check_slots`, or if the line is not of that form.

    Examples
    --------
    >>> parse_slots("replenish=3, discover=2")
    {'replenish': 3, 'discover': 2}
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(n.strip().isascii() and n.strip().isdigit() for _, _, n in pairs):
        raise SettingError(
            f"slots is {text!r}; expected purpose=number pairs with commas between, such as "
            f"replenish=3,discover=2. Purposes are {', '.join(PURPOSES)}."
        )
    return check_slots({purpose.strip(): int(n) for purpose, _, n in pairs})


class Composed(NamedTuple):
    """Lists out of several purposes.

    Attributes
    ----------
    best : items and scores, each by the ranker of its purpose
    purpose : (n_users, k) place of the purpose in the slots, -1 where there is no item
    short : purpose -> shoppers for whom it had fewer items than slots
    """

    best: Candidates
    purpose: NDArray[np.int8]
    short: dict[Purpose, int]

    @classmethod
    def of(cls, parts: Sequence[Composed]) -> Composed:
        """The lists of one part of the shoppers below those of the other."""
        best = Candidates(*(np.vstack(p) for p in zip(*(c.best for c in parts), strict=True)))
        short = {name: sum(c.short[name] for c in parts) for name in parts[0].short}
        return cls(best, np.vstack([c.purpose for c in parts]), short)


def compose(
    slots: Slots, n_users: int, pick: Callable[[Purpose, Begun], tuple[Candidates, NDArray[np.int64]]]
) -> Composed:
    """Fill the slots purpose by purpose; what one leaves empty the others fill, in their order.

    `pick` gives the best items of a purpose for lists that have begun, and how many of them are new.
    """
    k = sum(slots.values())
    items = np.full((n_users, k), -1, np.int32)
    scores = np.full((n_users, k), -np.inf, np.float32)
    purpose = np.full((n_users, k), -1, np.int8)
    n_listed, n_new = np.zeros(n_users, np.int64), np.zeros(n_users, np.int64)
    short: dict[Purpose, int] = dict.fromkeys(slots, 0)
    for filling_up in (False, True):
        for number, (name, asked) in enumerate(slots.items()):
            room = k - n_listed
            wanted = room if filling_up else np.minimum(asked, room)
            if not wanted.any():
                continue
            best, new = pick(name, Begun(items, n_new, room, wanted))
            row, rank = np.nonzero(best.items >= 0)
            place = n_listed[row] + rank
            items[row, place], scores[row, place] = best.items[row, rank], best.scores[row, rank]
            purpose[row, place] = number
            found = np.bincount(row, minlength=n_users)
            n_listed, n_new = n_listed + found, n_new + new
            if not filling_up:
                short[name] = int((found < asked).sum())
    return Composed(Candidates(items, scores), purpose, short)

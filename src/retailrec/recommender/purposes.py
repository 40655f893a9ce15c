"""What a list is for: what a user buys again, what is new to the user, or the best of both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator
from retailrec.components import Natural, NotNegative, check_settings
from retailrec.compute.csr import find_pairs, pair_keys, row_of_pair
from retailrec.data import RetailData
from retailrec.data.history import History, Pairs
from retailrec.errors import SettingError
from retailrec.rankers import Ranker

_WHO = "discovery"


@dataclass(frozen=True)
class Discovery:
    """How a model learns to recommend what is new to a user, for ``purpose="discover"``.

    The pool holds such items alone: each of the model's sources, and each of `sources`, is asked for
    its best new items. A ranker of its own learns from these rows, and only new purchases count.

    Parameters
    ----------
    after_days : an item counts as new again so many days after the user's last purchase; None: never
    n_candidates : new items asked of each of the model's sources and of `sources`, in this order: one
        number, or one a source
    sources : further sources, for this purpose only
    ranker : orders the candidates; None: few coarse trees with log loss (`discovery_ranker`)

    Examples
    --------
    >>> Discovery(after_days=180).n_candidates
    60
    """

    after_days: NotNegative | None = None
    n_candidates: Natural | Sequence[Natural] = 60
    sources: Sequence[CandidateGenerator] = field(default_factory=list)
    ranker: Ranker | None = None

    def __post_init__(self) -> None:
        check_settings(self, _WHO)
        if not self.n_candidates:
            raise SettingError("discovery: n_candidates is 0, so nothing would be proposed; raise it.")


Purpose = Literal["mixed", "replenish", "discover"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)


def check_purpose(given: object, who: str) -> Purpose:
    """The purpose that is meant.

    Raises
    ------
    SettingError
        If it is none.
    """
    for purpose in PURPOSES:
        if given == purpose:
            return purpose
    raise SettingError(f"{who}: there is no purpose {given!r}; expected {', '.join(PURPOSES)}.")


def owned_pairs(history: History, within_days: float | None = None) -> Pairs:
    """What each user bought, or bought within the last so many days."""
    if within_days is None or not history.n_pairs:
        return Pairs(history.indptr, history.items)
    kept = history.last_age() <= within_days
    sizes = np.bincount(history.user_of_pair[kept], minlength=len(history))
    return Pairs(np.append(0, np.cumsum(sizes)).astype(np.int64), history.items[kept])


def is_owned(owned: Pairs, pairs: Pairs) -> NDArray[np.bool_]:
    """(n_pairs,) is the pair one of the owned ones?"""
    found: NDArray[np.bool_] = find_pairs(owned.indptr, owned.items, pairs.indptr, pairs.items) >= 0
    return found


def for_purpose(pairs: Pairs, history: History, purpose: Purpose, after_days: float | None) -> Pairs:
    """Those of the pairs that a list for this purpose may hold."""
    if purpose == "mixed":
        return pairs
    kept = allowed_for(pairs, history, purpose, after_days)
    row = row_of_pair(pairs.indptr)
    sizes = np.bincount(row[kept], minlength=len(history))
    return Pairs(np.append(0, np.cumsum(sizes)).astype(np.int64), pairs.items[kept])


def allowed_for(
    pairs: Pairs, history: History, purpose: Purpose, after_days: float | None
) -> NDArray[np.bool_]:
    """(n_pairs,) may a list for this purpose hold the pair?"""
    if purpose == "mixed":
        return np.ones(len(pairs.items), np.bool_)
    if purpose == "replenish":
        return is_owned(owned_pairs(history), pairs)
    return ~is_owned(owned_pairs(history, after_days), pairs)


def purchases_for(
    purpose: Purpose, past: RetailData, target: pl.DataFrame, after_days: float | None
) -> pl.DataFrame:
    """Those log rows of a window that a list for this purpose could have foretold.

    *replenish*: of items that the user had bought before; *discover*: of the others, or of those not
    bought within `after_days`; *mixed*: all.
    """
    if purpose == "mixed" or target.is_empty():
        return target
    users = target["user"].unique().sort().to_numpy()
    history = past.history(codes=users)
    owned = owned_pairs(history, after_days if purpose == "discover" else None)
    known = pair_keys(users[row_of_pair(owned.indptr)], owned.items, past.n_items)
    wanted = pair_keys(target["user"].to_numpy(), target["item"].to_numpy(), past.n_items)
    return target.filter(pl.Series(np.isin(wanted, known) == (purpose == "replenish")))

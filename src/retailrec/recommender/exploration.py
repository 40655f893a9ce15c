"""Explored lists: drawn from a pool of items that keep to the rules, each with a chance that is known.

The pool is the list that would be shown, and the next best items beside it. What is drawn comes from
strata that rules or slots ask for (items of one purpose; with a minimum of new ones, new items and
others), as many of each as the list has: slots and minima hold for every draw, and since the whole pool
keeps to the other rules, so does whatever is drawn from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.draws import inclusion_chances, random_bits, systematic_sample, uniform_draws
from retailrec.recommender.request import Request

NEW_DAYS = 14.0  # since its first sale an item is new in the shop
MOST_NEW = 50  # new items that one request looks at, those with most buyers


class Explored(NamedTuple):
    """The pools that lists were drawn from; (n_users, pool) each but the last one.

    Attributes
    ----------
    items : codes; first the list that would be shown without exploration, then the next best; -1 pads
    scores : by the ranker of the item's purpose
    purpose : place of the purpose among those asked for; -1 where there is no item
    propensity : chance, known before the draw, that the item is on the list
    shown : is it?
    listed : (n_users, k) place in the pool of each item listed, in order; -1 pads
    """

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    purpose: NDArray[np.int8]
    propensity: NDArray[np.float64]
    shown: NDArray[np.bool_]
    listed: NDArray[np.int64]

    @classmethod
    def of_nobody(cls, request: Request) -> Explored:
        """Pools of no user."""
        pools = np.zeros((0, request.pool))
        return cls(
            pools.astype(np.int32),
            pools.astype(np.float32),
            pools.astype(np.int8),
            pools,
            pools.astype(np.bool_),
            np.zeros((0, request.k), np.int64),
        )

    def of_list(self, values: NDArray[np.generic]) -> NDArray[np.generic]:
        """(n_users, k) of (n_users, pool) values those of the items listed, in order."""
        return np.asarray(np.take_along_axis(values, np.maximum(self.listed, 0), axis=1))


def spare_items(request: Request) -> list[int]:
    """How many items beside the list each purpose gets in the pool, in proportion to its slots.

    Examples
    --------
    >>> spare_items(Request(slots={"replenish": 3, "discover": 2}, pool=12))
    [4, 3]
    """
    ends = np.cumsum(list(request.by_purpose.values())) * (request.pool - request.k) / request.k
    return [int(n) for n in np.diff(np.rint(ends), prepend=0)]


def draw_lists(
    items: NDArray[np.int32],
    scores: NDArray[np.float32],
    purpose: NDArray[np.int8],
    stratum: NDArray[np.int64],
    request: Request,
    users: pl.Series,
    end: datetime,
) -> Explored:
    """Lists drawn from pools, as many items of each stratum as the pool's first k hold.

    Parameters
    ----------
    items, scores, purpose : (n_users, pool), the list that would be shown first
    stratum : (n_users, pool) a small number for each item
    users, end : ids, and the present that lists are made for
    """
    k, salt = request.k, draw_salt(request.salt, end)
    user, place = np.nonzero(items >= 0)
    of = stratum[user, place]
    order = np.lexsort((place, of, user))
    user, place, of = user[order], place[order], of[order]
    new_group = np.ones(len(user), bool)
    new_group[1:] = (np.diff(user) != 0) | (np.diff(of) != 0)
    starts = np.append(np.flatnonzero(new_group), len(user))
    size = np.diff(starts)
    row_of = np.repeat(np.arange(len(size)), size)
    first = np.bincount(row_of, place < k, len(size)).astype(np.int64)  # of the list, by group
    rank = np.arange(len(user)) - np.repeat(starts[:-1], size)
    chances = inclusion_chances(rank, size[row_of], first[row_of], request.explore)
    bits = random_bits(uniform_draws(users, f"{salt}: order")[user], place)
    at = np.zeros(len(size))
    group_user, group_of = user[starts[:-1]], of[starts[:-1]]
    for number in np.unique(group_of):
        mine = group_of == number
        name = f"{salt}: list {number}" if number else f"{salt}: list"
        at[mine] = uniform_draws(users.gather(group_user[mine]), name)
    drawn = systematic_sample(chances, starts, bits, at)
    chance, shown = np.zeros(items.shape), np.zeros(items.shape, bool)
    chance[user, place], shown[user, place] = chances, drawn
    never = chance == 0  # of a stratum that the list has nothing of, so that it can't be drawn
    places = np.argsort(~shown, axis=1, kind="stable")[:, :k]
    return Explored(
        np.where(never, -1, items).astype(np.int32),
        np.where(never, -np.inf, scores).astype(np.float32),
        np.where(never, -1, purpose).astype(np.int8),
        chance,
        shown,
        np.where(np.take_along_axis(shown, places, axis=1), places, -1),
    )


def policy_name(model: str, digest: str) -> str:
    """What proposes a model's lists, as exposures call it.

    Examples
    --------
    >>> policy_name("weekly", "0123456789abcdef")
    'weekly 01234567'
    """
    return f"{model} {digest[:8]}".strip()


def draw_salt(salt: str, end: datetime) -> str:
    """What a draw depends on beside the user: its salt, and the present that lists are made for.

    A user's list is the same all day, over whichever carrier, and another one the next day.

    Examples
    --------
    >>> draw_salt("may", datetime(2024, 5, 1))
    'may: 2024-05-01T00:00:00'
    """
    return f"{salt}: {end.isoformat()}"

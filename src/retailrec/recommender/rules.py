"""Business rules between the ranker's scores and the list that a user gets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import (
    Component,
    Count,
    Natural,
    NotNegative,
    ShareOrNone,
    check_settings,
    make_component,
    meant,
)
from retailrec.compute.csr import find_listed, find_pairs, jit, row_of_pair
from retailrec.compute.topk import topk_rows
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LARGEST
from retailrec.data.files import read_table
from retailrec.data.history import Candidates, History, Pairs
from retailrec.data.ids import row_of_ids, rows_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import (
    bare_id,
    check_columns,
    ids_like,
    ids_meet,
    parse_number,
    times_or_none,
    typed_ids,
)
from retailrec.data.paths import read_toml
from retailrec.data.retail_data import text_codes
from retailrec.errors import DataError, SettingError
from retailrec.recommender.dismissals import Dismissed
from retailrec.recommender.forbid import Forbid, missing_attribute
from retailrec.schema import CATEGORIES, ITEM_ID, RECOMMENDABLE, STORE, USER_ID


class Begun(NamedTuple):
    """Lists that hold some items already, and how many are to be added.

    Attributes
    ----------
    items : (n_users, any) int32 on the lists already; -1 pads
    n_new : (n_users,) how many of them the user never bought
    room : (n_users,) slots that are empty
    wanted : (n_users,) slots to fill now, at most `room`
    """

    items: NDArray[np.int32]
    n_new: NDArray[np.int64]
    room: NDArray[np.int64]
    wanted: NDArray[np.int64]


@jit
def choose_under_rules(
    indptr: Any,
    items: Any,
    scores: Any,
    category: Any,
    is_new: Any,
    begun: Any,
    n_new_begun: Any,
    room: Any,
    wanted: Any,
    cap: int,
    min_new: int,
    variety: float,
    keep_cap: bool = False,
) -> Any:
    """The best pairs of each row, slot by slot; a score of -inf or an item of `begun` is never taken.

    At most `cap` (0: any number) of a category (of each item; -1 is none) and at least `min_new` new
    ones, those of `begun` counted. `variety` takes the pair with the largest (1 - variety) x scaled
    score - variety x [its category is there]. With `keep_cap` a list rather ends than breaks the cap.
    Returns items and scores (n_rows, most wanted), and for
    [min_new, cap] bool (n_rows, 2) each: did it keep a better pair out, did it give way?
    """
    n, k = len(indptr) - 1, wanted.max() if len(wanted) else 0
    out_items = np.full((n, k), -1, np.int32)
    out_scores = np.full((n, k), -np.inf, np.float32)
    bound, gave_way = np.zeros((n, 2), np.bool_), np.zeros((n, 2), np.bool_)
    for row in range(n):
        start, stop = indptr[row], indptr[row + 1]
        taken = np.zeros(stop - start, np.bool_)
        listed = np.full(begun.shape[1] + k, -1, np.int32)
        n_listed = 0
        for item in begun[row]:
            if item >= 0:
                listed[n_listed] = item
                n_listed += 1
        low, high = np.inf, -np.inf
        for p in range(start, stop):
            for s in range(n_listed):
                taken[p - start] |= items[p] == listed[s]
            if scores[p] > -np.inf:
                low, high = min(low, scores[p]), max(high, scores[p])
        width = max(high - low, 1e-12)
        n_new = n_new_begun[row]
        for slot in range(wanted[row]):
            must_be_new = 0 < min_new - n_new >= room[row] - slot
            best, free = -1, -1
            for relaxed in range(2 if keep_cap else 3):  # 1: without min_new, 2: without the cap too
                best_value, free_value = -np.inf, -np.inf
                for p in range(start, stop):
                    if taken[p - start] or scores[p] == -np.inf:
                        continue
                    same = 0
                    if category[items[p]] >= 0:
                        for s in range(n_listed):
                            same += category[listed[s]] == category[items[p]]
                    value = scores[p]
                    if variety > 0:
                        value = (1 - variety) * (scores[p] - low) / width - variety * (same > 0)
                    if value > free_value:
                        free, free_value = p, value
                    if cap > 0 and same >= cap and relaxed < 2:
                        continue
                    if must_be_new and not is_new[p] and relaxed < 1:
                        continue
                    if value > best_value:
                        best, best_value = p, value
                if best >= 0 or free < 0:
                    if relaxed >= 1 and best >= 0:
                        gave_way[row, 0] |= must_be_new and not is_new[best]
                        gave_way[row, 1] |= relaxed == 2
                    break
            if best < 0:
                break
            if best != free:
                if must_be_new and not is_new[free]:
                    bound[row, 0] = True
                else:
                    bound[row, 1] = True
            taken[best - start] = True
            listed[n_listed] = items[best]
            n_listed += 1
            n_new += is_new[best]
            out_items[row, slot], out_scores[row, slot] = items[best], scores[best]
    return out_items, out_scores, bound, gave_way


OWN_STORE = "_store"  # a user's store by attribute or else by receipts, beside the attributes
_NO_STORE = "available (store not known)"  # as effects are called that a missing fact has
_OPEN = " (attribute not known)"  # after the name of a ban
_MOST = 2**31 - 1  # that kernels count to; no list is so long
_SOFT = ("min_new", "max_per_category")  # in the order in which they give way
# rule -> columns that its frame must have, and those that it may have
_FRAMES = {
    "available": ((ITEM_ID,), ("store", "from", "until")),
    "deny": ((USER_ID, ITEM_ID), ()),
    "margin": ((ITEM_ID, "margin"), ()),
}


class RuleRequest(NamedTuple):
    """What a rule decides about: pairs of one shard of users.

    Attributes
    ----------
    history : the users' purchases so far
    pairs : candidates; row i is user row i
    event_pair : (n_pairs,) the history's pair of each candidate, -1 where it was never bought
    items : catalogue; row i describes item code i
    prices : (n_items,) last known unit price, NaN where not known
    now : the moment of recommending
    """

    history: History
    pairs: Pairs
    event_pair: NDArray[np.int64]
    items: pl.DataFrame
    prices: NDArray[np.float64]
    now: datetime


class Usable(NamedTuple):
    """Candidates after the hard rules.

    Attributes
    ----------
    pairs : row i is user row i
    score : (n_pairs,) -inf where a rule forbids the pair
    is_new : (n_pairs,) did the user never buy the item?
    order : (n_pairs,) what decides instead of `score`, where lists are to be steady
    """

    pairs: Pairs
    score: NDArray[np.float32]
    is_new: NDArray[np.bool_]
    order: NDArray[np.float32] | None = None

    def count_new(self, best: Candidates) -> NDArray[np.int64]:
        """(n_users,) how many of the chosen pairs the user never bought."""
        place = find_listed(self.pairs.indptr, self.pairs.items, best.items)
        is_new = np.append(self.is_new, False)  # place -1, an empty slot, is not new
        return np.asarray(is_new[place].sum(axis=1), np.int64)


class Rule(Component, ABC):
    """A hard rule of one's own: a frozen dataclass below this one, given as ``Rules(more=[...])``.

    In a rules file it is a table ``[[more]]`` with its `type_name` as ``type`` and its fields beside.
    """

    @abstractmethod
    def allows(self, request: RuleRequest) -> NDArray[np.bool_]:
        """(n_pairs,) may the pair be recommended?"""


@dataclass(frozen=True)
class Rules:
    """What a list must keep to.

    Rules that are not set do nothing. Those up to `unless_due`, and `more`, are hard: what they forbid
    is never recommended, even if a list gets short. The others shape the list among what is left; where
    the candidates do not allow both, `min_new` gives way first, then `max_per_category`, and the report
    says for how many users.

    Attributes
    ----------
    available : frame of `item_id` and, where there are, `store`, `from` and `until` (times; `until` is
        exclusive); only these items, at the moment of recommending, are recommended. With `store`, only
        those of the user's own: the attribute `store`, or else that of the newest receipt that names
        one. A line without a store holds in every one. A user whose store is not known, or has no
        line, gets what every store has.
    price_floor, price_ceiling : bounds of the item's last known unit price, both allowed; an item
        without a price is left out
    deny : frame of `user_id` and `item_id`, pairs never to be recommended
    forbid : items by category or id that users of some attributes must not be offered: see `Forbid`
    skip_bought_days : leave out what the user bought in the last so many days
    unless_due : but keep it when the user's own usual gap for the item has passed
    max_per_category : items of one category at the most
    category : the column of `items` that is meant
    min_new : items that the user never bought, at the least
    variety : 0 to 1, weight of maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998) with
        similarity 1 within a category; 0 orders by score alone
    margin : frame of `item_id` and `margin` (money per purchase); lists are then ordered by
        probability x margin, for which the ranker must give probabilities
    more : hard rules of one's own
    """

    available: pl.DataFrame | None = None
    price_floor: NotNegative | None = None
    price_ceiling: NotNegative | None = None
    deny: pl.DataFrame | None = None
    forbid: Sequence[Forbid] = ()
    skip_bought_days: NotNegative | None = None
    unless_due: bool = True
    max_per_category: Count | None = None
    category: str = CATEGORIES[0]
    min_new: Natural = 0
    variety: ShareOrNone = 0.0
    margin: pl.DataFrame | None = None
    more: Sequence[Rule] = ()

    def __post_init__(self) -> None:
        for name in _FRAMES:
            if (given := getattr(self, name)) is not None:
                object.__setattr__(self, name, to_polars(given, who=f"rules: {name}"))
        if isinstance(self.forbid, Mapping) or not isinstance(self.forbid, Sequence):
            raise SettingError(f"rules: forbid must be a list of tables, not {self.forbid!r}.")
        object.__setattr__(self, "forbid", tuple(map(Forbid.of, self.forbid)))
        check_settings(self, "rules")
        if (
            self.price_floor is not None
            and self.price_ceiling is not None
            and self.price_floor > self.price_ceiling
        ):
            raise SettingError(
                f"rules: price_floor={self.price_floor:g} lies above "
                f"price_ceiling={self.price_ceiling:g}, so no item can pass; swap or drop one."
            )
        if unknown := [rule for rule in self.more if not isinstance(rule, Rule)]:
            raise SettingError(f"rules: more must hold Rule objects, not {unknown[0]!r}.")

    def renamed(self, changed: ChangedIds) -> Rules:
        """The same, with the new ids of users and items whose ids changed."""
        found: dict[str, Any] = {"forbid": [one.renamed(changed) for one in self.forbid]}
        for rule, (needed, _) in _FRAMES.items():
            frame = getattr(self, rule)
            if frame is not None and set(needed) <= set(frame.columns):  # else it is refused when bound
                found[rule] = changed.renamed(frame)
                if rule == "margin":  # of an item one: its own counts
                    typed = frame.with_columns(typed_ids(frame[ITEM_ID]))
                    found[rule] = changed.folded(typed, ITEM_ID)
        return replace(self, **found)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Rules:
        """Rules from a table of them.

        Raises
        ------
        SettingError
            If there is no such rule, or one makes no sense.
        """
        known = [f.name for f in fields(cls)]
        for name in given:
            if name not in known:
                which = f"{meant(name, known)}expected {', '.join(known)}"
                raise SettingError(f"rules: there is no rule '{name}'; {which}.")
        return cls(**given)

    @property
    def by_store(self) -> bool:
        """Does the user's store matter?"""
        return self.available is not None and STORE in self.available.columns

    def check_category(self, items: pl.DataFrame) -> None:
        """Raise a SettingError if a rule is by category and the catalogue does not have it."""
        by_category = self.max_per_category is not None or self.variety
        if by_category and self.category not in items.columns:
            there = [c for c in items.columns if c not in (ITEM_ID, RECOMMENDABLE)]
            raise SettingError(
                f"rules: the catalogue lacks '{self.category}'; it has {there or 'ids alone'}. Name "
                f"one of its columns as category, or bring one: --columns {self.category}=..."
            )

    @property
    def attributes(self) -> tuple[str, ...]:
        """Attributes of users that `forbid` reads."""
        names = (one.attribute for rule in self.forbid for one in rule.comparisons)
        return tuple(dict.fromkeys(names))


PLAIN_RULES = tuple(f.name for f in fields(Rules) if f.name not in (*_FRAMES, "forbid", "more"))


@dataclass
class BoundRules:
    """Rules in the codes of one catalogue, and what they did so far.

    Attributes
    ----------
    items : catalogue; row i describes item code i
    prices : (n_items,) last known unit price, NaN where not known
    now : the moment of recommending
    in_store : the store that all lists are for; None: each user's own
    dismissed : what users do not want to see now; None: nothing
    previous, steady : `user_id` and `item_id` of lists whose items stay unless another one is better by
        so many standard deviations of the user's scores
    effects : rule -> ``removed`` (candidates), ``bound`` (users whose list it changed) and
        ``gave_way`` (users whose list could not keep to it)
    notes : sentences about lists of items that hardly meet the catalogue
    """

    rules: Rules
    items: pl.DataFrame
    prices: NDArray[np.float64]
    now: datetime
    in_store: str | None = None
    dismissed: Dismissed | None = None
    previous: pl.DataFrame | None = None
    steady: float = 0.0
    effects: dict[str, dict[str, int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _lock: Lock = field(default_factory=Lock, repr=False)

    def __post_init__(self) -> None:
        rules, n = self.rules, self.items.height
        self._item_masks: dict[str, NDArray[np.bool_]] = {}
        self._stores: tuple[pl.Series, NDArray[np.bool_]] | None = None
        if rules.available is not None:
            mask = self._available(rules.available)
            usable = mask
            if RECOMMENDABLE in self.items.columns:
                usable = mask & self.items[RECOMMENDABLE].to_numpy()
            if not usable.any():
                raise DataError(
                    f"rules: available leaves no item that may be recommended at {self.now}: "
                    f"{int(mask.sum()):,} of {rules.available.height:,} lines name an item of the "
                    f"catalogue that is open then. Check 'from' and 'until'."
                )
        if rules.price_floor is not None:
            self._item_masks["price_floor"] = self.prices >= rules.price_floor
        if rules.price_ceiling is not None:
            self._item_masks["price_ceiling"] = self.prices <= rules.price_ceiling
        self._category = np.full(n, -1, np.int32)
        rules.check_category(self.items)
        if rules.max_per_category is not None or rules.variety:
            self._category = text_codes(self.items[rules.category])[0]
        self._margin = None if rules.margin is None else self._margins(rules.margin)
        self._deny = None if rules.deny is None else self._denials(rules.deny)
        self._forbidden = []
        for forbid in rules.forbid:
            mask, note = forbid.mask(self.items)
            self._forbidden.append((forbid, mask))
            self.notes = tuple(dict.fromkeys((*self.notes, *([note] if note else []))))

    def narrowed(self, available: NDArray[np.bool_] | None) -> BoundRules:
        """The same rules for another request, with counts of their own.

        `available` (n_items,) are the only items that may be listed; None: all.
        """
        other = copy(self)
        other.effects, other._lock = {}, Lock()
        if available is not None:
            other._item_masks = {**self._item_masks, "available": available}
        return other

    def usable(
        self,
        history: History,
        pairs: Pairs,
        score: NDArray[np.float32],
        k: int,
        probabilities: bool = False,
        denied: Pairs | None = None,
    ) -> Usable:
        """The pairs with what hard rules and margins make of their scores; what they did is counted.

        `denied` are pairs never to be listed, beside those of the rule `deny`, by history row.

        Raises
        ------
        SettingError
            If there are margins and the scores are no probabilities.
        """
        if self._margin is not None:
            if not probabilities:
                raise SettingError(
                    "rules: margin needs probabilities; use the ranker catboost (Logloss) or "
                    "lightgbm (binary)."
                )
            score = (score * self._margin[pairs.items]).astype(np.float32)
        position = find_pairs(history.indptr, history.items, pairs.indptr, pairs.items)
        allowed = np.ones(len(score), np.bool_)
        user = row_of_pair(pairs.indptr)
        first = topk_rows(pairs.indptr, pairs.items, score, k)[0]
        masks = self._pair_masks(history, pairs, position, user)
        if denied is not None:
            found = find_pairs(denied.indptr, denied.items, pairs.indptr, pairs.items) < 0
            masks["deny"] = masks.get("deny", True) & found
        for name, mask in masks.items():
            self._count(name, removed=int((~mask).sum()), bound=_touched(first, pairs, user, ~mask))
            allowed &= mask
        score = np.where(allowed, score, -np.inf).astype(np.float32)
        order = None
        if self.previous is not None:
            listed = self._listed_before(self.previous, history.users[USER_ID], user, pairs.items)
            order = raised(score, user, len(history), listed, self.steady)
            now = topk_rows(pairs.indptr, pairs.items, order, k)[0]
            then = topk_rows(pairs.indptr, pairs.items, score, k)[0]
            other = np.sort(now, axis=1) != np.sort(then, axis=1)
            self._count("steady", bound=int(other.any(axis=1).sum()))
        return Usable(pairs, score, position < 0, order)

    def _listed_before(
        self, lists: pl.DataFrame, users: pl.Series, user: NDArray[np.int64], items: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """(n_pairs,) was the item on the user's previous list?"""
        place, row = rows_of_ids(ids_like(lists[USER_ID], users, who="previous lists"), users)
        ids = ids_like(lists[ITEM_ID], self.items[ITEM_ID], who="previous lists")
        code, n = row_of_ids(ids, self.items[ITEM_ID])[place], self.items.height
        return np.isin(user * n + items, (row * n + code)[code >= 0])

    def pick(self, usable: Usable, begun: Begun) -> Candidates:
        """The best usable pairs that go on the lists, which may hold items already."""
        items, scores, bound, gave_way = self._choose(usable, begun, self.rules.min_new)
        for number, name in enumerate(_SOFT):
            if (self.rules.min_new, self.rules.max_per_category)[number]:
                self._count(
                    name, bound=int(bound[:, number].sum()), gave=int(gave_way[:, number].sum())
                )
        return Candidates(items, scores)

    def pick_beside(self, usable: Usable, listed: Candidates, wanted: NDArray[np.int64]) -> Candidates:
        """The next best pairs, such that lists and these together keep to the cap; nothing is counted.

        `wanted` (n_users,) are the most for each list; one that broke the cap gets none.
        """
        cap = self.rules.max_per_category
        if cap is not None and cap < listed.items.shape[1]:
            category = np.where(listed.items >= 0, self._category[listed.items], -1)
            category.sort(axis=1)
            over = (category[:, cap:] == category[:, :-cap]) & (category[:, cap:] >= 0)
            wanted = np.where(over.any(axis=1), 0, wanted)
        begun = Begun(listed.items, np.zeros_like(wanted), wanted, wanted)
        return Candidates(*self._choose(usable, begun, 0, keep_cap=True)[:2])

    def _choose(self, usable: Usable, begun: Begun, min_new: int, keep_cap: bool = False) -> Any:
        pairs = usable.pairs
        items, scores, *effects = choose_under_rules(
            pairs.indptr,
            pairs.items,
            usable.score if usable.order is None else usable.order,
            self._category,
            usable.is_new,
            begun.items,
            begun.n_new,
            begun.room,
            begun.wanted,
            min(self.rules.max_per_category or 0, _MOST),
            min(min_new, _MOST),
            self.rules.variety,
            keep_cap,
        )
        if usable.order is not None:  # scores stay the ranker's own
            place = find_listed(pairs.indptr, pairs.items, items)
            scores = np.append(usable.score, np.float32(-np.inf))[place]
        return items, scores, *effects

    def _pair_masks(
        self, history: History, pairs: Pairs, position: NDArray[np.int64], user: NDArray[np.int64]
    ) -> dict[str, NDArray[np.bool_]]:
        """Rule -> (n_pairs,) is the pair allowed?"""
        masks = {name: mask[pairs.items] for name, mask in self._item_masks.items()}
        if self._deny is not None:
            masks["deny"] = ~self._denied(self._deny, history, pairs, user)
        if self.dismissed is not None:
            masks["dismissed"] = self.dismissed.allows(history.users[USER_ID], user, pairs.items)
        if self._stores is not None:
            masks |= self._in_store(self._stores, history.users, pairs, user)
        for number, (forbid, mask) in enumerate(self._forbidden, 1):
            ban = "forbid" if len(self._forbidden) == 1 else f"forbid {number}"
            met, meant = forbid.users(history.users), mask[pairs.items]
            for name, users in ((ban, met.yes), (ban + _OPEN, met.open)):
                if users.any() or name == ban:
                    masks[name] = ~(meant & users[user])
        if self.rules.skip_bought_days is not None:
            masks["skip_bought_days"] = ~self._just_bought(history, position)
        request = RuleRequest(history, pairs, position, self.items, self.prices, self.now)
        for rule in self.rules.more:
            mask = np.asarray(rule.allows(request))
            if mask.dtype != np.bool_ or mask.shape != pairs.items.shape:
                raise SettingError(
                    f"rule {rule.type_name}: allows() must give a truth value for each of the "
                    f"{len(pairs.items):,} pairs, not {mask.dtype} of shape {mask.shape}."
                )
            masks[rule.type_name] = mask
        return masks

    def forbidden(self, users: pl.DataFrame) -> NDArray[np.bool_]:
        """(n_users, n_items) must the item not be offered to the user, as `forbid` says?"""
        found = np.zeros((users.height, self.items.height), np.bool_)
        for forbid, mask in self._forbidden:
            met = forbid.users(users)
            found |= (met.yes | met.open)[:, None] & mask
        return found

    def _in_store(
        self,
        stores: tuple[pl.Series, NDArray[np.bool_]],
        users: pl.DataFrame,
        pairs: Pairs,
        user: NDArray[np.int64],
    ) -> dict[str, NDArray[np.bool_]]:
        """`available` by the users' stores; those of no known store count apart."""
        names, offered = stores
        if self.in_store is not None:
            own = pl.Series([bare_id(str(self.in_store))]).new_from_index(0, users.height)
        elif (column := next((c for c in (OWN_STORE, STORE) if c in users.columns), None)) is None:
            raise SettingError(missing_attribute(STORE, users.columns))
        else:
            own = typed_ids(users[column]).cast(pl.String)
        row = row_of_ids(own, names)
        allowed, unknown = offered[row[user], pairs.items], row[user] < 0  # the last row is of -1
        masks = {"available": allowed | unknown}
        return masks | ({_NO_STORE: allowed | ~unknown} if unknown.any() else {})

    def _available(self, frame: pl.DataFrame) -> NDArray[np.bool_]:
        """(n_items,) is the item on offer anywhere now?"""
        codes = self._codes(frame, "available")
        open_now = np.ones(frame.height, np.bool_)
        if "from" in frame.columns:
            start = times_or_none(frame["from"], who="available")
            open_now &= (start.is_null() | (start <= self.now)).to_numpy()
        if "until" in frame.columns:
            stop = times_or_none(frame["until"], who="available")
            open_now &= (stop.is_null() | (stop > self.now)).to_numpy()
        there = (codes >= 0) & open_now
        if STORE not in frame.columns:
            mask = np.zeros(self.items.height, np.bool_)
            mask[codes[there]] = True
            self._item_masks["available"] = mask
            return mask
        of_line = typed_ids(frame[STORE]).cast(pl.String)
        stores = of_line.drop_nulls().unique().sort()
        offered = np.zeros((len(stores) + 1, self.items.height), np.bool_)
        row = row_of_ids(of_line, stores)
        offered[row[there & (row >= 0)], codes[there & (row >= 0)]] = True
        offered[-1] = offered[:-1].all(axis=0) if len(stores) else False
        offered[:, codes[there & of_line.is_null().to_numpy()]] = True
        self._stores = stores, offered
        return np.asarray(offered.any(axis=0))

    def note_items(self, frame: pl.DataFrame, who: str, **of: Any) -> None:
        """Note where items of a frame are not in the catalogue, as `ids_meet` says with `of`."""
        note = ids_meet(frame[ITEM_ID], self.items[ITEM_ID], who=who, whose="the catalogue", **of)
        if note is not None:
            self.notes = tuple(dict.fromkeys((*self.notes, f"rules: {note}")))

    def _margins(self, frame: pl.DataFrame) -> NDArray[np.float32]:
        codes = self._codes(frame, "margin")
        margins = parse_number(frame["margin"], who="the rule margin")
        holds = margins.is_between(-LARGEST, LARGEST).fill_null(False)
        if len(odd := frame.filter(~holds)):
            raise DataError(
                f"rules: margin holds no number (up to 10^12) in {odd.height:,} of {frame.height:,} "
                f"lines, the first of item {odd[ITEM_ID][0]!r}; give each item listed a margin, 0 if "
                f"it has none."
            )
        given = pl.DataFrame({ITEM_ID: frame[ITEM_ID], "margin": margins}).unique()
        if (twice := given.filter(given[ITEM_ID].is_duplicated()).sort(ITEM_ID, "margin")).height:
            raise DataError(
                f"rules: margin gives item {twice[ITEM_ID][0]!r} two margins, {twice['margin'][0]:g} "
                f"and {twice['margin'][1]:g}; leave one."
            )
        out = np.zeros(self.items.height, np.float32)
        out[codes[codes >= 0]] = margins.cast(pl.Float32).to_numpy()[codes >= 0]
        return out

    def _codes(self, frame: pl.DataFrame, rule: str) -> NDArray[np.int64]:
        """(n_rows,) item code of each row, -1 where the catalogue lacks the item."""
        needed, optional = _FRAMES[rule]
        check_columns(frame, needed, optional, who=f"rules: {rule}")
        for name in needed:
            n = frame.height - len(typed_ids(frame[name]).drop_nulls()) if name != "margin" else 0
            if n:
                raise DataError(
                    f"rules: {rule} has no {name} in {n:,} of {frame.height:,} lines; fill them, or "
                    f"leave these lines out."
                )
        self.note_items(frame, f"the rule {rule}")
        ids = ids_like(frame[ITEM_ID], self.items[ITEM_ID], who=f"rules: {rule}")
        return row_of_ids(ids, self.items[ITEM_ID])

    def _denials(self, frame: pl.DataFrame) -> tuple[pl.Series, NDArray[np.int64]]:
        """User ids and item codes of the pairs denied; items that the catalogue lacks deny nothing."""
        codes = self._codes(frame, "deny")
        return frame[USER_ID].filter(pl.Series(codes >= 0)), codes[codes >= 0]

    def _denied(
        self,
        deny: tuple[pl.Series, NDArray[np.int64]],
        history: History,
        pairs: Pairs,
        user: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        ids = ids_like(deny[0], history.users[USER_ID], who="rules: deny")
        place, row = rows_of_ids(ids, history.users[USER_ID])
        key = row * self.items.height + deny[1][place]
        return np.isin(user * self.items.height + pairs.items, key)

    def _just_bought(self, history: History, position: NDArray[np.int64]) -> NDArray[np.bool_]:
        """(n_pairs,) bought within `skip_bought_days`, and not due if that matters."""
        if not history.n_pairs:
            return np.zeros(len(position), np.bool_)
        age, count = history.last_age(), history.counts()
        recent = age <= float(self.rules.skip_bought_days or 0)
        if self.rules.unless_due:
            gap = (history.age[history.event_indptr[:-1]] - age) / np.maximum(count - 1, 1)
            recent &= ~((count > 1) & (age >= gap))
        return (position >= 0) & recent[position]

    def _count(self, rule: str, removed: int = 0, bound: int = 0, gave: int = 0) -> None:
        with self._lock:
            so_far = self.effects.setdefault(rule, {"removed": 0, "bound": 0, "gave_way": 0})
            for name, n in (("removed", removed), ("bound", bound), ("gave_way", gave)):
                so_far[name] += n


def raised(
    score: NDArray[np.float32],
    user: NDArray[np.int64],
    n_users: int,
    listed: NDArray[np.bool_],
    margin: float,
) -> NDArray[np.float32]:
    """(n_pairs,) scores, those of `listed` pairs higher by `margin` standard deviations of the user's.

    Examples
    --------
    >>> score = np.array([3, 2, 1, -np.inf], np.float32)  # their standard deviation is 0.82
    >>> listed = np.array([False, False, True, True])
    >>> raised(score, np.zeros(4, int), 1, listed, 2.0).astype(float).round(2).tolist()
    [3.0, 2.0, 2.63, -inf]
    """
    usable = np.isfinite(score)
    n = np.maximum(np.bincount(user[usable], minlength=n_users), 1)
    known = score[usable].astype(np.float64)
    mean = np.bincount(user[usable], known, n_users) / n
    deviation = known - mean[user[usable]]
    spread = np.sqrt(np.bincount(user[usable], deviation**2, n_users) / n)
    return (score + np.where(listed, margin * spread[user], 0)).astype(np.float32)


def _touched(
    first: NDArray[np.int32], pairs: Pairs, user: NDArray[np.int64], removed: NDArray[np.bool_]
) -> int:
    """Users whose list without rules holds a removed pair."""
    out = np.flatnonzero(removed)
    hit = (first[user[out]] == pairs.items[out][:, None]).any(axis=1)
    return len(np.unique(user[out][hit]))


def read_rules(path: Path) -> Rules:
    """Rules from a TOML file; frames are given as paths of files, relative to it.

    Raises
    ------
    SettingError
        If the file can't be read, a rule is not known or has a value of the wrong kind.
    """
    values: dict[str, Any] = {}
    for name, value in read_toml(path, who="rules").items():
        if name in _FRAMES:
            if not isinstance(value, str) or not value.strip():
                raise SettingError(f"rules: {name} must be the path of a file, not {value!r}.")
            value = read_table(path.parent / value)
        elif name == "forbid":
            if not isinstance(value, list):
                raise SettingError("rules: write forbid as tables [[forbid]].")
            value = [Forbid.of(table, path.parent) for table in value]
        elif name == "more":
            value = [make_component(table, Rule, "rule") for table in value]
        values[name] = value
    return Rules.of(values)

"""From a shopper's id to an answer: the stored history, one model, the rules, and why it is so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.candidates.pool import Pool
from retailrec.errors import SettingError
from retailrec.recommender.purposes import PURPOSES, Purpose
from retailrec.recommender.slots import Slots
from retailrec.serving.cache import HotShoppers
from retailrec.serving.receipts import AMOUNTS, Receipt, microseconds
from retailrec.serving.records import Lists, Shopper
from retailrec.serving.served_model import CodedEvents, ServedModel
from retailrec.serving.store import Store

Level = Literal["personal", "segment", "popular", "none"]
DEFAULT_PURPOSE = "default"
_NO_AMOUNTS = np.zeros(0, AMOUNTS)


@dataclass(frozen=True)
class Wish:
    """What is asked for.

    Attributes
    ----------
    k : offers at the most
    purpose : whose saved rules hold; ``replenish`` lists what the shopper buys again and ``discover``
        what is new to the shopper, under rules that may be saved for them too
    rules : settings that come on top of the saved ones
    among : offer these items only, of what the sources propose; None: all
    reasons : say why, in words
    at : answer as of this time, with the receipts before it; None: now, with all
    slots : one list of several purposes; it says `k` too, and the purpose names saved rules only
    """

    k: int = 10
    purpose: str = DEFAULT_PURPOSE
    rules: Mapping[str, Any] = field(default_factory=dict)
    among: frozenset[str] | None = None
    reasons: bool = False
    at: datetime | None = None
    slots: Slots | None = None

    @property
    def filled(self) -> Slots:
        """How many items of each purpose; a single one for a list of one purpose."""
        if self.slots is not None:
            return self.slots
        kind: Purpose = next((p for p in PURPOSES if p == self.purpose), "mixed")
        return {kind: self.k}


class Offer(NamedTuple):
    """One item of an answer; `item` is the catalogue's own id, a number or text.

    `purpose` is that of the item's slot, None for a list of one purpose.
    """

    item: Any
    name: str
    rank: int
    score: float
    probability: float | None
    reasons: str | None
    purpose: Purpose | None = None


@dataclass(frozen=True)
class Answer:
    """A list, and how it came about.

    Attributes
    ----------
    model, digest : name of the model that answered, and what stands for all that it holds
    as_of : the present that ages were counted from
    level : ``personal``: from the shopper's own receipts; ``segment``: from attributes alone;
        ``popular``: nothing is known; ``none``: no list
    why : the level, in words
    receipts, lines : of the shopper's history
    unknown_lines : lines of items that the model does not know
    """

    shopper: str
    offers: tuple[Offer, ...]
    model: str
    digest: str
    as_of: datetime
    level: Level
    why: str
    receipts: int
    lines: int
    unknown_lines: int


class Given(NamedTuple):
    """A shopper as an answer sees one: from the store, or from the body of a request."""

    shopper: str
    events: CodedEvents
    attributes: Mapping[str, Any] = {}
    denied: Sequence[str] = ()


class Engine:
    """Answers of any model over one store; nothing of a request is kept but the cache.

    Parameters
    ----------
    store : where receipts are
    cache_lines : receipt lines of hot shoppers that may be kept
    """

    def __init__(self, store: Store, cache_lines: int = 2_000_000) -> None:
        self.store, self.cache = store, HotShoppers(cache_lines)
        self._lists: Lists | None = None
        self._masks: dict[str, NDArray[np.bool_]] = {}  # model's digest -> offered at all?
        self._lock = Lock()

    def offers(self, model: ServedModel, shopper: str, wish: Wish) -> Answer:
        """The answer for a stored shopper, who need not be known.

        Raises
        ------
        StoreUnavailable
            If the database does not answer.
        SettingError
            If the purpose is not known, or a rule makes no sense.
        """
        known = self.store.shopper(shopper)
        events = self.events(model, shopper, known)
        given = Given(shopper, events, known.attributes, known.denied)
        return self.answer(model, [given], wish, known.ends, self.lists(known.lists))[0]

    def answer(
        self,
        model: ServedModel,
        given: Sequence[Given],
        wish: Wish,
        ends: datetime | None,
        lists: Lists,
    ) -> list[Answer]:
        """Answers for shoppers whose histories are at hand; `ends` is where receipts end.

        The present is the latest of `ends` (or `wish.at`) and the end of what the model knows, as for
        a batch over the same receipts.
        """
        rules = self.rules_of(wish, lists)
        end = max(wish.at or ends or model.end, model.end)
        before = None if wish.at is None else microseconds(wish.at)
        history = model.history(
            [g.shopper for g in given],
            [g.events for g in given],
            [g.attributes for g in given],
            end,
            before,
        )
        slots, denied = wish.filled, [g.denied for g in given]
        names = list(slots)
        k = sum(slots.values())
        scored = {purpose: model.score(history, k, purpose) for purpose in names}
        found = model.choose(
            scored, slots, rules, lambda pool: self._allowed(model, pool, denied, wish.among, lists)
        )
        words = model.reasons(scored, found) if wish.reasons else None
        chance = model.probabilities(scored, found)
        kind = names[0] if len(names) == 1 else "mixed"
        answers = []
        for row, one in enumerate(given):
            offers = tuple(
                Offer(
                    model.ids[code],
                    model.labels[code],
                    rank + 1,
                    float(found.best.scores[row, rank]),
                    None if chance is None else float(chance[row, rank]),
                    None if words is None else words[row, rank],
                    None if len(names) == 1 else names[found.purpose[row, rank]],
                )
                for rank, code in enumerate(found.best.items[row].tolist())
                if code >= 0
            )
            answers.append(_told(model, one, offers, history.end, before, kind))
        return answers

    def events(self, model: ServedModel, shopper: str, known: Shopper) -> CodedEvents:
        """The stored history in the model's codes, from the cache if it is there and still true."""
        if not known.version:
            return code_lines(model, [], [], [], _NO_AMOUNTS)
        key, label = (shopper, model.digest), (known.version, known.text_numbers)
        found = self.cache.get(key, label)
        if found is None:
            # what is read now may be newer than `known`; the next request then sees another version
            found = code_lines(model, *self.store.events(shopper, known.text_numbers))
            self.cache.put(key, label, found)
        return found

    def lists(self, version: int | None = None) -> Lists:
        """Unavailable items and rules; read anew unless `version` is the one that is at hand."""
        found = self._lists
        if found is None or version is None or found.version != version:
            found = self.store.lists()
            with self._lock:
                self._lists, self._masks = found, {}
        return found

    def rules_of(self, wish: Wish, lists: Lists) -> dict[str, Any]:
        """The purpose's saved rules with those of the request on top.

        Raises
        ------
        SettingError
            If the purpose is not known.
        """
        kinds: dict[str, dict[str, Any]] = {"replenish": {}, "discover": {}}
        new = {"new": {"min_new": sum(wish.filled.values())}}
        known = {DEFAULT_PURPOSE: {}} | new | kinds | lists.rules
        if wish.purpose not in known:
            raise SettingError(
                f"there is no purpose {wish.purpose!a}; expected one of {', '.join(sorted(known))}. "
                f"Save rules for it first."
            )
        return {**known[wish.purpose], **wish.rules}

    def _allowed(
        self,
        model: ServedModel,
        pool: Pool,
        denied: Sequence[Sequence[str]],
        among: frozenset[str] | None,
        lists: Lists,
    ) -> NDArray[np.bool_] | None:
        """(n_pairs,) may the candidate be offered? None: all may."""
        if not (lists.unavailable or among is not None or any(denied)):
            return None
        allowed = np.ones(len(pool.items), np.bool_)
        if lists.unavailable:
            allowed &= self._available(model, lists)[pool.items]
        if among is not None:
            allowed &= model.mask(among)[pool.items]
        for row, items in enumerate(denied):
            if items:
                mine = slice(pool.indptr[row], pool.indptr[row + 1])
                allowed[mine] &= ~np.isin(pool.items[mine], model.codes(items))
        return allowed

    def _available(self, model: ServedModel, lists: Lists) -> NDArray[np.bool_]:
        """(n_items,) is the item offered at all? Kept until the lists change."""
        if lists is not self._lists:
            return ~model.mask(lists.unavailable)
        found = self._masks.get(model.digest)
        if found is None:
            found = self._masks[model.digest] = ~model.mask(lists.unavailable)
        return found


def code_lines(
    model: ServedModel,
    times: Iterable[int],
    sizes: Iterable[int],
    items: Sequence[str],
    amounts: NDArray[np.void],
) -> CodedEvents:
    """Lines in the model's codes; receipts are numbered before lines of unknown items are left out.

    Parameters
    ----------
    times, sizes : of each receipt, in order of time
    items, amounts : of each line
    """
    size = np.asarray(list(sizes), np.int64)
    time = np.repeat(np.asarray(list(times), np.int64), size)
    receipt = np.repeat(np.cumsum(size > 0, dtype=np.int32) - 1, size).astype(np.int32)
    return CodedEvents(time, receipt, model.codes(items), amounts)


def code_receipts(model: ServedModel, receipts: Sequence[Receipt]) -> CodedEvents:
    """Receipts, in order of time, in the model's codes."""
    return code_lines(
        model,
        [r.time for r in receipts],
        [len(r.items) for r in receipts],
        [item for r in receipts for item in r.items],
        np.concatenate([_NO_AMOUNTS, *(r.amounts for r in receipts)]),
    )


def _told(
    model: ServedModel,
    given: Given,
    offers: tuple[Offer, ...],
    as_of: datetime,
    before: int | None,
    kind: Purpose,
) -> Answer:
    """The answer, with its level and why."""
    events = given.events
    there = slice(None) if before is None else events.time < before
    lines = len(events.item[there])
    unknown = int((events.item[there] < 0).sum())
    receipts = len(np.unique(events.receipt[there]))
    facts = [name for name in model.user_columns if given.attributes.get(name) is not None]
    level: Level
    if not offers and kind == "replenish" and lines == unknown:
        level, why = "none", "no usable receipt is known, so there is nothing to replenish"
    elif not offers:
        level, why = "none", "no candidate may be offered under the rules and lists that hold"
    elif lines > unknown:
        level = "personal"
        why = f"{receipts:,} receipts with {lines:,} lines are known"
        if unknown:
            why += f"; {unknown:,} lines are of items that the model does not know"
    elif facts:
        level, why = "segment", f"no usable receipt is known, but attributes are: {', '.join(facts)}"
    elif lines:
        level, why = "popular", f"all {lines:,} known lines are of items that the model does not know"
    else:
        level, why = "popular", "no receipt of this shopper is known"
    return Answer(
        given.shopper, offers, model.name, model.digest, as_of, level, why, receipts, lines, unknown
    )

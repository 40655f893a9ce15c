"""From a shopper's id to an answer: the stored history, one model, the rules, and why it is so."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from cachetools import LRUCache, cachedmethod
from numpy.typing import NDArray

from retailrec.data import Unplaced
from retailrec.data.history import Pairs
from retailrec.data.parsing import MISSING, bare_id
from retailrec.errors import SettingError
from retailrec.recommender.among import Among, Eligible
from retailrec.recommender.answers import CROWD, Answer, ReceiptFacts, count_amounts
from retailrec.recommender.purposes import PURPOSES, Purpose
from retailrec.recommender.request import Request
from retailrec.serving.database import Dismissal, Lists, Shopper
from retailrec.serving.receipts import AMOUNTS, Receipt, clock, microseconds, moment
from retailrec.serving.served_model import CodedEvents, ServedModel
from retailrec.serving.store import Store

Key = tuple[str, str]  # shopper, model's digest


_Entry = tuple[tuple[object, ...], CodedEvents]  # under which label, what


class HotShoppers:
    """Coded events of the shoppers asked for last.

    An entry counts only under the label that it was stored with (the shopper's version in the store),
    so a receipt that any process stores makes it useless at once.

    Parameters
    ----------
    most_lines : receipt lines that may be kept; 36 bytes each
    """

    def __init__(self, most_lines: int = 2_000_000) -> None:
        self._entries: LRUCache[Key, _Entry] = LRUCache(most_lines, _size)
        self._lock = Lock()
        self.hits = self.misses = 0

    def get(self, key: Key, label: tuple[object, ...]) -> CodedEvents | None:
        """The events, if they are here under this label."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry[0] != label:
                self.misses += 1
                return None
            self.hits += 1
            return entry[1]

    def put(self, key: Key, label: tuple[object, ...], events: CodedEvents) -> None:
        """Keep the events, and let go of others if there are too many."""
        with self._lock, suppress(ValueError):  # larger than all that may be kept
            self._entries.pop(key, None)
            self._entries[key] = label, events

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of shoppers; number of histories that were kept."""
        with self._lock:
            found = list(self._entries)
        dropped = [key for key in found if gone(key[0])]  # takes long, so no other request waits for it
        with self._lock:
            return sum(self._entries.pop(key, None) is not None for key in dropped)

    def clear(self) -> None:
        """Let go of all users."""
        with self._lock:
            self._entries.clear()

    @property
    def lines(self) -> int:
        """Lines kept now."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)


def _size(entry: _Entry) -> int:
    return len(entry[1].item) + 10  # what an entry takes beside its lines


Level = Literal["personal", "segment", "popular", "none"]
DEFAULT_RULESET = "default"
_FACTS_SECONDS, _FACTS_RECEIPTS, _FACTS_MODELS = 300.0, 2000, 20


@dataclass(frozen=True)
class OfferRequest:
    """A request as it comes over HTTP: its rules are saved ones, by name, with its own on top."""

    request: Request = field(default_factory=Request)  # without rules; eligible items are ids as text
    ruleset: str | None = None  # name of the saved rules that hold; None: those saved as `default`
    rules: Mapping[str, Any] = field(default_factory=dict)  # on top of the saved ones
    notes: tuple[str, ...] = ()  # sentences about how it was asked

    @classmethod
    def of(
        cls, ruleset: str | None = None, rules: Mapping[str, Any] | None = None, **settings: Any
    ) -> OfferRequest:
        """From the fields of a `Request`, where `purpose` may still be the name of saved rules.

        That was its second meaning up to version 0.2: the answer then says how to ask.

        Raises
        ------
        SettingError
            If the request makes no sense.

        Examples
        --------
        >>> OfferRequest.of(purpose="mailing").ruleset
        'mailing'
        """
        purpose: str = settings.get("purpose") or "mixed"
        notes: tuple[str, ...] = ()
        if purpose not in PURPOSES and ruleset is None:
            ruleset, notes = purpose, (_OLD_PURPOSE.format(purpose),)
            purpose = "mixed"
        return cls(Request.read(settings | {"purpose": purpose}), ruleset, rules or {}, notes)

    def in_arm(
        self, purpose: str | None, ruleset: str | None, explore: float | None = None, salt: str = ""
    ) -> OfferRequest:
        """The request as an arm of an experiment changes it; None: as it is."""
        request = self.request
        if explore is not None:
            pool = request.pool if request.pool > request.k else 2 * request.k
            fresh = request.fresh if explore else 0  # which has its place in a pool alone
            salt = request.salt or salt
            request = replace(request, explore=explore, pool=pool, fresh=fresh, salt=salt)
        if purpose in PURPOSES:
            request = replace(request, purpose=purpose)
        elif ruleset is None:  # up to version 0.2 an arm's purpose named saved rules
            ruleset = purpose
        return replace(self, request=request, ruleset=ruleset or self.ruleset)


_OLD_PURPOSE = (
    "purpose is the kind of list now (mixed, replenish, discover); {0!r} is the name of saved rules: "
    "ask with ruleset={0}. The old way ends with the next version."
)


class Offer(NamedTuple):
    """One item of an answer; `item` is the catalogue's own id, a number or text.

    `purpose` is that of the item's slot, None for a list of one purpose; `propensity` the chance of the
    draw, None where nothing was drawn.
    """

    item: Any
    name: str
    rank: int
    score: float
    probability: float | None
    reasons: str | None
    purpose: Purpose | None = None
    propensity: float | None = None


class Poolable(NamedTuple):
    """One item of the pool that an explored list was drawn from."""

    item: Any
    score: float
    propensity: float
    shown: bool
    rank: int


@dataclass(frozen=True)
class Reply:
    """A user's list, and how it came about.

    Its level is ``personal``: from the shopper's own receipts; ``segment``: from attributes alone;
    ``popular``: nothing is known; ``none``: no list.
    """

    shopper: str
    offers: tuple[Offer, ...]
    model: str  # name of the model that answered
    digest: str  # of all that it holds
    as_of: datetime  # the present that ages were counted from
    level: Level
    why: str  # the level, in words
    receipts: int  # of the shopper's history
    lines: int
    unknown_lines: int  # lines of items that the model does not know
    purpose: Purpose = "mixed"
    ruleset: str = DEFAULT_RULESET  # whose saved rules held
    notes: tuple[str, ...] = ()  # what a caller should know of the request, in sentences
    pool: tuple[Poolable, ...] = ()  # every item that an explored list could hold, listed or not


class UserRecord(NamedTuple):
    """A user as an answer sees one: from the store, or from the body of a request."""

    shopper: str
    events: CodedEvents
    attributes: Mapping[str, Any] = {}
    denied: Sequence[str] = ()
    dismissed: Sequence[Dismissal] = ()

    @classmethod
    def of(cls, shopper: str, known: Shopper, events: CodedEvents) -> UserRecord:
        """A user of the store, with these events."""
        return cls(shopper, events, known.attributes, known.denied, known.dismissed)


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
        # what lists mean in a model's codes, by its digest, their version, and store
        self._masks: LRUCache[tuple[str, int], NDArray[np.bool_]] = LRUCache(8)
        self._stores: LRUCache[tuple[str, int, str | None], NDArray[np.int32]] = LRUCache(1000)
        self._lock = Lock()
        self._facts: dict[str, tuple[float, ReceiptFacts | None]] = {}  # digest -> when looked at, what

    def offers(self, model: ServedModel, shopper: str, asked: OfferRequest) -> Reply:
        """The answer for a stored shopper, who need not be known.

        Raises
        ------
        StoreUnavailable
            If the database does not answer.
        SettingError
            If there are no such saved rules, or a rule makes no sense.
        """
        known = self.store.shopper(shopper)
        user = UserRecord.of(shopper, known, self.events(model, shopper, known))
        facts = self.receipt_facts(model, known.ends)
        return self.answer(model, [user], asked, known.ends, self.lists(known.lists), facts)[0]

    def answer(
        self,
        model: ServedModel,
        users: Sequence[UserRecord],
        asked: OfferRequest,
        ends: datetime | None,
        lists: Lists,
        facts: ReceiptFacts | None = None,
    ) -> list[Reply]:
        """Answers for users whose histories are at hand; `ends` is where receipts end.

        What `facts` say of the receipts, beside those of the fit, is among the notes. The present is
        the latest of `ends` (or the request's time) and the end of what the model knows, as for a
        batch over the same receipts.
        """
        request = asked.request
        ruleset, saved = saved_rules(asked, lists)
        end = model.present(request.at or ends)
        before = None if request.at is None else microseconds(request.at)
        rules, denied = None, self._denied(model, users, request, end, lists)
        previous = None
        if request.steady:
            previous = self.store.last_shown([user.shopper for user in users])
        slotted = request.slots is not None or request.explore > 0 or previous is not None
        if saved or lists.unavailable or denied is not None or slotted:
            available = self._available(model, lists) if lists.unavailable else None
            rules = model.bound_rules(saved).narrowed(available)
            rules.in_store, rules.previous = request.in_store, previous
            rules.steady = request.steady
        history = model.history(
            [user.shopper for user in users],
            [user.events for user in users],
            [user.attributes for user in users],
            end,
            before,
            () if rules is None else rules.rules.attributes,
        )
        eligible = None if request.among is None else _eligible(model, request.among, len(users))
        answer = model.answerer(request).answer(history, request, eligible, rules=rules, denied=denied)
        among = None if eligible is None else eligible.report(request.k)
        if facts is not None and request.at is not None:
            facts = facts.before(request.at)
        notes = asked.notes + answer.report.completed(request, facts, among).notes
        if request.at is None:
            notes += yet_to_come(end)
        replies = []
        for row, user in enumerate(users):
            offers = _offers(model, answer, row)
            level = _level(model, user, not offers, before, request.purpose)
            how = (model.name, model.digest, history.end, *level, request.purpose, ruleset, notes)
            replies.append(Reply(user.shopper, offers, *how, _pool(model, answer, row)))
        return replies

    def events(self, model: ServedModel, shopper: str, known: Shopper) -> CodedEvents:
        """The stored history in the model's codes, from the cache if it is there and still true."""
        if not known.version:
            return code_receipts(model, [])
        key, label = (shopper, model.digest), (known.version, known.text_numbers)
        found = self.cache.get(key, label)
        if found is None:
            # what is read now may be newer than `known`; the next request then sees another version
            found = code_lines(model, *self.store.events(shopper, known.text_numbers))
            self.cache.put(key, label, found)
        return found

    def receipt_facts(self, model: ServedModel, ends: datetime | None) -> ReceiptFacts | None:
        """What there is to say of the store's receipts, by some of them; None where there are none.

        They are looked at again after `_FACTS_SECONDS`, by one request, while others go on.
        """
        made, found = self._facts.get(model.digest, (-math.inf, None))
        if time.monotonic() > made + _FACTS_SECONDS:
            with self._lock:
                if len(self._facts) > _FACTS_MODELS:
                    self._facts.clear()
                self._facts[model.digest] = time.monotonic(), found
            receipts, n_users = self.store.some_receipts(_FACTS_RECEIPTS, CROWD)
            found = facts_of(model, receipts, ends, n_users)
            self._facts[model.digest] = time.monotonic(), found
        return found if found is None or ends is None else found._replace(end=ends)

    def lists(self, version: int | None = None) -> Lists:
        """Unavailable items and rules; read again unless `version` is the one that is at hand."""
        found = self._lists
        if found is None or version is None or found.version != version:
            found = self._lists = self.store.lists()
        return found

    def barred(self, model: ServedModel, shopper: str) -> NDArray[np.bool_]:
        """(n_items,) must the item not be shown to the shopper?

        Of an unknown one ("") nothing is known, so what is forbidden where an attribute is missing is
        barred.
        """
        known = self.store.shopper(shopper)
        lists = self.lists(known.lists)
        user = UserRecord.of(shopper, known, code_receipts(model, []))
        end = model.present(known.ends)
        barred = model.mask(lists.unavailable)
        denied = self._denied(model, [user], Request(), end, lists)
        if denied is not None:
            barred[denied.items] = True
        _, saved = saved_rules(OfferRequest(), lists)
        if saved.get("forbid"):
            rules = model.bound_rules({"forbid": saved["forbid"]})
            also = rules.rules.attributes
            people = model.history([shopper], [user.events], [user.attributes], end, None, also)
            barred |= rules.forbidden(people.users)[0]
        return barred

    def _denied(
        self,
        model: ServedModel,
        users: Sequence[UserRecord],
        request: Request,
        end: datetime,
        lists: Lists,
    ) -> Pairs | None:
        """Items never to be listed, by user: denied, dismissed, or off in the user's store; None: there
        are none."""
        off = lists.unavailable_in
        if not off and not any(user.denied or user.dismissed for user in users):
            return None
        now = microseconds(end)
        before = now if request.at is None else microseconds(request.at)
        codes = []
        for user in users:
            store = request.in_store or _as_id(user.attributes.get("store"))
            known = [model.codes(user.denied)]
            if off and (store is None or store in off):
                known.append(self._off(model, lists, store))
            for said in user.dismissed:
                if said.until > now and (request.at is None or said.since < before):
                    known.append(model.dismissed(said.item, said.category))
            found = np.unique(np.concatenate(known))
            codes.append(found[found >= 0])
        indptr = np.append(0, np.cumsum([len(code) for code in codes])).astype(np.int64)
        return Pairs(indptr, np.concatenate(codes).astype(np.int32))

    @cachedmethod(
        lambda self: self._stores,
        lambda self, model, lists, store: (model.digest, lists.version, store),
        lambda self: self._lock,
    )
    def _off(self, model: ServedModel, lists: Lists, store: str | None) -> NDArray[np.int32]:
        """Codes of the items that a store does not offer; of no known store, that any does not."""
        off = lists.unavailable_in
        return model.codes(frozenset().union(*off.values()) if store is None else off[store])

    @cachedmethod(
        lambda self: self._masks,
        lambda self, model, lists: (model.digest, lists.version),
        lambda self: self._lock,
    )
    def _available(self, model: ServedModel, lists: Lists) -> NDArray[np.bool_]:
        """(n_items,) is the item offered at all?"""
        return ~model.mask(lists.unavailable)


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
        np.concatenate([np.zeros(0, AMOUNTS), *(r.amounts for r in receipts)]),
    )


def yet_to_come(end: datetime) -> tuple[str, ...]:
    """What there is to say where receipts, or those of the model, end after this machine's day."""
    today = moment(clock())
    if end <= today + timedelta(days=2):
        return ()
    return (
        f"receipts end on {end - timedelta(days=1):%Y-%m-%d}, and this machine's clock says "
        f"{today:%Y-%m-%d}: all lists are of the later day. Correct the clock, or make a "
        f"store without the receipts that are yet to come",
    )


def facts_of(
    model: ServedModel, receipts: Sequence[Receipt], ends: datetime | None, n_users: int
) -> ReceiptFacts | None:
    """What there is to say of receipts of `n_users`; None where no line is left of them."""
    full = [receipt for receipt in receipts if receipt.items]
    if not full or ends is None:
        return None
    items = [item for receipt in full for item in receipt.items]
    codes, amounts = model.codes(items), np.concatenate([receipt.amounts for receipt in full])
    known = codes >= 0
    strange = pl.Series(items, dtype=pl.String).filter(~known)
    lines = pl.DataFrame(
        {
            "item": codes[known],
            "quantity": amounts["quantity"][known],
            "value": pl.Series(amounts["value"][known]).fill_nan(None),
        }
    )
    unplaced = Unplaced(len(items), len(strange), strange.unique().sort())
    counted, first = count_amounts(lines, model.model.prices_), moment(min(r.time for r in full))
    return model.model.catalogue.facts(unplaced, first, ends, n_users, counted)


def saved_rules(asked: OfferRequest, lists: Lists) -> tuple[str, dict[str, Any]]:
    """The name of the saved rules that hold, and these with those of the request on top.

    Rules saved under the name of a purpose hold for it where no ruleset is named. What is forbidden
    adds up: by the rules saved as ``default``, which always holds, by the others, and by the request.

    Raises
    ------
    SettingError
        If nothing is saved under the name.
    """
    request = asked.request
    known = {DEFAULT_RULESET: {}, "new": {"min_new": request.k}} | lists.rules
    name = asked.ruleset
    if name is None:
        name = request.purpose if request.purpose in lists.rules else DEFAULT_RULESET
    if name not in known:
        raise SettingError(
            f"there is no ruleset {name!a}; expected one of {', '.join(sorted(known))}. Save rules "
            f"under this name first; a purpose is one of {', '.join(PURPOSES)}."
        )
    found = {**known[name], **asked.rules}
    forbid: list[Any] = []
    for rules in (known[DEFAULT_RULESET], known[name], asked.rules):
        forbid += [one for one in rules.get("forbid", ()) if one not in forbid]
    return name, found | ({"forbid": forbid} if forbid else {})


def _as_id(value: Any) -> str | None:
    """An attribute as the id that it is: 3.0 as "3", " north " as "north"; None where it says nothing.

    Examples
    --------
    >>> _as_id(3.0), _as_id(" north "), _as_id("NULL")
    ('3', 'north', None)
    """
    whole = isinstance(value, float) and value.is_integer()
    text = bare_id(str(int(value) if whole else value))
    return None if value is None or text in MISSING else text


def _eligible(model: ServedModel, among: Among, n_users: int) -> Eligible:
    """Eligible items, ids as text, in the model's codes."""
    codes = np.unique(model.codes([] if among.items is None else among.items))
    known = codes[codes >= 0].astype(np.int32)
    listed = 0 if among.items is None else among.items.n_unique()
    return Eligible(n_users, known, None, unknown_items=listed - len(known))


def _offers(model: ServedModel, answer: Answer, row: int) -> tuple[Offer, ...]:
    """One user's list."""
    several, chance, why = len(answer.purposes) > 1, answer.probability, answer.reasons
    drawn = None
    if answer.explored is not None:
        drawn = answer.explored.of_list(answer.explored.propensity)[row].tolist()
    return tuple(
        Offer(
            model.ids[code],
            model.labels[code],
            rank + 1,
            float(answer.best.scores[row, rank]),
            None if chance is None else float(chance[row, rank]),
            None if why is None else why[row, rank],
            answer.purposes[answer.purpose[row, rank]] if several else None,
            None if drawn is None else drawn[rank],
        )
        for rank, code in enumerate(answer.best.items[row].tolist())
        if code >= 0
    )


def _pool(model: ServedModel, answer: Answer, row: int) -> tuple[Poolable, ...]:
    """One user's pool."""
    if answer.explored is None:
        return ()
    columns = (column[row].tolist() for column in answer.explored[:5])
    there = ((*rest, code) for code, *rest in zip(*columns, strict=True) if code >= 0)
    return tuple(
        Poolable(model.ids[code], score, propensity, shown, rank)
        for rank, (score, _, propensity, shown, code) in enumerate(there, 1)
    )


def _level(
    model: ServedModel, user: UserRecord, is_empty: bool, before: int | None, kind: Purpose
) -> tuple[Level, str, int, int, int]:
    """Level and why of a list, and the receipts, lines and unknown lines of the history."""
    events = user.events
    there = slice(None) if before is None else events.time < before
    lines = len(events.item[there])
    unknown = int((events.item[there] < 0).sum())
    receipts = len(np.unique(events.receipt[there]))
    facts = [name for name in model.user_columns if user.attributes.get(name) is not None]
    level: Level = "popular"
    if is_empty and kind == "replenish" and lines == unknown:
        level, why = "none", "no usable receipt is known, so there is nothing to replenish"
    elif is_empty:
        level, why = "none", "no candidate may be offered under the rules and lists that hold"
    elif lines > unknown:
        level, why = "personal", f"{receipts:,} receipts with {lines:,} lines are known"
        if unknown:
            why += f"; {unknown:,} lines are of items that the model does not know"
    elif facts:
        level, why = "segment", f"no usable receipt is known, but attributes are: {', '.join(facts)}"
    elif lines:
        why = f"all {lines:,} known lines are of items that the model does not know"
    else:
        why = "no receipt of this shopper is known"
    return level, why, receipts, lines, unknown

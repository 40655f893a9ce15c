"""What each page shows: numbers first, as plain values; templates only lay them out.

Figures over all receipts take one pass over the store beside the answers, now and then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from importlib.resources import files
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import numpy as np
from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from jinja2 import PackageLoader
from markupsafe import Markup
from numpy.typing import NDArray
from sqlalchemy import func, select
from starlette.responses import RedirectResponse, Response

from retailrec.errors import RetailRecError
from retailrec.recommender.explanations import in_days
from retailrec.recommender.purposes import PURPOSES
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.report import drawings
from retailrec.report.page import Table, asset, environment, named
from retailrec.serving import schema
from retailrec.serving.database import StoreUnavailable
from retailrec.serving.engine import Engine, OfferRequest, Reply, UserRecord, code_receipts
from retailrec.serving.guard import allow
from retailrec.serving.messages import Problem, RulesetIn, RulesIn
from retailrec.serving.receipts import (
    AMOUNTS,
    Receipt,
    WrongClock,
    check_id,
    microseconds,
    moment,
    unpack_lines,
)
from retailrec.serving.served_model import ServedModel
from retailrec.serving.service import Service
from retailrec.work import fingerprint

Values = dict[str, Any]
_LOG = logging.getLogger("retailrec.serving")
WEEKS = 52
_WEEK_US = 7 * 86_400 * 1_000_000
_SHOWN = 100_000  # newest exposures that are counted
_LINES = 25  # of a receipt on a page


@dataclass
class StoreFacts:
    """Counts over all receipts; by week: (n_items, WEEKS), the last one ends at `end`."""

    end: datetime
    made: float
    n_receipts: int = 0
    n_lines: int = 0
    n_shoppers: int = 0
    code: dict[str, int] = field(default_factory=dict)  # item -> row of the arrays
    receipts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, WEEKS), np.int64))
    quantity: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, WEEKS)))
    value: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, WEEKS)))
    buyers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    again: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))  # buyers, twice
    gap: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # mean days between purchases
    weekly: list[int] = field(default_factory=list)  # receipts by week
    shown: Counter[str] = field(default_factory=Counter)  # item -> times it was on a list lately
    n_shown: int = 0
    sample: list[str] = field(default_factory=list)  # up to 100 shoppers, evenly drawn

    def weeks(self) -> list[str]:
        """First day of each week."""
        return [f"{self.end - timedelta(weeks=WEEKS - w):%Y-%m-%d}" for w in range(WEEKS)]


class Facts:
    """The newest facts, and a thread that renews them when somebody asks and they are old.

    Parameters
    ----------
    every : seconds that facts are good for
    """

    def __init__(self, service: Service, every: float = 300.0) -> None:
        self._service, self._every = service, every
        self._found: StoreFacts | None = None
        self._lock = threading.Lock()
        self._changing = threading.Lock()  # of what is known
        self._thread: threading.Thread | None = None

    def now(self) -> StoreFacts | None:
        """What is known, and None before the first pass is done; a pass starts if it is time."""
        found = self._found
        if found is None or time.monotonic() - found.made > self._every:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self._try, name="facts", daemon=True)
                    self._thread.start()
        return found

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of examples who were forgotten; their number."""
        with self._changing:
            found = self._found
            if found is None:
                return 0
            self._found = self._without(found, gone)
            return len(found.sample) - len(self._found.sample)

    def _try(self) -> None:
        try:
            self.renew()
        except RetailRecError as error:
            _LOG.warning("receipts were not counted for the pages: %s", error)

    def renew(self) -> StoreFacts:
        """Go through the store once."""
        found = gather(self._service)
        with self._changing:  # who was forgotten meanwhile is never among the examples
            gone = self._service.store.forgotten(found.sample)
            found = self._found = self._without(found, lambda shopper: shopper in gone)
        return found

    def _without(self, found: StoreFacts, gone: Callable[[str], bool]) -> StoreFacts:
        kept = [shopper for shopper in found.sample if not gone(shopper)]
        if len(kept) == len(found.sample):
            return found
        return replace(found, sample=kept, made=-self._every)  # counts are renewed, too


def gather(service: Service) -> StoreFacts:
    """Counts over all receipts and the newest exposures."""
    store = service.store
    end = store.shopper("").ends or service.models.active.end
    table = schema.receipts
    columns = (table.c.shopper, table.c.time, table.c["items"], table.c.amounts)
    code: dict[str, int] = {}
    parts: list[tuple[NDArray[Any], ...]] = []
    shoppers: dict[str, int] = {}
    found = StoreFacts(end, time.monotonic())
    weekly = np.zeros(WEEKS, np.int64)
    end_us = microseconds(end)
    with store.snapshot() as connection:
        rows = connection.execution_options(yield_per=5000).execute(select(*columns))
        for some in rows.partitions():
            full = [row for row in some if row[2]]
            size, items, sums = unpack_lines([row[2] for row in full], [row[3] for row in full])
            who = np.array([shoppers.setdefault(row[0], len(shoppers)) for row in full], np.int64)
            when = np.array([row[1] for row in full], np.int64)
            item = np.array([code.setdefault(name, len(code)) for name in items], np.int64)
            of_lines = np.repeat(who, size), item, np.repeat(when, size)
            parts.append((*of_lines, sums["quantity"], sums["value"]))
            week = WEEKS - 1 - (end_us - 1 - when) // _WEEK_US
            weekly += np.bincount(week[week >= 0], minlength=WEEKS)[:WEEKS]
            found.n_receipts += len(full)
    if parts:
        _count(found, [np.concatenate(p) for p in zip(*parts, strict=True)], len(code), end_us)
    found.code, found.weekly, found.n_shoppers = code, weekly.tolist(), len(shoppers)
    found.sample = sorted(shoppers)[:: max(len(shoppers) // 100, 1)][:100]
    log = schema.exposures.c
    shown = select(log.item_id).where(log.shadow.is_(False), log.item_id.is_not(None))
    place = shown.order_by(log.id.desc()).limit(_SHOWN).subquery().c.item_id
    with store.snapshot() as connection:
        counted = connection.execute(select(place, func.count()).group_by(place))
        found.shown = Counter({row[0]: row[1] for row in counted})
    found.n_shown = found.shown.total()
    return found


def _count(found: StoreFacts, columns: list[NDArray[Any]], n_items: int, end_us: int) -> None:
    """Fill in what is counted by item; `columns` are shopper, item, time, quantity, value of lines."""
    user, item, when, quantity, value = columns
    found.n_lines = len(item)
    week = WEEKS - 1 - (end_us - 1 - when) // _WEEK_US
    late = (week >= 0) & (week < WEEKS)  # a receipt of tomorrow may come while today's are counted
    place = item[late] * WEEKS + week[late]

    def by_week(weights: NDArray[np.float64] | None = None) -> NDArray[Any]:
        return np.bincount(place, weights, n_items * WEEKS).reshape(n_items, WEEKS)

    found.receipts, found.quantity = by_week(), by_week(quantity[late])
    found.value = by_week(np.nan_to_num(value[late]))
    order = np.lexsort((when, item, user))
    same = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    pairs = np.append(True, ~same)
    found.buyers = np.bincount(item[order][pairs], minlength=n_items)
    second = np.append(False, same)
    first_again = second & ~np.append(False, second[:-1])
    found.again = np.bincount(item[order][first_again], minlength=n_items)
    days = np.diff(when[order])[same] / 86_400e6
    of_item = item[order][1:][same]
    total = np.bincount(of_item, days, n_items)
    found.gap = total / np.maximum(np.bincount(of_item, minlength=n_items), 1)


def what_if(
    receipts: Sequence[Receipt], query: Mapping[str, str], now: int, model: ServedModel
) -> tuple[list[Receipt], list[str]]:
    """The receipts with a line added now and an item never bought, and both in words."""
    found, changed = list(receipts), []
    last = model.changed_ids.last
    drop, add = (last("item", query.get(name, "").strip()) for name in ("drop", "add"))
    if drop:
        found = [_without(receipt, drop) for receipt in found]
        changed.append(f"never bought {model.label(drop)}")
    if add:
        try:
            quantity = min(
                1000.0, max(0.001, float(query.get("quantity") or 1))
            )  # so nan is no quantity
        except ValueError:
            quantity = 1.0
        code = model.code_of.get(add)
        price = float("nan") if code is None else float(model.model.prices_[code])
        line = np.array([(quantity, price * quantity, float("nan"))], AMOUNTS)
        found.append(Receipt("", "what if", now, (add,), line))
        unknown = " (an item that the model does not know)" if code is None else ""
        changed.append(f"also bought {quantity:g} of {model.label(add)}{unknown}")
    return found, changed


def _without(receipt: Receipt, item: str) -> Receipt:
    if item not in receipt.items:
        return receipt
    keep = [place for place, name in enumerate(receipt.items) if name != item]
    items = tuple(receipt.items[i] for i in keep)
    return replace(receipt, items=items, amounts=receipt.amounts[keep])


def side(title: str, answer: Reply, usual: Reply) -> Values:
    """A list, how each item moved against the usual one, and its score as a share of the best."""
    before = {offer.item: offer.rank for offer in usual.offers}
    scores = [offer.score for offer in answer.offers]
    low, high = min([0.0, *scores]), max(scores, default=1.0)
    offers = [
        offer._asdict()
        | {
            "move": before[offer.item] - offer.rank if offer.item in before else "new",
            "share": (offer.score - low) / ((high - low) or 1.0),
        }
        for offer in answer.offers
    ]
    return {"title": title, "answer": answer, "offers": offers}


def receipt(given: Receipt, model: ServedModel) -> Values:
    """A receipt as the page shows it."""
    lines = []
    for item, amount in zip(given.items[:_LINES], given.amounts, strict=False):
        paid = "" if np.isnan(amount["value"]) else f" for {amount['value']:.2f}"
        text = f"{amount['quantity']:g}{paid}"
        lines.append({"item": item, "name": model.label(item), "text": text})
    value = float(np.nansum(given.amounts["value"]))
    when, n = f"{moment(given.time):%Y-%m-%d %H:%M}", len(given.items)
    return {"time": when, "lines": lines, "n_lines": n, "value": value}


def timeline(receipts: Sequence[Receipt]) -> Markup | str:
    """The newest receipts by time; nothing where there is none."""
    if not receipts:
        return ""
    some = receipts[-150:]
    first, span = some[0].time, max(some[-1].time - some[0].time, 1)
    return drawings.timeline(
        [
            ((r.time - first) / span, n := len(r.items), f"{moment(r.time):%Y-%m-%d %H:%M}, {n} lines")
            for r in some
        ]
    )


K = 10


def given_of(
    engine: Engine, model: ServedModel, shoppers: Sequence[str]
) -> tuple[list[UserRecord], datetime | None]:
    """Stored shoppers as a model is asked about them, and where receipts end."""
    given, ends = [], None
    for shopper in shoppers:
        known = engine.store.shopper(shopper)
        given.append(UserRecord.of(shopper, known, engine.events(model, shopper, known)))
        ends = known.ends
    return given, ends


class Comparison:
    """Comparisons of two models over a sample of shoppers, made aside and kept."""

    def __init__(self, service: Service, facts: Facts) -> None:
        self.service, self.facts = service, facts
        self._compared: dict[tuple[str, ...], Values | None] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Let go of all comparisons."""
        with self._lock:
            self._compared.clear()

    def page(self, query: Mapping[str, str]) -> Values:
        """Where do two models differ most?"""
        models = list(self.service.models.folders())
        left = query.get("left") or self.service.models.active.name
        right = query.get("right") or next((m for m in models if m != left), left)
        pair = [self.service.models.get(left), self.service.models.get(right)]
        key = (pair[0].digest, pair[1].digest)
        facts = self.facts.now()
        with self._lock:
            if facts is not None and key not in self._compared:
                if len(self._compared) > 20:
                    self._compared.clear()
                self._compared[key] = None
                threading.Thread(target=self._compare, args=(key, pair, facts), daemon=True).start()
        found = self._compared.get(key)
        both = {"left": left, "right": right}
        return both | {
            "models": models,
            "found": found,
            "self_url": "/compare?" + urlencode(both),
            "histogram": drawings.bars(found["histogram"], "shoppers") if found else "",
        }

    def _compare(self, key: tuple[str, ...], pair: list[ServedModel], facts: StoreFacts) -> None:
        """Note how two models compare; where that fails, the next request starts it again."""
        try:
            found = self._compared_now(pair, facts)
            with self._lock:
                if key in self._compared and not self.service.store.forgotten(facts.sample):
                    self._compared[key] = found
        except RetailRecError as error:
            _LOG.warning("two models were not compared: %s", error)
        except Exception:
            _LOG.exception("two models were not compared")
        finally:
            with self._lock:
                if self._compared.get(key) is None:
                    self._compared.pop(key, None)

    def _compared_now(self, pair: list[ServedModel], facts: StoreFacts) -> Values:
        since = max(model.end for model in pair)
        lists = []
        for model in pair:
            given, ends = given_of(self.service.engine, model, facts.sample)
            late = bool(ends and ends > since)
            asked = OfferRequest.of(k=K, at=since if late else None)
            answers = self.service.engine.answer(model, given, asked, ends, self.service.engine.lists())
            lists.append([{str(o.item) for o in a.offers} for a in answers])
        shared = [len(a & b) for a, b in zip(*lists, strict=True)]
        judged = []
        us = microseconds(since)
        for place, shopper in enumerate(facts.sample if late else []):
            bought = {i for r in self.service.store.history(shopper) if r.time >= us for i in r.items}
            if bought:
                judged.append((shopper, len(lists[0][place] & bought), len(lists[1][place] & bought)))
        judged.sort(key=lambda row: (-row[1] - row[2], row[0]))
        order = sorted(range(len(shared)), key=lambda i: (shared[i], facts.sample[i]))
        return {
            "n": len(shared),
            "shared": sum(shared) / max(len(shared), 1),
            "same": sum(n == K for n in shared),
            "since": f"{since:%Y-%m-%d}",
            "most": [(facts.sample[i], shared[i]) for i in order[:10]],
            "judged": judged if len(judged) <= 10 else judged[:5] + judged[-5:],
            "histogram": [(str(n), float(shared.count(n))) for n in range(K + 1)],
        }


RULE_FIELDS = (
    ("max_per_category", "At most of a category"),
    ("min_new", "New items at least"),
    ("price_floor", "Price at least"),
    ("price_ceiling", "Price at most"),
    ("skip_bought_days", "Not bought within days"),
    ("variety", "Variety, 0 to 1"),
    ("category", "What a category is, as category_1"),
    ("unless_due", "Offer it all the same when it is due, yes or no"),
)  # all of them: a rule that the page does not show could not be seen to hold


_SOURCE_FACTS = {
    "hit_rate@200": "shoppers with a hit",
    "recall@200_of_repeats": "of repeats",
    "recall@200_of_new": "of new items",
    "repeat_share_of_found": "repeats among hits",
    "catalogue_coverage": "of the catalogue",
    "fit_seconds": "seconds to fit",
    "candidates_seconds": "seconds to propose",
    "state_mb": "MB",
}


class Views:
    """The pages' numbers, over one service."""

    def __init__(self, service: Service) -> None:
        self.service, self.facts = service, Facts(service)
        self.comparison = Comparison(service, self.facts)
        self._reports: dict[str, Values] = {}
        self._sampled: tuple[Any, ...] = ()
        service.memory["examples of the pages"] = self

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of examples who were forgotten; their number.

        What was computed of examples goes too, since it may be of those before the newest count.
        """
        self._sampled = ()
        self.comparison.clear()
        return self.facts.forget(gone)

    def overview(self) -> Values:
        """Is the service well, and how good are its lists?"""
        service, facts, report = self.service, self.facts.now(), self.report()
        levels = dict(service.measures.levels)
        answered = sum(levels.values())
        other = answered - levels.get("personal", 0)
        took = sorted(service.measures.latencies)
        shown = {
            f"p{q}": f"{1000 * took[int(q / 100 * (len(took) - 1))]:.0f}" if took else "–"
            for q in (50, 99)
        }
        matching = report.get("matching", {})
        k = str(matching.get("chosen_k", ""))
        recall = {name: at[k] for name, at in matching.get("recall@k", {}).items() if k in at}
        coverage = "No list was made yet."
        if facts is not None and facts.n_shown:
            items = service.models.active.n_items
            coverage = (
                f"{len(facts.shown):,} of {items:,} items stood on the last {facts.n_shown:,} places "
                f"of lists; the one that stood there most took "
                f"{max(facts.shown.values()) / facts.n_shown:.1%}."
            )
        return {
            "facts": facts,
            "tiles_shown": [
                (service.models.active.name, "answers now"),
                (f"{facts.n_shoppers:,}" if facts else "…", "shoppers"),
                (f"{facts.n_receipts:,}" if facts else "…", "receipts"),
                (f"{answered:,}", "lists since the start"),
                (f"{other / answered:.0%}" if answered else "–", "not from own receipts"),
                (f"{shown['p50']} / {shown['p99']}", "ms, median and p99"),
            ],
            "coverage": coverage,
            "weekly": drawings.bars(_dated(facts, facts.weekly), "receipts") if facts else "",
            "levels": drawings.across(
                {k: float(v) for k, v in levels.items()} or {"none yet": 0.0}, "lists"
            ),
            "boards": _boards(report),
            "recall": drawings.across(recall, "recall", _styles(report)) if recall else "",
            "recall_k": k,
            "models": service.models.listed(),
        }

    def shopper(self, query: Mapping[str, str]) -> Values:
        """What does this shopper get, and why?"""
        service = self.service
        shopper = service.today(query.get("id", "").strip())
        models = list(service.models.folders())
        active = service.models.active
        facts = self.facts.now()
        examples = facts.sample[:4] if facts else []
        found: Values = {"shopper": shopper, "models": models, "examples": examples}
        if not shopper:
            return found
        lists = service.engine.lists()
        left = service.models.get(query.get("left") or active.name)
        right = service.models.get(query.get("right") or left.name)
        kinds = set(left.purposes) & set(right.purposes) - {"mixed"}
        choices = sorted({"default", "new"} | kinds | set(lists.rules))
        other = "discover" if "discover" in kinds else "new"
        rp = query.get("rp") or ("default" if right is not left else other)
        rules, error = _rules_of(query)
        known = service.store.shopper(shopper)
        receipts = service.store.history(shopper)
        end = max(known.ends or active.end, active.end)
        now, changed = what_if(receipts, query, microseconds(end) - 1, active)
        sides = []
        for model, purpose in ((left, query.get("lp") or "default"), (right, rp)):
            asked = _named(purpose, rules, reasons=True)
            given = UserRecord.of(shopper, known, code_receipts(model, now))
            answer = service.engine.answer(model, [given], asked, known.ends, lists)[0]
            usual = answer
            if changed or rules:
                before, plain = (
                    given._replace(events=code_receipts(model, receipts)),
                    _named(purpose, {}),
                )
                usual = service.engine.answer(model, [before], plain, known.ends, lists)[0]
            sides.append(side(f"{model.name}, {purpose}", answer, usual))
        if rules:
            changed = [*changed, f"rules: {_in_words(rules)}"]
        bought = {item: active.label(item) for r in reversed(receipts) for item in r.items}
        return found | {
            "choices": choices,
            "left": left.name,
            "right": right.name,
            "error": error,
            "lp": query.get("lp") or "default",
            "rp": rp,
            "add": query.get("add", ""),
            "quantity": query.get("quantity") or "1",
            "drop": query.get("drop", ""),
            "rules": rules,
            "unfolded": bool(rules or error or query.get("drop") or left is not right),
            "bought": sorted(bought.items(), key=lambda pair: pair[1])[:200],
            "suggestions": [(o["item"], o["name"]) for one in sides for o in one["offers"]],
            "changed": f"What if: {'; '.join(changed)}. Nothing is stored." if changed else "",
            "plain": "/shopper?" + urlencode({"id": shopper, "left": left.name, "right": right.name}),
            "sides": sides,
            "n_receipts": len(receipts),
            "attributes": known.attributes,
            "receipts": [receipt(r, active) for r in receipts[:-13:-1]],
            "timeline": timeline(receipts),
        }

    def item(self, query: Mapping[str, str]) -> Values:
        """How does this item sell, and to whom is it offered?"""
        model, facts = self.service.models.active, self.facts.now()
        wanted = model.changed_ids.last("item", query.get("id", "").strip())
        found: Values = {"wanted": wanted, "matches": [], "item": None}
        if not wanted:
            return found
        code = model.code_of.get(wanted)
        if code is None:
            words = wanted.lower().split()
            hits = (i for i, name in enumerate(model.labels) if all(w in name.lower() for w in words))
            found["matches"] = [(model.ids[i], model.labels[i]) for i in islice(hits, 30)]
            if not found["matches"]:
                found["error"] = "The model knows no such item, and no name has these words."
            return found
        row = model.model.items_.row(code, named=True)
        described = [(k, v) for k, v in row.items() if v is not None and k not in ("item_id", "name")]
        similar = {
            source: [(model.ids[c], model.labels[c], score) for c, score in rows]
            for source, rows in model.similar(wanted, 8).items()
        }
        about = {"id": wanted, "name": model.labels[code], "facts": described}
        found |= {"item": about, "similar": similar}
        if facts is not None:
            found |= _sales(facts, wanted)
        return found

    def sources(self) -> Values:
        """Which sources earn their place?"""
        matching = self.report().get("matching", {})
        names = [s.name for s in self.service.models.active.model.sources_]
        if not matching:
            return {"names": names, "overlap": ""}
        k = str(matching["chosen_k"])
        per_source, styles = matching["sources"], _styles(self.report())
        method = named(self.report().get("methods", {}), list(styles))
        columns = [c for c in _SOURCE_FACTS if any(c in facts for facts in per_source.values())]
        recall = {n: at[k] for n, at in matching["recall@k"].items() if k in at}
        rows = [[method[n], *(_short(v.get(c)) for c in columns)] for n, v in per_source.items()]
        return {
            "overlap": drawings.heat(list(matching["overlap"]), matching["overlap"]),
            "k": k,
            "marginal": drawings.across(matching["marginal"], "recall lost", styles),
            "recall": drawings.across(recall, "recall", styles),
            "numbers": Table(["source", *(_SOURCE_FACTS[c] for c in columns)], rows),
        }

    def compare(self, query: Mapping[str, str]) -> Values:
        """Where do two models differ most?"""
        return self.comparison.page(query)

    def rules(self, query: Mapping[str, str]) -> Values:
        """How many lists would these rules change?"""
        lists = self.service.engine.lists()
        ruleset = query.get("ruleset") or "default"
        saved = lists.rules.get(ruleset, {})
        tried = bool(query.get("try"))
        rules, error = _rules_of(query, saved) if tried else (saved, "")
        found: Values = {
            "ruleset": ruleset,
            "error": error,
            "saved": query.get("saved") == "1",
            "seen": query.get("seen") or fingerprint(saved),
            "fields": [(n, says, _as_typed(rules[n]) if n in rules else "") for n, says in RULE_FIELDS],
            "rulesets": sorted({"default", "new", "replenish", "discover"} | set(lists.rules)),
            "all_rules": [(p, _in_words(r) or "no rule") for p, r in sorted(lists.rules.items())],
        }
        if not tried or error:
            return found
        shoppers, model, scored = self._sample(Rules(**rules).attributes)
        if not shoppers:
            return found | {"effect": "The receipts are being counted; try again in a moment."}
        history, request, candidates = scored
        answerer = model.answerer(request)
        before, after = (
            answerer.compose(history, candidates, request, model.bound_rules(said)).best.items
            for said in (saved, rules)
        )
        gone = [
            int(np.isin(b[b >= 0], a, invert=True).sum()) for b, a in zip(before, after, strict=True)
        ]
        moved = int((before != after).any(axis=1).sum())
        short = int((after < 0).any(axis=1).sum())
        order = sorted(range(len(gone)), key=lambda i: (-gone[i], shoppers[i]))[:10]
        trying = _in_words(rules) or "no rule"  # which a field may have left since
        effect = (
            f"Of {len(shoppers)} lists, {moved} change, {sum(g > 0 for g in gone)} of them in "
            f"their items; {short} have fewer than {K} items left. Compared with what is saved for "
            f"“{ruleset}”; tried: {trying}."
        )
        changed = [(shoppers[i], gone[i]) for i in order if gone[i]]
        return found | {"effect": effect, "changed": changed, "may_save": True}

    def save_rules(self, values: Mapping[str, str]) -> str:
        """Save what a form holds; what is wrong with it, or nothing."""
        ruleset = check_id(values.get("ruleset") or "default", "ruleset")
        saved = self.service.engine.lists().rules.get(ruleset, {})
        rules, error = _rules_of(values, saved)
        if not error:
            self.service.save_rules(ruleset, rules, values.get("seen") or fingerprint(saved))
        return error

    def report(self) -> Values:
        """The numbers that a run wrote beside the active model; empty if there are none."""
        model = self.service.models.active
        if model.digest not in self._reports:
            folder = self.service.models.folders().get(model.name)
            found: Values = {}
            for place in ("report.json", "metrics.json"):
                if folder is None or folder.name != "model" or not (folder.parent / place).is_file():
                    continue
                try:
                    read = json.loads((folder.parent / place).read_text(encoding="utf-8"))
                except (OSError, ValueError, RecursionError):
                    continue  # a page without these numbers says that they are missing
                found = read if isinstance(read, dict) else {}
                break
            self._reports = {model.digest: found}
        return self._reports[model.digest]

    def _sample(self, attributes: Sequence[str]) -> tuple[Any, ...]:
        """A hundred shoppers' candidates with scores, kept until the store's facts are renewed; their
        histories tell `attributes` beside those of the model."""
        facts, model = self.facts.now(), self.service.models.active
        if facts is None:
            return [], None, None
        key = (facts.made, model.digest, attributes)
        sampled = self._sampled  # read once: it may be let go of meanwhile
        if not sampled or sampled[0] != key:
            given, ends = given_of(self.service.engine, model, facts.sample)
            events, known = [g.events for g in given], [g.attributes for g in given]
            end = max(ends or model.end, model.end)
            history = model.history(facts.sample, events, known, end, None, attributes)
            request = Request(k=K)
            scored = model.answerer(request).score(history, request)
            sampled = self._sampled = (key, (history, request, scored))
        return facts.sample, model, sampled[1]


def _named(choice: str, rules: Values, reasons: bool = False) -> OfferRequest:
    """A list of the kind, or under the saved rules, that a form names."""
    ruleset, purpose = (None, choice) if choice in PURPOSES else (choice, "mixed")
    return OfferRequest.of(ruleset, rules, k=K, purpose=purpose, reasons=reasons)


def _dated(facts: Any, values: Sequence[float]) -> list[tuple[str, float]]:
    """Values by week, from the first week with any."""
    first = next((i for i, v in enumerate(values) if v), 0)
    return list(zip(facts.weeks(), map(float, values), strict=True))[first:]


def _styles(report: Values) -> dict[str, drawings.Style]:
    """Of each method the style that it has in the report."""
    return drawings.styles([*report.get("models", {}), *report["matching"]["sources"]])


def _boards(report: Values) -> Values | None:
    if not report.get("models"):
        return None
    metrics = list(next(iter(report["models"].values())))
    method = named(report.get("methods", {}), list(report["models"]))
    rows = [[method[n], *(_short(v.get(m)) for m in metrics)] for n, v in report["models"].items()]
    judged = report.get("evaluation", {})
    return {
        "table": Table(["method", *metrics], rows),
        "n_users": f"{judged.get('n_users', 0):,}",
        "cutoff": str(judged.get("cutoff", ""))[:10],
    }


def _rules_of(values: Mapping[str, str], saved: Mapping[str, Any] | None = None) -> tuple[Values, str]:
    """Rules of a form, or what is wrong with one; those that it has no field for stay as saved."""
    fields = {name: values[name].strip() for name, _ in RULE_FIELDS if name in values}
    said = {name: text for name, text in fields.items() if text}
    kept = {name: value for name, value in (saved or {}).items() if name not in fields}
    try:
        return RulesetIn.model_validate(kept | said).said(), ""
    except ValueError:
        names = dict(RULE_FIELDS)
        for name, text in said.items():
            try:
                RulesIn.model_validate({name: text})
            except ValueError:
                return {}, f"{names[name]}: {text!a} is no value that this rule can have."
        return {}, "These rules make no sense together."


def _in_words(rules: Mapping[str, Any]) -> str:
    words = [f"{name} {_as_typed(value)}" for name, value in rules.items() if name != "forbid"]
    for one in rules.get("forbid", ()):
        n = len(one["items"])
        what = [*one["category"], *([f"{n} item{'s' if n > 1 else ''}"] if n else [])]
        known = ", allowed where that is not known" if one["unknown"] == "allow" else ""
        whom = f"where {one['when']}{known}" if one["when"] else "to all users"
        words.append(f"forbidden {whom}: {', '.join(what)}")
    return "; ".join(words)


def _as_typed(value: Any) -> str:
    """A rule's value as a field shows and takes it: to the last digit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removesuffix(".0")


def _sales(facts: Any, item: str) -> Values:
    row = facts.code.get(item)
    if row is None:
        none = {"sales": drawings.bars([], "receipts"), "price": drawings.lines({}, "week", "a piece")}
        return none | {"tiles": [("0", "receipts with it")]}
    receipts, quantity, value = facts.receipts[row], facts.quantity[row], facts.value[row]
    weeks = facts.weeks()
    prices = [float(v / q) if q and v else None for q, v in zip(quantity, value, strict=True)]
    first = next((i for i, n in enumerate(receipts) if n), 0)
    buyers, again = int(facts.buyers[row]), int(facts.again[row])
    share = f"{facts.shown[item] / facts.n_shown:.2%}" if facts.n_shown else "–"
    tiles = [
        (f"{int(receipts.sum()):,}", f"receipts in {WEEKS} weeks"),
        (f"{buyers:,}", "buyers"),
        (f"{again / buyers:.0%}" if buyers else "–", "buy it again"),
        (in_days(round(facts.gap[row])) if again else "–", "between two purchases"),
        (share, "of the places on lists"),
    ]
    line = {"price": drawings.Series(list(enumerate(prices[first:])), marked=True)}
    return {
        "tiles": tiles,
        "sales": drawings.bars(_dated(facts, receipts.tolist()), "receipts"),
        "price": drawings.lines(line, "week", "price of one", zero=False, x_labels=weeks[first:]),
    }


def _short(value: Any) -> str:
    if isinstance(value, float):
        return drawings.readable(value)
    return "–" if value is None else str(value)


PAGES = (
    ("/", "Overview"),
    ("/shopper", "Shopper"),
    ("/item", "Item"),
    ("/sources", "Sources"),
    ("/compare", "Compare"),
    ("/rules", "Rules"),
)
_TITLES = dict(PAGES)
_KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8"}
_LONGEST = 2000  # characters of a query's value


def routes(service: Service) -> APIRouter:
    """All pages, over one service."""
    router = APIRouter(include_in_schema=False)
    views = Views(service)
    templates = environment(PackageLoader(__name__))
    read, admin = (Depends(allow(scope)) for scope in ("read", "admin"))
    folder, own = files(__name__).joinpath("static"), ("htmx.min.js", "address.js")
    static = {name: folder.joinpath(name).read_bytes() for name in own}
    static |= {name: asset(name).encode() for name in ("style.css", "sort.js")}

    def page(here: str, template: str, values: Values, status: int = 200) -> Response:
        text = templates.get_template(template).render(
            {"here": here, "pages": PAGES, "title": _TITLES[here], "model": service.models.active}
            | values
        )
        return Response(text, status, media_type="text/html")

    def shown(here: str, template: str, view: Callable[[], Values]) -> Response:
        try:
            return page(here, template, view())
        except RetailRecError as error:
            status = 503 if isinstance(error, StoreUnavailable | WrongClock) else 422
            return page(here, "trouble.html", {"error": str(error)}, status)

    def add(path: str, template: str, view: Callable[[Mapping[str, str]], Values]) -> None:
        async def show(request: HttpRequest) -> Response:
            query = {name: value[:_LONGEST] for name, value in request.query_params.items()}
            return await service.compute(shown, path, template, lambda: view(query))

        router.add_api_route(path, show, methods=["GET"], dependencies=[read])

    add("/", "overview.html", lambda query: views.overview())
    add("/shopper", "shopper.html", views.shopper)
    add("/item", "item.html", views.item)
    add("/sources", "sources.html", lambda query: views.sources())
    add("/compare", "compare.html", views.compare)
    add("/rules", "rules.html", views.rules)

    @router.post("/rules", dependencies=[admin])
    async def save(request: HttpRequest) -> Response:
        try:
            text = (await request.body()).decode()
            form = dict(parse_qsl(text, max_num_fields=50, keep_blank_values=True))
        except ValueError as error:
            raise Problem(400, "the form can't be read; open the page again.") from error
        if "ruleset" not in form:  # JSON, or a form of another kind
            raise Problem(422, "the form names no ruleset, so nothing is saved; open the page again.")
        ruleset = form["ruleset"] or "default"
        error_text = await service.compute(views.save_rules, form)
        if error_text:
            raise Problem(422, error_text)
        return RedirectResponse(f"/rules?ruleset={quote(ruleset, safe='')}&saved=1", 303)

    @router.get("/static/{name}")
    async def static_file(name: str, request: HttpRequest) -> Response:
        if name not in static:
            raise Problem(404, "there is no such file.")
        tag = f'"{hashlib.sha256(static[name]).hexdigest()[:16]}"'
        headers = {"etag": tag, "cache-control": "max-age=3600"}
        if tag in request.headers.get("if-none-match", ""):  # W/ of a proxy that compresses, too
            return Response(b"", 304, headers)
        return Response(static[name], 200, headers, media_type=_KINDS[name.rpartition(".")[2]])

    return router

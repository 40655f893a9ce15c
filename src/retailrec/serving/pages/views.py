"""What each page shows: numbers first, as plain values; templates only lay them out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import numpy as np

from retailrec.recommender.explanations import in_days
from retailrec.recommender.purposes import PURPOSES
from retailrec.recommender.request import Request
from retailrec.report import drawings
from retailrec.report.page import Table, named
from retailrec.serving.engine import OfferRequest, UserRecord, code_receipts
from retailrec.serving.messages import RulesIn
from retailrec.serving.pages.comparison import Comparison, K, Values, given_of
from retailrec.serving.pages.facts import WEEKS, Facts
from retailrec.serving.pages.what_if import receipt, side, timeline, what_if
from retailrec.serving.receipts import check_id, microseconds
from retailrec.serving.service import Service

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
        """Let go of examples who were forgotten, and of what was computed of them; their number."""
        n = self.facts.forget(gone)
        if n:
            self._sampled = ()
            self.comparison.clear()
        return n

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
        service, shopper = self.service, query.get("id", "").strip()
        models = list(service.models.folders())
        active = service.models.active
        facts = self.facts.now()
        found: Values = {
            "shopper": shopper,
            "models": models,
            "examples": facts.sample[:4] if facts else [],
        }
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
            given = UserRecord(shopper, code_receipts(model, now), known.attributes, known.denied)
            answer = service.engine.answer(model, [given], asked, known.ends, lists)[0]
            if changed or rules:
                before = given._replace(events=code_receipts(model, receipts))
                plain = _named(purpose, {})
                usual = service.engine.answer(model, [before], plain, known.ends, lists)[0]
            else:
                usual = answer
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
        wanted, model, facts = query.get("id", "").strip(), self.service.models.active, self.facts.now()
        found: Values = {"wanted": wanted, "matches": [], "item": None}
        if not wanted:
            return found
        code = model.code_of.get(wanted)
        if code is None:
            words = wanted.lower().split()
            hits = (i for i, name in enumerate(model.labels) if all(w in name.lower() for w in words))
            found["matches"] = [
                (model.ids[i], model.labels[i]) for i, _ in zip(hits, range(30), strict=False)
            ]
            if not found["matches"]:
                found["error"] = "The model knows no such item, and no name has these words."
            return found
        row = model.model.items_.row(code, named=True)
        told = [(k, v) for k, v in row.items() if v is not None and k not in ("item_id", "name")]
        similar = {
            source: [(model.ids[c], model.labels[c], score) for c, score in rows]
            for source, rows in model.similar(wanted, 8).items()
        }
        found |= {"item": {"id": wanted, "name": model.labels[code], "facts": told}, "similar": similar}
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
        told, styles = matching["sources"], _styles(self.report())
        method = named(self.report().get("methods", {}), list(styles))
        columns = [c for c in _SOURCE_FACTS if any(c in facts for facts in told.values())]
        return {
            "overlap": drawings.heat(list(matching["overlap"]), matching["overlap"]),
            "k": k,
            "marginal": drawings.across(matching["marginal"], "recall lost", styles),
            "recall": drawings.across(
                {n: at[k] for n, at in matching["recall@k"].items() if k in at}, "recall", styles
            ),
            "numbers": Table(
                ["source", *(_SOURCE_FACTS[c] for c in columns)],
                [[method[n], *(_short(v.get(c)) for c in columns)] for n, v in told.items()],
            ),
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
            "fields": [(n, says, _as_typed(rules[n]) if n in rules else "") for n, says in RULE_FIELDS],
            "rulesets": sorted({"default", "new", "replenish", "discover"} | set(lists.rules)),
            "all_rules": [(p, _in_words(r) or "no rule") for p, r in sorted(lists.rules.items())],
        }
        if not tried or error:
            return found
        shoppers, model, scored = self._sample()
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
        effect = (
            f"Of {len(shoppers)} lists, {moved} change, {sum(g > 0 for g in gone)} of them in "
            f"their items; {short} have fewer than {K} items left. Compared with what is saved for "
            f"“{ruleset}”."
        )
        changed = [(shoppers[i], gone[i]) for i in order if gone[i]]
        return found | {"effect": effect, "changed": changed, "may_save": True}

    def save_rules(self, values: Mapping[str, str]) -> str:
        """Save what a form holds; what is wrong with it, or nothing."""
        ruleset = check_id(values.get("ruleset") or "default", "ruleset")
        rules, error = _rules_of(values, self.service.engine.lists().rules.get(ruleset, {}))
        if not error:
            self.service.save_rules(ruleset, rules)
        return error

    def report(self) -> Values:
        """The numbers that a run wrote beside the active model; empty if there are none."""
        model = self.service.models.active
        if model.digest not in self._reports:
            folder = self.service.models.folders().get(model.name)
            found: Values = {}
            for place in ("report.json", "metrics.json"):
                file = None if folder is None else folder.parent / place
                if (
                    file is not None
                    and folder is not None
                    and folder.name == "model"
                    and file.is_file()
                ):
                    try:
                        read = json.loads(file.read_text())
                    except (OSError, ValueError, RecursionError):
                        continue  # a page without these numbers says that they are missing
                    found = read if isinstance(read, dict) else {}
                    break
            self._reports = {model.digest: found}
        return self._reports[model.digest]

    def _sample(self) -> tuple[Any, ...]:
        """A hundred shoppers' candidates with scores, kept until the store's facts are renewed."""
        facts, model = self.facts.now(), self.service.models.active
        if facts is None:
            return [], None, None
        key = (facts.made, model.digest)
        if not self._sampled or self._sampled[0] != key:
            given, ends = given_of(self.service.engine, model, facts.sample)
            history = model.history(
                facts.sample,
                [g.events for g in given],
                [g.attributes for g in given],
                max(ends or model.end, model.end),
            )
            request = Request(k=K)
            self._sampled = (key, (history, request, model.answerer(request).score(history, request)))
        return facts.sample, model, self._sampled[1]


def _named(choice: str, rules: Values, reasons: bool = False) -> OfferRequest:
    """A list of the kind, or under the saved rules, that a form names."""
    is_kind = choice in PURPOSES
    return OfferRequest.of(
        None if is_kind else choice,
        rules,
        k=K,
        purpose=choice if is_kind else "mixed",
        reasons=reasons,
    )


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
        return RulesIn.model_validate(kept | said).said(), ""
    except ValueError:
        names = dict(RULE_FIELDS)
        for name, text in said.items():
            try:
                RulesIn.model_validate({name: text})
            except ValueError:
                return {}, f"{names[name]}: {text!a} is no value that this rule can have."
        return {}, "These rules make no sense together."


def _in_words(rules: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_as_typed(value)}" for name, value in rules.items())


def _as_typed(value: Any) -> str:
    """A rule's value as a field shows and takes it: to the last digit."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value).removesuffix(".0")


def _sales(facts: Any, item: str) -> Values:
    row = facts.code.get(item)
    if row is None:
        return {
            "tiles": [("0", "receipts with it")],
            "sales": drawings.bars([], "receipts"),
            "price": drawings.lines({}, "week", "a piece"),
        }
    receipts, quantity, value = facts.receipts[row], facts.quantity[row], facts.value[row]
    weeks = facts.weeks()
    prices = [
        (w, float(v / q) if q and v else None) for w, q, v in zip(weeks, quantity, value, strict=True)
    ]
    first = next((i for i, n in enumerate(receipts) if n), 0)
    buyers, again = int(facts.buyers[row]), int(facts.again[row])
    tiles = [
        (f"{int(receipts.sum()):,}", f"receipts in {WEEKS} weeks"),
        (f"{buyers:,}", "buyers"),
        (f"{again / buyers:.0%}" if buyers else "–", "buy it again"),
        (in_days(round(facts.gap[row])) if again else "–", "between two purchases"),
        (
            f"{facts.shown[item] / facts.n_shown:.2%}" if facts.n_shown else "–",
            "of the places on lists",
        ),
    ]
    return {
        "tiles": tiles,
        "sales": drawings.bars(_dated(facts, receipts.tolist()), "receipts"),
        "price": drawings.lines(
            {"price": drawings.Series(list(enumerate(p for _, p in prices[first:])), marked=True)},
            "week",
            "price of one",
            zero=False,
            x_labels=weeks[first:],
        ),
    }


def _short(value: Any) -> str:
    if value is None:
        return "–"
    return drawings.readable(value) if isinstance(value, float) else str(value)

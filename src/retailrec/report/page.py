"""Pages from finished numbers: the report as HTML and Markdown, and the campaign's page.

Here is what they say; templates lay it out. Each page is one file that fetches nothing. What comes from
data is escaped by the templates.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import BaseLoader, ChoiceLoader, Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from retailrec.errors import visible
from retailrec.metrics import parse_metric
from retailrec.recommender.explanations import in_days
from retailrec.report import drawings

Report = Mapping[str, Any]
_PURPOSES = {
    "replenish": (
        "Replenish: what is bought again",
        "repeat purchases by {n_users:,} shoppers who bought something again",
    ),
    "discover": (
        "Discover: what is new to the shopper",
        "purchases of what was new to them by {n_users:,} shoppers",
    ),
}
_EFFECTS = {
    "bought": "share who bought anything",
    "purchases": "receipt lines a shopper",
    "spend": "money spent a shopper",
    "margin": "margin a shopper",
}
_BY_RULES = ("whose list changed", "for whom it gave way")
CHANCE = 0.05  # a corrected p from which on a difference may be chance


class Table(NamedTuple):
    """A table's head and rows; a column of words stands on the left, numbers on the right."""

    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]

    @property
    def words(self) -> list[bool]:
        """Of each column: does it hold words?"""
        cells = self.rows[0] if self.rows else self.head
        return [n == 0 or str(cell)[:1].isalpha() for n, cell in enumerate(cells)]


class Method(NamedTuple):
    """A method: its identifier, its name in words, and the marker that it has in all drawings."""

    name: str
    words: str
    mark: Markup

    def __str__(self) -> str:
        return self.words or self.name


class Banded(NamedTuple):
    """A figure and its interval, as text."""

    text: str
    band: str

    def __str__(self) -> str:
        return self.text


class _Page(Template):
    """A template in whose text nothing is left that a browser or terminal would obey."""

    def render(self, *values: Any, **more: Any) -> str:
        return visible(super().render(*values, **more))


class _Pages(Environment):
    template_class = _Page


def environment(*loaders: BaseLoader) -> Environment:
    """Templates of this package behind those of `loaders`; everything that they show is escaped."""
    found = _Pages(
        loader=ChoiceLoader([*loaders, PackageLoader("retailrec.report")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"draw": drawings, "asset": lambda name: Markup(asset(name))}
    found.filters |= {
        "days": in_days,
        "some": some,
        "digits": drawings.readable,
        "sentence": _sentence,
        "md": markdown,
        "ours_first": lambda lists: sorted(lists.items(), key=lambda each: each[0] != "two_stage"),
    }
    found.tests |= {
        "method": lambda value: isinstance(value, Method),
        "banded": lambda value: isinstance(value, Banded),
    }
    return found


@cache
def templates() -> Environment:
    """The templates of this package, in which a name that is not there is an error."""
    found = environment()
    found.undefined, found.finalize = StrictUndefined, _in_short
    return found


def _in_short(value: Any) -> Any:
    """A name as long as a page as its beginning; `report.json` has it whole."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    words = re.sub(r"\S{121,}", lambda word: f"{word[0][:120]}…", value)
    return words if len(words) <= 2_000 else f"{words[:2_000]}…"


def asset(name: str) -> str:
    """The style sheet or the script of all pages."""
    return files("retailrec.report").joinpath("templates", name).read_text(encoding="utf-8")


def render(report: Report) -> str:
    """The page of a report that `retailrec.jobs.run` put together."""
    return templates().get_template("report.html").render(_view(report))


def render_markdown(report: Report) -> str:
    """The report without pictures, as Markdown: for a mail, a ticket, a program."""
    text = templates().get_template("report.md").render(_view(report))
    return re.sub(r"\n{3,}", "\n\n", text)


def named(words: Mapping[str, str], names: Sequence[str]) -> dict[str, Method]:
    """Each name as the tables and drawings of one page show it."""
    colours = drawings.styles(names)
    return {n: Method(n, words.get(n, ""), drawings.swatch(colours[n])) for n in colours}


def meaning(metric: str) -> str:
    """What a metric such as precision@5 means: the first sentence of its docstring, with its k."""
    found, k = parse_metric(metric)
    return re.sub(r"\bk\b", str(k), found.meaning.partition("\n")[0].rstrip("."))


def _view(report: Report) -> dict[str, Any]:
    """Everything that the templates show, by name."""
    models, matching, ranking = report["models"], report["matching"], report["ranking"]
    people, load = report["examples"], report["data"]["load"]
    n = len(people)
    middle = sorted({n // 4, n // 2, n * 3 // 4} & set(range(n)))
    purposes = report["purposes"]
    names = [*models, *matching["sources"], *(m for p in purposes for m in p["models"])]
    method = named(report.get("methods", {}), names)
    metric = next(iter(models["two_stage"]))
    simple = _best_simple(models, metric)
    known = [r for r in report["differences"] if r["difference"] is not None]
    segments = report["results"]["segments"]
    kinds = dict.fromkeys(r["segment"] for r in segments["two_stage"] if r["segment"] != "all")
    sections = [
        ("offers", "Some shoppers"),
        ("results", "Results"),
        *([("purposes", "Purposes")] if purposes else []),
        ("data", "The data"),
        ("matching", "Matching"),
        ("ranking", "Ranking"),
        ("examples", "More shoppers"),
        *([("coupons", "Coupons")] if report.get("sent_coupons") else []),
        ("rules", "Business rules"),
        ("settings", "Time, memory, settings"),
    ]
    return {
        "report": report,
        "matching": matching,
        "ranking": ranking,
        "load": load,
        "title": f"Recommendations for {report['dataset']}",
        "lead": lead(report, method),
        "sections": sections,
        "made_by": f"retailrec {report['versions']['retailrec']}",
        "method": method.__getitem__,
        "colours": drawings.styles(names),
        "metric": metric,
        "simple": method[simple],
        "verdict": _sentence(report["verdict"]),
        "three": [people[i] for i in middle],
        "others": [p for i, p in enumerate(people) if i not in middle],
        "means": _means(models, report["intervals"], method),
        "ours": _differences(
            [r for r in known if (r["model"], r["versus"]) == ("two_stage", simple)], method
        ),
        "pairs": _differences(known, method),
        "details": _means(report["results"]["details"], (), method),
        "folds": _folds(report.get("folds"), list(models["two_stage"]), models, method),
        "segments": list(kinds),
        "by_segment": {kind: _by_segment(segments, kind, method) for kind in kinds},
        "purposes": [_purpose(p, method) for p in purposes],
        "glance": _glance(report["data"]["glance"], load, report["evaluation"]["horizon_days"]),
        "removed": Table(
            ["reason", "lines"],
            [[reason, f"{n:,}"] for reason, n in load["rejected"].items()]
            + ([["merged: item twice on a receipt", f"{load['merged']:,}"]] if load["merged"] else []),
        ),
        "prefilters": Table(
            ["prefilter", "items removed", "items left"],
            [[p["prefilter"], f"{p['removed']:,}", f"{p['left']:,}"] for p in report["prefilters"]],
        ),
        "sources": _sources(matching, method),
        "cold": Table(
            ["shoppers", "number", "recall of the pool at 200"],
            [
                [group, f"{facts['n_users']:,}", _number(facts.get("pool_recall@200"), 3)]
                for group, facts in matching["cold"].items()
                if facts.get("n_users")
            ],
        ),
        "windows": Table(
            ["window from", "shoppers", "purchases", "proposed", "share", "training rows"],
            [
                [
                    w["cutoff"][:10],
                    *(f"{w[key]:,}" for key in ("users", "bought", "bought_and_proposed")),
                    _share(w["bought_and_proposed"] / max(w["bought"], 1)),
                    f"{w['rows']:,}",
                ]
                for w in ranking["windows"]
            ],
        ),
        "sent": report.get("sent_coupons"),
        "coupons": _coupons(report.get("sent_coupons")),
        "rules": Table(
            ["rule", "candidates removed", *(f"shoppers {what}" for what in _BY_RULES)],
            [
                [rule, *(f"{did[key]:,}" for key in ("removed", "bound", "gave_way"))]
                for rule, did in (report["rules"] or {}).items()
            ],
        ),
        "seconds": Table(
            ["step", "seconds"], [[step, f"{s:,.1f}"] for step, s in report["seconds"].items()]
        ),
        "versions": Table(["library", "version"], [list(each) for each in report["versions"].items()]),
        "settings": json.dumps(report["settings"], indent=1, default=str),
    }


def lead(report: Report, method: Mapping[str, Method]) -> str:
    """What the lists are worth in purchases and money, beside the best simple method, and how sure."""
    models, evaluation = report["models"], report["evaluation"]
    n = evaluation["n_users"]
    text = (
        f"{n:,} shoppers were judged by what they bought in the {in_days(evaluation['horizon_days'])} "
        f"from {evaluation['cutoff'][:10]}. "
    )
    metric = next((m for m in models["two_stage"] if m.startswith("precision@")), "")
    ours: float | None = models["two_stage"].get(metric)
    if ours is None:
        return text + _sentence(report["verdict"])
    k = int(metric.partition("@")[2])
    simple = _best_simple(models, metric)
    text += (
        f"Of the first {k} recommendations of the two-stage model {ours:.0%} were bought: "
        f"{ours * k:.2f} purchases a shopper, {ours * k * n:,.0f} in all"
    )
    money = f"revenue@{k}"
    worth = {name: {**values, **models[name]} for name, values in report["results"]["details"].items()}
    spent: dict[str, float] = {name: v[money] for name, v in worth.items() if v.get(money) is not None}
    if "two_stage" in spent:
        text += f", and {spent['two_stage'] * n:,.0f} in money"
    of = ("two_stage", simple, metric)
    rows = (r for r in report["differences"] if (r["model"], r["versus"], r["metric"]) == of)
    sure = next(rows, None)
    theirs = models[simple][metric] or 0.0
    gain = (ours - theirs) * k * n
    text += f". The best simple method ({method[simple]}) gives {theirs:.0%}: " + (
        f"{abs(gain):,.0f} purchases {'fewer' if gain > 0 else 'more'}" if round(gain) else "as many"
    )
    if {"two_stage", simple} <= set(spent):
        less = (spent["two_stage"] - spent[simple]) * n
        text += f" and {abs(less):,.0f} {'less' if less >= 0 else 'more'} in money"
    text += ". "
    if sure is not None and sure["low"] is not None:
        low, high = (sure[bound] * k * n for bound in ("low", "high"))
        text += f"The 95% interval of the difference is {low:+,.0f} to {high:+,.0f} purchases: " + (
            "it could be chance. " if sure["p_corrected"] >= CHANCE else "more than chance. "
        )
    return text + (
        "Not known is what would be bought because of a list: these shoppers had not seen one. An "
        "experiment tells."
    )


def _best_simple(models: Mapping[str, Any], metric: str) -> str:
    """The best of the others by a metric."""
    others = {name: values[metric] for name, values in models.items() if name != "two_stage"}
    return max(others, key=lambda name: -1.0 if (mean := others[name]) is None else mean)


def _means(
    models: Mapping[str, Any], intervals: Sequence[Mapping[str, Any]], method: Mapping[str, Method]
) -> Table:
    """A row a metric, a column a model, with intervals where they are known."""
    sure = {(r["model"], r["metric"]): r for r in intervals}

    def cell(model: str, metric: str) -> Banded | str:
        value, row = models[model][metric], sure.get((model, metric))
        if not sure or value is None or row is None or row["low"] is None:
            return Banded(_number(value), "") if sure else _number(value)
        return Banded(_number(value), f"{row['low']:.3f} to {row['high']:.3f}")

    metrics = list(models["two_stage"])
    rows = [[m, *(cell(model, m) for model in models), meaning(m)] for m in metrics]
    return Table(["metric", *(method[m] for m in models), "in words"], rows)


def _differences(rows: Sequence[Mapping[str, Any]], method: Mapping[str, Method]) -> Table:
    """Which model is better by how much, and how sure that is."""
    cells = []
    for r in rows:
        band = "" if r["low"] is None else f"{r['low']:+.4f} to {r['high']:+.4f}"
        which = [method[r["model"]], method[r["versus"]], r["metric"]]
        cells.append([*which, f"{r['difference']:+.4f}", band, _p(r["p_corrected"])])
    head = ["model", "less", "metric", "difference", "95% interval", "p, corrected"]
    return Table(head, cells)


def _folds(
    folds: Mapping[str, Any] | None,
    metrics: Sequence[str],
    models: Mapping[str, Any],
    method: Mapping[str, Method],
) -> Table | None:
    if not folds:
        return None
    of = {(r["model"], r["metric"]): r for r in folds["summary"]}

    def cell(model: str, metric: str) -> str:
        row = of[model, metric]
        spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
        return _number(row["mean"]) + spread

    rows = [[m, *(cell(model, m) for model in models)] for m in metrics]
    return Table(["metric", *(method[m] for m in models)], rows)


def _by_segment(
    segments: Mapping[str, Sequence[Mapping[str, Any]]], kind: str, method: Mapping[str, Method]
) -> Table:
    means = {
        name: {r["group"]: r for r in rows if r["segment"] == kind} for name, rows in segments.items()
    }
    ours = means["two_stage"]
    return Table(
        [kind, "shoppers", *(method[name] for name in means)],
        [
            [g, f"{r['n_users']:,}", *(_number(of[g]["mean"]) for of in means.values())]
            for g, r in ours.items()
        ],
    )


def _purpose(result: Mapping[str, Any], method: Mapping[str, Method]) -> dict[str, Any]:
    title, truth = _PURPOSES[result["purpose"]]
    metrics = list(result["models"]["two_stage"])
    rows = [[method[n], *(_number(v[m]) for m in metrics)] for n, v in result["models"].items()]
    return {
        "title": title,
        "truth": f"Judged by {result['n_bought']:,} {truth.format(**result)}. Simple methods are held "
        "to the same items.",
        "table": Table(["method", *metrics], rows),
        "verdict": _sentence(result["verdict"]),
    }


def _glance(glance: Mapping[str, Any], load: Mapping[str, Any], days: float) -> list[tuple[str, str]]:
    return [
        (f"{load['n_users']:,}", "shoppers"),
        (f"{load['n_items']:,}", "items sold"),
        (f"{load['n_baskets']:,}", "receipts"),
        (f"{load['kept']:,}", "receipt lines"),
        (f"{glance['lines_per_receipt_mean']:.1f}", "items on a receipt (mean)"),
        (in_days(glance["days_between_visits_median"]), "between visits (median)"),
        (_share(glance[f"repeat_share_{days:g}d"]), f"of purchases in {in_days(days)} are repeats"),
        (_share(glance["sales_in_top_10_percent"]), "of lines are of the top 10% of items"),
    ]


def _sources(matching: Mapping[str, Any], method: Mapping[str, Method]) -> Table:
    rows = []
    for name, facts in matching["sources"].items():
        curve, marginal = matching["recall@k"][name], matching["marginal"]
        rows.append(
            [
                method[name],
                *(f"{curve[k]:.3f}" for k in ("20", "50", "100", "200")),
                _number(facts["recall@200_of_repeats"], 3),
                _number(facts["recall@200_of_new"], 3),
                f"{facts['catalogue_coverage']:.0%}",
                f"{marginal[name]:.4f}" if name in marginal else "",
            ]
        )
    recalls = ["recall@20", "@50", "@100", "@200", "repeats@200", "new@200"]
    return Table(["source", *recalls, "catalogue", "alone adds"], rows)


def _coupons(sent: Mapping[str, Any] | None) -> Table | None:
    if not sent:
        return None
    return Table(
        [
            *("shoppers", "number", "receipts before", "precision of their lists"),
            *("recommended: campaign products", "bought: campaign products", "redeemed a coupon"),
        ],
        [
            [
                g["group"],
                f"{g['n_users']:,}",
                f"{g['receipts']:.1f}",
                _number(g["precision"]),
                *(_share(g[key]) for key in ("recommended", "bought", "redeemed")),
            ]
            for g in sent["groups"]
        ],
    )


def render_campaign(summary: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> str:
    """The page of a campaign.

    Parameters
    ----------
    summary : as `campaign_summary` gives it
    result : what came of it, as `ExperimentReport.as_dict` gives it; None before it is known
    """
    report = summary["report"]
    sections = [
        ("who", "Who gets what"),
        ("budget", "How the budget is spent"),
        ("prices", "What limits cost"),
        ("examples", "Some shoppers"),
    ]
    came = ("result", "What came of it")
    effects = [] if result is None else result["effects"]
    view = {
        "title": f"Campaign {report['campaign']}",
        "lead": _campaign_lead(report, result),
        "made_by": "retailrec",
        "sections": [*sections, came] if result is None else [came, *sections],
        "summary": summary,
        "report": report,
        "result": result,
        "effects": Table(
            ["per shopper", "treated", "held out", "difference", "interval", "relative", "p"],
            [
                [
                    _EFFECTS.get(e["metric"], e["metric"])
                    + (", earlier spend taken out" if e["adjusted"] else ""),
                    f"{e['treated']:,.3f}",
                    f"{e['holdout']:,.3f}",
                    *_gain(e),
                    "–" if e["relative"] is None else f"{e['relative']:+.1%}",
                    _p(e["p"]),
                ]
                for e in effects
                if e["segment"] == "all"
            ],
        ),
        "segments": Table(
            ["segment", "metric", "treated", "difference", "interval", "p, corrected"],
            [
                [e["segment"], e["metric"], f"{e['n_treated']:,}", *_gain(e), _p(e["p_corrected"])]
                for e in effects
                if e["segment"] != "all"
            ],
        ),
        "arms": Table(
            [
                "arm",
                "versus",
                "metric",
                "arm's mean",
                "the other's",
                *("difference", "interval"),
                "p, corrected",
            ],
            [
                [
                    *(e[name] or "of no name" for name in ("arm", "versus")),
                    e["metric"],
                    *(f"{e[name]:,.3f}" for name in ("treated", "holdout")),
                    *_gain(e),
                    _p(e["p_corrected"]),
                ]
                for e in ([] if result is None else result["arms"])
            ],
        ),
        "glance": [
            (f"{report['n_offers']:,}", "offers"),
            (f"{report['n_with_offers']:,}", "shoppers get something"),
            (f"{report['n_held_out']:,}", "shoppers held out"),
            (f"{summary['n_products']:,}", "products offered"),
            (f"{report['value']:,.2f}", "worth of all offers"),
            (f"{report['gap']:.2%}", "at most below the best choice"),
        ],
        "lists": Table(
            ["offers", "shoppers"],
            [[f"{row['offers']:,}", f"{row['len']:,}"] for row in summary["lists"]],
        ),
        "most_offered": {p["name"]: float(p["offers"]) for p in summary["products"][:12]},
        "totals": [
            ("product", _totals("product", summary["products"], "name")),
            *((kind, _totals(kind, rows, kind)) for kind, rows in summary["groups"].items()),
        ],
        "budgets": Table(
            ["budget", "at most", "expected cost", "used", "in words"],
            [
                [
                    b["name"],
                    *(f"{b[what]:,.2f}" for what in ("at_most", "reached")),
                    f"{b['reached'] / b['at_most']:.1%}",
                    b["words"],
                ]
                for b in summary["budgets"]
            ],
        ),
        "limits": Table(
            ["limit", "at least", "at most", "offers", "price", "in words"],
            [
                [
                    c["name"],
                    *(_number(c[bound], 0) for bound in ("at_least", "at_most", "reached")),
                    f"{c['price']:,.3f}",
                    c["words"],
                ]
                for c in summary["limits"]
            ],
        ),
    }
    return templates().get_template("campaign.html").render(view)


def render_counterfactual(report: Mapping[str, Any], sentence: str) -> str:
    """The page of a judgement of lists before they are sent: a sentence, an interval, a picture.

    Parameters
    ----------
    report : as `CounterfactualReport.as_dict` gives it
    sentence : what it comes to
    """
    values = {(e["metric"], e["segment"], e["what"]): e for e in report["estimates"]}
    metric = list(report["observed"])[-1]  # units, money, margin
    support = report["support"]
    change = {
        f"{segment} ({e['n_users']:,})": {"difference": (e["value"], e["low"], e["high"])}
        for (of, segment, what), e in values.items()
        if of == metric and what == "difference"
    }
    rows = [
        [
            of,
            segment,
            *(f"{values[of, segment, which]['value']:,.3f}" for which in ("logged", "new")),
            f"{e['value']:+,.3f}",
            f"{e['low']:+,.3f} to {e['high']:+,.3f}",
            _p(e["p_corrected"]),
        ]
        for (of, segment, what), e in values.items()
        if what == "difference"
    ]
    return _finding(
        "Lists judged before they are sent",
        sentence,
        drawings.dots(
            change,
            f"{metric} a user, new lists less logged ones; 95% interval",
            drawings.styles(["difference"]),
        ),
        "What the new lists would change",
        Table(["metric", "users", "logged", "new", "difference", "95% interval", "p"], rows),
        [
            (f"{report['n_users']:,}", "users"),
            (f"{report['days']:g}", "days after each list"),
            (f"{support['coverage']:.1%}", "of the new lists within the explored pools"),
            (f"{support['effective']:,.0f}", "effective sample, in users"),
        ],
        report["notes"],
        "The log's lists were drawn by chances that were written down before. What was bought of items "
        "that were shown, and of those that were not, tells what other lists of the same items would "
        "have sold (doubly robust). Assumed is that an offer changes sales of its own item alone. An "
        "A/B test is surer: send one for what looks better here.",
    )


def render_uplift(report: Mapping[str, Any], sentence: str) -> str:
    """The page of what was learnt of offers: a sentence, an interval, a picture.

    Parameters
    ----------
    report : as `UpliftReport.as_dict` gives it
    sentence : what it comes to
    """
    tenths = {
        f"tenth {number}": {
            "so": (d["effect"], d["low"], d["high"]),
            "learnt": (d["predicted"], None, None),
        }
        for number, d in enumerate(report["deciles"], 1)
    }
    rows = [
        [
            one["name"].upper() + (" (chosen)" if one["name"] == report["chosen"] else ""),
            f"{one['qini']:.4f}",
            f"{one['qini_low']:.4f} to {one['qini_high']:.4f}",
            f"{one['auuc']:.4f}",
        ]
        for one in report["learners"]
    ]
    return _finding(
        "Who buys because of an offer",
        sentence,
        drawings.dots(
            tenths,
            f"{report['metric']} that an offer changes; 95% interval of all ten",
            drawings.styles(["so", "learnt"]),
        ),
        "Offers by what they were expected to change, greatest first: learnt, and so for other users",
        Table(["learner", "Qini", "95% interval of all three", "AUUC"], rows),
        [
            (f"{report['n_users']:,}", "users"),
            (f"{report['days']:g}", "days after each list"),
            (f"{report['n_shown']:,}", f"of {report['n_rows']:,} items shown"),
        ],
        report["notes"],
        "Learnt from who was shown what by chance, and judged on users that the learner never saw. "
        "Qini is what the order earns beyond a random one.",
    )


def _finding(
    title: str,
    sentence: str,
    picture: Markup,
    caption: str,
    figures: Table,
    facts: Sequence[tuple[str, str]],
    notes: Sequence[str],
    how: str,
) -> str:
    """A page that says one thing."""
    view = {
        "title": title,
        "lead": sentence,
        "made_by": "retailrec",
        "sections": [("picture", "Picture"), ("figures", "Figures"), ("how", "How it is known")],
        "picture": picture,
        "caption": caption,
        "figures": figures,
        "facts": facts,
        "notes": notes,
        "how": how,
    }
    return templates().get_template("finding.html").render(view)


def _campaign_lead(report: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    text = (
        f"{report['n_offers']:,} offers go to {report['n_with_offers']:,} of {report['n_shoppers']:,} "
        f"shoppers; {report['n_held_out']:,} are held out so that the effect can be told. The offers "
        f"are worth {report['value']:,.2f}; no choice under the same limits is worth more than "
        f"{report['bound']:,.2f} ({report['gap']:.2%} more)."
    )
    effects = [] if result is None else result["effects"]
    wanted = ("spend", "all", True)  # adjusted for what was spent before
    spend = next((e for e in effects if (e["metric"], e["segment"], e["adjusted"]) == wanted), None)
    if spend is not None and spend["low"] is not None:
        sure = "more than chance" if spend["low"] > 0 or spend["high"] < 0 else "it could be chance"
        text += (
            f" Treated shoppers spent {spend['difference']:+,.2f} each (95% interval "
            f"{spend['low']:+,.2f} to {spend['high']:+,.2f}): {sure}."
        )
    return text


def _gain(effect: Mapping[str, Any]) -> tuple[str, str]:
    interval = "not known"
    if effect["low"] is not None:
        interval = f"{effect['low']:+,.3f} to {effect['high']:+,.3f}"
    return f"{effect['difference']:+,.3f}", interval


def _totals(what: str, rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    cells = []
    for row in rows:
        sums = [f"{row['value']:,.2f}", f"{row['expected_cost']:,.2f}", f"{row['price']:,.3f}"]
        cells.append(["none" if row[name] is None else row[name], f"{row['offers']:,}", *sums])
    return Table([what, "offers", "worth", "expected cost", "mean price"], cells)


def _sentence(text: str) -> str:
    """A sentence that begins with a capital, but for the name of a method."""
    return text if "_" in text.partition(" ")[0] else text[:1].upper() + text[1:]


def _number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def some(items: Sequence[str], most: int) -> str:
    """The first items, and how many more there are.

    Examples
    --------
    >>> some(["tea", "rye", "jam"], 2)
    'tea, rye, and 1 more'
    """
    shown = ", ".join(items[:most]) or "nothing"
    return shown + (f", and {len(items) - most} more" if len(items) > most else "")


def markdown(value: object) -> Markup:
    """Text that Markdown shows as it is.

    Examples
    --------
    >>> print(markdown("a|b *c* <script>"))
    a\\|b \\*c\\* &lt;script&gt;
    """
    text = re.sub(r"([\\`*_\[\]|#])", r"\\\1", " ".join(_in_short(str(value)).split()))
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))

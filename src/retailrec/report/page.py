"""The report: one self-contained HTML file from finished numbers. No script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from retailrec.report import figures
from retailrec.report.markup import folded, number, table
from retailrec.report.purpose_section import purpose_sections

# what a reader without our vocabulary is told
MEANINGS = {
    "precision": "share of the first {k} recommendations that were bought in the window",
    "recall": "share of what was bought that stood among the first {k}",
    "ndcg": "hits among the first {k}, early ones worth more, over the best list possible",
    "hit_rate": "share of shoppers who bought at least one of the first {k}",
    "money_precision": "precision weighted by price",
    "money_recall": "share of the money spent that went to the first {k}",
    "repeat_recall": "share of repeat purchases found by the first {k}",
    "explore_recall": "share of first-time purchases found by the first {k}",
    "revenue": "money spent in the window on the first {k}, per shopper",
    "served": "share of shoppers who get any recommendation",
    "coverage": "share of the catalogue that somebody is recommended",
    "novelty": "mean surprise of what is recommended, in bits; bestsellers have few",
    "diversity": "share of pairs in a list that are of different categories",
    "average_precision": "mean precision at the ranks of the hits",
    "mrr": "1 / rank of the first hit",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of a report that `pipeline.run` put together."""
    shown = _three(report["examples"])
    others = [s for s in report["examples"] if s not in shown]
    sections = [
        ("offers", "Three shoppers and what they would be offered", _examples(shown)),
        ("results", "Results: what it is worth", _results(report)),
        *purpose_sections(report.get("purposes", [])),
        ("data", "The data", _data(report)),
        ("matching", "Matching: who proposes what", _matching(report["matching"])),
        ("ranking", "Ranking: what decides the order", _ranking(report["ranking"])),
        ("examples", "More shoppers", folded("Show them", _examples(others))),
        *_sent(report.get("sent_coupons")),
        ("rules", "Business rules", _rules(report["rules"])),
        ("settings", "Time, memory, settings", _settings(report)),
    ]
    style = files("retailrec.report").joinpath("page.css").read_text()
    title = f"Recommendations for {report['dataset']}"
    links = "".join(f'<a href="#{key}">{escape(name.split(":")[0])}</a>' for key, name, _ in sections)
    body = "".join(
        f'<section id="{key}"><h2>{escape(name)}</h2>{text}</section>' for key, name, text in sections
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{style}</style>'
        f"</head><body><header><h1>{escape(title)}</h1>{_lead(report)}<nav>{links}</nav></header>"
        f"<main>{body}</main><footer>retailrec {escape(report['versions']['retailrec'])}</footer>"
        f"</body></html>\n"
    )


def _lead(report: Mapping[str, Any]) -> str:
    """What came out, in two sentences."""
    evaluation, models = report["evaluation"], report["models"]
    metric = next(iter(models["two_stage"]))
    ours, own = models["two_stage"][metric], models["own_purchases"][metric]
    days = f"{evaluation['horizon_days']:g} days from {evaluation['cutoff'][:10]}"
    text = f"{evaluation['n_users']:,} shoppers were judged by what they bought in the {days}. "
    name, k = metric.split("@")
    if name == "precision" and ours is not None:
        text += (
            f"Of the first {k} recommendations of the two-stage model, {ours:.0%} were bought; "
            f"listing each shopper's most frequent purchases gives {own:.0%}. "
        )
    text += f"{report['verdict'][0].upper()}{report['verdict'][1:]}"
    return f'<p class="lead">{escape(text)}</p>'


def _results(report: Mapping[str, Any]) -> str:
    models = report["models"]
    metrics = list(next(iter(models.values())))
    sure = {(r["model"], r["metric"]): r for r in report["intervals"]}

    def cell(model: str, metric: str) -> str:
        value, row = models[model][metric], sure.get((model, metric))
        if value is None:
            return "–"
        band = "" if row is None or row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        return f"{value:.4f}<small>{band}</small>"

    parts = [
        table(
            ["", *models, "in words"],
            [
                [escape(metric), *(cell(m, metric) for m in models), escape(_meaning(metric))]
                for metric in metrics
            ],
            raw=True,
        ),
        "<p class=quiet>Small figures: 95% interval over shoppers (bootstrap). "
        f"{report['evaluation']['n_cold_users']:,} shoppers who bought in the "
        "window have no history and are not counted.</p>",
        _figure(figures.draw_results(report["intervals"], metrics), "Means with 95% intervals"),
    ]  # fmt: skip
    if best := report.get("attainable"):
        for metric, found in best.items():
            parts.append(
                f"<p>This data was generated, so the right answer is known: with every household's "
                f"true probabilities, {escape(metric)} would be {found['low']:.3f} to "
                f"{found['high']:.3f}. "
                f"The two-stage model reaches <b>{found['reached']['two_stage']:.0%}</b> of that.</p>"
            )
    simple = _best_simple(models, metrics[0])
    known = [r for r in report["differences"] if r["difference"] is not None]
    ours = [r for r in known if (r["model"], r["versus"]) == ("two_stage", simple)]
    parts.append(f"<h3>Ours against the best simple method, {escape(simple)}</h3>")
    parts.append(_differences(ours))
    parts.append(folded("All pairs of models", _differences(known)))
    details = report["results"]["details"]
    names = list(next(iter(details.values())))
    parts.append("<h3>Repeat purchases, new ones, money, variety</h3>")
    parts.append(
        table(
            ["metric", *details, "meaning"],
            [
                [m, *(number(details[model][m]) for model in details), _meaning(m)]
                for m in names
            ],
        )
    )  # fmt: skip
    if folds := report.get("folds"):
        parts.append(f"<h3>On {folds['n']} horizons</h3>")
        parts.append(
            table(
                ["metric", *models],
                [
                    [m, *(_spread(folds["summary"], model, m) for model in models)] for m in metrics
                ],
            )
        )  # fmt: skip
        parts.append(
            "<p class=quiet>Mean ± standard deviation over the horizons, the last one included.</p>"
        )
    segments = report["results"]["segments"]
    kinds = list(dict.fromkeys(r["segment"] for r in next(iter(segments.values()))))
    drawn = [
        _figure(figures.draw_segment(segments, kind, metrics[0]), f"{metrics[0]} by {kind} (shoppers)")
        for kind in kinds
        if kind != "all"
    ]
    parts.append(f"<h3>For whom?</h3><div class=grid>{''.join(drawn)}</div>")
    return "".join(parts)


def _best_simple(models: Mapping[str, Mapping[str, Any]], metric: str) -> str:
    """The best of the others by the first metric."""
    others = {name: values[metric] for name, values in models.items() if name != "two_stage"}
    return max(others, key=lambda name: -1.0 if others[name] is None else float(others[name]))


def _differences(rows: Sequence[Mapping[str, Any]]) -> str:
    """Which model is better by how much, and how sure that is."""
    return table(
        ["model", "less", "metric", "difference", "95% interval", "p, corrected"],
        [
            [
                r["model"], r["versus"], r["metric"], f"{r['difference']:+.4f}",
                "" if r["low"] is None else f"{r['low']:+.4f} to {r['high']:+.4f}",
                "< 0.001" if r["p_corrected"] < 0.001 else f"{r['p_corrected']:.3f}",
            ]
            for r in rows
        ],
    )  # fmt: skip


def _three(shoppers: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Three of them: one who buys seldom, one in the middle, one who buys often."""
    n = len(shoppers)
    return [shoppers[i] for i in sorted({n // 4, n // 2, n * 3 // 4}) if i < n]


def _data(report: Mapping[str, Any]) -> str:
    data, load = report["data"], report["data"]["load"]
    glance = data["glance"]
    tiles = [
        (f"{load['n_users']:,}", "shoppers"),
        (f"{load['n_items']:,}", "items sold"),
        (f"{load['n_baskets']:,}", "receipts"),
        (f"{load['kept']:,}", "receipt lines"),
        (f"{glance['lines_per_receipt_mean']:.1f}", "items on a receipt (mean)"),
        (_days(glance["days_between_visits_median"]), "between visits (median)"),
        (_share(glance["repeat_share_28d"]), "of purchases are repeats"),
        (_share(glance["sales_in_top_10_percent"]), "of lines are of the top 10% of items"),
    ]
    removed = [[reason, f"{n:,}"] for reason, n in load["rejected"].items()]
    if load["merged"]:
        removed.append(["merged: item twice on a receipt", f"{load['merged']:,}"])
    prefilters = [
        [p["prefilter"], f"{p['removed']:,}", f"{p['left']:,}"] for p in report["prefilters"]
    ]  # fmt: skip
    gaps = ""
    if glance["days_between_visits_median"] is not None:
        days = figures.draw_histogram(data["gaps_days"], "days since the visit before")
        gaps = _figure(days, "Time between visits")
    return "".join(
        [
            "<div class=tiles>",
            *(f"<div><b>{escape(value)}</b><span>{escape(text)}</span></div>" for value, text in tiles),
            f"</div><p class=quiet>{escape(load['first'][:10])} to {escape(load['last'][:10])}; "
            f"{load['read']:,} lines read.</p><div class=grid>",
            _figure(figures.draw_weeks(data["weeks"]), "Receipts by week"),
            _figure(figures.draw_histogram(data["receipt_sizes"], "items on a receipt"), "Receipts"),
            gaps,
            _figure(figures.draw_tail(data["long_tail"]), "The long tail"),
            "</div><h3>What cleaning left out</h3>",
            table(["reason", "lines"], removed) if removed else "<p>Nothing: every line was kept.</p>",
            "<h3>What prefilters keep from being recommended</h3>",
            table(["prefilter", "items removed", "items left"], prefilters)
            if prefilters
            else "<p>No prefilter was set.</p>",
        ]
    )  # fmt: skip


def _matching(matching: Mapping[str, Any]) -> str:
    rows = []
    for name, facts in matching["sources"].items():
        curve = matching["recall@k"][name]
        rows.append(
            [
                name, *(f"{curve[k]:.3f}" for k in ("20", "50", "100", "200")),
                number(facts["recall@200_of_repeats"], 3), number(facts["recall@200_of_new"], 3),
                f"{facts['catalogue_coverage']:.0%}",
                f"{matching['marginal'][name]:.4f}" if name in matching["marginal"] else "",
            ]
        )  # fmt: skip
    cold = [
        [group, f"{facts['n_users']:,}", number(facts.get("pool_recall@200"), 3)]
        for group, facts in matching["cold"].items()
        if facts.get("n_users")
    ]
    head = [
        "source", "recall@20", "@50", "@100", "@200", "repeats@200", "new@200", "catalogue",
        "alone adds",
    ]  # fmt: skip
    return "".join(
        [
            "<p>Several sources propose items; what none of them proposes can't be recommended. "
            f"After <b>k = {matching['chosen_k']}</b> candidates a shopper, one more finds less than "
            f"{matching['least_gain_per_candidate']:g} of the purchases.</p>",
            table(head, rows),
            "<p class=quiet>Recall@k: share of a shopper's purchases in the window among the first k "
            "proposals. <i>Alone adds</i>: recall that is lost without the source. "
            f"{matching['evaluation']['n_users']:,} shoppers.</p><div class=grid>",
            _figure(figures.draw_recall(matching), "How many candidates are enough?"),
            _figure(figures.draw_marginal(matching["marginal"]), "What each source adds"),
            _figure(figures.draw_overlap(matching["overlap"]),
                    "Of 100 proposals of the row, how many are the column's too"),
            "</div><h3>Shoppers of whom little is known</h3>",
            table(["shoppers", "number", "recall of the pool at 200"], cold),
        ]
    )  # fmt: skip


def _ranking(ranking: Mapping[str, Any]) -> str:
    windows = [
        [
            w["cutoff"][:10], f"{w['users']:,}", f"{w['bought']:,}", f"{w['bought_and_proposed']:,}",
            _share(w["bought_and_proposed"] / max(w["bought"], 1)), f"{w['rows']:,}",
        ]
        for w in ranking["windows"]
    ]  # fmt: skip
    parts = [
        "<p>Gradient boosting learns from earlier windows: what was known before each, and what was "
        "bought within it. Purchases that no source proposed are counted, not added.</p>",
        table(
            ["window from", "shoppers", "purchases", "proposed", "share", "training rows"], windows
        ),
        "<div class=grid>",
    ]  # fmt: skip
    if ranking["curve"]:
        parts.append(
            _figure(
                figures.draw_learning(ranking["curve"]),
                f"Learning: judged on {ranking['judged_on']}, which trained nothing",
            )
        )
    if found := ranking["importances"]:
        parts.append(
            _figure(figures.draw_importances(found["families"], "family"), "Families of columns")
        )
        parts.append(
            _figure(figures.draw_importances(found["columns"][:15], "column"), "Fifteen columns")
        )
    if ranking["reliability"]:
        parts.append(
            _figure(figures.draw_reliability(ranking["reliability"]), "Do probabilities hold?")
        )
    return "".join([*parts, "</div>"])


def _examples(shoppers: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for s in shoppers:
        often = "".join(
            f"<li>{escape(o['item'])} <small>{o['times']}×, last {o['days_ago']} days ago</small></li>"
            for o in s["often"]
        )
        last = "".join(
            f"<li><small>{escape(r['date'])}</small> {escape(_some(r['items'], 6))}</li>"
            for r in s["last_receipts"]
        )
        lists = "".join(
            f"<div><h4>{_model(name)}</h4><ol>{''.join(_item(i) for i in items)}</ol></div>"
            for name, items in sorted(s["lists"].items(), key=lambda each: each[0] != "two_stage")
        )
        cards.append(
            f"<article><h3>Shopper {escape(s['user'])} <small>{s['receipts']:,} receipts</small></h3>"
            f"<div class=past><div><h4>buys most</h4><ul>{often}</ul></div>"
            f"<div><h4>last receipts</h4><ul>{last}</ul></div></div>"
            f"<div class=lists>{lists}</div>"
            f"<p class=quiet>Bought in the window: {escape(_some(s['bought'], 15))}</p></article>"
        )
    return "<p>Drawn from the least to the most active; ✓ was bought in the window.</p>" + "".join(
        cards
    )


def _item(item: Mapping[str, Any]) -> str:
    mark = "<b class=hit>✓</b>" if item["bought"] else ""
    reason = f"<small>{escape(item['reason'])}</small>" if item.get("reason") else ""
    return f"<li>{escape(item['item'])} {mark}{reason}</li>"


def _sent(found: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """The section on shoppers who were sent coupons, where that is known."""
    if not found:
        return []
    rows = [
        [
            g["group"], f"{g['n_users']:,}", f"{g['receipts']:.1f}", number(g["precision"]),
            _share(g["recommended"]), _share(g["bought"]), _share(g["redeemed"]),
        ]
        for g in found["groups"]
    ]  # fmt: skip
    head = [
        "shoppers", "number", "receipts before", "precision of their lists",
        "recommended: campaign products", "bought: campaign products", "redeemed a coupon",
    ]  # fmt: skip
    text = (
        f"<p>{found['campaigns']:,} campaigns with {found['products']:,} products ran in the window. "
        f"<b>Descriptive:</b> {escape(found['caution'])}</p>{table(head, rows)}"
    )
    return [("coupons", "Shoppers who were sent coupons", text)]


def _rules(rules: Mapping[str, Mapping[str, int]] | None) -> str:
    if rules is None:
        return "<p>No business rule was set; <code>--rules FILE</code> sets some.</p>"
    return table(
        ["rule", "candidates removed", "shoppers whose list changed", "shoppers for whom it gave way"],
        [
            [rule, *(f"{did[key]:,}" for key in ("removed", "bound", "gave_way"))]
            for rule, did in rules.items()
        ],
    )


def _settings(report: Mapping[str, Any]) -> str:
    seconds = [[step, f"{s:,.1f}"] for step, s in report["seconds"].items()]
    versions = [[name, version] for name, version in report["versions"].items()]
    settings = escape(json.dumps(report["settings"], indent=1, default=str))
    return (
        f"<div class=grid><div>{table(['step', 'seconds'], seconds)}"
        f"<p>{report['peak_memory_mb']:,} MB at most.</p></div>"
        f"{table(['library', 'version'], versions)}</div>"
        f"<details open><summary>Settings to run this again</summary><pre>{settings}</pre></details>"
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>"


def _model(name: str) -> str:
    colour, _ = figures.model_style(name, [name])
    return f'<span class=model style="--c:{colour}">{escape(name)}</span>'


def _meaning(metric: str) -> str:
    name, _, k = metric.partition("@")
    return MEANINGS.get(name, "see docs/metrics.md").format(k=k)


def _spread(rows: Sequence[Mapping[str, Any]], model: str, metric: str) -> str:
    row = next(r for r in rows if (r["model"], r["metric"]) == (model, metric))
    spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
    return number(row["mean"]) + spread


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _days(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f} days"


def _some(items: Sequence[str], most: int) -> str:
    shown = ", ".join(items[:most]) or "nothing"
    return shown + (f", and {len(items) - most} more" if len(items) > most else "")

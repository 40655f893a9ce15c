"""The report: one self-contained HTML file from finished numbers. No script, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

from retailrec.evaluation.results import MatchingReport
from retailrec.report import figures
from retailrec.report.html import Section, days, document, figure, folded, number, share, table, tiles
from retailrec.report.outcome import results
from retailrec.report.purpose_section import purpose_sections
from retailrec.report.results import Ranking, Report, RuleFacts
from retailrec.report.shoppers import examples, sent_coupons, three


def render(report: Report) -> str:
    """The page of a report that `retailrec.jobs.run` put together."""
    shown = three(report["examples"])
    others = [s for s in report["examples"] if s not in shown]
    sections = [
        Section("offers", "Three shoppers and what they would be offered", examples(shown)),
        Section("results", "Results: what it is worth", results(report)),
        *purpose_sections(report["purposes"]),
        Section("data", "The data", _data(report)),
        Section("matching", "Matching: who proposes what", _matching(report["matching"])),
        Section("ranking", "Ranking: what decides the order", _ranking(report["ranking"])),
        Section("examples", "More shoppers", folded("Show them", examples(others))),
        *sent_coupons(report.get("sent_coupons")),
        Section("rules", "Business rules", _rules(report["rules"])),
        Section("settings", "Time, memory, settings", _settings(report)),
    ]
    return document(
        f"Recommendations for {report['dataset']}",
        _lead(report),
        sections,
        f"retailrec {report['versions']['retailrec']}",
    )


def _lead(report: Report) -> str:
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


def _data(report: Report) -> str:
    data, load = report["data"], report["data"]["load"]
    glance = data["glance"]
    key_figures = [
        (f"{load['n_users']:,}", "shoppers"),
        (f"{load['n_items']:,}", "items sold"),
        (f"{load['n_baskets']:,}", "receipts"),
        (f"{load['kept']:,}", "receipt lines"),
        (f"{glance['lines_per_receipt_mean']:.1f}", "items on a receipt (mean)"),
        (days(glance["days_between_visits_median"]), "between visits (median)"),
        (share(glance["repeat_share_28d"]), "of purchases are repeats"),
        (share(glance["sales_in_top_10_percent"]), "of lines are of the top 10% of items"),
    ]
    removed = [[reason, f"{n:,}"] for reason, n in load["rejected"].items()]
    if load["merged"]:
        removed.append(["merged: item twice on a receipt", f"{load['merged']:,}"])
    prefilters = [[p["prefilter"], f"{p['removed']:,}", f"{p['left']:,}"] for p in report["prefilters"]]
    gaps = ""
    if glance["days_between_visits_median"] is not None:
        drawing = figures.draw_histogram(data["gaps_days"], "days since the visit before")
        gaps = figure(drawing, "Time between visits")
    return "".join(
        [
            tiles(key_figures),
            f"<p class=quiet>{escape(load['first'][:10])} to {escape(load['last'][:10])}; "
            f"{load['read']:,} lines read.</p><div class=grid>",
            figure(figures.draw_weeks(data["weeks"]), "Receipts by week"),
            figure(figures.draw_histogram(data["receipt_sizes"], "items on a receipt"), "Receipts"),
            gaps,
            figure(figures.draw_tail(data["long_tail"]), "The long tail"),
            "</div><h3>What cleaning left out</h3>",
            table(["reason", "lines"], removed) if removed else "<p>Nothing: every line was kept.</p>",
            "<h3>What prefilters keep from being recommended</h3>",
            table(["prefilter", "items removed", "items left"], prefilters)
            if prefilters
            else "<p>No prefilter was set.</p>",
        ]
    )


def _matching(matching: MatchingReport) -> str:
    rows = []
    for name, facts in matching["sources"].items():
        curve = matching["recall@k"][name]
        rows.append(
            [
                name,
                *(f"{curve[k]:.3f}" for k in ("20", "50", "100", "200")),
                number(facts["recall@200_of_repeats"], 3),
                number(facts["recall@200_of_new"], 3),
                f"{facts['catalogue_coverage']:.0%}",
                f"{matching['marginal'][name]:.4f}" if name in matching["marginal"] else "",
            ]
        )
    cold = [
        [group, f"{facts['n_users']:,}", number(facts.get("pool_recall@200"), 3)]
        for group, facts in matching["cold"].items()
        if facts.get("n_users")
    ]
    head = [
        "source",
        "recall@20",
        "@50",
        "@100",
        "@200",
        "repeats@200",
        "new@200",
        "catalogue",
        "alone adds",
    ]
    return "".join(
        [
            "<p>Several sources propose items; what none of them proposes can't be recommended. "
            f"After <b>k = {matching['chosen_k']}</b> candidates a shopper, one more finds less than "
            f"{matching['least_gain_per_candidate']:g} of the purchases.</p>",
            table(head, rows),
            "<p class=quiet>Recall@k: share of a shopper's purchases in the window among the first k "
            "proposals. <i>Alone adds</i>: recall that is lost without the source. "
            f"{matching['evaluation']['n_users']:,} shoppers.</p><div class=grid>",
            figure(figures.draw_recall(matching), "How many candidates are enough?"),
            figure(figures.draw_marginal(matching["marginal"]), "What each source adds"),
            figure(
                figures.draw_overlap(matching["overlap"]),
                "Of 100 proposals of the row, how many are the column's too",
            ),
            "</div><h3>Shoppers of whom little is known</h3>",
            table(["shoppers", "number", "recall of the pool at 200"], cold),
        ]
    )


def _ranking(ranking: Ranking) -> str:
    windows = [
        [
            w["cutoff"][:10],
            f"{w['users']:,}",
            f"{w['bought']:,}",
            f"{w['bought_and_proposed']:,}",
            share(w["bought_and_proposed"] / max(w["bought"], 1)),
            f"{w['rows']:,}",
        ]
        for w in ranking["windows"]
    ]
    parts = [
        "<p>Gradient boosting learns from earlier windows: what was known before each, and what was "
        "bought within it. Purchases that no source proposed are counted, not added.</p>",
        table(["window from", "shoppers", "purchases", "proposed", "share", "training rows"], windows),
        "<div class=grid>",
    ]
    if ranking["curve"]:
        parts.append(
            figure(
                figures.draw_learning(ranking["curve"]),
                f"Learning: judged on {ranking['judged_on']}, which trained nothing",
            )
        )
    if importances := ranking["importances"]:
        parts.append(
            figure(figures.draw_importances(importances["families"], "family"), "Families of columns")
        )
        parts.append(
            figure(figures.draw_importances(importances["columns"][:15], "column"), "Fifteen columns")
        )
    if ranking["reliability"]:
        parts.append(figure(figures.draw_reliability(ranking["reliability"]), "Do probabilities hold?"))
    return "".join([*parts, "</div>"])


def _rules(rules: Mapping[str, RuleFacts] | None) -> str:
    if rules is None:
        return "<p>No business rule was set; <code>--rules FILE</code> sets some.</p>"
    return table(
        ["rule", "candidates removed", "shoppers whose list changed", "shoppers for whom it gave way"],
        [
            [rule, *(f"{did[key]:,}" for key in ("removed", "bound", "gave_way"))]
            for rule, did in rules.items()
        ],
    )


def _settings(report: Report) -> str:
    seconds = [[step, f"{s:,.1f}"] for step, s in report["seconds"].items()]
    versions = [[name, number] for name, number in report["versions"].items()]
    settings = escape(json.dumps(report["settings"], indent=1, default=str))
    return (
        f"<div class=grid><div>{table(['step', 'seconds'], seconds)}"
        f"<p>{report['peak_memory_mb']:,} MB at most.</p></div>"
        f"{table(['library', 'version'], versions)}</div>"
        f"<details open><summary>Settings to run this again</summary><pre>{settings}</pre></details>"
    )

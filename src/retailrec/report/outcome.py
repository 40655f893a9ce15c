"""The report's section on what it is worth: means, intervals, differences, segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from retailrec.evaluation.results import Difference
from retailrec.metrics import parse_metric
from retailrec.report import figures
from retailrec.report.html import figure, folded, number, table
from retailrec.report.results import FoldMean, Means, Report

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


def results(report: Report) -> str:
    """Means with their intervals, the best simple method beside ours, folds and segments."""
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
        figure(figures.draw_results(report["intervals"], metrics), "Means with 95% intervals"),
    ]
    if best := report.get("attainable"):
        for metric, facts in best.items():
            parts.append(
                f"<p>This data was generated, so the right answer is known: with every household's "
                f"true probabilities, {escape(metric)} would be {facts['low']:.3f} to "
                f"{facts['high']:.3f}. "
                f"The two-stage model reaches <b>{facts['reached']['two_stage']:.0%}</b> of that.</p>"
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
            [[m, *(number(details[model][m]) for model in details), _meaning(m)] for m in names],
        )
    )
    if folds := report.get("folds"):
        parts.append(f"<h3>On {folds['n']} horizons</h3>")
        parts.append(
            table(
                ["metric", *models],
                [[m, *(_spread(folds["summary"], model, m) for model in models)] for m in metrics],
            )
        )
        parts.append(
            "<p class=quiet>Mean ± standard deviation over the horizons, the last one included.</p>"
        )
    segments = report["results"]["segments"]
    kinds = list(dict.fromkeys(r["segment"] for r in next(iter(segments.values()))))
    drawn = [
        figure(figures.draw_segment(segments, kind, metrics[0]), f"{metrics[0]} by {kind} (shoppers)")
        for kind in kinds
        if kind != "all"
    ]
    parts.append(f"<h3>For whom?</h3><div class=grid>{''.join(drawn)}</div>")
    return "".join(parts)


def _best_simple(models: Mapping[str, Means], metric: str) -> str:
    """The best of the others by the first metric."""
    others = {name: values[metric] for name, values in models.items() if name != "two_stage"}
    return max(others, key=lambda name: -1.0 if (mean := others[name]) is None else mean)


def _differences(rows: Sequence[Difference]) -> str:
    """Which model is better by how much, and how sure that is."""
    return table(
        ["model", "less", "metric", "difference", "95% interval", "p, corrected"],
        [
            [
                r["model"],
                r["versus"],
                r["metric"],
                f"{r['difference']:+.4f}",
                "" if r["low"] is None else f"{r['low']:+.4f} to {r['high']:+.4f}",
                "< 0.001" if r["p_corrected"] < 0.001 else f"{r['p_corrected']:.3f}",
            ]
            for r in rows
        ],
    )


def _meaning(metric: str) -> str:
    name, _, k = metric.partition("@")
    if name in MEANINGS:
        return MEANINGS[name].format(k=k)
    return parse_metric(metric)[0].meaning.partition("\n")[0]  # a metric of somebody's own


def _spread(rows: Sequence[FoldMean], model: str, metric: str) -> str:
    row = next(r for r in rows if (r["model"], r["metric"]) == (model, metric))
    spread = "" if row["spread"] is None else f" ± {row['spread']:.4f}"
    return number(row["mean"]) + spread

"""The campaign's page: one self-contained HTML file from finished numbers, without scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from retailrec.report.figures import _svg
from retailrec.report.html import Section, document, figure, table, tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WORDS = {
    "bought": "share who bought anything",
    "purchases": "receipt lines a shopper",
    "spend": "money spent a shopper",
    "margin": "margin a shopper",
}


def render_campaign(summary: Mapping[str, Any], result: Mapping[str, Any] | None = None) -> str:
    """The page of a campaign.

    Parameters
    ----------
    summary : as `campaign_summary` gives it
    result : what came of it, as `ExperimentReport.as_dict` gives it; None before it is known
    """
    sections = [
        Section("result", "What came of it", _result(summary, result)),
        Section("who", "Who gets what", _who(summary)),
        Section("budget", "How the budget is spent", _budgets(summary)),
        Section("prices", "What limits cost", _prices(summary)),
        Section("examples", "Some shoppers", _examples(summary["examples"])),
    ]
    if result is None:
        sections = [*sections[1:], sections[0]]
    title = f"Campaign {summary['report']['campaign']}"
    return document(title, _lead(summary, result), sections, "retailrec")


def _lead(summary: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    report = summary["report"]
    text = (
        f"{report['n_offers']:,} offers go to {report['n_with_offers']:,} of {report['n_shoppers']:,} "
        f"shoppers; {report['n_held_out']:,} are held out so that the effect can be told. The offers "
        f"are worth {report['value']:,.2f}; no choice under the same limits is worth more than "
        f"{report['bound']:,.2f} ({report['gap']:.2%} more)."
    )
    spend = None if result is None else _effect(result, "spend")
    if spend is not None:
        sure = "more than chance" if spend["low"] > 0 or spend["high"] < 0 else "it could be chance"
        text += (
            f" Treated shoppers spent {spend['difference']:+,.2f} each (95% interval "
            f"{spend['low']:+,.2f} to {spend['high']:+,.2f}): {sure}."
        )
    return f'<p class="lead">{escape(text)}</p>'


def _effect(result: Mapping[str, Any], metric: str) -> Mapping[str, Any] | None:
    """The adjusted effect on everybody."""
    for effect in result["effects"]:
        if (effect["metric"], effect["segment"], effect["adjusted"]) == (metric, "all", True):
            found: Mapping[str, Any] = effect
            return found
    return None


def _result(summary: Mapping[str, Any], result: Mapping[str, Any] | None) -> str:
    if result is None:
        if not summary["report"]["n_held_out"]:
            return (
                "<p>Nobody is held out, so nobody will know what would have been bought anyway. "
                "Set <code>holdout</code> in the campaign.</p>"
            )
        return (
            "<p>Not known yet. When receipts of the following weeks are there, "
            "<code>retailrec experiment result</code> fills this part.</p>"
        )
    rows = [
        [
            _WORDS.get(e["metric"], e["metric"])
            + (", earlier spend taken out" if e["adjusted"] else ""),
            f"{e['treated']:,.3f}",
            f"{e['holdout']:,.3f}",
            f"{e['difference']:+,.3f}",
            f"{e['low']:+,.3f} to {e['high']:+,.3f}",
            "–" if e["relative"] is None else f"{e['relative']:+.1%}",
            "< 0.001" if e["p"] < 0.001 else f"{e['p']:.3f}",
        ]
        for e in result["effects"]
        if e["segment"] == "all"
    ]
    head = ["per shopper", "treated", "held out", "difference", "interval", "relative", "p"]
    parts = [
        f"<p>{result['n_treated']:,} treated and {result['n_holdout']:,} held-out shoppers, "
        f"{result['days']:g} days from {escape(str(result['start'])[:10])}. Everybody counts as drawn, "
        f"whether an offer reached them or not ({result['n_reached']:,} got one).</p>",
        table(head, rows),
    ]
    for metric, (most_likely, low, high) in result["total"].items():
        if metric in ("spend", "margin"):
            parts.append(
                f"<p>All treated shoppers together: <b>{most_likely:+,.0f}</b> in {escape(metric)} "
                f"({low:+,.0f} to {high:+,.0f}).</p>"
            )
    segments = [
        [
            e["segment"],
            e["metric"],
            f"{e['n_treated']:,}",
            f"{e['difference']:+,.3f}",
            f"{e['low']:+,.3f} to {e['high']:+,.3f}",
            "< 0.001" if e["p_corrected"] < 0.001 else f"{e['p_corrected']:.3f}",
        ]
        for e in result["effects"]
        if e["segment"] != "all"
    ]
    if segments:
        parts.append("<h3>By segment</h3>")
        parts.append(
            table(["segment", "metric", "treated", "difference", "interval", "p, corrected"], segments)
        )
    parts += [f"<p><b>{escape(note)}</b></p>" for note in result["notes"]]
    return "".join(parts)


def _who(summary: Mapping[str, Any]) -> str:
    report = summary["report"]
    key_figures = [
        (f"{report['n_offers']:,}", "offers"),
        (f"{report['n_with_offers']:,}", "shoppers get something"),
        (f"{report['n_held_out']:,}", "shoppers held out"),
        (f"{summary['n_products']:,}", "products offered"),
        (f"{report['value']:,.2f}", "worth of all offers"),
        (f"{report['gap']:.2%}", "at most below the best choice"),
    ]
    lists = [[f"{row['offers']:,}", f"{row['len']:,}"] for row in summary["lists"]]
    parts = [
        tiles(key_figures),
        *(f"<p><b>{escape(note)}</b></p>" for note in report["notes"]),
        "<div class=grid><div><h3>Offers a shopper</h3>",
        table(["offers", "shoppers"], lists),
        "</div>",
        figure(
            _bars([(p["name"], p["offers"]) for p in summary["products"][:12]], "offers"),
            "Products offered most",
        ),
        "</div>",
        _totals("product", summary["products"], "name"),
    ]
    if summary["n_products"] > len(summary["products"]):
        parts.append(
            f"<p class=quiet>The first {len(summary['products'])} of {summary['n_products']:,}.</p>"
        )
    for kind, rows in summary["groups"].items():
        parts.append(_totals(kind, rows, kind))
    if report["n_couples"]:
        parts.append(
            f"<p class=quiet>Exploration: {report['n_couples']:,} couples of shoppers with near ties, "
            f"{report['n_swapped']:,} exchanged an offer by a coin whose chance is in the ledger.</p>"
        )
    return "".join(parts)


def _totals(what: str, rows: Sequence[Mapping[str, Any]], name: str) -> str:
    rows_of_table = [
        [
            "none" if row[name] is None else row[name],
            f"{row['offers']:,}",
            f"{row['value']:,.2f}",
            f"{row['expected_cost']:,.2f}",
            f"{row['price']:,.3f}",
        ]
        for row in rows
    ]
    return f"<h3>By {escape(what)}</h3>" + table(
        [what, "offers", "worth", "expected cost", "mean price"], rows_of_table
    )


def _budgets(summary: Mapping[str, Any]) -> str:
    if not summary["budgets"]:
        return "<p>The campaign has no budget.</p>"
    rows = [
        [
            b["name"],
            f"{b['at_most']:,.2f}",
            f"{b['reached']:,.2f}",
            f"{b['reached'] / b['at_most']:.1%}",
            b["words"],
        ]
        for b in summary["budgets"]
    ]
    return table(["budget", "at most", "expected cost", "used", "in words"], rows)


def _prices(summary: Mapping[str, Any]) -> str:
    if not summary["n_limits"]:
        return "<p>The campaign has no limits on products, suppliers or categories.</p>"
    rows = [
        [
            c["name"],
            _bound(c["at_least"]),
            _bound(c["at_most"]),
            f"{c['reached']:,.0f}",
            f"{c['price']:,.3f}",
            c["words"],
        ]
        for c in summary["limits"]
    ]
    shown = (
        f"<p>{summary['n_binding']:,} of {summary['n_limits']:,} limits bind; those that gave way come "
        f"first, then the dearest.</p>"
    )
    return shown + table(["limit", "at least", "at most", "offers", "price", "in words"], rows)


def _examples(shoppers: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for shopper in shoppers:
        lines = "".join(
            f"<li>{escape(o['name'])} "
            f"<small>worth {o['value']:,.3f}, price {o['price']:,.3f}</small></li>"
            for o in shopper["offers"]
        )
        cards.append(
            f"<article><h3>Shopper {escape(shopper['user_id'])}</h3><ol>{lines}</ol></article>"
        )
    return "".join(cards)


def _bound(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def _bars(rows: Sequence[tuple[str, int]], label: str) -> str:
    def draw(figure: Figure, axes: Axes) -> None:
        names = [name if len(name) <= 28 else name[:27] + "…" for name, _ in rows]
        axes.barh(range(len(rows)), [n for _, n in rows], color="#0072B2")
        axes.set_yticks(range(len(rows)), [name.replace("$", r"\$") for name in names])
        axes.invert_yaxis()
        axes.set_xlabel(label)

    return _svg(draw, "offers-by-product")

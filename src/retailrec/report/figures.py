"""Figures as SVG text; each takes finished numbers. A model or source looks the same in all of them.

Colours are Okabe and Ito's, told apart by readers who see few of them; a marker or a line style says
the same again, so that figures can be read without colour.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from io import StringIO
from typing import TYPE_CHECKING, Any

from retailrec.evaluation.results import Interval, MatchingReport
from retailrec.report.results import Bin, Curve, ReliabilityBin, SegmentMean, TailPoint, Week

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLES = [
    ("#0072B2", "o"),
    ("#E69F00", "s"),
    ("#009E73", "^"),
    ("#CC79A7", "D"),
    ("#56B4E9", "v"),
    ("#D55E00", "P"),
    ("#8C8C00", "X"),
    ("#7F7F7F", "<"),
    ("#5B3E96", ">"),
    ("#A0522D", "h"),
]
_MODELS = {"popular": 7, "own_purchases": 1, "two_stage": 0}  # name -> style
_INK, _QUIET = "#1b1f24", "#6b7280"
_SIZE = (6.0, 3.4)  # inches


class Svg(str):
    """An <svg> element as text; notebooks show it as the picture it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<Svg of {len(self):,} characters>"

    def _repr_svg_(self) -> str:
        return str(self)


def model_style(name: str, models: Sequence[str]) -> tuple[str, str]:
    """Colour and marker of a model."""
    others = [m for m in models if m not in _MODELS]
    number = _MODELS[name] if name in _MODELS else 2 + others.index(name)
    return _STYLES[number % len(_STYLES)]


def _svg(draw: Callable[[Figure, Axes], None], name: str, size: tuple[float, float] = _SIZE) -> Svg:
    """One figure as an <svg> element; the same numbers give the same text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.size": 11,
        "axes.edgecolor": _QUIET,
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica Neue", "Arial", "DejaVu Sans"],
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.color": _QUIET,
        "ytick.color": _QUIET,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "legend.frameon": False,
        "lines.markersize": 5,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure, figure.add_subplot())
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None}, transparent=True)
    svg = text.getvalue()
    return Svg(svg[svg.index("<svg") :])


def draw_weeks(weeks: Sequence[Week]) -> Svg:
    """Receipts by week."""

    def draw(figure: Figure, axes: Axes) -> None:
        x = [date.fromisoformat(w["start"]) for w in weeks]
        counts = [w["receipts"] for w in weeks]
        axes.fill_between(x, counts, color="#0072B2", alpha=0.12)  # type: ignore[arg-type]
        axes.plot(x, counts, color="#0072B2", linewidth=1.6)  # type: ignore[arg-type]
        axes.set_ylim(bottom=0)
        axes.set_ylabel("receipts a week")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.tick_params(axis="x", rotation=30)

    return _svg(draw, "weeks")


def draw_histogram(bins: Sequence[Bin], unit: str) -> Svg:
    """Share of cases in bins such as 2 to 3 items."""

    def label(b: Bin) -> str:
        low, high = b["from"], b["to"]
        if high is None:
            return f"{low}+"
        return str(low) if high - low == 1 else f"{low}–{high - 1}"

    def draw(figure: Figure, axes: Axes) -> None:
        shares = [100 * b["share"] for b in bins]
        bars = axes.bar([label(b) for b in bins], shares, color="#0072B2", width=0.78)
        axes.bar_label(bars, [f"{s:.0f}%" for s in shares], color=_QUIET, fontsize=10)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(unit)

    return _svg(draw, unit, (6.0, 2.9))


def draw_tail(points: Sequence[TailPoint]) -> Svg:
    """Share of lines that the most sold items hold."""

    def draw(figure: Figure, axes: Axes) -> None:
        x = [100 * p["items"] for p in points]
        y = [100 * p["lines"] for p in points]
        axes.plot(x, y, color="#0072B2", linewidth=1.8)
        tenth = next((p for p in points if p["items"] >= 0.1), points[-1])
        axes.plot([100 * tenth["items"]], [100 * tenth["lines"]], "o", color="#0072B2")
        items, lines = round(100 * tenth["items"]), round(100 * tenth["lines"])
        axes.annotate(
            f"the most sold {items}% of items\nhold {lines}% of lines",
            (100 * tenth["items"], 100 * tenth["lines"]),
            xytext=(12, -26),
            textcoords="offset points",
        )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 103)
        axes.set_xlabel("items, most sold first (%)")
        axes.set_ylabel("receipt lines (%)")

    return _svg(draw, "tail")


def draw_recall(report: MatchingReport) -> Svg:
    """Recall@k of every source and the pool, with the chosen k."""

    def draw(figure: Figure, axes: Axes) -> None:
        curves = report["recall@k"]
        for number, (name, curve) in enumerate(curves.items()):
            ks, values = [int(k) for k in curve], list(curve.values())
            colour, marker = _STYLES[number % len(_STYLES)]
            if name == "pool":
                axes.plot(ks, values, "k-o", linewidth=2.5, label="pool", zorder=5)
            else:
                axes.plot(
                    ks, values, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name
                )
        axes.axvline(report["chosen_k"], color="0.4", linestyle=":", linewidth=1.2)
        axes.annotate(
            f"k = {report['chosen_k']}",
            (report["chosen_k"], 0.01),
            xytext=(4, 0),
            textcoords="offset points",
            color="0.3",
        )
        axes.set_xscale("log")
        ticks: list[int] = []
        for k in sorted(int(k) for k in next(iter(curves.values()))):
            if not ticks or k >= 1.6 * ticks[-1]:  # labels would run into each other
                ticks.append(k)
        axes.set_xticks(ticks, [str(t) for t in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_xlabel("candidates a shopper (k)")
        axes.set_ylabel("recall@k: share of purchases found")
        figure.legend(loc="outside lower center", fontsize=9.5, ncols=3)

    return _svg(draw, "recall", (6.4, 5.0))


def draw_marginal(marginal: Mapping[str, float]) -> Svg:
    """Recall that is lost without each source."""
    return _bars(
        {name: 100 * gain for name, gain in sorted(marginal.items(), key=lambda pair: pair[1])},
        "recall@200 that only this source brings (points)",
        "marginal",
    )


def draw_overlap(overlap: Mapping[str, Mapping[str, float]]) -> Svg:
    """Share of the row's proposals that the column proposes too."""

    def draw(figure: Figure, axes: Axes) -> None:
        names = list(overlap)
        axes.imshow([[overlap[a][b] for b in names] for a in names], cmap="Blues", vmin=0, vmax=1)
        for i, a in enumerate(names):
            for j, b in enumerate(names):
                share = overlap[a][b]
                ink = "white" if share > 0.55 else _INK
                axes.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color=ink, fontsize=9)
        axes.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)

    return _svg(draw, "overlap", (6.4, 5.2))


def draw_learning(curve: Curve) -> Svg:
    """The ranker's measure by number of trees, on training rows and on rows kept apart."""

    def draw(figure: Figure, axes: Axes) -> None:
        parts = (("learn", curve.get("learn"), "--"), ("validation", curve.get("validation"), "-"))
        for part, curve_of_part, line in parts:
            values = curve_of_part or []
            colour = "#0072B2" if part == "validation" else _QUIET
            axes.plot(range(1, len(values) + 1), values, line, color=colour)
            if values:
                name = "rows kept apart" if part == "validation" else "training rows"
                axes.annotate(
                    name,
                    (len(values), values[-1]),
                    xytext=(-4, 6),
                    ha="right",
                    textcoords="offset points",
                    color=colour,
                )
        if curve["best"] is not None:
            axes.axvline(curve["best"], color="0.4", linestyle=":", linewidth=1.2)
            axes.annotate(
                f"best: {curve['best']} trees",
                (curve["best"], axes.get_ylim()[0]),
                xytext=(-4, 4),
                textcoords="offset points",
                ha="right",
                color="0.3",
            )
        axes.set_xlabel("trees")
        axes.set_ylabel("what the ranker optimises")

    return _svg(draw, "learning")


def draw_importances(rows: Sequence[Mapping[str, Any]], key: str) -> Svg:
    """What NDCG@10 loses when a column, or a family of columns, is shuffled."""
    values = {row[key]: 100 * row["permutation"] for row in reversed(rows)}
    return _bars(values, "NDCG@10 lost when shuffled (points)", f"importances-{key}")


def draw_reliability(bins: Sequence[ReliabilityBin]) -> Svg:
    """Predicted against observed shares of purchases."""

    def draw(figure: Figure, axes: Axes) -> None:
        predicted, observed = [b["predicted"] for b in bins], [b["observed"] for b in bins]
        top = 1.05 * max(*predicted, *observed, 1e-6)
        axes.plot([0, top], [0, top], "--", color=_QUIET, linewidth=1)
        axes.plot(predicted, observed, "o-", color="#0072B2")
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("share bought")

    return _svg(draw, "reliability", (4.6, 3.8))


def draw_results(intervals: Sequence[Interval], metrics: Sequence[str]) -> Svg:
    """Mean and 95% interval of each model and metric, one line a metric."""
    models = list(dict.fromkeys(row["model"] for row in intervals))

    def draw(figure: Figure, axes: Axes) -> None:
        for place, metric in enumerate(metrics):
            for row in intervals:
                if row["metric"] != metric or row["mean"] is None:
                    continue
                number = models.index(row["model"])
                colour, marker = model_style(row["model"], models)
                y = -place + 0.18 * ((len(models) - 1) / 2 - number)
                if row["low"] is not None and row["high"] is not None:
                    axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=2.2)
                axes.plot(
                    [row["mean"]],
                    [y],
                    marker,
                    color=colour,
                    markersize=7,
                    label=row["model"] if place == 0 else None,
                )
        axes.set_yticks([-i for i in range(len(metrics))], metrics)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlim(left=0)
        figure.legend(loc="outside upper left", ncols=len(models), fontsize=10)

    return _svg(draw, "results", (6.4, 0.62 * len(metrics) + 1.1))


def draw_segment(tables: Mapping[str, Sequence[SegmentMean]], segment: str, metric: str) -> Svg:
    """One metric of all models by the groups of a segment."""
    models = list(tables)
    groups = {r["group"]: r["n_users"] for r in tables[models[0]] if r["segment"] == segment}

    def draw(figure: Figure, axes: Axes) -> None:
        for model in models:
            colour, marker = model_style(model, models)
            means = {r["group"]: r["mean"] for r in tables[model] if r["segment"] == segment}
            axes.plot(
                [math.nan if (mean := means[g]) is None else mean for g in groups],
                [-i for i in range(len(groups))],
                marker,
                color=colour,
                markersize=7,
                label=model,
            )
        names = [f"{_short(g)} ({n:,})" for g, n in groups.items()]
        axes.set_yticks([-i for i in range(len(groups))], names, fontsize=10)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="both", color="#e5e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.set_xlim(left=0)
        axes.set_ylim(-len(groups) + 0.5, 0.5)
        axes.set_xlabel(metric)
        figure.legend(loc="outside upper left", ncols=len(models), fontsize=10)

    return _svg(draw, f"segment-{segment}", (6.0, 0.34 * len(groups) + 1.3))


def _bars(values: Mapping[str, float], unit: str, name: str) -> Svg:
    """Horizontal bars with the number at each."""

    def draw(figure: Figure, axes: Axes) -> None:
        names = [_short(n) for n in values]
        bars = axes.barh(names, list(values.values()), color="#0072B2", height=0.7)
        axes.bar_label(bars, [f"{v:.2f}" for v in values.values()], padding=3, fontsize=9.5)
        axes.set_xticks([])
        axes.tick_params(axis="y", length=0, labelsize=9.5)
        axes.spines["bottom"].set_visible(False)
        axes.set_xlabel(unit)
        axes.margins(x=0.12)

    return _svg(draw, name, (6.0, 0.27 * len(values) + 0.8))


def _short(text: str, most: int = 34) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

"""Figures as SVG; each takes a finished dict of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

# Okabe & Ito's colours, told apart by readers who see few of them; a marker repeats the message
_STYLES = [
    ("#0072B2", "o"), ("#E69F00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#56B4E9", "v"),
    ("#D55E00", "P"), ("#8C8C00", "X"), ("#7F7F7F", "<"), ("#5B3E96", ">"), ("#A0522D", "h"),
]  # fmt: skip


def draw_recall(report: dict[str, Any], path: Path) -> None:
    """Recall@k of every source and the pool, with the chosen k; an SVG at `path`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    curves = report["recall@k"]
    for number, (name, curve) in enumerate(curves.items()):
        ks, values = [int(k) for k in curve], list(curve.values())
        colour, marker = _STYLES[number % len(_STYLES)]
        if name == "pool":
            axes.plot(ks, values, "k-o", linewidth=2.5, markersize=5, label="pool", zorder=5)
        else:
            axes.plot(ks, values, color=colour, marker=marker, markersize=4, linewidth=1.2, label=name)
    axes.axvline(report["chosen_k"], color="0.4", linestyle=":", linewidth=1.2)
    axes.annotate(
        f"k = {report['chosen_k']}", (report["chosen_k"], 0.01), xytext=(4, 0),
        textcoords="offset points", color="0.3",
    )  # fmt: skip
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
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})

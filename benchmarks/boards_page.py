"""docs/boards.md from the files of benchmarks/boards.py."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retailrec.evaluation.bootstrap import compare_models

SIMPLE = ("popular", "own_purchases", "own_decay", "tifu_knn", "fusion")
# boards that one figure is claimed on together: name -> beginnings of their names
TOGETHER = {
    "Complete Journey 2017, 28 days, two cuts": "journey-28",
    "Complete Journey 2017, 7 days, two cuts": "journey-7",
    "Complete Journey, 2% of the households, 28 days, two cuts": "journey2-28",
    "Complete Journey, 5% of the households, 28 days, two cuts": "journey5-28",
    "Complete Journey, 20% of the households, 28 days, two cuts": "journey20-28",
    "Coop, 100 users, 28 days, four cuts": "coop",
    "Instacart, 593 users, 28 days": "instacart",
    "Ta-Feng, 28 days": "ta-feng-28",
    "Ta-Feng, 14 days": "ta-feng-14",
    "Online Retail II, 28 days, three windows": "online-retail",
    "Next basket A (Ta-Feng, five folds)": "basket-a",
    "Next basket B (Ta-Feng of DNNTSP)": "basket-b",
    "Next basket C (Dunnhumby-Carbo)": "basket-c",
    "Generated shop, 28 days": "generated",
}
WORDS = "\n## In words\n"  # what follows is written by people
HEAD = """# Boards

What the default recipe, its thinnings and simple methods reach on real shelves and on the generated
one. Printed by `make bench-boards`, which holds the protocols (`benchmarks/board_data.py`); settings
were chosen on earlier windows and other shoppers (`TUNING` there).

Each figure is the mean over boards of a kind, over seeds and over shoppers. In brackets, 95% intervals
of the difference to the best simple method, in the first metric of each table, by a bootstrap over
shoppers that draws all methods of a shopper at once. Simple methods, with no item hidden: bestsellers
of 28 days (`popular`); own purchases by count, ties by popularity, filled up with bestsellers
(`own_purchases`); the same with each receipt counting half after 120 days (`own_decay`); TIFU-KNN;
`fusion` of own purchases, item-item and bestsellers.

Lists of new items are judged apart ([experiments](experiments.md#new-items)): on Ta-Feng's 28 days two
stages are below TIFU-KNN and bestsellers there.
"""


def read(folder: Path, key: str) -> dict[str, dict[str, dict[str, list[dict[str, Any]]]]]:
    """Kind of board -> board -> method -> a result a seed."""
    found: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for file in sorted(folder.glob(f"*.as-is.*.{key}.json")):
        board, method, *_ = file.name.split(".")
        for kind, start in TOGETHER.items():
            if board.startswith(start):
                found[kind][board][method].append(json.loads(file.read_text()))
    return found


def table(boards: dict[str, dict[str, list[dict[str, Any]]]]) -> tuple[list[str], dict[str, Any]]:
    """Lines of Markdown, and the means."""
    methods = [
        m for m in (*SIMPLE, "two_stage", "laptop", "large") if all(m in b for b in boards.values())
    ]
    simple = [m for m in methods if m in SIMPLE]
    if not simple:
        return ["(not complete)"], {}
    metrics = list(next(iter(boards.values()))[methods[0]][0]["values"])
    values = {
        method: {
            metric: np.concatenate(
                [np.mean([r["values"][metric] for r in b[method]], axis=0) for b in boards.values()]
            )
            for metric in metrics
        }
        for method in methods
    }
    mean = {
        m: {
            metric: float(
                np.mean([np.mean([r["means"][metric] for r in b[m]]) for b in boards.values()])
            )
            for metric in metrics
        }
        for m in methods
    }
    best = {metric: max(simple, key=lambda m: mean[m][metric]) for metric in metrics}
    lines = [
        "| method | "
        + " | ".join(metrics)
        + " | over the best simple method | seeds | fit, s | ms a shopper | MB |",
        "|---" * (len(metrics) + 6) + "|",
    ]
    for m in methods:
        cells = [f"{mean[m][metric]:.4f}" for metric in metrics]
        runs = [r for b in boards.values() for r in b[m]]
        gap = ""
        if m not in SIMPLE:
            first = metrics[0]
            pair = {n: {first: values[n][first]} for n in (best[first], m)}
            row = compare_models(pair).differences.row(0, named=True)
            gap = f"{row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] ({best[first]})"
        seeds = min(len(b[m]) for b in boards.values())
        lines.append(
            f"| {m} | "
            + " | ".join(cells)
            + f" | {gap} | {seeds} | {np.mean([r['fit_s'] for r in runs]):.0f} "
            f"| {np.mean([r['ms'] for r in runs]):.2f} | {max(r['peak_mb'] for r in runs):,} |"
        )
    return lines, mean


def compared(folder: Path, names: Sequence[str], variant: str, key: str) -> dict[str, Any]:
    """Print a row a kind of board: two_stage beside the best simple method."""
    kinds: Any = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for name in names:
        for method in (*SIMPLE, "two_stage"):
            said = variant.replace(" ", "_") if method == "two_stage" and variant else "as-is"
            for file in sorted(folder.glob(f"{name}.{method}.{said}.*.{key}.json")):
                kinds[name.partition("@")[0]][name][method].append(json.loads(file.read_text()))
    columns = ["shop", "users, items, receipts", "judged", "seeds", SHOWN[0], "difference"]
    columns += [", ".join(part) for part in (SHOWN, OTHERS)]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    found = {}
    for kind, boards in kinds.items():
        if any("two_stage" not in b or len(b) == 1 for b in boards.values()):
            continue
        found[kind] = rows = compare_kind(list(boards.values()))
        sizes = [next(iter(b.values()))[0]["sizes"] for b in boards.values()]
        first = rows[SHOWN[0]]
        cells = [
            kind,
            ", ".join(f"{np.mean([size[part] for size in sizes]):,.0f}" for part in sizes[0]),
            f"{first['n']:,}",
            str(min(len(b["two_stage"]) for b in boards.values())),
            f"{first['two_stage']:.4f}, {first['method']} {first['simple']:.4f}",
            f"{first['difference']:+.4f} [{first['low']:+.4f}, {first['high']:+.4f}]",
            *(
                " / ".join(f"{rows[m]['difference'] / max(rows[m]['simple'], 1e-9):+.1%}" for m in part)
                for part in (SHOWN, OTHERS)
            ),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return found


SHOWN = ("precision@5", "recall@10", "ndcg@10")
OTHERS = ("precision@1", "precision@3", "recall@20")


def compare_kind(boards: Sequence[dict[str, list[dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """Metric -> two_stage beside the simple method that is best for the users of all boards."""
    found = {}
    for metric in boards[0]["two_stage"][0]["values"]:
        values = {
            method: np.concatenate(
                [np.mean([r["values"][metric] for r in b[method]], axis=0) for b in boards]
            )
            for method in (*SIMPLE, "two_stage")
            if all(method in b for b in boards)
        }
        best = max((m for m in values if m in SIMPLE), key=lambda m: values[m].mean())
        pair = {best: {metric: values[best]}, "two_stage": {metric: values["two_stage"]}}
        row = compare_models(pair).differences.row(0, named=True)
        found[metric] = {
            "two_stage": float(values["two_stage"].mean()),
            "simple": float(values[best].mean()),
            "method": best,
            "n": len(values[best]),
            **{name: row[name] for name in ("difference", "low", "high", "p")},
        }
    return found


def below(kind: str, mean: dict[str, dict[str, float]]) -> list[str]:
    """Each of our methods that is below the best simple one in a metric, as a line of a list."""
    simple = [m for m in mean if m in SIMPLE]
    lines = []
    for method in (m for m in mean if m not in SIMPLE):
        for metric, value in mean[method].items():
            best = max(simple, key=lambda m: mean[m][metric])
            if value < mean[best][metric]:
                lines.append(
                    f"- {kind}: {method} {metric} {value:.4f}, {best} {mean[best][metric]:.4f}"
                )
    return lines


def write(folder: Path, page: Path, key: str) -> dict[str, Any]:
    """Write the page, and keep what people wrote at its end; the means of each kind of board."""
    parts, found, behind = [], {}, []
    for kind, boards in read(folder, key).items():
        lines, found[kind] = table(boards)
        behind += below(kind, found[kind])
        parts += [f"## {kind}", "", f"In it so far: {', '.join(sorted(boards))}.", "", *lines, ""]
    first = ["## Below the best simple method", "", *(behind or ["Nothing."]), ""]
    parts = [HEAD, *first, *parts]
    _, kept, words = page.read_text(encoding="utf-8").partition(WORDS)
    page.write_text("\n".join(parts) + kept + words, encoding="utf-8")
    return found

"""Offers under stock and a budget: value beside the linear program's, own bound, seconds, memory.

make bench-offers-allocation [SHOPPERS="20000 400000"]

With up to 20,000 shoppers the relaxed problem is also solved by HiGHS, whose value no whole answer can
exceed; beyond that, the allocation's own bound stands in for it. The clock runs from reading the file
of pairs to the finished answer; the kernels are compiled before (they are cached on disk).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import numpy as np
import polars as pl
from machine import print_result

from retailrec.compute.memory import peak_memory_mb
from retailrec.offers.allocation import allocate

CANDIDATES, ITEMS, OFFERS = 20, 1000, 3
LP_SHOPPERS = 20_000
BARS = {"share_of_lp": 0.995, "gap": 0.01, "seconds_small": 3, "seconds": 90, "memory_mb": 3000}


def campaign_data(shoppers: int, seed: int = 0) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Pairs of popular items, stocks for three fifths of the offers, money for half of their cost."""
    rng = np.random.default_rng(seed)
    popularity = np.cumsum(np.arange(1, ITEMS + 1) ** -0.7)
    drawn = np.searchsorted(popularity / popularity[-1], rng.random((shoppers, 2 * CANDIDATES)))
    table = pl.DataFrame(
        {"user_id": np.repeat(np.arange(shoppers), 2 * CANDIDATES), "item_id": drawn.ravel()}
    )
    place = pl.int_range(pl.len()).over("user_id")
    table = table.unique(maintain_order=True).filter(place < CANDIDATES)
    probability = rng.beta(1.2, 8, table.height)
    margin, cost = np.exp(0.5 * rng.standard_normal(ITEMS) + 0.5), 0.3 + rng.random(ITEMS)
    item = table["item_id"].to_numpy()
    pairs = table.with_columns(probability=probability, margin=margin[item], cost=cost[item])
    weight = 0.2 + rng.random(ITEMS)
    stock = np.floor(0.6 * OFFERS * shoppers * weight / weight.sum()).astype(np.int64) + 1
    items = pl.DataFrame({"item_id": np.arange(ITEMS), "stock": stock})
    budget = 0.5 * float((probability * cost[item]).mean()) * int(stock.sum())
    settings = {
        "name": "bench",
        "value": "probability_margin",
        "offers": {"at_most": OFFERS},
        "limit": [{"by": "product", "at_most": "stock"}],
        "budget": [{"at_most": budget}],
    }
    return pairs, items, settings


def value_of_lp(
    pairs: pl.DataFrame, items: pl.DataFrame, settings: dict[str, Any]
) -> tuple[float, float]:
    """Value and seconds of HiGHS on the relaxed problem."""
    from scipy.optimize import linprog
    from scipy.sparse import csr_array, vstack

    n, place = pairs.height, np.arange(pairs.height)
    user, item = pairs["user_id"].to_numpy(), pairs["item_id"].to_numpy()
    spent = (pairs["probability"] * pairs["cost"]).to_numpy()
    of_users = csr_array((np.ones(n), (user, place)))
    of_items = csr_array((np.ones(n), (item, place)), shape=(ITEMS, n))
    rows = vstack([of_users, of_items, csr_array(spent[None, :])])
    most = np.concatenate(
        [np.full(rows.shape[0] - ITEMS - 1, OFFERS), items["stock"], [settings["budget"][0]["at_most"]]]
    )
    started = perf_counter()
    worth = (pairs["probability"] * pairs["margin"]).to_numpy()
    found = linprog(-worth, A_ub=rows, b_ub=most, bounds=(0, 1), method="highs")
    return -float(found.fun), perf_counter() - started


def greedy_value(pairs: pl.DataFrame, items: pl.DataFrame, settings: dict[str, Any]) -> float:
    """What the best pairs first, as long as they fit, are worth."""
    worth = (pairs["probability"] * pairs["margin"]).to_numpy()
    spent = (pairs["probability"] * pairs["cost"]).to_numpy()
    user, item = pairs["user_id"].to_list(), pairs["item_id"].to_list()
    stock, left = items["stock"].to_list(), settings["budget"][0]["at_most"]
    had, value = dict.fromkeys(user, 0), 0.0
    for p in np.argsort(-worth, kind="stable").tolist():
        if had[user[p]] < OFFERS and stock[item[p]] and spent[p] <= left:
            had[user[p]] += 1
            stock[item[p]] -= 1
            left -= spent[p]
            value += worth[p]
    return value


def write_data(shoppers: int, folder: Path) -> None:
    """The campaign as files, written by a process of its own so that its memory is not counted."""
    pairs, items, settings = campaign_data(shoppers)
    pairs.write_parquet(folder / "pairs.parquet")
    items.write_parquet(folder / "items.parquet")
    (folder / "campaign.json").write_text(json.dumps(settings))


def main(shoppers: int) -> int:
    warm = campaign_data(200)
    allocate(warm[0], warm[2], items=warm[1])  # compiles
    with TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run([sys.executable, __file__, "--write", str(shoppers), name], check=True)
        started, worked = perf_counter(), process_time()
        pairs = pl.read_parquet(folder / "pairs.parquet")
        items = pl.read_parquet(folder / "items.parquet")
        settings = json.loads((folder / "campaign.json").read_text())
    found = allocate(pairs, settings, items=items)
    seconds, cpu_seconds = perf_counter() - started, process_time() - worked
    memory = peak_memory_mb()
    report = found.report
    result: dict[str, Any] = {
        "shoppers": shoppers,
        "pairs": pairs.height,
        "offers": report.n_offers,
        "value": round(report.value, 2),
        "bound": round(report.bound, 2),
        "gap": round(report.gap, 6),
        "steps": report.steps,
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
        "peak_memory_mb": memory,
    }
    missed = report.gap > BARS["gap"] or memory > BARS["memory_mb"]
    missed |= seconds > (BARS["seconds_small"] if shoppers <= LP_SHOPPERS else BARS["seconds"])
    if shoppers <= LP_SHOPPERS:
        best, lp_seconds = value_of_lp(pairs, items, settings)
        greedy = greedy_value(pairs, items, settings)
        result |= {
            "lp_value": round(best, 2),
            "lp_seconds": round(lp_seconds, 1),
            "share_of_lp": round(report.value / best, 5),
            "greedy_share_of_lp": round(greedy / best, 4),
        }
        missed |= report.value / best < BARS["share_of_lp"]
    print_result("offers-allocation", result)
    return int(missed)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        sys.exit(write_data(int(sys.argv[2]), Path(sys.argv[3])))
    sizes = [int(size) for size in sys.argv[1:]] or [20_000, 400_000]
    if len(sizes) == 1:
        sys.exit(main(sizes[0]))
    codes = [subprocess.run([sys.executable, __file__, str(size)]).returncode for size in sizes]
    sys.exit(max(codes))

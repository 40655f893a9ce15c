"""What each source finds and adds, on windows that no figure is claimed on.

Online Retail II eight weeks before its end, Ta-Feng's validation shoppers (fold 0) and a
generated shop: recall@200 of each source, and in brackets what the union of all first 200 loses
without it.

    make bench-sources
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import polars as pl
from machine import data_folder, print_result
from next_basket import only, split_shoppers

from retailrec.data.splits import Fold, NextBasketSplits, Split, align_next_basket
from retailrec.datasets import load_dataset
from retailrec.evaluation.matching import matching_report
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import data_of, preset_shop


def cases() -> Iterator[tuple[str, TwoStageRecommender, Split]]:
    """Name, model and held-out window."""
    data = load_dataset("online-retail", data_folder("online_retail_ii"))
    cutoff = data.end - timedelta(days=56)
    fold = Fold(cutoff, cutoff + timedelta(days=28))
    yield "Online Retail II", TwoStageRecommender(), fold.split(data)
    data = load_dataset("ta-feng", data_folder("tafeng_nbr"))
    aligned, fold = align_next_basket(data)
    past, target = fold.split(aligned)
    train, valid, _ = split_shoppers(data.n_users, 0)
    known = only(past, np.concatenate([train, valid]))
    target = target.filter(pl.col("user").is_in(valid.tolist()))
    model = TwoStageRecommender(label_splits=NextBasketSplits(1))
    yield "Ta-Feng", model, Split(known, target)
    data = data_of(preset_shop("small"))
    cutoff = data.end - timedelta(days=56)
    yield "generated", TwoStageRecommender(), Fold(cutoff, cutoff + timedelta(days=28)).split(data)


def main() -> None:
    found = {name: matching_report(model, split, grid=(200,)) for name, model, split in cases()}
    rows = list(next(iter(found.values()))["recall@k"])
    print("| source | " + " | ".join(found) + " |")
    print("|---|" + "---|" * len(found))
    for source in rows:
        cells = []
        for report in found.values():
            gain = report["marginal"].get(source)
            text = f"{report['recall@k'][source]['200']:.3f}"
            cells.append(text if gain is None else f"{text} ({gain:.4f})")
        print(f"| {source} | " + " | ".join(cells) + " |")
    print_result("sources", {"users": {n: r["evaluation"]["n_users"] for n, r in found.items()}})


if __name__ == "__main__":
    main()

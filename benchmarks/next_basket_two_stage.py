"""The two-stage recommender on the next-basket board of benchmarks/next_basket.py.

Default settings but for the label: each training shopper's last basket. Nothing was chosen on the test
shoppers; `--valid` judges the validation shoppers instead, on whom settings may be compared.

    make bench-next-basket-two-stage
"""

from __future__ import annotations

import sys
from time import perf_counter

import numpy as np
import polars as pl
from machine import data_folder, print_result
from next_basket import FOLDS, METRICS, only, split_shoppers

from retailrec.data.splits import NextBasketSplits, align_next_basket
from retailrec.datasets import load_dataset
from retailrec.evaluation import Judge
from retailrec.recommender.two_stage import TwoStageRecommender

BARS = {"recall@10": 0.178, "ndcg_full@10": 0.155}


def main(part: int) -> int:
    data = load_dataset("ta-feng", data_folder("tafeng_nbr"))
    aligned, fold = align_next_basket(data)
    past, target = fold.split(aligned)
    rows, seconds = [], []
    for number in range(FOLDS):
        parts = split_shoppers(data.n_users, number)
        judge = Judge.of(past, target.filter(pl.col("user").is_in(parts[part].tolist())))
        started = perf_counter()
        model = TwoStageRecommender(label_splits=NextBasketSplits(1)).fit(only(aligned, parts[0]))
        seconds.append(perf_counter() - started)
        items = model.recommend_codes(past.history(codes=judge.users), 20).items
        values = judge.per_user(items, METRICS)
        rows.append([float(np.nanmean(v)) for v in values.values()])
        print(
            f"fold {number}: "
            + "  ".join(f"{m} {v:.4f}" for m, v in zip(METRICS, rows[-1], strict=True)),
            flush=True,
        )
    mean = dict(zip(METRICS, np.mean(rows, axis=0).round(4).tolist(), strict=True))
    print_result(
        "next-basket-two-stage",
        {
            "folds": FOLDS,
            "part": "validation" if part == 1 else "test",
            "mean": mean,
            "fit_seconds": round(float(np.mean(seconds)), 1),
        },
    )
    return int(any(mean[name] < bar for name, bar in BARS.items()))


if __name__ == "__main__":
    sys.exit(main(1 if "--valid" in sys.argv else 2))

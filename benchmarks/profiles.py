"""What each profile costs in quality and time: 28 days held out, receipts of two kinds.

Online Retail II: mean of the three windows before the last. Generated log of X5 kind: its last window.

make bench-profiles [SHOPPERS=20000]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from time import perf_counter

from machine import data_folder, print_result

from retailrec.config import PROFILES, Settings
from retailrec.datasets import load_dataset
from retailrec.datasets.simulate import data_of, preset
from retailrec.evaluation import Judge, means
from retailrec.splits import Split, rolling_folds

WEEKS = timedelta(days=28)
METRICS = ["precision@5", "recall@10"]


def cases(shoppers: int) -> Iterator[tuple[str, list[Split]]]:
    """Name and windows."""
    data = load_dataset("online-retail", data_folder("online_retail_ii"))
    folds = rolling_folds(data.end - WEEKS, horizon=WEEKS, n=3, stride=WEEKS)
    yield "Online Retail II", [fold.split(data) for fold in folds]
    data = data_of(preset("x5", users=shoppers))
    yield (
        f"generated x5, {shoppers:,} shoppers",
        [fold.split(data) for fold in rolling_folds(data.end, horizon=WEEKS, n=1, stride=WEEKS)],
    )


def measure(name: str, split: Split) -> dict[str, float]:
    """One profile on one window."""
    judge = Judge.of(*split)
    started = perf_counter()
    model = Settings(profile=name).for_size(split.past.n_users).model().fit(split.past)
    fitted = perf_counter()
    items = model.recommend_codes(split.past.history(judge.users), 10).items
    done = perf_counter()
    found = {k: float(v or 0) for k, v in means(judge.per_user(items, METRICS)).items()}
    return found | {"fit_s": fitted - started, "ms": 1000 * (done - fitted) / len(judge.users)}


def main(shoppers: int) -> None:
    print("| receipts | profile | precision@5 | recall@10 | fit, s | ms a shopper |")
    print("|---|---|---|---|---|---|")
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case, splits in cases(shoppers):
        found[case] = {}
        for name in PROFILES:
            rows = [measure(name, split) for split in splits]
            row = {k: round(sum(r[k] for r in rows) / len(rows), 4) for k in rows[0]}
            found[case][name] = row
            print(
                f"| {case} | `{name}` | {row['precision@5']:.4f} | {row['recall@10']:.4f} "
                f"| {row['fit_s']:.1f} | {row['ms']:.2f} |", flush=True,
            )  # fmt: skip
    print_result("profiles", {"profiles": found})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)

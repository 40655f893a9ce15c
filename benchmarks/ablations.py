"""What each feature family and each source's columns are worth to the ranker.

Two windows of Online Retail II before the last horizon: precision@5 without the columns of a family
or a source (its candidates stay), the difference to all columns, and what one seed's luck is worth.

    make bench-ablations
"""

from __future__ import annotations

import numpy as np
from machine import data_folder, print_result

from retailrec.datasets import load_dataset
from retailrec.jobs.settings import Settings
from retailrec.jobs.tune import fold_frames
from retailrec.rankers import LightGBMRanker

SEEDS = (0, 1, 2)


def main() -> None:
    data = load_dataset("online-retail", data_folder("online_retail_ii"))
    folds = fold_frames(Settings(), data, 2)
    names = folds[0].train.names

    def precision(drop: list[str], seeds: tuple[int, ...] = SEEDS) -> float:
        return float(
            np.mean(
                [f.score(LightGBMRanker(seed=s), "precision@5", drop) for s in seeds for f in folds]
            )
        )

    each = [precision([], (seed,)) for seed in SEEDS]
    whole = float(np.mean(each))
    print("| without | columns | precision@5 | difference |")
    print("|---|---|---|---|")
    print(f"| nothing | {len(names)} | {whole:.4f} | seeds differ by {np.ptp(each):.4f} |")
    families = folds[0].families
    groups = {f"family {f}": [n for n in names if families.get(n) == f] for f in set(families.values())}
    groups["all sources"] = [n for n in names if n.startswith("source_")]
    for name in names:
        if name.endswith("_score"):
            source = name.removesuffix("_score")
            groups[source.replace("source_", "source ")] = [name, f"{source}_rank"]
    found = {}
    for group, columns in sorted(groups.items()):
        found[group] = precision(columns)
        row = f"{found[group]:.4f} | {found[group] - whole:+.4f}"
        print(f"| {group} | {len(columns)} | {row} |", flush=True)
    print_result("ablations", {"all": round(whole, 4), "shoppers": [len(f.judge.users) for f in folds]})


if __name__ == "__main__":
    main()

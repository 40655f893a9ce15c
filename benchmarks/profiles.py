"""What each profile costs in quality and time: 28 days held out, receipts of two kinds.

Online Retail II: mean of the three windows before the last. Generated log of X5 kind: its last window.

Anything after the number of shoppers measures variants instead: a profile, settings over it, and
`shop_seed` for another generated shop, which is what settings are chosen on.

    make bench-profiles [SHOPPERS=20000]
    make bench-profiles VARIANT="large label_windows=2 shop_seed=7"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from time import perf_counter

from machine import data_folder, print_result

from retailrec.data.splits import Split, rolling_folds
from retailrec.datasets import load_dataset
from retailrec.evaluation import Judge, means
from retailrec.jobs.settings import PROFILES, Settings
from retailrec.simulator.shop import data_of, preset_shop

WEEKS = timedelta(days=28)
METRICS = ["precision@5", "recall@10"]


def cases(shoppers: int, shop_seed: int) -> Iterator[tuple[str, list[Split]]]:
    """Name and windows."""
    data = load_dataset("online-retail", data_folder("online_retail_ii"))
    folds = rolling_folds(data.end - WEEKS, horizon=WEEKS, n=3, stride=WEEKS)
    yield "Online Retail II", [fold.split(data) for fold in folds]
    data = data_of(preset_shop("x5", users=shoppers, seed=shop_seed))
    yield (
        f"generated x5, {shoppers:,} shoppers, seed {shop_seed}",
        [fold.split(data) for fold in rolling_folds(data.end, horizon=WEEKS, n=1, stride=WEEKS)],
    )


def measure(settings: Settings, split: Split) -> dict[str, float]:
    """Settings of a profile on one window."""
    judge = Judge.of(*split)
    started = perf_counter()
    model = settings.for_size(split.past.n_users).model().fit(split.past)
    fitted = perf_counter()
    items = model.recommend_codes(split.past.history(codes=judge.users), 10).items
    done = perf_counter()
    found = {k: float(v or 0) for k, v in means(judge.per_user(items, METRICS)).items()}
    return found | {"fit_s": fitted - started, "ms": 1000 * (done - fitted) / len(judge.users)}


def main(shoppers: int, variant: Sequence[str]) -> None:
    print("| receipts | profile | precision@5 | recall@10 | fit, s | ms a shopper |")
    print("|---|---|---|---|---|---|")
    over = {name: json.loads(value) for name, _, value in (v.partition("=") for v in variant[1:])}
    shop_seed = over.pop("shop_seed", 0)
    wanted = (
        {" ".join(variant): Settings(profile=variant[0], **over)}
        if variant
        else {name: Settings(profile=name) for name in PROFILES}
    )
    found: dict[str, dict[str, dict[str, float]]] = {}
    for case, splits in cases(shoppers, shop_seed):
        found[case] = {}
        for name, settings in wanted.items():
            rows = [measure(settings, split) for split in splits]
            row = {k: round(sum(r[k] for r in rows) / len(rows), 4) for k in rows[0]}
            found[case][name] = row
            print(
                f"| {case} | `{name}` | {row['precision@5']:.4f} | {row['recall@10']:.4f} "
                f"| {row['fit_s']:.1f} | {row['ms']:.2f} |",
                flush=True,
            )
    print_result("profiles", {"profiles": found})


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])

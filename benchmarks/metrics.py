"""Seconds to judge a million lists of ten, and to bootstrap 100,000 shoppers 10,000 times.

make bench-metrics
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from machine import print_result

from retailrec.evaluation import DEFAULT_METRICS, Judge
from retailrec.evaluation.bootstrap import compare_models

BAR_JUDGE = 3.0
MORE = (
    *DEFAULT_METRICS,
    "average_precision@10",
    "mrr@10",
    "repeat_precision@5",
    "explore_precision@5",
    "novelty@10",
    "serendipity@10",
)


def judge_of(n_users: int, n_items: int = 43_000, bought: int = 10) -> tuple[Judge, np.ndarray]:
    """A judge of random purchases, and random lists."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, n_users, n_users * bought) * n_items
    keys = np.unique(pairs + rng.integers(0, n_items, n_users * bought))
    lists = np.argsort(rng.random((1000, n_items)), axis=1)[:, :10].astype(np.int32)
    judge = Judge(
        np.arange(n_users),
        0,
        n_items,
        keys,
        rng.random(len(keys)),
        rng.random(n_items),
        repeat=rng.random(len(keys)) < 0.5,
        buyers=rng.integers(0, 999, n_items),
        n_known=n_users,
    )
    return judge, lists[rng.integers(0, 1000, n_users)]


def main() -> int:
    small = judge_of(100)
    small[0].per_user(small[1], MORE)  # compile
    judge, lists = judge_of(1_000_000)
    took = {}
    for name, metrics in (("5 metrics", DEFAULT_METRICS), ("11 metrics", MORE)):
        started = perf_counter()
        judge.per_user(lists, metrics)
        took[f"judge 1,000,000 x 10, {name}"] = perf_counter() - started
    rng = np.random.default_rng(0)
    values = {m: {f"metric {i}": rng.random(100_000) for i in range(5)} for m in "abc"}
    started = perf_counter()
    compare_models(values, resamples=10_000)
    took["bootstrap 100,000 x 10,000, 3 models x 5 metrics"] = perf_counter() - started
    for name, seconds in took.items():
        print(f"{seconds:6.2f} s  {name}")
    print_result("metrics", {"seconds": {k: round(v, 2) for k, v in took.items()}})
    return int(took["judge 1,000,000 x 10, 5 metrics"] > BAR_JUDGE)


if __name__ == "__main__":
    raise SystemExit(main())

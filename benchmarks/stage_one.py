"""Processor seconds of stage one on the Complete Journey, part by part, one thread.

What sources and features learn from all but the last four weeks, and one pool for each household. The
first round compiles kernels and is not counted. With BESIDE, the `src` folder of another version, both
take turns in processes of their own, and ratios of the pairs are printed, which mean something even
where other jobs want the cores.

    make bench-stage-one [BESIDE=../other/src]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from time import process_time
from typing import Any

PAIRS, ROUNDS, SHARD = 2, 2, 512
TAKEN = [150, 40, 40, 60, 40, 40]  # candidates of each source


def seconds() -> dict[str, float]:
    """Of each part, by the version that Python finds; the fastest round."""
    from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity, TifuKNN
    from retailrec.candidates.pool import merge_pool
    from retailrec.data.prefilters import apply_prefilters, preset
    from retailrec.datasets import load_dataset
    from retailrec.features.assemble import FeatureSet

    data = load_dataset("complete-journey")
    past, _ = apply_prefilters(preset("default"), data.asof(data.end - timedelta(days=28)))
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS + 1):
        took: dict[str, float] = defaultdict(float)

        def part(name: str, work: Callable[..., Any], *given: Any) -> Any:
            started = process_time()
            found = work(*given)
            took[name] += process_time() - started  # noqa: B023
            return found

        part("histories", getattr, past, "full_history")
        sources = {
            "own purchases": OwnPurchases("decay", half_life=120.0),
            "TIFU-KNN": TifuKNN(neighbours=100, alpha=0.5),
            "bestsellers": Popularity(),
            "item-item": ItemItem("tfidf", half_life=180, neighbours=30, threads=1),
            "ALS": ALS(factors=32, iterations=5, threads=1),
            "next receipt": ItemItem(
                within="next_receipt", profile="last_receipt", neighbours=100, threads=1
            ),
        }
        for name, source in sources.items():
            part(f"learn {name}", source.fit, past)
        past.forget_history()
        features = part("learn features", FeatureSet().fit, past)
        users = past.active_users()
        for at in range(0, len(users), SHARD):
            history = past.history(codes=users[at : at + SHARD])
            pool = part("pools", merge_pool, list(sources.values()), history, TAKEN)
            part("columns", features.rows, history, pool.pairs)
        rounds.append(took | {"all": sum(took.values())})
    return {name: round(min(r[name] for r in rounds[1:]), 3) for name in rounds[0]}


def of_version(folder: str | None) -> dict[str, float]:
    """`seconds` in a process of its own."""
    one_each = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
    environment = os.environ | dict.fromkeys(one_each, "1") | ({"PYTHONPATH": folder} if folder else {})
    run = subprocess.run(
        [sys.executable, __file__, "--one"],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    found: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return found


def main(beside: str | None) -> None:
    pairs = [(of_version(None), of_version(beside) if beside else None) for _ in range(PAIRS)]
    print("| part | processor seconds |" + (" of the other | ratios |" if beside else ""))
    print("|---|---|" + ("---|---|" if beside else ""))
    for name in pairs[0][0]:
        row = [" and ".join(f"{ours[name]:.2f}" for ours, _ in pairs)]
        if beside:
            both = [(ours[name], theirs[name]) for ours, theirs in pairs if theirs]
            row.append(" and ".join(f"{b:.2f}" for _, b in both))
            row.append(" and ".join(f"{a / b:.2f}" if b >= 0.05 else "" for a, b in both).strip(" and"))
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--one"]:
        print(json.dumps(seconds()))
    else:
        main(sys.argv[1] if len(sys.argv) > 1 and sys.argv[1] else None)

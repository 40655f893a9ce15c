"""What a share of a simple order does to the lists of one model, by order and weight.

A model is fitted once, without a prior; each order and weight then orders the same candidates. On the
boards of `TUNING`, whose windows end before a claimed one begins.

    make bench-priors [BOARDS="coop-4 journey5-28-1009"]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np
from board_data import TUNING, Board
from boards import ours
from machine import print_result

from retailrec.compute.shards import SHARD
from retailrec.evaluation import Judge
from retailrec.rankers.prior import SourcePrior
from retailrec.recommender.choices import simple_orders
from retailrec.recommender.rows import candidate_frame

WEIGHTS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)
MOST_USERS = 3_000  # judged, drawn where there are more


def measure(board: Board, seed: int, threads: int) -> dict[str, dict[float, dict[str, float]]]:
    """Order -> weight -> metric -> mean."""
    judge = Judge.of(board.past, board.target)
    if len(judge.users) > MOST_USERS:
        drawn = np.random.default_rng(0).choice(len(judge.users), MOST_USERS, replace=False)
        judge = judge.select(np.isin(np.arange(len(judge.users)), drawn))
    model = ours(board, "small", seed, {"threads": threads, "prior": "none"})
    model.fit(board.train, keep_rows=True)
    rows, ranker = model.training_rows, model.ranker_
    some = rows.rows(np.arange(0, len(rows.y), len(rows.y) // 50_000 + 1))
    raw = ranker.predict(some.x)
    orders = {
        name: SourcePrior.learnt(some, columns, 1.0, raw)
        for name, columns in simple_orders(model.sources).items()
    }
    history, found = board.past.history(codes=judge.users), {}
    for at in range(0, len(judge.users), SHARD):
        frame = candidate_frame(history.take(slice(at, at + SHARD)), model.stage_one)
        score = ranker.predict(frame.x)
        for name, prior in orders.items():
            for weight in WEIGHTS:
                scaled = replace(prior, weight=prior.weight * weight)
                both = (score + scaled.of(frame.x)).astype(np.float32)
                found.setdefault((name, weight), []).append(frame.pool.best(both, 10).items)
    told: dict[str, Any] = {name: {} for name in orders}
    for (name, weight), parts in found.items():
        values = judge.per_user(np.vstack(parts), board.metrics)
        told[name][weight] = {metric: float(np.nanmean(v)) for metric, v in values.items()}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="*", default=[], help="beginnings of names; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="answers do not depend on them")
    given, found = parser.parse_args(), {}
    for name, make in TUNING.items():
        if given.boards and not any(name.startswith(start) for start in given.boards):
            continue
        found[name] = measure(make(), given.seed, given.threads)
        for order, by_weight in found[name].items():
            cells = [" / ".join(f"{v:.4f}" for v in of.values()) for of in by_weight.values()]
            print(f"| {name} | {order} | {' | '.join(cells)} |", flush=True)
    print_result("priors", found)


if __name__ == "__main__":
    main()

"""What a share of a simple order does to the lists of one model, by order and weight.

A model is fitted once, without a prior; each order and weight then orders the same candidates. With
--objectives instead: lambdarank, log loss and the mean of both, for lists of what a user bought before.
On the boards of `TUNING` and `SAMPLES`, whose windows end before a claimed one begins.

    make bench-priors [BOARDS="coop-4 journey5-28-1009"]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from board_data import SAMPLES, TUNING, Board
from boards import ours
from machine import print_result

from retailrec.compute.shards import SHARD
from retailrec.evaluation import Judge
from retailrec.rankers import BlendRanker, LightGBMRanker
from retailrec.rankers.lightgbm import SourcePrior
from retailrec.recommender.choices import simple_orders
from retailrec.recommender.purposes import Purpose
from retailrec.recommender.stage_one import candidate_frame

WEIGHTS = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.8)
MOST_USERS = 3_000  # judged, drawn where there are more


def fitted(board: Board, seed: int, threads: int, trees: int | None = None) -> tuple[Any, Judge]:
    """A model without a prior, with its training rows; and who is judged."""
    judge = Judge.of(board.past, board.target)
    if len(judge.users) > MOST_USERS:
        drawn = np.random.default_rng(0).choice(len(judge.users), MOST_USERS, replace=False)
        judge = judge.select(np.isin(np.arange(len(judge.users)), drawn))
    ranker = {"type": "lightgbm", "iterations": trees}
    model = ours(board, "small", seed, {"threads": threads, "prior": "none", "ranker": ranker})
    return model.fit(board.train, keep_rows=True), judge


def of_orders(
    board: Board, seed: int, threads: int, trees: int | None = None
) -> dict[str, dict[str, float]]:
    """Order and weight -> metric -> mean."""
    model, judge = fitted(board, seed, threads, trees)
    rows, ranker = model.training_rows, model.ranker_
    some = rows.rows(np.arange(0, len(rows.y), len(rows.y) // 50_000 + 1))
    raw = ranker.predict(some.x)
    priors = {
        f"{name} {weight}": SourcePrior.learnt(some, columns, weight, raw)
        for name, columns in simple_orders(model.sources).items()
        for weight in WEIGHTS
    }

    def scores(x: Any) -> dict[str, Any]:
        score = ranker.predict(x)
        return {name: score + prior.of(x) for name, prior in priors.items()}

    return judged(board, model, judge, scores, "mixed")


def of_objectives(board: Board, seed: int, threads: int) -> dict[str, dict[str, float]]:
    """Objective -> metric -> mean, of items that the user bought before."""
    model, judge = fitted(board, seed, threads)
    rows = model.training_rows
    trees = [LightGBMRanker(kind, seed=seed, threads=threads) for kind in ("lambdarank", "binary")]
    blend = BlendRanker(trees).fit(rows)

    def scores(x: Any) -> dict[str, Any]:
        alone = {part.objective: part.predict(x) for part in blend.parts_}
        return {**alone, "both": blend.predict(x)}

    return judged(board, model, judge, scores, "replenish")


def judged(
    board: Board, model: Any, judge: Judge, scores: Callable[[Any], Mapping[str, Any]], purpose: Purpose
) -> dict[str, dict[str, float]]:
    """Means of the metrics of each of the scores."""
    history, found = board.past.history(codes=judge.users), defaultdict(list)
    for at in range(0, len(judge.users), SHARD):
        frame = candidate_frame(history.take(slice(at, at + SHARD)), model.stage_for(purpose))
        for name, score in scores(frame.x).items():
            found[name].append(frame.pool.best(score.astype(np.float32), 10).items)
    told = {}
    for name, parts in found.items():
        values = judge.per_user(np.vstack(parts), board.metrics)
        told[name] = {metric: float(np.nanmean(v)) for metric, v in values.items()}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="*", default=[], help="beginnings of names; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="answers do not depend on them")
    parser.add_argument("--objectives", action="store_true", help="lambdarank, log loss, and both")
    parser.add_argument("--trees", type=int, help="of lambdarank; by default as many as it takes")
    given, found = parser.parse_args(), {}
    measure = of_objectives if given.objectives else partial(of_orders, trees=given.trees)
    for name, make in (TUNING | SAMPLES).items():
        if given.boards and not any(name.startswith(start) for start in given.boards):
            continue
        found[name] = measure(make(), given.seed, given.threads)
        for variant, metrics in found[name].items():
            cells = " / ".join(f"{value:.4f}" for value in metrics.values())
            print(f"| {name} | {variant} | {cells} |", flush=True)
    print_result("priors", found)


if __name__ == "__main__":
    main()

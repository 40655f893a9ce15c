"""What a share of a simple order does to the lists of one model, by order and weight.

A model is fitted once, without a prior; each order and weight then orders the same candidates, and so
does each order alone. Beside them stand what the label windows would choose, the simple methods, and of
several boards the means over their users. With --objectives instead: lambdarank, log loss and the mean
of both, for lists of what a user bought before. With --borrow instead: the ranker that another board's
shop learnt, columns matched by name, alone and in shares with the board's own, each with the usual
share of the mean simple order. With --discover instead: the ranker of new items with each source's
order, and the mean of all, behind it. On the boards of `TUNING`, `SAMPLES` and
`SHAPES`, whose windows end before
a claimed one begins.

    make bench-priors [BOARDS="coop-4 journey5-28-1009"]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from board_data import SAMPLES, TUNING, Board
from boards import SIMPLE, ours
from machine import print_result
from shapes import SHAPES

from retailrec.compute.shards import SHARD
from retailrec.evaluation import Judge
from retailrec.metrics.base import longest
from retailrec.rankers import BlendRanker, LightGBMRanker
from retailrec.rankers.lightgbm import SourcePrior
from retailrec.recommender.choices import MEAN, choose_prior, simple_orders, usual_weight
from retailrec.recommender.purposes import Purpose, purchases_for
from retailrec.recommender.stage_one import candidate_frame

WEIGHTS = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.8, 1.6)
SHARES = (0, 0.25, 0.5, 0.75, 1)  # of a borrowed ranker
MOST_USERS = 3_000  # judged, drawn where there are more


def fitted(
    board: Board, seed: int, threads: int, trees: int | None = None, discover: bool = False
) -> tuple[Any, Judge]:
    """A model without a prior, with its training rows; and who is judged."""
    judge = Judge.of(
        board.past,
        purchases_for("discover" if discover else "mixed", board.past, board.target, None),
    )
    if len(judge.users) > MOST_USERS:
        drawn = np.random.default_rng(0).choice(len(judge.users), MOST_USERS, replace=False)
        judge = judge.select(np.isin(np.arange(len(judge.users)), drawn))
    ranker = {"type": "lightgbm", "iterations": trees}
    given = {"threads": threads, "prior": "none", "ranker": ranker}
    model = ours(board, "small", seed, given | ({"discover": {}} if discover else {}))
    return model.fit(board.train, keep_rows=True), judge


def of_orders(board: Board, model: Any, judge: Judge) -> dict[str, dict[str, float]]:
    """Order and weight, order alone, simple method -> metric -> mean."""
    rows, ranker = model.training_rows, model.ranker_
    some = rows.rows(np.arange(0, len(rows.y), len(rows.y) // 50_000 + 1))
    raw = ranker.predict(some.x)
    priors = {
        f"{name} {weight}": SourcePrior.learnt(some, columns, weight, raw)
        for name, columns in simple_orders(model.sources).items()
        for weight in WEIGHTS
    }

    alone = {
        f"{name} alone": SourcePrior.learnt(some, columns, 1, raw)
        for name, columns in simple_orders(model.sources).items()
    }

    def scores(x: Any) -> dict[str, Any]:
        score = ranker.predict(x)
        mixed = {name: score + prior.of(x) for name, prior in priors.items()}
        return mixed | {name: prior.of(x) for name, prior in alone.items()}

    windows, orders = model.report_["windows"], simple_orders(model.sources)
    print("  chosen:", choose_prior(rows, windows, model.fresh_ranker, orders), flush=True)
    return judged(board, model, judge, scores, "mixed") | simple(board, judge)


def of_new_items(board: Board, model: Any, judge: Judge) -> dict[str, dict[str, float]]:
    """Order and weight, source alone -> metric -> mean, of items that the user never bought."""
    rows, ranker = model._windows["discover"].rows, model.discover_ranker_
    some = rows.rows(np.arange(0, len(rows.y), len(rows.y) // 50_000 + 1))
    chance = ranker.predict(some.x).astype(np.float64)
    raw = np.log(chance / (1 - chance))
    ranks = [f"source_{source.name}_rank" for source in model.sources]
    orders = {name: [name] for name in ranks if name in rows.names}
    orders["mean"] = [name for of in orders.values() for name in of]
    priors = {
        f"{name} {weight}": SourcePrior.learnt(some, columns, weight, raw)
        for name, columns in orders.items()
        for weight in WEIGHTS
    }
    alone = {name: SourcePrior.learnt(some, columns, 1, raw) for name, columns in orders.items()}

    def scores(x: Any) -> dict[str, Any]:
        chance = ranker.predict(x).astype(np.float64)
        score = np.log(chance / (1 - chance))
        mixed = {name: score + prior.of(x) for name, prior in priors.items()}
        return mixed | {f"{name} alone": prior.of(x) for name, prior in alone.items()}

    return judged(board, model, judge, scores, "discover")


def simple(board: Board, judge: Judge) -> dict[str, dict[str, float]]:
    """Simple method -> metric -> mean."""
    history, found = board.past.history(codes=judge.users), {}
    for name, make in SIMPLE.items():
        items = make().fit(board.train).candidates(history, longest(board.metrics)).items
        found[name] = means(judge, items, board.metrics)
    return found


def of_objectives(board: Board, model: Any, judge: Judge) -> dict[str, dict[str, float]]:
    """Objective -> metric -> mean, of items that the user bought before."""
    rows = model.training_rows
    given = {"seed": model.seed, "threads": model.threads}
    trees = [LightGBMRanker(kind, **given) for kind in ("lambdarank", "binary")]
    blend = BlendRanker(trees).fit(rows)

    def scores(x: Any) -> dict[str, Any]:
        alone = {part.objective: part.predict(x) for part in blend.parts_}
        return {**alone, "both": blend.predict(x)}

    return judged(board, model, judge, scores, "replenish")


def of_borrowed(board: Board, model: Any, judge: Judge, lender: Any) -> dict[str, dict[str, float]]:
    """Share of the lender's ranker, simple method -> metric -> mean."""
    rows = model.training_rows
    some = rows.rows(np.isin(rows.groups, rows.groups[rows.y > 0]))
    columns, weight = simple_orders(model.sources)[MEAN], usual_weight(n_lists(rows))
    place = [rows.names.index(n) if n in rows.names else -1 for n in lender.column_names]

    def both(x: Any) -> tuple[Any, Any]:
        unknown = np.full((len(x), 1), np.nan, np.float32)  # column -1
        return model.ranker_.predict(x), lender.ranker_.predict(np.hstack([x, unknown])[:, place])

    units = [float(np.std(score)) for score in both(some.x)]

    def mixed(x: Any, share: float) -> Any:
        own, lent = (score / unit for score, unit in zip(both(x), units, strict=True))
        return (1 - share) * own + share * lent

    priors = {s: SourcePrior.learnt(some, columns, weight, mixed(some.x, s)) for s in SHARES}

    def scores(x: Any) -> dict[str, Any]:
        return {f"borrowed {s:g}": mixed(x, s) + prior.of(x) for s, prior in priors.items()}

    return judged(board, model, judge, scores, "mixed") | simple(board, judge)


def n_lists(rows: Any) -> int:
    """Lists with a purchase, which teach."""
    return len(np.unique(rows.groups[rows.y > 0]))


def judged(
    board: Board, model: Any, judge: Judge, scores: Callable[[Any], Mapping[str, Any]], purpose: Purpose
) -> dict[str, dict[str, float]]:
    """Means of the metrics of each of the scores."""
    history, found = board.past.history(codes=judge.users), defaultdict(list)
    k = longest(board.metrics)
    for at in range(0, len(judge.users), SHARD):
        frame = candidate_frame(history.take(slice(at, at + SHARD)), model.stage_for(purpose))
        for name, score in scores(frame.x).items():
            found[name].append(frame.pool.best(score.astype(np.float32), k).items)
    return {name: means(judge, np.vstack(parts), board.metrics) for name, parts in found.items()}


def means(judge: Judge, items: Any, metrics: Sequence[str]) -> dict[str, float]:
    """Metric -> mean over the judged users."""
    return {name: float(np.nanmean(v)) for name, v in judge.per_user(items, metrics).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="*", default=[], help="beginnings of names; all by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="answers do not depend on them")
    parser.add_argument("--objectives", action="store_true", help="lambdarank, log loss, and both")
    parser.add_argument("--discover", action="store_true", help="new items")
    parser.add_argument("--borrow", help="board of the shop whose ranker is borrowed")
    parser.add_argument("--trees", type=int, help="of lambdarank; by default as many as it takes")
    given, found, users = parser.parse_args(), {}, []
    boards = TUNING | SAMPLES | SHAPES
    measure: Callable[[Board, Any, Judge], dict[str, dict[str, float]]]
    measure = of_objectives if given.objectives else of_orders
    if given.discover:
        measure = of_new_items
    if given.borrow:
        lender, _ = fitted(boards[given.borrow](), given.seed, given.threads)
        measure = partial(of_borrowed, lender=lender)
    for name, make in boards.items():
        if given.boards and not any(name.startswith(start) for start in given.boards):
            continue
        board = make()
        model, judge = fitted(board, given.seed, given.threads, given.trees, given.discover)
        teach = n_lists(model.training_rows)
        print(f"{name}: {teach} lists teach, {len(judge.users)} users are judged", flush=True)
        users.append(len(judge.users))
        found[name] = measure(board, model, judge)
        show(name, found[name])
    if len(found) > 1:
        show(f"{len(found)} boards, {sum(users)} users", pooled([*found.values()], users))
    print_result("priors", found)


def show(name: str, found: Mapping[str, Mapping[str, float]]) -> None:
    for variant, metrics in found.items():
        cells = " / ".join(f"{value:.4f}" for value in metrics.values())
        print(f"| {name} | {variant} | {cells} |", flush=True)


def pooled(
    boards: Sequence[Mapping[str, Mapping[str, float]]], users: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Means over the users of all boards, of what all of them have."""
    return {
        variant: {
            metric: float(np.average([board[variant][metric] for board in boards], weights=users))
            for metric in metrics
            if all(metric in board[variant] for board in boards)
        }
        for variant, metrics in boards[0].items()
    }


if __name__ == "__main__":
    main()

"""The course notebook that this package grew from, done again literally, beside what we do.

    make bench-walkthrough (FOLDER=... for the Complete Journey's files elsewhere)

Its method, leaks included: candidates are 200 "own purchases" by a one-neighbour item-item model,
fitted before the label weeks; features are totals over everything before the test weeks, label weeks
included; shopper and item ids are features; early stopping holds out random rows; shoppers without
candidates leave the mean. `compare_with_walkthrough` runs it on Complete Journey's files, or generated
ones, under its own split: the last three weeks are the test, the six before give the labels.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse

from retailrec.candidates import OwnPurchases
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.prefilters import preset
from retailrec.data.retail_data import text_codes
from retailrec.data.splits import Fold, Split
from retailrec.datasets import load_dataset
from retailrec.errors import DataError
from retailrec.evaluation import Judge
from retailrec.evaluation.bootstrap import compare_models
from retailrec.jobs.settings import Settings, read_settings
from retailrec.schema import CATEGORIES

TEST, LABELS = timedelta(weeks=3), timedelta(weeks=6)
PUBLISHED = {  # precision@5 on the Complete Journey, as the notebook and others report it
    "own purchases": 0.1259,
    "LightGBM": 0.1260,
    "CatBoost": 0.1298,
    "CatBoost, engineered features": 0.2580,
    "best elsewhere": 0.2642,
}
_CANDIDATES = 200
_ROUNDS, _PATIENCE = 400, 30
Lists = NDArray[np.int32]


def compare_with_walkthrough(
    data: RetailData, settings: Settings | None = None, progress: Progress = silent
) -> list[dict[str, Any]]:
    """Precision@5 of each of the notebook's steps, published and done again, and of ours.

    Returns
    -------
    rows with `step`, `published` (None for ours), `their_mean` (over shoppers with candidates, as the
    notebook takes it), `precision@5` (over all shoppers with history who bought; without a list: 0),
    `low` and `high` of its 95% interval, and `n_users` of each mean

    Raises
    ------
    DataError
        If the receipts do not reach back twelve weeks before the test weeks.
    """
    cutoff = data.end - TEST
    if cutoff - LABELS - TEST <= data.start:
        raise DataError(
            f"the walk-through needs 12 weeks of receipts before its test weeks; these begin "
            f"{data.start:%Y-%m-%d} and end {data.end:%Y-%m-%d}. Bring more."
        )
    split = Fold(cutoff, data.end).split(data)
    judge = Judge.of(*split)
    rows, values = [], {}
    for step, lists, listed in _their_steps(split, judge, progress):
        precision = judge.per_user(lists, ["precision@5"])["precision@5"]
        values[step] = {"precision@5": precision}
        rows.append(
            {
                "step": step,
                "published": PUBLISHED.get(step),
                "their_mean": float(precision[listed].mean()),
                "their_n_users": int(listed.sum()),
                "precision@5": float(precision.mean()),
                "n_users": len(precision),
            }
        )
    for step, lists in _our_steps(split, judge, settings or read_settings(None), progress):
        precision = judge.per_user(lists, ["precision@5"])["precision@5"]
        values[step] = {"precision@5": precision}
        rows.append(
            {
                "step": step,
                "published": None,
                "their_mean": None,
                "their_n_users": None,
                "precision@5": float(precision.mean()),
                "n_users": len(precision),
            }
        )
    sure = {row["model"]: row for row in compare_models(values).means.to_dicts()}
    return [row | {bound: sure[row["step"]][bound] for bound in ("low", "high")} for row in rows]


def _their_steps(
    split: Split, judge: Judge, progress: Progress
) -> list[tuple[str, Lists, NDArray[np.bool_]]]:
    """The notebook's lists of five for the judged shoppers, and who has one."""
    past = split.filtered(preset("walk-through")).past
    # the notebook deletes the lines of items that its prefilter drops, histories included
    log = past.log.filter(pl.Series(past.discoverable)[past.log["item"]])
    past = replace(past, log=log)
    start = past.end - LABELS
    progress("the notebook's candidates")
    own = one_neighbour(past.asof(start))
    bought = past.between(start, past.end).select("user", "item").unique()
    frames = [("own purchases", own)]
    table = _candidate_table(own, bought)
    plain = _attributes(past, table)
    progress("the notebook's LightGBM")
    frames.append(("LightGBM", _ranked(table, _lightgbm(table, plain))))
    progress("the notebook's CatBoost")
    frames.append(("CatBoost", _ranked(table, _catboost(table, plain, early_stopping=False))))
    progress("the notebook's engineered features")
    engineered = np.hstack([plain, _engineered(past, table, start)])
    scores = _catboost(table, engineered, early_stopping=True)
    frames.append(("CatBoost, engineered features", _ranked(table, scores)))
    progress("what the notebook's doubling is made of")
    frames += _made_of(past, table, start)
    steps = []
    for step, frame in frames:
        top = frame.filter(pl.col("rank") <= 5)
        top = top.join(
            pl.DataFrame({"user": judge.users.astype(np.int32)}).with_row_index("row"), on="user"
        )
        lists = np.full((len(judge.users), 5), -1, np.int32)
        lists[top["row"].to_numpy(), top["rank"].to_numpy() - 1] = top["item"].to_numpy()
        steps.append((step, lists, lists[:, 0] >= 0))
    return steps


def _made_of(past: RetailData, table: pl.DataFrame, start: datetime) -> list[tuple[str, pl.DataFrame]]:
    """The same candidates in orders that take the engineered model apart.

    First without any model: by receipts of the pair, over everything and over the label weeks alone.
    Then the model again without its leak: features and candidates end where its labels begin, and for
    the test weeks both are computed anew on everything before them.
    """
    known = table.select("user", "item")

    def receipts(log: pl.DataFrame) -> NDArray[np.float64]:
        counted = log.group_by("user", "item").agg(pl.col("basket").n_unique())
        joined = known.join(counted, on=["user", "item"], how="left", maintain_order="left")
        return joined["basket"].fill_null(0).to_numpy().astype(np.float64)

    recent = past.between(start, past.end)
    before = past.asof(start)
    fresh = _candidate_table(one_neighbour(past), recent.select("user", "item").unique())
    y = table["target"].to_numpy()
    model = _fitted(np.hstack([_attributes(before, table), _engineered(before, table, start)]), y)
    x = np.hstack([_attributes(past, fresh), _engineered(past, fresh, start)])
    return [
        ("no model: count of receipts", _ranked(table, receipts(past.log))),
        (
            "no model: count in the label weeks",
            _ranked(table, receipts(recent) + receipts(past.log) / 1e6),
        ),
        ("CatBoost, engineered, no leak", _ranked(fresh, model.predict_proba(x)[:, 1])),
    ]


def one_neighbour(data: RetailData) -> pl.DataFrame:
    """`user`, `item`, `rank` of 200 candidates by `implicit`'s ItemItemRecommender with K=1.

    Raw counts; the nearest neighbour of an item by co-purchases is often another item.
    """
    from implicit.nearest_neighbours import ItemItemRecommender

    history = data.history()
    counts = history.matrix(history.counts()).astype(np.float64)
    model = ItemItemRecommender(K=1, num_threads=0)
    model.fit(sparse.csr_matrix(counts), show_progress=False)
    users = data.active_users()
    items, scores = model.recommend(
        users, counts[users], N=_CANDIDATES, filter_already_liked_items=False
    )
    row, place = np.nonzero((items >= 0) & (scores > 0))
    return pl.DataFrame(
        {
            "user": users[row],
            "item": items[row, place].astype(np.int32),
            "rank": (place + 1).astype(np.int32),
        }
    )


def _candidate_table(candidates: pl.DataFrame, bought: pl.DataFrame) -> pl.DataFrame:
    """Candidates with their label: bought within the label weeks?"""
    label = bought.with_columns(target=pl.lit(1.0))
    return candidates.join(label, on=["user", "item"], how="left", maintain_order="left").with_columns(
        pl.col("target").fill_null(0.0)
    )


def _attributes(past: RetailData, table: pl.DataFrame) -> NDArray[np.float64]:
    """Shopper and item ids, and their attributes as category codes."""
    columns = [table["user"], table["item"]]
    for frame, key in ((past.items, "item"), (past.users, "user")):
        for name in frame.columns:
            if name in ("item_id", "user_id", "name", "recommendable", "discoverable"):
                continue
            codes, _ = text_codes(frame[name].cast(pl.String).fill_null(""))
            columns.append(pl.Series(codes + 1).gather(table[key]))
    return np.column_stack([c.to_numpy().astype(np.float64) for c in columns])


def _engineered(past: RetailData, table: pl.DataFrame, start: datetime) -> NDArray[np.float64]:
    """Totals, counts, per-week and per-receipt rates of item, shopper and pair, over everything before
    the test weeks: the label weeks, from `start` on, are in them."""
    log = past.log.with_columns(pl.col("value").fill_null(0))
    weeks = max((past.end - past.start).days / 7, 1)
    parts = []
    for key in (["item"], ["user"], ["user", "item"]):
        total = log.group_by(key).agg(
            pl.col("quantity").sum().alias("quantity"),
            pl.col("value").sum().alias("value"),
            pl.col("basket").n_unique().alias("baskets"),
            pl.len().alias("lines"),
        )
        total = total.with_columns(
            quantity_week=pl.col("quantity") / weeks,
            value_week=pl.col("value") / weeks,
            quantity_basket=pl.col("quantity") / pl.col("baskets"),
            value_basket=pl.col("value") / pl.col("baskets"),
            price=pl.col("value") / pl.col("quantity"),
        )
        joined = table.select(key).join(total, on=key, how="left", maintain_order="left")
        parts.append(joined.drop(key).fill_null(0).to_numpy().astype(np.float64))
    if CATEGORIES[0] in past.items.columns:
        department = past.items[CATEGORIES[0]].cast(pl.String).fill_null("")
        sales = log.with_columns(group=department.gather(log["item"])).group_by("group")
        sold = sales.agg(pl.col("quantity").sum() / weeks)
        named = table.select(group=department.gather(table["item"]))
        parts.append(
            named.join(sold, on="group", how="left", maintain_order="left")
            .select(pl.exclude("group"))
            .fill_null(0)
            .to_numpy()
        )
    return np.hstack(parts)


def _lightgbm(table: pl.DataFrame, x: NDArray[np.float64]) -> NDArray[np.float64]:
    import lightgbm as lgb

    options = {
        "objective": "binary",
        "max_depth": 8,
        "verbosity": -1,
        "seed": 0,
        "deterministic": True,
        "force_row_wise": True,
    }
    data = lgb.Dataset(x, table["target"].to_numpy(), categorical_feature=list(range(x.shape[1])))
    return np.asarray(lgb.train(options, data, 100).predict(x))


def _catboost(
    table: pl.DataFrame, x: NDArray[np.float64], *, early_stopping: bool
) -> NDArray[np.float64]:
    """Probabilities of the rows that it learnt from, as the notebook has them."""
    return np.asarray(_fitted(x, table["target"].to_numpy(), early_stopping).predict_proba(x)[:, 1])


def _fitted(x: NDArray[np.float64], y: NDArray[np.float64], early_stopping: bool = True) -> Any:
    """A CatBoost classifier; early stopping, where it is wanted, on a random fifth of the rows."""
    from catboost import CatBoostClassifier

    model = CatBoostClassifier(
        iterations=_ROUNDS if early_stopping else 200,
        depth=8,
        random_seed=0,
        verbose=False,
        learning_rate=0.1,
        allow_writing_files=False,
        **({"early_stopping_rounds": _PATIENCE} if early_stopping else {}),
    )
    if early_stopping:
        held = np.random.default_rng(0).random(len(y)) < 0.2
        model.fit(x[~held], y[~held], eval_set=(x[held], y[held]))
    else:
        model.fit(x, y)
    return model


def _ranked(table: pl.DataFrame, score: NDArray[np.float64]) -> pl.DataFrame:
    scored = table.select("user", "item", score=pl.Series(score))
    scored = scored.sort(["user", "score", "item"], descending=[False, True, False])
    return scored.with_columns(rank=(pl.int_range(pl.len()).over("user") + 1).cast(pl.Int32))


def _our_steps(
    split: Split, judge: Judge, settings: Settings, progress: Progress
) -> list[tuple[str, Lists]]:
    """Ours under the same split: all shoppers judged, nothing known of the weeks to be predicted."""
    days = TEST.days
    steps = []
    for name in ("walk-through", "default"):
        wanted = settings.for_size(split.past.n_users).model_copy(
            update={"horizon_days": float(days), "prefilters": name}
        )
        past = split.filtered(preset(name)).past
        own = OwnPurchases().fit(past).candidates(past.history(codes=judge.users), 5).items
        steps.append((f"ours: own purchases, {name}", own))
        progress(f"ours, prefilter {name}")
        model = wanted.model().fit(split.past, progress)
        lists = model.recommend_codes(past.history(codes=judge.users), 5).items
        steps.append((f"ours: two stages, {name}", lists))
    return steps


def show(rows: list[dict[str, Any]]) -> None:
    """Each step: published, its own mean, over all judged, half of the interval of that."""
    for row in rows:
        cells = (row["published"], row["their_mean"], row["precision@5"])
        half = (row["high"] - row["low"]) / 2
        figures = " ".join(f"{'' if c is None else f'{c:.4f}':>9}" for c in cells)
        print(f"{row['step']:<36}{figures} ± {half:.4f}")
    print(
        f"precision@5. published: on the Complete Journey, best elsewhere "
        f"{PUBLISHED['best elsewhere']:.4f}; its mean: over the {rows[0]['their_n_users']:,} shoppers "
        f"with candidates; all judged: {rows[0]['n_users']:,} with history who bought; ±: half of its "
        "95% interval"
    )


def main(arguments: list[str] | None = None) -> None:
    """Print the table, and write its rows where that is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="the Complete Journey's files; else the package's")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--out", type=Path, help="write the rows here, as JSON")
    given = parser.parse_args(arguments)
    data = load_dataset("complete-journey", given.folder)
    rows = compare_with_walkthrough(data, read_settings(given.config))
    show(rows)
    if given.out is not None:
        given.out.write_text(json.dumps({"published": PUBLISHED, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()

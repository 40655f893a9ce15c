"""What judges run in Spark's Python workers: the local engine's own window, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.pairs import pairs_of_keys
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.evaluation.evidence import POOL, find_purchases, pool_hits
from retailrec.evaluation.judge import ItemFacts, Judge
from retailrec.evaluation.segments import shopper_facts
from retailrec.evaluation.window import LocalWindow, lists_of
from retailrec.recommender.artifact import load_artifact
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import saved_types
from retailrec.schema import USER_ID
from retailrec.spark.shipping import shipped
from retailrec.spark.tasks import hold_to_task, require_versions, to_arrow, whole_shoppers, with_kinds
from retailrec.spark.whole import coded_log

if TYPE_CHECKING:
    import pyarrow as pa

PART_LINES = 500_000
JUDGED = "judged"  # of the shoppers asked about: is the shopper judged, or in a group alone?
LISTS = "lists"  # a row's items as text: codes with blanks between


@dataclass(frozen=True)
class JudgePlan:
    """A window, and what is known of items before it.

    Attributes
    ----------
    known : name under which Spark has put what `write_known` wrote
    cutoff, end : of the window
    kinds : columns that come out
    versions : of the driver
    """

    known: str
    cutoff: datetime
    end: datetime
    kinds: dict[str, str]
    versions: dict[str, str]


def write_known(past: RetailData, folder: Path) -> None:
    """Catalogue and facts of items, for workers."""
    facts = ItemFacts.of(past)
    past.items.write_parquet(folder / "items.parquet")
    np.save(folder / "prices.npy", facts.prices)
    np.save(folder / "buyers.npy", facts.buyers)
    np.save(folder / "n_known.npy", np.array(facts.n_known))


@lru_cache(maxsize=1)
def known_items(name: str) -> tuple[pl.DataFrame, ItemFacts]:
    """What `write_known` wrote, read once in a worker process; its arrays stay in files."""
    folder = shipped(name)
    prices, buyers = (np.load(folder / f"{n}.npy", mmap_mode="r") for n in ("prices", "buyers"))
    n_known = int(np.load(folder / "n_known.npy"))
    return pl.read_parquet(folder / "items.parquet"), ItemFacts(prices, buyers, n_known)


@lru_cache(maxsize=1)
def judged_model(name: str) -> Any:
    """A fitted recommender, source or first stage, loaded once in a worker process."""
    return load_artifact(shipped(name), judged_types(), memory_map=True)


def judged_types() -> dict[str, type]:
    """Classes of what is judged."""
    return saved_types() | {StageOne.__name__: StageOne}


class Part(NamedTuple):
    """What some whole shoppers bought before a window and in it.

    Attributes
    ----------
    split : of these shoppers
    judged : (n_users,) which of them are judged, where only some are
    """

    split: Split
    judged: NDArray[np.bool_] | None


def parts(plan: JudgePlan, batches: Iterator[pa.RecordBatch]) -> Iterator[Part]:
    """Whole shoppers, some at a time."""
    require_versions(plan.versions)
    hold_to_task()
    items, _ = known_items(plan.known)
    for table in whole_shoppers(batches, PART_LINES):
        lines = pl.DataFrame(pl.from_arrow(table))
        first = lines.unique(USER_ID, keep="first", maintain_order=True)
        log = coded_log(lines, first[USER_ID])
        past = RetailData(
            log.filter(pl.col("time") < plan.cutoff), items, first.select(USER_ID), plan.cutoff
        )
        target = log.filter((pl.col("time") >= plan.cutoff) & (pl.col("time") < plan.end))
        yield Part(Split(past, target), first[JUDGED].to_numpy() if JUDGED in first.columns else None)


def windows(plan: JudgePlan, batches: Iterator[pa.RecordBatch]) -> Iterator[LocalWindow]:
    """The windows of parts of the shoppers; a part in which nobody can be judged has none."""
    for split, _ in parts(plan, batches):
        if split.past.log["user"].is_in(split.target["user"].unique().implode()).any():
            judge = Judge.of(*split, known_items(plan.known)[1])
            yield LocalWindow(split.past, judge)


def facts_of_judged(plan: JudgePlan, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """`shopper_facts` of the judged shoppers."""
    for window in windows(plan, batches):
        facts = shopper_facts(window.past, window.judge.users).with_columns(window.users)
        yield from to_arrow(with_kinds(facts, plan.kinds), plan.kinds)


def values_of_judged(
    plan: JudgePlan, batches: Iterator[pa.RecordBatch], *, model: str, k: int, metrics: tuple[str, ...]
) -> Iterator[pa.RecordBatch]:
    """What the lists of a model are worth to each judged shopper, and the lists if `kinds` has them."""
    for window in windows(plan, batches):
        lists = lists_of(judged_model(model), window.past)(window.judge.users, k)
        values = pl.DataFrame({USER_ID: window.users, **window.judge.per_user(lists, metrics)})
        if LISTS in plan.kinds:
            text = [" ".join(map(str, row)) for row in lists.tolist()]
            values = values.with_columns(pl.Series(LISTS, text))
        yield from to_arrow(with_kinds(values, plan.kinds), plan.kinds)


def purchases_of_asked(
    plan: JudgePlan, batches: Iterator[pa.RecordBatch], *, stage: str, k: int, told: Any
) -> Iterator[pa.RecordBatch]:
    """Where a stage's lists have what the shoppers asked about bought; see `Found`.

    A row a pair: `user_id`, `item`, `judged`, `repeat`, a column a list with the place in it. Who is
    not judged has a place in the pool alone, 0 for any among the first 200. `told` gets the rest.
    """
    lists = judged_model(stage)
    names = [*(source.name for source in lists.sources), POOL]
    for split, judged in parts(plan, batches):
        ids = split.past.users[USER_ID]
        chosen = np.ones(len(ids), np.bool_) if judged is None else judged
        frames = []
        if chosen.any():
            judge = Judge.of(*split, known_items(plan.known)[1])
            judge = judge.select(chosen[judge.users])
            found = find_purchases(lists, judge, split.past, k)
            row, item = pairs_of_keys(judge.keys, judge.n_items)
            pairs = pl.DataFrame({"user": judge.users[row], "item": item, "repeat": found.repeat})
            frames.append(pairs.with_columns(pl.Series(n, found.places[n]) for n in names))
            listed = {n: np.flatnonzero(found.listed[n]).tolist() for n in names}
            told.add([json.dumps([found.common.tolist(), listed, found.seconds])])
        if not chosen.all():
            bought = split.target.select("user", "item").unique().sort("user", "item")
            hits = pool_hits(lists, split.past, np.flatnonzero(~chosen), bought)
            frames.append(hits.select("user", "item", pl.when("hit").then(0).otherwise(-1).alias(POOL)))
        pairs = pl.concat(
            (f.cast({"user": pl.Int64, "item": pl.Int32, POOL: pl.Int32}) for f in frames),
            how="diagonal",
        ).with_columns(
            ids.gather(pl.concat(f["user"].cast(pl.Int64) for f in frames)).alias(USER_ID),
            pl.col("repeat").is_not_null().alias(JUDGED)
            if chosen.any()
            else pl.lit(False).alias(JUDGED),
        )
        yield from to_arrow(with_kinds(pairs, plan.kinds), plan.kinds)

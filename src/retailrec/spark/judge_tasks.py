"""What judges run in Spark's Python workers: the local engine's own window, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.evaluation.judge import ItemFacts, Judge
from retailrec.evaluation.segments import shopper_facts
from retailrec.evaluation.window import LocalWindow, lists_of
from retailrec.recommender.artifact import load_artifact
from retailrec.recommender.two_stage import saved_types
from retailrec.schema import USER_ID
from retailrec.spark.shipping import shipped
from retailrec.spark.tasks import hold_to_task, require_versions, to_arrow, whole_shoppers, with_kinds
from retailrec.spark.whole import coded_log

if TYPE_CHECKING:
    import pyarrow as pa

PART_LINES = 500_000
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
    """A fitted recommender or source, loaded once in a worker process."""
    return load_artifact(shipped(name), saved_types(), memory_map=True)


def splits(plan: JudgePlan, batches: Iterator[pa.RecordBatch]) -> Iterator[Split]:
    """What whole shoppers bought before the window and in it, some shoppers at a time."""
    require_versions(plan.versions)
    hold_to_task()
    items, _ = known_items(plan.known)
    for table in whole_shoppers(batches, PART_LINES):
        lines = pl.DataFrame(pl.from_arrow(table))
        users = lines[USER_ID].unique(maintain_order=True)
        log = coded_log(lines, users)
        before = log.filter(pl.col("time") < plan.cutoff)
        yield Split(
            RetailData(before, items, users.to_frame(), plan.cutoff),
            log.filter((pl.col("time") >= plan.cutoff) & (pl.col("time") < plan.end)),
        )


def windows(plan: JudgePlan, batches: Iterator[pa.RecordBatch]) -> Iterator[LocalWindow]:
    """The windows of parts of the shoppers; a part in which nobody can be judged has none."""
    for split in splits(plan, batches):
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

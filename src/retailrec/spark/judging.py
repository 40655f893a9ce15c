"""Everybody judged on a cluster: windows and matching evidence of the local engine, part by part."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator
from retailrec.compute.csr import pairs_of_keys
from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.backtest import LocalWindow, lists_of, longest
from retailrec.evaluation.judge import ItemFacts, Judge, grouped, shopper_facts
from retailrec.evaluation.matching import (
    AT,
    POOL,
    Ask,
    Cold,
    Evidence,
    Found,
    cold_groups,
    drawn,
    drawn_of_groups,
    find_purchases,
    pool_hits,
)
from retailrec.metrics import parse_metric
from retailrec.metrics.base import Values, compute_metric
from retailrec.recommender.artifact import load_artifact, save_artifact, versions
from retailrec.recommender.stage_one import StageOne
from retailrec.recommender.two_stage import TwoStageRecommender, saved_types
from retailrec.schema import CATEGORIES, USER_ID
from retailrec.spark.fitting import SparkLog, coded_log, instant
from retailrec.spark.session import in_words
from retailrec.spark.staging import sql_schema
from retailrec.spark.tasks import (
    Texts,
    hold_to_task,
    require_versions,
    ship,
    shipped,
    to_arrow,
    whole_shoppers,
    with_kinds,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

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
    return pl.read_parquet(folder / "items.parquet", glob=False), ItemFacts(prices, buyers, n_known)


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
            judge = Judge.of(split.past, split.target, known_items(plan.known)[1])
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
            judge = Judge.of(split.past, split.target, known_items(plan.known)[1])
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


@dataclass(frozen=True)
class SparkWindow:
    """A window in which everybody is judged, where models learnt from a sample; a `Window`.

    Workers judge whole shoppers as the local engine does, and tell a row a shopper. Means are taken on
    this machine, in order of shopper, so they are those of one machine to the last digit.

    Attributes
    ----------
    past : the sample, prefilters applied
    lines : receipts of all shoppers, parted by shopper, kept on the workers' disks until `close`
    plan : of the window
    users : ids of the judged shoppers, ascending
    groups : segment -> group of each; attributes of shoppers make none, since a sample's are known only
    """

    session: SparkSession
    past: RetailData
    lines: DataFrame
    plan: JudgePlan
    users: pl.Series
    groups: Mapping[str, pl.Series]

    @classmethod
    def of(cls, split: Split, end: datetime) -> SparkWindow:
        """Of all shoppers who bought in the window and have history.

        Raises
        ------
        DataError
            If there is none.
        SettingError
            If the data is no sample of a log on Spark.
        """
        whole = split.past.whole
        if not isinstance(whole, SparkLog):
            raise SettingError(
                "SparkWindow judges by a log on Spark; give data of retailrec.spark, or LocalWindow."
            )
        plan = judge_plan(whole, split.past, end)
        with in_words():
            from pyspark import StorageLevel

            lines = whole.of_shoppers(end).persist(StorageLevel.DISK_ONLY)
            kinds = {USER_ID: whole.kinds[USER_ID], "receipts": "long", "days": "long"}
            if CATEGORIES[0] in split.past.items.columns:
                kinds["favourite"] = "string"
            facts = told(lines, replace(plan, kinds=kinds), facts_of_judged).sort(USER_ID)
        if facts.is_empty():
            lines.unpersist()
            raise DataError(
                f"nobody with history bought anything in the evaluation window from {plan.cutoff}. "
                f"Use another horizon."
            )
        return cls(whole.session, split.past, lines, plan, facts[USER_ID], grouped(facts))

    def values(self, model: Any, metrics: Sequence[str]) -> dict[str, Values]:
        """Metric -> (n_users,) values of the lists of a fitted model; (1,) of lists together.

        Raises
        ------
        DataError
            If the receipts are others than before.
        SettingError
            If the model is a function, which has no files for workers.
        """
        if not isinstance(model, TwoStageRecommender | CandidateGenerator):
            raise SettingError(
                f"{model!r} can't be judged on Spark, which takes recommenders and sources; write it "
                f"as a CandidateGenerator, or stay with the local engine."
            )
        together = [m for m in metrics if parse_metric(m)[0].together]
        alone = tuple(m for m in metrics if m not in together)
        kinds = {USER_ID: self.plan.kinds[USER_ID], **dict.fromkeys(alone, "double")}
        if together:
            kinds[LISTS] = "string"
        name = shipped_model(self.session, model)
        judge = partial(values_of_judged, model=name, k=longest(metrics), metrics=alone)
        with in_words():
            found = told(self.lines, replace(self.plan, kinds=kinds), judge).sort(USER_ID)
        if not found[USER_ID].equals(self.users):
            raise DataError("receipts changed while models were judged; begin anew.")
        values = {m: found[m].to_numpy() for m in alone}
        if together:
            items = np.array([row.split(" ") for row in found[LISTS]], np.int32)
            context = {"items": items, "n_recommendable": int(self.past.recommendable.sum())}
            values |= {m: compute_metric(m, context) for m in together}
        return {m: values[m] for m in metrics}

    def close(self) -> None:
        """Free the workers' disks."""
        self.lines.unpersist()


def judge_plan(whole: SparkLog, past: RetailData, end: datetime) -> JudgePlan:
    """The plan of a window, with what is known of items before it put on every machine."""
    known = shipped_folder(whole.session, lambda folder: write_known(past, folder))
    own = {name: version for name, version in versions().items() if name != "python"}
    return JudgePlan(known, past.end, end, {USER_ID: whole.kinds[USER_ID]}, own)


def shipped_folder(session: SparkSession, write: Callable[[Path], None]) -> str:
    """The name under which every machine has what `write` puts into a folder."""
    name = f"retailrec-{secrets.token_hex(8)}"
    with TemporaryDirectory(prefix="retailrec-") as aside:
        write(Path(aside))
        ship(session, Path(aside), name)
    return name


def shipped_model(session: SparkSession, model: Any) -> str:
    """The name under which every machine has the files of something fitted."""
    name = shipped_folder(
        session, lambda folder: save_artifact(model, folder / "model", judged_types())
    )
    return f"{name}/model"


def told(lines: DataFrame, plan: JudgePlan, judge: Callable[..., Any]) -> pl.DataFrame:
    """What a worker's function tells of all shoppers."""
    found = lines.mapInArrow(partial(judge, plan), sql_schema(plan.kinds)).toArrow()
    return pl.DataFrame(pl.from_arrow(found))


_END = datetime(9999, 1, 1)  # the window reaches to the last line


def gather_everybody(
    stage: StageOne, held_out: Split, filtered: RetailData, ask: Ask, progress: Progress = silent
) -> Evidence:
    """As `gather_here`, of all shoppers of the log that the data is a sample of, to its last line.

    The same shoppers are drawn as on one machine that holds all. Attributes of shoppers are not looked
    at: those of a sample alone are known.

    Raises
    ------
    DataError
        If nobody with history bought anything in the window.
    SettingError
        If the data is no sample of a log on Spark.
    """
    whole, cutoff = held_out.past.whole, held_out.past.end
    if not isinstance(whole, SparkLog):
        raise SettingError("gather_everybody needs a log on Spark; give data of retailrec.spark.")
    progress("buyers")
    with in_words():
        buyers, window_end = _buyers(whole, cutoff)
        receipts = buyers["receipts"].to_numpy()
        if not (receipts > 0).any():
            raise DataError(
                f"nobody with history bought anything in the evaluation window "
                f"({buyers.height} shoppers bought). Use another horizon."
            )
        groups = cold_groups(receipts, np.zeros(len(receipts), np.bool_))
        of_group = drawn_of_groups(groups, ask)
        judged = np.zeros(len(receipts), np.bool_)
        judged[np.flatnonzero(receipts > 0)[drawn(int((receipts > 0).sum()), ask)]] = True
        asked = judged.copy()
        for rows in of_group.values():
            asked[rows] = True
        people = buyers.select(USER_ID, pl.Series(JUDGED, judged)).filter(pl.Series(asked))
        progress("judge sources and pool")
        found, pairs = _found(whole, stage, filtered, people, ask)
        seen = whole.lines(None, cutoff) > 0
        bought = whole.buyers(cutoff, _END)
    pairs = pairs.with_columns(
        hit=pl.col(POOL).is_between(0, AT - 1), seen=pl.Series(seen[pairs["item"].to_numpy()])
    )
    parts = [
        pairs.join(buyers[rows].select(USER_ID), on=USER_ID, how="semi", maintain_order="left").select(
            pl.lit(name).alias("group"), pl.col(USER_ID).alias("user"), "item", "hit", "seen"
        )
        for name, rows in of_group.items()
    ]
    sizes = {name: int(chosen.sum()) for name, chosen in groups.items()}
    cold = Cold(sizes, pl.concat(parts), float(bought[~seen].sum() / bought.sum()))
    return Evidence(found, cold, int((receipts == 0).sum()), window_end)


def _buyers(whole: SparkLog, cutoff: datetime) -> tuple[pl.DataFrame, str]:
    """`user_id`, `receipts` before the window of everybody who bought in it; time of its last line."""
    from pyspark.sql import functions as F

    before = F.col("time") < instant(cutoff)
    told = (
        whole.log.groupBy(USER_ID)
        .agg(
            F.count_distinct(F.when(before, F.col("basket"))).alias("receipts"),
            F.max("time").alias("last"),
        )
        .filter(F.col("last") >= instant(cutoff))
        .toArrow()
    )
    buyers = pl.DataFrame(pl.from_arrow(told)).sort(USER_ID)
    return buyers.drop("last"), str(buyers["last"].max())


def _found(
    whole: SparkLog, stage: StageOne, filtered: RetailData, people: pl.DataFrame, ask: Ask
) -> tuple[Found, pl.DataFrame]:
    """Where the lists have what these shoppers bought: of the judged ones, and of all as pairs."""
    session = whole.session
    sources = [source.name for source in stage.sources]
    names = [*sources, POOL]
    plan = judge_plan(whole, filtered, _END)
    kinds = {
        **plan.kinds,
        "item": "integer",
        JUDGED: "boolean",
        "repeat": "boolean",
        **dict.fromkeys(names, "integer"),
    }
    asked = session.createDataFrame(people.to_arrow())
    texts: Any = session.sparkContext.accumulator([], Texts())  # type: ignore[arg-type]
    find = partial(purchases_of_asked, stage=shipped_model(session, stage), k=ask.k, told=texts)
    pairs = told(whole.of_shoppers(_END, asked), replace(plan, kinds=kinds), find)
    pairs = pairs.sort(USER_ID, "item")
    theirs = pairs.filter(JUDGED)
    common = np.zeros((len(sources), len(sources)), np.int64)
    listed = {name: np.zeros(filtered.n_items, np.bool_) for name in names}
    seconds = dict.fromkeys(sources, 0.0)
    for text in texts.value:
        part, codes, took = json.loads(text)
        common += np.array(part, np.int64)
        for name in names:
            listed[name][codes[name]] = True
        for name in sources:
            seconds[name] += took[name]
    found = Found(
        theirs[USER_ID].rle_id().cast(pl.Int64).to_numpy(),
        theirs["repeat"].to_numpy(),
        {name: theirs[name].to_numpy() for name in names},
        common,
        listed,
        seconds,
    )
    return found, pairs

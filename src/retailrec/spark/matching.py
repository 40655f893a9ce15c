"""The evidence of a matching report, gathered from everybody on a cluster."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.splits import Split
from retailrec.errors import DataError, SettingError
from retailrec.evaluation.evidence import (
    AT,
    POOL,
    Ask,
    Cold,
    Evidence,
    Found,
    cold_groups,
    drawn,
    drawn_of_groups,
)
from retailrec.recommender.stage_one import StageOne
from retailrec.schema import USER_ID
from retailrec.spark.failures import in_words
from retailrec.spark.judge_tasks import JUDGED, purchases_of_asked
from retailrec.spark.judging import judge_plan, shipped_model, told
from retailrec.spark.reports import Texts
from retailrec.spark.whole import SparkLog, instant

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

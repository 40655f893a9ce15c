"""Fit on a cluster: facts of items from everybody's receipts, models from a sample of shoppers."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.cleaning import LINE, LineRule, LoadReport
from retailrec.data.encoding import CodedLines
from retailrec.data.vocabulary import attributes, vocabulary
from retailrec.errors import SettingError
from retailrec.recommender.artifact import versions
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, RECOMMENDABLE, USER_ID
from retailrec.spark.failures import in_words
from retailrec.spark.reports import Texts, add_load_reports
from retailrec.spark.session import connect, cores
from retailrec.spark.sources import source
from retailrec.spark.staging import Cleaned, sql_schema, stage
from retailrec.spark.storage import Storage, absolute, alone
from retailrec.spark.tasks import LogPlan, ShopperPlan, log_lines
from retailrec.spark.whole import SparkLog, coded_log

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

SAMPLE = 100_000  # shoppers that models learn from
_SHARD_LINES = 500_000
_LOTS = 1 << 30


class Fitted(NamedTuple):
    """What `fit` did.

    Attributes
    ----------
    model : as it was saved
    load_report : of all receipts
    n_sample : shoppers that models learnt from
    """

    model: TwoStageRecommender
    load_report: LoadReport
    n_sample: int


def fit(
    model: TwoStageRecommender,
    receipts: Any,
    out: str | Path,
    *,
    items: Any = None,
    users: Any = None,
    sample: int = SAMPLE,
    workplace: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    line_rules: Sequence[LineRule] = (),
    session: SparkSession | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Fit `model` on all receipts and save it to the folder `out`: the usual artifact.

    Everybody's receipts are cleaned and coded, and counted for what is said of items: their features,
    bestsellers, prices, which are sold at all, at each label window anew. Similarities, factors and the
    ranker learn from a sample of shoppers, whose receipts come to this machine. With a sample of all
    shoppers the model is that of the local engine, but for the order in which fractions are added.

    Parameters
    ----------
    model : settings; it is fitted in place
    receipts : a Spark DataFrame, the name of a table, or the path of Parquet
    out : folder on this machine
    items, users : one row an `item_id` / `user_id`; further columns are attributes
    sample : shoppers to learn from, drawn by their ids
    workplace : folder that driver and workers see, for what lies between; beside `out` by default
    columns : standard name -> the caller's name
    line_rules : reasons to reject a line, beside the standard ones

    Raises
    ------
    DataError
        If the receipts can't be read or are too short.
    SettingError
        If `sample` is below 1, or Spark can't be used as it is.
    """
    if sample < 1:
        raise SettingError(f"fit: sample must be at least 1 shopper, not {sample}.")
    session = connect() if session is None else session
    out = Path(out)
    place = absolute(out.with_name(f".{out.name}.lines") if workplace is None else workplace)
    with alone(place):
        storage = Storage(session, place)
        for name in storage.files(place):
            storage.remove(f"{place}/{name}")
        data = sampled_data(
            session,
            receipts,
            place,
            items=items,
            users=users,
            sample=sample,
            columns=columns,
            line_rules=line_rules,
            progress=progress,
        )
        with in_words():
            model.fit(data, progress)
        model.report_["sample"] = {"shoppers": data.n_users, "of": data.report.n_users}
        model.save(out)
        storage.remove(place)
    return Fitted(model, data.report, data.n_users)


def sampled_data(
    session: SparkSession,
    receipts: Any,
    folder: str,
    *,
    items: Any = None,
    users: Any = None,
    sample: int = SAMPLE,
    columns: Mapping[str, str] | None = None,
    line_rules: Sequence[LineRule] = (),
    progress: Progress = silent,
) -> RetailData:
    """A sample of shoppers as `RetailData`, whose `whole` counts everybody.

    Item codes are those of all items; `report` is that of all receipts. What lies between stays in
    `folder` for as long as the data is used.

    Raises
    ------
    DataError
        If the receipts can't be read.
    """
    progress("load receipts")
    with in_words():
        given = source(session, receipts, dict(columns or {}))
        progress("clean receipts")
        cleaned = stage(session, given, dict(columns or {}), f"{folder}/lines", line_rules)
        raw, report = copy.deepcopy(cleaned.report), cleaned.report
        coded = CodedLines([], {ITEM_ID: cleaned.vocabulary}, {})
        table = attributes(items, ITEM_ID, coded, (), report)
        catalogue = vocabulary(table, cleaned.vocabulary, ITEM_ID).with_columns(
            pl.lit(True).alias(RECOMMENDABLE)
        )
        progress("code receipts")
        kinds, log = _coded_log(session, cleaned, catalogue[ITEM_ID], f"{folder}/log")
        n_users = report.n_users
        shoppers = log
        if sample < n_users:
            from pyspark.sql import functions as F

            share = int(_LOTS * sample / n_users)
            shoppers = log.filter(F.pmod(F.xxhash64(USER_ID, F.lit("sample")), F.lit(_LOTS)) < share)
        lines = pl.DataFrame(pl.from_arrow(shoppers.toArrow())).sort(USER_ID, "basket", "item")
    ids = lines[USER_ID].unique().sort()
    if users is not None:
        about = attributes(users, USER_ID, CodedLines([], {USER_ID: ids}, {}), (), report)
        if about is not None and sample < n_users:
            about = about.filter(pl.col(USER_ID).cast(ids.dtype, strict=False).is_in(ids.implode()))
        people = vocabulary(about, ids, USER_ID)
    else:
        people = pl.DataFrame({USER_ID: ids})
    whole = SparkLog(session, log, kinds, catalogue.height, replace(cleaned, report=raw))
    return RetailData(
        coded_log(lines, people[USER_ID]), catalogue, people, cleaned.midnight, report, whole
    )


def _coded_log(
    session: SparkSession, cleaned: Cleaned, items: pl.Series, folder: str
) -> tuple[dict[str, str], DataFrame]:
    """The log of all shoppers on disk: cleaned, receipts put together, items by code."""
    kinds: dict[str, str] = {
        USER_ID: cleaned.kinds[USER_ID],
        "item": "integer",
        "basket": "integer",
        "time": "timestamp",
        "quantity": "double",
        "value": "double",
        **{c: cleaned.kinds[c] for c in ("store", "discount") if c in cleaned.kinds},
    }
    own = {name: version for name, version in versions().items() if name != "python"}
    told: Any = session.sparkContext.accumulator([], Texts())  # type: ignore[arg-type]
    shoppers = ShopperPlan(cleaned.far, cleaned.midnight, _SHARD_LINES, True, {}, own)
    plan = LogPlan(shoppers, items, kinds, told)
    found = (
        cleaned.all_lines(session)
        .repartition(max(cores(session), -(-cleaned.n_lines // 2_000_000)), USER_ID)
        .sortWithinPartitions(USER_ID, LINE)
        .mapInArrow(partial(log_lines, plan), sql_schema(kinds))
    )
    found.write.mode("overwrite").parquet(folder)
    import json

    add_load_reports([json.loads(text) for text in told.value], cleaned.report, cleaned.numbers)
    cleaned.report.n_items = len(cleaned.items)
    return kinds, session.read.schema(sql_schema(kinds)).parquet(folder)

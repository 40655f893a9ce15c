"""Fit on a cluster: facts of items counted over all receipts, models from a sample of users."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.cleaning import LINE, LineRule, LoadReport
from retailrec.data.encoding import CodedLines, places
from retailrec.data.history import History
from retailrec.data.ids import attributes, vocabulary
from retailrec.data.whole import Totals
from retailrec.datasets.base import PLAIN, Reading
from retailrec.errors import SettingError
from retailrec.recommender.artifact import versions
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, RECOMMENDABLE, USER_ID
from retailrec.spark.session import connect, cores, in_words
from retailrec.spark.sources import source
from retailrec.spark.staging import Cleaned, sql_schema, stage
from retailrec.spark.storage import Storage, absolute, alone
from retailrec.spark.tasks import (
    LogPlan,
    ShopperPlan,
    Texts,
    add_load_reports,
    hold_to_task,
    log_lines,
    whole_shoppers,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

OfPart = Callable[[History], Totals]
_PART_LINES = 500_000
_COMBINED = {np.add: "sum", np.fmin: "min", np.fmax: "max"}


@dataclass(frozen=True)
class SparkLog:
    """The log of all shoppers; a `WholeLog`.

    Attributes
    ----------
    log : `user_id`, `item` (code), `basket` (numbered within a shopper), `time`, `quantity`, `value`
    kinds : its columns' types
    n_items : number of item codes
    cleaned : the lines that the log was made of
    """

    session: SparkSession
    log: DataFrame
    kinds: dict[str, str]
    n_items: int
    cleaned: Cleaned

    def totals(self, of_part: OfPart, end: datetime) -> Totals:
        """`of_part` of all shoppers: parts in workers, added up by item in Spark."""
        from pyspark.sql import functions as F

        shape = of_part(nobody(self.n_items, end))
        names, combine = _columns_of(shape)
        schema = "item int, " + ", ".join(f"{name} double" for name in names)
        with in_words():
            found = (
                self.of_shoppers(end)
                .mapInArrow(partial(part_totals, of_part, self.n_items, end), schema)
                .groupBy("item")
                .agg(
                    *(
                        getattr(F, how)(name).alias(name)
                        for name, how in zip(names, combine, strict=True)
                    )
                )
                .toArrow()
            )
        table = pl.DataFrame(pl.from_arrow(found))
        return _as_totals(shape, table, self.n_items)

    def lines(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) receipts with the item in [start, end)."""
        from pyspark.sql import functions as F

        return self._counted(start, end, F.count("*"))

    def buyers(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) shoppers who bought the item in [start, end)."""
        from pyspark.sql import functions as F

        return self._counted(start, end, F.countDistinct(USER_ID))

    def prices(self, end: datetime) -> NDArray[np.float64]:
        """(n_items,) unit price on the last day before `end` that the item was sold; NaN if unknown."""
        from pyspark.sql import functions as F

        known = self.log.filter((F.col("time") < instant(end)) & F.col("value").isNotNull())
        days = known.groupBy("item", F.to_date("time").alias("day")).agg(
            (F.sum("value") / F.sum("quantity")).alias("price")
        )
        return self._dense(days.groupBy("item").agg(F.max_by("price", "day").alias("n")), np.nan)

    def shoppers(self, end: datetime) -> int:
        """Shoppers who bought anything before `end`."""
        from pyspark.sql import functions as F

        with in_words():
            return self.log.filter(F.col("time") < instant(end)).select(USER_ID).distinct().count()

    def fingerprint(self) -> str:
        """Stands for all lines: the same ones give the same text."""
        from pyspark.sql import functions as F

        line = F.xxhash64(*sorted(self.kinds))
        with in_words():
            found = self.log.agg(F.count("*"), F.sum(line.cast("decimal(38,0)"))).first()
        return str(found)

    def of_shoppers(self, end: datetime, asked: DataFrame | None = None) -> DataFrame:
        """Lines before `end`, parted by shopper, in order of shopper, receipt and item.

        With `asked`, a few shoppers by their ids: the lines of these, and its columns.
        """
        from pyspark.sql import functions as F

        known = self.log.filter(F.col("time") < instant(end))
        if asked is not None:
            known = known.join(F.broadcast(asked), USER_ID)
        return known.repartition(max(cores(self.session), 2), USER_ID).sortWithinPartitions(
            USER_ID, "basket", "item"
        )

    def _counted(self, start: datetime | None, end: datetime, how: Column) -> NDArray[np.float64]:
        from pyspark.sql import functions as F

        known = self.log.filter(F.col("time") < instant(end))
        if start is not None:
            known = known.filter(F.col("time") >= instant(start))
        return self._dense(known.groupBy("item").agg(how.alias("n")), 0.0)

    def _dense(self, found: DataFrame, empty: float) -> NDArray[np.float64]:
        with in_words():
            table = found.toArrow()
        out = np.full(self.n_items, empty)
        out[table["item"].to_numpy()] = table["n"].to_numpy()
        return out


def instant(time: datetime) -> Column:
    """A time as the log tells it, whatever zone this machine or the session has."""
    from pyspark.sql import functions as F

    return F.lit(time.isoformat(sep=" ")).cast("timestamp_ntz")


def coded_log(lines: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The log of `RetailData` from lines of a `SparkLog`, in order of shopper, receipt and item.

    Shoppers become codes of `users`; receipts, numbered within each shopper so far, are numbered
    through.
    """
    user = places(lines[USER_ID], users)
    basket = pl.Series("basket", _numbered(user.to_numpy(), lines["basket"].to_numpy()))
    log = lines.drop(USER_ID).with_columns(user.alias("user"), basket)
    carried = [c for c in log.columns if c in ("store", "discount")]
    log = log.select("user", "item", "basket", "time", "quantity", "value", *carried)
    if "store" in carried:
        log = log.with_columns(pl.col("store").cast(pl.Categorical))
    return log.rechunk()


def part_totals(
    of_part: OfPart, n_items: int, end: datetime, batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """What a task's shoppers add to each item that they bought; runs in a worker."""
    import pyarrow as pa

    from retailrec.features.assemble import add_totals

    hold_to_task()
    totals: Totals = []
    seen = np.zeros(n_items, np.bool_)
    for table in whole_shoppers(batches, _PART_LINES):
        lines = pl.DataFrame(pl.from_arrow(table))
        user = lines[USER_ID].rank("dense").cast(pl.Int64).to_numpy() - 1
        people = pl.DataFrame({USER_ID: lines[USER_ID].unique(maintain_order=True)})
        basket = pl.Series("basket", _numbered(user, lines["basket"].to_numpy()))
        history = History.from_log(lines.with_columns(basket), user, people, end, n_items, "")
        found = of_part(history)
        totals = add_totals(totals, found) if totals else found
        seen[history.items] = True
    if not totals:
        return
    items = np.flatnonzero(seen)
    names, _ = _columns_of(totals)
    columns = [
        column for _, values in totals for column in np.atleast_2d(values[items].T).astype(np.float64)
    ]
    arrays = [pa.array(items.astype(np.int32))]
    # an extreme of nothing is no number: null, which Spark's own extremes pass over
    arrays += [pa.array(column, from_pandas=True) for column in columns]
    yield from pa.table(arrays, names=["item", *names]).to_batches(max_chunksize=65_536)


def nobody(n_items: int, end: datetime) -> History:
    """The histories of no shopper."""
    log = pl.DataFrame(
        schema={
            "item": pl.Int32,
            "basket": pl.Int32,
            "time": pl.Datetime("us"),
            "quantity": pl.Float64,
            "value": pl.Float64,
        }
    )
    none = np.zeros(0, np.int64)
    return History.from_log(log, none, pl.DataFrame(schema={USER_ID: pl.Int64}), end, n_items, "")


def _numbered(user: NDArray[np.int64], basket: NDArray[Any]) -> NDArray[np.int32]:
    """Receipts numbered through, from numbers within each shopper; lines lie in their order."""
    new = np.ones(len(user), np.bool_)
    new[1:] = (user[1:] != user[:-1]) | (basket[1:] != basket[:-1])
    return (np.cumsum(new) - 1).astype(np.int32)


def _columns_of(totals: Totals) -> tuple[list[str], list[str]]:
    """A name for each column of the totals, and Spark's function that adds it up."""
    names, combine = [], []
    for number, (how, values) in enumerate(totals):
        if how not in _COMBINED:
            raise SettingError(f"totals are combined by add, fmin or fmax, not by {how.__name__}.")
        for column in range(1 if values.ndim == 1 else values.shape[1]):
            names.append(f"t{number}_{column}")
            combine.append(_COMBINED[how])
    return names, combine


def _as_totals(shape: Totals, table: pl.DataFrame, n_items: int) -> Totals:
    """The totals of all, from a row for each item that was bought; the others are as with nobody."""
    items = table["item"].to_numpy()
    names, _ = _columns_of(shape)
    at, out = 0, []
    for how, empty in shape:
        values = empty.copy()
        width = 1 if values.ndim == 1 else values.shape[1]
        for column in range(width):
            found = table[names[at + column]].fill_null(float("nan")).to_numpy()
            place = values if values.ndim == 1 else values[:, column]
            place[items] = found.astype(values.dtype)
        at += width
        out.append((how, values))
    return out


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
    reading: Reading = PLAIN,
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
    reading : columns, and ids that changed
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
            reading=reading,
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
    reading: Reading = PLAIN,
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
        given = source(session, receipts, reading.columns)
        progress("clean receipts")
        cleaned = stage(session, given, reading, f"{folder}/lines", line_rules)
        raw, report = copy.deepcopy(cleaned.report), cleaned.report
        coded = CodedLines([], {ITEM_ID: cleaned.vocabulary}, {})
        table = attributes(items, ITEM_ID, coded, (), report, reading.changed_ids)
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
        about = attributes(
            users, USER_ID, CodedLines([], {USER_ID: ids}, {}), (), report, reading.changed_ids
        )
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

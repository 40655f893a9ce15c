"""The first pass on Spark: raw lines to cleaned ones on disk, and the account of every line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    LINE,
    ONE_VISIT_US,
    STANDARD_RULES,
    LineRule,
    LoadReport,
    currency_columns,
    currency_notes,
    far_notes,
    far_rule,
    refuse_if_none,
)
from retailrec.data.files import Span
from retailrec.data.parsing import look_alike_key, look_alikes, typed_ids, zero_twins
from retailrec.datasets.base import Reading
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.spark.mapping import SparkParts, gathered, plain_arrow, polars_of, sql_schema
from retailrec.spark.session import in_words
from retailrec.spark.sources import PLACE, PLACE_BITS, Source
from retailrec.spark.storage import HadoopStorage, local_path
from retailrec.spark.tasks import CleanPlan, clean, sample_of_cleaned

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REASON, WAVE = "reason", "wave"
REJECTED = -1  # the wave of rejected lines
_WAVE_BYTES = 256 * 2**20
_MOST_WAVES = 256
_CLEAN_ROWS = 250_000  # lines parsed at a time: Arrow batches are smaller, and each costs a start
_MOST_ALIKE = 100_000  # ids of users that are compared with each other
_SPARK_KINDS = {
    "Int64": "long",
    "String": "string",
    "Float64": "double",
    "Float32": "float",
    "Int32": "integer",
    "UInt32": "long",
    "Categorical": "string",
}


@dataclass(frozen=True)
class Cleaned:
    """Cleaned lines on disk, parted into waves of users, and what is known of the whole.

    Attributes
    ----------
    folder : Parquet, a folder a wave
    kinds : column -> ``long``, ``string``, ``double``, ``float`` or ``timestamp``
    n_waves : of them, empty ones included
    filled : those with lines
    n_lines : lines that were kept, before dates far from all others are left out
    vocabulary, items : ids of the items of these lines, and of those in the log, ascending
    far : the rule against dates far from all others
    end : first instant that is not known: the midnight after the last receipt
    report : what was read and rejected so far; shards add the rest
    numbers : from a line's place to its number
    """

    folder: str
    kinds: dict[str, str]
    n_waves: int
    filled: frozenset[int]
    n_lines: int
    vocabulary: pl.Series
    items: pl.Series
    far: LineRule | None
    end: datetime
    report: LoadReport
    numbers: LineNumbers

    def lines(self, session: SparkSession, wave: int) -> DataFrame:
        """The cleaned lines of a wave."""
        if wave not in self.filled:
            return session.createDataFrame([], sql_schema(self.kinds)).drop(REASON)
        path = f"{self.folder}/{WAVE}={wave}"
        return session.read.schema(sql_schema(self.kinds)).parquet(path).drop(REASON)

    def all_lines(self, session: SparkSession) -> DataFrame:
        """The cleaned lines of all waves."""
        paths = [f"{self.folder}/{WAVE}={wave}" for wave in sorted(self.filled)]
        return session.read.schema(sql_schema(self.kinds)).parquet(*paths).drop(REASON)


def stage(
    session: SparkSession,
    source: Source,
    reading: Reading,
    folder: str,
    rules: Sequence[LineRule] = (),
    waves: int | None = None,
) -> Cleaned:
    """Clean the receipts into `folder`, unless that has been done, and count.

    Raises
    ------
    DataError
        If no line is usable, or the folder is not the same place for all machines.
    """
    from pyspark.sql import functions as F

    storage = HadoopStorage(session, folder)
    plan = _plan(source, reading, rules)
    number = waves or min(_MOST_WAVES, 1 + source.n_bytes // _WAVE_BYTES)
    with in_words():
        if not storage.exists(f"{folder}/_SUCCESS"):
            parts = SparkParts(session, source.frame, partial(gathered, rows=_CLEAN_ROWS))
            lines, _ = parts.rows(partial(clean, plan), plan.kinds)
            wave = F.pmod(F.xxhash64(USER_ID), F.lit(number)).cast("int")
            lines = lines.withColumn(WAVE, F.when(F.col(REASON).isNull(), wave).otherwise(REJECTED))
            # read once and removed: to look for dictionaries takes longer than to write more bytes
            out = lines.write.mode("overwrite").option("parquet.enable.dictionary", "false")
            out.partitionBy(WAVE).parquet(folder)
        found = _counted(session, storage, source, plan.kinds, folder, number)
        found.report.notes[:0] = _currencies(source.frame, reading.columns)
        if reading.columns.get("value", "value") not in source.frame.columns:
            found.report.empty.clear()
        _count_changed(source.frame, reading, found.report)
        return found


def _plan(source: Source, reading: Reading, rules: Sequence[LineRule]) -> CleanPlan:
    """The plan, its columns learnt by cleaning a frame of one line without content."""
    rules = (*rules, *STANDARD_RULES)
    plan = CleanPlan(
        dict(reading.columns), rules, PLACE, source.text, {}, changed_ids=reading.changed_ids
    )
    empty = polars_of(_null_line(source.frame))
    found = sample_of_cleaned(empty.with_columns(pl.col(source.text).cast(pl.String)), plan)
    kinds = {
        name: "timestamp" if name == "time" else _SPARK_KINDS[type(kind).__name__]
        for name, kind in found.schema.items()
    }
    kinds[LINE] = "long"
    kinds[REASON] = "string"
    return replace(plan, kinds=kinds, zone=source.zone, notation=source.notation)


def _null_line(frame: DataFrame) -> Any:
    """A line of nulls in the types that Spark hands over."""
    import pyarrow as pa
    from pyspark.sql.pandas.types import to_arrow_schema

    options: dict[str, Any] = {}
    if "timezone" in signature(to_arrow_schema).parameters:  # PySpark 4.0 takes UTC by itself
        options["timezone"] = "UTC"
    schema = to_arrow_schema(frame.schema, **options)
    return pa.table([pa.nulls(1, kind) for kind in schema.types], names=schema.names)


def _counted(
    session: SparkSession,
    storage: HadoopStorage,
    source: Source,
    kinds: dict[str, str],
    folder: str,
    n_waves: int,
) -> Cleaned:
    from pyspark.sql import functions as F

    report = LoadReport(source.name, zone=source.zone)
    names = [name for name in storage.files(folder) if name.startswith(f"{WAVE}=")]
    if not names:
        raise DataError(
            f"{source.name} hold no line, or none of {folder} can be read back; expected receipt "
            f"lines, and a folder that every machine of the cluster sees. Check both."
        )
    everything = session.read.schema(f"{sql_schema(kinds)}, {WAVE} int").parquet(folder)
    partition = F.shiftright(LINE, PLACE_BITS)
    empty = F.count(F.when(F.col("value").isNull(), 1))
    parts = everything.groupBy(partition.alias("part")).agg(F.count("*"), empty)
    counted = {part: counts for part, *counts in polars_of(parts).iter_rows()}
    read = {part: n for part, (n, _) in counted.items()}
    report.read = sum(read.values())
    if without := sum(n for _, n in counted.values()):
        report.empty["value"] = without
    numbers = LineNumbers(read)
    report.spans = [
        Span(local_path(file) or Path(file), "", read.get(number, 0), 1, None)
        for number, file in enumerate(source.files)
    ]
    if f"{WAVE}={REJECTED}" in names:
        bad = session.read.schema(sql_schema(kinds)).parquet(f"{folder}/{WAVE}={REJECTED}")
        _account(bad, report, numbers)
    takes_back = (F.col("quantity") < 0) | (F.col("value") < 0)  # these may void lines, or are returns
    good = everything.filter(F.col(REASON).isNull() & ~F.coalesce(takes_back, F.lit(False)))
    by_day = good.groupBy(F.to_date("time").alias("time"))
    days = polars_of(by_day.agg(F.count("*").alias("n"), F.max("time").alias("latest")))
    refuse_if_none(int(days["n"].sum()), report)
    vocabulary = _items_of(good)
    alike = [*look_alikes(vocabulary), *look_alikes(_users_alike(good, kinds[USER_ID]))]
    far = far_rule(days.drop("latest"))
    if far is not None:
        days = days.filter(~far.when)
        first, newest = days.select(pl.min("time"), pl.max("time").alias("last")).row(0)
        good = good.filter(F.to_date("time").between(first, newest))
    receipts = _receipts_alike(everything.filter(F.col(REASON).isNull()))
    report.notes += [*receipts, *far_notes(days.drop("latest")), *alike]
    last = days["latest"].max()
    if isinstance(last, datetime) and "basket_id" in kinds:
        last = _last_receipt(good, last)
    if not isinstance(last, datetime):
        raise DataError(f"no line of {source.name} has a time; expected receipt lines. Check them.")
    return Cleaned(
        folder,
        kinds,
        n_waves,
        frozenset(int(name.split("=")[1]) for name in names) - {REJECTED},
        int(days["n"].sum()),
        vocabulary,
        vocabulary if far is None else _items_of(good),
        far,
        datetime(last.year, last.month, last.day) + timedelta(days=1),
        report,
        numbers,
    )


def _last_receipt(lines: DataFrame, last: datetime) -> datetime:
    """When the newest receipt began; `last` is the time of the last line.

    A receipt is dated by its first line, so one that went on over midnight is of the day before.
    """
    from pyspark.sql import functions as F

    visit = timedelta(microseconds=ONE_VISIT_US)
    midnight = datetime(last.year, last.month, last.day)
    if last - midnight > visit:
        return last
    late = lines.filter(F.col("time") >= F.lit(str(midnight - visit)).cast("timestamp_ntz"))
    receipt = F.coalesce(F.col("basket_id").cast("string"), F.col("time").cast("string"))
    begins = late.groupBy(USER_ID, receipt.alias("receipt")).agg(F.min("time").alias("time"))
    found = begins.agg(F.max("time").alias("time")).toArrow()["time"][0].as_py()
    return found if isinstance(found, datetime) else last


def _items_of(lines: DataFrame) -> pl.Series:
    """Ids of their items, ascending: a vocabulary fits into memory where its log does not."""
    return polars_of(lines.select(ITEM_ID).distinct())[ITEM_ID].sort()


def _users_alike(lines: DataFrame, kind: str) -> pl.Series:
    """Ids of users of whom something may be said: all could be too many for one machine."""
    from pyspark.sql import functions as F

    users = lines.select(USER_ID).distinct()
    if kind == "long":
        some = users.filter(F.abs(USER_ID) >= 10**15)
    else:
        keyed = users.mapInArrow(_with_keys, f"{USER_ID} string, alike string")
        several = keyed.groupBy("alike").agg(F.count("*").alias("n"))
        several = several.filter((F.col("n") > 1) | (F.col("alike") == ""))
        some = keyed.join(several, "alike", "left_semi")
    return polars_of(some.limit(_MOST_ALIKE))[USER_ID].sort()


def _receipts_alike(lines: DataFrame) -> list[str]:
    """What is to be said of receipt numbers that are others but for leading zeros or '.0'."""
    from pyspark.sql import functions as F

    name = "basket_id"
    if dict(lines.dtypes).get(name) != "string":
        return []
    plain = F.regexp_replace(F.regexp_replace(name, r"^0+(\d)", "$1"), r"^(\d+)\.0$", "$1")
    odd = lines.filter(plain != F.col(name)).select(name).distinct().limit(_MOST_ALIKE)
    ids = polars_of(odd)
    if ids.height:
        plainly = F.broadcast(odd.select(plain.alias(name)).distinct())
        twins = lines.join(plainly, name, "left_semi").select(name).distinct()
        ids = pl.concat([ids, polars_of(twins)])
    return zero_twins(ids[name].unique().sort())[0]


def _with_keys(batches: Any) -> Any:
    """Ids with the text by which alike ones are found."""
    for frame in map(polars_of, batches):
        keys = look_alike_key(frame[USER_ID]).alias("alike")
        yield from plain_arrow(frame.with_columns(keys)).to_batches()


def _currencies(frame: DataFrame, columns: Mapping[str, str]) -> list[str]:
    """What to say of the currencies that lines have."""
    from pyspark.sql import functions as F

    notes: list[str] = []
    for name in currency_columns(frame.columns):
        value = columns.get("value", "value")
        lines = frame.filter(F.col(f"`{value}`").isNotNull()) if value in frame.columns else frame
        counts = lines.groupBy(F.col(f"`{name}`").cast("string").alias("name")).count()
        notes += currency_notes(name, dict(polars_of(counts).drop_nulls("name").iter_rows()))
    return notes


def _count_changed(frame: DataFrame, reading: Reading, report: LoadReport) -> None:
    """Tell the report how many lines have an old id."""
    if reading.changed_ids is None:
        return
    names = [reading.columns.get(c, c) for c in (USER_ID, ITEM_ID)]
    count = partial(_changed_in, reading.changed_ids)
    parts = frame.select(*(f"`{c}`" for c in names)).mapInArrow(count, "kind string, n bigint")
    for kind, n in polars_of(parts).iter_rows():
        report.changed[kind] = report.changed.get(kind, 0) + n
    report.notes += reading.changed_ids.notes(report.changed)


def _changed_in(changed: ChangedIds, batches: Any) -> Any:
    """Of a task's lines, those with an old id, by kind."""
    for frame in map(polars_of, batches):
        frame.columns = [USER_ID, ITEM_ID]
        found = changed.count(typed_ids(column) for column in frame)
        rows = pl.DataFrame([*found.items()], {"kind": pl.String, "n": pl.Int64}, orient="row")
        yield from plain_arrow(rows).to_batches()


def _account(rejected: DataFrame, report: LoadReport, numbers: LineNumbers) -> None:
    """Count the rejected lines by reason, with the numbers of the first three of each."""
    bad = rejected.select(REASON, LINE)
    found = bad.mapInArrow(_first_lines, f"{REASON} string, n bigint, {LINE} array<bigint>")
    parts = polars_of(found)
    if parts.is_empty():
        return
    whole = (
        parts.group_by(REASON)
        .agg(pl.col("n").sum(), pl.col(LINE).explode().bottom_k(3).sort())
        .with_columns(first=pl.col(LINE).list.first())
        .sort("first")
        .sort("n", descending=True, maintain_order=True)
    )
    for reason, n, lines in whole.select(REASON, "n", LINE).iter_rows():
        report.rejected[reason] = n
        report.examples[reason] = [numbers(line) for line in lines]


def _first_lines(batches: Any) -> Any:
    """Of a task's rejected lines, the number a reason and the first three."""
    count = pl.len().cast(pl.Int64).alias("n")
    parts = [
        polars_of(batch).group_by(REASON).agg(count, pl.col(LINE).bottom_k(3))
        for batch in batches
        if batch.num_rows
    ]
    if parts:
        first = pl.col(LINE).explode().bottom_k(3)
        found = pl.concat(parts).group_by(REASON).agg(pl.col("n").sum(), first)
        yield from plain_arrow(found).to_batches()


@dataclass(frozen=True)
class LineNumbers:
    """From places to line numbers: the lines of earlier files or partitions come before.

    Attributes
    ----------
    read : file or partition -> its lines
    """

    read: dict[int, int]

    def __call__(self, place: int) -> int:
        part, row = divmod(place, 1 << PLACE_BITS)
        return row + sum(n for other, n in self.read.items() if other < part)

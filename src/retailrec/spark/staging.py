"""The first pass on Spark: raw lines to cleaned ones on disk, and the account of every line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import partial
from inspect import signature
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl

from retailrec.data.cleaning import (
    LINE,
    ONE_VISIT_US,
    STANDARD_RULES,
    LineRule,
    LoadReport,
    currency_notes,
    far_notes,
    far_rule,
    no_purchase_notes,
    refuse_if_none,
    unmet_notes,
)
from retailrec.data.files import Span
from retailrec.data.parsing import look_alike_key, look_alikes, zero_twins
from retailrec.datasets.base import Reading
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.spark.mapping import SparkParts, gathered, plain_arrow, polars_of, sql_schema
from retailrec.spark.session import in_words
from retailrec.spark.sources import PLACE, PLACE_BITS, Source
from retailrec.spark.storage import HadoopStorage, local_path
from retailrec.spark.tasks import CleanPlan, UserPlan, clean, data_of_lines, sample_of_cleaned

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

REASON, WAVE = "reason", "wave"
_FACTS = "_counted.json"  # written last; names that begin so hold no lines
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
    described : what lines say of their items, a row an item; None where nothing was asked for
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
    described: pl.DataFrame | None = None

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
    describing: Sequence[str] = (),
) -> Cleaned:
    """Clean the receipts into `folder`, unless that has been done, and count.

    `describing` are columns that describe items, which are carried along.

    Raises
    ------
    DataError
        If no line is usable, or the folder is not the same place for all machines.
    """
    from pyspark.sql import functions as F

    storage = HadoopStorage(session, folder)
    plan = _plan(source, reading, rules, describing)
    number = waves or min(_MOST_WAVES, 1 + source.n_bytes // _WAVE_BYTES)
    with in_words():
        if not storage.exists(f"{folder}/{_FACTS}"):
            parts = SparkParts(session, source.frame, partial(gathered, rows=_CLEAN_ROWS))
            lines, facts = parts.rows(partial(clean, plan), plan.kinds)
            wave = F.pmod(F.xxhash64(USER_ID), F.lit(number)).cast("int")
            lines = lines.withColumn(WAVE, F.when(F.col(REASON).isNull(), wave).otherwise(REJECTED))
            # read once and removed: to look for dictionaries takes longer than to write more bytes
            out = lines.write.mode("overwrite").option("parquet.enable.dictionary", "false")
            out.partitionBy(WAVE).parquet(folder)
            storage.write_text(json.dumps(_added(facts())), f"{folder}/{_FACTS}")
        found = _counted(session, storage, source, plan, folder, number)
        said, report = json.loads(storage.read_text(f"{folder}/{_FACTS}")), found.report
        report.empty, report.changed = dict(sorted(said["empty"].items())), said["changed"]
        changed = () if reading.changed_ids is None else reading.changed_ids.notes(report.changed)
        of_money = (currency_notes(*pair) for pair in said["currencies"].items())
        of_states = (
            no_purchase_notes(column, counts, report.read)
            for column, counts in said["no_purchases"].items()
        )
        unmet = unmet_notes(plan.rules, report)
        report.notes[:0] = [*source.notes, *chain(*of_money, *of_states), *changed, *unmet]
        return found


def _added(facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What parts of the lines count, added up."""
    empty, changed = Counter[str](), Counter[str]()
    said: dict[str, dict[str, Counter[str]]] = {"currencies": {}, "no_purchases": {}}
    for part in facts:
        empty.update(part["empty"])
        changed.update(part["changed"])
        for what, of_column in said.items():
            for column, counts in part[what].items():
                of_column.setdefault(column, Counter()).update(counts)
    return {"empty": empty, "changed": changed, **said}


def _plan(
    source: Source, reading: Reading, rules: Sequence[LineRule], describing: Sequence[str]
) -> CleanPlan:
    """The plan, its columns learnt by cleaning a frame of one line without content."""
    rules, changed = (*rules, *STANDARD_RULES), reading.changed_ids
    plan = CleanPlan(
        dict(reading.columns), rules, PLACE, {}, changed_ids=changed, describing=tuple(describing)
    )
    empty = polars_of(_null_line(source.frame))
    found = sample_of_cleaned(empty.with_columns(pl.col(source.text).cast(pl.String)), plan)
    kinds = {
        name: "timestamp" if name == "time" else _SPARK_KINDS.get(type(kind).__name__, "string")
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
    plan: CleanPlan,
    folder: str,
    n_waves: int,
) -> Cleaned:
    from pyspark.sql import functions as F

    kinds = plan.kinds
    report = LoadReport(source.name, zone=source.zone)
    names = [name for name in storage.files(folder) if name.startswith(f"{WAVE}=")]
    if not names:
        raise DataError(
            f"{source.name} hold no line, or none of {folder} can be read back; expected receipt "
            f"lines, and a folder that every machine of the cluster sees. Check both."
        )
    everything = session.read.schema(f"{sql_schema(kinds)}, {WAVE} int").parquet(folder)
    partition = F.shiftright(LINE, PLACE_BITS)
    read = dict(polars_of(everything.groupBy(partition.alias("part")).count()).iter_rows())
    report.read = sum(read.values())
    numbers = LineNumbers(read)
    report.spans = [
        Span(local_path(file) or Path(file), "", read.get(number, 0), 1, None)
        for number, file in enumerate(source.files)
    ]
    if f"{WAVE}={REJECTED}" in names:
        bad = session.read.schema(sql_schema(kinds)).parquet(f"{folder}/{WAVE}={REJECTED}")
        _account(bad, report, numbers)
    whole = everything.filter(F.col(REASON).isNull())
    takes_back = (F.col("quantity") < 0) | (F.col("value") < 0)  # these may void lines, or are returns
    takes_back = F.coalesce(takes_back, F.lit(False))
    good = whole.filter(~takes_back)
    by_day = whole.groupBy(F.to_date("time").alias("time"))
    found = polars_of(
        by_day.agg(
            F.count(F.when(~takes_back, 1)).alias("n"),
            F.max(F.when(~takes_back, F.col("time"))).alias("latest"),
            F.max(takes_back).alias("back"),
        )
    )
    days = found.filter(pl.col("n") > 0).select("time", "n")
    refuse_if_none(int(days["n"].sum()), report)
    vocabulary, receipts = _items_of(good), _receipts_alike(good)
    alike = [*look_alikes(vocabulary), *look_alikes(_users_alike(good, kinds[USER_ID]))]
    far = far_rule(days)
    if far is not None:
        days = days.filter(~far.when)
        first, newest = days.select(pl.min("time"), pl.max("time").alias("last")).row(0)
        within = F.to_date("time").between(first, newest)
        good, whole = good.filter(within), whole.filter(takes_back | within)
    report.notes += [*receipts, *far_notes(days), *alike]
    found = found if far is None else found.filter(~far.when | pl.col("latest").is_null())
    last = _last_day(whole.withColumn("back", takes_back), found.drop_nulls("time").sort("time"))
    if last is None:
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
        _described(good, plan.describing) if plan.describing else None,
    )


def _last_day(lines: DataFrame, days: pl.DataFrame) -> date | None:
    """The day on which the newest receipt began of which something is left; None without a day.

    A receipt is dated by its first purchase, so one that went on over midnight is of the day before,
    and a day on which all was voided is none. Lines and `days` say by `back` whether something is
    taken back, days by `latest` when something was bought last.
    """
    from pyspark.sql import functions as F

    visit = timedelta(microseconds=ONE_VISIT_US)
    second, is_doubtful = F.date_trunc("second", F.col("time")).cast("string"), False
    number = [F.col("basket_id").cast("string")] if "basket_id" in lines.columns else []
    lines = lines.withColumn("receipt", F.coalesce(*number, second))
    bought = days.filter(pl.col("n") > 0)["time"]
    for day, latest, back in days[::-1].select("time", "latest", "back").iter_rows():
        is_doubtful |= back
        if latest is None:
            continue
        begin = datetime(day.year, day.month, day.day)
        if not is_doubtful and not (number and latest - begin <= visit):
            return cast(date, day)
        late = lines.filter(F.col("time") >= F.lit(str(begin - visit)).cast("timestamp_ntz"))
        receipts = late.groupBy(USER_ID, "receipt").agg(
            F.to_date(F.min(F.when(~F.col("back"), F.col("time")))).alias("day"),
            F.max("back").alias("doubtful"),
        )
        of_day = receipts.filter(F.col("day") == F.lit(day))
        if of_day.filter("not doubtful").limit(1).count():
            return cast(date, day)
        some = polars_of(late.join(of_day.filter("doubtful"), [USER_ID, "receipt"], "left_semi"))
        if some.height and _something_left(some.drop("receipt", "back")):
            return cast(date, day)
    return cast("date | None", bought.max())


def _something_left(lines: pl.DataFrame) -> bool:
    """Is anything of receipts left that hold lines which take something back?"""
    plan = UserPlan(None, datetime.max, 0, True, {})
    return data_of_lines(lines.sort(LINE), plan, None, LoadReport("day")).log.height > 0


def _items_of(lines: DataFrame) -> pl.Series:
    """Ids of their items, ascending: a vocabulary fits into memory where its log does not."""
    return polars_of(lines.select(ITEM_ID).distinct())[ITEM_ID].sort()


def _described(bought: DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """A row an item: the earliest known value of each column, `time` and `line` of its first line."""
    from pyspark.sql import functions as F

    order = F.struct("time", LINE)
    first = [F.min_by(c, F.when(F.col(c).isNotNull(), order)).alias(c) for c in names]
    found = bought.groupBy(ITEM_ID).agg(*first, F.min(order).alias("first"))
    return polars_of(found.select(ITEM_ID, *names, "first.*"))


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

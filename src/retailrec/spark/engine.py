"""The engine of receipts on Spark: items counted over all users, functions taken to them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LINE, LineRule, LoadReport
from retailrec.data.columns import unread_columns
from retailrec.data.encoding import CodedLines, places
from retailrec.data.files import FILE, read_table
from retailrec.data.history import History
from retailrec.data.ids import attributes, vocabulary
from retailrec.data.retail_data import Part, Totals
from retailrec.datasets import later_rule, require_later
from retailrec.datasets.base import PLAIN, Reading
from retailrec.datasets.other_items import likely, unmet
from retailrec.datasets.table import of_lines, rules_of, tables_beside, with_our_names
from retailrec.errors import SettingError
from retailrec.recommender.batch import Batch, ListFormat
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, LOG, USER_ID
from retailrec.spark.mapping import (
    Items,
    SparkParts,
    lasting_folder,
    polars_of,
    share,
    share_modules,
    sql_schema,
    whole_users,
)
from retailrec.spark.recommending import recommend_cleaned
from retailrec.spark.session import connect, cores, in_words
from retailrec.spark.sources import PLACE, columns_in, require_parquet, source
from retailrec.spark.staging import Cleaned, stage
from retailrec.spark.storage import HadoopStorage, absolute, local_path
from retailrec.spark.tasks import UserPlan, add_load_reports, log_lines, no_history, whole_histories

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

OfPart = Callable[[History], Totals]
_PART_LINES = 500_000
_COMBINED = {np.add: "sum", np.fmin: "min", np.fmax: "max"}


@dataclass(frozen=True)
class SparkEngine:
    """The users of a log on Spark, by its workers: an `Engine`.

    Attributes
    ----------
    log : `user_id`, `item` (code), `basket` (numbered within a user), `time`, `quantity`, `value`
    kinds : its columns' types
    n_items : number of item codes
    cleaned : the lines that the log was made of
    """

    session: SparkSession
    log: DataFrame
    kinds: dict[str, str]
    n_items: int
    cleaned: Cleaned
    _held: list[DataFrame] = field(default_factory=list)  # lines on the workers' disks

    def totals(self, of_part: OfPart, end: datetime) -> Totals:
        """`of_part` of all users: parts in workers, added up by item in Spark."""
        from pyspark.sql import functions as F

        shape = of_part(no_history(self.n_items, end))
        names, combine = _columns_of(shape)
        kinds = {"item": "integer", **dict.fromkeys(names, "double")}
        parts = partial(parts_of_log, partial(_numbers, self.n_items), end, end)
        users = SparkParts(self.session, self._of_users(end), parts, self.kinds[USER_ID])
        with in_words():
            rows, _ = users.rows(partial(item_rows, of_part), kinds)
            added = [getattr(F, how)(n).alias(n) for n, how in zip(names, combine, strict=True)]
            table = polars_of(rows.groupBy("item").agg(*added))
        items, out, at = table["item"].to_numpy(), [], 0
        for how, empty in shape:
            values, width = empty.copy(), _width(empty)
            block = table.select(names[at : at + width]).fill_null(float("nan")).to_numpy()
            values[items] = block.reshape(len(items), *values.shape[1:]).astype(values.dtype)
            out.append((how, values))
            at += width
        return out

    def lines(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) receipts with the item in [start, end)."""
        from pyspark.sql import functions as F

        return self._counted(start, end, F.count("*"))

    def buyers(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) users who bought the item in [start, end)."""
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

    def n_active(self, end: datetime) -> int:
        """Users who bought anything before `end`."""
        from pyspark.sql import functions as F

        with in_words():
            return self.log.filter(F.col("time") < instant(end)).select(USER_ID).distinct().count()

    def fingerprint(self) -> str:
        """Text that is equal where all lines are."""
        from pyspark.sql import functions as F

        line = F.xxhash64(*sorted(self.kinds))
        with in_words():
            found = self.log.agg(F.count("*"), F.sum(line.cast("decimal(38,0)"))).first()
        return str(found)

    def users(self, past: RetailData, target: pl.DataFrame, end: datetime) -> SparkParts:
        """All users of the log, whose lines stay on the workers' disks until others are asked for."""
        from pyspark import StorageLevel

        with in_words():
            while self._held:
                self._held.pop().unpersist()
            self._held.append(self._of_users(end).persist(StorageLevel.DISK_ONLY))
        parts = partial(parts_of_log, self.share(Items(past.items)), past.end, end)
        return SparkParts(self.session, self._held[0], parts, self.kinds[USER_ID])

    def share(self, value: Any) -> Callable[[], Any]:
        """What gives the value in workers: `share`."""
        return share(self.session, value)

    def write_lists(
        self,
        model: TwoStageRecommender,
        out: Path,
        request: Request,
        output: ListFormat,
        progress: Progress = silent,
    ) -> Batch:
        """Write the lists of all users, of the lines that were cleaned for the log.

        Raises
        ------
        DataError, SettingError, ArtifactError
            As `recommend`.
        """
        with TemporaryDirectory(prefix="retailrec-") as aside:
            model.save(Path(aside) / "model")
            folder = Path(aside) / "model"
            return recommend_cleaned(
                self.session, folder, self.cleaned, out, request, output, progress
            ).batch

    def _of_users(self, end: datetime) -> DataFrame:
        """Lines before `end`, parted by user, in order of user, receipt and item."""
        from pyspark.sql import functions as F

        known = self.log.filter(F.col("time") < instant(end))
        lines = known.repartition(max(cores(self.session), 2), USER_ID)
        return lines.sortWithinPartitions(USER_ID, "basket", "item")

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


def parts_of_log(
    items: Callable[[], Items],
    cutoff: datetime,
    end: datetime,
    batches: Iterator[pa.RecordBatch],
) -> Iterator[Part]:
    """Whole users, some at a time; columns that a log has not are of those asked for."""
    catalogue = items().table
    for table in whole_users(batches, _PART_LINES):
        lines = polars_of(table)
        more = [c for c in lines.columns if c not in (USER_ID, *LOG, "store", "discount")]
        users = lines.select(USER_ID, *more).unique(USER_ID, keep="first", maintain_order=True)
        log = coded_log(lines, users[USER_ID])
        known = log.filter(pl.col("time") < cutoff)
        past = RetailData(known, catalogue, users.select(USER_ID), cutoff)
        target = log.filter((pl.col("time") >= cutoff) & (pl.col("time") < end))
        yield Part(past, target, users if more else None)


def instant(time: datetime) -> Column:
    """A time as the log has it, whatever zone this machine or the session has."""
    from pyspark.sql import functions as F

    return F.lit(time.isoformat(sep=" ")).cast("timestamp_ntz")


def coded_log(lines: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The log of `RetailData` from lines of Spark's, in order of user, receipt and item.

    Users become codes of `users`; receipts, numbered within each user so far, are numbered
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


def item_rows(of_part: OfPart, part: Part) -> tuple[pl.DataFrame, None]:
    """What a part's users add to each item that they bought: `item`, and the columns of the totals."""
    past = part.past
    user = past.log["user"].to_numpy().astype(np.int64)
    history = History.from_log(past.log, user, past.users, past.end, past.n_items, "")
    totals, items = of_part(history), np.unique(history.items)
    columns = (c for _, values in totals for c in np.atleast_2d(values[items].T).astype(np.float64))
    names, _ = _columns_of(totals)
    # an extreme of nothing is no number: null, which Spark's own extremes pass over
    found = {n: pl.Series(c, nan_to_null=True) for n, c in zip(names, columns, strict=True)}
    return pl.DataFrame({"item": items, **found}), None


def _numbers(n_items: int) -> Items:
    """A catalogue of codes alone."""
    return Items(pl.DataFrame({ITEM_ID: np.arange(n_items)}))


def _numbered(user: NDArray[np.int64], basket: NDArray[Any]) -> NDArray[np.int32]:
    """Receipts numbered through, from numbers within each user; lines lie in their order."""
    new = np.ones(len(user), np.bool_)
    new[1:] = (user[1:] != user[:-1]) | (basket[1:] != basket[:-1])
    return (np.cumsum(new) - 1).astype(np.int32)


def _columns_of(totals: Totals) -> tuple[list[str], list[str]]:
    """A name for each column of the totals, and Spark's function that adds it up."""
    names, combine = [], []
    for number, (how, values) in enumerate(totals):
        if how not in _COMBINED:
            raise SettingError(f"totals are combined by add, fmin or fmax, not by {how.__name__}.")
        for column in range(_width(values)):
            names.append(f"t{number}_{column}")
            combine.append(_COMBINED[how])
    return names, combine


def _width(values: NDArray[Any]) -> int:
    return 1 if values.ndim == 1 else values.shape[1]


SAMPLE = 100_000  # users that models learn from
_LOTS = 1 << 30
_SEEN = 1_000  # lines that are looked at for columns that are not mapped
_WORKPLACE = "spark.retailrec.workplace"


class Fitted(NamedTuple):
    """What `fit` did.

    Attributes
    ----------
    model : as it was saved
    load_report : of all receipts
    n_sample : users that models learnt from
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

    All users' receipts are cleaned and coded, and counted for the facts of items: their features,
    bestsellers, prices, which are sold at all, again at each label window. Similarities, factors and
    the ranker learn from a sample of users, whose receipts come to this machine. With a sample of all
    users the model is that of the local engine, but for the order in which fractions are added.

    Parameters
    ----------
    model : settings; it is fitted in place
    receipts : a Spark DataFrame, the name of a table, or the path of Parquet
    out : folder on this machine
    items, users : one row an `item_id` / `user_id`; further columns are attributes
    sample : users to learn from, drawn by their ids
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
        raise SettingError(f"fit: sample must be at least 1 user, not {sample}.")
    session = connect() if session is None else session
    out = Path(out)
    place = absolute(out.with_name(f".{out.name}.lines") if workplace is None else workplace)
    storage = HadoopStorage(session, place)
    with storage.hold(place):
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


def start(
    receipts: Path,
    master: str | None = None,
    settings: Path | None = None,
    modules: Sequence[str] | None = None,
    progress: Progress = silent,
) -> tuple[SparkSession, Path | str]:
    """The session for receipts that the command line names, and what they are: a path or a table.

    Raises
    ------
    SettingError
        If Spark can't be used.
    DataError
        If they are a file of text.
    """
    require_parquet(receipts)
    progress("start Spark")
    session = connect(master, settings)
    share_modules(session, modules or ())
    is_path = receipts.exists() or "/" in str(receipts)
    return session, receipts if is_path else str(receipts)


def load(
    session: SparkSession,
    receipts: Path | str,
    reading: Reading,
    *,
    sample: int = SAMPLE,
    until: str | datetime | None = None,
    progress: Progress = silent,
) -> RetailData:
    """As `load_dataset` of a table: a sample of users, of which facts of items count all.

    A folder of this machine may hold items and users beside the receipts. What lies between stays until
    the program ends, in the folder that Spark's setting `spark.retailrec.workplace` names; on one
    machine a temporary one will do.

    Raises
    ------
    SettingError
        If a cluster has no such folder.
    DataError
        If the receipts can't be read, or no receipt lies before `until` or after it.
    """
    named = session.sparkContext.getConf().get(_WORKPLACE)
    if named is None:
        if not str(session.sparkContext.master).startswith("local"):
            raise SettingError(
                f"on a cluster cleaned receipts need a folder that every machine sees; name it in the "
                f'file of --spark-settings: "{_WORKPLACE}" = "hdfs://...".'
            )
        named = str(lasting_folder())
    kept, there = reading.kept("table"), columns_in(session, receipts)
    here = local_path(absolute(receipts)) if isinstance(receipts, Path) else None
    beside = (None, None) if here is None else tables_beside(here)
    items, users = (None if file is None else read_table(file) for file in beside)
    columns, describing = of_lines(reading, there, items)
    data = sampled_data(
        session,
        receipts,
        f"{absolute(named).rstrip('/')}/{token_hex(8)}",
        items=None if items is None else with_our_names(items, reading.columns),
        users=None if users is None else with_our_names(users, reading.columns),
        sample=sample,
        reading=replace(reading, columns=columns),
        line_rules=rules_of(replace(reading, columns=columns), there, items),
        describing=describing,
        until=until,
        progress=progress,
    )
    data.report.reading = kept
    if items is not None:
        data.report.notes += unmet(reading.not_products, with_our_names(items, reading.columns))
    data.report.notes += likely(data)
    return data


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
    describing: Sequence[str] = (),
    until: str | datetime | None = None,
    progress: Progress = silent,
) -> RetailData:
    """A sample of users as `RetailData`, whose `population` counts all users.

    `describing` are columns of the lines that describe items, by standard names: the earliest known
    value counts. Item codes are those of all items; `report` is that of all receipts. What lies between
    stays in `folder` for as long as the data is used.

    Raises
    ------
    DataError
        If the receipts can't be read.
    """
    progress("load receipts")
    with in_words():
        given = source(session, receipts, reading.columns)
        if isinstance(receipts, str | Path):  # the plan of a DataFrame would be computed for it
            some = polars_of(given.frame.drop(PLACE, FILE).limit(_SEEN))
            given = replace(given, notes=(*given.notes, *unread_columns(some, reading.columns, items)))
        progress("clean receipts")
        later = () if until is None else (later_rule(until),)
        rules = (*line_rules, *(rule for _, rule in later))
        cleaned = stage(session, given, reading, f"{folder}/lines", rules, describing=describing)
        for end, rule in later:
            require_later(end, rule, cleaned.report)
            cleaned = replace(cleaned, end=end)
        raw, report = copy.deepcopy(cleaned.report), cleaned.report
        said = {} if cleaned.described is None else {ITEM_ID: cleaned.described}
        coded = CodedLines([], {ITEM_ID: cleaned.vocabulary}, said)
        table = attributes(items, ITEM_ID, coded, describing, report, reading.changed_ids)
        catalogue = vocabulary(table, cleaned.vocabulary, ITEM_ID)
        progress("code receipts")
        kinds, log = _coded_log(session, cleaned, catalogue[ITEM_ID], f"{folder}/log")
        n_users = report.n_users
        chosen = log
        if sample < n_users:
            from pyspark.sql import functions as F

            share = int(_LOTS * sample / n_users)
            chosen = log.filter(F.pmod(F.xxhash64(USER_ID, F.lit("sample")), F.lit(_LOTS)) < share)
        lines = polars_of(chosen).sort(USER_ID, "basket", "item")
    ids, about = lines[USER_ID].unique().sort(), None
    if users is not None:
        coded = CodedLines([], {USER_ID: ids}, {})
        about = attributes(users, USER_ID, coded, (), report, reading.changed_ids)
        if about is not None and sample < n_users:
            about = about.filter(pl.col(USER_ID).cast(ids.dtype, strict=False).is_in(ids.implode()))
    people = vocabulary(about, ids, USER_ID)
    population = SparkEngine(session, log, kinds, catalogue.height, replace(cleaned, report=raw))
    return RetailData(
        coded_log(lines, people[USER_ID]),
        catalogue,
        people,
        cleaned.end,
        report,
        population,
        reading.changed_ids or ChangedIds(),
    )


def _coded_log(
    session: SparkSession, cleaned: Cleaned, items: pl.Series, folder: str
) -> tuple[dict[str, str], DataFrame]:
    """The log of all users on disk: cleaned, receipts put together, items by code."""
    kinds: dict[str, str] = {
        USER_ID: cleaned.kinds[USER_ID],
        "item": "integer",
        "basket": "integer",
        "time": "timestamp",
        "quantity": "double",
        "value": "double",
        **{c: cleaned.kinds[c] for c in ("store", "discount") if c in cleaned.kinds},
    }
    plan = UserPlan(cleaned.far, cleaned.end, _PART_LINES, True, {})
    lines = (
        cleaned.all_lines(session)
        .repartition(max(cores(session), -(-cleaned.n_lines // 2_000_000)), USER_ID)
        .sortWithinPartitions(USER_ID, LINE)
    )
    users = SparkParts(session, lines, partial(whole_histories, plan), kinds[USER_ID])
    reports = users.write(partial(log_lines, items), kinds, folder)
    add_load_reports(reports, cleaned.report, cleaned.numbers)
    log = session.read.schema(sql_schema(kinds)).parquet(folder)
    cleaned.report.n_items = log.select("item").distinct().count()
    return kinds, log

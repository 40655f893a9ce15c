"""Facts of items, counted over everybody's receipts on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.encoding import places
from retailrec.data.history import History
from retailrec.data.whole import Totals
from retailrec.errors import SettingError
from retailrec.schema import USER_ID
from retailrec.spark.failures import in_words
from retailrec.spark.session import cores
from retailrec.spark.tasks import hold_to_task, whole_shoppers

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame, SparkSession

    from retailrec.spark.staging import Cleaned

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

    from retailrec.features.parts import add_totals

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

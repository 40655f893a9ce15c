"""Receipts in bulk: files or data sets into the store, and the store into files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from sqlalchemy import Connection, select, update

from retailrec.compute.progress import Progress, silent
from retailrec.data import RetailData
from retailrec.data.cleaning import STANDARD_RULES, LoadReport
from retailrec.data.encoding import CodedLines, build_log, code_lines, parts_of
from retailrec.data.files import whole_numbers
from retailrec.data.writing import whole_file
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.serving import schema
from retailrec.serving.connections import is_sqlite
from retailrec.serving.receipts import AMOUNTS, LONGEST_ID, is_whole, midnight_after, moment
from retailrec.serving.store import Store

_CHUNK = 20_000  # receipts a transaction; a rerun after a stop takes them for known
_COPY = "COPY incoming (shopper, number, time, items, amounts) FROM STDIN (FORMAT BINARY)"


class Loaded(NamedTuple):
    """What a load brought: receipts and lines read, and receipts that were not there before."""

    receipts: int
    lines: int
    new: int


def load_frames(
    store: Store,
    transactions: Any,
    *,
    columns: Mapping[str, str] | None = None,
    report: LoadReport | None = None,
    time_format: str | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Store receipt lines, cleaned and merged as `RetailData.from_frames` does.

    Receipts keep their number (`basket_id`); without one they are called by their time.
    """
    report = report or LoadReport("transactions")
    coded = code_lines(parts_of(transactions), columns, STANDARD_RULES, report, {}, time_format)
    users = pl.DataFrame({USER_ID: coded.ids[USER_ID]})
    items = pl.DataFrame({ITEM_ID: coded.ids[ITEM_ID]})
    heads = _heads(coded)
    log = build_log(coded, users, items, report)
    report.kept, report.n_users, report.n_items = log.height, len(users), len(items)
    report.n_baskets = log["basket"].n_unique()
    report.first, report.last = _moments(log["time"])
    numbers = _numbers(heads, coded.ids.get("basket_id"), log)
    return _load(store, log, users[USER_ID], items[ITEM_ID], numbers, progress)


def load_data(store: Store, data: RetailData, progress: Progress = silent) -> Loaded:
    """Store the receipts and the shoppers' attributes of data that is in memory.

    The data has no receipt numbers, so receipts are called by their time, and those of one time of a
    shopper are counted.
    """
    log = data.log
    first = np.flatnonzero(np.diff(log["basket"].to_numpy(), prepend=-1))
    named = log.select("user", "time")[first].with_columns(
        pl.int_range(pl.len()).over("user", "time").cast(pl.String).str.zfill(4).alias("n")
    )
    numbers = named.select(pl.format("{}-{}", pl.col("time").dt.strftime("%Y%m%dT%H%M%S%.6f"), "n"))
    found = _load(store, log, data.users[USER_ID], data.items[ITEM_ID], numbers.to_series(), progress)
    describe(store, data.users)
    return found


def describe(store: Store, users: pl.DataFrame) -> int:
    """Store the shoppers' attributes; number of shoppers that have any."""
    names = [c for c in users.columns if c != USER_ID]
    known = (
        users.filter(pl.any_horizontal(pl.col(c).is_not_null() for c in names)) if names else users[:0]
    )
    plain = known.with_columns(
        pl.col(c).cast(pl.String) for c in names if not known[c].dtype.is_numeric()
    )
    facts = {
        str(row.pop(USER_ID)): {name: value for name, value in row.items() if value is not None}
        for row in plain.iter_rows(named=True)
    }
    store.describe(facts)
    return len(facts)


def export(store: Store, out: Path) -> int:
    """Write all receipt lines to a Parquet file; number of lines.

    The columns are those that a load takes: `user_id`, `item_id`, `basket_id`, `time`, `quantity`,
    and `value` and `discount` where any line has one. Ids are integers where all of a kind are.

    Raises
    ------
    DataError
        If the file's name does not end in .parquet.
    """
    if out.suffix != ".parquet":
        raise DataError(f"{out} must end in .parquet.")
    parts = list(_parts(store))
    frame = pl.concat(parts) if parts else pl.DataFrame(schema=_EXPORT)
    frame = frame.with_columns(pl.col("value", "discount").fill_nan(None))
    unknown = [c for c in ("value", "discount") if frame[c].is_null().all()]
    ids = [whole_numbers(frame[c]) for c in ("user_id", "item_id", "basket_id")]
    with whole_file(out) as partial:
        frame.drop(unknown).with_columns(ids).write_parquet(partial)
    return frame.height


def export_shoppers(store: Store, out: Path) -> int:
    """Write the shoppers' attributes to a Parquet file, one row a shopper; number of shoppers."""
    import json

    table = schema.shoppers
    with store.reader() as connection:
        rows = connection.execute(select(table.c.id, table.c.attributes).order_by(table.c.id)).all()
    facts = [{USER_ID: row.id} | json.loads(row.attributes) for row in rows]
    frame = pl.DataFrame(
        facts or None,
        schema=None if facts else {USER_ID: pl.String},
        strict=False,
        infer_schema_length=None,
    )
    with whole_file(out) as partial:
        frame.with_columns(whole_numbers(frame[USER_ID])).write_parquet(partial)
    return frame.height


def export_exposures(store: Store, shadow: bool = False) -> pl.DataFrame:
    """The exposure log as a frame, in the columns of the ledger of offers; without shadow models."""
    rows = [row for row in store.exposures() if shadow or not row["shadow"]]
    kinds = {
        "campaign": pl.String,
        "user_id": pl.String,
        "item_id": pl.String,
        "time": pl.Int64,
        "model": pl.String,
        "rank": pl.Int32,
        "score": pl.Float64,
        "price": pl.Float64,
        "arm": pl.String,
        "propensity": pl.Float64,
        "holdout": pl.Boolean,
    }
    frame = pl.DataFrame([{name: row[name] for name in kinds} for row in rows], schema=kinds)
    return frame.with_columns(pl.col("time").cast(pl.Datetime("us")))


_EXPORT: dict[str, Any] = {
    "user_id": pl.String,
    "item_id": pl.String,
    "basket_id": pl.String,
    "time": pl.Datetime("us"),
    "quantity": pl.Float64,
    "value": pl.Float64,
    "discount": pl.Float32,
}


def _parts(store: Store) -> Iterator[pl.DataFrame]:
    """All lines, some receipts at a time."""
    table = schema.receipts
    columns = (table.c.shopper, table.c.number, table.c.time, table.c["items"], table.c.amounts)
    with store.snapshot() as connection:
        found = connection.execution_options(yield_per=10_000).execute(select(*columns))
        for rows in found.partitions():
            full = [row for row in rows if row[3]]
            items = "\n".join([row[3] for row in full])
            amounts = np.frombuffer(b"".join([bytes(row[4]) for row in full]), AMOUNTS)
            size = np.array([row[3].count("\n") + 1 for row in full], np.int64)
            place = np.repeat(np.arange(len(full)), size)
            heads = pl.DataFrame(
                [row[:3] for row in full], schema=list(_EXPORT)[:1] + list(_EXPORT)[2:4], orient="row"
            )
            if not full:
                continue
            yield pl.DataFrame(
                {
                    "user_id": heads["user_id"].gather(place),
                    "item_id": items.split("\n"),
                    "basket_id": heads["basket_id"].gather(place),
                    "time": heads["time"].cast(pl.Datetime("us")).gather(place),
                    "quantity": amounts["quantity"].copy(),
                    "value": amounts["value"].copy(),
                    "discount": amounts["discount"].copy(),
                },
                schema=_EXPORT,
            )


def _heads(coded: CodedLines) -> pl.DataFrame:
    """`user`, `key` (place of the receipt's id, null without one), `time` of the lines, each once."""
    key = pl.col("basket_id") if "basket_id" in coded.ids else pl.lit(None, pl.Int32)
    parts = [
        part.select(user=pl.col("user_id"), key=key, time=pl.col("time")).unique()
        for part in coded.lines
    ]
    return pl.concat(parts).unique()


def _numbers(heads: pl.DataFrame, ids: pl.Series | None, log: pl.DataFrame) -> pl.Series:
    """The number of each receipt of the log, in order.

    A receipt is found again by its shopper and time; several of one time are in order of their ids. A
    receipt without an id is called by its time; one whose number the shopper had before (a till that
    counts anew), by both.
    """
    first = pl.col("time") == pl.col("time").min().over("user", "key")
    known = heads.with_columns(first=first & pl.col("key").is_not_null())
    # of the ids with a line at that time, those whose receipt begins there
    known = known.sort("user", "time", pl.col("first").not_(), "key", nulls_last=True)
    known = known.with_columns(place=pl.int_range(pl.len()).over("user", "time"))
    starts = np.flatnonzero(np.diff(log["basket"].to_numpy(), prepend=-1))
    baskets = log.select("user", "time")[starts].with_columns(
        place=pl.int_range(pl.len()).over("user", "time")
    )
    found = baskets.join(known, on=["user", "time", "place"], how="left", maintain_order="left")
    by_time = found["time"].dt.strftime("%Y%m%dT%H%M%S")
    if ids is None:
        return by_time.alias("number")
    own = ids.cast(pl.String).gather(found["key"])
    both = pl.format("{}@{}", own, by_time)
    return found.select(
        number=pl.when(pl.Series(found["first"])).then(own).otherwise(pl.coalesce(both, by_time))
    )["number"]


def _load(
    store: Store,
    log: pl.DataFrame,
    users: pl.Series,
    items: pl.Series,
    numbers: pl.Series,
    progress: Progress,
) -> Loaded:
    """Log rows, in order of receipt, as rows of the store; `numbers` has one of each receipt."""
    basket = log["basket"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(basket, prepend=-1)), len(basket))
    _check(users.cast(pl.String), "shopper")
    _check(items.cast(pl.String), "item")
    _check(numbers, "receipt number")
    amounts = np.empty(log.height, AMOUNTS)
    for name in AMOUNTS.names or ():
        there = name in log.columns
        amounts[name] = log[name].fill_null(float("nan")).to_numpy() if there else np.nan
    heads = log.select("user", "time")[starts[:-1]]
    shopper = users.cast(pl.String).gather(heads["user"]).to_list()
    time = heads["time"].to_physical().to_list()
    number = numbers.to_list()
    item, raw = items.cast(pl.String), amounts.tobytes()
    width, new = AMOUNTS.itemsize, 0
    text_numbers = not all(map(is_whole, number))
    for at in range(0, len(number), _CHUNK):
        stop = min(at + _CHUNK, len(number))
        lines = log["item"][int(starts[at]) : int(starts[stop])]
        names, first = item.gather(lines).to_list(), int(starts[at])
        rows = [
            (
                shopper[i],
                number[i],
                time[i],
                "\n".join(names[starts[i] - first : starts[i + 1] - first]),
                raw[starts[i] * width : starts[i + 1] * width],
            )
            for i in range(at, stop)
        ]
        with store.transaction(long=True) as connection:
            new += _insert(connection, store, rows)
            _note(
                connection,
                store,
                sorted({row[0] for row in rows}),
                max(row[2] for row in rows),
                text_numbers,
            )
        progress("store receipts", stop, len(number))
    return Loaded(len(number), log.height, new)


def _check(ids: pl.Series, what: str) -> None:
    from retailrec.serving.receipts import check_id

    odd = ids.filter((ids.str.len_chars() > LONGEST_ID) | ids.str.contains(r"[^\x20-\x7e]"))
    for text in odd.unique():
        check_id(text, what)


def _insert(connection: Connection, store: Store, rows: Sequence[tuple[Any, ...]]) -> int:
    """Rows that were not there before."""
    if is_sqlite(store.writing):
        driver: Any = connection.connection.driver_connection
        cursor = driver.executemany(
            "INSERT INTO receipts (shopper, number, time, items, amounts) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            rows,
        )
        return int(cursor.rowcount)
    connection.exec_driver_sql("CREATE TEMPORARY TABLE incoming (LIKE receipts) ON COMMIT DROP")
    driver = connection.connection.driver_connection
    with driver.cursor() as cursor:
        with cursor.copy(_COPY) as copy:
            copy.set_types(["varchar", "varchar", "int8", "text", "bytea"])
            for row in rows:
                copy.write_row(row)
        cursor.execute(
            "INSERT INTO receipts SELECT * FROM incoming ORDER BY shopper, number "
            "ON CONFLICT DO NOTHING"
        )
        return int(cursor.rowcount)


def _note(
    connection: Connection, store: Store, shoppers: Iterable[str], last: int, text_numbers: bool
) -> None:
    """Another version for each shopper, and the state."""
    store.touch(connection, list(shoppers))
    one, ends = schema.state, midnight_after(last)
    connection.execute(update(one).where((one.c.ends < ends) | one.c.ends.is_(None)).values(ends=ends))
    if text_numbers:
        connection.execute(update(one).where(one.c.text_numbers.is_(False)).values(text_numbers=True))


def _moments(times: pl.Series) -> tuple[datetime, datetime]:
    """The first and the last of some times."""
    us = times.to_physical()
    return moment(int(us.min())), moment(int(us.max()))  # type: ignore[arg-type]

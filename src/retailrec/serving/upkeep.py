"""A store out to files, and kept whole: exports, pruning, backups, the list of forgotten ids."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from sqlalchemy import (
    ColumnElement,
    Connection,
    Table,
    delete,
    func,
    select,
    update,
)

from retailrec.data.files import whole_numbers, with_whole_numbers
from retailrec.errors import DataError, SettingError
from retailrec.offers.ledger import LEDGER
from retailrec.schema import ITEM_ID, POOL, USER_ID
from retailrec.serving import schema
from retailrec.serving.database import is_sqlite, said_plainly
from retailrec.serving.forgetting import add_hashes, forget_key, hash_of
from retailrec.serving.receipts import (
    AMOUNTS,
    SECOND,
    unpack_lines,
)
from retailrec.serving.store import Store
from retailrec.work import folder_aside, sha256, whole_file, write_result

_FORMAT = "retailrec: hashes of forgotten ids"
_LOG_ROWS = 50_000  # of the log of what was shown that are in memory while it is exported


def export(store: Store, file: Path) -> int:
    """Write all receipt lines to a Parquet file; number of lines.

    The columns are those that a load takes: `user_id`, `item_id`, `basket_id`, `time`, `quantity`,
    and `value` and `discount` where any line has one. Ids are integers where all of a kind are.
    """
    return _write_parts(_parts(store), _EXPORT, file, _EXPORTED_IDS, ("value", "discount"))


def export_shoppers(store: Store, file: Path) -> int:
    """Write the shoppers' attributes to a Parquet file, one row a shopper; number of shoppers."""
    table = schema.shoppers
    with store.snapshot() as connection:
        rows = connection.execute(select(table.c.id, table.c.attributes).order_by(table.c.id)).all()
    facts = [{USER_ID: row.id} | json.loads(row.attributes) for row in rows]
    none = None if facts else {USER_ID: pl.String}
    frame = pl.DataFrame(facts or None, schema=none, strict=False, infer_schema_length=None)
    frame.with_columns(_integers(frame[USER_ID])).write_parquet(file)
    return frame.height


def export_denials(store: Store) -> pl.DataFrame:
    """Items that are denied to shoppers, as the rule `deny` reads them."""
    frame = pl.DataFrame(store.denials(), {USER_ID: pl.String, ITEM_ID: pl.String}, orient="row")
    return frame.with_columns(_integers(frame[c]) for c in frame.columns)


def export_dismissals(store: Store) -> pl.DataFrame:
    """What shoppers dismissed, as `recommend --dismissals` reads it."""
    rows = [
        (shopper, one.item, one.since, one.category, (one.until - one.since) / (7 * 86_400e6))
        for shopper, one in store.dismissals()
    ]
    text = {USER_ID: pl.String, ITEM_ID: pl.String}
    kinds = text | {"time": pl.Int64, "category": pl.Boolean, "weeks": pl.Float64}
    frame = pl.DataFrame(rows, kinds, orient="row")
    ids = (_integers(frame[c]) for c in (USER_ID, ITEM_ID))
    return frame.with_columns(*ids, pl.col("time").cast(pl.Datetime("us")))


def export_exposures(store: Store, file: Path, shadow: bool = False) -> int:
    """Write the exposure log to a Parquet file in the columns of the ledger of offers; number of rows.

    Answers of shadow models are left out, unless asked for.
    """
    rows = _log(
        store, schema.exposures, LEDGER, () if shadow else (schema.exposures.c.shadow.is_(False),)
    )
    return _write_parts(rows, LEDGER, file)


def export_pools(store: Store, file: Path) -> int:
    """Write the pools of explored lists to a Parquet file in the columns of `POOL`; number of rows."""
    return _write_parts(_log(store, schema.pools, POOL), POOL, file)


def _integers(ids: pl.Series) -> pl.Series:
    """Stored ids as integers where all are; 12.0, which was posted so, is not 12."""
    return ids if ids.str.ends_with(".0").any() else whole_numbers(ids)


def _log(
    store: Store, table: Table, kinds: Mapping[str, Any], where: Sequence[ColumnElement[bool]] = ()
) -> Iterator[pl.DataFrame]:
    """Rows of a log, oldest first, some at a time."""
    statement = select(*(table.c[name] for name in kinds)).where(*where).order_by(table.c.id)
    raw = {**kinds, "time": pl.Int64}
    with store.snapshot() as connection:
        found = connection.execution_options(yield_per=_LOG_ROWS).execute(statement)
        for rows in found.partitions():
            frame = pl.DataFrame([tuple(row) for row in rows], raw, orient="row")
            yield frame.with_columns(pl.col("time").cast(kinds["time"]))


def _write_parts(
    parts: Iterable[pl.DataFrame],
    kinds: Mapping[str, Any],
    file: Path,
    ids: Sequence[str] = (),
    if_any: Sequence[str] = (),
) -> int:
    """Write parts below each other as they come, so that one at a time is in memory; number of rows.

    Parameters
    ----------
    kinds : columns and their types
    ids : text columns that become integers where all their cells are whole numbers
    if_any : columns that are left out where no cell is filled
    """
    n, files = 0, list[Path]()
    with folder_aside(file.parent, 0o700) as aside:
        for part in parts:
            files.append(aside / f"{len(files):06}.parquet")
            part.write_parquet(files[-1])
            n += part.height
        table = pl.scan_parquet(files, glob=False) if files else pl.LazyFrame(schema=kinds)
        said = table.select(
            *(pl.col(c).is_null().all() for c in if_any),
            *(pl.col(c).str.ends_with(".0").any() for c in ids),
        ).collect(engine="streaming")
        table = table.drop(c for c in if_any if said[c].item())
        with_whole_numbers(table, [c for c in ids if not said[c].item()]).sink_parquet(file)
    return n


_EXPORTED_IDS = ("user_id", "item_id", "basket_id")
_EXPORT: dict[str, Any] = {
    **dict.fromkeys(_EXPORTED_IDS, pl.String),
    "time": pl.Datetime("us"),
    **dict.fromkeys(("quantity", "value"), pl.Float64),
    "discount": pl.Float32,
}


def _parts(store: Store) -> Iterator[pl.DataFrame]:
    """All lines, some receipts at a time."""
    table = schema.receipts
    columns = (table.c.shopper, table.c.number, table.c.time, table.c["items"], table.c.amounts)
    with store.snapshot() as connection:
        found = connection.execution_options(yield_per=10_000).execute(select(*columns))
        for rows in found.partitions():
            sizes, items, amounts = unpack_lines([row[3] for row in rows], [row[4] for row in rows])
            if not items:
                continue
            names = ["user_id", "basket_id", "time"]
            heads = pl.DataFrame([tuple(row)[:3] for row in rows], schema=names, orient="row")
            lines = heads.with_columns(pl.col("time").cast(_EXPORT["time"]))
            yield (
                lines[np.repeat(np.arange(len(rows)), sizes)]
                .with_columns(
                    pl.Series("item_id", items),
                    *(pl.Series(name, amounts[name].copy()) for name in AMOUNTS.names or ()),
                )
                .select(pl.col(name).cast(kind) for name, kind in _EXPORT.items())
                .with_columns(pl.col("value", "discount").fill_nan(None))
            )


# -- pruned, backed up, restored ---------------------------------------------------------------------


class Applied(NamedTuple):
    """What `apply_list` did: hashes that are new on the list, and rows removed by table."""

    new: int
    removed: dict[str, int]


def compact(store: Store, before: datetime | None = None) -> dict[str, int]:
    """Remove receipts and what was shown before `before`, then give the room back; rows removed.

    An SQLite file is a new one then: in its old pages SQLite may have left copies of rows that it
    moved, also of users who were forgotten since.
    """
    removed = {}
    if before is not None:
        us = int((before - datetime(1970, 1, 1)).total_seconds()) * SECOND
        with store.transaction(long=True) as connection:
            mine = select(schema.receipts.c.shopper).where(schema.receipts.c.time < us)
            # another version than any cached one; the shopper may be read right now
            changed = schema.shoppers.c.id.in_(mine)
            connection.execute(
                update(schema.shoppers).where(changed).values(version=schema.shoppers.c.version + 1)
            )
            for table in (schema.receipts, schema.exposures, schema.pools):
                found = connection.execute(delete(table).where(table.c.time < us))
                removed[table.name] = found.rowcount
            store.recount(connection)
    with said_plainly(store.writing):
        engine = store.writing.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not is_sqlite(engine):
                connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM")
            if not is_sqlite(engine):  # which needs no statistics, and may keep ids of users there
                connection.exec_driver_sql("ANALYZE")
                connection.exec_driver_sql(f"SET statement_timeout = {int(store.timeout * 1000)}")
    store.sweep()
    return removed


def back_up(store: Store, out: Path) -> int:
    """Write one instant of an SQLite store to a new file, while others use it; number of receipts.

    The file is for its owner alone and needs no other beside it. ``OUT.sha256`` holds its checksum, as
    ``sha256sum -c`` reads it.

    Raises
    ------
    SettingError
        If the store is in PostgreSQL, which has `pg_dump`.
    DataError
        If there is no such store, or one of the files is there or can't be written.
    """
    if not _require_sqlite(store).is_file():
        raise DataError(f"there is no store {store.file}. Check --store.")
    checksum = _checksum_of(out)
    for file in (out, checksum):
        _refuse_existing(file)
    with whole_file(checksum) as line, whole_file(out) as partial:
        with store.reader() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(partial),))
        receipts = _require_backup(partial)
        line.write_text(f"{sha256(partial)}  {out.name}\n", encoding="utf-8")
    return receipts


def restore(file: Path, store: Store, forgotten: Path | None = None) -> Applied | None:
    """Make an SQLite store from a backup, in this version's tables; `forgotten`: as of `apply_list`.

    The store's file appears when all is done.

    Raises
    ------
    SettingError
        If the store is in PostgreSQL, which has `pg_restore`.
    DataError
        If the file is no whole backup, or the store's file, or the log of one, is there.
    """
    target = _require_sqlite(store)
    for there in (target, Path(f"{target}-wal"), Path(f"{target}-journal")):
        _refuse_existing(there)
    if not file.is_file():
        raise DataError(f"there is no file {file}. Check the path.")
    checksum = _checksum_of(file)
    if checksum.is_file() and checksum.read_text(encoding="utf-8").split()[:1] != [sha256(file)]:
        raise DataError(
            f"{file} is not the file of which {checksum} is the checksum. Take another backup."
        )
    with whole_file(target) as partial:
        shutil.copyfile(file, partial)
        _require_backup(partial, file)
        new = Store(str(partial))
        try:
            new.init()
            applied = None if forgotten is None else apply_list(new, forgotten)
            compact(new)  # else copies of rows that SQLite moved may be left in its pages
        finally:
            new.close()
    return applied


def _refuse_existing(file: Path) -> None:
    if file.exists() or file.is_symlink():
        raise DataError(f"{file} is there already, and is not written over. Name another file.")


def _checksum_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.sha256")


def _require_sqlite(store: Store) -> Path:
    if store.file is None:
        raise SettingError(
            "a store in PostgreSQL is backed up by pg_dump -Fc and put back by pg_restore into an "
            "empty database; then run: retailrec store init"
        )
    return store.file


def _require_backup(file: Path, name: Path | None = None) -> int:
    """Number of receipts of a store's file; a DataError if it is damaged or none."""
    name = name or file
    try:
        with closing(sqlite3.connect(file)) as connection:
            ((said, *_), *_) = connection.execute("PRAGMA integrity_check(1)").fetchall()
            if said == "ok":
                connection.execute(f"SELECT version FROM {schema.versions.name}").fetchall()
                return int(connection.execute("SELECT count(*) FROM receipts").fetchone()[0])
    except sqlite3.DatabaseError as error:
        said = str(error)
    raise DataError(f"{name} is no whole backup of a store ({said.splitlines()[0]}). Take another one.")


def write_list(store: Store, file: Path, overwrite: bool = False) -> int:
    """Write the list to a JSON file, for a store that is restored or made again; number of hashes.

    Raises
    ------
    DataError
        If the file is there, and no list or one of users whom this store's does not have; unless
        `overwrite`.
    """
    table = schema.forgotten
    with store.reader() as connection:
        key = forget_key(connection)
        rows = connection.execute(select(table.c.hash, table.c.since).order_by(table.c.id)).all()
    hashes = {row.hash: row.since for row in rows}
    if file.exists() and not overwrite and (more := set(_read_list(file)[1]) - set(hashes)):
        raise DataError(
            f"{file} lists {len(more):,} ids that this store's list does not have, and is not written "
            f"over. With --apply the store keeps to it; --overwrite or another name writes the store's."
        )
    write_result(json.dumps({"format": _FORMAT, "key": key, "since": hashes}, indent=1) + "\n", file)
    return len(hashes)


def apply_list(store: Store, file: Path) -> Applied:
    """Put the hashes of a file on the store's list, and remove all that is stored of these users.

    Raises
    ------
    DataError
        If the file is none that `write_list` wrote, or comes from a store with another key while this
        one has a list of its own.
    """
    key, hashes = _read_list(file)
    with store.transaction(long=True) as connection:
        before = _n_forgotten(connection)
        if forget_key(connection) != key:
            if before:
                raise DataError(
                    f"{file} comes from a store with another key, and this one has a list of its own; "
                    f"the two can't be made one. Forget these ids by name."
                )
            connection.execute(update(schema.state).values(forget_key=key))
        add_hashes(connection, hashes)
        new = _n_forgotten(connection) - before
        wanted, removed = set(hashes), Counter(dict.fromkeys(schema.OF_USERS, 0))
        for user in store.users(connection):
            if hash_of(key, user) in wanted:
                removed.update(store.remove_rows(connection, user))
        store.recount(connection)
    store.sweep()
    return Applied(new, dict(removed))


def _read_list(file: Path) -> tuple[str, list[str]]:
    """The key and the hashes of a list of forgotten ids."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        key, hashes = found["key"], sorted(found["since"])
        right = found["format"] == _FORMAT and len(bytes.fromhex(key)) == 32
        right = right and all(len(bytes.fromhex(one)) == 32 for one in hashes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} can't be read as a list of forgotten ids ({error}).") from error
    if not right:
        raise DataError(
            f"{file} is no list of forgotten ids; expected what `retailrec store forgotten` wrote."
        )
    return key, hashes


def _n_forgotten(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schema.forgotten)).scalar_one()

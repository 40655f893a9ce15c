"""What keeps a store small, and carries its list of forgotten ids to a store that is restored."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select, update

from retailrec.errors import DataError
from retailrec.serving import schema
from retailrec.serving.connections import is_sqlite, said_plainly
from retailrec.serving.forgetting import add_hashes, hash_of
from retailrec.serving.store import Store
from retailrec.work import write_result

_FORMAT = "retailrec: hashes of forgotten ids"


class Applied(NamedTuple):
    """What `apply_list` did: hashes that are new on the list, and rows removed by table."""

    new: int
    removed: dict[str, int]


def compact(store: Store, before: datetime | None = None) -> dict[str, int]:
    """Remove receipts and exposures older than `before`, then give the room back; rows removed."""
    removed = {}
    if before is not None:
        us = int((before - datetime(1970, 1, 1)).total_seconds()) * 1_000_000
        with store.transaction(long=True) as connection:
            mine = select(schema.receipts.c.shopper).where(schema.receipts.c.time < us)
            # another version than any cached one; the shopper may be read right now
            changed = schema.shoppers.c.id.in_(mine)
            connection.execute(
                update(schema.shoppers).where(changed).values(version=schema.shoppers.c.version + 1)
            )
            for table in (schema.receipts, schema.exposures):
                found = connection.execute(delete(table).where(table.c.time < us))
                removed[table.name] = found.rowcount
            store.recount(connection)
    with said_plainly(store.writing):
        engine = store.writing.execution_options(isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            if not is_sqlite(engine):
                connection.exec_driver_sql("SET statement_timeout = 0")
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("ANALYZE")
            if not is_sqlite(engine):
                connection.exec_driver_sql(f"SET statement_timeout = {int(store.timeout * 1000)}")
    store.sweep()
    return removed


def write_list(store: Store, file: Path) -> int:
    """Write the list to a JSON file, for a store that is restored or made anew; number of hashes."""
    table = schema.forgotten
    with store.reader() as connection:
        key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
        rows = connection.execute(select(table.c.hash, table.c.since).order_by(table.c.id)).all()
    hashes = {row.hash: row.since for row in rows}
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
    try:
        found = json.loads(file.read_text())
        key, hashes = found["key"], sorted(found["since"])
        right = found["format"] == _FORMAT and len(bytes.fromhex(key)) == 32
        right = right and all(len(bytes.fromhex(one)) == 32 for one in hashes)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{file} can't be read as a list of forgotten ids ({error}).") from error
    if not right:
        raise DataError(
            f"{file} is no list of forgotten ids; expected what `retailrec store forgotten` wrote."
        )
    with store.transaction(long=True) as connection:
        own = connection.execute(select(schema.state.c.forget_key)).scalar_one()
        if own != key:
            if connection.execute(select(func.count()).select_from(schema.forgotten)).scalar():
                raise DataError(
                    f"{file} comes from a store with another key, and this one has a list of its own; "
                    f"the two can't be made one. Forget these ids by name."
                )
            connection.execute(update(schema.state).values(forget_key=key))
        before = connection.execute(select(func.count()).select_from(schema.forgotten)).scalar() or 0
        add_hashes(connection, hashes)
        after = connection.execute(select(func.count()).select_from(schema.forgotten)).scalar() or 0
        wanted, removed = set(hashes), dict.fromkeys(schema.OF_USERS, 0)
        for user in list(_users(connection)):
            if hash_of(key, user) in wanted:
                for name, n in store.remove_rows(connection, user).items():
                    removed[name] += n
        store.recount(connection)
    store.sweep()
    return Applied(after - before, removed)


def _users(connection: Connection) -> set[str]:
    """Everybody of whom anything is stored."""
    found: set[str] = set()
    for column in schema.OF_USERS.values():
        found.update(connection.execute(select(column).distinct()).scalars())
    return found

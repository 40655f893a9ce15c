"""What keeps a store small."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, select, update

from retailrec.serving import schema
from retailrec.serving.connections import is_sqlite, said_plainly
from retailrec.serving.store import Store


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

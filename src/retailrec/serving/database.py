"""The database of a store: opened, made or brought up to date, and spoken to in transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from sqlalchemy import Connection, Engine
from sqlalchemy.dialects import postgresql, sqlite

from retailrec.errors import DataError
from retailrec.serving import schema
from retailrec.serving.connections import engines, is_sqlite, name_of, said_plainly


@dataclass
class Database:
    """Engines behind one URL, the tables' version, and transactions.

    Parameters
    ----------
    url : path of an SQLite file, ``sqlite:///...``, or ``postgresql://user@host/database``
    connections : how many may be open at a time
    timeout : seconds to wait for the database
    """

    url: str = field(repr=False)  # may hold a password
    connections: int = 4
    timeout: float = 5.0
    reading: Engine = field(init=False, repr=False)
    writing: Engine = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.reading, self.writing = engines(self.url, self.connections, self.timeout)
        self.unswept = False  # may the write-ahead log hold what was forgotten?
        self._upsert = (sqlite if is_sqlite(self.writing) else postgresql).insert

    def init(self) -> Self:
        """Make the tables that are missing; a store of an older version is brought up to date.

        Raises
        ------
        DataError
            If the store was made by a newer version.
        StoreUnavailable
            If the database does not answer.
        """
        with self.transaction() as connection:
            schema.migrate(connection)
        return self

    def version(self) -> int:
        """Version of the tables that are there; 0 without any."""
        with self.reader() as connection:
            return schema.version_of(connection)

    def require_ready(self) -> None:
        """Raise a DataError unless the tables are there, in this version."""
        there = self.version()
        if there != len(schema.MIGRATIONS):
            raise DataError(
                f"store {self.name} has version {there} of the schema and this retailrec needs "
                f"{len(schema.MIGRATIONS)}. Run: retailrec store init --store {self.name}"
            )

    @property
    def name(self) -> str:
        """The URL without a password."""
        return name_of(self.writing.url)

    @property
    def file(self) -> Path | None:
        """The file of an SQLite store."""
        return Path(self.writing.url.database or "") if is_sqlite(self.writing) else None

    def close(self) -> None:
        """Let go of all connections."""
        for engine in {self.reading, self.writing}:
            engine.dispose()

    @contextmanager
    def reader(self) -> Iterator[Connection]:
        """A connection for statements that change nothing; errors come as `StoreUnavailable`."""
        with said_plainly(self.writing), self.reading.connect() as connection:
            yield connection

    @contextmanager
    def transaction(self, long: bool = False) -> Iterator[Connection]:
        """A transaction, committed at the end or undone whole; a `long` one has no time limit."""
        with said_plainly(self.writing), self.writing.begin() as connection:
            if long and not is_sqlite(self.writing):
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            yield connection

    @contextmanager
    def snapshot(self) -> Iterator[Connection]:
        """A connection for one long statement, whose rows are those of one instant."""
        with self.reader() if is_sqlite(self.writing) else self.transaction(long=True) as connection:
            yield connection

    def sweep(self, patience: float = 0.5) -> bool:
        """Move the write-ahead log into the file, so that what was removed is gone from both.

        Returns False if somebody who reads is in the way for longer than `patience` seconds. Nobody who
        writes is kept waiting.
        """
        until = time.monotonic() + patience
        while is_sqlite(self.writing):
            with self.reader() as connection:
                connection.exec_driver_sql("PRAGMA busy_timeout=0")
                try:
                    checkpoint = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
                    busy = checkpoint.one()[0]
                finally:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout={int(self.timeout * 1000)}")
            if not busy:
                break
            if time.monotonic() >= until:
                return False
            time.sleep(0.02)
        self.unswept = False
        return True

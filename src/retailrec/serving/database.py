"""The database of a store: engines for SQLite and PostgreSQL, opened, made or brought up to date.

SQLite runs with a write-ahead log and one writer. What a store hands out, and what can go wrong with
it, stands here as well.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.serving import schema
from retailrec.serving.passwords import WORD, without_passwords


class StoreUnavailable(RetailRecError):
    """The database does not answer, or can't be written to now; the same call may work later."""


class StoreFull(StoreUnavailable):
    """The database has no room for what should be written; reading still works."""


NO_RULES = "none"  # seen, where there was no such set of rules; no fingerprint


class RulesChanged(DataError):
    """A set of rules is not any more what it was when the change was thought of."""


class ReceiptConflict(DataError):
    """A receipt came twice under one number with different contents; nothing was stored."""


class ValueRefused(DataError):
    """The database can't hold a value; all else goes on."""


class ForgottenUser(DataError):
    """The user was forgotten, and is not to be stored again."""


class Dismissal(NamedTuple):
    """An item that a user does not want to see, or all of its category."""

    item: str
    category: bool
    since: int  # microseconds since 1970, in the shop's own time
    until: int


class Shopper(NamedTuple):
    """What the store knows beside receipts, read in one statement."""

    version: int  # another one after each change of this shopper; 0: never heard of
    attributes: dict[str, Any]
    denied: tuple[str, ...]  # items never to be offered to the shopper
    ends: datetime | None  # midnight after the newest receipt of any user
    text_numbers: bool  # are receipt numbers ordered as text, since one of them is no whole number?
    lists: int  # changes with the unavailable items, rules and keys
    dismissed: tuple[Dismissal, ...] = ()  # what the shopper did not want to see


class Events(NamedTuple):
    """All lines of a shopper, in order of time."""

    times: NDArray[np.int64]  # (n_receipts,) microseconds since 1970
    sizes: NDArray[np.int64]  # (n_receipts,) number of lines
    items: list[str]  # (n_lines,) ids
    amounts: NDArray[np.void]  # (n_lines,) of `receipts.AMOUNTS`


class Added(NamedTuple):
    """What `add` did: receipts that are new, were known before, or are of users who were forgotten."""

    new: int
    known: int
    forgotten: int = 0
    # of the new ones: shopper, number, and the name of another one of the second without a number
    beside: tuple[tuple[str, str, str], ...] = ()


class Lists(NamedTuple):
    """What holds for all users: items unavailable everywhere or by store, rulesets, their version."""

    version: int
    unavailable: frozenset[str]
    rules: dict[str, dict[str, Any]]
    unavailable_in: Mapping[str, frozenset[str]] = MappingProxyType({})


_PASSWORD = re.compile(rf"{WORD}[\"']?\s*[:=]", re.IGNORECASE)
# a URL without slashes, user:password@host, also behind slashes without a colon, a line of ~/.pgpass
_NO_FILE = re.compile(
    r"postgres(ql)?(\+\w+)?:|(\w*\W?//+|postgres\w*/)?[^\s/:@]{2,}:.*@[^/@]+(/|$)|"
    r"[\w.*-]+:(\d{4,5}|\*):[^:/]+:[^:/]+:.",
    re.IGNORECASE | re.DOTALL,
)
_NO_DATABASE = re.compile("[@:/;#,]")  # part what may be a password
_UNREADABLE = (
    "--store can't be read as a URL; name an SQLite file or postgresql://user@host/database, with %40 "
    "for @ and %2F for / in a password."
)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_VALUE = re.compile("binding parameter|cannot adapt")
_FULL = ("database or disk is full", "no space left on device", "disk full", "could not extend file")


def engines(url: str, connections: int, timeout: float) -> tuple[Engine, Engine]:
    """An engine that reads and one that writes.

    Raises
    ------
    SettingError
        If the URL is of no database that the store knows.
    """
    parsed = _parsed(url)
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        _require_path(parsed.database or "")
        return _sqlite(parsed, connections, timeout)
    if kind in ("postgresql", "postgres"):
        return _postgresql(parsed, connections, timeout)
    raise SettingError(
        f"--store names a {kind} database; expected an SQLite file or postgresql://user@host/database."
    )


def _parsed(url: str) -> URL:
    """The URL, its password in one place and no part of it in another.

    Raises
    ------
    SettingError
        If it can't be read, without a word of it: any part may be a password.
    """
    if "://" not in url and not _NO_FILE.match(url) and not _PASSWORD.search(url):
        return URL.create("sqlite", database=url)
    try:
        parsed = make_url(url)
        if "@" in (parsed.host or ""):  # the last @ ends the password
            more, _, host = str(parsed.host).rpartition("@")
            parsed = parsed.set(host=host, password=f"{parsed.password}@{more}")
        query = dict(parsed.query)  # where user and password count as well, as libpq has it
        user, password = query.pop("user", parsed.username), query.pop("password", parsed.password)
        parsed = parsed.set(
            username=None if user is None else str(user),
            password=None if password is None else str(password),
            query=query,
        )
    except (ArgumentError, ValueError) as error:
        raise SettingError(_UNREADABLE) from error
    # in which a ;, a # or a forgotten ? hides what stands behind it
    others = (parsed.username, parsed.database, *parsed.query.values())
    if any(_PASSWORD.search(str(one)) for one in others) or (
        parsed.get_backend_name() != "sqlite"
        and (_NO_DATABASE.search(parsed.database or "") or (parsed.port or 0) > 65535)
    ):
        raise SettingError(_UNREADABLE)
    return parsed


def name_of(url: URL) -> str:
    """The URL as it may be shown: without a password, and of its query the session's options alone."""
    query = {name: said for name, said in url.query.items() if name == "options"}
    shown = url.set(drivername=url.get_backend_name(), query=query)
    return shown.render_as_string(hide_password=True)


def _require_path(file: str) -> None:
    """Raise a SettingError if there can be no file of this name."""
    try:
        file.encode()  # what is no text can't be shown in a URL
        os.lstat(file)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return  # SQLite says it
    except (OSError, ValueError) as error:
        shown = ascii(file if len(file) < 200 else f"{file[:80]}...")
        raise SettingError(
            f"--store {shown} can't be a file: {getattr(error, 'strerror', None) or error}. Name "
            "another."
        ) from error


def is_sqlite(engine: Engine) -> bool:
    """Is it SQLite, and not PostgreSQL?"""
    return engine.dialect.name == "sqlite"


def is_full(error: BaseException) -> bool:
    """Does the database say that it has no room?"""
    return any(text in str(error).lower() for text in _FULL)


def _pooled(url: URL, size: int, timeout: float, options: dict[str, Any]) -> Engine:
    return create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout,
        connect_args=options,
        hide_parameters=True,  # ids of users would stand in the traces of a log
    )


def _sqlite(url: URL, connections: int, timeout: float) -> tuple[Engine, Engine]:
    """One connection writes, in transactions that lock at once; others read without any."""
    if not url.database or url.database == ":memory:":
        raise SettingError("--store names no file; an SQLite store is a file.")
    folder, there = Path(url.database).parent, False
    with suppress(FileNotFoundError):  # the current folder was removed
        there = folder.absolute().is_dir()
    if not there:
        raise SettingError(f"--store {url.database}: there is no folder {folder}. Make it first.")
    options = {"timeout": timeout, "check_same_thread": False}
    reading, writing = (_pooled(url, size, timeout, options) for size in (connections, 1))
    file = _File(url.database)
    for engine in (reading, writing):
        event.listen(engine, "do_connect", file.make)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "connect", file.connected)
        event.listen(engine, "checkout", file.require_same)
    # a transaction that starts by reading and then writes could fail halfway: lock from the start
    event.listen(writing, "begin", _begin_immediate)
    return reading, writing


class _File:
    """The file of a store, which may be moved away or replaced while it is open.

    SQLite writes on in the file that it has opened, wherever that lies by now.
    """

    def __init__(self, path: str) -> None:
        self.path, self.seen = path, False

    def make(self, *_: Any) -> None:
        """Make a file that is missing, for its owner alone; SQLite gives its log the same mode.

        Raises
        ------
        sqlite3.OperationalError
            If it was there before: an empty one would be in the way of what is restored.
        """
        if self.seen and not os.path.exists(self.path):
            raise sqlite3.OperationalError("the file is gone; was it moved or removed?")
        with suppress(OSError):  # it is there, or can't be made, which SQLite says
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))

    def connected(self, connection: Any, record: Any) -> None:
        """Note which file a connection has opened."""
        record.info["file"], self.seen = self._there(), True

    def require_same(self, connection: Any, record: Any, proxy: Any) -> None:
        """Let a connection to a file that lies elsewhere now be closed, and another one be opened."""
        if record.info["file"] != self._there():
            raise exc.DisconnectionError("another file lies there")

    def _there(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino


def _begin_immediate(connection: Any) -> None:
    if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _prepare_sqlite(connection: Any, record: Any) -> None:
    connection.isolation_level = None  # transactions begin where `_sqlite` says, not in the driver
    for pragma in (
        "journal_mode=WAL",  # readers do not wait for the writer
        "synchronous=FULL",  # what is acknowledged outlives a loss of power
        "secure_delete=ON",  # what is forgotten is overwritten
        "cache_size=-8192",  # 8 MB a connection; the system keeps the rest in memory
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _postgresql(url: URL, connections: int, timeout: float) -> tuple[Engine, Engine]:
    try:
        import psycopg  # noqa: F401
    except ImportError as error:
        raise SettingError("PostgreSQL needs psycopg; pip install 'retailrec[serve]'.") from error
    milliseconds = int(timeout * 1000)
    said = url.query.get("options", os.environ.get("PGOPTIONS", ""))  # a search_path, such as
    options = {
        "connect_timeout": max(2, int(timeout)),
        "prepare_threshold": 2,
        "keepalives_idle": 10,  # a host that is gone without a word is found out
        "tcp_user_timeout": milliseconds,
        "client_encoding": "utf8",  # whatever the database's is
        "options": f"{said} -c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
    }
    url = url.set(drivername="postgresql+psycopg")
    engine = _pooled(url, connections, timeout, options)
    # a statement that reads needs no transaction around it, which would be two more trips
    return engine.execution_options(isolation_level="AUTOCOMMIT"), engine


@contextmanager
def said_plainly(engine: Engine) -> Iterator[None]:
    """Errors of the database as ours, without the statement, its values, and passwords.

    Those of the driver are meant too: what is stored in bulk goes by it alone.
    """
    driver = engine.dialect.loaded_dbapi
    try:
        yield
    except (SQLAlchemyError, driver.Error) as error:
        cause, url = getattr(error, "orig", None) or error, engine.url
        first = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        secrets = (str(url.password or ""), str(url.query.get("sslpassword", "")))
        said, name = without_passwords(first, secrets), name_of(url)
        if is_full(cause):
            raise StoreFull(
                f"store {name} has no room ({said}); nothing more was written. Free some space."
            ) from error
        ours = isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError)
        refused = isinstance(cause, (driver.DataError, driver.IntegrityError))
        if ours or refused or _NO_VALUE.search(first):
            raise ValueRefused(
                f"store {name} can't hold a value ({said}); nothing more was written."
            ) from error
        damaged = getattr(cause, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
        cure = (
            "It is damaged, or no store at all: restore a backup (retailrec store restore)."
            if damaged
            else "Check the database and try again."
        )
        raise StoreUnavailable(f"store {name} can't be used now ({said}). {cure}") from error


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

    def is_made(self) -> bool:
        """Are there tables, which is seen without making a file?"""
        return (self.file is None or self.file.exists()) and self.version() > 0

    def version(self) -> int:
        """Version of the tables that are there; 0 without any."""
        with self.reader() as connection:
            return schema.version_of(connection)

    def require_ready(self) -> None:
        """Raise a DataError unless the tables are there, in this version."""
        there, needed = self.version(), len(schema.MIGRATIONS)
        if there != needed:
            cure = f"Run: retailrec store init --store {self.name}"
            if there > needed:
                cure = "Update retailrec, or restore the backup from before the store was updated."
            raise DataError(
                f"store {self.name} has version {there} of the schema and this retailrec needs "
                f"{needed}. {cure}"
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

        Returns False if somebody who reads is in the way for longer than `patience` seconds. No
        writer is kept waiting.
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

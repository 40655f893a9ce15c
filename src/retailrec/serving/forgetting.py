"""The list of forgotten ids, which every way into a store honours, and what makes memory forget too.

The list holds no ids but keyed hashes (HMAC-SHA-256 under a key of the store's own), so that an id can
be looked up and not read off. Whoever has the whole store can try ids one by one.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sqlalchemy import Connection, delete, func, insert, select, update

from retailrec.data.writing import write_text
from retailrec.errors import DataError
from retailrec.serving import schema
from retailrec.serving.connections import is_sqlite
from retailrec.serving.records import StoreUnavailable

if TYPE_CHECKING:
    from retailrec.serving.store import Store

_FORMAT = "retailrec: hashes of forgotten ids"
_MOST = 1000  # hashes looked up in one statement


class Place(Protocol):
    """What keeps ids of users in memory."""

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of users; what was kept of them, counted."""


class Applied(NamedTuple):
    """What `apply_list` did: hashes that are new on the list, and rows removed by table."""

    new: int
    removed: dict[str, int]


def hash_of(key: str, user: str) -> str:
    """What the list holds for a user.

    Examples
    --------
    >>> hash_of("00ff", "7") == hash_of("00ff", "7") != hash_of("00fe", "7")
    True
    """
    return hmac.digest(bytes.fromhex(key), user.encode(errors="surrogatepass"), "sha256").hex()


def forgotten_among(connection: Connection, users: Iterable[str], hold: bool = True) -> set[str]:
    """Those of some users who are forgotten; with `hold`, none is added until the transaction ends."""
    table, state = schema.forgotten, schema.state
    if hold and connection.dialect.name != "sqlite":  # whose transactions that write wait anyway
        connection.exec_driver_sql("LOCK TABLE forgotten IN SHARE MODE")
    key, any_at_all = connection.execute(
        select(state.c.forget_key, select(table.c.id).limit(1).scalar_subquery())
    ).one()
    if any_at_all is None:
        return set()
    hashes = {hash_of(key, user): user for user in users}
    return {hashes[found] for found in _on_list(connection, list(hashes))}


def add_to_list(connection: Connection, user: str) -> None:
    """Put a user on the list; writers of others' rows are waited for."""
    key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
    _add(connection, [hash_of(key, user)])


def take_off_list(store: Store, user: str) -> bool:
    """Let the user be stored again, from now on; was it on the list?

    What was removed does not come back.
    """
    with store.transaction() as connection:
        key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
        mine = schema.forgotten.c.hash == hash_of(key, user)
        return bool(connection.execute(delete(schema.forgotten).where(mine)).rowcount)


def write_list(store: Store, file: Path) -> int:
    """Write the list to a JSON file, for a store that is restored or made anew; number of hashes."""
    table = schema.forgotten
    with store.reader() as connection:
        key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
        rows = connection.execute(select(table.c.hash, table.c.since).order_by(table.c.id)).all()
    hashes = {row.hash: row.since for row in rows}
    write_text(json.dumps({"format": _FORMAT, "key": key, "since": hashes}, indent=1) + "\n", file)
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
        _add(connection, hashes)
        after = connection.execute(select(func.count()).select_from(schema.forgotten)).scalar() or 0
        wanted, removed = set(hashes), dict.fromkeys(schema.OF_USERS, 0)
        for user in list(_users(connection)):
            if hash_of(key, user) in wanted:
                for name, n in store.remove_rows(connection, user).items():
                    removed[name] += n
        store.recount(connection)
    store.sweep()
    return Applied(after - before, removed)


def what_is_left(store: Store) -> list[str]:
    """What may still hold something of who was forgotten just now, and what to do, in sentences."""
    left = []
    if not is_sqlite(store.writing):
        left.append(
            "PostgreSQL keeps removed rows in its files, where no query sees them, until it vacuums, "
            "and ids in its statistics: retailrec store compact"
        )
    elif not store.sweep():
        left.append(
            "the store's write-ahead log, since somebody is reading: a service that runs empties it "
            "when they are done, and so does: retailrec store compact"
        )
    return left


class Watch:
    """Notices what any process on the store forgot, and lets this one's memory forget it too.

    It also empties an SQLite file's write-ahead log where a reader was in the way of that.

    Parameters
    ----------
    places : what keeps ids in memory
    every : seconds between two looks
    settle : seconds after which all is looked through again, for what was being answered meanwhile
    """

    def __init__(
        self, store: Store, places: Iterable[Place], every: float = 1.0, settle: float = 15.0
    ) -> None:
        self._store, self._places = store, list(places)
        self._every, self._settle = every, settle
        self._seen: tuple[int, int] | None = None
        self._key, self._hashes = "", frozenset[str]()
        self._again: float | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="forgetting", daemon=True)
        store.unswept = True  # a process that is gone may have left something
        self._thread.start()

    def look(self) -> None:
        """Look once.

        Raises
        ------
        StoreUnavailable
            If the store does not answer.
        """
        if self._store.unswept:
            self._store.sweep(0)
        table, now = schema.forgotten, time.monotonic()
        with self._store.reader() as connection:
            last = func.coalesce(func.max(table.c.id), 0)
            seen = connection.execute(select(func.count(), last).select_from(table)).one()
            if tuple(seen) != self._seen:
                self._key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
                self._hashes = frozenset(connection.execute(select(table.c.hash)).scalars())
                self._seen, self._again = (seen[0], seen[1]), now
        if self._again is not None and now >= self._again and self._hashes:
            self._again = now + self._settle if self._again == now else None
            for place in self._places:
                place.forget(self._is_gone)

    def stop(self) -> None:
        """End."""
        self._stopping.set()
        self._thread.join()

    def _is_gone(self, user: str) -> bool:
        return hash_of(self._key, user) in self._hashes

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self.look()
            except StoreUnavailable:
                continue  # readiness and the exposure log say so; what is forgotten is seen later


def _add(connection: Connection, hashes: list[str]) -> None:
    table = schema.forgotten
    if connection.dialect.name != "sqlite":
        connection.exec_driver_sql("LOCK TABLE forgotten IN EXCLUSIVE MODE")
    there = set(_on_list(connection, hashes))
    rows = [{"hash": one, "since": int(time.time() * 1e6)} for one in hashes if one not in there]
    if rows:
        connection.execute(insert(table), rows)


def _on_list(connection: Connection, hashes: list[str]) -> Iterator[str]:
    table = schema.forgotten
    for at in range(0, len(hashes), _MOST):
        some = table.c.hash.in_(hashes[at : at + _MOST])
        yield from connection.execute(select(table.c.hash).where(some)).scalars()


def _users(connection: Connection) -> set[str]:
    """Everybody of whom anything is stored."""
    found: set[str] = set()
    for column in schema.OF_USERS.values():
        found.update(connection.execute(select(column).distinct()).scalars())
    return found

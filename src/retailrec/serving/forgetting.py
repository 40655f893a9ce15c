"""The list of forgotten ids, which every way into a store honours, and what makes memory forget too.

The list holds no ids but keyed hashes (HMAC-SHA-256 under a key of the store's own), so that an id can
be looked up and not read off. Whoever has the whole store can try ids one by one.
"""

from __future__ import annotations

import hmac
import html
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import unquote

import polars as pl
import polars.selectors as cs
from markupsafe import Markup
from sqlalchemy import Connection, delete, func, insert, select

from retailrec.data.parsing import typed_ids
from retailrec.errors import DataError
from retailrec.jobs.published import is_published
from retailrec.offers.ledger import LEDGER
from retailrec.recommender.artifact import is_model
from retailrec.schema import POOL, TRANSACTIONS, USER_ID
from retailrec.serving import schema
from retailrec.serving.database import Database, StoreUnavailable, is_sqlite
from retailrec.work import MARKER, locked, result_file, whole_file

_LOG = logging.getLogger("retailrec.serving")
# columns that hold something else, in which a number may be equal to an id
_OF_NO_USER = {*LEDGER, *POOL, *(column.name for column in TRANSACTIONS), "probability"} - {USER_ID}
_MOST = 1000  # hashes looked up in one statement


class Place(Protocol):
    """What keeps ids of users in memory."""

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of users; what was kept of them, counted."""


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


def forget_key(connection: Connection) -> str:
    """The key, in hex digits, under which the store hashes ids."""
    return str(connection.execute(select(schema.state.c.forget_key)).scalar_one())


def add_to_list(connection: Connection, user: str) -> None:
    """Put a user on the list; writers of others' rows are waited for."""
    add_hashes(connection, [hash_of(forget_key(connection), user)])


def take_off_list(store: Database, user: str) -> bool:
    """Let the user be stored again, from now on; was it on the list?

    What was removed does not come back.
    """
    with store.transaction() as connection:
        mine = schema.forgotten.c.hash == hash_of(forget_key(connection), user)
        return bool(connection.execute(delete(schema.forgotten).where(mine)).rowcount)


def what_is_left(store: Database) -> list[str]:
    """What may still hold something of who was forgotten just now, and what to do, in sentences."""
    if not is_sqlite(store.writing):
        return [
            "PostgreSQL keeps ids in its statistics until: retailrec store compact; and what no query "
            "sees, in its files and write-ahead log, until it writes over it: VACUUM FULL writes "
            "new files, and stops answers meanwhile"
        ]
    left = [
        "unused parts of the file's pages, where SQLite may have left copies of rows that it moved: "
        "retailrec store compact"
    ]
    if not store.sweep():
        left.append(
            "the store's write-ahead log, since somebody is reading: a service that runs empties it "
            "when they are done, and so does: retailrec store compact"
        )
    return left


NOT_SEARCHED = (
    "files outside of the store: exports, lists, ledgers, reports and loaded receipts (retailrec store "
    "forget ID --also PATH searches those that it is given)",
    "backups: keep the list of forgotten ids beside them (retailrec store forgotten)",
    "logs of a proxy or of the database's server",
    "models that were fitted with a table of changed ids, which names the users in it",
)


class Searched(NamedTuple):
    """A file that was looked through for a user."""

    file: Path
    removed: int = 0  # rows
    left: str = ""  # what is left there and why, in words


def forget_in_files(user: str, paths: Iterable[Path], overwrite: bool = False) -> list[Searched]:
    """Remove a user's rows from lists, exports and ledgers; what can't be changed is reported.

    Folders are searched with all that lies in them. A table that retailrec did not write, or that was
    changed since, is changed only with `overwrite`.
    """
    found: list[Searched] = []
    for path in paths:
        files = [path]
        if path.is_dir() and not path.is_symlink():
            whole = path.resolve()
            files = [f for f in sorted(path.rglob("*")) if not (f.is_symlink() and _lies_in(f, whole))]
        models = {
            file.parent for file in files if file.name == "manifest.json" and is_model(file.parent)
        }
        found += [Searched(model, left=_of_model(user, model)) for model in sorted(models)]
        found += [
            Searched(part, left="its rows are of this user, whose id is in its name; remove it")
            for part in files
            if part.is_dir() and unquote(part.name) == f"{USER_ID}={user}"  # as Spark parts tables
        ]
        found += [
            _forget_in_file(user, file, overwrite)
            for file in files
            if not (file.is_dir() and not file.is_symlink())
            and models.isdisjoint(file.parents)
            and file.name != MARKER
        ]
    return found


def _lies_in(link: Path, folder: Path) -> bool:
    """Does the link name something in the folder, which is searched there?"""
    try:
        return link.resolve(strict=True).is_relative_to(folder)
    except (OSError, RuntimeError):  # nothing, or itself
        return False


def _of_model(user: str, model: Path) -> str:
    """What is left in a saved model, which holds no ids but those of its table of changed ids."""
    for file in model.rglob("*.parquet"):
        try:
            if set(pl.read_parquet_schema(file)) != {"kind", "old", "new"}:
                continue
            users = pl.read_parquet(file, glob=False).filter(kind="user")
        except (pl.exceptions.PolarsError, OSError) as error:
            return f"not looked into: it can't be read here ({str(error).splitlines()[0][:80]})"
        if users.filter((pl.col("old") == user) | (pl.col("new") == user)).height:
            return "its table of changed ids names this id; take the row out of the table and fit again"
    return "a model holds no ids; fit again for one that never saw the user's receipts"


def _forget_in_file(user: str, file: Path, overwrite: bool) -> Searched:
    if file.is_symlink() or not file.is_file():
        return Searched(file, left="a link, or no file: not looked into")
    try:
        if file.suffix == ".parquet":
            return _forget_in_table(user, file, pl.read_parquet(file, glob=False), overwrite)
        if file.suffix == ".csv" and (mark := _separator(file)):
            table = pl.read_csv(file, infer_schema=False, glob=False, separator=mark)
            return _forget_in_table(user, file, table, overwrite, mark)
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        left = "not looked into: it is no text and no Parquet; remove it, or make it again"
        return Searched(file, left=left)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).splitlines()[0][:80]
        return Searched(file, left=f"not looked into: it can't be read here ({first})")
    # as it stands in JSON, on pages, and between the quotes of a table
    in_json = (json.dumps(user, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    forms = {user, *in_json, html.escape(user), str(Markup.escape(user)), user.replace('"', '""')}
    word = re.compile(rf"(?<!\w)({'|'.join(map(re.escape, sorted(forms)))})(?!\w)")
    said = sum(word.search(line) is not None for line in text.splitlines())
    left = f"{said:,} lines hold this id as a word; remove the file or make it again"
    return Searched(file, left=left if said else "")


def _separator(file: Path) -> str | None:
    """What parts the columns, where one of them is that of users and a table can be read."""
    with open(file, encoding="utf-8-sig", errors="replace", newline="") as lines:
        line = lines.readline()
    if line.endswith("\r"):  # alone, which would be one line
        return None
    head = line.rstrip("\r\n").replace('"', "")
    return next((mark for mark in ",;\t|" if USER_ID in head.split(mark)), None)


def _forget_in_table(
    user: str, file: Path, table: pl.DataFrame, overwrite: bool, mark: str = ","
) -> Searched:
    if USER_ID not in table.columns:
        found = [_names(user, column) for column in table]
        n = table.filter(pl.any_horizontal(pl.lit(False), *found)).height
        left = f"{n:,} rows hold this id, in no column {USER_ID}; remove them"
        return Searched(file, left=left if n else "")
    held = _holds(user, table[USER_ID])
    n = int(held.sum())
    others = {c: (_names(user, table[c]) & ~held).sum() for c in table.columns if c not in _OF_NO_USER}
    named = [f"{c!a} in {n:,}" for c, n in others.items() if n]
    left = f"rows of others name this id, and stay: column {', '.join(named)}" if named else ""
    if not n:
        return Searched(file, left=left)
    part = file.name.split("-")[0]
    of_ledger = dict(table.schema) == dict({"offers": LEDGER, "pool": POOL}.get(part, {}))
    writer = whole_file if of_ledger or overwrite or is_published(file) else result_file
    with locked(file.parent, wait=True) if of_ledger else nullcontext():
        try:
            with writer(file) as partial:
                # the categories of an Enum would still name who is gone
                kept = table.filter(~held).with_columns(
                    pl.col(pl.Enum).cast(pl.String),
                    cs.list(cs.enum()).cast(pl.List(pl.String)),
                )
                if file.suffix == ".parquet":
                    said = pl.read_parquet_metadata(file).items()
                    own_words = {name: what for name, what in said if name.startswith("retailrec.")}
                    kept.write_parquet(partial, metadata=own_words)  # where what lists know ends
                else:
                    kept.write_csv(partial, separator=mark)
        except DataError as error:
            stays = f"{n:,} rows are of this user, and stay: {error}"
            return Searched(file, left="; ".join(filter(None, (stays, left))))
    file.with_name(f".{file.name}.crc").unlink(missing_ok=True)  # Hadoop's sum of what stood there
    return Searched(file, n, left)


def _holds(user: str, column: pl.Series) -> pl.Series:
    """Which cells are this id, in whatever type and notation ids are read: 7, "7", 7.0, " 7"."""
    kind = column.dtype
    if kind == pl.Binary:  # text that is not said to be
        return column.is_in([user.encode(errors="surrogatepass")]).fill_null(False)
    if not (kind.is_numeric() or kind in (pl.String, pl.Categorical, pl.Enum)):
        return pl.repeat(False, len(column), eager=True)
    text = column.cast(pl.String).str.strip_chars()
    read = text
    with suppress(DataError):  # numbers so large that neighbours are one
        read = typed_ids(column).cast(pl.String)
    ids = [user, f"'{user}"]  # as --safe-csv may have written it
    return (text.is_in(ids) | read.is_in(ids)).fill_null(False)


def _names(user: str, column: pl.Series) -> pl.Series:
    """Which cells are this id, or have it within: in a list, a struct, or a list written as text."""
    kind = column.dtype
    if isinstance(kind, pl.Struct):
        parts = [_names(user, part) for part in column.struct.unnest()]
        return pl.select(pl.any_horizontal(pl.lit(False), *parts)).to_series()
    held = _holds(user, column)
    rows = pl.DataFrame({"row": pl.int_range(len(column), eager=True), "of": column})
    if kind in (pl.String, pl.Categorical, pl.Enum):  # 7,8 or 7|8 or ["7", "8"]
        rows = rows.cast({"of": pl.String}).filter(pl.col("of").str.contains(user, literal=True))
        bare = pl.col("of").str.replace_all(r"""[\[\](){}"']""", "")
        rows = rows.with_columns(bare.str.replace_all("[;|]", ",").str.split(","))
    elif not isinstance(kind, pl.List | pl.Array):
        return held
    rows = rows.explode("of")
    of = rows["of"]
    within = _holds(user, of) if of.dtype == pl.String else _names(user, of)
    return held | pl.int_range(len(column), eager=True).is_in(rows["row"].filter(within).implode())


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
        self, store: Database, places: Iterable[Place], every: float = 1.0, settle: float = 15.0
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
                self._key = forget_key(connection)
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
            except Exception:  # the thread goes on, and looks through all of it again
                self._seen = None
                _LOG.exception("what was forgotten is not gone from memory everywhere")


def add_hashes(connection: Connection, hashes: list[str]) -> None:
    """Put hashes on the list; writers of others' rows are waited for."""
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

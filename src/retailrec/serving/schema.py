"""Tables of the history store, one schema for SQLite and PostgreSQL, and migrations by version."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from types import MappingProxyType

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    func,
    insert,
    inspect,
    literal,
    select,
    update,
)
from sqlalchemy.schema import CreateIndex, CreateTable

from retailrec.errors import DataError

metadata = MetaData()

# One row: what every answer needs to know beside the shopper.
state = Table(
    "state",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("ends", BigInteger),  # midnight after the newest receipt, microseconds; null: no receipt
    Column("text_numbers", Boolean, nullable=False),  # is any receipt number no whole number?
    Column("lists", BigInteger, nullable=False),  # changes with unavailable items, keys and rules
    Column("rules", Text, nullable=False),  # JSON: ruleset -> settings of its rules
    Column("forget_key", String(64)),  # hex; under it the list of forgotten ids is hashed
)

shoppers = Table(
    "shoppers",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("version", BigInteger, nullable=False),  # another one after each change
    Column("attributes", Text, nullable=False),  # JSON
    Column("denied", Text, nullable=False),  # JSON list of items never to be offered
    Column("dismissed", Text),  # JSON list of [item, is its category meant, said when, until when]
)

# The key makes receipts idempotent and lets one statement read a shopper's history.
receipts = Table(
    "receipts",
    metadata,
    Column("shopper", String(128), nullable=False),
    Column("number", String(144), nullable=False),  # of 128, or with a time behind it
    Column("time", BigInteger, nullable=False),  # microseconds since 1970
    Column("items", Text, nullable=False),  # ids, one a line of text
    Column("amounts", LargeBinary, nullable=False),  # see receipts.AMOUNTS
    PrimaryKeyConstraint("shopper", "number"),
)

# The columns of the ledger of offers, and what the service knows beside.
exposures = Table(
    "exposures",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("campaign", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text),  # of any length, as models have them; null with rank 0: nothing was shown
    Column("time", BigInteger, nullable=False),  # the shop's own, as of receipts
    Column("model", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("score", Float),
    Column("price", Float),
    Column("arm", Text, nullable=False),
    Column("propensity", Float),
    Column("holdout", Boolean, nullable=False),
    Column("shadow", Boolean, nullable=False),  # computed for the log only, not shown
    Column("request", Text, nullable=False),
    Column("key", BigInteger),  # of the row: written again, it counts once; null before version 0.3
    Index("exposures_of_shopper", "user_id"),
    Index("exposures_key", "key", unique=True),
)

# The pools of explored lists: the columns of `retailrec.schema.POOL`, and the row's key.
pools = Table(
    "pools",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("policy", Text, nullable=False),
    Column("score", Float),
    Column("propensity", Float, nullable=False),
    Column("shown", Boolean, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("arm", Text, nullable=False),
    Column("pool", Integer, nullable=False),
    Column("key", BigInteger, nullable=False),
    Index("pools_of_shopper", "user_id"),
    Index("pools_key", "key", unique=True),
)

# Who was forgotten, and is not to be stored again: see `forgetting`.
forgotten = Table(
    "forgotten",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("hash", String(64), nullable=False, unique=True),  # HMAC of the id under `forget_key`
    Column("since", BigInteger, nullable=False),
    sqlite_autoincrement=True,  # a number is used once, so that a change is seen by count and last
)

# Every table with rows of users -> its column of their ids.
OF_USERS = MappingProxyType(
    {
        "receipts": receipts.c.shopper,
        "exposures": exposures.c.user_id,
        "pools": pools.c.user_id,
        "shoppers": shoppers.c.id,
    }
)

unavailable = Table(
    "unavailable",
    metadata,
    Column("item", String(128), primary_key=True),
    Column("since", BigInteger, nullable=False),
)

unavailable_in = Table(
    "unavailable_in",
    metadata,
    Column("store", String(128), nullable=False),
    Column("item", String(128), nullable=False),
    Column("since", BigInteger, nullable=False),
    PrimaryKeyConstraint("store", "item"),
)

# Each activation of a model; the last row is the one that answers.
models = Table(
    "models",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("model", String(128), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("activated", BigInteger, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False),  # SHA-256 of a random secret of 256 bits
    Column("scopes", String(64), nullable=False),  # with spaces between
    Column("made", BigInteger, nullable=False),
)

# Experiments that began under a version that drew arms otherwise, so that they keep their arms.
experiments = Table(
    "experiments",
    metadata,
    Column("campaign", Text, primary_key=True),
    Column("formula", Integer, nullable=False),  # see experiment.Experiment
)

# Receipts that a load looks for, within its transaction.
wanted = Table(
    "wanted_receipts",
    MetaData(),  # no table of the store
    Column("shopper", String(128), nullable=False),
    Column("number", receipts.c.number.type, nullable=False),
    prefixes=["TEMPORARY"],
)

# Items whose ids changed, within the transaction that puts the logs under the new ones.
renamed = Table(
    "renamed_items",
    MetaData(),  # no table of the store
    Column("old", Text, primary_key=True),
    Column("new", Text, nullable=False),
    prefixes=["TEMPORARY"],
)

versions = Table(
    "schema_version",
    metadata,
    Column("version", Integer, primary_key=True),
)


def _make(connection: Connection, table: Table, there: bool = True) -> None:
    """Make a table and its indexes, which may be `there`."""
    connection.execute(CreateTable(table, if_not_exists=there))
    for index in table.indexes:
        connection.execute(CreateIndex(index, if_not_exists=there))


def _add_column(connection: Connection, table: Table, name: str, kind: str) -> bool:
    """Add a column that is missing; was it?"""
    missing = name not in {column["name"] for column in inspect(connection).get_columns(table.name)}
    if missing:
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {name} {kind}")
    return missing


def _first_tables(connection: Connection) -> None:
    tables = (state, shoppers, receipts, exposures, unavailable, models, keys)
    for table in tables:
        _make(connection, table, there=False)
    first = {"id": 1, "ends": None, "text_numbers": False, "lists": 0, "rules": "{}"}
    connection.execute(insert(state).values(first))


def _formulas(connection: Connection) -> None:
    """Campaigns whose arms version 0.2 drew."""
    _make(connection, experiments)
    drawn = exposures.c.shadow.is_(False) & ((exposures.c.arm != "") | exposures.c.holdout.is_(True))
    old = select(exposures.c.campaign, literal(1)).where(drawn).distinct()
    connection.execute(insert(experiments).from_select(["campaign", "formula"], old))


def _list_of_forgotten(connection: Connection) -> None:
    """The list of forgotten ids, and its key."""
    _make(connection, forgotten)
    _add_column(connection, state, "forget_key", "VARCHAR(64)")
    connection.execute(update(state).values(forget_key=secrets.token_hex(32)))


def _keyed_exposures(connection: Connection) -> None:
    """Rows of the exposure log of any width, each with a key."""
    if _add_column(connection, exposures, "key", "BIGINT"):
        connection.exec_driver_sql("CREATE UNIQUE INDEX exposures_key ON exposures (key)")
    if connection.dialect.name != "sqlite":  # where text has any width
        for name in ("campaign", "user_id", "item_id", "model", "arm", "request"):
            connection.exec_driver_sql(f"ALTER TABLE exposures ALTER COLUMN {name} TYPE TEXT")


def _pools(connection: Connection) -> None:
    """The pools of explored lists."""
    _make(connection, pools)


def _by_store_and_user(connection: Connection) -> None:
    """What a store does not offer, and what users dismissed."""
    _make(connection, unavailable_in)
    _add_column(connection, shoppers, "dismissed", "TEXT")


def _numbers_with_times(connection: Connection) -> None:
    """Receipt numbers that may have a time behind them."""
    if connection.dialect.name != "sqlite":  # where text has any width
        connection.exec_driver_sql("ALTER TABLE receipts ALTER COLUMN number TYPE VARCHAR(144)")


# Migration i brings a store from version i to i + 1. What is here is never changed, only added to.
MIGRATIONS = (
    _first_tables,
    _formulas,
    _list_of_forgotten,
    _keyed_exposures,
    _pools,
    _by_store_and_user,
    _numbers_with_times,
)


def version_of(connection: Connection) -> int:
    """Number of migrations that the store has had; 0 for an empty database."""
    if not inspect(connection).has_table(versions.name):
        return 0
    return int(connection.execute(select(func.max(versions.c.version))).scalar() or 0)


def migrate(
    connection: Connection, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS
) -> list[int]:
    """Apply the migrations that the store lacks, within the caller's transaction; their numbers.

    Raises
    ------
    DataError
        If the store was made by a newer version.
    """
    if connection.dialect.name != "sqlite":  # whose transactions lock at once
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7331)")  # one migrates, others wait
    there = version_of(connection)
    if there > len(migrations):
        raise DataError(
            f"the store has version {there} of the schema; this retailrec knows up to "
            f"{len(migrations)}. Update retailrec."
        )
    if there == len(migrations):
        return []  # without the right to make tables, too
    _make(connection, versions)
    applied = []
    for number in range(there, len(migrations)):
        migrations[number](connection)
        connection.execute(insert(versions).values(version=number + 1))
        applied.append(number + 1)
    return applied

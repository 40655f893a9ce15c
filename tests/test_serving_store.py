"""The history store, on SQLite and on PostgreSQL alike."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import receipts

pytest.importorskip("sqlalchemy")
from sqlalchemy import Connection, inspect, select, text

from retailrec.data import RetailData
from retailrec.data.cleaning import LoadReport
from retailrec.errors import DataError, SettingError
from retailrec.offers.ledger import LEDGER
from retailrec.schema import POOL
from retailrec.serving import schema, upkeep
from retailrec.serving.database import (
    Added,
    ForgottenUser,
    ReceiptConflict,
    StoreFull,
    StoreUnavailable,
    ValueRefused,
)
from retailrec.serving.experiment import Experiment
from retailrec.serving.forgetting import (
    Watch,
    take_off_list,
    what_is_left,
)
from retailrec.serving.keys import Keyring, make_key
from retailrec.serving.loading import describe, load_data, load_frames
from retailrec.serving.receipts import Line, Posted, Receipt, accept
from retailrec.serving.store import Store, open_store
from retailrec.serving.upkeep import (
    apply_list,
    compact,
    export,
    export_denials,
    export_exposures,
    export_pools,
    export_shoppers,
    restore,
    write_list,
)
from serving_support import Postgres, exposure, opened, postgres

DAY = datetime(2024, 1, 9, 8, 30)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    found = postgres()
    yield found
    found.close()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from opened(request, tmp_path)


def receipt(number: str = "1", shopper: str = "ann", time: datetime = DAY, *lines: Line) -> Receipt:
    return accept(
        [Posted(shopper, number, time, lines or [Line("tea", 2, 5.0), Line("jam", 1, 3.0)])]
    ).receipts[0]


def bought(rows: list[tuple[str, str, datetime]]) -> pl.DataFrame:
    """Receipt lines of user, item and time."""
    return pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")


def test_a_receipt_is_read_back_as_it_was_stored(store: Store) -> None:
    given = receipt("7", "ann", DAY, Line("tea", 2, 5.0, -0.5), Line("müsli ü/2", 1.5))
    store.add([given])
    (found,) = store.history("ann")
    assert found.as_row() == given.as_row()
    events = store.events("ann", text_numbers=False)
    assert events.items == ["müsli ü/2", "tea"]
    assert events.amounts["quantity"].tolist() == [1.5, 2.0]
    assert np.isnan(events.amounts["value"][0])


def test_receipts_are_in_order_of_time_and_of_number_at_one_time(store: Store) -> None:
    store.add([receipt("10"), receipt("9"), receipt("11", "ann", DAY - timedelta(days=1))])
    assert [r.number for r in store.history("ann")] == ["11", "9", "10"]


def test_the_same_receipt_twice_is_stored_once(store: Store) -> None:
    assert store.add([receipt("1"), receipt("2")]) == Added(2, 0)
    assert store.add([receipt("2"), receipt("3"), receipt("3")]) == Added(1, 2)
    assert [r.number for r in store.history("ann")] == ["1", "2", "3"]


def test_a_known_receipt_does_not_change_the_version(store: Store) -> None:
    store.add([receipt("1")])
    version = store.shopper("ann").version
    store.add([receipt("1")])
    assert store.shopper("ann").version == version
    store.add([receipt("2")])
    assert store.shopper("ann").version != version


def test_a_receipt_of_which_nothing_was_left_is_stored_when_it_comes_corrected(store: Store) -> None:
    refused, right = (
        receipt("1", "ann", DAY, Line("tea", 0, 2.5)),
        receipt("1", "ann", DAY, Line("tea")),
    )
    assert store.add([refused]).new == 1
    version = store.shopper("ann").version
    assert (store.add([refused]), store.add([right])) == (Added(0, 1), Added(1, 0))
    assert [r.items for r in store.history("ann")] == [("tea",)]
    assert store.shopper("ann").version != version
    assert store.shopper("ann").ends == datetime(2024, 1, 10)
    assert store.add([right]) == Added(0, 1)
    for other in (refused, receipt("1", "ann", DAY, Line("jam"))):
        with pytest.raises(ReceiptConflict):
            store.add([other])


def test_the_first_number_that_is_text_may_come_while_a_history_is_read(store: Store) -> None:
    store.add([receipt("10", "ann", DAY, Line("tea")), receipt("9", "ann", DAY, Line("jam"))])
    assert store.events("ann", text_numbers=False).items == ["jam", "tea"]
    store.add([receipt("A-1", "ann", DAY, Line("rye"))])
    assert store.events("ann", text_numbers=False).items == ["tea", "jam", "rye"]  # as text


def test_all_receipts_of_a_call_are_stored_or_none(store: Store) -> None:
    store.add([receipt("1")])
    with pytest.raises(ReceiptConflict, match="other contents"):
        store.add([receipt("2"), receipt("1", "ann", DAY, Line("rice"))])
    assert [r.number for r in store.history("ann")] == ["1"]
    with pytest.raises(ReceiptConflict):
        store.add([receipt("3"), receipt("3", "ann", DAY, Line("rice"))])
    assert store.counts()["receipts"] == 1


def test_two_writers_at_a_time_store_each_receipt_once(store: Store) -> None:
    given = [receipt(str(n), f"u{n % 5}") for n in range(60)]
    new: list[int] = []

    def write(order: list[Receipt]) -> None:
        for at in range(0, len(order), 20):
            new.append(store.add(order[at : at + 20]).new)

    threads = [threading.Thread(target=write, args=(given[::step],)) for step in (1, -1, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(new) == 9
    assert sum(new) == 60 == store.counts()["receipts"]


def test_the_end_is_the_midnight_after_the_newest_receipt(store: Store) -> None:
    assert store.shopper("ann").ends is None
    store.add([receipt("1")])
    store.add([receipt("2", "bob", DAY - timedelta(days=9))])
    assert store.shopper("nobody").ends == datetime(2024, 1, 10)


def test_forgetting_looks_where_receipts_end_only_if_that_may_move(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recounted: list[Connection] = []
    recount = store.recount
    monkeypatch.setattr(store, "recount", lambda c: (recounted.append(c), recount(c)))
    for n, shopper in enumerate(("ann", "bob", "eve")):
        store.add([receipt("1", shopper, DAY + timedelta(days=n))])
    for shopper, times, end in (("ann", 0, 12), ("nobody", 0, 12), ("eve", 1, 11), ("bob", 2, 0)):
        store.forget(shopper)
        assert len(recounted) == times
        assert store.shopper("").ends == (datetime(2024, 1, end) if end else None)


def test_nothing_of_a_forgotten_shopper_is_left(store: Store, request: pytest.FixtureRequest) -> None:
    store.add([receipt("77-secret", "ann-the-shopper"), receipt("1", "bob", DAY - timedelta(days=3))])
    store.describe({"ann-the-shopper": {"segment": "loyal-and-rare"}})
    store.deny("ann-the-shopper", "plums")
    store.log_exposures([exposure("ann-the-shopper"), exposure("bob")])
    removed = store.forget("ann-the-shopper")
    assert removed == {"receipts": 1, "exposures": 1, "pools": 0, "shoppers": 1}
    assert store.shopper("ann-the-shopper").version == 0
    assert store.history("ann-the-shopper") == []
    assert store.shopper("bob").ends == datetime(2024, 1, 7)
    assert [row["user_id"] for row in store.exposures()] == ["bob"]
    if "sqlite" in request.node.name:
        file = Path(str(store.writing.url.database))
        for part in file.parent.iterdir():
            for secret in (b"ann-the-shopper", b"77-secret", b"loyal-and-rare", b"plums"):
                assert secret not in part.read_bytes(), part.name
    assert take_off_list(store, "ann-the-shopper")
    store.add([receipt("1", "ann-the-shopper")])  # who comes back is a new shopper
    assert store.shopper("ann-the-shopper").attributes == {}


def test_who_was_forgotten_comes_back_by_no_way(store: Store, tmp_path: Path) -> None:
    users = [f"u{n}" for n in range(3)]
    store.add([receipt("1", user) for user in users])
    store.forget("u1")
    store.forget("never seen")
    assert store.add([receipt("2", user) for user in [*users, "u1"]]) == Added(2, 0, 2)
    assert store.add([receipt("1", "u1")]) == Added(0, 0, 1)
    frame = pl.DataFrame({"user_id": [*users, "never seen"], "item_id": "tea", "time": DAY})
    loaded = load_frames(store, frame)
    assert (loaded.receipts, loaded.new, loaded.forgotten) == (4, 2, 2)
    people = pl.DataFrame({"user_id": users, "age": [20, 30, 40]})
    assert describe(store, people) == 1
    data = RetailData.from_frames(frame, users=people)
    again = load_data(store, data)
    assert (again.new, again.forgotten, again.undescribed) == (0, 2, 1)
    assert store.log_exposures([exposure("u1"), exposure("u2"), exposure("u1")]) == 2
    with pytest.raises(ForgottenUser, match="was forgotten, so nothing is stored"):
        store.deny("u1", "tea")
    assert store.forgotten([*users, "x"]) == {"u1"}
    assert (store.history("u1"), store.shopper("u1").version) == ([], 0)
    assert [row["user_id"] for row in store.exposures()] == ["u2"]
    assert take_off_list(store, "u1")
    assert not take_off_list(store, "u1")
    assert store.add([receipt("2", "u1")]) == Added(1, 0)


def test_the_list_of_forgotten_ids_holds_no_id_and_no_plain_hash(store: Store) -> None:
    store.forget("4711")
    with store.reader() as connection:
        (hashed,) = connection.execute(select(schema.forgotten.c.hash)).scalars()
        key = connection.execute(select(schema.state.c.forget_key)).scalar_one()
    assert "4711" not in hashed
    assert hashed != hashlib.sha256(b"4711").hexdigest()
    assert hashed == hmac.new(bytes.fromhex(key), b"4711", "sha256").hexdigest()


def test_a_restored_store_forgets_again_by_the_list_of_the_lost_one(
    store: Store, tmp_path: Path
) -> None:
    store.add([receipt("1", user) for user in ("u1", "u2")])
    store.log_exposures([exposure("u1"), exposure("u3")])  # u3 was asked for, and never bought
    for user in ("u1", "u3"):
        store.forget(user)
    assert write_list(store, tmp_path / "forgotten.json") == 2
    assert "u1" not in (tmp_path / "forgotten.json").read_text()
    restored = Store(str(tmp_path / "restored.db")).init()
    restored.add([receipt("1", user) for user in ("u1", "u2")])
    restored.log_exposures([exposure("u1"), exposure("u3")])
    applied = apply_list(restored, tmp_path / "forgotten.json")
    assert applied == (2, {"receipts": 1, "exposures": 2, "pools": 0, "shoppers": 1})
    assert apply_list(restored, tmp_path / "forgotten.json").new == 0
    assert restored.counts() == {
        "receipts": 1,
        "shoppers": 1,
        "exposures": 0,
        "pools": 0,
        "unavailable": 0,
    }
    assert restored.add([receipt("9", "u1")]) == Added(0, 0, 1)
    own = Store(str(tmp_path / "other.db")).init()
    own.forget("u9")
    with pytest.raises(DataError, match="another key"):
        apply_list(own, tmp_path / "forgotten.json")
    for bad in ("", "{}", "[]", '{"format": 1, "key": "zz", "since": {}}', "null"):
        (tmp_path / "bad.json").write_text(bad)
        with pytest.raises(DataError, match="list of forgotten ids"):
            apply_list(restored, tmp_path / "bad.json")
    restored.close()
    own.close()


def test_a_writer_that_overlaps_with_forgetting_leaves_nothing(store: Store) -> None:
    """Writes that began before: they end first and are removed, or wait and find the list."""
    users = [f"u{n}" for n in range(20)]
    stop = threading.Event()
    other = Store(store.url)
    wrong: list[BaseException] = []

    def write() -> None:
        n = 0
        try:
            while not stop.is_set():
                n += 1
                other.add([receipt(str(n), user) for user in users])
                other.log_exposures([exposure(user) for user in users])
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for user in users:
        store.forget(user)
    stop.set()
    thread.join()
    other.close()
    assert not wrong
    assert store.counts() == dict.fromkeys(
        ("receipts", "shoppers", "exposures", "pools", "unavailable"), 0
    )


def test_what_a_reader_keeps_in_the_log_goes_when_the_reader_has_gone(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store.db")).init()
    store.add([receipt("77-secret", "u1")])
    with sqlite3.connect(tmp_path / "store.db", isolation_level=None) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM receipts").fetchone()
        store.forget("u1")
        assert store.unswept
        assert "write-ahead log" in what_is_left(store)[1]
        started = time.monotonic()
        store.add([receipt("1", "u2")])  # a writer isn't kept waiting by the reader
        assert time.monotonic() - started < 2
        watch = Watch(store, [], every=0.05)
        time.sleep(0.2)
        assert store.unswept
        reader.execute("COMMIT")
    reader.close()
    until = time.monotonic() + 5
    while store.unswept and time.monotonic() < until:
        time.sleep(0.02)
    watch.stop()
    for file in tmp_path.iterdir():
        assert b"77-secret" not in file.read_bytes(), file.name
    assert len(what_is_left(store)) == 1
    store.close()


def test_copies_that_sqlite_left_go_when_the_store_is_compacted_or_restored(tmp_path: Path) -> None:
    def copies(name: str) -> int:
        return sum(file.read_bytes().count(b"zz-secret") for file in tmp_path.glob(f"{name}*"))

    store = Store(str(tmp_path / "store.db")).init()
    users = ["zz-secret" if n % 100 == 3 else f"u{n % 300}" for n in range(4000)]
    times = [datetime(2024, 1, 1 + n % 28, 10, n % 60) for n in range(4000)]
    lines = {"user_id": users, "item_id": ["tea"] * 4000, "time": times, "value": [1.0] * 4000}
    load_frames(store, pl.DataFrame(lines).with_row_index("basket_id"))
    store.add([receipt("150", "zz-secret")])  # and a full page of the index is split
    store.sweep()
    shutil.copy(tmp_path / "store.db", tmp_path / "backup.db")
    store.forget("zz-secret")
    assert "retailrec store compact" in what_is_left(store)[0]
    assert copies("store.db")  # so that forgetting alone does not do
    compact(store)
    assert not copies("store.db")
    write_list(store, tmp_path / "forgotten.json")
    store.close()
    restored = Store(str(tmp_path / "restored.db"))
    restore(tmp_path / "backup.db", restored, tmp_path / "forgotten.json")
    assert not copies("restored.db")


@pytest.mark.slow
def test_what_postgresql_keeps_in_its_files_goes_when_they_are_made_anew(server: Postgres) -> None:
    def holding(text: bytes) -> list[str]:
        files = (p for p in (server.folder / "data" / "base").rglob("*") if p.is_file())
        return [p.name for p in files if text in p.read_bytes()]

    with server.database() as url:
        store = Store(url).init()
        store.add([receipt(str(n), user) for n in range(50) for user in ("zz-secret", "u1", "u2")])
        store.log_exposures([exposure("zz-secret")])
        store.forget("zz-secret")
        (said,) = what_is_left(store)
        assert "statistics until: retailrec store compact" in said
        compact(store)
        with store.writing.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("CHECKPOINT")
            assert holding(b"zz-secret")  # so compacting does not do
            connection.exec_driver_sql("VACUUM FULL")
            connection.exec_driver_sql("CHECKPOINT")
        assert not holding(b"zz-secret")
        store.close()


class Kept:
    """A place in memory."""

    def __init__(self, *users: str) -> None:
        self.users = list(users)

    def forget(self, gone: Callable[[str], bool]) -> int:
        before = len(self.users)
        self.users = [user for user in self.users if not gone(user)]
        return before - len(self.users)


def test_memory_forgets_whom_another_process_forgot(store: Store) -> None:
    place = Kept("u1", "u2")
    watch = Watch(store, [place], every=60, settle=0.05)
    watch.look()
    assert place.users == ["u1", "u2"]
    other = Store(store.url)
    other.forget("u1")
    watch.look()
    assert place.users == ["u2"]
    place.users.append("u1")  # of a request that was under way
    time.sleep(0.06)
    watch.look()
    assert place.users == ["u2"]
    take_off_list(other, "u1")
    other.forget("u2")
    other.close()
    place.users.append("u1")
    watch.look()
    assert place.users == ["u1"]
    watch.stop()


def test_memory_forgets_though_a_place_could_not_at_first(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Kept):
        def forget(self, gone: Callable[[str], bool]) -> int:
            if not self.users:
                return super().forget(gone)
            self.users.pop()
            raise OSError("no space left on device")

    place = Kept("u1", "u2")
    watch = Watch(store, [Full("x", "y"), place], every=0.02, settle=0.02)
    store.forget("u1")
    until = time.monotonic() + 5
    while "u1" in place.users and time.monotonic() < until:
        time.sleep(0.02)
    watch.stop()
    assert place.users == ["u2"]
    assert "no space left on device" in caplog.text


def test_lists_change_their_version_and_hold_what_was_said(store: Store) -> None:
    before = store.lists()
    store.set_available({"tea": False, "jam": False})
    store.set_available({"jam": True})
    store.set_rules("mailing", {"min_new": 2})
    now = store.lists()
    assert now.unavailable == {"tea"}
    assert now.rules == {"mailing": {"min_new": 2}}
    assert now.version == store.shopper("x").lists != before.version
    store.set_rules("mailing", None)
    assert store.lists().rules == {}


def test_denied_items_are_the_shoppers_own(store: Store) -> None:
    store.deny("ann", "tea")
    store.deny("ann", "jam")
    store.deny("ann", "tea", denied=False)
    assert store.shopper("ann").denied == ("jam",)
    assert store.shopper("bob").denied == ()


def test_compact_removes_what_is_old_and_moves_the_versions(store: Store) -> None:
    store.add([receipt("1"), receipt("2", "ann", DAY + timedelta(days=9)), receipt("1", "bob")])
    before = store.shopper("ann").version
    assert compact(store, datetime(2024, 1, 12)) == {"receipts": 2, "exposures": 0, "pools": 0}
    assert [r.number for r in store.history("ann")] == ["2"]
    assert store.shopper("ann").version != before
    compact(store)


def test_a_load_and_an_export_are_each_others_inverse(store: Store, tmp_path: Path) -> None:
    # up to three receipts a day, in no order of their numbers
    number = pl.format("r{}", (pl.struct("time", pl.col("item_id") % 3).hash(seed=1) % 10**9))
    frame = receipts().with_columns(basket_id=number)
    data = RetailData.from_frames(frame)
    loaded = load_frames(store, frame)
    assert (loaded.lines, loaded.new) == (data.log.height, store.counts()["receipts"])
    assert loaded.receipts == data.log["basket"].n_unique()
    assert export(store, tmp_path / "lines.parquet") == data.log.height
    back = RetailData.from_frames(pl.read_parquet(tmp_path / "lines.parquet"))
    assert back.log.equals(data.log)
    assert store.shopper("u00").ends == data.end
    again = load_frames(store, frame)
    assert (again.receipts, again.new) == (loaded.receipts, 0)


def test_an_export_holds_ids_as_they_were_posted(store: Store, tmp_path: Path) -> None:
    store.add(
        [receipt("1", user, DAY, Line(item, 1, 2.0)) for user, item in (("12", "7"), ("12.0", "8"))]
    )
    store.deny("12.0", "7")
    store.describe({"12": {"age": 1}, "12.0": {"age": 2}})
    export(store, tmp_path / "receipts.parquet")
    export_shoppers(store, tmp_path / "shoppers.parquet")
    receipts = pl.read_parquet(tmp_path / "receipts.parquet")
    assert sorted(receipts["user_id"]) == ["12", "12.0"]
    assert sorted(receipts["item_id"]) == [7, 8]
    assert pl.read_parquet(tmp_path / "shoppers.parquet")["user_id"].to_list() == ["12", "12.0"]
    assert export_denials(store).row(0) == ("12.0", 7)
    assert RetailData.from_frames(receipts).n_users == 2


def test_data_in_memory_is_loaded_with_attributes(
    store: Store, data: RetailData, tmp_path: Path
) -> None:
    load_data(store, data)
    assert store.shopper("u01").attributes == {"segment": "b"}
    assert store.shopper("u03").attributes == {}
    export(store, tmp_path / "lines.parquet")
    back = RetailData.from_frames(pl.read_parquet(tmp_path / "lines.parquet"), data.items, end=data.end)
    columns = ["item", "basket", "time", "quantity", "value"]
    assert back.log.select(columns).equals(data.log.select(columns))
    assert export_shoppers(store, tmp_path / "shoppers.parquet") == store.counts()["shoppers"]
    facts = dict(
        pl.read_parquet(tmp_path / "shoppers.parquet").select("user_id", "segment").iter_rows()
    )
    assert facts["u01"] == "b"
    assert facts["u03"] is None


def test_no_trace_of_an_error_holds_an_id(store: Store) -> None:
    """As a service logs it where a shadow model, say, meets a database that goes away."""
    whose = "-".join(["ann", "the", "shopper"])
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE shoppers")
    with pytest.raises(StoreUnavailable) as found:
        store.shopper(whose)
    trace = "".join(traceback.format_exception(found.value))
    assert "FROM state LEFT OUTER JOIN shoppers" in trace
    assert whose not in trace


def test_decimals_are_attributes_like_other_numbers(store: Store) -> None:
    points, shop = (pl.Series([Decimal(text), None]) for text in ("1.50", "3"))
    describe(store, pl.DataFrame({"user_id": ["u1", "u2"], "points": points, "store": shop}))
    assert store.shopper("u1").attributes == {"points": 1.5, "store": 3}
    assert store.shopper("u2").attributes == {}


def test_describing_shoppers_leaves_their_denied_items(store: Store) -> None:
    store.deny("u1", "tea")
    describe(store, pl.DataFrame({"user_id": ["u1"], "age": [40]}))
    assert store.shopper("u1")[1:3] == ({"age": 40}, ("tea",))


def test_a_store_of_an_older_version_is_brought_up_to_date(store: Store) -> None:
    store.add([receipt("1")])
    steps = (*schema.MIGRATIONS, lambda c: c.execute(text("ALTER TABLE shoppers ADD COLUMN x INTEGER")))
    with store.transaction() as connection:
        assert schema.migrate(connection, steps) == [len(steps)]
    with store.transaction() as connection:
        assert schema.migrate(connection, steps) == []
    assert len(store.history("ann")) == 1
    with pytest.raises(DataError, match=r"version \d.*Update retailrec, or restore the backup"):
        store.require_ready()
    with pytest.raises(DataError, match=r"version \d.*Update retailrec"):
        store.init()


# the tables that version 0.2 made
VERSION_0_2 = """
CREATE TABLE state (id INTEGER NOT NULL PRIMARY KEY, ends BIGINT, text_numbers BOOLEAN NOT NULL,
    lists BIGINT NOT NULL, rules TEXT NOT NULL);
CREATE TABLE shoppers (id VARCHAR(128) NOT NULL PRIMARY KEY, version BIGINT NOT NULL,
    attributes TEXT NOT NULL, denied TEXT NOT NULL);
CREATE TABLE receipts (shopper VARCHAR(128) NOT NULL, number VARCHAR(128) NOT NULL,
    time BIGINT NOT NULL, items TEXT NOT NULL, amounts BLOB NOT NULL, PRIMARY KEY (shopper, number));
CREATE TABLE exposures (id SERIAL, campaign VARCHAR(128) NOT NULL, user_id VARCHAR(128) NOT NULL,
    item_id VARCHAR(128), time BIGINT NOT NULL, model VARCHAR(200) NOT NULL, rank INTEGER NOT NULL,
    score FLOAT, price FLOAT, arm VARCHAR(128) NOT NULL, propensity FLOAT, holdout BOOLEAN NOT NULL,
    shadow BOOLEAN NOT NULL, request VARCHAR(64) NOT NULL);
CREATE INDEX exposures_of_shopper ON exposures (user_id);
CREATE TABLE unavailable (item VARCHAR(128) NOT NULL PRIMARY KEY, since BIGINT NOT NULL);
CREATE TABLE models (id SERIAL, model VARCHAR(128) NOT NULL, digest VARCHAR(64) NOT NULL,
    activated BIGINT NOT NULL);
CREATE TABLE keys (id VARCHAR(16) NOT NULL PRIMARY KEY, name VARCHAR(128) NOT NULL,
    hash VARCHAR(64) NOT NULL, scopes VARCHAR(64) NOT NULL, made BIGINT NOT NULL);
CREATE TABLE schema_version (version INTEGER NOT NULL PRIMARY KEY);
INSERT INTO schema_version VALUES (1);
INSERT INTO state VALUES (1, NULL, false, 0, '{}');
INSERT INTO shoppers VALUES ('u1', 5, '{}', '["tea"]');
INSERT INTO exposures (campaign, user_id, time, model, rank, arm, holdout, shadow, request)
    VALUES ('home', 'u1', 1, 'm', 0, 'a', false, false, 'r')
"""


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_of_version_0_2_is_brought_up_to_date_when_it_is_opened(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with ExitStack() as held:
        if kind == "sqlite":
            url = str(tmp_path / "store.db")
            ddl = VERSION_0_2.replace("id SERIAL", "id INTEGER PRIMARY KEY AUTOINCREMENT")
        else:
            url = held.enter_context(request.getfixturevalue("server").database())
            ddl = VERSION_0_2.replace("id SERIAL", "id BIGSERIAL PRIMARY KEY").replace("BLOB", "BYTEA")
        old = Store(url)
        with old.transaction() as connection:
            for statement in ddl.split(";"):
                connection.exec_driver_sql(statement)
        old.close()
        store = open_store(url)
        new = Store(str(tmp_path / "new.db")).init()
        for table in schema.metadata.tables:
            with store.reader() as connection, new.reader() as other:
                columns = [
                    {column["name"] for column in inspect(one).get_columns(table)}
                    for one in (connection, other)
                ]
            assert columns[0] == columns[1]
        assert store.shopper("u1").denied == ("tea",)
        assert Experiment("home", holdout=0.5).settled(store).formula == 1
        store.add([receipt("1", "u1")])
        assert store.forget("u1") == {"receipts": 1, "exposures": 1, "pools": 0, "shoppers": 1}
        assert store.add([receipt("1", "u1")]) == Added(0, 0, 1)
        store.close()
        new.close()


def test_a_failed_migration_leaves_the_store_as_it_was(store: Store) -> None:
    def fails(connection: object) -> None:
        connection.execute(text("ALTER TABLE shoppers ADD COLUMN x INTEGER"))  # type: ignore[attr-defined]
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"), store.transaction() as connection:
        schema.migrate(connection, (*schema.MIGRATIONS, fails))
    store.require_ready()
    with store.transaction() as connection:
        connection.execute(text("ALTER TABLE shoppers ADD COLUMN x INTEGER"))  # not there yet


def test_a_store_that_is_replaced_while_it_is_open_takes_what_comes(tmp_path: Path) -> None:
    """Receipts were acknowledged and went into the file that had been moved away, or an empty one was made."""
    old, new, file = (tmp_path / name for name in ("old", "new.db", "store.db"))
    Store(str(new)).init().close()
    old.mkdir()
    with closing(Store(str(file)).init()) as store:
        store.add([receipt("1")])
        make_key(store, "till")
        keys = Keyring(store, None)
        assert asyncio.run(keys.key_of("")) is None
        for part in tmp_path.glob("store.db*"):
            part.rename(old / part.name)
        for use in (lambda: store.add([receipt("2")]), lambda: store.shopper("ann")):
            with pytest.raises(StoreUnavailable, match="the file is gone"):
                use()
        assert not file.exists()  # an empty one would be in the way of a restore
        new.rename(file)
        assert store.history("ann") == []
        assert store.add([receipt("3")]).new == 1
        keys._read_at = -9.0
        assert asyncio.run(keys.key_of("")) is None  # though no key was ever made for the new one
    for place, number in ((old / "store.db", "1"), (file, "3")):
        with closing(Store(str(place))) as store:
            assert [one.number for one in store.history("ann")] == [number]


def test_a_full_disk_refuses_to_write_and_goes_on_reading(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store.db"))
    store.add([receipt("1")])
    with store.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    many = [receipt(str(n), "bob") for n in range(2, 2000)]
    with pytest.raises(StoreFull, match="no room"):
        store.add(many)
    assert len(store.history("ann")) == 1
    assert store.history("bob") == []
    with store.transaction() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count=1000000")
    assert store.add(many).new == 1998
    store.close()


@pytest.mark.parametrize("fresh", [True, False])
def test_what_stops_a_load_is_said_as_anything_else_of_the_database(store: Store, fresh: bool) -> None:
    if not fresh:
        store.add([receipt("1")])
    refuses = {
        "sqlite": "CREATE TRIGGER t BEFORE INSERT ON receipts WHEN new.shopper = 'bob' "
        "BEGIN SELECT RAISE(ABORT, 'not bob'); END",
        "postgresql": "ALTER TABLE receipts ADD CONSTRAINT not_bob CHECK (shopper <> 'bob')",
    }
    with store.transaction() as connection:
        connection.execute(text(refuses[store.writing.dialect.name]))
    with pytest.raises(DataError, match=r"can't hold a value .*not.bob"):
        load_frames(store, bought([("ann", "tea", DAY), ("bob", "tea", DAY)]))
    assert store.counts()["receipts"] == (not fresh)


@pytest.mark.parametrize("row", [("x" * 129, "tea", DAY), ("ann", "te\u00ada", DAY)])
def test_an_id_that_can_not_be_stored_leaves_no_empty_store(
    tmp_path: Path, row: tuple[str, str, datetime]
) -> None:
    store = Store(str(tmp_path / "store.db"))
    with pytest.raises(DataError, match="is no id"):
        load_frames(store, bought([("ann", "jam", DAY), row]))
    store.close()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_during_a_load_is_said(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store.db")).init()
    with store.transaction() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreFull, match="no room"):
        load_frames(store, bought([(f"u{n}", "tea", DAY) for n in range(3000)]))
    assert store.counts()["receipts"] == 0
    store.close()


@pytest.mark.slow
def test_options_of_the_url_and_the_environment_hold(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("url", "environment"):
        with server.database() as url:
            plain = Store(url)
            with plain.transaction() as connection:
                connection.execute(text("CREATE SCHEMA shop"))
            if name == "environment":
                monkeypatch.setenv("PGOPTIONS", "-c search_path=shop")
                store = Store(url)
            else:
                store = Store(f"{url}?options=-csearch_path%3Dshop", timeout=3)
                with store.reader() as connection:
                    assert connection.execute(text("SHOW statement_timeout")).scalar() == "3s"
            store.init().close()
            monkeypatch.delenv("PGOPTIONS", raising=False)
            with plain.reader() as connection:
                assert "receipts" in inspect(connection).get_table_names("shop")
            assert plain.version() == 0
            plain.close()


@pytest.mark.slow
def test_a_database_of_another_encoding_refuses_what_it_can_not_hold(server: Postgres) -> None:
    with server.database("TEMPLATE template0 ENCODING 'LATIN1'") as url:
        store = Store(url).init()
        store.add([receipt("1", "é")])
        load_frames(store, bought([("ü", "té", DAY)]))
        assert store.history("ü")[0].items == ("té",)
        with pytest.raises(ValueRefused, match="can't hold a value"):
            store.add([receipt("1", "ж")])
        with pytest.raises(ValueRefused, match="can't hold a value"):
            load_frames(store, bought([("ü", "ж", DAY)]))
        assert store.counts()["receipts"] == 2
        store.close()


@pytest.mark.slow
def test_who_may_change_rows_and_make_no_tables_can_use_a_store(server: Postgres) -> None:
    with server.database() as url:
        store = Store(url).init()
        with store.transaction() as connection:
            connection.execute(text("CREATE ROLE till LOGIN"))
            for what in ("TABLES", "SEQUENCES"):
                connection.execute(text(f"GRANT ALL ON ALL {what} IN SCHEMA public TO till"))
        till = Store(url.replace("test@", "till@"))
        load_frames(till.init(), bought([("ann", "tea", DAY)]))
        till.log_exposures([exposure(key=1)])
        assert till.forget("ann")["receipts"] == 1
        till.close()
        with store.transaction() as connection:
            connection.execute(text("DROP OWNED BY till"))
            connection.execute(text("DROP ROLE till"))
        store.close()


@pytest.mark.slow
def test_what_goes_through_a_table_has_no_time_limit(server: Postgres, tmp_path: Path) -> None:
    with server.database() as url:
        store = Store(url, timeout=0.5).init()
        store.log_exposures([exposure(key=1)])
        store.describe({"ann": {"age": 3}})
        with store.transaction() as connection:
            for table in ("exposures", "shoppers"):
                connection.execute(text(f"ALTER TABLE {table} RENAME TO {table}_there"))
                slow = f"SELECT t.* FROM {table}_there t, (SELECT pg_sleep(1)) s"
                connection.execute(text(f"CREATE VIEW {table} AS {slow}"))
        with pytest.raises(StoreUnavailable, match="statement timeout"):
            store.last_shown(["u1"])  # an answer waits for that
        assert store.counts()["exposures"] == len(store.exposures()) == 1
        assert store.has_attribute("age")
        assert store.dismissals() == []
        assert export_shoppers(store, tmp_path / "shoppers.parquet") == 1
        store.close()


def test_a_log_is_exported_in_order_with_a_part_of_it_in_memory(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "_LOG_ROWS", 500)
    n = 20_000
    rows = [exposure(f"u{i:05}", rank=i % 10 + 1, shadow=i % 4 == 0, key=i) for i in range(n)]
    store.log_exposures(rows)
    tracemalloc.start()
    assert export_exposures(store, tmp_path / "shown.parquet") == 0.75 * n
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100 * n  # bytes; a row as it comes from the database takes some 500
    shown = pl.read_parquet(tmp_path / "shown.parquet")
    assert dict(shown.schema) == dict(LEDGER)
    right = [(row["user_id"], row["rank"]) for row in rows if not row["shadow"]]
    assert shown.select("user_id", "rank").rows() == right
    assert export_exposures(store, tmp_path / "all.parquet", shadow=True) == n
    assert export_pools(store, tmp_path / "pools.parquet") == 0
    assert dict(pl.read_parquet_schema(tmp_path / "pools.parquet")) == dict(POOL)
    assert {file.suffix for file in tmp_path.iterdir()} - {".db", ".db-wal", ".db-shm"} == {".parquet"}


@pytest.mark.slow
def test_no_acknowledged_receipt_is_lost_or_doubled_by_a_kill(tmp_path: Path) -> None:
    code = """
import sys
from datetime import datetime
from retailrec.serving.store import open_store
from retailrec.serving.receipts import Line, Posted, accept
store, first = open_store(sys.argv[1]), int(sys.argv[2])
for n in range(first, first + 100_000):
    one = Posted(f"u{n % 7}", str(n), datetime(2024, 1, 9), [Line("tea", n + 1)])
    store.add(accept([one]).receipts)
    print(n, flush=True)
"""
    path, acknowledged = str(tmp_path / "store.db"), []
    open_store(path).close()
    for kill in range(3):
        first = 1_000_000 * kill
        process = subprocess.Popen(
            [sys.executable, "-c", code, path, str(first)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        acknowledged += [int(process.stdout.readline()) for _ in range(40 + 7 * kill)]
        process.kill()
        acknowledged += [int(line) for line in process.stdout.read().split()]
        process.stdout.close()
        process.wait()
    store = open_store(path)
    stored = [int(r.number) for u in range(7) for r in store.history(f"u{u}")]
    store.close()
    assert len(stored) == len(set(stored))
    assert set(acknowledged) <= set(stored)
    assert len(stored) <= len(acknowledged) + 3


def test_what_is_no_store_is_refused_in_words(tmp_path: Path) -> None:
    for url in ("mysql://x/y", "sqlite://", str(tmp_path / "no" / "store.db"), "://", "  "):
        with pytest.raises(SettingError, match="--store"):
            open_store(url)
    (tmp_path / "notes.txt").write_text("no database " * 999)
    with pytest.raises(Exception, match=r"notes\.txt.*not a database.*restore a backup"):
        open_store(str(tmp_path / "notes.txt"))


def test_a_password_is_not_in_the_name() -> None:
    store = Store("postgresql://me:hunter2@127.0.0.1:1/x", timeout=1)
    assert "hunter2" not in store.name + repr(store)
    with pytest.raises(Exception, match="can't be used now") as error:
        store.init()
    assert "hunter2" not in str(error.value)


QUANTITIES = st.sampled_from([1.0, 2.5, 0.0, -1.0, float("inf")])
VALUES = st.sampled_from([1.0, 2.5, 0.0, -1.0, float("inf"), float("nan")])
LINES = st.builds(Line, st.sampled_from(["a", "b", " ", "c"]), QUANTITIES, VALUES, st.just(0.25))


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=8))
def test_a_receipt_keeps_the_lines_that_a_load_keeps(lines: list[Line]) -> None:
    frame = pl.DataFrame(
        {
            "user_id": "ann",
            "item_id": [line.item for line in lines],
            "basket_id": "1",
            "time": DAY,
            "quantity": [line.quantity for line in lines],
            "value": pl.Series([line.value for line in lines]).fill_nan(None),
            "discount": [line.discount for line in lines],
        }
    )
    found = accept([Posted("ann", "1", DAY, lines)])
    report = LoadReport("x")
    try:
        data = RetailData.from_frames(frame, report=report)
    except DataError:  # no line is left
        assert found.receipts[0].items == ()
        assert found.report.rejected == report.rejected
        return
    assert (found.report.rejected, found.report.merged) == (report.rejected, report.merged)
    assert found.report.pieces == report.pieces
    bought = data.items["item_id"].gather(data.log["item"]).to_list()
    assert list(found.receipts[0].items) == bought
    for name in ("quantity", "value", "discount"):
        stored = pl.Series(found.receipts[0].amounts[name].copy()).fill_nan(None)
        assert stored.to_list() == data.log[name].to_list()


def test_numbers_of_receipts_are_kept_and_told_apart(store: Store) -> None:
    frame = pl.DataFrame(
        {
            "user_id": ["ann"] * 7,
            "item_id": ["tea", "jam", "rye", "tea", "oil", "fig", "nut"],
            "basket_id": ["9", "9", "10", "9", None, "11", "12"],
            "time": [
                DAY,
                DAY + timedelta(minutes=2),
                DAY,
                DAY + timedelta(days=90),
                DAY + timedelta(days=1),
                DAY + timedelta(days=2),
                DAY + timedelta(days=2),
            ],
        }
    )
    load_frames(store, frame)
    found = {r.number: r.items for r in store.history("ann")}
    assert found["9"] == ("jam", "tea")
    assert found["10"] == ("rye",)
    assert found["11"] == ("fig",)
    assert found["12"] == ("nut",)
    assert found["20240110T083000"] == ("oil",)
    assert found[next(n for n in found if n.startswith("9@"))] == ("tea",)
    assert len(found) == 6


@pytest.mark.parametrize("together", [True, False])
def test_numbers_of_any_length_may_start_anew(store: Store, together: bool, tmp_path: Path) -> None:
    number = "9" * 128
    parts = [
        bought([("ann", item, DAY + timedelta(days=days))]).with_columns(basket_id=pl.lit(number))
        for item, days in (("tea", 0), ("jam", 90))
    ]
    for frame in [pl.concat(parts)] if together else parts:
        load_frames(store, frame)
    kept = {r.number: r.items for r in store.history("ann")}
    assert kept == {number: ("tea",), f"{number}@20240408T083000": ("jam",)}
    export(store, tmp_path / "receipts.parquet")
    assert load_frames(store, pl.read_parquet(tmp_path / "receipts.parquet")).new == 0
    again = [receipt(r.number, r.shopper, DAY + timedelta(days=200)) for r in store.history("ann")]
    with pytest.raises(ReceiptConflict):
        store.add(again)
    with pytest.raises(DataError, match="receipt number"):
        receipt(number + "9")
    with pytest.raises(DataError, match="receipt number"):
        load_frames(store, parts[0].with_columns(basket_id=pl.lit(number + "9")))


def test_connections_keep_little_of_the_file_in_memory(tmp_path: Path) -> None:
    # each fills its page cache while it reads, so a service would grow for hours
    store = Store(str(tmp_path / "store.db")).init()
    for engine in (store.reading, store.writing):
        with engine.connect() as connection:
            kibibytes = -connection.exec_driver_sql("PRAGMA cache_size").scalar_one()
        assert 0 < kibibytes * store.connections < 64 * 1024
    store.close()


def test_a_store_is_its_owners_alone_unless_told_otherwise(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(str(tmp_path / "s.db")).init()
        with store.transaction() as connection:
            connection.execute(select(schema.state)).all()
            modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
        assert modes == dict.fromkeys(("s.db", "s.db-wal", "s.db-shm"), 0o600)
        store.close()
        (tmp_path / "s.db").chmod(0o640)  # told otherwise
        store = Store(str(tmp_path / "s.db")).init()
        store.deny("a", "b")
        assert {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {0o640}
        store.close()
    finally:
        os.umask(before)

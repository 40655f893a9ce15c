"""The log of what was shown: a row that can't be stored stops nothing, and none is lost in silence."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("sqlalchemy")

from retailrec.serving.database import StoreUnavailable, ValueRefused
from retailrec.serving.engine import Offer, Reply
from retailrec.serving.experiment import Aside, Assignment, ExposureLog, aside_of, rows_of
from retailrec.serving.store import Store
from retailrec.serving.upkeep import export_exposures
from serving_support import Postgres, exposure, opened, postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    found = postgres()
    yield found
    found.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    yield from opened(request, tmp_path)


Log = Callable[..., ExposureLog]


@pytest.fixture
def log(store: Store, tmp_path: Path) -> Iterator[Log]:
    """Makes logs that write when they are told to."""
    made: list[ExposureLog] = []

    def make(**more: Any) -> ExposureLog:
        made.append(ExposureLog(store, Aside(tmp_path / "aside"), every=3600, **more))
        return made[-1]

    yield make
    for one in made:
        one.stop(0)


ODD = [
    {"item": "a\0b"},
    {"campaign": "\0"},
    {"user": "\ud800"},
    {"time": 2**70},
    {"rank": None},
    {"arm": None},
    {"score": {"a": 1}},
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_a_row_that_the_store_refuses_is_set_aside_alone(
    store: Store, log: Log, tmp_path: Path, odd: dict[str, Any]
) -> None:
    one = log()
    one.add([exposure(str(n)) for n in range(7)])
    one.add([exposure(**odd)])
    one.add([exposure(str(n)) for n in range(7, 12)])
    assert one.flush()
    assert (one.written, one.set_aside, one.waiting, one.dropped) == (12, 1, 0, 0)
    assert [r["user_id"] for r in store.exposures()] == [str(n) for n in range(12)]
    (file,) = (tmp_path / "aside").iterdir()
    (kept,) = map(json.loads, file.read_text().splitlines())
    assert kept["why"]
    assert {name: kept[name] for name in exposure(**odd)} == exposure(**odd)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    left = one.stop()
    assert left == (1, 0, file)


def test_ids_of_any_length_are_logged(store: Store, log: Log) -> None:
    one = log()
    long = "é" * 5000
    one.add([exposure(item=long, campaign=long, arm=long, model=long, request=long)])
    one.flush()
    assert (one.written, one.set_aside) == (1, 0)
    (found,) = store.exposures()
    assert {found[name] for name in ("item_id", "campaign", "arm", "model", "request")} == {long}


def test_a_batch_whose_acknowledgement_was_lost_is_there_once(
    store: Store, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = log()
    one.add([exposure("u1"), exposure("u1")])  # shown twice is two rows
    right = store.log_exposures

    def committed_but_not_heard(rows: Any) -> int:
        right(rows)
        raise StoreUnavailable("the connection broke after the commit")

    monkeypatch.setattr(store, "log_exposures", committed_but_not_heard)
    assert not one.flush()
    assert one.waiting == 2
    monkeypatch.setattr(store, "log_exposures", right)
    one.add([exposure("u2")])
    assert one.flush()
    assert [r["user_id"] for r in store.exposures()] == ["u1", "u1", "u2"]


def test_what_could_not_be_written_at_a_stop_is_recovered_once(
    store: Store, log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = log(most=6)
    right = store.log_exposures

    def away(rows: Any) -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(store, "log_exposures", away)
    one.add([exposure(f"u{n}") for n in range(5)])
    one.add([exposure("u5", item="a\0b"), exposure("late")])
    left = one.stop(0)
    assert left is not None
    assert (left.aside, left.lost) == (6, 1)
    monkeypatch.setattr(store, "log_exposures", right)
    store.forget("u3")
    aside = Aside(left.file.parent)
    assert aside.forget(lambda user: user == "u0") == 1
    before = left.file.read_text()
    assert aside.recover(store, left.file) == (3, 1, 1)
    assert [r["user_id"] for r in store.exposures()] == ["u1", "u2", "u4"]
    (kept,) = map(json.loads, left.file.read_text().splitlines())
    assert kept["user_id"] == "u5"
    left.file.write_text(before)  # as if it had been killed before the file was shortened
    aside.recover(store, left.file)
    assert store.counts()["exposures"] == 3
    left.file.write_text("no json\n" + '{"key": []}\n')
    assert aside.recover(store, left.file) == (0, 0, 2)
    assert aside.forget(lambda user: True) == 2
    assert aside.files() == []


def test_a_disk_that_has_room_for_a_part_takes_none_of_the_rows(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    aside = Aside(tmp_path / "aside")
    aside.add([exposure()], "away")
    there = aside.file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(there) + 30, hard))
        with pytest.raises(OSError, match="No space left"):
            aside.add([exposure("u2")], "away")
        with pytest.raises(OSError, match="No space left"):
            Aside(tmp_path / "aside").add([exposure("u2" * 1000)], "away")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert aside.file.read_bytes() == there
    assert aside.files() == [aside.file]  # and no empty one that would be taken for one with rows


def test_rows_that_can_be_put_nowhere_are_counted_as_lost(
    store: Store, log: Log, tmp_path: Path
) -> None:
    (tmp_path / "aside").write_text("a file is in the way")
    one = log()
    one.add([exposure(item="\0"), exposure()])
    assert one.flush()
    assert (one.written, one.set_aside, one.dropped) == (1, 0, 1)
    left = one.stop()
    assert left is not None
    assert left[:2] == (0, 1)
    assert "1 rows of what was shown were not written to the store s and are lost" in left.sentence("s")
    assert "recover" not in left.sentence("s")


def test_the_thread_goes_on_whatever_happens(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, seen = store.log_exposures, []

    def fails_once(rows: Any) -> int:
        seen.append(len(rows))
        if len(seen) == 1:
            raise KeyError("a fault of ours")
        return right(rows)

    monkeypatch.setattr(store, "log_exposures", fails_once)
    one = ExposureLog(store, Aside(tmp_path / "aside"), every=0.01)
    one.add([exposure()])
    until = time.monotonic() + 5
    while not one.written and time.monotonic() < until:
        time.sleep(0.01)
    assert one.stop() is None
    assert store.counts()["exposures"] == 1


def test_exposures_are_in_the_shops_own_time_as_receipts_and_the_ledger_are(
    store: Store, tmp_path: Path
) -> None:
    offer = Offer("tea", "Tea", 1, 0.5, None, None)
    end = datetime(2024, 1, 9)
    answer = Reply("u1", (offer,), "m", "d", end, "popular", "", 0, 0, 0)
    before = datetime.now()
    store.log_exposures(rows_of(answer, "home", Assignment(), "r"))
    export_exposures(store, tmp_path / "shown.parquet")
    (shown,) = pl.read_parquet(tmp_path / "shown.parquet")["time"]
    assert before - timedelta(seconds=1) <= shown <= datetime.now()


def test_a_refused_value_is_no_trouble_of_the_database(store: Store) -> None:
    with pytest.raises(ValueRefused, match="can't hold a value"):
        store.log_exposures([exposure(rank=None)])
    with pytest.raises(ValueRefused, match="column item_id of an exposure"):
        store.log_exposures([exposure(item="\0")])


def test_where_rows_are_set_aside_is_said_by_the_store(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "shop.db"))
    assert aside_of(store) == tmp_path / "shop.db.unwritten"
    store.close()
    assert aside_of(Store("postgresql://127.0.0.1:1/x")) == Path("exposures.unwritten")

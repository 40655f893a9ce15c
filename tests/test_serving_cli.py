"""`retailrec serve` and `retailrec store` as processes: what a newcomer and a till see."""

from __future__ import annotations

import html
import http.client
import json
import os
import shutil
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest
from markupsafe import Markup
from typer.testing import CliRunner

from conftest import receipts

pytest.importorskip("fastapi")
from cli_support import refused, retailrec
from retailrec.cli.app import app
from retailrec.datasets import load_dataset
from retailrec.errors import DataError, SettingError
from retailrec.offers.ledger import Ledger
from retailrec.recommender.batch import end_of
from retailrec.serving import upkeep
from retailrec.serving.database import Dismissal
from retailrec.serving.experiment import Unwritten
from retailrec.serving.forgetting import forget_in_files
from retailrec.serving.server import run_server
from retailrec.serving.store import Store
from retailrec.simulator.shop import small_data
from retailrec.work import write_result
from serving_support import exposure, free_port, postgres, small_model


def run(*words: object) -> str:
    found = CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found.output


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "m"
    small_model().fit(small_data(users=60, weeks=30, items=200)).save(folder)
    return folder


@contextmanager
def serving(
    store: str, model: Path, start: Callable[[], None] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "retailrec",
            "serve",
            "--store",
            store,
            "--model",
            str(model),
            "--port",
            "0",
            "--rate",
            "0",
            "--timeout",
            "5",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        preexec_fn=start,
    )
    assert process.stdout is not None
    told = process.stdout.readline()
    address = told.split("serving on ")[1].split(" ")[0]
    try:
        while ask(address, "/health/ready")[0] != 200:
            time.sleep(0.05)
        yield process, address
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=40)


def ask(address: str, path: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())
    except (OSError, http.client.HTTPException):  # gone, or cut short: nothing was acknowledged
        return 0, None


def receipt(number: int, shopper: str = "till") -> dict[str, Any]:
    lines = [{"item": "3", "quantity": 1, "value": 2.0}]
    return {
        "receipts": [
            {"shopper": shopper, "number": str(number), "time": "2000-07-01T10:00:00", "lines": lines}
        ]
    }


def test_a_store_is_made_loaded_exported_forgotten_and_compacted(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    receipts().write_csv(tmp_path / "lines.csv")
    pl.DataFrame({"user_id": ["u01"], "segment": ["b"]}).write_csv(tmp_path / "users.csv")
    assert "ready" in run("store", "init", "--store", store)
    loaded = run(
        "store",
        "load",
        "table",
        tmp_path / "lines.csv",
        "--users",
        tmp_path / "users.csv",
        "--store",
        store,
    )
    assert "are new" in loaded
    run("store", "load", "table", tmp_path / "lines.csv", "--store", store, "--quiet")
    with closing(Store(str(store))) as opened:
        opened.deny("u02", "7")
        opened.dismiss("u03", "8", Dismissal("8", False, 0, 7 * 86_400_000_000))
    run("store", "export", tmp_path / "out", "--store", store)
    assert pl.read_parquet(tmp_path / "out" / "denied.parquet").rows() == [("u02", 7)]
    assert pl.read_parquet(tmp_path / "out" / "dismissals.parquet")["weeks"].to_list() == [1.0]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    back = load_dataset("table", tmp_path / "out" / "receipts.parquet")
    assert back.log.equals(load_dataset("table", tmp_path / "lines.csv").log)
    assert "0 shoppers" not in run("store", "forget", "u01", "--store", store)
    left = run("store", "compact", "--before", "2024-01-01", "--store", store)
    assert "exposures are left" in left
    opened = Store(str(store))
    assert opened.history("u01") == []
    opened.close()


def test_an_export_that_fails_replaces_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, out = tmp_path / "s.db", tmp_path / "out"
    receipts().write_csv(tmp_path / "lines.csv")
    run("store", "init", "--store", store)
    run("store", "export", out, "--store", store)
    before = {file.name: file.read_bytes() for file in out.glob("*.parquet")}
    run("store", "load", "table", tmp_path / "lines.csv", "--store", store)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(upkeep, "export_pools", full)
    words = ["store", "export", str(out), "--store", str(store)]
    failed = CliRunner().invoke(app, words)
    assert failed.exit_code
    assert "No space left" in str(failed.exception)
    assert {file.name: file.read_bytes() for file in out.glob("*.parquet")} == before
    assert CliRunner().invoke(app, [*words[:2], str(tmp_path / "new"), *words[3:]]).exit_code
    assert not (tmp_path / "new").exists()
    monkeypatch.undo()
    run("store", "export", out, "--store", store)
    after = {file.name: file.read_bytes() for file in out.glob("*.parquet")}
    assert after.keys() == before.keys() != set()
    assert after["receipts.parquet"] != before["receipts.parquet"]
    assert not [file for file in out.iterdir() if file.suffix != ".parquet" and file.is_dir()]


def rows_of(file: Path) -> dict[str, list[tuple[Any, ...]]]:
    with closing(sqlite3.connect(file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {name: connection.execute(f"SELECT * FROM {name}").fetchall() for (name,) in names}


def test_a_backup_is_one_instant_of_a_store_in_use_and_restores_to_the_same(tmp_path: Path) -> None:
    store, backup, back = tmp_path / "s.db", tmp_path / "kept" / "b.db", tmp_path / "back.db"
    receipts().write_csv(tmp_path / "lines.csv")
    run("store", "load", "table", tmp_path / "lines.csv", "--store", store)
    run("store", "key", "add", "till 7", "--store", store)
    service = Store(str(store))
    service.set_rules("mail", {"min_new": 1})  # which stands in the log beside the file
    before = rows_of(store)
    assert len(before["receipts"]) > 3
    with service.transaction() as writer:  # which has written, and not said that it is done
        writer.exec_driver_sql("DELETE FROM receipts")
        said = run("store", "backup", backup, "--store", store)
    service.close()
    assert f"{len(before['receipts'])} receipts" in said
    assert rows_of(store)["receipts"] == []
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in backup.parent.iterdir()}
    assert files == {"b.db": 0o600, "b.db.sha256": 0o600}
    said = run("store", "restore", backup, "--store", back)
    assert "who was forgotten since the backup is back" in said
    assert rows_of(back) == before
    assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.glob("back.db*")} == {0o600}

    # who was forgotten meanwhile does not come back, with the list
    user, listed = before["receipts"][0][0], tmp_path / "forgotten.json"
    run("store", "forget", user, "--store", back)
    run("store", "forgotten", listed, "--store", back)
    run("store", "restore", backup, "--store", tmp_path / "new.db", "--forgotten", listed)
    left = {row[0] for row in rows_of(tmp_path / "new.db")["receipts"]}
    assert left == {row[0] for row in before["receipts"]} - {user}


def test_a_backup_overwrites_nothing_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    store, backup, back = tmp_path / "s.db", tmp_path / "b.db", tmp_path / "back.db"
    receipts().write_csv(tmp_path / "lines.csv")
    run("store", "load", "table", tmp_path / "lines.csv", "--store", store)
    run("store", "backup", backup, "--store", store)
    good = backup.read_bytes()
    restore = ("store", "restore", backup, "--store", back)
    refused(retailrec("store", "backup", backup, "--store", store), "b.db is there already")
    refused(retailrec("store", "restore", backup, "--store", store), "s.db is there already")
    (tmp_path / "back.db-wal").touch()
    refused(retailrec(*restore), "back.db-wal is there already")
    (tmp_path / "back.db-wal").unlink()
    changed = bytearray(good)
    changed[good.rindex(b"u01")] ^= 1  # another shopper's receipt, in a file that SQLite can read
    backup.write_bytes(changed)
    refused(retailrec(*restore), "b.db is not the file of which", "b.db.sha256")
    (tmp_path / "b.db.sha256").unlink()
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("CREATE TABLE t (x)")
    for damaged in (
        good[: len(good) // 2],
        good[:4096] + bytes(4096) + good[8192:],
        b"",
        b"text",
        (tmp_path / "other.db").read_bytes(),
    ):
        backup.write_bytes(damaged)
        refused(retailrec(*restore), f"error: {backup} is no whole backup of a store")
        assert not back.exists()
    refused(retailrec("store", "restore", tmp_path / "no.db", "--store", back), "there is no file")
    refused(retailrec("store", "backup", tmp_path / "c.db", "--store", tmp_path / "no.db"), "no store")
    url = "postgresql://me@localhost/shop"
    for command in (("backup", tmp_path / "p.db"), ("restore", tmp_path / "lines.csv")):
        refused(retailrec("store", *command, "--store", url), "pg_dump")
    assert not list(tmp_path.glob(".*b.db*")) + list(tmp_path.glob("back.db*"))


def test_forgetting_searches_the_files_that_it_is_given(tmp_path: Path) -> None:
    store, place = tmp_path / "s.db", tmp_path / "files"
    run("store", "init", "--store", store)
    lists = pl.DataFrame({"user_id": ["007", "7", "8"], "item_id": [1, 2, 3], "rank": [1, 1, 1]})
    for name in ("lists.csv", "lists.parquet"):
        write_result(lists, place / name)
    write_result(pl.DataFrame({"user_id": [7, 8], "item_id": [1, 2]}), place / "numbers.parquet")
    write_result(lists.write_csv(separator=";"), place / "parted.csv")
    lists.write_csv(place / "theirs.csv")
    lists.rename({"user_id": "client"}).write_csv(place / "receipts.csv")
    rows = lists.with_columns(campaign=pl.lit("may"), time=pl.datetime(2024, 5, 1), propensity=1.0)
    Ledger(place / "ledger").append(rows)
    (place / "report.html").write_text("<p>shopper 7</p>\n<p>77 and 0.75</p>\n")
    (place / "notes.bin").write_bytes(b"\xff\xfe")
    (tmp_path / "elsewhere.csv").write_text("user_id\n7\n")
    (place / "link.csv").symlink_to(tmp_path / "elsewhere.csv")

    def asked(*more: object) -> Any:
        command = ["store", "forget", " 7 ", "--store", store, *more]
        return CliRunner().invoke(app, [str(part) for part in command])

    assert "there is no such file" in str(asked("--also", tmp_path / "none").exception)
    found = asked("--also", place)
    assert found.exit_code == 3, found.output
    said = " ".join(found.stderr.split())
    assert (place / "parted.csv").read_text() == "user_id;item_id;rank\n007;1;1\n8;3;1\n"
    for name in ("lists.csv", "lists.parquet", "numbers.parquet"):
        assert f"1 rows removed: {place / name}" in " ".join(found.stdout.split())
        assert_gone(place / name)
    (offers,) = (place / "ledger").glob("*.parquet")
    assert_gone(offers)
    assert Ledger(place / "ledger").read()["user_id"].to_list() == ["007", "8"]
    assert f"{place / 'theirs.csv'}: 1 rows are of this user, and stay: " in said
    assert f"{place / 'receipts.csv'}: 1 lines hold this id as a word" in said
    assert f"{place / 'report.html'}: 1 lines hold this id as a word" in said
    assert f"{place / 'notes.bin'}: not looked into" in said
    assert f"{place / 'link.csv'}: a link" in said
    assert "not looked into: backups" in said
    assert pl.read_csv(place / "theirs.csv").height == 3
    again = asked("--also", place / "theirs.csv", "--overwrite")
    assert again.exit_code == 0, again.output
    assert_gone(place / "theirs.csv")
    write_result(lists, place / "lists.csv")  # still ours: what was removed is no change by others
    assert "brings nothing back" in str(asked("--undo", "--also", place).exception)


def assert_gone(file: Path) -> None:
    read = pl.read_csv(file, infer_schema=False) if file.suffix == ".csv" else pl.read_parquet(file)
    assert "7" not in read["user_id"].cast(pl.String).to_list()
    assert read.height


def test_what_a_list_says_beside_its_rows_outlives_who_is_forgotten(tmp_path: Path) -> None:
    """`evaluate` reads off it where what the lists know ends."""
    lists = pl.DataFrame({"user_id": ["7", "8"], "item_id": ["1", "2"]})
    file = tmp_path / "lists.parquet"
    lists.write_parquet(file, metadata={"retailrec.end": "2024-06-17T00:00:00"})
    assert forget_in_files("7", [file], overwrite=True)[0].removed == 1
    assert end_of(file) == datetime(2024, 6, 17)
    kinds = lists.with_columns(pl.col("user_id").cast(pl.Enum(["7", "8"])))
    kinds.write_parquet(file)
    assert forget_in_files("7", [file], overwrite=True)[0].removed == 1
    assert pl.read_parquet(file)["user_id"].dtype == pl.String  # an Enum's categories would name it


def test_a_table_whose_lines_end_otherwise_is_not_passed_over(tmp_path: Path) -> None:
    for name, end, left in (("cr", b"\r", "1 lines hold"), ("crlf", b"\r\n", ""), ("lf", b"\n", "")):
        file = tmp_path / f"{name}.csv"
        file.write_bytes(end.join([b"user_id,x", b"7,1", b"8,2", b""]))
        (found,) = forget_in_files("7", [file], overwrite=True)
        assert (found.removed, found.left[:12]) == (int(not left), left)


def test_a_folder_that_is_parted_by_user_is_named(tmp_path: Path) -> None:
    for user in ("7", "ann%40x.org"):
        (tmp_path / f"user_id={user}").mkdir()
        pl.DataFrame({"item_id": [1]}).write_parquet(tmp_path / f"user_id={user}" / "part.parquet")
    for user, place in (("7", "user_id=7"), ("ann@x.org", "user_id=ann%40x.org")):
        left = [one.file.name for one in forget_in_files(user, [tmp_path]) if one.left]
        assert left == [place]


NAMED = {
    "another column": pl.Series(["7", "x", "8", None]),
    "numbers": pl.Series([7, 1, 2, None]),
    "numbers with gaps": pl.Series([7.0, 1.5, None, 8.0]),
    "a list": pl.Series([["8", "7"], [], None, ["77"]]),
    "a list of numbers": pl.Series([[8, 7], [], None, [77]]),
    "an array": pl.Series([[8, 7], [1, 2], None, [77, 78]], dtype=pl.Array(pl.Int64, 2)),
    "an Enum's list": pl.Series([["7"], [], None, ["8"]], dtype=pl.List(pl.Enum(["7", "8"]))),
    "a struct": pl.Series([{"by": "7"}, {"by": "8"}, None, {"by": "77"}]),
    "structs in a list": pl.Series([[{"by": "7"}], [], None, [{"by": "77"}]]),
    "a list as text": pl.Series(['["8", "7"]', "7 up", "77|17", None]),
    "a list with bars": pl.Series(["8| 7", "7 up", "77;17", None]),
}


@pytest.mark.parametrize("column", NAMED.values(), ids=NAMED)
def test_who_is_forgotten_is_named_where_rows_of_others_say_the_id(
    tmp_path: Path, column: pl.Series
) -> None:
    file, other = tmp_path / "lists.parquet", tmp_path / "theirs.parquet"
    table = pl.DataFrame({"user_id": ["8", "9", "10", "7"], "rank": [7, 1, 1, 1], "by": column})
    table.write_parquet(file)
    table.drop("user_id", "rank").write_parquet(other)
    for removed in (1, 0):
        (found,) = forget_in_files("7", [file], overwrite=True)
        assert found == (file, removed, "rows of others name this id, and stay: column 'by' in 1")
    assert pl.read_parquet(file)["user_id"].to_list() == ["8", "9", "10"]
    assert "1 rows hold this id" in forget_in_files("7", [other])[0].left


@pytest.mark.parametrize("user", ['x"y', "a&b", "O'Neil", "ü\\x"])
def test_an_odd_id_is_found_as_text_tables_json_and_pages_have_it(tmp_path: Path, user: str) -> None:
    table = pl.DataFrame({"client": [user, "8"]}).write_csv()
    forms = (table, json.dumps({"user": user}), json.dumps({"user": user}, ensure_ascii=False))
    pages = (f"<p>{html.escape(user)}</p>", f"<p>{Markup.escape(user)}</p>")
    files = [tmp_path / f"{place}.txt" for place in range(5)]
    for file, text in zip(files, (*forms, *pages), strict=True):
        file.write_text(text)
    found = forget_in_files(user, files)
    assert ["1 lines hold this id as a word" in one.left for one in found] == [True] * 5


def test_a_model_whose_table_of_changed_ids_names_the_forgotten_is_said_to(tmp_path: Path) -> None:
    run("store", "init", "--store", tmp_path / "s.db")
    model = tmp_path / "files" / "model"
    (model / "data").mkdir(parents=True)
    (model / "manifest.json").write_text('{"format": "retailrec-model"}')
    pl.DataFrame({"item_id": ["8", "9"]}).write_parquet(model / "data" / "items.parquet")
    table = {"kind": ["user", "item"], "old": ["7", "9"], "new": ["8", "5"]}
    pl.DataFrame(table).write_parquet(model / "data" / "changed.parquet")
    for user, named in (("7", True), ("8", True), ("9", False)):
        command = ["store", "forget", user, "--store", tmp_path / "s.db", "--also", tmp_path / "files"]
        found = CliRunner().invoke(app, [str(part) for part in command])
        assert found.exit_code == 3, found.output
        said = " ".join(found.stderr.split())
        assert ("its table of changed ids names this id" in said) is named
        assert ("a model holds no ids" in said) is not named


def test_no_manifest_but_a_models_hides_the_tables_beside_it(tmp_path: Path) -> None:
    """A published week was taken for its model, and its lists stayed; so with any manifest."""
    run("store", "init", "--store", tmp_path / "s.db")
    week, theirs = tmp_path / "weeks" / "2024-05-06-0a1b2c3d", tmp_path / "theirs"
    rows = {"user_id": ["7", "8"], "item_id": ["1", "2"], "rank": [1, 1]}
    for folder, text in ((week, '{"format": "retailrec-week"}'), (theirs, "[]")):
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(text)
        for name in ("recommendations.parquet", "exposures.parquet"):
            pl.DataFrame(rows).write_parquet(folder / name)
    (tmp_path / "weeks" / "current").symlink_to(week.name)
    command = ["store", "forget", "7", "--store", tmp_path / "s.db", "--also", tmp_path / "weeks"]
    found = CliRunner().invoke(app, [str(part) for part in [*command, "--also", theirs]])
    said = " ".join(found.stderr.split())
    assert "a model holds no ids" not in said
    assert "a link" not in said  # what it names was searched
    for name in ("recommendations.parquet", "exposures.parquet"):
        assert_gone(week / name)
        assert f"{theirs / name}: 1 rows are of this user, and stay: " in said


@pytest.mark.parametrize("column", ["user_id", "Customer"])
@pytest.mark.parametrize(
    "ids",
    [
        pl.Series([7.0, 8.0, None]),
        pl.Series(["7", "8", "ann"], dtype=pl.Categorical),
        pl.Series([7, 8, 9]).cast(pl.Decimal(18, 0)),
        pl.Series([" 7", "8", "ann\u200b"]),
        pl.Series([b"7", b"8", b"\xff"]),
    ],
    ids=["floats", "categories", "decimals", "text", "bytes"],
)
def test_an_id_is_found_in_whatever_type_a_table_has_it(
    tmp_path: Path, column: str, ids: pl.Series
) -> None:
    run("store", "init", "--store", tmp_path / "s.db")
    file = tmp_path / "receipts.parquet"
    pl.DataFrame({column: ids, "item_id": "x"}).write_parquet(file)
    command = ["store", "forget", "7", "--store", tmp_path / "s.db", "--also", file, "--overwrite"]
    found = CliRunner().invoke(app, [str(part) for part in command])
    assert found.exit_code == (0 if column == "user_id" else 3), found.output
    if column == "user_id":
        assert pl.read_parquet(file).height == 2
    else:
        assert "1 rows hold this id, in no column user_id" in " ".join(found.stderr.split())


@pytest.mark.parametrize("wider", [["--host", "0.0.0.0"], ["--host-name", "lists.example"]])
def test_no_keys_is_for_loopback_alone_and_for_no_proxy(
    tmp_path: Path, model: Path, wider: list[str]
) -> None:
    run("store", "init", "--store", tmp_path / "s.db")
    command = ["serve", "--model", model, "--store", tmp_path / "s.db", "--port", "0", "--no-keys"]
    with patch("retailrec.serving.server.run_server", side_effect=AssertionError("it listens")):
        refused(retailrec(*command, *wider), f"{' '.join(wider)} is reachable from other machines")


def test_keys_are_made_listed_and_removed(tmp_path: Path) -> None:
    store = tmp_path / "s.db"
    key = run("store", "key", "add", "till 7", "--scopes", "read,write", "--store", store).strip()
    listed = run("store", "key", "list", "--store", store)
    assert "till 7" in listed
    assert key not in listed
    run("store", "key", "remove", key.split("_")[1], "--store", store)
    assert run("store", "key", "list", "--store", store) == ""


def test_what_makes_no_sense_is_said_in_one_sentence(tmp_path: Path, model: Path) -> None:
    store, damaged, odd = tmp_path / "s.db", tmp_path / "damaged" / "m", tmp_path / "experiment.toml"
    shutil.copytree(model, damaged)
    (file,) = damaged.glob("data-*/model.items_.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    odd.write_text('salt = "x"\nshadow = ["other"]\n')
    there = ["--model", model, "--store", store, "--port", "0"]
    for words, said in (
        (["serve"], "--model DIR"),
        (["serve", *there, "--model", damaged], "model.items_.parquet"),
        (["serve", *there, "--experiment", odd], "which is not there; expected one of m"),
        (["serve", "--model", tmp_path, "--store", store], "no saved model"),
        (["serve", "--model", model, "--store", store, "--host", "0.0.0.0"], "no API key"),
        (["serve", "--model", model, "--store", "mysql://x"], "--store"),
        (["store", "key", "add", "x", "--scopes", "all", "--store", store], "scopes"),
        (["store", "key", "remove", "zzz", "--store", store], "no key"),
    ):
        refused(retailrec(*words), said)


@pytest.mark.slow
def test_acknowledged_receipts_outlive_kills_and_a_clean_stop_writes_the_log(
    tmp_path: Path, model: Path
) -> None:
    store, acknowledged, number = str(tmp_path / "s.db"), set(), 0
    for _ in range(3):
        with serving(store, model) as (process, address):
            threading.Timer(0.7, process.kill).start()
            while True:
                number += 1
                status, _ = ask(address, "/v1/receipts", receipt(number))
                if status != 200:
                    break
                acknowledged.add(str(number))
    with serving(store, model) as (process, address):
        found = ask(address, "/v1/shoppers/till/history?limit=1000")[1]["newest"]
        numbers = [r["number"] for r in found]
        assert len(numbers) == len(set(numbers))
        assert acknowledged <= set(numbers)
        for _ in range(5):
            assert ask(address, "/v1/shoppers/till/offers?k=4")[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    opened = Store(store)
    assert opened.counts()["exposures"] == 20
    opened.close()


@pytest.mark.slow
def test_a_database_that_goes_away_comes_back_without_a_restart_of_ours(model: Path) -> None:
    server = postgres()
    try:
        with server.database() as url:
            run("store", "init", "--store", url)
            with serving(url, model) as (_, address):
                assert ask(address, "/v1/receipts", receipt(1))[0] == 200
                before = ask(address, "/v1/shoppers/till/offers")[1]["offers"]
                server.stop()
                for path, body in (("/v1/shoppers/till/offers", None), ("/v1/receipts", receipt(2))):
                    status, said = ask(address, path, body)
                    assert status == 503
                    assert "can't be used now" in said["detail"]
                assert ask(address, "/health/live")[0] == 200
                server.start()
                deadline = time.monotonic() + 20
                while ask(address, "/v1/receipts", receipt(2))[0] != 200:
                    assert time.monotonic() < deadline
                after = ask(address, "/v1/shoppers/till/offers")[1]
                assert after["receipts"] == 2
                assert {o["item"] for o in after["offers"]} & {o["item"] for o in before}
    finally:
        server.close()


@pytest.mark.slow
def test_hostile_requests_made_from_the_schema_never_fail_the_service(
    tmp_path: Path, model: Path
) -> None:
    pytest.importorskip("schemathesis")
    with serving(str(tmp_path / "s.db"), model) as (_, address):
        found = subprocess.run(
            [
                sys.executable,
                "-m",
                "schemathesis.cli",
                "run",
                f"{address}/openapi.json",
                "--checks",
                "not_a_server_error",
                "--exclude-path-regex",
                "models/.*/activate|rollback",
                "--max-examples",
                os.environ.get("FUZZ_EXAMPLES", "15"),
                "--workers",
                "1",
                "--no-color",
                "--phases",
                "examples,coverage,fuzzing",
                "--request-timeout",
                "60",
                "--exclude-path",
                "/health/ready",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        report = found.stdout[-4000:] + found.stderr[-2000:]
        assert "Test cases" in report or "test cases" in report, report
        assert found.returncode == 0, report
        assert ask(address, "/health/ready")[0] == 200


def test_receipts_of_another_encoding_and_notation_are_stored(tmp_path: Path) -> None:
    file, store = tmp_path / "tills.csv", tmp_path / "store.db"
    file.write_bytes(
        "user_id;item_id;time\nJürgen;Möhre;02/03/2024\nJürgen;Tee;04/03/2024\n".encode("cp1252")
    )
    with pytest.raises(DataError, match="--encoding cp1252"):
        run("store", "load", "table", file, "--store", store)
    command = ("store", "load", "table", file, "--store", store, "--encoding", "cp1252")
    with pytest.raises(DataError, match="--time-format"):
        run(*command)
    assert [f.name for f in tmp_path.iterdir()] == ["tills.csv"]  # no store without receipts
    (tmp_path / "old.csv").write_text("kind,old,new\nuser,9,8\n")
    command = (*command, "--ids-changed", tmp_path / "old.csv")
    assert "2 receipts with 2 lines; 2 are new" in run(*command, "--time-format", "%d/%m/%Y")
    run("store", "export", tmp_path / "out", "--store", store)
    stored = pl.read_parquet(tmp_path / "out/receipts.parquet").sort("time")
    assert stored["item_id"].to_list() == ["Möhre", "Tee"]
    assert stored["time"].dt.to_string("%m-%d").to_list() == ["03-02", "03-04"]


@pytest.mark.parametrize(
    "store", ["x" * 5_000, "a\0b.db", "a\udcff.db"], ids=["too long", "a zero byte", "no letter"]
)
def test_a_store_that_can_be_no_file_is_said(tmp_path: Path, store: str) -> None:
    for command in (["init"], ["forget", "ann"]):
        with pytest.raises(SettingError, match="can't be a file") as found:
            run("store", *command, "--store", f"{tmp_path}/{store}")
        assert len(str(found.value)) < 400


def test_a_stop_that_left_rows_unwritten_says_how_many_and_where(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(service: Any, *_: Any) -> None:
        service.unwritten = Unwritten(50, 2, tmp_path / "aside" / "exposures-1.jsonl")

    monkeypatch.setattr("retailrec.serving.server.run_server", stopped)
    words = ["serve", "--model", str(model), "--store", str(tmp_path / "store.db")]
    found = CliRunner().invoke(app, words)
    assert isinstance(found.exception, DataError)  # the command line makes one line and status 2 of it
    said = str(found.exception)
    assert "52 rows of what was shown were not written to the store: 50 are in" in said
    assert "exposures-1.jsonl; 2 are lost" in said
    assert "retailrec store recover" in said


HANGS = """
import sys, threading
from pathlib import Path
from retailrec.serving.server import run_server
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store

store = Store(sys.argv[1]).init()
store.log_exposures = lambda rows: threading.Event().wait()  # as a database that is stopped
service = Service(store, Path(sys.argv[2]), ServiceSettings(keys=False, rate=0))
run_server(service, "127.0.0.1", 0, lambda address: print(address, flush=True), patience=1)
"""


def scripted(script: str, store: str, model: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that runs a service by a script, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, store, str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


@pytest.mark.slow
def test_a_database_that_hangs_does_not_hold_the_stop(model: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    process, address = scripted(HANGS, store, model)
    while ask(address, "/health/ready")[0] != 200:
        time.sleep(0.05)
    assert ask(address, "/v1/shoppers/5/offers?k=3")[0] == 200
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2
    assert time.monotonic() - started < 10
    assert f"a wait for the store sqlite:///{store}" in said
    assert "the service ended after 2 s" in said
    (file,) = (tmp_path / "s.db.unwritten").iterdir()
    assert f"retailrec store recover {file}" in said
    assert "3 rows are written" in run("store", "recover", file, "--store", store)


WARMS = """
import sys, time
from pathlib import Path
from retailrec.serving.engine import Engine
from retailrec.serving.server import run_server
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
store = Store(sys.argv[1]).init()
offers = Engine.offers
Engine.offers = lambda *a: (time.sleep(1.5), offers(*a))[1]  # as where kernels are compiled
service = Service(store, Path(sys.argv[2]), ServiceSettings(keys=False, rate=0))
run_server(service, "127.0.0.1", 0, lambda address: print(address, flush=True), patience=3)
"""


@pytest.mark.slow
def test_a_stop_does_not_wait_for_a_model_that_is_warmed_up(model: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    process, address = scripted(WARMS, store, model)
    while ask(address, "/health/live")[0] != 200:
        time.sleep(0.05)
    assert ask(address, "/health/ready")[0] == 503
    process.send_signal(signal.SIGTERM)
    try:
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, said) == (-signal.SIGTERM, "")  # a clean stop hands the signal on


class NoService:
    """What `run_server` asks of a service, without one."""

    def __init__(self) -> None:
        self.models, self.unwritten = self, None

    def require_any(self) -> None:
        """There is a model."""

    def start(self) -> None:
        """It can be read."""

    def abandon(self) -> Unwritten:
        return Unwritten(3, 0, Path("exposures-1.jsonl"))


def run_no_service(monkeypatch: pytest.MonkeyPatch, run: Any, port: int) -> NoService:
    service: Any = NoService()
    monkeypatch.setattr("retailrec.serving.server.make_app", lambda _: None)
    monkeypatch.setattr("uvicorn.Server.run", run)
    run_server(service, "127.0.0.1", port, lambda _: None)
    return service


@pytest.mark.slow
def test_a_terminal_that_is_closed_is_a_clean_stop(model: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "s.db")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests under nohup hand it on ignored
    try:
        with serving(store, model) as (process, address):
            shown = ask(address, "/v1/shoppers/5/offers?k=3")[1]["offers"]
            process.send_signal(signal.SIGHUP)
            assert process.wait(40) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    with closing(Store(store)) as opened:
        assert opened.counts()["exposures"] == len(shown) == 3


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_service_without_a_traceback(model: Path, tmp_path: Path) -> None:
    with serving(str(tmp_path / "s.db"), model) as (process, address):
        assert ask(address, "/v1/shoppers/5/offers?k=3")[0] == 200
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.02)
        assert "Traceback" not in process.communicate(timeout=40)[1]


@pytest.mark.slow
def test_few_open_files_are_fewer_connections_and_shut_nobody_out(model: Path, tmp_path: Path) -> None:
    import resource

    def may_open(n: int) -> Callable[[], None]:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return partial(resource.setrlimit, resource.RLIMIT_NOFILE, (n, hard))

    with serving(str(tmp_path / "s.db"), model, may_open(140)) as (process, address):
        port = int(address.rpartition(":")[2])
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
        began = time.monotonic()
        assert ask(address, "/health/ready")[0] == 200
        assert time.monotonic() - began < 5
        for one in silent:
            one.close()
        process.send_signal(signal.SIGTERM)
        assert "76 connections are held at a time, and 38 of one address" in process.communicate()[1]
    command = [sys.executable, "-m", "retailrec", "serve", "--store", "s.db", "--model", str(model)]
    found = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, preexec_fn=may_open(64), check=False
    )
    assert found.returncode == 2
    assert "serve may open 64 files, and needs 128" in " ".join(found.stderr.split())


def test_a_server_that_ends_without_a_stop_sets_aside_what_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(server: Any, sockets: Any) -> None:
        server.started = server.force_exit = True  # as a second Ctrl-C does

    assert run_no_service(monkeypatch, interrupted, 0).unwritten == Unwritten(
        3, 0, Path("exposures-1.jsonl")
    )


def test_two_services_do_not_take_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()

    def reads_models(server: Any, sockets: Any) -> None:
        """The first service is not up yet when the second one starts."""
        server.started = True
        with pytest.raises(SettingError, match="can't be used"):
            run_no_service(monkeypatch, reads_models, port)

    run_no_service(monkeypatch, reads_models, port)


def test_rows_that_were_set_aside_are_recovered_and_forgotten_by_commands(tmp_path: Path) -> None:
    store = tmp_path / "store.db"
    run("store", "init", "--store", store)
    rows = [exposure(f"u{n}", key=n) for n in range(3)]
    folder = tmp_path / "store.db.unwritten"
    folder.mkdir()
    file = folder / "exposures-1.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "1 exposures set aside" in run("store", "forget", "u1", "--store", store)
    assert "u1" not in file.read_text()
    assert "2 rows are written, 0 of forgotten" in run("store", "recover", file, "--store", store)
    assert not file.exists()
    found = CliRunner().invoke(app, ["store", "recover", str(file), "--store", str(store)])
    assert "there is no file" in str(found.exception)


def test_the_list_of_forgotten_ids_is_carried_by_commands(tmp_path: Path) -> None:
    store, restored, file = (tmp_path / name for name in ("a.db", "b.db", "forgotten.json"))
    receipts().write_csv(tmp_path / "receipts.csv")
    for one in (store, restored):
        run("store", "load", "table", tmp_path / "receipts.csv", "--store", one, "--quiet")
    run("store", "forget", "u01", "--store", store)
    said = run("store", "load", "table", tmp_path / "receipts.csv", "--store", store)
    assert "are of shoppers who were forgotten" in " ".join(said.split())
    for _ in range(2):  # nightly
        assert "1 forgotten ids" in run("store", "forgotten", file, "--store", store)
    run("store", "init", "--store", restored)
    before = file.read_bytes()
    without = retailrec("store", "forgotten", file, "--store", restored)  # --apply was left out
    refused(without, "lists 1 ids that this store's list does not have, and is not written over")
    assert file.read_bytes() == before
    assert "1 ids are new" in run("store", "forgotten", file, "--apply", "--store", restored)
    out = tmp_path / "out"
    run("store", "export", out, "--store", restored)
    assert "u01" not in pl.read_parquet(out / "receipts.parquet")["user_id"].to_list()
    run("store", "forget", "u01", "--undo", "--store", restored)
    found = CliRunner().invoke(app, ["store", "forget", "u01", "--undo", "--store", str(restored)])
    assert "not on the list" in str(found.exception)

"""A database's password stands in no message, answer, log, nor list of processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("sqlalchemy")
from sqlalchemy.exc import OperationalError

from retailrec.errors import RetailRecError, SettingError
from retailrec.serving.database import StoreUnavailable, engines, said_plainly
from retailrec.serving.passwords import without_passwords
from retailrec.serving.store import Store

pytest.importorskip("psycopg")
AT = "127.0.0.1:1/shop"  # nobody listens there
URLS = {
    "in front": f"postgresql://retailrec:s3cr3t-PW@{AT}",
    "with @": f"postgresql://retailrec:s3cr3t@PW@{AT}",
    "with @ twice": f"postgresql://retailrec:s3cr3t@PW@x-PW@{AT}",
    "with @ and /": f"postgresql://retailrec:s3cr3t@PW/PW@{AT}",
    "with /": f"postgresql://retailrec:s3cr3t/PW@{AT}",
    "with ? and #": f"postgresql://retailrec:s3cr3t?PW#PW@{AT}",
    "percent-encoded": f"postgresql://retailrec:s3cr3t%40PW%2F@{AT}",
    "in the query": f"postgresql://{AT}?user=retailrec&password=s3cr3t-PW",
    "in the query, encoded": f"postgresql://{AT}?password=s3cr3t%40PW+x&user=retailrec",
    "in both": f"postgresql://retailrec:PW@{AT}?password=s3cr3t",
    "of the key file": f"postgresql://retailrec@{AT}?sslpassword=s3cr3t-PW&sslmode=disable",
    "other letters": f"PostgreSQL://retailrec:s3cr3t-PW@{AT}",
    "an unknown option": f"postgresql://retailrec@{AT}?passwort=s3cr3t-PW",
    "another driver": f"postgresql+asyncpg://retailrec:s3cr3t-PW@{AT}",
    "another database": "mysql://retailrec:s3cr3t-PW@127.0.0.1/shop",
    "a slash too few": f"postgresql:/retailrec:s3cr3t-PW@{AT}",
    "no slash": f"postgres:s3cr3t-PW@{AT}",
    "as libpq has it": "host=127.0.0.1 port=1 user=retailrec password=s3cr3t-PW",
    "no colon": f"postgresql//retailrec:s3cr3t-PW@{AT}",
    "no colon and a slash too few": f"postgresql/retailrec:s3cr3t-PW@{AT}",
    "a semicolon for the colon": f"postgresql;//retailrec:s3cr3t-PW@{AT}",
    "slashes alone": f"//retailrec:s3cr3t-PW@{AT}",
    "another database, no colon": f"mysql//retailrec:s3cr3t-PW@{AT}",
    "a port that is none": "postgresql://retailrec:s3cr3t-PW@127.0.0.1:x/shop",
    "no host": "postgresql://retailrec:s3cr3t-PW",
    "no kind of database": f"retailrec:s3cr3t-PW@{AT}",
    "no kind, no database": "retailrec:s3cr3t-PW@127.0.0.1",
    "of Java": f"jdbc:postgresql://{AT}?user=retailrec&password=s3cr3t-PW",
    "behind a semicolon": f"postgresql://{AT}?user=retailrec;password=s3cr3t-PW",
    "behind a hash": f"postgresql://retailrec@{AT}#password=s3cr3t-PW",
    "without a question mark": f"postgresql://{AT}&user=retailrec&password=s3cr3t-PW",
    "a slash too many": f"postgresql:///retailrec:s3cr3t-PW@{AT}",
    "as ODBC has it": "Driver=PostgreSQL;Server=127.0.0.1;Uid=retailrec;Pwd=s3cr3t-PW",
    "with a quote, as libpq has it": r"host=127.0.0.1 user=retailrec password='s3cr3t\'PW'",
    "a slash for the colon": f"postgresql://retailrec/s3cr3t-PW@{AT}",
    "where the port belongs": "postgresql://retailrec@127.0.0.1:s3cr3t-PW/shop",
    "where a port of IPv6 belongs": "postgresql://retailrec@[::1]:s3cr3t-PW/shop",
    "behind the name": f"postgresql://retailrec@{AT}:s3cr3t-PW",
    "behind the name and a slash": f"postgresql://retailrec@{AT}/s3cr3t-PW",
    "behind the name and a hash": f"postgresql://retailrec@{AT}#s3cr3t-PW",
    "JSON": '{"host": "127.0.0.1", "password": "s3cr3t\\"PW, PW"}',
    "JSON of one quote": "{'password':'s3cr3t PW'}",
    "YAML": "password: s3cr3t PW",
    "YAML with a user": "user: retailrec\npasswd: 's3cr3t PW'",
    "an environment's": "PGPASSWORD=s3cr3t-PW",
    "a line of ~/.pgpass": "127.0.0.1:5432:shop:retailrec:s3cr3t-PW",
    "any line of ~/.pgpass": "*:*:*:retailrec:s3cr3t-PW",
    "behind an option": f"postgresql://{AT}?options=-csearch_path%3Dx;password=s3cr3t-PW",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
def test_no_message_holds_the_password(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RetailRecError) as found:
        Store(url).counts()
    for said in (str(found.value), without_passwords(f"Got unexpected extra argument ({url})")):
        assert "s3cr3t" not in said
        assert "PW" not in said
    assert list(tmp_path.iterdir()) == []  # nor became it a file's name


def test_the_last_at_sign_ends_the_password_and_the_query_counts() -> None:
    for url, password in (
        (URLS["with @"], "s3cr3t@PW"),
        (URLS["with @ twice"], "s3cr3t@PW@x-PW"),
        (URLS["percent-encoded"], "s3cr3t@PW/"),
        (URLS["in the query"], "s3cr3t-PW"),
        (URLS["in the query, encoded"], "s3cr3t@PW x"),
        (URLS["in both"], "s3cr3t"),
        (URLS["with ? and #"], "s3cr3t?PW#PW"),
    ):
        found = engines(url, 1, 1.0)[0].url
        assert (found.username, found.password, found.host) == ("retailrec", password, "127.0.0.1")
        assert "password" not in found.query


def test_what_the_driver_repeats_is_hidden_in_every_notation() -> None:
    engine = engines("postgresql://ann:a%40b%2Fc d@h/shop?sslpassword=key-PW", 1, 1.0)[0]
    said = OperationalError("select", {}, Exception('bad "a@b/c d", a%40b%2Fc%20d a%40b%2Fc+d key-PW'))
    with pytest.raises(StoreUnavailable) as found, said_plainly(engine):
        raise said
    assert str(found.value).startswith("store postgresql://ann:***@h/shop can't be used now")
    assert 'bad "***", *** *** ***' in str(found.value)


@pytest.mark.parametrize("more", [["--store"], []], ids=["as an option", "mistyped"])
@pytest.mark.parametrize("url", ["in front", "with @", "in the query", "as libpq has it"])
def test_neither_stderr_nor_the_list_of_processes_shows_it(url: str, more: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:  # takes the connection and says nothing
        text = URLS[url].replace("127.0.0.1:1", f"127.0.0.1:{listener.getsockname()[1]}")
        command = [sys.executable, "-m", "retailrec", "store", "key", "list", *more, text]
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "COLUMNS": "300"},
        )
        shown, until = "", time.monotonic() + 60
        listener.settimeout(60)
        if more and "://" in text:
            listener.accept()[0].close()  # by now it was started long ago
        while process.poll() is None and time.monotonic() < until:
            shown = Path(f"/proc/{process.pid}/cmdline").read_text() or shown
            if "***" in shown:
                break
            time.sleep(0.01)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 2
    for said in (out, err, shown):
        assert "s3cr3t" not in said
        assert "PW" not in said
    if Path("/proc/self/stat").exists():
        assert "key" in shown


def test_a_store_comes_from_the_environment(tmp_path: Path) -> None:
    env = {**os.environ, "RETAILREC_STORE": str(tmp_path / "s.db")}
    command = [sys.executable, "-m", "retailrec", "store", "init"]
    assert (
        "ready" in subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout
    )


def test_a_file_may_have_any_name_that_is_no_url(tmp_path: Path) -> None:
    for name in ("a@b.db", "postgres.db", "my password.db"):
        Store(str(tmp_path / name)).init().close()
        assert (tmp_path / name).is_file()
    with pytest.raises(SettingError, match="%40 for @"):
        Store("postgres:x@y")

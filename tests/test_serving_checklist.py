"""The operator's checklist of docs/serving.md, walked as an operator does: commands, processes, signals."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
from retailrec.serving.store import Store
from retailrec.simulator.shop import small_data
from serving_support import Postgres, postgres, small_model

pytestmark = pytest.mark.slow
PASSWORD = "s3cr3t-PW"


def command(*words: object, status: int = 0, **env: str) -> str:
    found = subprocess.run(
        [sys.executable, "-m", "retailrec", *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300", **env},
    )
    assert found.returncode == status, found.stderr
    assert PASSWORD not in found.stdout + found.stderr
    return found.stdout if status == 0 else found.stderr


class Process:
    """`retailrec serve` on a store, and requests to it."""

    def __init__(self, store: str, model: Path, log: Path) -> None:
        self.log = log
        words = ["serve", "--model", model, "--port", 0, "--log", "--timeout", 5]
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retailrec", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
                env={**os.environ, "COLUMNS": "300", "RETAILREC_STORE": store},
            )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().split("http://127.0.0.1:")[1].split(" ")[0])
        until = time.monotonic() + 120
        while self("GET", "/health/ready")[0] != 200:
            assert time.monotonic() < until
            time.sleep(0.1)

    def __call__(
        self, method: str, path: str, body: Any = None, key: str = "", **headers: str
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers |= {"content-type": "application/json"} | ({"x-api-key": key} if key else {})
        text = body if isinstance(body, bytes | None) else json.dumps(body)
        try:
            connection.request(method, path, text, headers)
            answer = connection.getresponse()
            said = answer.read().decode()
        except OSError:
            return 0, None
        finally:
            connection.close()
        assert PASSWORD not in said
        return answer.status, json.loads(said) if said.startswith("{") else said

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(40) == 0
        assert PASSWORD not in self.log.read_text()

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Postgres | None]]:
    """The URL of an empty store, and its server if there is one."""
    if request.param == "sqlite":
        yield str(tmp_path / "shop.db"), None
        return
    server = postgres()
    try:
        with server.database() as url:
            yield url.replace("test@", f"test:{PASSWORD}@"), server
    finally:
        server.close()


def receipt(number: str, shopper: str = "till") -> dict[str, Any]:
    lines = [{"item": "3", "quantity": 1, "value": 2.0}]
    return {
        "receipts": [
            {"shopper": shopper, "number": number, "time": "2000-07-01T10:00:00", "lines": lines}
        ]
    }


def known(process: Process, key: str) -> int:
    status, said = process("GET", "/v1/shoppers/till/offers", key=key)
    assert status == 200, said
    return int(said["receipts"])


def backed_up(url: str, server: Postgres | None, to: Path) -> str:
    """A backup of a running store, restored to another place: its URL."""
    if server is None:
        made = to / "restored.db"
        command("store", "backup", to / "backup.db", RETAILREC_STORE=url)
        command("store", "restore", to / "backup.db", RETAILREC_STORE=str(made))
        return str(made)
    base = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "test"]
    name = url.rpartition("/")[2]
    dump = [f"{server.programs}/pg_dump", *base, "-Fc", "-f", str(to / "backup"), name]
    subprocess.run(dump, check=True)
    server.run("CREATE DATABASE restored")
    restore = [f"{server.programs}/pg_restore", *base, "-d", "restored", str(to / "backup")]
    subprocess.run(restore, check=True)
    return url.replace(name, "restored")


def test_the_operators_checklist(place: tuple[str, Postgres | None], tmp_path: Path) -> None:
    url, server = place
    model = tmp_path / "models" / "m"
    small_model().fit(small_data(users=60, weeks=30, items=200)).save(model)
    command("store", "init", RETAILREC_STORE=url)

    # keys: nobody could be let in, so it does not start; then one for each caller
    wide = ("serve", "--model", model, "--host", "0.0.0.0")
    assert "no API key" in command(*wide, status=2, RETAILREC_STORE=url)
    assert "--no-keys" in command(*wide, "--no-keys", status=2, RETAILREC_STORE=url)
    till, boss, left = (
        command("store", "key", "add", name, "--scopes", scopes, RETAILREC_STORE=url).strip()
        for name, scopes in (("till", "read,write"), ("boss", "admin"), ("left", "read,write,admin"))
    )
    with ExitStack() as stack:
        one, other = (Process(url, model, tmp_path / f"{n}.log") for n in "ab")
        stack.callback(other.end)
        stack.callback(one.end)
        for process in (one, other):
            assert process("GET", "/v1/models")[0] == 401
            assert process("DELETE", "/v1/shoppers/till", key=till)[0] == 403
            assert process("GET", "/v1/models", key=left)[0] == 200
        command("store", "key", "remove", left.split("_")[1], RETAILREC_STORE=url)
        time.sleep(2.1)
        assert [p("GET", "/v1/models", key=left)[0] for p in (one, other)] == [401, 401]

        # limits: what is endless, too large or never whole keeps nobody out
        assert one("GET", "/v1/models", key=till, junk="x" * 200_000)[0] in (431, 0)
        assert one("POST", "/v1/receipts", b"x" * 4_000_001, key=till)[0] in (413, 0)
        flood = [socket.create_connection(("127.0.0.1", one.port)) for _ in range(600)]
        for unfinished in flood:
            unfinished.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n")
        assert one("GET", "/v1/models", key=till)[0] == 200
        for unfinished in flood:
            unfinished.close()

        # modes
        if server is None:
            modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("shop.db*")}
            assert modes == {0o600}

        # several processes: what one stores, the others know with the next answer
        assert known(other, till) == 0
        assert one("POST", "/v1/receipts", receipt("1"), key=till)[0] == 200
        assert known(other, till) == 1
        assert other("PUT", "/v1/rules/mailing", {"min_new": 1}, key=boss)[0] == 200
        assert one("GET", "/v1/rules", key=till)[1]["purposes"] == {"mailing": {"min_new": 1}}

        # backup while it runs; what is stored later is not in it
        assert other("POST", "/v1/receipts", receipt("1", "gone"), key=till)[0] == 200
        copy = backed_up(url, server, tmp_path)
        assert one("POST", "/v1/receipts", receipt("2"), key=till)[0] == 200

        # forgetting: no process, table or file has the shopper, and nothing brings it back
        assert other("GET", "/v1/shoppers/gone/offers", key=till)[0] == 200  # is logged soon
        status, forgotten = one("DELETE", "/v1/shoppers/gone", key=boss)
        assert (status, forgotten["removed"]["receipts"]) == (200, 1)
        assert other("POST", "/v1/receipts", receipt("1", "gone"), key=till)[1]["forgotten"] == 1
        assert other("GET", "/v1/shoppers/gone/history", key=till)[1]["receipts"] == 0
        kept = tmp_path / "forgotten.json"
        assert "1 forgotten ids" in command("store", "forgotten", kept, RETAILREC_STORE=url)

        # database away: alive, not ready, 503 without a word of where it is, and back by itself
        if server is not None:
            server.stop()
            time.sleep(2.1)
            began = time.monotonic()
            assert one("GET", "/health/live")[0] == 200
            assert time.monotonic() - began < 1
            for path in ("/health/ready", "/v1/models"):
                status, said = one("GET", path)
                assert status == 503
                assert str(server.port) not in said["detail"]
            server.start()
            until = time.monotonic() + 30
            while one("GET", "/health/ready")[0] != 200 or other("GET", "/health/ready")[0] != 200:
                assert time.monotonic() < until
            assert (known(one, till), known(other, till)) == (2, 2)

        # stop: the log of what was shown is written
        one.stop()
        other.stop()
    store = Store(url)
    shown = store.counts()["exposures"]
    assert shown > 0
    assert shown % 10 == 0
    store.close()

    # restore: as at the backup, keys and rules included
    command("store", "init", RETAILREC_STORE=copy)
    command("store", "forgotten", kept, "--apply", RETAILREC_STORE=copy)
    process = Process(copy, model, tmp_path / "c.log")
    try:
        assert process("GET", "/v1/models")[0] == 401
        assert known(process, till) == 1
        assert process("GET", "/v1/shoppers/gone/history", key=till)[1]["receipts"] == 0
        assert process("POST", "/v1/receipts", receipt("1", "gone"), key=till)[1]["forgotten"] == 1
        assert process("GET", "/v1/rules", key=till)[1]["purposes"] == {"mailing": {"min_new": 1}}
        process.stop()
    finally:
        process.end()

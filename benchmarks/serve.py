"""The HTTP service under load: equality with the batch, latency, throughput, memory, kills, swaps.

make bench-serve [SHOPPERS=20000 PROFILE=large SECONDS=30]

Latency is taken from when a request should have been sent (open loop), so a server that falls behind
can't hide it. Client and server share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import polars as pl
from machine import print_result

from retailrec.jobs.settings import Settings
from retailrec.serving.loading import load_data
from retailrec.serving.store import open_store
from retailrec.simulator.shop import data_of, preset

BARS = {"large": (5, 9, 15), "small": (12, 22, 35), "laptop": (12, 22, 35)}  # p50, p95, p99 in ms


class Server:
    """`retailrec serve` in a process of its own."""

    def __init__(self, store: str, models: Path) -> None:
        self.command = [
            sys.executable,
            "-m",
            "retailrec.cli",
            "serve",
            "--store",
            store,
            "--model",
            str(models),
            "--port",
            "0",
            "--rate",
            "0",
            "--no-pages",
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        self.port = int(told.rpartition(" (")[0].rpartition(":")[2])
        while asyncio.run(self.ask("GET", "/health/ready"))[0] != 200:
            time.sleep(0.1)

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        connection = Connection(self.port)
        try:
            return await connection.ask(method, path, body)
        except OSError:
            return 0, None
        finally:
            connection.close()

    def memory_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(how)
        self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()


class Connection:
    """One kept-alive HTTP connection."""

    def __init__(self, port: int) -> None:
        self.port, self.streams = port, None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        content = b"" if body is None else json.dumps(body).encode()
        writer.write(
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n".encode()
            + content
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split()[0])
        text = await reader.readexactly(length)
        return int(head.split()[1]), json.loads(text)

    def close(self) -> None:
        if self.streams is not None:
            self.streams[1].close()


async def open_loop(port: int, paths: list[str], rate: float, connections: int = 32) -> np.ndarray:
    """Milliseconds from when each request was due until it was answered; NaN where it failed."""
    took = np.full(len(paths), np.nan)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(Connection(port))
    start = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        due = start + number / rate
        await asyncio.sleep(max(0, due - time.perf_counter()))
        connection = await free.get()
        try:
            status, _ = await connection.ask("GET", paths[number])
            if status == 200:
                took[number] = 1000 * (time.perf_counter() - due)
        except (OSError, asyncio.IncompleteReadError):
            connection = Connection(port)
        free.put_nowait(connection)

    await asyncio.gather(*(one(i) for i in range(len(paths))))
    while not free.empty():
        free.get_nowait().close()
    return took


async def closed_loop(port: int, paths: Iterable[str], connections: int = 4) -> list[tuple[int, Any]]:
    """Answers, in no order; each connection asks again as soon as it is answered."""
    todo, answers = iter(paths), []

    async def ask() -> None:
        connection = Connection(port)
        for path in todo:
            answers.append(await connection.ask("GET", path))
        connection.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return answers


def offers_of(user: Any, more: str = "") -> str:
    return f"/v1/shoppers/{user}/offers?k=10{more}"


def same_as_batch(server: Server, expected: pl.DataFrame, users: list[Any]) -> dict[str, int]:
    """How many lists over HTTP are those of the batch, to the last digit."""
    rows: dict[str, list[tuple[Any, float]]] = {}
    for user, item, score in expected.select("user_id", "item_id", "score").iter_rows():
        rows.setdefault(str(user), []).append((item, score))
    answers = asyncio.run(closed_loop(server.port, [offers_of(u) for u in users]))
    equal = sum(
        [(o["item"], o["score"]) for o in a["offers"]] == rows[a["shopper"]]
        for status, a in answers
        if status == 200
    )
    return {"asked": len(users), "equal": equal}


def killed(server: Server, times: int, users: list[Any], day: str) -> dict[str, int]:
    """Receipts sent while the server is killed again and again: how many are lost or there twice."""
    acknowledged: set[tuple[str, str]] = set()
    number = 0
    for _ in range(times):

        async def send(until: float) -> None:
            nonlocal number
            connection = Connection(server.port)
            try:
                while True:
                    number += 1
                    user = str(users[number % 50])
                    body = {
                        "shopper": user,
                        "number": f"kill-{number}",
                        "time": day,
                        "lines": [{"item": "1", "quantity": 1, "value": 2.0}],
                    }
                    status, _ = await connection.ask("POST", "/v1/receipts", {"receipts": [body]})
                    if status == 200:
                        acknowledged.add((user, f"kill-{number}"))
                    if time.perf_counter() > until and server.process.poll() is None:
                        server.process.kill()
            except (OSError, asyncio.IncompleteReadError):
                return

        asyncio.run(send(time.perf_counter() + 0.5))
        server.stop(signal.SIGKILL)
        server.start()
    found: list[tuple[str, str]] = []
    for user in map(str, users[:50]):
        _, body = asyncio.run(server.ask("GET", f"/v1/shoppers/{user}/history?limit=1000"))
        found += [(user, r["number"]) for r in body["newest"] if r["number"].startswith("kill-")]
    return {
        "kills": times,
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - set(found)),
        "twice": len(found) - len(set(found)),
    }


async def swapped(server: Server, times: int, users: list[Any], names: list[str]) -> dict[str, int]:
    """Requests while models are swapped, and how many failed."""
    stop, failed, asked = asyncio.Event(), 0, 0

    async def ask() -> None:
        nonlocal failed, asked
        connection = Connection(server.port)
        while not stop.is_set():
            status, body = await connection.ask("GET", offers_of(users[asked % len(users)]))
            asked += 1
            failed += status != 200 or body["model"]["id"] not in names
        connection.close()

    asking = [asyncio.create_task(ask()) for _ in range(2)]
    admin = Connection(server.port)
    for turn in range(times):
        status, _ = await admin.ask("POST", f"/v1/models/{names[turn % 2]}/activate")
        failed += status != 200
    stop.set()
    await asyncio.gather(*asking)
    admin.close()
    return {"swaps": times, "requests": asked, "failed": failed}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shoppers", type=int, default=20_000)
    parser.add_argument("--profile", default="large")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--store", default="", help="postgresql:// URL; SQLite without")
    parser.add_argument("--equal", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=20_000, help="requests for memory")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--swaps", type=int, default=50)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        return measure(given, Path(folder))


def measure(given: argparse.Namespace, folder: Path) -> int:
    data = data_of(preset("x5", users=given.shoppers))
    model = Settings(profile=given.profile).for_size(data.n_users).model().fit(data)
    for name in ("a", "b"):
        model.save(folder / "models" / name)
    store = open_store(given.store or str(folder / "store.db"))
    started = time.perf_counter()
    loaded = load_data(store, data)
    load = {"lines": loaded.lines, "seconds": round(time.perf_counter() - started, 1)}
    store.close()
    rng = np.random.default_rng(0)
    codes = data.active_users()
    users = (
        data.users["user_id"].gather(rng.choice(codes, min(len(codes), given.equal), False)).to_list()
    )
    expected = model.recommend(data, users, 10)
    result: dict[str, Any] = {
        "shoppers": given.shoppers,
        "items": data.n_items,
        "profile": given.profile,
        "load": load,
        "store": "postgresql" if given.store else "sqlite",
    }
    server = Server(given.store or str(folder / "store.db"), folder / "models")
    try:
        result["equality"] = same_as_batch(server, expected, users)
        n = int(given.rate * given.seconds)
        asked = [users[i] for i in rng.integers(0, len(users), n)]
        for name, more in (("plain", ""), ("reasons", "&reasons=true")):
            took = asyncio.run(open_loop(server.port, [offers_of(u, more) for u in asked], given.rate))
            result[name] = {
                f"p{p}_ms": round(float(np.nanpercentile(took, p)), 2) for p in (50, 95, 99)
            }
            result[name] |= {"rate": given.rate, "asked": n, "failed": int(np.isnan(took).sum())}
        started = time.perf_counter()
        some = [offers_of(u) for u in asked[:1000]]
        asyncio.run(closed_loop(server.port, some))
        result["saturation_per_second"] = round(len(some) / (time.perf_counter() - started), 1)
        before = server.memory_mb()
        asyncio.run(
            closed_loop(server.port, (offers_of(users[i % len(users)]) for i in range(given.many)))
        )
        result["memory"] = {
            "requests": given.many,
            "before_mb": round(before),
            "after_mb": round(server.memory_mb()),
        }
        result["swapped"] = asyncio.run(swapped(server, given.swaps, users, ["a", "b"]))
        result["killed"] = killed(server, given.kills, users, (data.end).isoformat())
    finally:
        server.stop()
    p50, p95, p99 = BARS[given.profile]
    plain = result["plain"]
    result["bars_ms"] = {"p50": p50, "p95": p95, "p99": p99}
    print_result("serve", result)
    print(json.dumps(result, indent=1))
    wrong = result["equality"]["equal"] < result["equality"]["asked"] or result["killed"]["lost"]
    wrong = wrong or result["killed"]["twice"] or result["swapped"]["failed"] or plain["failed"]
    slow = plain["p50_ms"] > p50 or plain["p95_ms"] > p95 or plain["p99_ms"] > p99
    print(
        "lists, receipts, swaps: "
        + ("WRONG" if wrong else "right")
        + "; latency bars: "
        + ("MISSED" if slow else "met")
    )
    return int(bool(wrong or slow))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

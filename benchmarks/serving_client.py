"""The service in a process of its own, and load of two kinds: at a rate, and as fast as it goes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

_TICKS = os.sysconf("SC_CLK_TCK")
LOST = (OSError, asyncio.IncompleteReadError)  # what a request ends with when the service is gone


class Server:
    """`retailrec serve` in a process of its own."""

    def __init__(self, store: str, models: Path, *more: str) -> None:
        words = ["serve", "--store", store, "--model", str(models), "--port", "0", "--rate", "0", *more]
        self.command = [sys.executable, "-m", "retailrec", *words]
        self.log = models.parent / "service.log"
        self.start()

    def start(self) -> None:
        """Start it and wait until it is warm."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, stderr=log, text=True)
        told = "" if self.process.stdout is None else self.process.stdout.readline()
        if "serving on" not in told:
            raise RuntimeError(f"the service did not start; {self.log} says why")
        self.port = int(told.rpartition(" (")[0].rpartition(":")[2])
        while self.ask("GET", "/health/ready")[0] != 200:
            time.sleep(0.1)

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and body of one request; status 0 if nobody answers."""

        async def once() -> tuple[int, Any]:
            connection = Connection(self.port)
            try:
                return await connection.ask(method, path, body)
            except LOST:
                return 0, None
            finally:
                connection.close()

        return asyncio.run(once())

    def memory_mb(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def cpu_seconds(self) -> float:
        """Seconds of cores used so far, by all threads."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / _TICKS

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it, cleanly by default, and wait."""
        self.process.send_signal(how)
        self.process.wait(60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *error: object) -> None:
        if self.process.poll() is None:
            self.stop()


class Connection:
    """One kept-alive HTTP connection."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status, and the body: decoded where it is JSON, bytes otherwise."""
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
        text = await reader.readexactly(int(head.split("content-length:")[1].split()[0]))
        return int(head.split()[1]), json.loads(text) if "json\r\n" in head else text

    def close(self) -> None:
        """Let go of the connection; the next `ask` opens another one."""
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


async def open_loop(port: int, paths: list[str], rate: float, connections: int = 32) -> np.ndarray:
    """Milliseconds from when each request was due until it was answered; NaN where it failed."""
    took = np.full(len(paths), np.nan)
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(Connection(port))
    start = time.perf_counter() + 0.1

    async def one(number: int) -> None:
        due = start + number / rate
        while (
            left := due - time.perf_counter()
        ) > 0:  # awake at the end: a client that wakes up is slow
            await asyncio.sleep(max(0, left - 0.003))
        connection = await free.get()
        try:
            status, _ = await connection.ask("GET", paths[number])
            if status == 200:
                took[number] = 1000 * (time.perf_counter() - due)
        except LOST:
            connection.close()
        free.put_nowait(connection)

    await asyncio.gather(*(one(i) for i in range(len(paths))))
    while not free.empty():
        free.get_nowait().close()
    return took


Request = tuple[str, str, Any]  # method, path, body


async def closed_loop(
    port: int,
    requests: Iterable[Request],
    answered: Callable[[Request, int, Any], None],
    connections: int = 4,
) -> None:
    """Each connection asks again as soon as it is answered; status 0 where nobody answers."""
    todo = iter(requests)

    async def ask() -> None:
        connection = Connection(port)
        for request in todo:
            try:
                status, body = await connection.ask(*request)
            except LOST:
                connection.close()
                status, body = 0, None
                await asyncio.sleep(0.01)
            answered(request, status, body)
        connection.close()

    await asyncio.gather(*(ask() for _ in range(connections)))


async def under_load(
    port: int,
    requests: Iterable[Request],
    answered: Callable[[Request, int, Any], None],
    meanwhile: Callable[[], Awaitable[None]],
    connections: int = 2,
) -> None:
    """A closed loop that ends when what is done meanwhile has ended."""
    done = asyncio.Event()

    def until() -> Iterable[Request]:
        for request in requests:
            if done.is_set():
                return
            yield request

    async def work() -> None:
        try:
            await meanwhile()
        finally:
            done.set()

    await asyncio.gather(closed_loop(port, until(), answered, connections), work())

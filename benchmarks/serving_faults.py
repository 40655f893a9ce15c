"""Parts of the service's benchmark that break something: kills, a database that goes, full disks."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from random import random
from secrets import token_hex
from typing import Any

from serving_client import Request, Server, under_load
from serving_parts import count_equal
from serving_shop import Shop, offers_of, tell

from retailrec.serving.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from postgres_server import NotInstalled, Postgres

ROUND = 1.5  # seconds of load before a kill


def kills(shop: Shop, given: Any) -> dict[str, Any]:
    """Receipts sent while the service is killed again and again: how many are lost or there twice."""
    counted: Counter[str] = Counter()
    acknowledged: set[tuple[str, str]] = set()
    users = shop.users[:50]
    with Server(shop.store("kills"), shop.models, "--no-pages") as server:
        for turn in range(given.kills):

            async def kill() -> None:
                await asyncio.sleep(ROUND)
                server.process.kill()

            asking = _receipts_and_questions(shop, users)
            asyncio.run(under_load(server.port, asking, _note(counted, acknowledged), kill))
            server.stop(signal.SIGKILL)
            server.start()
            if (turn + 1) % 5 == 0:
                tell(f"  {turn + 1} kills, {len(acknowledged):,} receipts acknowledged")
        found = _stored(server, users)
    return {
        "kills": given.kills,
        "acknowledged": len(acknowledged),
        "answers_with_an_error": counted["errors"],
    } | _lost(acknowledged, found)


def postgres(shop: Shop, given: Any) -> dict[str, Any]:
    """The lists from PostgreSQL, and a server that crashes under load and comes back."""
    try:
        server = Postgres()
    except NotInstalled as error:
        return {"skipped": str(error)}
    try:
        with server.database() as url:
            loaded = shop.load(url)
            tell(f"  {loaded['lines']:,} lines loaded in {loaded['seconds']} s")
            with Server(url, shop.models, "--no-pages", "--timeout", "5") as serving:
                equal = count_equal(serving, shop, shop.users)
                result = {"load": loaded, "equality": equal, "restart": _restart(server, serving, shop)}
        tell("  a full disk")
        return result | {"full_disk": _full_postgres(server, shop)}
    finally:
        server.close()


def disk(shop: Shop, given: Any) -> dict[str, Any]:
    """An SQLite store on a file system of a few megabytes: what is said when it is full."""
    with _small_disk(megabytes=8) as folder:
        if folder is None:
            return {"skipped": "a small file system can be mounted by root only"}
        url = str(folder / "store.db")
        with Server(url, shop.models, "--no-pages") as serving:
            return _fill(serving, shop)


def _restart(server: Postgres, serving: Server, shop: Shop) -> dict[str, Any]:
    """Crash PostgreSQL under load, start it again, and see what was answered."""
    before: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    acknowledged: set[tuple[str, str]] = set()
    users = shop.users[:50]
    away = 0.0
    back = 0.0

    async def crash() -> None:
        nonlocal away, back
        await asyncio.sleep(2)
        before.update(counted)
        started = time.perf_counter()
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(3)
        await asyncio.to_thread(server.start)
        away = time.perf_counter() - started
        started = time.perf_counter()
        while (await asyncio.to_thread(serving.ask, "GET", "/health/ready"))[0] != 200:
            await asyncio.sleep(0.05)
        back = time.perf_counter() - started
        await asyncio.sleep(2)

    asking = _receipts_and_questions(shop, users)
    asyncio.run(under_load(serving.port, asking, _note(counted, acknowledged), crash))
    tell(f"  {dict(counted)}")
    afterwards = count_equal(serving, shop, shop.users[len(users) : len(users) + 500])
    return {
        "seconds_away": round(away, 1),
        "ready_again_after_s": round(back, 2),
        "statuses": {name: n for name, n in sorted(counted.items()) if name.isdigit()},
        "errors_before": before["errors"],
        "acknowledged": len(acknowledged),
        "afterwards": afterwards,
    } | _lost(acknowledged, _stored(serving, users))


def _full_postgres(server: Postgres, shop: Shop) -> dict[str, Any]:
    """A database whose tables lie on a small file system."""
    with _small_disk(megabytes=24) as folder:
        if folder is None:
            return {"skipped": "a small file system can be mounted by root only"}
        place = folder / "tables"
        place.mkdir()
        server.own(place)
        server.run(f"CREATE TABLESPACE small LOCATION '{place}'")
        with server.database("TABLESPACE small") as url:
            Store(url).init().close()
            with Server(url, shop.models, "--no-pages") as serving:
                found = _fill(serving, shop)
        server.run("DROP TABLESPACE small")
        return found


def _fill(serving: Server, shop: Shop) -> dict[str, Any]:
    """Send receipts until the store is full; then read, and see that what was acknowledged is there."""
    acknowledged: set[tuple[str, str]] = set()
    counted: Counter[int] = Counter()
    users = [str(user) for user in shop.users[:100]]
    said = ""
    for user in cycle(users):
        _, path, body = shop.receipt(user)
        one = body["receipts"][0]
        # many lines a receipt that can't be packed well, so that the disk is full soon
        one["lines"] = [{"item": token_hex(16), "quantity": 1, "value": random()} for _ in range(500)]
        status, answer = serving.ask("POST", path, body)
        counted[status] += 1
        if status == 200:
            acknowledged.add((user, one["number"]))
        else:
            said = answer["detail"] if answer else ""
        if counted[507] >= 20 or counted[0]:
            break
    reads = [serving.ask("GET", offers_of(user))[0] for user in users[:20]]
    live = serving.ask("GET", "/health/ready")[0]
    return {
        "writes": {str(status): n for status, n in sorted(counted.items())},
        "said": said.split(" (")[0],
        "reads_while_full": dict(Counter(map(str, reads))),
        "ready": live,
        "acknowledged": len(acknowledged),
    } | _lost(acknowledged, _stored(serving, users))


@contextmanager
def _small_disk(megabytes: int) -> Iterator[Path | None]:
    """A file system of its own in memory, where this process may mount one."""
    folder = Path(tempfile.mkdtemp(prefix="retailrec-small-"))
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=755", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount).returncode == 0
    try:
        yield folder if mounted else None
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


def _receipts_and_questions(shop: Shop, users: list[Any]) -> Iterator[Request]:
    for user in cycle(users):
        yield shop.receipt(user)
        yield shop.offers([user])[0]


def _note(counted: Counter[str], acknowledged: set[tuple[str, str]]) -> Any:
    """Counts answers by status, and remembers which receipts were acknowledged."""

    def answered(request: Request, status: int, body: Any) -> None:
        counted[str(status)] += 1
        counted["errors"] += status not in (0, 200)
        if status == 200 and request[0] == "POST":
            one = request[2]["receipts"][0]
            acknowledged.add((one["shopper"], one["number"]))

    return answered


def _stored(server: Server, users: list[Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for user in map(str, users):
        _, body = server.ask("GET", f"/v1/shoppers/{user}/history?limit=1000")
        found += [(user, receipt["number"]) for receipt in body["newest"]]
    return found


def _lost(acknowledged: set[tuple[str, str]], found: list[tuple[str, str]]) -> dict[str, int]:
    return {"lost": len(acknowledged - set(found)), "twice": len(found) - len(set(found))}

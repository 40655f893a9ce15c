"""Parts of the service's benchmark: lists, latency, memory, swaps, hostile requests, pages."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any

import numpy as np
from serving_client import Request, Server, closed_loop, open_loop, under_load
from serving_shop import MODELS, Shop, list_of, offers_of, tell

PROGRESS = 10  # lines a part


def count_equal(server: Server, shop: Shop, users: list[Any]) -> dict[str, int]:
    """How many lists over HTTP are those of the batch, to the last digit."""
    found: Counter[str] = Counter()
    every = max(len(users) // PROGRESS, 1)

    def answered(request: Request, status: int, body: Any) -> None:
        found["asked"] += 1
        if status == 200:
            found["equal"] += list_of(body) == shop.expected[body["model"]["id"]][body["shopper"]]
        if found["asked"] % every == 0:
            tell(f"  {found['equal']:,} of {found['asked']:,} lists are the batch's")

    asyncio.run(closed_loop(server.port, shop.offers(users), answered))
    return {"asked": found["asked"], "equal": found["equal"]}


def equality(shop: Shop, given: Any) -> dict[str, Any]:
    """Every list over HTTP beside that of the batch, from an SQLite store."""
    with Server(shop.store("equality"), shop.models, "--no-pages") as server:
        return count_equal(server, shop, shop.users)


def latency(shop: Shop, given: Any) -> dict[str, Any]:
    """Milliseconds at a fixed rate without and with reasons, and what a core answers a second."""
    result: dict[str, Any] = {}
    with Server(shop.store("latency"), shop.models, "--no-pages") as server:
        asked = shop.some(max(int(given.rate * given.seconds), 1))
        tell(f"  warming up with {len(asked):,} requests")
        asyncio.run(closed_loop(server.port, shop.offers(asked), lambda *answer: None))
        for name, more in (("plain", ""), ("reasons", "&reasons=true")):
            tell(f"  {name}: {len(asked):,} requests at {given.rate:g}/s")
            busy = server.cpu_seconds()
            took = asyncio.run(open_loop(server.port, [offers_of(u, more) for u in asked], given.rate))
            busy = server.cpu_seconds() - busy
            found = {f"p{p}_ms": round(float(np.nanpercentile(took, p)), 2) for p in (50, 95, 99)}
            failed = int(np.isnan(took).sum())
            result[name] = found | {
                "asked": len(asked),
                "failed": failed,
                "cpu_ms": _rounded(busy, len(asked)),
            }
            tell(f"  {name}: {result[name]}")
        result["rate"] = given.rate
        tell("  as fast as it goes")
        busy, started = server.cpu_seconds(), time.perf_counter()
        asyncio.run(closed_loop(server.port, shop.offers(asked), lambda *answer: None))
        busy, passed = server.cpu_seconds() - busy, time.perf_counter() - started
        result["saturation"] = {
            "per_second": round(len(asked) / passed, 1),
            "per_second_of_a_core": round(len(asked) / busy, 1),
            "cpu_ms": _rounded(busy, len(asked)),
        }
    return result


def memory(shop: Shop, given: Any) -> dict[str, Any]:
    """Resident memory after warm-up and after many requests and receipts."""
    with Server(shop.store("memory"), shop.models, "--no-pages") as server:

        def requests(n: int) -> Iterator[Request]:
            users = cycle(shop.users)
            for number in range(n):
                user = next(users)
                if number % 5 == 4:  # 50,000 receipts beside 200,000 questions
                    yield shop.receipt(user)
                else:
                    yield "GET", offers_of(user), None

        counted: Counter[int] = Counter()

        def load(n: int, what: str) -> list[int]:
            seen, every = [], max(n // PROGRESS, 1)
            done = 0

            def answered(request: Request, status: int, body: Any) -> None:
                nonlocal done
                done += 1
                counted[status] += 1
                if done % every == 0:
                    seen.append(round(server.memory_mb()))
                    tell(f"  {what}: {done:,} of {n:,}, {seen[-1]} MB")

            asyncio.run(closed_loop(server.port, requests(n), answered))
            return seen

        # every shopper once and a fifth of them changed: what is kept in memory is then full
        load(len(shop.users) * 5 // 4, "warm-up")
        before = server.memory_mb()
        counted.clear()
        started = time.perf_counter()
        seen = load(given.many * 5 // 4, "load")
        after = server.memory_mb()
        return {
            "requests": given.many,
            "receipts": given.many // 4,
            "failed": sum(n for status, n in counted.items() if status != 200),
            "before_mb": round(before),
            "after_mb": round(after),
            "on_the_way_mb": seen,
            "growth_percent": round(100 * (after - before) / before, 2),
            "per_second": round(given.many * 1.25 / (time.perf_counter() - started), 1),
        }


def swaps(shop: Shop, given: Any) -> dict[str, Any]:
    """Requests while two different models are swapped: how many failed, and how many lists are no
    model's, or another one's than the answer says."""
    counted: Counter[str] = Counter()

    def answered(request: Request, status: int, body: Any) -> None:
        if status != 200:
            counted["failed"] += 1
            return
        name = body["model"]["id"]
        counted[f"of {name}"] += 1
        counted["mixed"] += list_of(body) != shop.expected[name][body["shopper"]]

    with Server(shop.store("swaps"), shop.models, "--no-pages") as server:
        names = list(MODELS)

        async def swapping() -> None:
            for turn in range(given.swaps):
                told = await asyncio.to_thread(
                    server.ask, "POST", f"/v1/models/{names[turn % 2]}/activate"
                )
                counted["refused"] += told[0] != 200
                if (turn + 1) % PROGRESS == 0:
                    tell(f"  {turn + 1} swaps, {dict(counted)}")

        asking = cycle(shop.offers(shop.users))
        asyncio.run(under_load(server.port, asking, answered, swapping))
    differ = sum(shop.expected["a"][user] != shop.expected["b"][user] for user in shop.expected["a"])
    return {
        "swaps": given.swaps,
        "lists_that_differ": f"{differ:,} of {len(shop.users):,}",
        "answers": {name: counted[f"of {name}"] for name in names},
        **{name: counted[name] for name in ("refused", "failed", "mixed")},
    }


def hostile(shop: Shop, given: Any) -> dict[str, Any]:
    """Requests made from the OpenAPI schema to break the service: how many of each status."""
    with Server(shop.store("hostile"), shop.models) as server, tempfile.TemporaryDirectory() as folder:
        asked = 0
        statuses: Counter[str] = Counter()
        seed = 0
        while asked < given.hostile:
            words = ["run", f"http://127.0.0.1:{server.port}/openapi.json", "--no-color"]
            words += ["--checks", "not_a_server_error", "--workers", "1", "--seed", str(seed)]
            words += ["--phases", "examples,coverage,fuzzing", "--max-examples", "100"]
            words += ["--exclude-path", "/v1/models/rollback", "--request-timeout", "60"]
            subprocess.run(
                [sys.executable, "-m", "schemathesis.cli", *words],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            if server.process.poll() is not None:
                return {"asked": asked, "ended": True, "server_errors": 1}
            _, text = server.ask("GET", "/metrics")
            statuses = Counter()
            for status, n in re.findall(
                r'retailrec_requests_total\{.*status="(\d+)"\} ([\d.e+]+)', text.decode()
            ):
                statuses[status] += int(float(n))
            asked, seed = sum(statuses.values()), seed + 1
            tell(f"  {asked:,} requests, {dict(statuses)}")
        return {
            "asked": asked,
            "statuses": dict(sorted(statuses.items())),
            "server_errors": statuses["500"],
            "ready_afterwards": server.ask("GET", "/health/ready")[0] == 200,
        }


def pages(shop: Shop, given: Any) -> dict[str, Any]:
    """Milliseconds and kilobytes of every page, for shoppers and items that differ each time."""
    with Server(shop.store("pages"), shop.models) as server:
        server.ask("GET", "/")
        deadline = time.monotonic() + 300
        while b"\xe2\x80\xa6" in server.ask("GET", "/")[1] and time.monotonic() < deadline:
            time.sleep(1)  # the overview shows dots until receipts are counted
        tell("  receipts are counted")
        users = shop.some(given.visits)
        items = [shop.expected["a"][str(user)][0][0] for user in users]
        kinds = {
            "overview": ["/"] * given.visits,
            "shopper": [f"/shopper?id={user}" for user in users],
            "shopper, two models": [f"/shopper?id={u}&left=a&right=b" for u in users],
            "shopper, what if": [f"/shopper?id={u}&add={i}" for u, i in zip(users, items, strict=True)],
            "item": [f"/item?id={item}" for item in items],
            "sources": ["/sources"] * given.visits,
            "compare": ["/compare?left=a&right=b"] * given.visits,
            "rules": ["/rules"] * given.visits,
            "rules, tried": ["/rules?purpose=default&try=1&max_per_category=1"] * given.visits,
        }
        server.ask("GET", "/compare?left=a&right=b")
        time.sleep(5)
        found: dict[str, Any] = {}
        for kind, paths in kinds.items():
            took, sizes = [], []
            for path in paths:
                started = time.perf_counter()
                status, body = server.ask("GET", path)
                took.append(1000 * (time.perf_counter() - started))
                if status != 200:
                    return {"failed": path, "status": status}
                sizes.append(len(body) / 1000)
            found[kind] = {
                "median_ms": round(float(np.median(took)), 1),
                "slowest_ms": round(max(took), 1),
                "kb": round(max(sizes), 1),
            }
            tell(f"  {kind}: {found[kind]}")
        return found


def _rounded(seconds: float, n: int) -> float:
    return round(1000 * seconds / n, 2)

"""The HTTP service under load, part by part, each with its bar.

make bench-serve [DATA=x5 SHOPPERS=20000 PROFILE=large SECONDS=30 MANY=200000 WORK=out/serve-bench
                  PARTS="latency memory"]

Models, store and the batch's lists are made once in the folder WORK and found there again. Latency
counts from when a request should have been sent (open loop), so a server that falls behind can't hide
it. Client and server share the machine; progress with the load average goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from os import getloadavg
from pathlib import Path
from typing import Any

import serving_faults
import serving_parts
from machine import print_result
from serving_shop import Shop, tell

BARS = {"large": (5, 9, 15), "small": (12, 22, 35), "laptop": (12, 22, 35)}  # p50, p95, p99 in ms
PAGE_MS, PAGE_KB, GROWTH_PERCENT = 150, 150, 3
PARTS: dict[str, Callable[[Shop, Any], dict[str, Any]]] = {
    "equality": serving_parts.equality,
    "latency": serving_parts.latency,
    "swaps": serving_parts.swaps,
    "pages": serving_parts.pages,
    "kills": serving_faults.kills,
    "disk": serving_faults.disk,
    "postgres": serving_faults.postgres,
    "hostile": serving_parts.hostile,
    "memory": serving_parts.memory,
}


def missed(part: str, found: dict[str, Any], profile: str) -> list[str]:
    """What of a part's bars is not met, in words."""
    if "skipped" in found:
        return [f"not measured: {found['skipped']}"]
    told: list[str] = []

    def bar(name: str, value: float, most: float) -> None:
        if not value <= most:
            told.append(f"{name} is {value:g}, above {most:g}")

    if part == "equality":
        bar("lists that differ", found["asked"] - found["equal"], 0)
    elif part == "latency":
        for p, most in zip((50, 95, 99), BARS[profile], strict=True):
            bar(f"p{p} in ms", found["plain"][f"p{p}_ms"], most)
            bar(f"p{p} with reasons in ms", found["reasons"][f"p{p}_ms"], 2 * most)
        bar("failed requests", found["plain"]["failed"] + found["reasons"]["failed"], 0)
    elif part == "memory":
        bar("growth in percent", found["growth_percent"], GROWTH_PERCENT)
        bar("failed requests", found["failed"], 0)
    elif part == "swaps":
        for name in ("refused", "failed", "mixed"):
            bar(f"{name} requests", found[name], 0)
    elif part == "kills":
        for name in ("lost", "twice"):
            bar(f"receipts {name}", found[name], 0)
    elif part == "disk":
        told += _full(found)
    elif part == "postgres":
        bar("lists that differ", found["equality"]["asked"] - found["equality"]["equal"], 0)
        for name in ("lost", "twice", "errors_before"):
            bar(f"restart: {name}", found["restart"][name], 0)
        after = found["restart"]["afterwards"]
        bar("restart: lists that differ afterwards", after["asked"] - after["equal"], 0)
        bar("restart: status 500", found["restart"]["statuses"].get("500", 0), 0)
        told += _full(found["full_disk"])
    elif part == "hostile":
        bar("server errors", found["server_errors"], 0)
    elif part == "pages":
        for page, one in found.items():
            bar(f"{page} in ms", one["slowest_ms"], PAGE_MS)
            bar(f"{page} in kB", one["kb"], PAGE_KB)
    return told


def _full(found: dict[str, Any]) -> list[str]:
    if "skipped" in found:
        return [f"not measured: {found['skipped']}"]
    told = [f"a full disk was answered with {s}" for s in found["writes"] if s not in ("200", "507")]
    if not found["writes"].get("507"):
        told.append("the disk never was full")
    if found["lost"] or found["twice"] or set(found["reads_while_full"]) != {"200"}:
        told.append("reads failed, or what was acknowledged is not there")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="x5", choices=("x5", "complete-journey"))
    parser.add_argument("--shoppers", type=int, default=20_000, help="of the generated x5")
    parser.add_argument("--profile", default="large", choices=tuple(BARS))
    parser.add_argument("--work", type=Path, default=Path("out/serve-bench"))
    parser.add_argument(
        "--only", nargs="*", choices=tuple(PARTS), help="parts; all of them without, and none: prepare"
    )
    parser.add_argument("--seconds", type=float, default=30, help="of load for latency")
    parser.add_argument("--rate", type=float, default=50, help="requests a second for latency")
    parser.add_argument("--lists", type=int, default=10_000, help="compared with the batch")
    parser.add_argument("--many", type=int, default=200_000, help="requests for memory")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--swaps", type=int, default=50)
    parser.add_argument("--hostile", type=int, default=10_000, help="requests made to break it")
    parser.add_argument("--visits", type=int, default=20, help="of each page")
    given = parser.parse_args()
    shop = Shop(given.work, given.data, given.shoppers, given.profile, given.lists)
    parts = list(PARTS) if given.only is None else given.only
    shop.prepare(two_models=not {"swaps", "pages"}.isdisjoint(parts))
    bad: dict[str, list[str]] = {}
    for part in parts:
        tell(part)
        load = getloadavg()[0]
        found = PARTS[part](shop, given)
        bad[part] = missed(part, found, given.profile)
        verdict = "; ".join(bad[part]) or "met"
        result = {"data": given.data, "shoppers": len(shop.users), "profile": given.profile}
        print_result(f"serve: {part}", result | {"load": load, part: found, "bars": verdict})
        print(json.dumps(found, indent=1), flush=True)
        tell(f"{part}: {verdict}")
    for part, told in bad.items():
        print(f"{part}: {'MISSED: ' + '; '.join(told) if told else 'met'}")
    return int(any(bad.values()))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())

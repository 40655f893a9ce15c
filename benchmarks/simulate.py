"""Generate X5's size: 400,000 households, 43,000 items, about 45 million lines.

make bench-simulate [SHOP_USERS=400000]
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from machine import print_result

from retailrec.compute.memory import peak_memory_mb
from retailrec.simulator.shop import preset_shop

BAR_SECONDS, BAR_MB = 180, 4000


def main(users: int) -> int:
    shop = preset_shop("x5", users=users)
    with TemporaryDirectory() as folder:
        started = perf_counter()
        lines = shop.write(Path(folder))
        seconds = perf_counter() - started
        size = sum(p.stat().st_size for p in Path(folder).rglob("*.parquet"))
    result = {
        "households": users,
        "lines": lines,
        "seconds": round(seconds, 1),
        "peak_memory_mb": peak_memory_mb(),
        "files_mb": size // 10**6,
    }
    print_result("simulate", result)
    share = users / 400_000
    return int(seconds > BAR_SECONDS * share + 10 or result["peak_memory_mb"] > BAR_MB)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 400_000))

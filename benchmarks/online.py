"""One shopper at a time, from a history in memory: milliseconds an answer, one thread.

make bench-online [PROFILE=large]
"""

from __future__ import annotations

import sys
from time import perf_counter

import numpy as np
from machine import print_result

from retailrec.jobs.settings import Settings
from retailrec.simulator.shop import data_of, preset_shop

BAR_P99_MS = 15.0


def main(profile: str, users: int = 20_000, asked: int = 1000) -> int:
    data = data_of(preset_shop("x5", users=users))
    model = Settings(profile=profile, threads=1).for_size(data.n_users).model().fit(data)
    rng = np.random.default_rng(0)
    codes = rng.choice(data.active_users(), asked, replace=False)
    for code in codes[:20]:  # what happens once is not part of an answer
        model.recommend_codes(data.history(codes=[int(code)]), 10)
    took = np.empty(asked)
    for place, code in enumerate(codes):
        history = data.history(codes=[int(code)])
        started = perf_counter()
        model.recommend_codes(history, 10)
        took[place] = 1000 * (perf_counter() - started)
    p50, p95, p99 = (round(float(np.percentile(took, p)), 2) for p in (50, 95, 99))
    print_result(
        "online",
        {
            "profile": profile,
            "users": users,
            "items": data.n_items,
            "answers": asked,
            "p50_ms": p50,
            "p95_ms": p95,
            "p99_ms": p99,
            "bar_p99_ms": BAR_P99_MS,
        },
    )
    print(f"{profile}: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms" + ("; MISSED" * (p99 > BAR_P99_MS)))
    return int(p99 > BAR_P99_MS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "large"))

"""What each profile costs in quality and time: a generated log of X5's kind, 28 days held out.

make bench-profiles [SHOPPERS=20000]
"""

from __future__ import annotations

import sys
from datetime import timedelta
from time import perf_counter

from machine import print_result

from retailrec.config import PROFILES, Settings
from retailrec.datasets.simulate import data_of, preset
from retailrec.evaluation import Judge, means
from retailrec.prefilters import apply
from retailrec.splits import Fold


def main(users: int) -> None:
    data = data_of(preset("x5", users=users))
    split = Fold(data.end - timedelta(days=28), data.end).split(data)
    judge = Judge.of(*split)
    print("| profile | precision@5 | recall@10 | fit, s | ms a shopper |")
    print("|---|---|---|---|---|")
    found = {}
    for name in PROFILES:
        started = perf_counter()
        model = Settings(profile=name).for_size(data.n_users).model().fit(split.past)
        fitted = perf_counter()
        history = apply(model.prefilters, split.past)[0].history(judge.users)
        items = model.recommend_codes(history, 10).items
        done = perf_counter()
        row = means(judge.per_user(items, ["precision@5", "recall@10"]))
        row |= {"fit_s": round(fitted - started, 1),
                "ms": round(1000 * (done - fitted) / len(history), 3)}  # fmt: skip
        found[name] = row
        print(
            f"| `{name}` | {row['precision@5']:.4f} | {row['recall@10']:.4f} | {row['fit_s']} "
            f"| {row['ms']} |", flush=True,
        )  # fmt: skip
    print_result("profiles", {"users": users, "judged": len(judge.users), "profiles": found})


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000)

"""Lists of what is bought again and of what is new, on real shelves, each by its own truth.

Beside two_stage stands every source alone, held to the same items; settings were chosen on the boards
of `TUNING`, whose windows end before a claimed one begins (TUNING=1).

    make bench-purposes [BOARDS="journey-28 ta-feng-28"] [SEEDS="0 1 2"] [VARIANT='{"after_days": 90}']
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from time import process_time
from typing import Any

from board_data import BOARDS, TUNING, Board
from machine import print_result

from retailrec.data.splits import Split
from retailrec.jobs.run import PurposeResult, judge_purposes
from retailrec.jobs.settings import Settings

CLAIMED = (
    "journey-28-1106",
    "journey-28-1204",
    "ta-feng-28",
    "ta-feng-14",
    "online-retail-1",
    "online-retail-2",
    "online-retail-3",
)
METRICS = ["precision@5", "hit_rate@10", "ndcg@10"]


def measure(board: Board, seed: int, discover: Mapping[str, Any], threads: int) -> dict[str, Any]:
    """Results of both purposes, and what the ranker of new items cost beside the rest of the fit."""
    settings = Settings(seed=seed, horizon_days=board.horizon or 1, threads=threads, discover=discover)
    started = process_time()
    model = settings.for_size(board.train.n_users).model().fit(board.train)
    fitted = process_time() - started
    judged = judge_purposes(model, Split(board.past, board.target), METRICS, 10)
    return {"purposes": judged, "fit_cpu_s": fitted, "windows": model.report_["discover_windows"]}


def lines(board: str, seed: int, result: PurposeResult) -> list[str]:
    """Rows of a table: bestsellers, the best source alone, two_stage."""
    models, metric = result["models"], METRICS[0]
    simple = {name: of[metric] or 0.0 for name, of in models.items() if name != "two_stage"}
    best = max(simple, key=lambda name: simple[name])
    ours = models["two_stage"][metric] or 0.0
    rows = []
    for name in dict.fromkeys(("popular", best, "two_stage")):
        figures = " / ".join(f"{models[name][m]:.4f}" for m in METRICS)
        over = f" | {ours / simple[best] - 1:+.1%} over {best}" if name == "two_stage" else " | "
        over += f", {ours / simple['popular'] - 1:+.1%} over popular" if name == "two_stage" else ""
        rows.append(f"| {board} | {seed} | {result['purpose']} | {name} | {figures}{over} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="*", default=[], help="beginnings of names; all by default")
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--variant", default="{}", help="settings of [discover], as JSON")
    parser.add_argument("--threads", type=int, default=0, help="answers do not depend on them")
    parser.add_argument("--tuning", action="store_true", help="the windows that settings are chosen on")
    given = parser.parse_args()
    names = [n for n in TUNING if "basket" not in n] if given.tuning else CLAIMED
    found = {}
    print(f"| board | seed | purpose | method | {' / '.join(METRICS)} | |", flush=True)
    for name in names:
        if given.boards and not any(name.startswith(start) for start in given.boards):
            continue
        board = (BOARDS | TUNING)[name]()
        for seed in given.seeds:
            result = measure(board, seed, json.loads(given.variant), given.threads)
            found[f"{name} seed {seed}"] = result
            for purpose in result["purposes"]:
                print("\n".join(lines(name, seed, purpose)), flush=True)
    print_result("purposes", found)


if __name__ == "__main__":
    main()

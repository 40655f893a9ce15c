"""Every board of board_data.py: simple methods and ours, three seeds, paired intervals.

Each (board, method, seed) is a file in out/boards/, skipped while code and settings are the same, so
the job may be stopped at any time. `--write` puts what there is into docs/boards.md.

    make bench-boards [BOARDS="journey-28 ta-feng"] [METHODS="two_stage large"] [SEEDS="0 1 2"]
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
from board_data import BOARDS, TUNING, Board
from machine import print_result
from shapes import SHAPES

from retailrec.candidates import (
    CandidateGenerator,
    OwnPurchases,
    Popularity,
    ReciprocalRankFusion,
    TifuKNN,
)
from retailrec.compute.memory import release_memory
from retailrec.data.splits import NextBasketSplits
from retailrec.evaluation import Judge
from retailrec.jobs.settings import Settings
from retailrec.metrics.base import longest

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "boards"
SIMPLE: dict[str, Callable[[], CandidateGenerator]] = {
    "popular": Popularity,
    "own_purchases": lambda: OwnPurchases(ties="popular", fill=True),
    "own_decay": lambda: OwnPurchases("decay", half_life=120, fill=True),
    "tifu_knn": lambda: TifuKNN(neighbours=100, alpha=0.5),
    "fusion": ReciprocalRankFusion,
}
OURS = {"two_stage": "small", "laptop": "laptop", "large": "large"}
SEEDS = (0, 1, 2)
# files and folders of the package that a list depends on
CODE = ("candidates", "features", "rankers", "recommender", "data", "jobs/settings")


def code_key() -> str:
    """A hash of the code that a list depends on, without its words for readers."""
    found = hashlib.sha256()
    package = ROOT / "src" / "retailrec"
    files = [package / f"{name}.py" for name in CODE if (package / f"{name}.py").exists()]
    files += [f for name in CODE for f in (package / name).rglob("*.py")]
    for file in sorted(files):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            first = body[0] if isinstance(body, list) and body else None
            if isinstance(first, ast.Expr) and isinstance(getattr(first.value, "value", None), str):
                body[0] = ast.Pass()
        found.update(ast.dump(tree).encode())
    return found.hexdigest()[:12]


def ours(board: Board, profile: str, seed: int, over: Mapping[str, Any]) -> Any:
    """The recommender, not fitted; `parts` in a variant is that of next receipts."""
    said = dict(over)
    parts = said.pop("parts", NextBasketSplits.parts)
    settings = Settings(profile=profile, seed=seed, horizon_days=board.horizon or 1, **said)
    model = settings.for_size(board.train.n_users).model()
    if board.horizon is None:
        model.label_splits = NextBasketSplits(1, parts)
    return model


def measure(board: Board, method: str, seed: int, over: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of each shopper, and what it cost."""
    judge = Judge.of(board.past, board.target)
    k = longest(board.metrics)
    started, busy = perf_counter(), process_time()
    model: Any
    if method in SIMPLE:
        model = SIMPLE[method]().fit(board.train)
        fitted, fitted_busy = perf_counter(), process_time()
        items = model.candidates(board.past.history(codes=judge.users), k).items
        report: Any = []
    else:
        model = ours(board, OURS[method], seed, over).fit(board.train)
        fitted, fitted_busy = perf_counter(), process_time()
        items = model.recommend_codes(board.past.history(codes=judge.users), k).items
        report = model.report_
    values = judge.per_user(items, board.metrics)
    return {
        "means": {name: float(np.nanmean(v)) for name, v in values.items()},
        "values": {name: np.round(v, 6).tolist() for name, v in values.items()},
        "fit_s": fitted - started,
        "fit_cpu_s": fitted_busy - busy,
        "ms": 1000 * (perf_counter() - fitted) / len(judge.users),
        "peak_mb": peak_mb(),
        "report": report,
        "sizes": {
            "users": len(board.train.active_users()),
            "items": board.train.log["item"].n_unique(),
            "receipts": board.train.log["basket"].n_unique(),
        },
    }


def forget_peak() -> None:
    """The process's peak of memory starts anew (Linux)."""
    release_memory()
    Path("/proc/self/clear_refs").write_text("5")


def peak_mb() -> int:
    """Most memory since `forget_peak`, the board's receipts included."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def place(board: str, method: str, seed: int, variant: str, key: str) -> Path:
    """Where a result lies; simple methods have no seed."""
    name = f"{board}.{method}.{variant or 'as-is'}.{0 if method in SIMPLE else seed}.{key}.json"
    return OUT / name.replace("/", "-").replace(" ", "_")


def missing(wanted: Sequence[tuple[str, str, int]], variant: str, key: str) -> list[Any]:
    """What has no file yet."""
    jobs = [job for job in wanted if job[1] not in SIMPLE or job[2] == 0]
    return [job for job in jobs if not place(*job, variant, key).exists()]


def work(board: Board, job: tuple[str, str, int], variant: str, key: str, threads: int) -> None:
    """One result, to its file."""
    over = dict(pair.split("=", 1) for pair in variant.split())
    forget_peak()
    settings = {k: json.loads(v) for k, v in over.items()} | {"threads": threads}
    found = measure(board, job[1], job[2], settings)
    OUT.mkdir(parents=True, exist_ok=True)
    file = place(*job, variant, key)
    file.with_suffix(".part").write_text(json.dumps(found, default=str))
    file.with_suffix(".part").replace(file)
    means = "  ".join(f"{name} {value:.4f}" for name, value in found["means"].items())
    print(
        f"{job[0]:18} {job[1]:14} {variant} seed {job[2]}  {means}  fit {found['fit_s']:.0f} s "
        f"(busy {found['fit_cpu_s']:.0f} s)  {found['ms']:.2f} ms  {found['peak_mb']} MB",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", nargs="*", default=[], help="beginnings of names; all by default")
    parser.add_argument("--methods", nargs="*", default=[*SIMPLE, *OURS])
    parser.add_argument("--seeds", nargs="*", type=int, default=[*SEEDS])
    parser.add_argument("--variant", default="", help='settings over it: "negatives=0.5 seed=3"')
    parser.add_argument("--threads", type=int, default=0, help="answers do not depend on them")
    parser.add_argument("--tuning", action="store_true", help="the windows that settings are chosen on")
    parser.add_argument("--shapes", action="store_true", help="the boards of shapes.py")
    parser.add_argument("--write", action="store_true", help="only write docs/boards.md")
    given, key = parser.parse_args(), code_key()
    names = [
        name
        for name in (SHAPES if given.shapes else TUNING if given.tuning else BOARDS)
        if not given.boards or any(name.startswith(start) for start in given.boards)
    ]
    for name in names if not given.write else []:
        wanted = [(name, method, seed) for seed in given.seeds for method in given.methods]
        if jobs := missing(wanted, given.variant, key):
            board = (BOARDS | TUNING | SHAPES)[name]()
            for job in jobs:
                work(board, job, given.variant, key, given.threads)
    if given.shapes:
        from boards_page import compared

        print_result("shapes", compared(OUT, names, given.variant, key))
    elif not given.tuning and not given.variant:
        from boards_page import write

        print_result("boards", write(OUT, ROOT / "docs" / "boards.md", key))


if __name__ == "__main__":
    main()

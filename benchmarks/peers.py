"""RecTools two-stage model beside ours: precision@5, seconds and memory, same folds, same machine.

Ours by default, with every source and feature, and with the profile `large`, made for size. Three
folds of Online Retail II, the last four weeks of the Complete Journey, and a generated log of X5's
kind. RecTools lives in an environment of its own (.venv-peers), made on the first call; its frames and
ours are the same, its settings are in benchmarks/peers/rectools_two_stage.py.

    make bench-peers [SHOPPERS="10000 20000"]
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
from machine import data_folder, print_result

from retailrec.data import RetailData
from retailrec.data.splits import rolling_folds
from retailrec.datasets import load_dataset
from retailrec.evaluation import Judge, evaluate
from retailrec.simulator.shop import data_of, preset_shop

HERE = Path(__file__).parent
PEERS = HERE.parent / ".venv-peers"
WEEKS = timedelta(days=28)
BAR_LEAD = 0.4  # precision@5 over RecTools', mean of each real data set's folds
BAR_FIT = {"Online Retail II": 3.0, "Complete Journey": 1.0}  # seconds of a fit over RecTools'
# of the profile `large` on the generated log with so many shoppers or more; and to fit no slower
BAR_SHOPPERS, BAR_SPEED, BAR_MEMORY = 20_000, 8.0, 0.5


def cases(sizes: Sequence[int]) -> Iterator[tuple[str, RetailData, Any]]:
    """Name, data and fold."""
    data = load_dataset("online-retail", data_folder("online_retail_ii"))
    for fold in rolling_folds(data.end, horizon=WEEKS, n=3, stride=WEEKS):
        yield f"Online Retail II, {fold.cutoff:%Y-%m-%d}", data, fold
    data = load_dataset("complete-journey")
    fold = rolling_folds(data.end, horizon=WEEKS, n=1, stride=WEEKS)[0]
    yield f"Complete Journey, {fold.cutoff:%Y-%m-%d}", data, fold
    for shoppers in sizes:
        data = data_of(preset_shop("x5", users=shoppers))
        fold = rolling_folds(data.end, horizon=WEEKS, n=1, stride=WEEKS)[0]
        yield f"generated x5, {shoppers:,} shoppers", data, fold


def make_environment() -> str:
    """The Python of the environment that RecTools is installed in."""
    python = PEERS / "bin" / "python"
    if not python.exists():
        venv.create(PEERS, with_pip=True)
        needed = ["rectools==0.19.0", "catboost==1.2.10", "pyarrow==18.1.0"]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *needed], check=True)
    return str(python)


def compare(data: RetailData, fold: Any, peer: str) -> dict[str, dict[str, float]]:
    """Both on one fold."""
    past, target = fold.split(data)
    judge = Judge.of(past, target)
    truth = target.filter(pl.col("user").is_in(judge.users.tolist()))
    names = {"user": "user_id", "item": "item_id", "basket": "basket_id"}
    found = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        past.log.rename(names).write_parquet(folder / "past.parquet")
        pl.DataFrame({"user_id": judge.users.astype("int32")}).write_parquet(folder / "users.parquet")
        (folder / "end.txt").write_text(past.end.isoformat())
        for model, python, script, *more in (
            ("rectools", peer, "rectools_two_stage.py"),
            ("retailrec", sys.executable, "ours.py", "small"),
            ("retailrec, large", sys.executable, "ours.py", "large"),
        ):
            run = subprocess.run(
                [python, HERE / "peers" / script, folder, *more],
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            found[model] = json.loads(run.stdout.strip().splitlines()[-1])
            lists = pl.read_parquet(folder / "lists.parquet").cast({"user_id": pl.Int64})
            bought = truth.rename(names).select("user_id", "item_id").cast(pl.Int64)
            scores = evaluate(lists.cast({"item_id": pl.Int64}), bought, ["precision@5", "recall@10"])
            found[model] |= scores
    return found


def main(sizes: Sequence[int]) -> int:
    peer = make_environment()
    print("| | model | precision@5 | recall@10 | fit, s | recommend, s | peak, MB |")
    print("|---|---|---|---|---|---|---|")
    found = {}
    for name, data, fold in cases(sizes):
        found[name] = compare(data, fold, peer)
        for model, r in found[name].items():
            print(
                f"| {name} | {model} {r['version']} | {r['precision@5']:.4f} | {r['recall@10']:.4f} "
                f"| {r['fit']:.1f} | {r['recommend']:.1f} | {r['peak_memory_mb']:,} |",
                flush=True,
            )
    missed: list[str] = []
    leads = {}
    for board, most in BAR_FIT.items():
        folds = [r for name, r in found.items() if name.startswith(board)]
        ours, theirs = (
            {key: sum(r[model][key] for r in folds) for key in ("precision@5", "fit")}
            for model in ("retailrec", "rectools")
        )
        leads[board] = round(ours["precision@5"] / theirs["precision@5"] - 1, 3)
        times = ours["fit"] / theirs["fit"]
        print(f"{board}: precision@5 {leads[board]:+.1%}, {times:.2f} times RecTools' seconds to fit")
        missed += [f"precision@5 on {board}"] if leads[board] < BAR_LEAD else []
        missed += [f"seconds to fit on {board}"] if times > most else []
    for name, case in found.items():
        if name.startswith("generated"):
            peer_, mine = case["rectools"], case["retailrec, large"]
            bars = {
                "recommend": peer_["recommend"] >= BAR_SPEED * mine["recommend"],
                "fit": peer_["fit"] >= mine["fit"],
                "precision@5": mine["precision@5"] > peer_["precision@5"],
                "memory": mine["peak_memory_mb"] < BAR_MEMORY * peer_["peak_memory_mb"],
            }
            if int(name.split()[2].replace(",", "")) >= BAR_SHOPPERS:
                missed += [f"{bar} at {name}" for bar, kept in bars.items() if not kept]
            print(
                f"{name}, large: recommends "
                f"{peer_['recommend'] / mine['recommend']:.1f} times as fast, fits "
                f"{peer_['fit'] / mine['fit']:.1f} times as fast, with "
                f"{mine['peak_memory_mb'] / peer_['peak_memory_mb']:.2f} of the memory"
            )
    print_result("peers", {"precision@5_lead": leads, "missed": missed, "cases": found})
    if missed:
        print(f"MISSED: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main([int(n) for n in sys.argv[1:]]))

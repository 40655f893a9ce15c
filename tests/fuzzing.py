"""Mutated inputs at the doors for files: each is read whole, or refused in words.

Every input is made from a seed: a small table of receipts (CSV, Parquet, workbook), settings and rules
(TOML), a truth's window (JSON), a saved model, mutated a few times. What is read is checked by a second reader that
shares no code with ours (the csv module, PyArrow, openpyxl): lines read = kept + merged + rejected, and
lines read = lines there. An error that is not raised on purpose, a process that dies, and a count that
differs are failures; each is named with its seed.

    make fuzz N=5000 SEED=0 SECONDS=1200
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from fuzzing_inputs import PIECES, change_word, damage, table, with_cells, words
from retailrec.datasets import load_dataset
from retailrec.errors import RetailRecError
from retailrec.jobs.settings import read_settings
from retailrec.recommender.rules import read_rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.truth import read_truth

BATCH = 100  # inputs a process
SAVED = Path(__file__).parent / "artifacts" / "format-1"


def load(path: Path, count: int | None) -> str:
    """Load it and compare the counts."""
    report = load_dataset("table", path).report
    total = report.kept + report.merged + sum(report.rejected.values())
    if report.read != total:
        raise AssertionError(f"{report.read} read, but {total} kept, merged and rejected")
    if count is not None and report.read != count:
        raise AssertionError(f"{report.read} read of {count} lines")
    return "read"


def fuzz_csv(rng: np.random.Generator, folder: Path) -> str:
    out = io.StringIO(newline="")
    separator = str(rng.choice([",", ";", "\t"]))
    quoting = int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    end = str(rng.choice(["\n", "\r\n"]))
    writer = csv.writer(out, delimiter=separator, quoting=quoting, lineterminator=end)
    frame = with_cells(table(rng), rng)
    writer.writerow(frame.columns)
    writer.writerows(frame.rows())
    data = bytearray(out.getvalue().encode(str(rng.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16"]))))
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        at = int(rng.integers(len(data) + 1))
        stop = at + int(rng.choice([0, 0, 1, 5]))
        data[at:stop] = PIECES[int(rng.integers(len(PIECES)))] if rng.random() < 0.8 else b""
    if rng.random() < 0.05:
        del data[int(rng.integers(len(data))) :]
    path = folder / "r.csv"
    path.write_bytes(data)
    return load(path, csv_lines(bytes(data), separator))


def csv_lines(data: bytes, separator: str) -> int | None:
    """Lines below the header by Python's csv module, blank ones not counted; None if it can't read it."""
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
        return len([row for row in rows if row]) - 1
    except (UnicodeError, csv.Error):
        return None


def fuzz_parquet(rng: np.random.Generator, folder: Path) -> str:
    import pyarrow.parquet as pq

    frame = table(rng)
    changes: list[Callable[[pl.DataFrame], pl.DataFrame]] = [
        lambda f: f.with_columns(pl.col("time").str.to_datetime()),
        lambda f: f.with_columns(
            pl.col("time").str.to_datetime(time_zone="Europe/Berlin", ambiguous="earliest")
        ),
        lambda f: f.with_columns(pl.col("time").str.to_datetime(time_unit="ns").dt.epoch("s")),
        lambda f: f.with_columns(pl.col("user_id").cast(pl.UInt64) + 2**63),
        lambda f: f.with_columns(pl.col("user_id").cast(pl.Float32)),
        lambda f: f.with_columns(pl.col("quantity").cast(pl.Decimal(10, 2))),
        lambda f: f.with_columns(descr=pl.concat_list("descr")),
        lambda f: f.with_columns(descr=pl.struct("user_id", "value")),
        lambda f: f.with_columns(descr=pl.col("descr").cast(pl.Binary)),
        lambda f: f.with_columns(pl.col("item_id").cast(pl.Categorical)),
        lambda f: f.with_columns(pl.lit(None).alias("value")),
        lambda f: f.with_columns(
            pl.when(pl.col("value") > 5).then(float("nan")).otherwise("value").alias("value")
        ),
        lambda f: f.with_columns(pl.when(pl.col("value") > 5).then("user_id")),
        lambda f: f.clear(),
        lambda f: f.rename({"descr": "line"}),
        lambda f: with_cells(f, rng),
    ]
    for _ in range(int(rng.integers(0, 3))):
        try:
            frame = changes[int(rng.integers(len(changes)))](frame)
        except (pl.exceptions.PolarsError, TypeError):
            continue
    path = folder / "r.parquet"
    frame.write_parquet(path)
    count: int | None = pq.read_metadata(path).num_rows
    if rng.random() < 0.2:
        damage(path, rng)
        count = None
    return load(path, count)


def fuzz_workbook(rng: np.random.Generator, folder: Path) -> str:
    import openpyxl
    import xlsxwriter

    path = folder / "r.xlsx"
    book = xlsxwriter.Workbook(
        path, {"strings_to_numbers": bool(rng.random() < 0.5), "nan_inf_to_errors": True}
    )
    for number in range(int(rng.integers(1, 3))):
        frame = with_cells(table(rng), rng) if rng.random() < 0.5 else table(rng)
        sheet = book.add_worksheet(f"s{number}")
        sheet.write_row(0, 0, frame.columns)
        for row, cells in enumerate(frame.rows(), 1):
            for column, cell in enumerate(cells):
                if isinstance(cell, str):
                    sheet.write_string(row, column, cell)
                else:
                    sheet.write(row, column, cell)
    book.close()
    opened = openpyxl.load_workbook(path, read_only=True)
    count: int | None = sum(
        sum(any(c not in (None, "") for c in row) for row in sheet.iter_rows(values_only=True)) - 1
        for sheet in opened
    )
    opened.close()
    if rng.random() < 0.2:
        damage(path, rng)
        count = None
    return load(path, count)


SETTINGS = 'profile = "large"\nk = 5\nhorizon_days = 28.0\nmetrics = ["precision@5"]\n[ranker]\ntype = "lightgbm"\n'
RULES = "price_floor = 1.0\nprice_ceiling = 9.5\nmax_per_category = 2\nmin_new = 1\nvariety = 0.5\n"
WINDOW = '{"cutoff": "2024-01-01T00:00:00", "horizon_days": 28.0, "repetitions": 200}'


def fuzz_toml(rng: np.random.Generator, folder: Path) -> str:
    path = folder / "s.toml"
    settings = bool(rng.random() < 0.5)
    path.write_bytes(words(SETTINGS if settings else RULES, rng))
    if settings:
        read_settings(path)
    else:
        read_rules(path)
    return "read"


def fuzz_json(rng: np.random.Generator, folder: Path) -> str:
    columns = ["user_id", "item_id", "p", "p_first", "p_second", "p_any"]
    pl.DataFrame({c: [1.0] for c in columns}).write_parquet(folder / "probabilities.parquet")
    (folder / "window.json").write_bytes(words(WINDOW, rng))
    read_truth(folder)
    return "read"


def fuzz_artifact(rng: np.random.Generator, folder: Path) -> str:
    """A saved model with bytes of a file or words of the manifest changed, signed anew or not.

    What is not signed anew must be refused; what is may be anything but the end of the process.
    """
    place = folder / "model"
    shutil.copytree(SAVED / "model", place)
    manifest = json.loads((place / "manifest.json").read_text())
    files, signed = manifest["files"], bool(rng.random() < 0.8)
    for _ in range(int(rng.integers(1, 3))):
        name = str(rng.choice(list(files)))
        file = place / manifest["data"] / name
        if rng.random() < 0.3:
            damage(file, rng)
        else:
            change_word(file, rng)
        if signed:
            files[name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    same = all(
        hashlib.sha256((place / manifest["data"] / n).read_bytes()).hexdigest() == f["sha256"]
        for n, f in files.items()
    )
    text = json.dumps(manifest)
    if rng.random() < 0.2:
        text = words(text.replace(": ", " : "), rng).decode(errors="replace")
    (place / "manifest.json").write_text(text)
    model = TwoStageRecommender.load(place)
    if not same:
        raise AssertionError("a file that was altered is loaded")
    answers = model.recommend(pl.read_parquet(SAVED / "receipts.parquet"), [1, 2, 3], k=3)
    if not answers["item_id"].is_in(model.items_["item_id"].implode()).all():
        raise AssertionError("an item is recommended that is not in the catalogue")
    return "read"


KINDS: dict[str, Callable[[np.random.Generator, Path], str]] = {
    "csv": fuzz_csv,
    "parquet": fuzz_parquet,
    "workbook": fuzz_workbook,
    "toml": fuzz_toml,
    "json": fuzz_json,
    "artifact": fuzz_artifact,
}
SHARES = (0.5, 0.2, 0.1, 0.08, 0.04, 0.08)


def one(seed: int) -> tuple[str, str, str]:
    """Kind, outcome (read, refused, failed) and message of one input."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(list(KINDS), p=SHARES))
    with TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return kind, KINDS[kind](rng, Path(name)), ""
        except RetailRecError as error:
            return kind, "refused", str(error).replace(name, "")
        except Exception as error:
            return kind, "failed", f"{type(error).__name__}: {error}"


def worker(first: int, last: int) -> None:
    """One line of JSON an input."""
    for seed in range(first, last):
        print(json.dumps([seed, *one(seed)]), flush=True)


def run(n: int, seed: int, seconds: float) -> dict[str, Any]:
    """Outcomes of `n` inputs in processes of their own, so that one that dies is a failure like others."""
    started, counts, failures = perf_counter(), Counter[str](), []
    for first in range(seed, seed + n, BATCH):
        if perf_counter() - started > seconds:
            break
        last = min(first + BATCH, seed + n)
        command = [sys.executable, __file__, "--worker", str(first), str(last)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
            output, code = done.stdout, done.returncode
        except subprocess.TimeoutExpired as error:
            output, code = (error.stdout or b"").decode(), "no answer"
        rows = [json.loads(line) for line in output.splitlines()]
        for number, kind, outcome, message in rows:
            counts[f"{kind} {outcome}"] += 1
            if outcome == "failed":
                failures.append(f"seed {number} ({kind}): {message}")
        if len(rows) < last - first:
            failures.append(f"seed {first + len(rows)}: the process ended with {code}")
    seconds_taken = round(perf_counter() - started, 1)
    total = sum(counts.values())
    return {
        "inputs": total,
        "seconds": seconds_taken,
        "outcomes": dict(sorted(counts.items())),
        "failures": failures,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--worker", nargs=2, type=int)
    options = parser.parse_args()
    if options.worker:
        worker(*options.worker)
    else:
        found = run(options.n, options.seed, options.seconds)
        print(json.dumps(found, indent=2))
        sys.exit(1 if found["failures"] else 0)

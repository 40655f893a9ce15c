"""The command line on Spark: the same options, the same results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner, Result

import spark_support
from retailrec.cli.app import app
from retailrec.errors import SettingError
from retailrec.jobs.settings import Settings
from retailrec.simulator.shop import small_data
from spark_support import lists

pytestmark = pytest.mark.slow

SPARK = ["--engine", "spark", "--master", "local[2]"]
SOURCE = """
from dataclasses import dataclass
from retailrec.candidates import Popularity


@dataclass
class TwiceAsPopular(Popularity):
    name: str = "twice"
"""


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = spark_support.write_shop(tmp_path_factory.mktemp("cli"))
    (folder / "quick.toml").write_text(
        "horizon_days = 14\nlabel_windows = 1\nn_candidates = 30\n"
        "[ranker]\ntype = 'lightgbm'\niterations = 5\n"
        "[[sources]]\ntype = 'own_purchases'\n[[sources]]\ntype = 'popularity'\n"
    )
    return folder


def called(*words: Any) -> Result:
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 0, done.output or done.exception
    return done


def test_a_run_cleans_once_and_writes_what_recommend_writes(
    session: Any, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run` on a sample with lists for everybody, in slots; then `recommend` with its model."""
    from retailrec.spark import engine, recommending

    cleaned = []
    for module in (engine, recommending):
        original = module.stage
        monkeypatch.setattr(
            module,
            "stage",
            lambda *given, f=original, **more: (cleaned.append(given), f(*given, **more))[1],
        )
    slots = ["--slots", "replenish=3,mixed=2"]
    config = ["--config", shop / "quick.toml", "--no-report", "--sample", 60]
    called("run", "table", shop / "receipts", "--out", tmp_path / "out", *config, *slots, *SPARK)
    assert len(cleaned) == 1
    everybody = lists(tmp_path / "out" / "recommendations.parquet")
    assert everybody["user_id"].n_unique() == 120
    judged = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert judged["evaluation"]["n_users"] < 90
    again = ["recommend", "--model", tmp_path / "out" / "model", "--history", shop / "receipts"]
    told = called(*again, "--out", tmp_path / "again", *slots, *SPARK)
    assert "120 shoppers, 600 recommendations" in told.output
    assert "rejected: also in another file" in told.output
    assert lists(tmp_path / "again").equals(everybody)
    here = called(*again, "--out", tmp_path / "here.parquet", *slots)
    assert lists(tmp_path / "here.parquet").equals(everybody)
    for note in (line for line in here.output.splitlines() if "filled up" in line):
        assert note in told.output
    refused = CliRunner().invoke(app, [*map(str, again), "--out", "x", *SPARK, "--safe-csv"])
    assert isinstance(refused.exception, SettingError)
    refused = CliRunner().invoke(app, [*map(str, again), "--out", "x.xlsx", *SPARK])
    assert "on Spark lists are a folder of Parquet" in str(refused.exception)


def test_everybody_is_judged_where_models_learn_from_a_sample(
    session: Any, shop: Path, tmp_path: Path
) -> None:
    until = small_data(users=120, weeks=26).end.date() - timedelta(days=4)
    receipts, config = shop / "receipts", ["--config", shop / "quick.toml", "--until", until]
    spark = [*config, *SPARK, "--sample", 60]
    called("backtest", "table", receipts, "--out", tmp_path / "back", "--folds", 1, *spark)
    values = pl.read_parquet(tmp_path / "back" / "backtest.parquet")
    here = called("backtest", "table", receipts, "--out", tmp_path / "here", "--folds", 1, *config)
    expected = pl.read_parquet(tmp_path / "here" / "backtest.parquet")
    assert values["user_id"].equals(expected["user_id"])
    # what needs no fitting of shoppers is the same to the last digit
    for model in ("popular", "own_purchases", "own_decay"):
        one, other = (f.filter(model=model)["recall@10"] for f in (values, expected))
        assert one.equals(other), model
    assert here.output.split("results")[0].count("two_stage") > 0
    called("match", "table", receipts, "--out", tmp_path / "match", *spark)
    called("match", "table", receipts, "--out", tmp_path / "match-here", *config)
    one, other = (
        json.loads((tmp_path / name / "matching.json").read_text()) for name in ("match", "match-here")
    )
    assert one["evaluation"] == other["evaluation"]
    assert one["recall@k"] == other["recall@k"]


@pytest.mark.parametrize("own_lists", [True, False])
def test_only_what_is_listed_is_ranked(
    session: Any, shop: Path, tmp_path: Path, own_lists: bool
) -> None:
    """Lists of everybody, or of shoppers, some unknown; the account is that of one machine."""
    data = small_data(users=120, weeks=26)
    items = data.items["item_id"].cast(pl.Int64).gather_every(5)
    listed = pl.DataFrame({"item_id": [*items, 10**7]})
    if own_lists:
        people = pl.DataFrame({"user_id": [*range(1, 40), 99_999]})
        listed = people.join(listed, how="cross").filter(
            (pl.col("user_id") * 7 + pl.col("item_id")) % 3 == 0
        )
    listed.write_csv(tmp_path / "listed.csv")
    command = ["recommend", "--model", shop / "model", "--history", shop / "receipts", "--k", 4]
    command += ["--among", tmp_path / "listed.csv", "--with", "name,category,price,end"]
    here = called(*command, "--out", tmp_path / "here.parquet")
    there = called(*command, "--out", tmp_path / "there", *SPARK)
    expected = lists(tmp_path / "here.parquet")
    assert set(expected["item_id"]) <= set(listed["item_id"])
    assert expected["user_id"].n_unique() == (40 if own_lists else 120)
    assert lists(tmp_path / "there").equals(expected)
    notes = [line for line in here.output.splitlines() if "listed items" in line]
    assert notes
    assert all(note in there.output for note in notes)


def test_workers_import_modules_of_ones_own(
    session: Any, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that only a file beside the caller defines."""
    (tmp_path / "own_for_spark.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    __import__("own_for_spark")  # registers it
    settings = Settings(
        horizon_days=14,
        ranker={"type": "lightgbm", "iterations": 5},
        label_windows=1,
        sources=[{"type": "own_purchases"}, {"type": "twice_as_popular"}],
        n_candidates=30,
    )
    settings.model().fit(small_data(users=60, weeks=26)).save(tmp_path / "model")
    command = ["recommend", "--model", tmp_path / "model", "--history", shop / "receipts", "--k", 4]
    command += ["--import", "own_for_spark"]
    called(*command, "--out", tmp_path / "here.parquet")
    called(*command, "--out", tmp_path / "there", *SPARK)
    assert lists(tmp_path / "there").equals(lists(tmp_path / "here.parquet"))

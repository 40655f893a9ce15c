"""Everybody judged on Spark where models learn from a sample: the local engine's figures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import spark_support
from retailrec.candidates import OwnPurchases, Popularity
from retailrec.data import RetailData, item_buyers
from retailrec.data.prefilters import preset
from retailrec.data.splits import Fold
from retailrec.errors import SettingError
from retailrec.evaluation.backtest import Window, backtest, fitted_copy
from retailrec.evaluation.matching import judge_matching
from retailrec.simulator.shop import small_data
from spark_support import QUICK, receipts_of, soiled

pytestmark = pytest.mark.slow

METRICS = (
    "precision@5",
    "recall@10",
    "repeat_recall@10",
    "novelty@10",
    "serendipity@10",
    "coverage@5",
    "gini@5",
)
HORIZON = timedelta(days=14)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


@pytest.fixture(scope="module")
def receipts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With shoppers who came in the last two weeks only, and an item that was not sold before."""
    file = tmp_path_factory.mktemp("judging") / "receipts.parquet"
    data = small_data(users=120, weeks=26)
    late = pl.col("time") >= data.end - HORIZON
    lines = receipts_of(data).filter(late | (pl.col("user_id") % 9 > 0))
    new = late & (pl.int_range(pl.len()) % 40 == 0)
    lines = lines.with_columns(pl.when(new).then(777_777).otherwise("item_id").alias("item_id"))
    soiled(lines).write_parquet(file, row_group_size=1000)
    return file


@pytest.fixture(scope="module")
def here(receipts: Path) -> RetailData:
    return RetailData.from_frames(pl.read_parquet(receipts))


@pytest.fixture(scope="module")
def sample(session: Any, receipts: Path, tmp_path_factory: pytest.TempPathFactory) -> RetailData:
    from retailrec.spark.engine import sampled_data

    folder = tmp_path_factory.mktemp("lines")
    return sampled_data(session, receipts, f"file://{folder}/a", sample=50)


def test_everybody_is_judged_with_the_figures_of_one_machine(
    here: RetailData, sample: RetailData
) -> None:
    """Of models that learnt from the sample, to the last digit, shopper by shopper."""
    fold = Fold(here.end - HORIZON, here.end)
    split = fold.split(sample).filtered(preset("default"))
    window = Window(split, fold.end)
    # the whole of one machine, with the items that the sample's prefilters left
    past = replace(fold.split(here).past, items=split.past.items)
    local = Window(replace(fold.split(here), past=past), fold.end)
    assert sample.n_users < 80 < len(window.users)
    assert window.users.equals(local.users)
    for segment, groups in local.groups.items():
        assert window.groups[segment].equals(groups), segment
    for model in (OwnPurchases(), QUICK.model()):
        fitted = fitted_copy(model, split.past)
        (there, lists), (expected, here_too) = (w.values(fitted, METRICS, 3) for w in (window, local))
        assert lists.equals(here_too)
        assert lists["hits"].list.len().min() >= 3
        assert list(there) == list(METRICS)
        for metric in METRICS:
            np.testing.assert_array_equal(there[metric], expected[metric], metric)
    with pytest.raises(SettingError, match="can't be judged on Spark"):
        window.values(lambda past, users, k: np.zeros((len(users), k), np.int32), METRICS)


def test_a_backtest_of_everybody_is_that_of_one_machine(
    session: Any, here: RetailData, receipts: Path, tmp_path: Path
) -> None:
    """With a sample of all shoppers; finished folds are read again, other receipts are seen."""
    from retailrec.spark.engine import sampled_data

    models = {"popular": Popularity(), "own": OwnPurchases(ties="popular", fill=True)}
    wish: dict[str, Any] = {"horizon_days": 14, "n_folds": 2, "metrics": METRICS}
    everybody = sampled_data(session, receipts, f"file://{tmp_path}/a", sample=10**6)
    there = backtest(everybody, models, **wish, store=tmp_path / "store")
    expected = backtest(here, models, **wish)
    assert there.values.equals(expected.values)
    assert there.table.equals(expected.table)
    finished = {f.name: f.stat().st_mtime_ns for f in (tmp_path / "store").glob("*.parquet")}
    assert len(finished) == 4
    again = backtest(everybody, models, **wish, store=tmp_path / "store")
    assert again.values.equals(expected.values)
    assert {f.name: f.stat().st_mtime_ns for f in (tmp_path / "store").glob("*.parquet")} == finished


@pytest.mark.parametrize("most_users", [20_000, 15])
def test_a_matching_report_of_everybody_is_that_of_one_machine(
    here: RetailData, sample: RetailData, most_users: int
) -> None:
    """Of sources that learnt from the sample, of all shoppers and of drawn ones."""
    fold = Fold(here.end - HORIZON, here.end)
    model = QUICK.model().fit_matching(fold.split(sample).past)
    wish: dict[str, Any] = {"grid": (20, 200), "most_users": most_users, "seed": 1}
    there = judge_matching(model, fold.split(sample), **wish)
    # the whole of one machine, with the counts of items that are the sample's whole's
    split = fold.split(here)
    local = judge_matching(model, split, **wish)
    for report in (there, local):
        for facts in report["sources"].values():
            facts.pop("candidates_seconds", None)
    assert there["evaluation"]["n_users"] == min(most_users, local["evaluation"]["n_users"]) > 14
    assert there["cold"]["no receipt, nothing known"]["n_users"] > 0
    assert there["cold"]["items never sold before"]["share_of_purchases"] > 0
    assert there == local


def test_an_instant_is_the_logs_whatever_zone_the_machine_has(
    here: RetailData, sample: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    end = here.start + timedelta(days=60, hours=2)
    expected = item_buyers(here.asof(end))
    for zone in ("Asia/Tokyo", "America/New_York"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        np.testing.assert_array_equal(item_buyers(sample.asof(end)), expected)
    monkeypatch.undo()
    time.tzset()

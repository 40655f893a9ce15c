"""The course notebook, done again literally, and beside ours."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.datasets import load_dataset
from retailrec.errors import DataError
from retailrec.simulator.shop import Shop

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from walkthrough import (
    LABELS,
    PUBLISHED,
    TEST,
    _engineered,
    compare_with_walkthrough,
    main,
    one_neighbour,
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    Shop(users=120, items=3000, weeks=30).write(folder)
    return folder


@pytest.mark.slow
def test_the_benchmark_prints_published_figures_beside_ours(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "quick.toml"
    config.write_text(
        'label_windows = 2\nprerank = false\nn_candidates = 60\n[ranker]\ntype = "lightgbm"\n'
        'iterations = 40\n[[sources]]\ntype = "own_purchases"\n[[sources]]\ntype = "popularity"\n'
    )
    out = tmp_path / "rows.json"
    main([str(shop), "--config", str(config), "--out", str(out)])
    printed = capsys.readouterr().out
    rows = {r["step"]: r for r in json.loads(out.read_text())["rows"]}
    for step, published in PUBLISHED.items():
        if step != "best elsewhere":
            assert rows[step]["published"] == published
            assert f"{published:.4f}" in printed
            # shoppers without candidates leave its mean, and count zero in ours
            share = rows[step]["their_n_users"] / rows[step]["n_users"]
            assert rows[step]["precision@5"] == pytest.approx(share * rows[step]["their_mean"])
    assert all(row["low"] <= row["precision@5"] <= row["high"] for row in rows.values())
    recent = rows["no model: count in the label weeks"]
    assert recent["precision@5"] > rows["own purchases"]["precision@5"]  # what the doubling is made of
    assert recent["their_n_users"] == rows["own purchases"]["their_n_users"]
    assert rows["CatBoost, engineered, no leak"]["published"] is None
    ours = rows["ours: two stages, default"]["precision@5"]
    assert ours > rows["CatBoost, engineered features"]["precision@5"]
    assert f"{ours:.4f}" in printed


def test_its_features_hold_the_weeks_they_explain(shop: Path) -> None:
    """The leak is done again, on purpose: what is bought in the label weeks moves the features."""
    data = load_dataset("complete-journey", shop)
    past = data.asof(data.end - TEST)
    start = past.end - LABELS
    table = past.log.select("user", "item").unique(maintain_order=True).head(500)
    before = _engineered(past, table, start)
    calm = RetailData(past.log.filter(pl.col("time") < start), past.items, past.users, past.end)
    assert not np.allclose(before, _engineered(calm, table, start))


def test_one_neighbour_is_often_another_item(shop: Path) -> None:
    data = load_dataset("complete-journey", shop)
    own = one_neighbour(data)
    bought = data.log.select("user", "item").unique()
    share = own.join(bought, on=["user", "item"], how="semi").height / own.height
    assert 0.3 < share < 1
    assert own.group_by("user").len()["len"].max() <= 200


def test_too_few_weeks_are_refused(shop: Path) -> None:
    data = load_dataset("complete-journey", shop)
    with pytest.raises(DataError, match="needs 12 weeks"):
        compare_with_walkthrough(data.asof(data.start + timedelta(weeks=9)))

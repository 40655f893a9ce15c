"""Tuning: resumable, on earlier windows only, and its result is a config."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.errors import DataError, SettingError
from retailrec.jobs.settings import Settings, Typed, read_settings
from retailrec.jobs.tune import fold_frames, tune
from retailrec.simulator.shop import small_data

DATA = small_data(users=80, weeks=40)
SETTINGS = Settings(
    sources=[Typed(type="own_purchases"), Typed(type="popularity")],
    label_windows=2,
    pool_size=50,
    threads=1,
)


@pytest.fixture(autouse=True)
def few_pool_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retailrec.jobs.tune.POOL_SIZES", (50,))


def test_a_rerun_goes_on_where_the_first_stopped(tmp_path: Path) -> None:
    study = tmp_path / "study.log"
    first = tune(DATA, SETTINGS, study, trials=2, n_folds=1)
    again = tune(DATA, SETTINGS, study, trials=1, n_folds=1)
    assert (first["trials"], again["trials"]) == (2, 3)
    assert again["default"] == first["default"]
    assert again["best"] >= first["best"] >= first["default"]
    (tmp_path / "best.toml").write_text(again["toml"])
    chosen = read_settings(tmp_path / "best.toml")
    assert chosen.pool_size == 50
    assert chosen.make_ranker().iterations == again["settings"]["ranker"]["iterations"]
    with pytest.raises(SettingError, match="other data, folds or settings"):
        tune(DATA, SETTINGS, study, trials=1, n_folds=2)


def test_the_last_horizon_is_never_looked_at(tmp_path: Path) -> None:
    cutoff = DATA.end - timedelta(days=28)
    rng = np.random.default_rng(0)
    other = rng.integers(0, DATA.n_items, DATA.log.height).astype(np.int32)
    late = pl.col("time") >= cutoff
    log = DATA.log.with_columns(item=pl.when(late).then(pl.Series(other)).otherwise(pl.col("item")))
    changed = replace(DATA, log=log.unique(["basket", "item"], maintain_order=True))
    one, two = (
        tune(d, SETTINGS, tmp_path / name, trials=2, n_folds=1)
        for d, name in ((DATA, "a"), (changed, "b"))
    )
    assert (one["default"], one["best"]) == (two["default"], two["best"])


def test_dropped_families_do_not_reach_the_ranker() -> None:
    (fold,) = fold_frames(SETTINGS, DATA, 1)
    ranker = SETTINGS.make_ranker()
    everything = fold.score(ranker, "precision@5")
    assert ranker.model_.num_feature() == len(fold.train.names)
    fold.score(ranker, "precision@5", drop=["user", "source_popular_score"])
    users = sum(family == "user" for family in fold.families.values())
    assert ranker.model_.num_feature() == len(fold.train.names) - users - 1
    assert 0 < everything < 1


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match="too short for 30 folds"):
        fold_frames(SETTINGS, DATA, 30)

"""Tuning: resumable, on earlier windows only, and its result is a config."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.errors import DataError
from retailrec.jobs.settings import Settings, Typed, read_settings
from retailrec.jobs.tune import fold_frames, tune
from retailrec.simulator.shop import small_data
from retailrec.work import locked

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
    study = tmp_path / "study"
    first = tune(DATA, SETTINGS, study, trials=2, n_folds=1)
    again = tune(DATA, SETTINGS, study, trials=1, n_folds=1)
    assert (first["trials"], again["trials"]) == (2, 3)
    assert again["default"] == first["default"]
    assert again["best"] >= first["best"] >= first["default"]
    (tmp_path / "best.toml").write_text(again["toml"])
    chosen = read_settings(tmp_path / "best.toml")
    assert chosen.pool_size == 50
    assert chosen.make_ranker().iterations == again["settings"]["ranker"]["iterations"]
    with pytest.raises(DataError, match="work on other data or settings"):
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


def test_a_metric_looks_at_as_many_items_as_it_names() -> None:
    (fold,) = fold_frames(SETTINGS, DATA, 1)
    ranker = SETTINGS.make_ranker()
    ten, thirty = (fold.score(ranker, f"recall@{k}") for k in (10, 30))
    items = fold.test.pool.best(ranker.predict(fold.test.x), 30).items
    hits = fold.judge.hits(items)
    n_bought = np.bincount(fold.judge.keys // fold.judge.n_items)
    assert thirty == pytest.approx((hits.sum(axis=1) / n_bought).mean())
    assert ten == pytest.approx((hits[:, :10].sum(axis=1) / n_bought).mean())


def test_a_metric_that_receipts_do_not_tell_is_no_zero() -> None:
    free = replace(DATA, log=DATA.log.with_columns(value=pl.lit(None, pl.Float64)))
    (fold,) = fold_frames(SETTINGS, free, 1)
    with pytest.raises(DataError, match="money_precision@5 can't be computed"):
        fold.score(SETTINGS.make_ranker(), "money_precision@5")


def test_too_many_folds_are_refused() -> None:
    with pytest.raises(DataError, match="too short for 30 folds"):
        fold_frames(SETTINGS, DATA, 30)


def test_a_trial_that_was_cut_or_altered_is_computed_again(tmp_path: Path) -> None:
    study = tmp_path / "study"
    whole = tune(DATA, SETTINGS, study, trials=3, n_folds=1)
    trials = sorted(study.glob("trial-*.json"))
    assert len(trials) == 3
    trials[1].write_bytes(trials[1].read_bytes()[:-9])
    again = tune(DATA, SETTINGS, study, trials=1, n_folds=1)
    assert again["trials"] == 3  # two whole ones, and one anew
    assert again["default"] == whole["default"]
    trials[0].write_bytes(trials[0].read_bytes().replace(b'"value": 0.', b'"value": 9.'))
    again = tune(DATA, SETTINGS, study, trials=1, n_folds=1)
    assert again["default"] == whole["default"]  # the altered default was tried again
    assert again["best"] < 1
    assert sorted(study.glob("trial-*.json")) == trials


def test_what_is_no_study_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "trials.log").write_bytes(b"a year of work")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.csv").write_bytes(b"a year of work")
    for name, sentence in (("trials.log", "can't be made"), ("folder", "none of our parts")):
        with pytest.raises(DataError, match=sentence):
            tune(DATA, SETTINGS, tmp_path / name, trials=1, n_folds=1)
    for name in ("trials.log", "folder/a.csv"):
        assert (tmp_path / name).read_bytes() == b"a year of work"


def test_a_study_is_held_while_it_is_in_use(tmp_path: Path) -> None:
    with (
        locked(tmp_path / "study"),
        pytest.raises(DataError, match="another process is writing"),
    ):
        tune(DATA, SETTINGS, tmp_path / "study", trials=1, n_folds=1)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_tuning
from retailrec.jobs import tune
tune.POOL_SIZES = (50,)
def tell(*step):
    print(*step, flush=True)
tune.tune(test_tuning.DATA, test_tuning.SETTINGS, Path("study"), trials=3, n_folds=1, progress=tell)
"""


@pytest.mark.slow
def test_a_search_goes_on_after_a_kill_with_a_relative_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", KILLED, str(Path(__file__).parent)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("trials 3") for line in process.stdout)
        process.kill()
    monkeypatch.chdir(tmp_path)
    found = tune(DATA, SETTINGS, Path("study"), trials=1, n_folds=1)
    assert found["trials"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["study"]

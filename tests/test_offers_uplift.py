"""Uplift: who buys because of an offer is told from who buys anyway, or that the log is too small."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.compute.statistics import mean_interval
from retailrec.data import RetailData
from retailrec.errors import DataError
from retailrec.jobs.campaigns import allocate_files, uplift_of_files
from retailrec.offers import uplift as up
from retailrec.offers.allocation import allocate
from retailrec.offers.exploration import explore
from retailrec.offers.ledger import Ledger

START = datetime(2024, 3, 1)
POOL, K = 8, 2


def world(n_users: int, seed: int = 0, moved: float = 0.5) -> tuple[pl.DataFrame, RetailData]:
    """Half of the users buy what they are offered with chance `moved`; the others buy it anyway at .4."""
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(n_users), POOL)
    items = np.argsort(rng.random((n_users, 30)), axis=1)[:, :POOL].ravel()
    drawn = explore(rng.random(len(users)), items, K, 0.5, salt=str(seed), users=users)
    moves = users % 2 == 0
    shown = drawn["shown"].to_numpy()
    bought = rng.random(len(users)) < np.where(moves, moved * shown, 0.4)
    after = pl.DataFrame({"user_id": users, "item_id": items, "time": START + timedelta(days=2)})
    after = after.filter(pl.Series(bought))
    before = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(n_users), 6),
            "item_id": rng.integers(0, 30, 6 * n_users),
            "time": [START - timedelta(days=int(d)) for d in rng.integers(1, 60, 6 * n_users)],
        }
    )
    lines = pl.concat([before, after]).with_columns(quantity=1, value=3.0)
    people = pl.DataFrame(
        {
            "user_id": range(n_users),
            "kind": ["moves" if u % 2 == 0 else "stays" for u in range(n_users)],
        }
    )
    data = RetailData.from_frames(lines, users=people, end=START + timedelta(days=20))
    pool = drawn.with_columns(
        pl.col("user_id", "item_id").cast(pl.String),
        request=pl.format("r{}", "user_id"),
        time=pl.lit(START),
        policy=pl.lit("first"),
    )
    return pool, data


@pytest.fixture(scope="module")
def log() -> tuple[pl.DataFrame, RetailData]:
    return world(500)


Log = tuple[pl.DataFrame, RetailData]


@pytest.fixture(scope="module")
def learnt(log: Log) -> up.Uplift:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(up, "_TREES", 50)
        return up.fit_uplift(*log, days=14, threads=1)


def test_who_is_moved_is_told_from_who_buys_anyway(log: Log, learnt: up.Uplift) -> None:
    report = learnt.report
    assert (report.metric, report.n_users, report.n_rows) == ("money", 500, 500 * POOL)
    assert report.effect_low <= 0.5 * 0.5 * 3 <= report.effect_high
    best = {one.name: one for one in report.learners}[report.chosen]
    assert best.qini_low > 0
    assert best.qini == max(one.qini for one in report.learners)
    assert best.auuc == pytest.approx(best.qini + report.effect / 2)
    pairs = pl.DataFrame({"user_id": range(100), "item_id": [u % 30 for u in range(100)]})
    scored = learnt.score(pairs, log[1])
    by = scored.group_by(pl.col("user_id") % 2 == 0).agg(pl.col("uplift_margin").mean())
    means = dict(by.iter_rows())
    assert means[True] == pytest.approx(1.5, abs=0.4)  # half of the times three
    assert abs(means[False]) < 0.6
    settings = {"name": "x", "value": "uplift_margin", "limit": [{"by": "everything", "at_most": 40}]}
    found = allocate(scored, settings)
    assert (found.offers["user_id"] % 2 == 0).mean() > 0.95  # type: ignore[operator]


def test_deciles_fall_and_are_so(learnt: up.Uplift) -> None:
    deciles = learnt.report.deciles
    assert [d.n_rows for d in deciles] == [400] * 10
    predicted = [d.predicted for d in deciles]
    assert predicted == sorted(predicted, reverse=True)
    assert deciles[0].low > 0.5
    assert deciles[-1].low < 0.3
    assert learnt.report.curve[-1] == (1.0, pytest.approx(learnt.report.effect))


def test_the_pseudo_effect_is_right_on_average_whatever_the_model_says() -> None:
    rng = np.random.default_rng(0)
    n = 200_000
    p = rng.choice([0.2, 0.6], n)
    shown = rng.random(n) < p
    y = 1.0 + 2.0 * shown + rng.normal(0, 1, n)
    problem = up._Problem(np.zeros((n, 1), np.float32), y, shown, p, 1, 0)
    for m0, m1 in ((0.0, 0.0), (1.0, 3.0), (5.0, -2.0)):
        effect = up._pseudo_effect(problem, slice(None), np.full(n, m0), np.full(n, m1))
        assert effect.mean() == pytest.approx(2.0, abs=5 * effect.std() / n**0.5)


def test_areas_below_the_curve_are_those_of_the_running_mean() -> None:
    learnt, effect = np.array([3.0, 1.0, 2.0, 0.0]), np.array([4.0, 0.0, 2.0, -2.0])
    found = up._judged("t", learnt, effect, np.arange(4))
    # in order: 4, 2, 0, -2; each counts from its own middle on: (3.5 * 4 + 2.5 * 2 - .5 * 2) / 16
    assert found.auuc == pytest.approx((3.5 * 4 + 2.5 * 2 - 0.5 * 2) / 16)
    assert found.qini == pytest.approx(found.auuc - 0.5)
    assert up._judged("t", -learnt, effect, np.arange(4)).qini == pytest.approx(-found.qini)


@pytest.mark.slow
def test_intervals_of_tenths_hold_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an effect, 120 logs of 500 users: those of 95% hold it in nine of ten outermost tenths."""
    monkeypatch.setattr(up, "_TREES", 50)
    user, held = np.repeat(np.arange(500), POOL), []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        x = np.column_stack([rng.normal(size=(500, 3))[user], rng.integers(0, 30, len(user))])
        place = np.argsort(np.argsort(rng.random((500, POOL)), axis=1), axis=1).ravel()
        price = np.exp(rng.normal(0, 1, 30))[x[:, 3].astype(int)]
        bought = price * (rng.random(len(user)) < np.where(x[:, 0] > 0, 0.0, 0.3))
        p = np.full(len(user), K / POOL)
        problem = up._Problem(x.astype(np.float32), bought, place < K, p, 1, seed)
        learnt, effect = up._crossed(problem, user)
        best = max(learnt, key=lambda one: up._judged(one, learnt[one], effect, user).qini)
        tenths = up._deciles(learnt[best], effect, user)
        narrow = 1.96 / 2.807  # of the two levels
        for tenth in (tenths[0], tenths[-1]):
            half = (tenth.high - tenth.low) / 2
            held.append([abs(tenth.effect) < half, abs(tenth.effect) < half * narrow])
    wide, usual = np.mean(held, axis=0)
    print(f"outermost tenths: {wide:.1%} of the intervals hold the truth, {usual:.1%} of those of 95%")
    assert wide > 0.96 > usual


def test_the_best_of_three_learners_is_not_told_from_chance_by_the_interval_of_one() -> None:
    """Without an effect the best of three is above 0 by its own interval more often than one of them."""
    effect = np.random.default_rng(0).normal(0.3, 1, 100)
    found = up._judged("t", np.arange(100.0)[::-1], effect, np.arange(100))
    of_user = effect * (0.5 - (np.arange(100) + 0.5) / 100)
    assert (found.qini_low, found.qini_high) == pytest.approx(mean_interval(of_user, 1 - 0.05 / 3)[1:3])
    assert found.qini_low < mean_interval(of_user)[1]
    assert up.users_needed((1.0, 1 - 2.394, 1 + 2.394), 100, 1 - 0.05 / 3) == 1047  # 100 x 3.2356^2


def test_nothing_is_learnt_in_money_from_receipts_without_any() -> None:
    pool, priced = world(60, seed=1, moved=0.1)
    data = replace(priced, log=priced.log.with_columns(value=pl.lit(None, pl.Float64)))
    with pytest.raises(DataError, match="the receipts have no money"):
        up.fit_uplift(pool, data, days=14, threads=1)


def test_a_log_that_is_too_small_says_how_many_users_it_takes() -> None:
    pool, data = world(60, seed=1, moved=0.1)
    with pytest.raises(
        DataError, match=r"the log of 60 users is too small \(Qini .*: some [\d,]+ more users"
    ):
        up.fit_uplift(pool, data, days=14, threads=1)


@pytest.mark.parametrize("users", [1, 2, 4])
def test_a_log_of_a_few_users_is_refused_in_words(log: Log, users: int) -> None:
    pool, data = log
    few = pool.filter(pl.col("user_id").is_in(pool["user_id"].unique().sort()[:users].implode()))
    with pytest.raises(
        DataError, match=f"the log of {users} users is too small: a part of them has no"
    ):
        up.fit_uplift(few, data, days=14, threads=1)


def test_logs_that_teach_nothing_are_refused(log: Log) -> None:
    pool, data = log
    for rows, match in (
        (pool.with_columns(propensity=1.0, shown=True), "left out by chance"),
        (pool.with_columns(propensity=pl.col("propensity") * 0.8), "not shown as often as"),
        (pool.drop("propensity"), "lack column 'propensity'"),
        (pool.with_columns(user_id=pl.format("x{}", "user_id")), "none of the 500 ids"),
        (pool.with_columns(time=pl.lit(START + timedelta(days=4))), "nothing was bought in 14 days"),
    ):
        with pytest.raises(DataError, match=match):
            up.fit_uplift(rows, data, days=14, threads=1)
    with pytest.raises(DataError, match="Wait until it is over"):
        up.fit_uplift(pool, data, days=30, threads=1)


def test_the_command_writes_pairs_for_allocate(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool, data = log
    Ledger(Path("ledger")).append_pool(pool)
    Path("shop").mkdir()
    data.log.select(
        data.users["user_id"].gather(data.log["user"]),
        data.items["item_id"].gather(data.log["item"]),
        "time",
        "quantity",
        "value",
    ).write_csv("shop/transactions.csv")
    data.users.write_csv("shop/users.csv")
    items = [*(u % 30 for u in range(49)), 999]  # which is not sold yet
    pl.DataFrame({"user_id": range(50), "item_id": items}).write_csv("pairs.csv")
    Path("c.toml").write_text('name = "next"\nvalue = "uplift_margin"\n')

    def run(command: str) -> Any:
        return CliRunner().invoke(app, command.split())

    refused = run("uplift fit ledger shop pairs.csv --days 60")
    assert "Wait until it is over" in str(refused.exception)
    assert not Path("out/uplift").exists()
    monkeypatch.setattr(up, "_TREES", 20)
    found = run("uplift fit ledger shop pairs.csv --days 3 --threads 1")
    assert found.exit_code == 0, found.exception
    report = json.loads(Path("out/uplift/uplift.json").read_text())
    assert report["n_users"] == 500
    strange = "1 of 50 pairs are of items that the receipts do not know, such as 999"
    assert strange in " ".join(report["notes"])
    assert "Qini" in found.output
    page = Path("out/uplift/uplift.html").read_text()
    assert page.count("<svg") == 1
    assert " ".join(found.stdout.split()).partition(", between")[0] in page
    allocated = run("allocate out/uplift/pairs.parquet c.toml --out out/next")
    assert allocated.exit_code == 0, allocated.output


def test_uplift_is_learnt_from_a_campaign_with_a_holdout_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No list explored: the ledger of `allocate` knows what was meant for those held out."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(up, "_TREES", 50)
    pool, data = world(1200)
    pairs = pool.select("user_id", "item_id", value=pl.col("score").abs() + 0.1)
    pairs.write_csv("pairs.csv")
    Path("c.toml").write_text(
        'name = "may"\nvalue = "value"\nholdout = 0.4\n[offers]\nat_most = 2\n'
        '[[limit]]\nby = "product"\nat_most = 60\n'
    )
    found = allocate_files(
        Path("pairs.csv"),
        Path("c.toml"),
        Path("out"),
        ledger=Path("ledger"),
        record=True,
        time="2024-03-01",
    )
    meant = Ledger(Path("ledger")).read_pool()
    arms = dict(found.shoppers.cast({"user_id": pl.String}).select("user_id", "arm").iter_rows())
    assert all(
        (arms[user] == "treated") == shown for user, shown in meant["user_id", "shown"].iter_rows()
    )
    assert set(meant["propensity"]) == {0.6}
    assert meant.group_by("user_id").len()["len"].max() == 2
    held_out = meant.filter(pl.col("arm") == "holdout")["user_id"].n_unique()
    assert held_out > 0.9 * sum(arm == "holdout" for arm in arms.values())
    sent = found.offers.select(pl.col("user_id", "item_id").cast(pl.String))
    treated = meant.filter("shown")
    both = treated.join(sent, on=["user_id", "item_id"], how="semi")
    assert both.height > 0.95 * treated.height  # what was meant was sent, but for ties and gaps
    rng = np.random.default_rng(1)
    moves = meant["user_id"].cast(pl.Int64) % 2 == 0
    bought = rng.random(meant.height) < np.where(moves, 0.5 * meant["shown"].to_numpy(), 0.4)
    after = meant.filter(pl.Series(bought)).select(
        "user_id", "item_id", time=START + timedelta(days=2), quantity=1, value=3.0
    )
    past = data.log.filter(pl.col("time") < START)
    before = past.select(
        data.users["user_id"].gather(past["user"]).cast(pl.String),
        data.items["item_id"].gather(past["item"]).cast(pl.String),
        "time",
        pl.col("quantity").cast(pl.Int32),
        pl.col("value").cast(pl.Float64),
    )
    people = data.users.select(pl.col("user_id").cast(pl.String), "kind")
    lines = pl.concat([before, after.cast({"quantity": pl.Int32})])
    receipts = RetailData.from_frames(lines, users=people, end=START + timedelta(days=20))
    learnt = up.fit_uplift(meant, receipts, days=14, threads=1)
    assert learnt.report.effect_low <= 0.5 * 0.5 * 3 <= learnt.report.effect_high
    assert {one.name: one for one in learnt.report.learners}[learnt.report.chosen].qini_low > 0
    scored = learnt.score(pairs.select("user_id", "item_id"), receipts)
    means = dict(
        scored.group_by(pl.col("user_id").cast(pl.Int64) % 2 == 0)
        .agg(pl.col("uplift_margin").mean())
        .iter_rows()
    )
    assert means[True] > means[False] + 0.8
    with pytest.raises(DataError, match="stands in it already"):
        Ledger(Path("ledger")).append_pool(meant.with_columns(score=0.0))


def test_pairs_that_can_not_be_scored_are_said_before_anything_is_learnt(
    log: Log, tmp_path: Path
) -> None:
    pairs = pl.DataFrame({"user_id": [1], "product": [1]})
    for wrong, said in (
        (pairs, "pairs lack column 'item_id'"),
        (pairs.rename({"product": "item_id"}).with_columns(item_id=pl.lit("none such")), "items"),
    ):
        wrong.write_parquet(tmp_path / "pairs.parquet")
        with pytest.raises(DataError, match=said):  # and not that the ledger is empty
            uplift_of_files(
                tmp_path / "ledger", log[1], tmp_path / "pairs.parquet", tmp_path / "out", days=14
            )
    assert not (tmp_path / "out").exists()

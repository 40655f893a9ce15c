"""Arms: one salt gives one user one arm, in batch and over HTTP; what began under 0.2 keeps its own."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

pytest.importorskip("sqlalchemy")

from retailrec.errors import SettingError
from retailrec.offers.allocation import allocate
from retailrec.offers.arms import HOLDOUT, TREATED, arm_of, assign_arms
from retailrec.offers.ledger import Ledger
from retailrec.serving.experiment import Arm, Experiment, read_experiment
from retailrec.serving.store import Store

IDS = pl.Series("user_id", range(2000))
ARMS = {"b": Arm(share=0.5), "a": Arm(share=0.3), "c": Arm(share=0.2)}
PAIRS = pl.DataFrame({"user_id": IDS, "item_id": "tea", "value": 1.0})


def test_the_service_and_a_batch_draw_the_same_arms() -> None:
    experiment = Experiment(salt="may", arms=ARMS)
    shares = {name: arm.share for name, arm in ARMS.items()}
    batch = assign_arms(IDS, shares, salt="may").to_list()
    assert [experiment.assign(str(user)).arm for user in IDS] == batch
    assert [arm_of(user, shares, salt="may") for user in IDS] == batch


@pytest.mark.parametrize(
    ("settings", "experiment"),
    [
        ({"name": "spring"}, Experiment("spring", holdout=0.2)),
        ({"name": "spring", "salt": "x"}, Experiment("online", "x", holdout=0.2)),
        ({"name": "spring", "salt": "x"}, Experiment("online", "x", 0.2, ARMS)),
    ],
)
def test_who_is_held_out_of_a_batch_is_held_out_online(
    settings: dict[str, str], experiment: Experiment
) -> None:
    held = allocate(PAIRS, settings | {"holdout": 0.2}).shoppers.filter(pl.col("arm") == HOLDOUT)
    assert 350 < held.height < 450
    online = [user for user in IDS if experiment.assign(str(user)).holdout]
    assert online == sorted(held["user_id"])


def test_the_order_in_which_shares_are_written_draws_nothing() -> None:
    one, other = ({"a": 0.3, "b": 0.5, HOLDOUT: 0.2}, {HOLDOUT: 0.2, "b": 0.5, "a": 0.3})
    assert assign_arms(IDS, one, salt="s").equals(assign_arms(IDS, other, salt="s"))


def test_numbers_and_their_text_draw_the_same_arm() -> None:
    shares = {TREATED: 0.5, HOLDOUT: 0.5}
    number = assign_arms(IDS, shares, salt="s")
    assert number.equals(assign_arms(IDS.cast(pl.String), shares, salt="s"))
    assert [arm_of(user, shares, salt="s") for user in IDS] == number.to_list()


def test_ids_that_pandas_made_floats_and_ids_with_blanks_draw_the_arm_of_the_id() -> None:
    shares = {"a": 0.5, "b": 0.5}
    arms = assign_arms(list(range(1, 40)), shares, salt="s").to_list()
    floats = pl.Series([*map(float, range(1, 40)), None])
    assert assign_arms(floats, shares, salt="s").to_list()[:-1] == arms
    assert assign_arms([f" {user} " for user in range(1, 40)], shares, salt="s").to_list() == arms
    assert [arm_of(f" {user}", shares, salt="s") for user in range(1, 40)] == arms


def test_propensity_is_the_chance_of_the_arm_in_a_batch_and_online() -> None:
    batch = allocate(PAIRS, {"name": "h", "holdout": 0.2})
    assert batch.offers["propensity"].unique().to_list() == [0.8]
    plain = Experiment(salt="h", holdout=0.2)
    assert {plain.assign(str(user)).propensity for user in batch.offers["user_id"]} == {0.8}
    armed = Experiment(salt="h", holdout=0.2, arms=ARMS)
    chances = {a.arm: a.propensity for a in map(armed.assign, map(str, IDS)) if not a.holdout}
    assert chances == pytest.approx({"a": 0.24, "b": 0.4, "c": 0.16})
    # a couple exchanges with chance 0.5, given that neither is held out
    near = pl.DataFrame(
        {"user_id": [1, 1, 2, 2], "item_id": [1, 2, 1, 2], "value": [3.0, 2.9, 2.9, 3.0]}
    )
    limit = {"limit": [{"by": "product", "at_most": 1}]}
    found = allocate(near, {"name": "x", "holdout": 0.01, "explore": 0.5, "near_tie": 0.2} | limit)
    assert found.offers["propensity"].to_list() == pytest.approx([0.495, 0.495])


def test_who_stands_in_the_ledger_keeps_the_arm_of_the_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    rows = pl.DataFrame({"user_id": IDS, "rank": 0, "holdout": IDS % 2 == 0}).with_columns(
        campaign=pl.lit("h"), time=datetime(2024, 5, 1), arm=pl.lit("")
    )
    ledger.append(rows)
    drawn = allocate(PAIRS, {"name": "h", "holdout": 0.2}).shoppers
    settings = {"name": "h", "holdout": 0.2, "again": True}
    more = pl.concat([PAIRS, PAIRS.with_columns(pl.col("user_id") + 5000)])
    kept = allocate(more, settings, ledger=ledger).shoppers
    expected = [HOLDOUT if user % 2 == 0 else TREATED for user in IDS]
    assert kept.filter(pl.col("user_id") < 2000)["arm"].to_list() == expected
    assert drawn["arm"].to_list() != expected
    assert 300 < (kept.filter(pl.col("user_id") >= 5000)["arm"] == HOLDOUT).sum() < 500


def test_an_experiment_of_version_0_2_keeps_its_arms() -> None:
    # as version 0.2 drew them
    arms = {"a": Arm(share=0.5), "b": Arm(share=0.5)}
    old = Experiment(salt="may", arms=arms, formula=1)
    users = "123456"
    assert [old.assign(user).arm for user in users] == ["a", "a", "a", "b", "a", "a"]
    held = Experiment(salt="may", holdout=0.5, arms=arms, formula=1)
    assert [held.assign(user).holdout for user in users] == [True, False, True, True, False, True]


def test_a_campaign_that_a_store_of_version_0_2_logged_keeps_its_formula(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "store.db")).init()
    row = {
        "user_id": "1",
        "item_id": None,
        "time": 1,
        "model": "m",
        "rank": 0,
        "shadow": False,
        "request": "r",
    }
    rows = [
        row | {"campaign": "running", "arm": "a", "holdout": False},
        row | {"campaign": "held", "arm": "", "holdout": True},
        row | {"campaign": "plain", "arm": "", "holdout": False},
        row | {"campaign": "shadowed", "arm": "m", "holdout": False, "shadow": True},
    ]
    store.log_exposures(rows)
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE experiments")
        connection.exec_driver_sql("DELETE FROM schema_version WHERE version > 1")
    store.init()
    found = {
        campaign: Experiment(campaign, holdout=0.1).settled(store).formula
        for campaign in ("running", "held", "plain", "shadowed", "new")
    }
    assert found == {"running": 1, "held": 1, "plain": 2, "shadowed": 2, "new": 2}
    assert Experiment("running", holdout=0.1, formula=2).settled(store).formula == 2
    store.close()


def test_an_experiment_that_could_not_be_logged_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "e.toml"
    arm = '[arms."{}"]\nshare = 1.0\n'
    for text, said in (
        ('campaign = "a\\u0000b"\nsalt = "s"', "printable"),
        ('campaign = ""\nsalt = "s"', "campaign"),
        ('salt = "s"\n' + arm.format("a\\nb"), "arms"),
        ('salt = "s"\n' + arm.format("holdout"), "no arm may be called 'holdout'"),
        ('salt = "s"\nformula = 3', "formula"),
        ('salt = "s"\n' + arm.format("a") + "explore = 1.0", "explore must be at least 0 and below 1"),
        ('salt = "s"\nshadow = ["m", "m"]', "shadow names a model twice"),
    ):
        file.write_text(text)
        with pytest.raises(SettingError, match=said):
            read_experiment(file)

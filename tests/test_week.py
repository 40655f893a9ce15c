"""The weekly job: published once, whole, refused when receipts are broken, taken back, finished."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import polars as pl
import pytest

from cli_support import refused, retailrec
from retailrec.data import RetailData
from retailrec.errors import DataError
from retailrec.jobs import published, week
from retailrec.jobs.check import ListBounds, check_lists
from retailrec.jobs.published import WeekFolder, diff_weeks
from retailrec.jobs.watch import Judged, change_of, watched
from retailrec.jobs.week import decide, publish_week
from retailrec.jobs.week_settings import read_week
from retailrec.recommender.request import Request
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.work import Work
from week_support import (
    CONFIG,
    FIRST,
    LAST,
    call,
    current,
    deliver,
    manifest,
    published_shop,
    tree,
    weekly_lines,
)


@pytest.fixture(scope="module")
def lines() -> pl.DataFrame:
    return weekly_lines()


@pytest.fixture(scope="module")
def shop(lines: pl.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return published_shop(tmp_path_factory.mktemp("week"), lines)


@pytest.fixture
def place(shop: Path, tmp_path: Path) -> Path:
    """A copy of the shop with its first week, to be changed."""
    return Path(shutil.copytree(shop, tmp_path / "shop", symlinks=True))


def what_counts(place: Path) -> dict[str, Any]:
    """All that is published but for the clock: every week's manifest and lists."""
    found: dict[str, Any] = {"current": current(place)}
    for name in WeekFolder(place / "weeks").names():
        facts = manifest(place, name)
        facts["model"].pop("key")  # the model's own report has seconds
        for gone in ("run", "files"):
            facts.pop(gone)
        lists = pl.read_parquet(place / "weeks" / name / "recommendations.parquet")
        found[name] = facts, lists.rows()
    return found


def test_a_first_week_has_a_model_lists_and_a_manifest_of_its_inputs(shop: Path) -> None:
    facts = manifest(shop)
    assert facts["model"]["refitted"]
    assert facts["model"]["reason"] == "no model is in place"
    assert list(facts["inputs"]) == ["receipts/first.csv"]
    assert current(shop).startswith("2000-04-08-")  # midnight after fourteen weeks
    lists = pl.read_parquet(shop / "weeks" / "current" / "recommendations.parquet")
    assert lists["user_id"].n_unique() == facts["lists"]["users"]
    TwoStageRecommender.load(shop / "weeks" / "current" / "model")
    assert not (shop / "weeks" / ".work").exists()


def test_the_same_inputs_change_nothing(place: Path) -> None:
    before = tree(place)
    run = call(place)
    assert run.returncode == 3
    assert "nothing new" in run.stdout
    after = tree(place)
    assert after == before


def test_a_new_export_is_recommended_from_by_the_model_in_place(
    place: Path, lines: pl.DataFrame
) -> None:
    first = current(place)
    deliver(place, lines, FIRST)
    run = call(place)
    assert run.returncode == 0, run.stderr
    assert "no fit" in run.stdout
    facts = manifest(place)
    assert facts["previous"] == first
    assert facts["number"] == 2
    assert facts["model"]["key"] == manifest(place, first)["model"]["key"]
    assert facts["data"]["lines"] == lines.filter(pl.col("week") <= FIRST).height
    models = [place / "weeks" / name / "model" / "manifest.json" for name in (first, "current")]
    assert models[0].samefile(models[1])  # no second copy


def test_last_weeks_lists_are_judged_by_what_was_bought_since(place: Path, lines: pl.DataFrame) -> None:
    lists = pl.read_parquet(place / "weeks" / "current" / "recommendations.parquet")
    deliver(place, lines, FIRST)
    call(place)
    known = set(lines.filter(pl.col("week") < FIRST)["user_id"])
    bought = lines.filter((pl.col("week") == FIRST) & pl.col("user_id").is_in(known))
    hits = lists.join(bought.select("user_id", "item_id").unique(), on=["user_id", "item_id"])
    judged = manifest(place)["judged"]
    users = bought["user_id"].n_unique()
    assert judged["users"] == users
    assert judged["models"]["lists"]["precision@5"] == pytest.approx(hits.height / 5 / users)
    rows = {(r["segment"], r["group"], r["metric"]): r for r in judged["by_segment"]}
    assert rows["all", "all", "precision@5"]["n_users"] == users
    assert {"receipts", "tenure"} <= {r["segment"] for r in judged["by_segment"]}


def test_half_an_export_is_refused_and_the_whole_one_published(
    place: Path, lines: pl.DataFrame
) -> None:
    first = current(place)
    half = lines.filter((pl.col("week") == FIRST) & (pl.col("time").dt.weekday() > 3)).drop("week")
    half.write_csv(place / "exports" / f"week-{FIRST}.csv")
    run = call(place)
    assert run.returncode == 4, run.stdout
    assert "missing_days" in run.stdout
    assert "nothing is published" in run.stdout
    assert current(place) == first
    assert WeekFolder(place / "weeks").names() == [first]
    assert call(place).returncode == 4  # and again, as long as nobody mends it
    status = retailrec("week", "status", "--config", place / "week.toml")
    assert status.returncode == 0
    assert "missing_days" in status.stdout
    deliver(place, lines, FIRST)
    assert call(place).returncode == 0
    assert current(place) != first
    assert "missing_days" not in retailrec("week", "status", "--config", place / "week.toml").stdout


def test_a_refusal_that_is_accepted_is_published_and_noted(place: Path, lines: pl.DataFrame) -> None:
    closed = lines.filter((pl.col("week") == FIRST) & (pl.col("time").dt.weekday() != 3)).drop("week")
    closed.write_csv(place / "exports" / f"week-{FIRST}.csv")
    assert call(place).returncode == 4
    assert call(place, "--accept", "missing_days").returncode == 0
    checks = manifest(place)["checks"]
    assert checks["accepted"] == ["missing_days"]
    assert [f["name"] for f in checks["findings"] if f["severity"] == "refuse"] == ["missing_days"]
    refused(call(place, "--accept", "missing_dais"), "--accept", "missing_dais", "missing_days")


@pytest.mark.parametrize(
    ("text", "check"),
    [("", "empty_files"), ("user_id,item_id,time,basket_id,quantity,value\n", "no_lines")],
)
def test_an_export_without_lines_is_refused(place: Path, text: str, check: str) -> None:
    (place / "exports" / "next.csv").write_text(text)
    run = call(place)
    assert run.returncode == 4, run.stdout + run.stderr
    assert check in run.stdout


def test_exports_that_end_before_the_published_week_are_refused(
    place: Path, lines: pl.DataFrame
) -> None:
    short = lines.filter(pl.col("week") < FIRST - 1).drop("week")
    short.write_csv(place / "exports" / "first.csv")
    run = call(place)
    assert run.returncode == 4
    assert "older_than_published" in run.stdout


def test_a_week_that_ends_sooner_than_all_before_is_refused(place: Path, lines: pl.DataFrame) -> None:
    for n in (FIRST, FIRST + 1):
        deliver(place, lines, n)
        assert call(place).returncode == 0
    new = lines.filter(pl.col("week") == FIRST + 2).drop("week")
    new.filter(pl.col("time") < datetime(2000, 4, 27)).write_csv(place / "exports" / "next.csv")
    run = call(place)
    assert run.returncode == 4, run.stdout
    assert "short_period" in run.stdout
    assert "end 5 days after" in run.stdout
    config = (place / "week.toml").read_text()
    (place / "week.toml").write_text(f"closed = [2000-04-27, 2000-04-28]\n{config}")
    assert call(place, "--dry-run").returncode == 0
    (place / "week.toml").write_text(config)
    new.write_csv(place / "exports" / "next.csv")
    assert call(place).returncode == 0
    before = current(place)
    new[:-1].write_csv(place / "exports" / "next.csv")  # the same days, corrected
    assert call(place).returncode == 0
    assert manifest(place)["previous"] == before
    assert manifest(place)["end"] == manifest(place, before)["end"]


def test_lines_dated_far_ahead_do_not_move_the_end(place: Path, lines: pl.DataFrame) -> None:
    new = lines.filter(pl.col("week") == FIRST).drop("week")
    far = new.head(60).with_columns(pl.col("time") + timedelta(days=150), basket_id=10**6)
    pl.concat([new[60:], far]).write_csv(place / "exports" / "next.csv")
    assert call(place).returncode == 4
    run = call(place, "--accept", "far_dates")
    assert run.returncode == 0, run.stdout + run.stderr
    assert manifest(place)["end"] == "2000-04-15T00:00:00"
    assert "60 lines are dated after 2000-04-15" in run.stdout + run.stderr


def test_lists_out_of_bounds_are_refused_and_made_once(place: Path, lines: pl.DataFrame) -> None:
    first = current(place)
    deliver(place, lines, FIRST)
    with (place / "week.toml").open("a") as file:
        file.write("[lists]\nchange_at_most = 0.0\n")
    run = call(place)
    assert run.returncode == 4
    assert "lists_changed" in run.stdout
    assert current(place) == first
    (place / "week.toml").write_text(CONFIG)
    with patch.object(week, "recommend_to_file", side_effect=AssertionError("made again")):
        assert call(place).returncode == 0  # bounds decide nothing about the lists, so these are taken


def test_a_rollback_holds_until_something_is_new(place: Path, lines: pl.DataFrame) -> None:
    first = current(place)
    deliver(place, lines, FIRST)
    call(place)
    second = current(place)
    back = retailrec("week", "rollback", "--config", place / "week.toml")
    assert back.returncode == 0
    assert current(place) == first
    weeks = WeekFolder(place / "weeks")
    assert weeks.judgements() == {}  # what was taken back says nothing of what is published
    run = call(place)
    assert run.returncode == 3
    assert "taken back" in run.stdout
    assert current(place) == first
    export = place / "exports" / f"week-{FIRST}.csv"
    export.rename(export.with_name("done.csv"))  # called otherwise it is the same export
    run = call(place)
    assert run.returncode == 3, run.stdout
    assert "taken back" in run.stdout
    shutil.copy(place / "exports" / "done.csv", export)  # and there twice, too
    assert call(place).returncode == 3
    (place / "exports" / "done.csv").unlink()
    refused(retailrec("week", "rollback", "--config", place / "week.toml"), "no week before")
    deliver(place, lines, FIRST + 1)
    assert call(place).returncode == 0
    assert manifest(place)["previous"] == first
    assert weeks.judgements() == {first: manifest(place)["judged"]}
    to = retailrec("week", "rollback", "--config", place / "week.toml", "--to", second)
    assert to.returncode == 0
    assert current(place) == second
    worth = manifest(place)["judged"]
    assert weeks.judgements() == {first: worth}
    shown = retailrec("week", "status", "--config", place / "week.toml").stdout
    assert f"precision@5 {worth['models']['lists']['precision@5']:.4f}" in shown
    refused(retailrec("week", "rollback", "--config", place / "week.toml", "--to", "../.."), "no week")
    assert not weeks.unfinished  # nothing is left of what was refused


def test_a_rollback_over_several_weeks_takes_back_all_between(place: Path, lines: pl.DataFrame) -> None:
    weeks, names = WeekFolder(place / "weeks"), [current(place)]
    for n in (FIRST, FIRST + 1):
        last_export = deliver(place, lines, n)
        assert call(place).returncode == 0
        names.append(current(place))
    published.rollback(weeks.folder, names[0])
    assert weeks.withdrawn == names[1:]
    last_export.unlink()  # the inputs are those of the second week, which was taken back with the third
    run = call(place)
    assert run.returncode == 3, run.stdout
    assert "taken back" in run.stdout
    assert current(place) == names[0]
    published.rollback(weeks.folder, names[2])
    assert weeks.withdrawn == []  # the third week builds on the second
    shutil.rmtree(weeks.folder / names[1])
    with pytest.raises(DataError, match=f"before {names[2]}, {names[1]}, is kept no longer"):
        published.rollback(weeks.folder)
    assert weeks.withdrawn == []
    assert not weeks.unfinished


def test_a_week_whose_folder_was_removed_is_left_for_another(place: Path, lines: pl.DataFrame) -> None:
    first = current(place)
    deliver(place, lines, FIRST)
    call(place)
    shutil.rmtree(place / "weeks" / current(place))
    refused(call(place), "current", "rollback --to")
    words = ("week", "rollback", "--config", place / "week.toml")
    refused(retailrec(*words), "rollback --to")
    assert retailrec(*words, "--to", first).returncode == 0
    assert call(place).returncode == 0
    assert manifest(place)["previous"] == first


def test_n_weeks_are_kept_and_the_one_to_go_back_to(place: Path, lines: pl.DataFrame) -> None:
    for n in range(FIRST, LAST):
        deliver(place, lines, n)
        assert call(place).returncode == 0
    names = WeekFolder(place / "weeks").names()
    assert len(names) == 3
    assert names[-1] == current(place)
    assert [manifest(place, name)["number"] for name in names] == [3, 4, 5]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(place: Path, lines: pl.DataFrame) -> None:
    deliver(place, lines, FIRST)
    before = tree(place)
    run = call(place, "--dry-run")
    assert run.returncode == 0
    assert "would be published" in run.stdout
    assert "no fit" in run.stdout
    assert tree(place) == before
    call(place)
    assert current(place) in run.stdout


def test_as_of_looks_at_receipts_before_it_alone(place: Path, lines: pl.DataFrame) -> None:
    for n in (FIRST, FIRST + 1):
        deliver(place, lines, n)
    assert call(place, "--as-of", "2000-04-15").returncode == 0
    facts = manifest(place)
    assert facts["end"] == "2000-04-15T00:00:00"
    assert facts["data"]["lines"] == lines.filter(pl.col("week") <= FIRST).height


def test_refit_can_be_asked_for(place: Path, lines: pl.DataFrame) -> None:
    deliver(place, lines, FIRST)
    assert call(place, "--refit").returncode == 0
    facts = manifest(place)
    assert facts["model"]["refitted"]
    assert facts["model"]["fitted_until"] == facts["end"]
    change = facts["change"]
    assert change["from_receipts"] + change["from_refit"] == pytest.approx(change["share"])
    assert change["from_refit"] > 0
    published = current(place)
    assert call(place).returncode == 3  # not once more without a fit
    assert current(place) == published


def test_receipts_that_change_while_they_are_read_are_not_published(
    place: Path, lines: pl.DataFrame
) -> None:
    first, file = current(place), deliver(place, lines, FIRST)
    load = week.typed_lines

    def still_coming(tables: Any) -> pl.DataFrame:
        found = load(tables)
        file.write_text(file.read_text() + "1,1,2000-04-14 21:00:00,999999,1.0,1.0\n")
        return found

    with patch.object(week, "typed_lines", still_coming):
        refused(call(place), "changed while they were read")
    assert current(place) == first
    assert call(place).returncode == 0


def test_a_list_of_new_items_is_learnt_where_it_is_asked_for(place: Path, lines: pl.DataFrame) -> None:
    deliver(place, lines, FIRST)
    slots = CONFIG.replace("k = 5", 'slots = "replenish=3,discover=2"')
    (place / "week.toml").write_text(slots)
    run = call(place)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "the settings of the model have changed" in run.stdout
    lists = pl.read_parquet(place / "weeks" / "current" / "recommendations.parquet")
    assert set(lists["purpose"]) == {"replenish", "discover"}


def test_a_purpose_that_last_weeks_model_did_not_learn_is_measured_by_its_usual_lists(
    place: Path, lines: pl.DataFrame
) -> None:
    (place / "week.toml").write_text(CONFIG.replace("k = 5", 'k = 5\npurpose = "discover"'))
    deliver(place, lines, FIRST)
    assert call(place, "--accept", "coverage_fell,lists_changed").returncode == 0
    row = watched(WeekFolder(place / "weeks"))["weeks"][-1]
    assert row["values"]["new"] == 1
    assert row["values"]["pool_recall"] > 0


def test_receipts_of_a_store_are_taken_in_once(place: Path, lines: pl.DataFrame) -> None:
    pytest.importorskip("sqlalchemy")
    config = CONFIG.replace('receipts = "exports"', 'store = "shop.db"').replace('"weeks"', '"other"')
    (place / "store.toml").write_text(config)
    words = ("week", "--config", place / "store.toml")
    store = ("--store", place / "shop.db")
    refused(retailrec(*words), "shop.db")
    assert retailrec("store", "init", *store).returncode == 0
    refused(retailrec(*words), "no receipt yet")
    load = ("store", "load", "table", place / "exports", *store)
    assert retailrec(*load).returncode == 0
    assert retailrec(*words).returncode == 0
    assert retailrec(*words).returncode == 3
    deliver(place, lines, FIRST)
    assert retailrec(*load).returncode == 0
    run = retailrec(*words)
    assert run.returncode == 0, run.stderr
    week_of = lines.filter(pl.col("week") == FIRST)
    assert f"{week_of.height:,} lines of 2000-04-08 to 2000-04-14" in run.stdout
    files = call(place)
    assert files.returncode == 0
    mine, theirs = (
        pl.read_parquet(place / name / "current" / "recommendations.parquet").select(
            "user_id", "item_id"
        )
        for name in ("weeks", "other")
    )
    assert mine.equals(theirs)


def test_who_was_forgotten_gets_no_list_from_tables_beside_the_store(
    place: Path, lines: pl.DataFrame
) -> None:
    pytest.importorskip("sqlalchemy")
    store = ("--store", place / "shop.db")
    assert retailrec("store", "load", "table", place / "exports", *store).returncode == 0
    assert retailrec("store", "forget", "2", *store).returncode == 0
    wanted = pl.DataFrame(
        {"user_id": ["1", "2", "2.0", "3", "4"], "item_id": ["1", "2", "3", "4", "5"]}
    )
    wanted.write_csv(place / "wanted.csv")
    wanted.select("user_id").write_csv(place / "users.csv")
    (place / "changed.csv").write_text("kind,old,new\nuser,3,2\n")
    config = CONFIG.replace('receipts = "exports"', 'store = "shop.db"')
    for name, more in (("a", ""), ("b", 'changed_ids = "changed.csv"\n')):
        (place / f"{name}.toml").write_text(
            f'users = "users.csv"\n{more}'
            + config.replace('"weeks"', f'"{name}"').replace("k = 5", 'k = 1\namong = "wanted.csv"')
        )
        run = retailrec("week", "--config", place / f"{name}.toml", "--accept", "short_lists")
        assert run.returncode == 0, run.stderr
        listed = pl.read_parquet(place / name / "current" / "recommendations.parquet")["user_id"]
        assert listed.cast(pl.String).to_list() == (["1", "3", "4"] if name == "a" else ["1", "4"])


def test_a_campaign_gets_its_offers_from_the_lists(place: Path, lines: pl.DataFrame) -> None:
    (place / "campaign.toml").write_text(
        'name = "weekly"\nvalue = "score"\n[offers]\nat_most = 2\n'
        '[[limit]]\nby = "product"\nat_most = 5\n[[cap]]\ndays = 28\nat_most = 2\n'
    )
    (place / "ledger").mkdir()
    (place / "week.toml").write_text(CONFIG + '[campaign]\nfile = "campaign.toml"\nledger = "ledger"\n')
    deliver(place, lines, FIRST)
    run = call(place, "--quiet")
    assert run.returncode == 0
    assert "holds no offers yet" in " ".join(run.stderr.split())  # what caps can't count is said
    offers = pl.read_parquet(place / "weeks" / "current" / "campaign" / "offers.parquet")
    listed = pl.read_parquet(place / "weeks" / "current" / "recommendations.parquet")
    assert offers.join(listed, on=["user_id", "item_id"], how="anti").is_empty()
    assert max(offers.group_by("item_id").len()["len"]) == 5
    assert call(place).returncode == 3


def test_a_service_answers_with_the_published_model_and_goes_back_with_it(
    place: Path, lines: pl.DataFrame
) -> None:
    pytest.importorskip("sqlalchemy")
    from retailrec.serving.engine import Engine, OfferRequest
    from retailrec.serving.models import Follower, Models
    from retailrec.serving.service import WeekFigures
    from retailrec.serving.store import open_store

    first = current(place)
    store = ("--store", place / "shop.db")
    deliver(place, lines, FIRST)
    assert retailrec("store", "load", "table", place / "exports", *store).returncode == 0
    with closing(open_store(str(place / "shop.db"))) as opened:
        engine = Engine(opened)
        for folder in ("weeks", "weeks/current", "weeks/current/model"):
            assert list(Models(place / folder, opened, engine).folders()) == [first]
        models = Models(place / "weeks", opened, engine)
        models.start()
        assert models.active.name == first
        assert not models.follow()
        assert call(place, "--refit").returncode == 0
        assert models.behind
        assert models.follow()
        assert models.active.name == current(place)
        assert models.active.digest == manifest(place)["model"]["key"]
        assert [one["active"] for one in models.listed()] == [True]
        value, alarm = WeekFigures(models).collect()
        seen = watched(WeekFolder(place / "weeks"))["weeks"][-1]["values"]
        assert {s.labels["measure"]: s.value for s in value.samples} == {
            name: figure for name, figure in seen.items() if figure is not None
        }
        assert not any(sample.value for sample in alarm.samples)
        lists = pl.read_parquet(place / "weeks" / "current" / "recommendations.parquet")
        for user in lists["user_id"].unique().sort().head(5):
            listed = lists.filter(user_id=user).sort("rank")["item_id"].to_list()
            reply = engine.offers(models.active, str(user), OfferRequest.of(k=5))
            assert [offer.item for offer in reply.offers] == listed
        follower = Follower(models, every=0.01)
        assert retailrec("week", "rollback", "--config", place / "week.toml").returncode == 0
        until = time.monotonic() + 20
        while models.behind and time.monotonic() < until:
            time.sleep(0.01)
        follower.stop()
        assert models.active.name == first
        assert models.active.digest == manifest(place, first)["model"]["key"]


def test_a_service_on_a_plain_folder_follows_nothing(place: Path) -> None:
    pytest.importorskip("sqlalchemy")
    from retailrec.serving.models import Models

    plain = place / "weeks" / current(place) / "model"
    models = Models(plain, None, None)  # type: ignore[arg-type]
    assert not models.follows
    assert models.folders() == {"model": plain}


def test_a_diff_says_what_changed_and_what_lists_lost_by_it(place: Path, lines: pl.DataFrame) -> None:
    first = current(place)
    words = ("--config", place / "week.toml")
    refused(retailrec("week", "diff", *words), "no two weeks")
    deliver(place, lines, FIRST)
    call(place)
    second = current(place)
    (place / "week.toml").write_text(CONFIG.replace("iterations = 5", "iterations = 6"))
    deliver(place, lines, FIRST + 1)
    call(place)
    found = diff_weeks(WeekFolder(place / "weeks"), first, second)
    assert found["inputs"] == {"added": [f"receipts/week-{FIRST}.csv"], "removed": [], "changed": []}
    assert found["settings"] == {}
    n = [lines.filter(pl.col("week") < last).height for last in (FIRST, FIRST + 1)]
    assert found["data"]["lines"] == n
    files = [place / "weeks" / name / "recommendations.parquet" for name in (first, second)]
    a, b = (set(pl.read_parquet(file).select("user_id", "item_id").rows()) for file in files)
    common = {user for user, _ in a}
    kept = {pair for pair in b if pair[0] in common}
    assert found["lists"]["share"] == pytest.approx(len(kept - a) / len(kept))
    assert found["lists"]["from_receipts"] == pytest.approx(found["lists"]["share"])
    later = [manifest(place, name)["judged"]["models"]["lists"] for name in (second, "current")]
    judged = [means["precision@5"] for means in later]
    everybody = next(row for row in found["figures"] if row["segment"] == "all")
    assert [everybody["a"], everybody["b"]] == judged
    last = diff_weeks(WeekFolder(place / "weeks"), second, current(place))
    assert last["settings"] == {"model.ranker.iterations": [5, 6]}
    assert last["figures"] == []
    run = retailrec("week", "diff", *words, "--user", "5", "--out", place / "diff.json")
    assert run.returncode == 0, run.stderr
    assert "settings.model.ranker.iterations: 5 -> 6" in run.stdout
    assert json.loads((place / "diff.json").read_text()) == last
    shown = retailrec("week", "diff", first, second, *words)
    assert "over 26 weeks" in shown.stdout or "5 to 26 weeks" in shown.stdout
    refused(retailrec("week", "diff", *words, "--user", "nobody"), "neither", "nobody")


def test_what_is_watched_agrees_with_other_means(
    place: Path, lines: pl.DataFrame, tmp_path: Path
) -> None:
    """Precision is that of the judge, and the pool is what a list without end would hold."""
    first = current(place)
    deliver(place, lines, FIRST)
    assert call(place).returncode == 0
    page = tmp_path / "watch.html"
    shown = retailrec("watch", "--config", place / "week.toml", "--json", "--page", page, "--fail")
    assert shown.returncode == 4  # the receipts are years old
    said = retailrec("watch", "--config", place / "week.toml")
    assert (said.returncode, "alarm the published lists" in said.stdout) == (0, True)
    found = json.loads(shown.stdout)
    assert [alarm["measure"] for alarm in found["alarms"]] == ["data_days"]
    assert [week["name"] for week in found["weeks"]] == [first, current(place)]
    values, facts = found["weeks"][1]["values"], manifest(place)
    assert values["precision"] == pytest.approx(facts["judged"]["models"]["lists"]["precision@5"])
    assert values["new"] == pytest.approx(facts["lists"]["new"], abs=1e-6)
    assert found["ages"]["model_days"] == 7
    folder, end = WeekFolder(place / "weeks"), datetime.fromisoformat(found["end"] + "+02:00")
    for ahead, alarms in ((7, []), (8, ["clock"])):
        behind = watched(folder, end - timedelta(days=ahead))["alarms"]
        assert [word for alarm in behind for word in ("clock",) if word in alarm["look"]] == alarms
    assert page.read_text().count("<figure>") >= 8

    data = RetailData.from_frames(lines.filter(pl.col("week") <= FIRST).drop("week"))
    past = data.asof(datetime.fromisoformat(manifest(place, first)["end"]))
    model = TwoStageRecommender.load(place / "weeks" / first / "model")
    pool = model.recommend(past, past.users["user_id"], k=300).select("user_id", "item_id")
    week_of = lines.filter(pl.col("week") == FIRST).select("user_id", "item_id").unique()
    known = past.users["user_id"].gather(past.active_users())
    bought = week_of.filter(pl.col("user_id").is_in(known.implode()))
    held = bought.join(pool, on=["user_id", "item_id"], how="semi").height / bought.height
    assert values["pool_recall"] == pytest.approx(held, abs=1e-6)
    came, back = (f["user_id"].n_unique() for f in (week_of, bought))
    assert values["new_users"] == pytest.approx(1 - back / came, abs=1e-6)
    assert values["prices"] == pytest.approx(1, abs=0.05)
    assert found["drift"]


def test_a_damaged_history_is_said(place: Path) -> None:
    (place / "weeks" / "current" / "watch.json").write_text('{"weeks": [{}]}')
    refused(retailrec("watch", "--config", place / "week.toml"), "has no rows of weeks")


def test_a_model_card_says_what_the_manifest_says(place: Path, lines: pl.DataFrame) -> None:
    card = (place / "weeks" / "current" / "model-card.md").read_text()
    assert "None yet: no lists were published before these." in card
    assert f"| lines that count | {lines.filter(pl.col('week') < FIRST).height:,} |" in card
    deliver(place, lines, FIRST)
    call(place)
    card, facts = (place / "weeks" / "current" / "model-card.md").read_text(), manifest(place)
    judged = facts["judged"]
    assert (
        f"by what {judged['users']:,} users with history bought from 2000-04-08 to 2000-04-15." in card
    )
    shown = [f"{means['precision@5']:.4f}" for means in judged["models"].values()]
    assert f"| precision@5 | {' | '.join(shown)} |" in card
    for row in judged["by_segment"]:
        if row["metric"] == "precision@5":
            line = f"| {row['segment']} | {row['group']} | {row['mean']:.4f} | {row['n_users']:,} |"
            assert line in card
    assert "and in place since: the model is 7 of 28 days old" in card
    assert "model-card.md" in facts["files"]


# --- rules of refitting, by hand ---------------------------------------------------------------------


def tiny(new_items: int = 0) -> RetailData:
    """Two items until 2024-01-15, then one line a day, `new_items` of them of items never seen."""
    rows = [(u, i, f"2024-01-{d:02}") for u in (1, 2) for i in (1, 2) for d in (1, 8, 14)]
    rows += [(1, 100 + d if d < new_items else 1, f"2024-01-{15 + d}") for d in range(10)]
    return RetailData.from_frames(
        pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")
    )


def decided(place: Path, more: str = "", *, judged: float | None = None, new_items: int = 0) -> Any:
    (place / "week.toml").write_text(CONFIG + more)
    plan = read_week(place / "week.toml")
    start = "2024-01-15T00:00:00"
    last = {
        "name": "2024-01-15-00000000",
        "end": start,
        "settings": plan.what_counts(),
        "model": {"fitted_until": start, "first_ratio": 1.25},
    }
    found = None if judged is None else Judged(start, "2024-01-25", 2, {}, [], judged)
    return decide(plan, tiny(new_items), last, found)


def test_a_model_is_fitted_anew_when_it_is_old_or_the_catalogue_or_its_worth_changed(
    tmp_path: Path,
) -> None:
    (tmp_path / "exports").mkdir()
    assert not decided(tmp_path).refit  # ten days old, nothing new
    assert not decided(tmp_path, "[refit]\nage_days = 10.5\n").refit
    aged = decided(tmp_path, "[refit]\nage_days = 10\n")
    assert aged.refit
    assert "10 days old" in aged.reason
    assert not decided(tmp_path, "[refit]\nnew_items = 0.2\n", new_items=2).refit
    renewed = decided(tmp_path, "[refit]\nnew_items = 0.19\n", new_items=2)
    assert renewed.refit
    assert "20.0% of the new lines" in renewed.reason
    assert not decided(tmp_path, judged=1.01).refit  # 1.00 is 20% below 1.25
    worse = decided(tmp_path, judged=0.99)
    assert worse.refit
    assert "quality_drop" in worse.reason


def test_change_is_parted_into_receipts_and_refitting() -> None:
    def lists(*pairs: tuple[int, int]) -> pl.DataFrame:
        return pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")

    before = lists((1, 10), (1, 11), (2, 10), (2, 11))
    after = lists((1, 10), (1, 12), (2, 13), (2, 14), (3, 10), (3, 11))

    def old_model(data: object, users: pl.Series, request: object) -> pl.DataFrame:
        return lists((1, 10), (1, 12), (2, 10), (2, 13)).filter(pl.col("user_id").is_in(users))

    data = RetailData.from_frames(before.with_columns(time=pl.lit("2024-01-01")))
    found = change_of(before, after, old_model, data, Request(k=2))
    # of four items of users 1 and 2, three are new; the old model lists 12 and 13 too, not 14
    assert found == {"users": 2, "share": 0.75, "from_receipts": 0.5, "from_refit": 0.25}
    assert change_of(before, after, None, data, Request(k=2))["from_refit"] == 0


def test_each_bound_of_lists_refuses() -> None:
    lists = {"users": 79, "items": 49, "short": 0.2, "new": 0.95}
    last = {"users": 100, "items": 100}
    found = check_lists(lists, last, {"share": 0.95}, ListBounds(new_at_most=0.9))
    assert [f.name for f in found] == [
        "fewer_users",
        "coverage_fell",
        "short_lists",
        "share_of_new",
        "lists_changed",
    ]
    fine = {"users": 80, "items": 50, "short": 0.1, "new": 0.9}
    assert check_lists(fine, last, {"share": 0.9}, ListBounds(new_at_most=0.9)) == []


# --- killed anywhere ---------------------------------------------------------------------------------


class Stopped(BaseException):
    """As a signal would."""


def stop_at(n: int) -> list[Any]:
    """Patches that stop the n-th step that leaves something behind."""
    seen = {"n": 0}

    def counting(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*given: Any, **more: Any) -> Any:
            seen["n"] += 1
            if seen["n"] == n:
                raise Stopped
            return function(*given, **more)

        return step

    return [
        patch.object(week, "recommend_to_file", counting(week.recommend_to_file)),
        patch.object(week, "write_json", counting(week.write_json)),
        patch.object(Work, "finish", counting(Work.finish)),
        patch.object(os, "replace", counting(os.replace)),
        patch.object(os, "symlink", counting(os.symlink)),
        patch.object(shutil, "rmtree", counting(shutil.rmtree)),
        patch.object(published, "write_json", counting(published.write_json)),
    ]


def stopped_and_finished(place: Path, pristine: Path, n: int, want: dict[str, Any]) -> bool:
    """Stop at the n-th step, look, call again; False if the call has no so many steps."""
    shutil.rmtree(place)
    shutil.copytree(pristine, place, symlinks=True)
    plan = read_week(place / "week.toml")
    patches: list[Any] = stop_at(n)
    for one in patches:
        one.start()
    try:
        publish_week(plan, refit=True)
        return False
    except Stopped:
        pass
    finally:
        for one in patches:
            one.stop()
    assert manifest(place)["name"] == current(place)  # whole, whichever it is
    publish_week(plan, refit=True)
    assert what_counts(place) == want, f"step {n}"
    assert not (place / "weeks" / ".work").exists()
    return True


@pytest.fixture
def undisturbed(place: Path, lines: pl.DataFrame, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The shop with a new export, and what an undisturbed call makes of it."""
    deliver(place, lines, FIRST)
    pristine = Path(shutil.copytree(place, tmp_path / "pristine", symlinks=True))
    publish_week(read_week(place / "week.toml"), refit=True)
    return pristine, what_counts(place)


def test_a_call_that_stops_is_finished_by_the_next(
    place: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    pristine, want = undisturbed
    assert all(stopped_and_finished(place, pristine, n, want) for n in (9, 16))


@pytest.mark.slow
def test_a_call_that_stops_at_any_step_is_finished_by_the_next(
    place: Path, undisturbed: tuple[Path, dict[str, Any]]
) -> None:
    n = 1
    while stopped_and_finished(place, undisturbed[0], n, undisturbed[1]):
        n += 1
    assert n > 15


CHILD = """
import os, signal, sys
place, number, calls = sys.argv[1], int(sys.argv[2]), 0
def watch(event, given):
    global calls
    if event.startswith(("open", "os.", "shutil.")) and event not in ("os.listdir", "os.scandir"):
        if place in str(given):
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
sys.argv = sys.argv[:1] + sys.argv[3:]
from retailrec.cli import main
sys.addaudithook(watch)
try:
    main()
finally:
    print("calls", calls, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_is_finished_by_the_next(
    place: Path, lines: pl.DataFrame, tmp_path: Path
) -> None:
    deliver(place, lines, FIRST)
    pristine = shutil.copytree(place, tmp_path / "pristine", symlinks=True)

    def child(number: int) -> subprocess.CompletedProcess[str]:
        words = ["week", "--config", str(place / "week.toml"), "--refit", "--quiet"]
        command = [sys.executable, "-c", CHILD, str(place / "weeks"), str(number), *words]
        return subprocess.run(command, capture_output=True, text=True)

    done = child(0)
    assert done.returncode == 0, done.stderr
    total, want = int(done.stdout.split()[-1]), what_counts(place)
    for number in range(2, total, max(total // 8, 1)):
        shutil.rmtree(place)
        shutil.copytree(pristine, place, symlinks=True)
        assert child(number).returncode == -signal.SIGKILL
        publish_week(read_week(place / "week.toml"), refit=True)
        assert what_counts(place) == want, f"call {number} of {total}"


def test_two_calls_at_a_time_are_one(place: Path, lines: pl.DataFrame) -> None:
    deliver(place, lines, FIRST)
    with Work.held(place / "weeks" / ".work"):
        refused(call(place), "another process")
        refused(retailrec("week", "rollback", "--config", place / "week.toml"), "another process")
    assert call(place).returncode == 0


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("receipts", "store")),
        ("receipts = 'exports'\nkep = 3", ("kep", "keep")),
        ("receipts = 'exports'\nkeep = 1", ("keep",)),
        ("receipts = 'exports'\nfolder = 'exports/weeks'", ("folder", "receipts")),
        ("receipts = 'exports'\naccept = ['all']", ("accept", "all")),
        ("receipts = 'exports'\n[refit]\nage = 3", ("refit.age",)),
        ("receipts = 'exports'\n[request]\nk = 0", ("k",)),
        ("receipts = 'exports'\n[request]\nat = '2024-01-01'", ("--as-of",)),
        ("receipts = 'exports'\n[model]\nhorizon = 3", ("horizon",)),
        ("receipts = 'nowhere'", ("nowhere",)),
        ("receipts = 'exports'\nitems = 'no.csv'", ("no.csv",)),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    tmp_path: Path, text: str, words: tuple[str, ...]
) -> None:
    (tmp_path / "exports").mkdir()
    (tmp_path / "exports" / "a.csv").write_text("user_id,item_id,time\n1,2,2024-01-01\n")
    (tmp_path / "week.toml").write_text(text)
    refused(call(tmp_path), *words)
    assert not (tmp_path / "weeks").exists()


def test_what_is_no_link_to_a_week_is_not_replaced(place: Path, lines: pl.DataFrame) -> None:
    (place / "weeks" / "current").unlink()
    (place / "weeks" / "current").mkdir()
    deliver(place, lines, FIRST)
    refused(call(place), "current", "no link")
    assert (place / "weeks" / "current").is_dir()


def test_an_end_is_midnight_after_the_last_day() -> None:
    assert datetime.fromisoformat("2000-04-08") - datetime(2000, 1, 1) == timedelta(days=7 * FIRST)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("withdrawn.json", '{"a":', "withdrawn.json can't be read"),
        ("withdrawn.json", "3", "withdrawn.json can't be read (it holds a int)"),
        ("refused.json", "[1,", "refused.json can't be read"),
        (
            "current/manifest.json",
            '{"format": "retailrec-week", "format_version": 1}',
            "KeyError('name')",
        ),
        ("current/manifest.json", None, "(number is 'x')"),
    ],
)
def test_what_a_disk_left_of_a_weeks_notes_is_named(
    place: Path, name: str, text: str | None, said: str
) -> None:
    file = place / "weeks" / name
    was = file.read_text() if text is None else ""
    file.write_text(was.replace('"number": 1', '"number": "x"') if text is None else text)
    refused(retailrec("week", "status", "--config", place / "week.toml"), said)


def test_lists_of_last_week_that_can_not_be_read_are_named_by_all_who_read_them(
    place: Path, lines: pl.DataFrame
) -> None:
    last = current(place)
    file = place / "weeks" / last / "recommendations.parquet"
    deliver(place, lines, FIRST)
    whole = file.read_bytes()
    for content in (whole[:300], b""):
        file.write_bytes(content)
        refused(call(place), f"{last}/recommendations.parquet can't be read as a week's lists")
        refused(
            retailrec("week", "diff", last, last, "--config", place / "week.toml"), "can't be read as"
        )
    pl.read_parquet(whole).drop("rank").write_parquet(file)
    refused(call(place), "can't be read as a week's lists", "rank")
    file.unlink()
    refused(call(place), "can't be read as a week's lists")
    file.write_bytes(whole)
    assert call(place).returncode == 0


def test_a_folder_may_have_brackets_in_its_name(place: Path, lines: pl.DataFrame) -> None:
    """To Polars they are a pattern: a model and lists there were not found, or another folder's."""
    odd = place.rename(place.with_name("shop [1]"))
    deliver(odd, lines, FIRST)
    found = call(odd)
    assert found.returncode == 0, found.stderr
    assert retailrec("week", "diff", "--config", odd / "week.toml").returncode == 0


def test_a_date_to_come_publishes_nothing_anew(place: Path, lines: pl.DataFrame) -> None:
    """As a scheduler that says --as-of with today's date does, every day."""
    before = tree(place)
    for more in ((), ("--dry-run",)):
        found = call(place, "--as-of", "2999-01-01", *more)
        assert (found.returncode, tree(place)) == (3, before), found.stderr
    deliver(place, lines, FIRST)
    assert call(place, "--as-of", "2999-01-01").returncode == 0
    assert manifest(place)["as_of"] is None
    assert call(place).returncode == 3


@pytest.mark.parametrize(
    ("name", "said"),
    [("folder", ""), ("receipts", ""), ("campaign.ledger", ""), ("request.among", '[""]')],
)
def test_an_empty_path_is_not_the_current_folder(place: Path, name: str, said: str) -> None:
    part, _, key = name.rpartition(".")
    given = {"receipts": '"exports"', "folder": '"weeks"'} | ({} if part else {key: '""'})
    text = "".join(f"{one} = {value}\n" for one, value in given.items())
    if part:
        file = "file = 'a.toml'\n" if part == "campaign" else ""
        text += f"[{part}]\n{file}{key} = {said or chr(34) * 2}\n"
    (place / "empty.toml").write_text(text)
    refused(retailrec("week", "--config", place / "empty.toml"), f"empty.toml: {name} is empty")

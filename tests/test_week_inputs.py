"""What happens to exports, ids and settings from one week to the next."""

from __future__ import annotations

import json
import shutil
from datetime import datetime
from pathlib import Path

import polars as pl
import pytest

from cli_support import refused, retailrec
from retailrec.jobs import published, week
from retailrec.jobs.published import WeekFolder
from week_support import (
    CONFIG,
    FIRST,
    call,
    current,
    deliver,
    manifest,
    published_shop,
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


def lists_of(place: Path, name: str = "current") -> pl.DataFrame:
    return pl.read_parquet(place / "weeks" / name / "recommendations.parquet")


# --- exports -----------------------------------------------------------------------------------------


def test_an_export_that_was_corrected_later_is_counted_and_the_end_stays(
    place: Path, lines: pl.DataFrame
) -> None:
    for n in (FIRST, FIRST + 1):
        file = deliver(place, lines, n)
        assert call(place).returncode == 0
    file = place / "exports" / f"week-{FIRST}.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join(rows[:-3]) + "\n")
    run = call(place)
    assert run.returncode == 0, run.stdout
    facts = manifest(place)
    assert facts["end"] == "2000-04-22T00:00:00"
    assert facts["data"]["lines"] == lines.filter(pl.col("week") <= FIRST + 1).height - 3


def test_a_store_whose_export_comes_late_is_checked_with_the_others_of_its_days(
    place: Path, lines: pl.DataFrame
) -> None:
    """Of the late file alone it was said that the other stores are missing."""
    stores = pl.when(pl.col("user_id") % 2 == 0).then(pl.lit("north")).otherwise(pl.lit("south"))
    of_stores = lines.with_columns(store=stores)
    first = place / "exports" / "first.csv"
    of_stores.filter(pl.col("week") < FIRST).drop("week").write_csv(first)
    deliver(place, of_stores.filter(store="north"), FIRST)
    assert call(place).returncode == 4
    assert call(place, "--accept", "missing_stores").returncode == 0
    late = of_stores.filter(pl.col("week") == FIRST, store="south").drop("week")
    late.write_csv(place / "exports" / "late.csv")
    run = call(place)
    assert run.returncode == 0, run.stdout
    facts = manifest(place)
    n = lines.filter(pl.col("week") == FIRST).height
    assert (facts["end"], facts["checks"]["n_lines"]) == ("2000-04-15T00:00:00", n)


def test_an_export_of_another_name_is_no_new_one(place: Path, lines: pl.DataFrame) -> None:
    deliver(place, lines, FIRST).rename(place / "exports" / "archive.csv")
    assert call(place).returncode == 0
    (place / "exports" / "archive.csv").rename(place / "exports" / "archived.csv")
    deliver(place, lines, FIRST + 1)
    assert call(place).returncode == 0
    n = lines.filter(pl.col("week") == FIRST + 1).height
    assert manifest(place)["checks"]["n_lines"] == n


def test_an_old_export_that_is_gone_is_said(place: Path, lines: pl.DataFrame) -> None:
    old = place / "exports" / "archive.csv"
    lines.filter(pl.col("week") == 0).drop("week").write_csv(old)
    assert call(place).returncode == 0
    deliver(place, lines, FIRST)
    old.unlink()
    run = call(place)
    assert run.returncode == 0, run.stdout
    assert "1 files of the published week's receipts are not there any more (archive.csv)" in run.stdout
    deliver(place, lines, FIRST + 1)
    (place / "exports" / "first.csv").rename(place / "exports" / "renamed.csv")
    assert "not there any more" not in call(place).stdout


@pytest.mark.parametrize(
    ("text", "check"),
    [("user_id,item_id,time,basket_id,quantity,value\n", "no_lines"), ("", "empty_files")],
)
def test_an_export_without_lines_that_was_accepted_is_not_refused_again(
    place: Path, lines: pl.DataFrame, text: str, check: str
) -> None:
    (place / "exports" / "a-holiday.csv").write_text(text)  # before the others by its name
    assert call(place).returncode == 4
    assert call(place, "--accept", check).returncode == 0
    for n in (FIRST, FIRST + 1):
        deliver(place, lines, n)
        run = call(place)
        assert run.returncode == 0, run.stdout
        assert manifest(place)["checks"]["n_lines"] == lines.filter(pl.col("week") == n).height


def test_exports_after_the_date_asked_for_are_not_what_is_checked(
    place: Path, lines: pl.DataFrame
) -> None:
    deliver(place, lines, FIRST)
    deliver(place, lines, FIRST + 1)
    assert call(place, "--as-of", "2000-04-15").returncode == 0
    deliver(place, lines, FIRST + 2)
    run = call(place, "--as-of", "2000-04-22")
    assert run.returncode == 0, run.stdout
    n = lines.filter(pl.col("week") == FIRST + 1).height
    assert (manifest(place)["end"], manifest(place)["checks"]["n_lines"]) == ("2000-04-22T00:00:00", n)


@pytest.mark.parametrize("kind", ["a file", "a folder"])
def test_receipts_may_lie_beside_the_tables_of_items_and_users(
    place: Path, lines: pl.DataFrame, kind: str
) -> None:
    """The tables may stay as they are while receipts come, or change alone."""
    folder = place / "data"
    (folder / "transactions").mkdir(parents=True)
    for name in ("item", "user"):
        ids = lines[f"{name}_id"].unique().sort()
        pl.DataFrame([ids]).with_columns(of=pl.lit("x")).write_csv(folder / f"{name}s.csv")
    (place / "week.toml").write_text(
        CONFIG.replace('"exports"', '"data"').replace('"weeks"', '"others"')
    )
    if kind == "a file":
        (folder / "transactions").rmdir()

    def export(n: int) -> None:
        upto, week = pl.col("week") <= n, pl.col("week") == n
        if kind == "a file":
            lines.filter(upto).drop("week").write_csv(folder / "transactions.csv")
        else:
            part = lines.filter(upto if n < FIRST else week).drop("week")
            part.write_csv(folder / "transactions" / f"{n}.csv")

    for n in (FIRST - 1, FIRST):
        export(n)
        run = call(place)
        assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads((place / "others" / "current" / "manifest.json").read_text())
    assert found["checks"]["n_lines"] == lines.filter(pl.col("week") == FIRST).height
    users = folder / "users.csv"
    users.write_text(users.read_text().replace("x", "y"))
    run = call(place)
    assert run.returncode == 0, run.stdout


# --- ids that changed --------------------------------------------------------------------------------


def test_lists_of_a_week_are_judged_and_compared_by_the_ids_of_today(
    tmp_path: Path, lines: pl.DataFrame
) -> None:
    """Card u1 became u2, u3 a new one, and the item on most lists was renumbered."""
    (tmp_path / "ids.csv").write_text("kind,old,new\nuser,99999,99998\n")
    place = published_shop(tmp_path, lines, 'changed_ids = "ids.csv"\n' + CONFIG)
    before = lists_of(place)
    u1, u2, u3 = before["user_id"].unique().sort().head(3)
    item = before.group_by("item_id").len().sort("len", "item_id")["item_id"][-1]
    users, items = {u1: u2, u3: 7003}, {item: 9001}
    changes = [f"user,{old},{new}" for old, new in users.items()] + [f"item,{item},9001"]
    (tmp_path / "ids.csv").write_text("\n".join(["kind,old,new", *changes]) + "\n")
    today = (pl.col("user_id").replace(users), pl.col("item_id").replace(items))
    new = lines.filter(pl.col("week") == FIRST).with_columns(*today)
    deliver(place, new, FIRST)
    run = call(place)
    assert run.returncode == 0, run.stdout + run.stderr
    after, facts = lists_of(place), manifest(place)
    assert item not in after["item_id"]
    assert 9001 in after["item_id"]
    assert not {u1, u3} & set(after["user_id"])
    assert (
        facts["model"]["reason"] == "receipts are read in another way than those that the model knows"
    )
    last = before.filter(pl.col("user_id") != u1).with_columns(*today)  # u2 has a list of its own
    known = lines.filter(pl.col("week") < FIRST).with_columns(*today)["user_id"].unique()
    bought = new.filter(pl.col("user_id").is_in(known.implode())).select("user_id", "item_id").unique()
    hits = last.join(bought, on=["user_id", "item_id"]).height
    precision = hits / 5 / bought["user_id"].n_unique()
    assert facts["judged"]["models"]["lists"]["precision@5"] == pytest.approx(precision)
    both = after.join(last.select("user_id").unique(), on="user_id", how="semi")
    changed = both.join(last, on=["user_id", "item_id"], how="anti").height / both.height
    assert facts["change"]["share"] == pytest.approx(changed)
    words = (
        "week",
        "diff",
        "--config",
        place / "week.toml",
        "--user",
        u3,
        "--out",
        place / "diff.json",
    )
    shown = retailrec(*words)
    assert shown.returncode == 0, shown.stderr
    assert json.loads((place / "diff.json").read_text())["lists"]["share"] == pytest.approx(changed)
    deliver(place, lines.filter(pl.col("week") == FIRST + 1).with_columns(*today), FIRST + 1)
    assert call(place).returncode == 0
    assert not manifest(place)["model"]["refitted"]  # the table is the one it was fitted with


# --- settings ----------------------------------------------------------------------------------------


def test_a_model_is_fitted_anew_where_receipts_are_read_in_another_way(
    place: Path, lines: pl.DataFrame
) -> None:
    file = place / "exports" / "first.csv"
    pl.read_csv(file).with_columns(ean=pl.col("item_id") + 10_000).write_csv(file)
    (place / "week.toml").write_text('columns = { item_id = "ean" }\n' + CONFIG)
    run = call(place, "--accept", "lists_changed,coverage_fell,share_of_new,item_ids_changed")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "refit: receipts are read in another way" in run.stdout
    assert lists_of(place)["item_id"].min() > 10_000  # type: ignore[operator]


def test_weeks_of_lists_of_other_lengths_are_not_compared_by_figures(
    place: Path, lines: pl.DataFrame
) -> None:
    (place / "week.toml").write_text(CONFIG.replace("k = 5", "k = 4"))
    for n in (FIRST, FIRST + 1):
        deliver(place, lines, n)
        assert call(place).returncode == 0
    first, second, _ = WeekFolder(place / "weeks").names()
    said = retailrec("week", "diff", first, second, "--config", place / "week.toml").stdout
    assert "of one week are longer" in said
    assert "moved by" not in said


def test_settings_of_a_week_before_are_named_with_what_brings_it_back(place: Path) -> None:
    first = current(place)
    (place / "week.toml").write_text(CONFIG.replace("k = 5", "k = 6"))
    assert call(place).returncode == 0
    (place / "week.toml").write_text(CONFIG)
    run = call(place)
    assert run.returncode == 3
    assert f"retailrec week rollback --to {first}" in " ".join(run.stdout.split())


def test_steady_lists_hold_on_to_those_of_the_published_week(
    place: Path, lines: pl.DataFrame, tmp_path: Path
) -> None:
    """No file of last lists is named: there is none in the first week, and the rest is published."""
    shares = []
    for name, steady in (("loose", 0.0), ("steady", 5.0)):
        (tmp_path / name).mkdir()
        config = CONFIG.replace("k = 5", f"k = 5\nsteady = {steady}")
        other = published_shop(tmp_path / name, lines, config)
        deliver(other, lines, FIRST)
        assert call(other).returncode == 0
        assert call(other).returncode == 3
        shares.append(manifest(other)["change"]["share"])
    assert shares[1] < 0.2 * shares[0]


def test_explored_lists_are_published_with_the_pools_they_were_drawn_from(
    place: Path, lines: pl.DataFrame
) -> None:
    (place / "week.toml").write_text(CONFIG.replace("k = 5", "k = 5\nexplore = 0.3\npool = 12"))
    deliver(place, lines, FIRST)
    assert call(place, "--accept", "lists_changed").returncode == 0
    pools = pl.read_parquet(place / "weeks" / "current" / "exposures.parquet")
    assert pools.height > lists_of(place).height
    shown = pools.filter("shown").select("user_id", "item_id").cast(pl.Int64)
    assert set(shown.rows()) == set(lists_of(place).select("user_id", "item_id").rows())
    assert pools["time"].unique().to_list() == [datetime(2000, 4, 15)]
    assert "exposures.parquet" in manifest(place)["files"]


def test_a_model_in_place_that_is_damaged_is_fitted_anew(place: Path, lines: pl.DataFrame) -> None:
    """Weeks share its files, so going back helps nobody."""
    for n, more in ((FIRST, ()), (FIRST + 1, ("--refit",))):
        deliver(place, lines, n)
        (file,) = (place / "weeks" / "current" / "model").glob("data-*/*items_.parquet")
        file.write_bytes(file.read_bytes()[:-9])
        run = call(place, *more)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "the model in place can't be loaded" in run.stdout + run.stderr
        assert manifest(place)["model"]["refitted"]
        assert manifest(place)["judged"]["users"] > 0
    assert call(place).returncode == 3


def test_a_week_is_taken_back_whatever_is_wrong_with_the_settings(
    place: Path, lines: pl.DataFrame
) -> None:
    first = current(place)
    deliver(place, lines, FIRST)
    assert call(place).returncode == 0
    config = place / "week.toml"
    config.write_text(CONFIG.replace("k = 5", 'k = 5\nrules = "no.toml"'))
    assert call(place).returncode == 2
    for command in ("status", "rollback"):
        run = retailrec("week", command, "--config", config)
        assert run.returncode == 0, run.stderr
    assert retailrec("watch", "--config", config).returncode == 0
    assert current(place) == first
    config.write_text("folder = 3")
    refused(retailrec("week", "status", "--config", config), "folder must be the path of a folder")


def test_what_another_user_may_not_read_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a folder of weeks that may not be looked into it was said that nothing is published."""

    def refuse(*given: object) -> str:
        raise PermissionError(13, "Permission denied", "what is closed")

    for place_of, name, words in (
        (published.os, "lstat", ["week", "status"]),
        (published.os, "lstat", ["watch"]),
        (published.os, "readlink", ["week", "rollback"]),
        (week, "sha256", ["week"]),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place_of, name, refuse)
            run = retailrec(*words, "--config", place / "week.toml")
        refused(run, "what is closed can't be opened: no permission")

"""The commands of offers and the campaign's page."""

from __future__ import annotations

import json
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.jobs.campaigns import allocate_files
from retailrec.offers.ledger import Ledger
from retailrec.report.page import render_campaign
from retailrec.simulator.shop import Shop

CAMPAIGN = """
name = "spring"
value = "probability_margin"
holdout = 0.3
offers = {at_most = 2}
limit = [{by = "product", at_most = "stock"}, {by = "supplier", of = "s&m", at_least = 101}]
budget = [{at_most = 6.0}]
"""
WRITTEN = [
    ".retailrec",
    "allocation.json",
    "campaign.html",
    "campaign.json",
    "offers.parquet",
    "prices.json",
    "shoppers.parquet",
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scores of 80 shoppers, items with names that are markup, receipts around a campaign."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    users, items = np.divmod(np.arange(80 * 10), 10)
    pairs = pl.DataFrame(
        {
            "user_id": users,
            "item_id": items,
            "probability": rng.random(800),
            "margin": 2 * rng.random(800),
            "cost": rng.random(800),
        }
    )
    pairs.write_csv("pairs.csv")
    pl.DataFrame(
        {
            "item_id": range(10),
            "name": ["<script>alert(1)</script>", *"bcdefghij"],
            "stock": [20] * 10,
            "supplier": ["s&m", "t"] * 5,
        }
    ).write_csv("items.csv")
    (tmp_path / "campaign.toml").write_text(CAMPAIGN)
    days = rng.integers(0, 84, 4000)
    receipts = pl.DataFrame(
        {
            "user_id": rng.integers(0, 80, 4000),
            "item_id": rng.integers(0, 10, 4000),
            "day": days,
            "value": rng.random(4000).round(2),
        }
    )
    receipts = receipts.with_columns(
        time=pl.lit("2024-01-01").str.to_date() + pl.duration(days="day")
    ).drop("day")
    receipts.write_csv("receipts.csv")
    pl.DataFrame({"item_id": range(10), "margin": [0.5] * 10}).write_csv("margins.csv")
    return tmp_path


def run(command: str) -> str:
    found = CliRunner().invoke(app, command.split())
    assert found.exit_code == 0, f"{command}\n{found.output}\n{found.exception!r}"
    return " ".join(found.output.split())


ALLOCATE = "allocate pairs.csv campaign.toml --items items.csv --ledger ledger --record --time 2024-02-15 --out out"


@pytest.mark.parametrize("at", [0, 1])
def test_a_campaign_killed_while_the_ledger_takes_it_is_whole_after_a_rerun(
    at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pl.DataFrame({"user_id": range(30), "item_id": 1, "value": 1.0})
    pairs.write_csv(tmp_path / "pairs.csv")
    (tmp_path / "campaign.toml").write_text('name = "k"\nholdout = 0.3\n')
    names = [tmp_path / name for name in ("pairs.csv", "campaign.toml", "out")]
    call = partial(allocate_files, *names, ledger=tmp_path / "ledger", record=True)
    replace, seen = os.replace, [0]

    def killed(source: Path, target: Path) -> None:
        if Path(target).parent.name == "ledger":
            if seen[0] == at:
                raise KeyboardInterrupt
            seen[0] += 1
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            call(time="2024-05-01")
    assert not (tmp_path / ".out.search").exists()  # which nobody removed if the rerun was refused
    call(time="2024-05-01")
    ledger = Ledger(tmp_path / "ledger")
    assert ledger.read()["user_id"].n_unique() == 30
    assert ledger.read_pool()["user_id"].sort().to_list() == sorted(map(str, range(30)))


def test_allocate_writes_a_campaign_and_result_tells_what_came_of_it(files: Path) -> None:
    text = run(ALLOCATE)
    assert re.search(r"offers for \d+ of 80 shoppers \(\d+ held out\)", text)
    assert "supplier s&m must get 101 offers and got" in text
    assert sorted(p.name for p in (files / "out").iterdir()) == WRITTEN
    assert not [p for p in files.iterdir() if p.name.startswith(".")]
    offers = pl.read_parquet("out/offers.parquet")
    report = json.loads((files / "out/allocation.json").read_text())
    assert report["n_offers"] == offers.height
    assert offers["expected_cost"].sum() <= 6
    rows = Ledger(files / "ledger").read(["spring"])
    assert rows.filter(pl.col("rank") > 0).height == offers.height
    assert rows["user_id"].n_unique() == 80
    page = (files / "out/campaign.html").read_text()
    assert "Not known yet" in page
    text = run(
        "experiment result ledger receipts.csv --campaign spring --days 28 --margin margins.csv --page out --out result.json"
    )
    assert "treated" in text
    result = json.loads((files / "result.json").read_text())
    effect = next(e for e in result["effects"] if (e["metric"], e["adjusted"]) == ("spend", True))
    page = (files / "out/campaign.html").read_text()
    assert "Not known yet" not in page
    assert f"{effect['difference']:+,.3f}" in page
    assert f"{effect['low']:+,.3f} to {effect['high']:+,.3f}" in page


def test_arms_without_a_holdout_are_compared_on_the_console_and_the_page(files: Path) -> None:
    run(ALLOCATE)
    rows = Ledger(files / "ledger").read(["spring"]).filter(~pl.col("holdout"))
    even = pl.col("user_id").cast(pl.Int64) % 2 == 0
    arm = pl.when(even).then(pl.lit("<b>bold")).otherwise(pl.lit("today"))
    rows.with_columns(arm=arm).write_parquet("served.parquet")
    text = run(
        "experiment result served.parquet receipts.csv --campaign spring --days 28 --page out --out result.json"
    )
    assert "each arm less each other one" in text
    found = json.loads((files / "result.json").read_text())
    assert not found["effects"]
    assert [(e["metric"], e["arm"], e["versus"]) for e in found["arms"]] == [
        (metric, "today", "<b>bold") for metric in ("bought", "purchases", "spend")
    ]
    page = (files / "out/campaign.html").read_text()
    assert "&lt;b&gt;bold" in page
    assert f"{found['arms'][-1]['difference']:+,.3f}" in page


def test_the_page_shows_the_figures_and_no_markup_of_others(files: Path) -> None:
    run(ALLOCATE)
    page = (files / "out/campaign.html").read_text()
    summary = json.loads((files / "out/campaign.json").read_text())
    assert page == render_campaign(summary)
    assert page.count("<script") == 1  # the one that sorts tables
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "s&amp;m" in page
    assert not re.search(r"(src|href)=.?http|url\(http|@import", page)
    report = summary["report"]
    assert f"{report['n_offers']:,} offers go to {report['n_with_offers']:,} of 80 shoppers" in page
    assert summary["budgets"][0]["words"] in page
    offers = pl.read_parquet("out/offers.parquet")
    assert sum(p["offers"] for p in summary["products"]) == offers.height
    assert sum(row["offers"] * row["len"] for row in summary["lists"]) == offers.height
    assert sum(g["offers"] for g in summary["groups"]["supplier"]) == offers.height


@pytest.mark.parametrize("ids", [[1.0, 2.0], [" 1", "2 "]])
def test_products_have_their_names_however_ids_are_typed(
    files: Path, ids: list[float] | list[str]
) -> None:
    (files / "named.toml").write_text('name = "x"\n')
    pl.DataFrame({"user_id": [1, 2], "item_id": [1, 2], "value": 1.0}).write_csv("two.csv")
    pl.DataFrame({"item_id": ids, "name": ["Tea", "Rye"]}).write_parquet("named.parquet")
    run("allocate two.csv named.toml --items named.parquet --out named")
    products = json.loads((files / "named/campaign.json").read_text())["products"]
    assert {p["name"] for p in products} == {"Tea", "Rye"}


def test_plan_tells_what_it_takes(files: Path) -> None:
    text = run("experiment plan receipts.csv --effect 0.05 --holdout 0.5 --days 28")
    needed, adjusted = re.search(r"held out: ([\d,]+) shoppers, ([\d,]+) when", text).groups()  # type: ignore[union-attr]
    more = run("experiment plan receipts.csv --effect 0.1 --holdout 0.5 --days 28")
    fewer = re.search(r"held out: ([\d,]+) shoppers", more)[1]  # type: ignore[index]
    assert int(needed.replace(",", "")) / int(fewer.replace(",", "")) == pytest.approx(4, rel=0.02)
    assert int(adjusted.replace(",", "")) <= int(needed.replace(",", ""))
    text = run("experiment plan receipts.csv --effect 0.05 --holdout 0.004 --power 0.999 --days 28")
    assert "with power 99.9% and 0.4% held out" in text


def test_plan_reads_every_data_set(files: Path) -> None:
    Shop(users=40, items=200, weeks=12, dirt=False).write(Path("shop"))
    text = run("experiment plan shop --dataset complete-journey --effect 0.1 --holdout 0.5 --days 28")
    assert "spend of 40 shoppers in 28 days" in text


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        (
            "allocate none.csv campaign.toml --items items.csv --out other",
            "there is no file or folder at none.csv",
        ),
        ("allocate pairs.csv none.toml --out other", "can't be read"),
        ("allocate pairs.csv campaign.toml --out other", "no items were given"),
        (
            "allocate pairs.csv campaign.toml --items items.csv --record --out other",
            "--record asks for --ledger",
        ),
        (
            "allocate pairs.csv campaign.toml --items items.csv --time soon --out other",
            "--time is 'soon'",
        ),
        (ALLOCATE.replace("--out out", "--out other"), "stand in the ledger for it already"),
        ("experiment plan receipts.csv --effect 0 --days 7", "effect must be above 0"),
        (
            "experiment plan receipts.csv --effect 0.1 --days 1e12",
            "days must be above 0 and at most 36525",
        ),
        ("experiment result ledger receipts.csv --campaign spring --days nan", "days must be above 0"),
        ("experiment result ledger receipts.csv --campaign spring --days 1e12", "at most 36525"),
        (
            ALLOCATE.replace("ledger --record", "legder").replace("--out out", "--out other"),
            "there is no ledger at legder",
        ),
        (
            ALLOCATE.replace("ledger --record", "out --record").replace("--out out", "--out other"),
            "it holds no ledger file",
        ),
        ("experiment plan receipts.csv --effect 0.1 --days 50", "must hold two windows of 50 days"),
        ("experiment plan receipts.csv --effect 0.1 --metric smiles", "metric must be one of"),
        (
            "experiment plan receipts.csv --effect 0.1 --holdout 1",
            "control_share must lie between 0 and 1",
        ),
        ("experiment result none receipts.csv --campaign spring", "there is no ledger at none"),
        ("experiment result ledger receipts.csv --campaign autumn", "does not stand in ledger"),
        ("experiment result ledger receipts.csv --campaign spring --days 60", "bring later receipts"),
        (
            "experiment result ledger receipts.csv --campaign spring --page ledger",
            "holds no figures of a campaign",
        ),
        (
            "experiment result ledger receipts.csv --campaign spring --page out --out out/campaign.json",
            "campaign.json is an input",
        ),
        (
            "experiment result ledger receipts.csv --campaign spring --segment age",
            "shoppers have no column 'age'",
        ),
    ],
)
def test_bad_input_is_a_sentence_and_nothing_is_written(
    command: str, sentence: str, files: Path
) -> None:
    run(ALLOCATE)
    before = {p: p.read_bytes() for p in files.rglob("*") if p.is_file()}
    found = CliRunner().invoke(app, command.split())
    assert found.exit_code != 0
    assert sentence in str(found.exception)
    assert {p: p.read_bytes() for p in files.rglob("*") if p.is_file()} == before
    assert not (files / "other").exists()


CAPPED = """
name = "{}"
value = "probability"
cap = [{{days = 28, at_most = 1}}]
"""


def test_a_cap_holds_for_two_campaigns_of_one_moment(files: Path) -> None:
    for name in ("first", "second"):
        (files / "capped.toml").write_text(CAPPED.format(name))
        run(f"allocate pairs.csv capped.toml --ledger sent --record --time 2024-05-01 --out {name}")
    assert Ledger(files / "sent").offers_of()["offers"].to_list() == [1] * 80
    assert pl.read_parquet("second/offers.parquet").is_empty()


def test_a_ledger_that_begins_is_said_to_under_quiet_too(files: Path) -> None:
    (files / "capped.toml").write_text(CAPPED.format("first"))
    text = run("allocate pairs.csv capped.toml --ledger sent --record --out first --quiet")
    assert "the ledger sent holds no offers yet" in text


def test_who_stands_in_the_ledger_has_an_offer_that_was_delivered(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when results are put in place leaves nothing, and a rerun is let through."""
    from retailrec import work

    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(work, "_replace_results", fail)
        found = CliRunner().invoke(app, ALLOCATE.split())
        assert found.exit_code != 0
        assert not (files / "ledger").exists()
        assert not (files / "out").exists()
    run(ALLOCATE)
    assert Ledger(files / "ledger").read()["user_id"].n_unique() == 80


def test_result_reads_the_file_that_a_service_exports(files: Path) -> None:
    run(ALLOCATE)
    Ledger(files / "ledger").read().write_parquet("exposures.parquet")
    text = run("experiment result exposures.parquet receipts.csv --campaign spring --days 28")
    assert "treated" in text


def test_an_empty_folder_is_a_ledger_without_offers_yet(files: Path) -> None:
    """So that a campaign that reads past offers can begin; a folder that is not there may be mistyped."""
    (files / "capped.toml").write_text(CAPPED.format("first"))
    (files / "sent").mkdir()
    text = run("allocate pairs.csv capped.toml --ledger sent --out first")
    assert "the ledger sent holds no offers yet" in text
    assert pl.read_parquet("first/offers.parquet").height == 80

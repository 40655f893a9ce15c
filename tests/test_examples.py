"""What ends each command's help runs as it stands, where `retailrec examples` has been run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from cli_support import refused, retailrec
from retailrec.cli.app import app
from retailrec.cli.examples import COMMANDS, LOOK, MORE, OFFERS, SERVE, START
from retailrec.simulator.shop import EXAMPLE_FILES, write_examples

# these serve until they are stopped, take minutes, or need a log of one's own; tests of their own run them
NOT_RUN = {
    "demo",
    "serve",
    "week rollback",
    "week diff",
    "experiment counterfactual",
    "experiment impressions",
    "uplift fit",
    "store recover",
    "store key remove",
}


def commands(some: Any = app, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every command by its full name."""
    for info in some.registered_commands:
        yield before + (info.name or info.callback.__name__.replace("_", "-")), info
    for info in some.registered_groups:
        yield from commands(info.typer_instance, f"{before}{info.name} ")


def test_every_command_has_one_or_two_examples_of_its_own() -> None:
    names = {name for name, _ in commands()} | {"week"}  # which is a command and a group
    assert names == {name for name, (_, lines) in COMMANDS.items() if lines}
    for name, (_, lines) in COMMANDS.items():
        assert len(lines) <= 2
        assert all(line.startswith(f"retailrec {name}") for line in lines), name


@pytest.mark.parametrize("name", ["run", "store load", "evaluate", "allocate"])
def test_help_ends_with_them(name: str) -> None:
    shown = CliRunner().invoke(app, [*name.split(), "--help"], env={"COLUMNS": "200"}).output
    assert shown.strip().endswith(COMMANDS[name][1][-1])
    assert "Data" in shown or name == "allocate"


def test_commands_are_grouped_as_one_works() -> None:
    shown = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    at = [shown.index(f"─ {group} ─") for group in (START, LOOK, OFFERS, SERVE, MORE)]
    assert at == sorted(at)


@pytest.mark.slow
def test_the_examples_run_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, (_, lines) in COMMANDS.items():
        for line in lines if name not in NOT_RUN else ():
            run = retailrec(*shlex.split(line)[1:])
            assert run.returncode == 0, f"{line}\n{run.stdout}\n{run.stderr}"
            assert "Warning" not in run.stderr, line


def test_what_is_not_run_is_a_command_with_these_options() -> None:
    from typer.main import get_command

    for name in NOT_RUN:
        for line in COMMANDS[name][1]:
            parts, command = shlex.split(line)[1:], get_command(app)
            while hasattr(command, "commands") and parts and parts[0] in command.commands:
                command = command.commands[parts.pop(0)]
            command.make_context(name, parts, resilient_parsing=True)


def test_the_examples_files_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "till.csv").write_text("mine")
    refused(retailrec("examples"), "till.csv was not written by retailrec")
    assert {path.name for path in tmp_path.iterdir()} == {"till.csv"}
    for _ in range(2):  # and again, since they are ours
        assert retailrec("examples", "--out", "new").returncode == 0
    assert all((tmp_path / "new" / name).is_file() for name in EXAMPLE_FILES)


def test_lists_with_names_prices_and_a_decimal_comma(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fastexcel

    monkeypatch.chdir(tmp_path)
    write_examples(tmp_path)
    Path("quick.toml").write_text(
        'label_windows = 1\nthreads = 1\n[ranker]\ntype = "lightgbm"\niterations = 3\n'
        '[[sources]]\ntype = "own_purchases"\n[[sources]]\ntype = "popularity"\n'
    )
    made = retailrec(*shlex.split("run table shop --config quick.toml --no-report --out out"))
    assert made.returncode == 0, made.stderr
    base = (
        "recommend --model out --history shop --users wanted.csv --k 3 --with name,category,price,end"
    )
    for out, more in (("a.csv", " --decimal ,"), ("a.parquet", ""), ("a.xlsx", "")):
        run = retailrec(*shlex.split(f"{base} --out {out}{more}"))
        assert run.returncode == 0, run.stderr
    lists = pl.read_parquet("a.parquet")
    columns = ["user_id", "item_id", "score", "rank", "name", "category_1", "price", "end"]
    assert lists.columns == columns
    items = pl.read_csv("shop/items.csv")
    names = dict(items.select("item_id", "name").iter_rows())
    assert lists["name"].to_list() == [names[item] for item in lists["item_id"]]
    text = pl.read_csv("a.csv", separator=";", decimal_comma=True, try_parse_dates=True)
    assert text["price"].to_list() == pytest.approx(lists["price"].to_list())
    assert "," in Path("a.csv").read_text().splitlines()[1]
    sheet = fastexcel.read_excel("a.xlsx").load_sheet("recommendations").to_polars()
    assert sheet.columns == columns
    assert sheet["name"].to_list() == lists["name"].to_list()
    assert sheet["item_id"].cast(pl.Int64).to_list() == lists["item_id"].to_list()
    end = json.loads(Path("out/load_report.json").read_text())["last"][:10]
    assert lists["end"].dt.date().unique().to_list()[0].isoformat() > end


def test_names_are_whole_in_a_pipe_and_json_is_json() -> None:
    lines = retailrec("datasets").stdout.splitlines()
    assert {line.split("\t")[0] for line in lines} >= {"complete-journey", "online-retail", "table"}
    rows = json.loads(retailrec("features", "--json").stdout)
    assert {"name", "scope", "unit", "family", "meaning"} == set(rows[0])


def test_features_of_one_s_own_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from retailrec.features import FEATURES

    (tmp_path / "features_of_mine.py").write_text(
        "from retailrec.features import feature\n\n\n"
        '@feature("pair", unit="receipts")\n'
        'def pair_of_mine(e):\n    """Receipts of mine."""\n    return e.sum(e.age <= 7)\n'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        shown = retailrec("features", "--import", "features_of_mine").stdout
        assert "pair_of_mine\tpair\treceipts\tpair\tReceipts of mine." in shown
    finally:
        FEATURES.pop("pair_of_mine", None)

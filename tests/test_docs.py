"""Every code block of the README and the docs runs, in order, page by page."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import yaml
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.jobs.settings import Settings
from retailrec.jobs.week_settings import WeekSettings
from retailrec.offers.campaign import campaign_of
from retailrec.recommender.rules import Rules

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULES = {"skip_bought_days", "max_per_category", "min_new", "deny", "forbid", "price_floor", "margin"}
# makes a virtual environment, takes minutes on the real year, or asks for files that nobody may ship
NOT_HERE = (
    "make ",
    "pip ",
    "python -m venv",
    ". .venv/bin/activate",
    "retailrec run complete-journey\n",
)


class Block(NamedTuple):
    kind: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks of a page."""
    text = page.read_text()
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.S | re.M):
        yield Block(found[1], found[2], text[: found.start()].count("\n") + 2)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader has: the files of `retailrec examples`, and no other page's results."""
    monkeypatch.chdir(tmp_path)
    run("retailrec examples", "README.md")
    return tmp_path


def put_published(folder: Path) -> None:
    """A published data set where `data.md` has a reader put it, small."""
    lines = pl.read_csv(folder / "receipts_so_far.csv")
    sheets = folder / "path" / "to" / "online_retail_ii"
    sheets.mkdir(parents=True)
    online_retail(lines).write_csv(sheets / "sheet.csv")


def online_retail(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.select(
        pl.col("basket_id").alias("Invoice"),
        (10000 + pl.col("item_id")).alias("StockCode"),
        pl.lit("A THING").alias("Description"),
        pl.col("quantity").alias("Quantity"),
        pl.col("time").alias("InvoiceDate"),
        (pl.col("value") / pl.col("quantity")).alias("Price"),
        pl.col("user_id").alias("Customer ID"),
        pl.lit("United Kingdom").alias("Country"),
    )


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_block_runs(page: Path, folder: Path) -> None:
    names: dict[str, object] = {}
    if page.name == "data.md":
        put_published(folder)
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.kind == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.kind == "toml":
            file = re.match(r"# ([\w-]+\.toml)\b", block.text)
            assert file, f"{where}: the first line does not say which file it is"
            check_toml(block.text, where)
            (folder / file[1]).write_text(block.text)
        elif block.kind == "yaml":
            assert all("kind" in part for part in yaml.safe_load_all(block.text)), where
        elif block.kind == "sh":
            for command in commands(block.text):
                run(command, where)
        else:
            assert block.kind in ("text", ""), f"{where}: a block of kind {block.kind} is not run"


def commands(text: str) -> Iterator[str]:
    """Command lines, continued ones joined, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        command = line.partition("  #")[0].strip()
        if command and not f"{command}\n".startswith(NOT_HERE):
            yield command


def run(command: str, where: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "retailrec", f"{where}: {command}"
    if arguments[0] == "simulate":  # small
        arguments += ["--users", "60", "--weeks", "30"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, f"{where}: {command}\n{found.output}\n{found.exception!r}"


def check_toml(text: str, where: str) -> None:
    """Refuse settings that make no sense."""
    given = tomllib.loads(text)
    if set(given) & {"limit", "budget"}:
        campaign_of(given)
    elif set(given) & {"receipts", "store"}:
        WeekSettings.model_validate(given)
    elif set(given) & RULES:
        assert set(given) <= RULES, where
    else:
        Settings(**given).model()


def test_the_docs_hold_blocks_of_every_kind() -> None:
    kinds = [block.kind for page in PAGES for block in blocks(page)]
    assert {"python", "sh", "toml"} <= set(kinds)
    assert kinds.count("python") >= 6


def test_every_page_stands_in_the_menu_but_the_lab_book() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = set(re.findall(r"([\w-]+\.md)$", menu, re.MULTILINE))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages - listed == {"experiments.md"}


def test_the_readme_is_short_and_begins_with_the_way_in() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 700
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[:2] == ["Install", "Your own file"]


def test_every_rule_stands_in_the_table() -> None:
    table = (
        (ROOT / "docs" / "recipes.md").read_text().partition("| rule | what |")[2].partition("\n\n")[0]
    )
    told = set(
        re.findall(r"`\[*(\w+)\]*`", "\n".join(row.split("|")[1] for row in table.split("\n")[2:]))
    )
    assert told == {f.name for f in fields(Rules)}


def test_every_endpoint_stands_in_the_table() -> None:
    page = (ROOT / "docs" / "serving.md").read_text().partition("| endpoint | scope |")[2]
    table = page.partition("\n\n")[0]
    source = (ROOT / "src/retailrec/serving/app.py").read_text()
    routes = re.findall(r'router\.(?:get|put|post|delete)\(\s*"([^"]+)"', source)
    assert len(routes) >= 20
    for route in routes:
        path = re.sub(r"\{shopper:id\}", "{id}", re.sub(r"\{(item|model|ruleset):id\}", r"{\1}", route))
        path = path.replace("/v1/items/{item}", "/v1/items/{id}").replace(
            "{id}/dismissals/", ".../dismissals/"
        )
        assert path.split("/v1/shoppers/...")[-1] in table, route


def test_every_test_that_a_page_promises_is_there() -> None:
    there = {file.name: file.read_text("utf-8") for file in (ROOT / "tests").glob("test_*.py")}
    for page in (ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))):
        for name in re.findall(r"`(?:tests/)?(test_\w+(?:\.py)?)`", page.read_text("utf-8")):
            assert name in there or any(f"def {name}(" in text for text in there.values()), (page, name)

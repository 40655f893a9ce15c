"""Every code block of the README and the docs runs, in order, page by page."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
from typer.testing import CliRunner

from retailrec.cli.app import app
from retailrec.data import RetailData
from retailrec.jobs.settings import Settings
from retailrec.jobs.week_settings import WeekSettings
from retailrec.offers.campaign import campaign_of
from retailrec.simulator.shop import Shop, small_data

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RULES = {"skip_bought_days", "max_per_category", "min_new", "deny", "forbid", "price_floor", "margin"}
# makes a virtual environment, takes minutes on the real year, or asks for files that nobody may ship
NOT_HERE = (
    "make ",
    "pip ",
    "retailrec simulate --preset complete-journey",
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


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the docs speak of, small."""
    folder = tmp_path_factory.mktemp("docs")
    data = small_data(users=60, weeks=40)
    lines = lines_of(data)
    (folder / "shop").mkdir()
    lines.write_csv(folder / "shop" / "transactions.csv")
    data.items.select("item_id", "name", "category_1").write_csv(folder / "shop" / "items.csv")
    mine = lines.rename({"user_id": "client", "item_id": "sku", "time": "date", "basket_id": "receipt"})
    mine = mine.rename({"quantity": "units", "value": "paid"})
    mine.write_csv(folder / "receipts.csv")
    lines.write_csv(folder / "receipts_so_far.csv")
    (folder / "exports").mkdir()
    lines.write_csv(folder / "exports" / "until-today.csv")
    lines.select("user_id").unique().head(3).write_csv(folder / "wanted.csv")
    lines.select("item_id").unique().head(20).write_csv(folder / "eligible.csv")
    sent = lines.select("user_id").unique().head(9).with_columns(campaign_id=1)
    sent.write_csv(folder / "sent.csv")
    products = lines.select("item_id").unique().head(30).with_columns(campaign_id=1)
    products.write_csv(folder / "products.csv")
    pairs = lines.select("user_id", "item_id").unique(maintain_order=True).head(40)
    pairs.write_csv(folder / "deny.csv")
    pairs.select("item_id").unique().with_columns(margin=1.0).write_csv(folder / "margin.csv")
    ranked = pairs.with_columns(rank=pl.int_range(1, pl.len() + 1).over("user_id"))
    ranked.write_csv(folder / "theirs.csv")
    ranked.write_parquet(folder / "ours.parquet")
    pairs.with_columns(value=2.0, price=1.0).write_csv(folder / "bought.csv")
    sheets = folder / "path" / "to" / "online_retail_ii"
    sheets.mkdir(parents=True)
    online_retail(lines).write_csv(sheets / "sheet.csv")
    Shop(users=60, items=400, weeks=30).write(folder / "supermarket", truth_days=28)
    return folder


def lines_of(data: RetailData) -> pl.DataFrame:
    return data.log.select(
        data.users["user_id"].gather(data.log["user"]),
        data.items["item_id"].gather(data.log["item"]),
        pl.col("time").dt.to_string("%Y-%m-%d %H:%M:%S"),
        pl.col("basket").alias("basket_id"),
        pl.col("quantity").cast(pl.Int64),
        "value",
    )


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
def test_every_block_runs(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sandbox)
    names: dict[str, object] = {}
    for block in blocks(page):
        where = f"{page.name}, line {block.line}"
        if block.kind == "python":
            exec(compile(block.text, where, "exec"), names)
        elif block.kind == "toml":
            (sandbox / check_toml(block.text, where)).write_text(block.text)
        elif block.kind == "sh":
            for command in commands(block.text):
                run(command, where)
        else:
            assert block.kind in ("text", ""), f"{where}: a block of kind {block.kind} is not run"


def commands(text: str) -> Iterator[str]:
    """Command lines, continued ones joined, without comments."""
    for line in text.replace("\\\n", " ").splitlines():
        command = line.partition("  #")[0].strip()
        if command and not command.startswith(NOT_HERE) and command != "retailrec run complete-journey":
            yield command


def run(command: str, where: str) -> None:
    program, *arguments = shlex.split(command)
    assert program == "retailrec", f"{where}: {command}"
    if arguments[:2] == ["simulate", "--out"]:
        arguments += ["--users", "60", "--weeks", "30"]
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, f"{where}: {command}\n{found.output}\n{found.exception!r}"


def check_toml(text: str, where: str) -> str:
    """Settings that make sense; the name of the file that the page's commands read them from."""
    given = tomllib.loads(text)
    if set(given) & {"limit", "budget"}:
        campaign_of(given)
        return "campaign.toml"
    if set(given) & {"receipts", "store"}:
        WeekSettings.model_validate(given)
        return "week.toml"
    if set(given) & RULES:
        assert set(given) <= RULES, where
    else:
        Settings(**given).model()
    return "rules.toml"


def test_the_docs_hold_blocks_of_every_kind() -> None:
    kinds = [block.kind for page in PAGES for block in blocks(page)]
    assert {"python", "sh", "toml"} <= set(kinds)
    assert kinds.count("python") >= 6


def test_every_page_stands_in_the_menu_but_the_lab_book() -> None:
    menu = (ROOT / "mkdocs.yml").read_text().partition("\nnav:")[2]
    listed = set(re.findall(r"([\w-]+\.md)$", menu, re.MULTILINE))
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages - listed == {"experiments.md"}

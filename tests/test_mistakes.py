"""Forty mistakes that people make: each is one sentence that says what to do, and nothing is written."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from cli_support import refused, retailrec
from retailrec import (
    RetailData,
    Rules,
    Settings,
    TwoStageRecommender,
    backtest,
    check_leaks,
    compare_models,
    evaluate,
    load_dataset,
    small_data,
)
from retailrec.candidates import Popularity
from retailrec.checks import Weeks, run_checks
from retailrec.data.changed_ids import ChangedIds
from retailrec.errors import DataError, RetailRecError
from retailrec.offers.allocation import allocate
from retailrec.offers.arms import arm_of, assign_arms
from retailrec.offers.counterfactual import judge_impressions
from retailrec.offers.experiments import Design, effects_of, outcomes, required_shoppers
from retailrec.offers.exploration import explore
from retailrec.offers.ledger import Ledger
from retailrec.rankers import LightGBMRanker
from retailrec.serving.experiment import Arm, Experiment
from retailrec.simulator.responses import Responses
from retailrec.simulator.shop import write_examples

QUICK = """
label_windows = 1
threads = 1
[ranker]
type = "lightgbm"
iterations = 3
[[sources]]
type = "own_purchases"
[[sources]]
type = "popularity"
"""
FILES = {
    "quick.toml": QUICK,
    "profil.toml": 'profil = "small"\n',
    "k0.toml": "k = 0\n",
    "own-source.toml": '[[sources]]\ntype = "my_source"\n',
    "own-feature.toml": 'drop_features = ["my_feature"]\n',
    "als.toml": '[[sources]]\ntype = "als"\nfactor = 3\n',
    "ranker.toml": 'ranker = "catboost"\n',
    "source.toml": 'sources = ["popularity"]\n',
    "scan.csv": "%PDF-1.7 and so on",
    "rules.toml": "max_per_categori = 2\n",
    "per-category.toml": "max_per_category = 2\n",
    "empty.csv": "",
    "twice.csv": "user_id,user_id,item_id,time\n1,1,2,2024-01-01\n",
    "months.csv": "user_id,item_id,time\n1,2,01/02/2024\n1,3,03/04/2024\n",
    "ragged.csv": "user_id,item_id,time\n1,2,2024-01-01\n1,3,2024-01-01,5\n",
    "strangers.csv": "user_id\n999999\n",
    "lists-of-strangers.csv": "user_id,item_id,rank\n999999,1,1\n",
    "clients.csv": "client\n1\n",
    "skus.csv": "sku\n1\n",
    "bought-theirs.csv": "who,what\n1,2\n",
    "list-theirs.csv": "user_id,item_id\n1,2\n",
}
RUN = "run table shop --config quick.toml --out o"
RECOMMEND = "recommend --model out/model --history shop --out o.csv"

MISTAKES = [
    # what is loaded
    ("run tabel shop --out o", "there is no data set 'tabel'; expected one of"),
    ("run table shopp --out o", "there is no file or folder at shopp; check the path"),
    ("run table --out o", "needs the path of its files"),
    ("run complete-journey wrong --out o", "expected a file named transaction_data"),
    ("run instacart wrong --out o", "holds no order_products__prior.csv"),
    ("run table empty.csv --out o", "empty.csv is empty; expected a header"),
    ("run table shop/items.csv --out o", "lack columns 'user_id', 'time'"),
    (
        "run table receipts.csv --out o",
        "--columns user_id=client,item_id=sku,time=date,basket_id=receipt,quantity=units,value=paid.",
    ),
    ("run table till.csv --out o", "user_id=Kunde,item_id=Artikel,time=Datum+Uhrzeit,basket_id=Bon"),
    ("run table twice.csv --out o", "two columns called 'user_id'"),
    ("run table months.csv --out o", "--time-format '%m/%d/%Y' or '%d/%m/%Y'"),
    ("run table ragged.csv --out o", "ragged.csv: line 3 has more fields"),
    (f"{RUN} --colums user_id=x", "No such option: --colums (is it one of --columns"),
    (f"{RUN} --columns user=x", "names ['user'], which mean nothing here"),
    ("run table receipts.csv --columns user_id=clint --out o", "Correct the mapping: 'client'?"),
    (f"{RUN} --time-format %d.%m.%Y", "is not written as '%d.%m.%Y'"),
    (f"{RUN} --encoding cp125", "encoding 'cp125' is not known; expected a name such as"),
    (f"{RUN} --where event=transaction", "there is no column 'event'"),
    (f"{RUN} --until 2035-01-01", "no receipt comes later, the last is of"),
    (f"{RUN} --until yesterday", "until must be an instant, such as"),
    # what is asked of it
    ("runn table shop", "No such command 'runn'. Did you mean 'run'?"),
    ("run table shop --k 0 --out o", "setting 'k' is 0; it must be greater than or equal to 1."),
    (f"{RUN} --k 99999", "more than the 600 items"),
    (f"{RUN} --horizon-days 999", "no more than the horizon of 999 days"),
    ("run table shop --config profil.toml --out o", "there is no setting 'profil'; 'profile'?"),
    ("run table shop --config nope.toml --out o", "config nope.toml can't be read"),
    ("run table shop --config own-source.toml --out o", "there is no source 'my_source'"),
    ("run table shop --config own-feature.toml --out o", "'my_feature'; one of your own is known once"),
    ("run table shop --config als.toml --out o", "no parameter 'factor'; 'factors'?"),
    (f"{RUN} --rules rules.toml", "there is no rule 'max_per_categori'; 'max_per_category'?"),
    (
        "run table receipts_so_far.csv --rules per-category.toml --out o",
        "rules: the catalogue lacks 'category_1'; it has ids alone",
    ),
    (f"{RUN} --with nam", "--with names 'nam'; expected some of name, brand"),
    (f"{RUN} --rejects r.txt", "r.txt must end in .parquet or .csv"),
    (f"{RUN} --engine sparc", "--engine must be local or spark, not 'sparc'"),
    (f"{RUN} --slots replenish=3,discove=2", "there is no purpose 'discove'"),
    ("run table shop --out receipts.csv", "is a file; name a folder"),
    # a saved model
    ("recommend --model nope --history shop --out o.csv", "nope is no folder of a saved model"),
    ("recommend --model shop --history shop --out o.csv", "shop holds no saved model"),
    (
        "recommend --model out --history other.csv --out o.csv",
        "Are the receipts of the shop that the model was fitted on",
    ),
    (f"{RECOMMEND} --k 99999", "k=99999 is more than the 600 items that the model knows"),
    (f"{RECOMMEND} --users strangers.csv", "none of the 1 ids of strangers.csv is among"),
    (
        f"{RECOMMEND} --previous lists-of-strangers.csv --steady 0.2",
        "none of the 1 ids of the previous lists is among those of the shoppers",
    ),
    (f"{RECOMMEND} --users clients.csv", "lack column 'user_id'; they have ['client']"),
    (f"{RECOMMEND} --among skus.csv", "among lacks id columns; it has ['sku']"),
    (f"{RECOMMEND} --purpose discover", "this model has learnt none"),
    (f"{RECOMMEND} --at soon", "at must be an instant"),
    (f"{RECOMMEND} --decimal , --separator ,", "that is not the decimal mark"),
    (f"{RECOMMEND} --import nomodule", "--import nomodule: the module can't be imported"),
    ("recommend --model out --history shop --out o.txt", "must end in .parquet, .csv or .xlsx"),
    ("recommend --model out --history shop --out shop/items.csv", "is an input of the same command"),
    # what is judged and offered
    ("evaluate --recommendations theirs.csv --truth bought-theirs.csv", "they have ['who', 'what']"),
    ("evaluate --recommendations list-theirs.csv --truth bought.csv", "lack columns ['rank']"),
    ("evaluate --recommendations out --truth bought.csv", "name out/judged.parquet"),
    (
        "evaluate --recommendations theirs.csv --truth bought.csv --metrics precison@5",
        "there is no metric 'precison'",
    ),
    (
        "evaluate --recommendations theirs.csv --truth bought.csv --columns rank=place",
        "no file has a column 'place'",
    ),
    ("check receipts_so_far.csv --only dats", "there is no check 'dats'"),
    ("backtest table shop --folds 50 --out o", "too short for 50 folds"),
    (
        "allocate scores.csv rules.toml --out o",
        "rules.toml lacks 'name'; is it the file of a campaign?",
    ),
    ("allocate theirs.csv spring.toml --out o", "calibrate = true"),
    ("allocate scores.csv spring.toml --out o", "pairs lack column 'margin'"),
    ("features --import nomodule", "the module can't be imported"),
    # and ten more
    ("run", "Missing argument 'dataset'. It is "),
    ("recommend --model out --history shop", "Missing option '--out'. See: "),
    (f"{RECOMMEND} --in-store NORTH", "--in-store NORTH needs --rules with what stores have"),
    ("tune table shop --study st --out receipts.csv", "--out receipts.csv must end in .toml"),
    ("check-leaks table shop --max-users 0", "Invalid value for '--max-users'"),
    (f"{RUN} --columns ,", "expected standard=yours pairs"),
    (f"{RUN} --columns time=a,time=b", "names 'time' twice"),
    ("run table shop --config ranker.toml --out o", 'must be a table, such as { type = "catboost" }'),
    ("run table shop --config source.toml --out o", 'must be a table, such as { type = "popularity" }'),
    ("run table scan.csv --out o", "scan.csv holds no text: it is a PDF; export its table as CSV"),
    (
        "store forgotten receipts.csv --store s.db",
        "receipts.csv can't be read as a list of forgotten ids",
    ),
    ("serve --model shop --store s.db", "--model shop holds no saved model"),
    (
        "experiment counterfactual --ledger no.parquet --receipts shop --policy theirs.csv",
        "there is no ledger at no.parquet: there is nothing",
    ),
    (f"{RECOMMEND} --model shop/items.csv", "shop/items.csv is no folder of a saved model"),
    ("week --config till.toml", "say either receipts = 'FOLDER or FILE' or store = 'STORE'"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples' shop, files with mistakes, and a small model in `out`."""
    folder = tmp_path_factory.mktemp("mistakes")
    write_examples(folder)
    for name, text in FILES.items():
        (folder / name).write_text(text)
    (folder / "wrong").mkdir()
    lines = pl.read_csv(folder / "receipts_so_far.csv")
    lines.with_columns(pl.col("item_id") + 10**6).write_csv(folder / "other.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = retailrec(*shlex.split("run table shop --config quick.toml --no-report --out out"))
        assert retailrec("store", "init", "--store", "s.db").returncode == 0
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.parametrize(("command", "told"), MISTAKES, ids=[command for command, _ in MISTAKES])
def test_a_mistake_is_one_sentence(
    place: Path, command: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    before = {*place.iterdir()}
    run = retailrec(*shlex.split(command))
    refused(run, told)
    assert run.stderr.startswith("error: ")
    assert run.stderr.strip().count("\n") == 0
    assert {*place.iterdir()} == before


def test_there_are_forty() -> None:
    assert len({command for command, _ in MISTAKES}) == len(MISTAKES) >= 40


def test_a_run_s_folder_stands_for_its_model(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for model, out in (("out", "a.csv"), ("out/model", "b.csv")):
        command = f"recommend --model {model} --history shop --k 3 --out {out}"
        assert retailrec(*shlex.split(command)).returncode == 0
    assert (place / "a.csv").read_bytes() == (place / "b.csv").read_bytes()


SHOP = small_data(users=20)
LINES = pl.DataFrame({"user_id": [1] * 60, "item_id": ["tea"] * 60})
LINES = LINES.with_columns(
    time=pl.datetime_range(datetime(2024, 1, 1), datetime(2024, 2, 29), "1d", eager=True)
)
PAIRS = pl.DataFrame({"user_id": [1, 1, 2], "item_id": ["a", "b", "a"], "value": [3.0, 2, 4]})
SHARES = {"a": 0.5, "b": 0.5}
HALVES = np.full(800, 0.5)
ARMS = pl.DataFrame({"holdout": [True, False] * 2, "spend_before": [1.0] * 4, "spend": [1.0, 2, 3, 4]})
CALLS: list[tuple[Callable[..., Any], dict[str, Any]]] = [
    (RetailData.from_frames, {"transactions": LINES, "columns": {}, "rules": (), "item_columns": ()}),
    (SHOP.asof, {"t": SHOP.end}),
    (load_dataset, {"name": "table", "path": "lines.parquet", "where": (), "columns": None}),
    (small_data, {"users": np.int64(20), "weeks": 30, "seed": 0}),
    (Responses, {"uplift": np.float32(0.5), "seed": 0}),
    (TwoStageRecommender, {"sources": [Popularity()], "prefilters": (), "ranker": LightGBMRanker()}),
    (Rules, {"more": (), "forbid": (), "min_new": 0}),
    (evaluate, {"recommendations": PAIRS, "truth": PAIRS, "metrics": ["precision@1"]}),
    (backtest, {"data": SHOP, "models": {"a": Popularity()}, "n_folds": 1, "horizon_days": 7}),
    (check_leaks, {"data": SHOP, "max_users": 5, "seed": 0}),
    (compare_models, {"values": {"a": {"m": np.arange(9.0)}}, "level": 0.9, "resamples": 100}),
    (allocate, {"pairs": PAIRS, "campaign": {"name": "x"}, "ledger": None, "threads": 1}),
    (arm_of, {"user": 1, "shares": SHARES, "salt": "x"}),
    (assign_arms, {"ids": pl.Series([1, 2]), "shares": SHARES, "salt": "x"}),
    (
        explore,
        {"scores": [1], "items": [7], "users": [2], "k": 1, "rate": np.float64(0.5), "salt": "x"},
    ),
    (judge_impressions, {"reward": [0, 1] * 400, "logged": HALVES, "new": HALVES, "draws": 100}),
    (outcomes, {"data": SHOP, "user_ids": pl.Series([1]), "days": 7, "start": datetime(2024, 1, 1)}),
    (Design, {"control_share": 0.1, "power": 0.8, "level": 0.95, "correlation": 0.0}),
    (required_shoppers, {"sd": 1.0, "effect": 0.1, "design": None}),
    (
        effects_of,
        {"table": ARMS, "metrics": ["spend"], "segment": "spend_before", "level": 0.9},
    ),
    (Settings, {"k": 5, "sources": None, "slots": {"mixed": 2}, "horizon_days": 28, "refit": "once"}),
    (Arm, {"share": 0.5, "model": "new", "purpose": None, "ruleset": None, "explore": 0.1}),
    (Experiment, {"holdout": 0.1, "arms": {"a": Arm(share=1)}, "formula": None, "salt": ""}),
    (Ledger, {"folder": Path("ledger"), "changed_ids": ChangedIds()}),
    (run_checks, {"weeks": Weeks(LINES), "names": ["no_lines"]}),
    (Weeks, {"lines": LINES, "past": None, "closed": ()}),
]
WRONG = [
    None,
    "x",
    "",
    -1,
    10**30,
    1.5,
    math.nan,
    True,
    [],
    [None],
    {"a": None},
    object(),
    np.ones(2),
    pl.DataFrame(),
]


@pytest.mark.parametrize(("function", "arguments"), CALLS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_wrong_argument_in_python_is_answered_in_words(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever comes instead of one argument: it will do, or the error is one of ours."""
    monkeypatch.chdir(tmp_path)
    LINES.write_parquet("lines.parquet")
    with suppress(DataError):  # receipts may be too short for what is asked
        function(**arguments)
    refusals = 0
    for name, wrong in product(arguments, WRONG):
        try:
            function(**{**arguments, name: wrong})
        except RetailRecError as error:
            refusals += len(str(error)) > 20
    assert refusals >= len(WRONG) // 2

"""Purposes and slots as settings files, the command line, files of lists and `run` ask for them."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from purposes_support import SLOTS, fitted_model, quick, small_shop
from retailrec.candidates import OwnPurchases, Popularity
from retailrec.cli.app import app
from retailrec.data import RetailData
from retailrec.data.prefilters import preset
from retailrec.data.splits import Fold, Split
from retailrec.errors import SettingError
from retailrec.jobs.run import run
from retailrec.jobs.settings import Settings, read_settings
from retailrec.recommender.batch import recommend_to_file
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.request import check_slots, parse_slots
from retailrec.recommender.two_stage import TwoStageRecommender


@pytest.fixture(scope="module")
def shop_data() -> RetailData:
    return small_shop()


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    return fitted_model()


def test_slots_are_read_from_a_line() -> None:
    assert parse_slots("discover=2,replenish= 3") == {"discover": 2, "replenish": 3}
    for text in ("", "discover", "discover=two", "discover=-1", "discover=2;replenish=1", "=3"):
        with pytest.raises(SettingError, match="slots"):
            parse_slots(text)
    assert check_slots({"mixed": np.int64(2), "discover": 0}) == {"mixed": 2}


def test_settings_files_name_new_items_and_slots(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        "[discover]\nafter_days = 90\nn_candidates = 30\n"
        '[[discover.sources]]\ntype = "up_cf"\n[slots]\nreplenish = 3\ndiscover = 2\n'
    )
    read = read_settings(file)
    assert read.slots == SLOTS
    discovery = read.model().discover
    assert discovery is not None
    assert (discovery.after_days, discovery.n_candidates) == (90, 30)
    assert [s.type_name for s in discovery.sources] == ["up_cf"]
    assert Settings().model().discover is None
    for text, words in (
        ("[discover]\nafter_days = -1\n", "after_days"),
        ("[discover]\nspeed = 1\n", "speed"),
        ("[slots]\nreplenish = -2\n", "at least 0"),
    ):
        file.write_text(text)
        with pytest.raises(SettingError, match=words):
            read_settings(file)


@pytest.fixture(scope="module")
def saved(
    model: TwoStageRecommender, shop_data: RetailData, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("purposes")
    model.save(folder / "model")
    log = shop_data.log
    shop_receipts = log.select(
        shop_data.users["user_id"].gather(log["user"]),
        shop_data.items["item_id"].gather(log["item"]),
        "time",
        pl.col("basket").alias("basket_id"),
        "quantity",
        "value",
    )
    shop_receipts.write_parquet(folder / "receipts.parquet")
    return folder


def recommended(folder: Path, *more: str) -> Any:
    out = folder / "lists.parquet"
    given = ["--model", f"{folder / 'model'}", "--history", f"{folder / 'receipts.parquet'}"]
    return CliRunner().invoke(app, ["recommend", *given, "--out", f"{out}", *more])


def test_the_command_line_takes_purposes_and_slots(model: TwoStageRecommender, saved: Path) -> None:
    known = pl.read_parquet(saved / "receipts.parquet")
    assert recommended(saved, "--k", "4", "--purpose", "discover").exit_code == 0
    lists = pl.read_parquet(saved / "lists.parquet")
    assert lists.equals(model.recommend(known, k=4, purpose="discover"))
    assert recommended(saved, "--slots", "replenish=3,discover=2", "--reasons").exit_code == 0
    lists = pl.read_parquet(saved / "lists.parquet")
    assert lists.equals(model.explain(known, slots=SLOTS))
    for more, words in (
        (["--purpose", "sell"], "no purpose 'sell'"),
        (["--slots", "discover"], "purpose=number"),
        (["--slots", ""], "purpose=number"),
    ):
        failed = recommended(saved, *more)
        assert isinstance(failed.exception, SettingError)
        assert words in str(failed.exception)


def test_blocks_of_a_file_are_told_as_one_answer(
    model: TwoStageRecommender, shop_data: RetailData, tmp_path: Path
) -> None:
    out, short = tmp_path / "lists.parquet", {"replenish": 400, "discover": 2}
    batch = recommend_to_file(model, shop_data, out, slots=short, block_lines=3000)
    answer = model.answer(shop_data, slots=short)
    assert pl.read_parquet(out).equals(answer.lists)
    assert batch.report.short_slots == answer.report.short_slots
    assert batch.report.short_slots["replenish"] > 0
    assert [n for n in batch.report.notes if "filled up" in n] == [
        n for n in answer.report.notes if "filled up" in n
    ]


def test_a_file_for_another_purpose_takes_over_no_block(
    model: TwoStageRecommender, shop_data: RetailData, tmp_path: Path
) -> None:
    out = tmp_path / "lists.parquet"

    def stop(step: str, done: int = 0, total: int = 0, /) -> None:
        if done > 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recommend_to_file(model, shop_data, out, 4, key="m", block_lines=3000, progress=stop)
    other = recommend_to_file(model, shop_data, out, 4, key="m", block_lines=3000, purpose="discover")
    assert other.n_taken_over == 0
    assert pl.read_parquet(out).equals(model.recommend(shop_data, k=4, purpose="discover"))


def test_a_file_that_cannot_be_answered_for_is_refused_before_any_work(
    shop_data: RetailData, tmp_path: Path
) -> None:
    plain = quick(discover=None, sources=[OwnPurchases(), Popularity()]).fit(shop_data)
    with pytest.raises(SettingError, match="has learnt none"):
        recommend_to_file(plain, shop_data, tmp_path / "lists.parquet", purpose="discover")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def ran(shop_data: RetailData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    quickly = Settings(
        horizon_days=28,
        label_windows=2,
        threads=1,
        slots=SLOTS,
        n_candidates=20,
        ranker={"type": "lightgbm", "iterations": 10},
        discover={"n_candidates": 15},
        sources=[{"type": "own_purchases"}, {"type": "popularity"}, {"type": "item_item"}],
    )
    run(shop_data, quickly, out)
    return out


def test_run_judges_each_purpose_by_its_own_truth(shop_data: RetailData, ran: Path) -> None:
    found = {p["purpose"]: p for p in json.loads((ran / "metrics.json").read_text())["purposes"]}
    assert list(found) == ["replenish", "discover"]
    past, target = Fold(shop_data.end - timedelta(days=28), shop_data.end).split(shop_data)
    pairs = target.select("user", "item").unique()
    repeats = pairs.join(past.log.select("user", "item").unique(), on=["user", "item"], how="semi")
    assert found["replenish"]["n_bought"] == repeats.height
    assert found["replenish"]["n_users"] == repeats["user"].n_unique()
    news = pairs.join(repeats, on=["user", "item"], how="anti")
    known = news.filter(pl.col("user").is_in(past.log["user"].unique().implode()))
    assert found["discover"]["n_bought"] == known.height
    assert found["discover"]["n_users"] == known["user"].n_unique()
    for purpose in found.values():
        assert set(purpose["models"]) == {"own_purchases", "popular", "item_cosine", "two_stage"}
        assert "best simple method" in purpose["verdict"]
    assert found["discover"]["models"]["own_purchases"]["precision@5"] == 0  # has nothing new to offer
    assert found["discover"]["models"]["two_stage"]["precision@5"] > 0


def test_bestsellers_held_to_new_items_are_judged_as_by_hand(shop_data: RetailData, ran: Path) -> None:
    found = json.loads((ran / "metrics.json").read_text())["purposes"][1]
    past, target = Fold(shop_data.end - timedelta(days=28), shop_data.end).split(shop_data)
    past = Split(past, target).filtered(preset("default")).past
    popular, own = Popularity().fit(past), bought_codes(past.log)
    hits, shoppers = 0, 0
    order = popular.candidates(past.history(codes=[0]), past.n_items).items[0]
    for user in target["user"].unique().sort():
        wanted = {i for u, i in bought_codes(target.filter(user=user)) if (u, i) not in own}
        if not wanted or (user not in {u for u, _ in own}):
            continue
        best = [i for i in order if i >= 0 and (user, i) not in own][:5]
        hits, shoppers = hits + len(wanted & set(best)), shoppers + 1
    expected = pytest.approx(hits / 5 / shoppers)
    assert found["models"]["popular"]["precision@5"] == expected


def bought_codes(log: pl.DataFrame) -> set[tuple[int, int]]:
    return set(log.select("user", "item").rows())


def test_run_writes_slots_and_reports_purposes(shop_data: RetailData, ran: Path) -> None:
    lists = pl.read_parquet(ran / "recommendations.parquet")
    loaded = TwoStageRecommender.load(ran / "model")
    assert lists.equals(loaded.recommend(shop_data, slots=SLOTS))
    page = (ran / "report.html").read_text()
    for words in (
        "Replenish: what is bought again",
        "purchases of what was new to them by",
        'id="purposes"',
    ):
        assert words in page


def test_run_says_nothing_of_purposes_unless_asked() -> None:
    assert Settings().purposes == ("mixed",)
    assert Settings(discover={}).purposes == ("mixed", "discover")
    assert Settings(slots={"replenish": 5}).purposes == ("replenish",)
    assert Settings(slots={"replenish": 5}).model().discover is None
    assert Settings(slots=SLOTS).model().discover == Discovery()

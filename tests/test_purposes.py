"""Purposes: what is bought again, what is new, and slots of both; nobody's list holds the wrong kind."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from conftest import catalogue, receipts, shoppers
from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.cli.app import app
from retailrec.data import RetailData
from retailrec.data.prefilters import preset
from retailrec.data.splits import Fold, HorizonSplits, Split
from retailrec.errors import SettingError
from retailrec.jobs.run import run
from retailrec.jobs.settings import Settings, read_settings
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.artifact import _data_name
from retailrec.recommender.batch import recommend_to_file
from retailrec.recommender.discovery import Discovery
from retailrec.recommender.purposes import owned_pairs, purchases_for
from retailrec.recommender.rules import Rules
from retailrec.recommender.slots import check_slots, parse_slots
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.report.purpose_section import purpose_sections
from retailrec.simulator.shop import small_data

SLOTS = {"replenish": 3, "discover": 2}


def quick(**more: Any) -> TwoStageRecommender:
    chosen = {
        "sources": [
            OwnPurchases("decay"),
            Popularity(),
            ItemItem("tfidf", neighbours=10),
            ALS(factors=4, iterations=2),
        ],
        "ranker": LightGBMRanker(iterations=10, threads=1),
        "n_candidates": 20,
        "label_splits": HorizonSplits(28, n=2),
        "discover": Discovery(n_candidates=15),
        "threads": 1,
    }
    return TwoStageRecommender(**(chosen | more))


@pytest.fixture(scope="module")
def shop_data() -> RetailData:
    return small_data(users=60, weeks=40)


@pytest.fixture(scope="module")
def model(shop_data: RetailData) -> TwoStageRecommender:
    return quick().fit(shop_data)


def bought(data: RetailData) -> set[tuple[Any, Any]]:
    """(user_id, item_id) of all receipts."""
    users, items = data.users["user_id"], data.items["item_id"]
    pairs = data.log.select("user", "item").unique().rows()
    return {(users[u], items[i]) for u, i in pairs}


def pairs_of(lists: pl.DataFrame) -> set[tuple[Any, Any]]:
    return set(lists.select("user_id", "item_id").rows())


def test_discover_holds_nothing_owned_and_replenish_nothing_else(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    owned = bought(shop_data)
    new = model.recommend(shop_data, k=10, purpose="discover")
    again = model.recommend(shop_data, k=10, purpose="replenish")
    assert new.height > 400
    assert not pairs_of(new) & owned
    assert again.height > 400
    assert pairs_of(again) <= owned
    mixed = pairs_of(model.recommend(shop_data, k=60))
    assert mixed & owned
    assert mixed - owned


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    rules=st.sampled_from(
        [
            None,
            Rules(max_per_category=1),
            Rules(min_new=2, variety=0.3),
            Rules(price_ceiling=2.0),
            Rules(skip_bought_days=30, unless_due=False),
        ]
    ),
)
def test_whatever_the_receipts_and_rules_each_purpose_keeps_to_its_kind(
    model: TwoStageRecommender, shop_data: RetailData, seed: int, k: int, rules: Rules | None
) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    lines = pl.DataFrame(
        {
            "user_id": rng.integers(0, 5, n),
            "item_id": rng.choice(shop_data.items["item_id"].to_numpy(), n),
            "time": [shop_data.end - timedelta(days=int(d)) for d in rng.integers(1, 200, n)],
        }
    )
    owned = set(lines.select("user_id", "item_id").rows())
    for purpose, kind in (("discover", False), ("replenish", True)):
        lists = model.recommend(lines, k=k, rules=rules, purpose=purpose)  # type: ignore[arg-type]
        assert all((pair in owned) is kind for pair in pairs_of(lists))
    slots = model.recommend(lines, rules=rules, slots={"discover": k, "replenish": 2})
    assert not slots.select("user_id", "item_id").is_duplicated().any()
    for user, item, purpose in slots.select("user_id", "item_id", "purpose").iter_rows():
        assert ((user, item) in owned) == (purpose == "replenish")


def test_mixed_is_the_list_of_a_model_without_purposes(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    without = quick(discover=None).fit(shop_data).recommend(shop_data, k=8)
    assert model.recommend(shop_data, k=8, purpose="mixed").equals(without)
    assert model.recommend(shop_data, slots={"mixed": 8}).equals(without)


def test_replenish_is_todays_list_without_what_is_new(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    owned = bought(shop_data)
    mixed = model.recommend(shop_data, k=60)
    own = [(u, i) in owned for u, i in mixed.select("user_id", "item_id").iter_rows()]
    expected = mixed.filter(pl.Series(own)).group_by("user_id", maintain_order=True).head(5)
    found = model.recommend(shop_data, k=5, purpose="replenish")
    assert found.select("user_id", "item_id", "score").equals(
        expected.select("user_id", "item_id", "score")
    )


def test_an_item_is_new_again_after_so_many_days(shop_data: RetailData) -> None:
    lapsed = quick(discover=Discovery(after_days=90, n_candidates=30)).fit(shop_data)
    lists = pairs_of(lapsed.recommend(shop_data, k=20, purpose="discover"))
    recent = shop_data.between(shop_data.end - timedelta(days=90), shop_data.end)
    assert not lists & bought(replace(shop_data, log=recent))
    assert lists & bought(shop_data)


def test_each_source_is_asked_for_new_items_before_the_cut(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    history = shop_data.history()
    owned = owned_pairs(history)
    for source in model.sources_:
        found = source.candidates(history, 15, owned).items
        every = source.candidates(history, shop_data.n_items).items
        for row in range(len(history)):
            own = set(history.items[history.indptr[row] : history.indptr[row + 1]])
            expected = [i for i in every[row] if i >= 0 and i not in own][:15]
            assert [i for i in found[row] if i >= 0] == expected, source.name


def test_a_source_proposes_for_new_items_alone_and_leaves_mixed_as_it_was(
    shop_data: RetailData, model: TwoStageRecommender
) -> None:
    more = Discovery(n_candidates=[0, 10, 10, 10, 25], sources=[TifuKNN(neighbours=5)])
    fitted = quick(discover=more).fit(shop_data)
    columns = fitted.stage_for("discover").column_names
    assert "source_tifu_knn_score" in columns
    assert "source_tifu_knn_score" not in fitted.column_names
    assert fitted.recommend(shop_data, k=8).equals(model.recommend(shop_data, k=8))


def test_labels_of_new_items_are_new_purchases() -> None:
    times = [datetime(2024, 1, 1), datetime(2024, 3, 1), datetime(2024, 4, 2)]
    lines = [("a", 1, times[0]), ("a", 2, times[1]), ("a", 1, times[2]), ("a", 2, times[2])]
    lines += [("a", 3, times[2]), ("b", 1, times[2])]
    data = RetailData.from_frames(
        pl.DataFrame(lines, schema=["user_id", "item_id", "time"], orient="row")
    )
    cut = datetime(2024, 4, 1)
    past, target = data.asof(cut), data.between(cut, data.end)

    def items(purpose: Any, after_days: float | None = None) -> list[tuple[int, int]]:
        return sorted(purchases_for(purpose, past, target, after_days).select("user", "item").rows())

    assert items("discover") == [(0, 2), (1, 0)]
    assert items("discover", 60) == [(0, 0), (0, 2), (1, 0)]
    assert items("discover", 31) == [(0, 0), (0, 2), (1, 0)]
    assert items("discover", 30) == [(0, 0), (0, 1), (0, 2), (1, 0)]
    assert items("replenish") == [(0, 0), (0, 1)]
    assert len(items("mixed")) == 4


def test_training_rows_of_new_items_hold_no_owned_pair_and_only_new_labels(
    shop_data: RetailData,
) -> None:
    fitted = quick(discover=Discovery(n_candidates=15)).fit(shop_data, keep_rows=True)
    rows = fitted._windows["discover"].rows
    receipts_of_pair = rows.x[:, rows.names.index("pair_receipts")]
    assert len(rows.y) > 500
    assert rows.y.sum() > 20
    assert not (receipts_of_pair > 0).any()
    usual = fitted.training_rows
    assert usual is not None
    assert (usual.x[:, usual.names.index("pair_receipts")] > 0).any()
    for facts in fitted.report_["discover_windows"]:
        assert 0 < facts["bought_and_proposed"] <= facts["bought"]


def test_slots_come_in_their_order_and_no_item_stands_twice(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    answer = model.answer(shop_data, slots=SLOTS)
    lists = answer.lists
    assert lists.columns == ["user_id", "item_id", "score", "rank", "purpose"]
    assert not lists.select("user_id", "item_id").is_duplicated().any()
    whole = lists.filter(pl.len().over("user_id") == 5).group_by("user_id", maintain_order=True)
    orders = {tuple(part["purpose"]) for _, part in whole}
    assert ("replenish",) * 3 + ("discover",) * 2 in orders
    usual = lists.filter(pl.col("rank") <= 3, pl.col("purpose") == "replenish")
    again = model.recommend(shop_data, k=3, purpose="replenish")
    assert pairs_of(usual) == pairs_of(again)


def test_what_one_purpose_lacks_the_other_fills_and_the_report_says_so(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    item = shop_data.items["item_id"][int(shop_data.log["item"].mode()[0])]
    one = pl.DataFrame({"user_id": [901, 902], "item_id": [item, item], "time": [shop_data.end] * 2})
    one = one.with_columns(time=pl.col("time") - timedelta(days=3))
    answer = model.answer(one, users=[901, 902, 903], slots=SLOTS)
    lists = answer.lists
    assert lists.group_by("user_id").len()["len"].to_list() == [5, 5, 5]
    assert lists.filter(user_id=901)["purpose"].to_list() == ["replenish"] + ["discover"] * 4
    assert lists.filter(user_id=903)["purpose"].to_list() == ["discover"] * 5
    assert lists["rank"].to_list() == [1, 2, 3, 4, 5] * 3
    assert answer.report.short_slots == {"replenish": 3, "discover": 0}
    told = "replenish had fewer than 3 items for 3 of 3 shoppers; discover filled up."
    assert told in answer.report.notes


def test_an_unknown_shopper_has_nothing_to_replenish_and_discovers_bestsellers(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    answer = model.answer(shop_data, users=[10**6], k=5, purpose="replenish")
    assert answer.lists.is_empty()
    assert any("no purchases to replenish" in note for note in answer.report.notes)
    assert model.recommend(shop_data, users=[10**6], k=5, purpose="discover").height == 5


def test_rules_hold_across_slots(model: TwoStageRecommender, shop_data: RetailData) -> None:
    rules = Rules(max_per_category=2)
    category = shop_data.items.select("item_id", "category_1")
    free = model.recommend(shop_data, slots=SLOTS).join(category, on="item_id")
    answer = model.answer(shop_data, rules=rules, slots=SLOTS)
    ruled = answer.lists.join(category, on="item_id")

    def most(lists: pl.DataFrame) -> int:
        return int(lists.group_by("user_id", "category_1").len()["len"].max())  # type: ignore

    assert answer.report.rules["max_per_category"]["gave_way"] == 0
    assert most(ruled) <= 2 < most(free)
    denied = answer.lists.select("user_id", "item_id")
    lists = model.recommend(shop_data, rules=Rules(deny=denied), slots=SLOTS)
    assert not pairs_of(lists) & pairs_of(denied)


def test_given_lists_are_ranked_by_kind(model: TwoStageRecommender, shop_data: RetailData) -> None:
    some = shop_data.items.select("item_id")[::5]
    owned, listed = bought(shop_data), set(some["item_id"])
    new = pairs_of(model.recommend(shop_data, k=5, among=some, purpose="discover"))
    again = pairs_of(model.recommend(shop_data, k=5, among=some, purpose="replenish"))
    assert new
    assert again
    assert not new & owned
    assert again <= owned
    assert {item for _, item in new | again} <= listed


def test_reasons_come_with_every_slot_and_new_items_are_not_called_habits(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    lists = model.explain(shop_data, slots=SLOTS)
    assert lists.columns[-2:] == ["purpose", "reasons"]
    assert lists["reasons"].str.len_chars().min() > 0  # type: ignore[operator]
    new = lists.filter(purpose="discover")["reasons"]
    assert not new.str.contains("last .* ago|due:").any()
    assert lists.filter(purpose="replenish")["reasons"].str.contains("bought").any()


def test_purposes_survive_saving(
    model: TwoStageRecommender, shop_data: RetailData, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    loaded = TwoStageRecommender.load(tmp_path / "model")
    assert loaded.discover == model.discover
    for purpose in ("mixed", "replenish", "discover"):
        expected = model.explain(shop_data, k=5, purpose=purpose)  # type: ignore[arg-type]
        assert loaded.explain(shop_data, k=5, purpose=purpose).equals(expected)  # type: ignore[arg-type]
    assert loaded.recommend(shop_data, slots=SLOTS).equals(model.recommend(shop_data, slots=SLOTS))


def test_a_model_that_learnt_nothing_new_says_what_to_do(shop_data: RetailData, tmp_path: Path) -> None:
    plain = quick(discover=None, sources=[OwnPurchases(), Popularity()]).fit(shop_data)
    plain.save(tmp_path / "model")
    for fitted in (plain, TwoStageRecommender.load(tmp_path / "model")):
        with pytest.raises(SettingError, match=r"Discovery\(\).*\[discover\]"):
            fitted.recommend(shop_data, purpose="discover")
        with pytest.raises(SettingError, match=r"Discovery\(\)"):
            fitted.recommend(shop_data, slots=SLOTS)
        assert fitted.recommend(shop_data, k=2, purpose="replenish").height > 50


def test_a_model_saved_before_there_were_purposes_loads_and_answers_as_it_did(
    shop_data: RetailData, tmp_path: Path
) -> None:
    plain = quick(discover=None, sources=[OwnPurchases(), Popularity()]).fit(shop_data)
    plain.save(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    described = manifest["model"]
    del described["settings"]["discover"]
    for name in [name for name in described["state"] if name.startswith("discover_")]:
        del described["state"][name]
    before, manifest["data"] = manifest["data"], _data_name(manifest["files"], described)
    assert before != manifest["data"]
    (tmp_path / before).rename(tmp_path / manifest["data"])
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    loaded = TwoStageRecommender.load(tmp_path)
    assert loaded.recommend(shop_data, k=5).equals(plain.recommend(shop_data, k=5))
    assert loaded.recommend(shop_data, k=2, purpose="replenish").height > 50
    with pytest.raises(SettingError, match="has learnt none"):
        loaded.recommend(shop_data, purpose="discover")


def test_new_items_have_a_ranker_of_their_own(shop_data: RetailData) -> None:
    fitted = quick().fit(shop_data)
    assert isinstance(fitted.discover_ranker_, LightGBMRanker)
    assert fitted.discover_ranker_.objective == "binary"
    assert fitted.ranker_.iterations == 10  # type: ignore[attr-defined]
    chosen = quick(discover=Discovery(ranker=LightGBMRanker(iterations=3))).fit(shop_data)
    assert chosen.discover_ranker_.iterations == 3  # type: ignore[union-attr]
    first, other = (m.recommend(shop_data, k=5, purpose="discover") for m in (fitted, chosen))
    assert not first.equals(other)


def test_probabilities_are_those_of_the_purposes_own_ranker(shop_data: RetailData) -> None:
    fitted = quick(calibrate=True).fit(shop_data)
    lists = fitted.recommend(shop_data, slots=SLOTS)
    single = fitted.recommend(shop_data, k=2, purpose="discover")
    new = lists.filter(purpose="discover", rank=4).join(single, on=["user_id", "item_id"])
    assert new.height > 20
    assert new["probability"].equals(new["probability_right"], check_names=False)
    assert fitted.discover_calibrator_ is not None
    assert fitted.calibrator_ is not None


def test_an_earlier_fit_hands_its_rows_of_both_kinds_on(shop_data: RetailData) -> None:
    before = quick().fit(shop_data.asof(shop_data.end - timedelta(days=28)), keep_rows=True)
    after, alone = quick().fit(shop_data, earlier=before), quick().fit(shop_data)
    for kind in ("windows", "discover_windows"):
        # which negatives are drawn hangs on a window's number, so a window computed anew has other rows
        assert after.report_[kind][0] == before.report_[kind][1] != alone.report_[kind][0]
        assert after.report_[kind][1] == alone.report_[kind][1]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"purpose": "sell"}, "no purpose 'sell'; expected mixed, replenish, discover"),
        ({"slots": {}}, "slots must say how many"),
        ({"slots": {"sell": 2}}, "no purpose 'sell'"),
        ({"slots": {"replenish": -1}}, "at least 0, not -1"),
        ({"slots": {"replenish": True}}, "at least 0, not True"),
        ({"slots": {"replenish": 0}}, "there is none"),
    ],
)
def test_wishes_that_make_no_sense_are_refused(
    model: TwoStageRecommender, shop_data: RetailData, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words):
        model.recommend(shop_data, **given)


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


def test_one_shopper_gets_the_list_of_the_batch(
    model: TwoStageRecommender, shop_data: RetailData
) -> None:
    together = model.recommend(shop_data, slots=SLOTS)
    for user in shop_data.users["user_id"][::15]:
        alone = model.recommend(shop_data, users=[user], slots=SLOTS)
        assert alone.equals(together.filter(user_id=user))


def test_what_comes_after_the_cut_moves_nothing() -> None:
    end, lines = datetime(2024, 4, 1), receipts(users=60)
    whole = RetailData.from_frames(lines, catalogue(), shoppers(60), end=end)
    before = whole.asof(end - timedelta(days=10))
    known = lines.filter(pl.col("time") < before.end)
    never = RetailData.from_frames(known, catalogue(), shoppers(60), end=before.end)
    users, splits = whole.users["user_id"], HorizonSplits(14, n=1)
    lists = [
        quick(label_splits=splits).fit(data).recommend(data, users=users, k=4, purpose="discover")
        for data in (before, never)
    ]
    assert lists[0].height > 50
    assert lists[0].equals(lists[1])


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
    assert purpose_sections([]) == []

"""The door from Python: a call either answers for the right shop, or says what is wrong with it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from door_support import SHOP, lines_of, quick
from retailrec.candidates import (
    ALS,
    CandidateGenerator,
    ItemItem,
    OwnPurchases,
    Pairs,
    Popularity,
    ReciprocalRankFusion,
    TifuKNN,
)
from retailrec.data import RetailData
from retailrec.errors import (
    ArtifactError,
    DataError,
    NotFittedError,
    RetailRecError,
    RetailRecWarning,
    SettingError,
)
from retailrec.features import FEATURES, feature
from retailrec.jobs.settings import Settings
from retailrec.rankers import BlendRanker, CatBoostRanker, LightGBMRanker
from retailrec.recommender.answers import AnswerReport
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender

ARTIFACTS = Path(__file__).parent / "artifacts"


@pytest.fixture(scope="module")
def model() -> TwoStageRecommender:
    return quick().fit(SHOP)


# 1. A fitted model holds what it was fitted with


def test_a_feature_registered_later_changes_nothing(model: TwoStageRecommender) -> None:
    before = model.recommend(SHOP, k=5)

    @feature("pair", unit="receipts")
    def pair_of_tomorrow(e):  # type: ignore[no-untyped-def]
        """Receipts that hold the item."""
        return e.count()

    try:
        assert model.recommend(SHOP, k=5).equals(before)
        assert "pair_of_tomorrow" not in model.column_names
        assert "pair_of_tomorrow" in quick().fit(SHOP).column_names
    finally:
        FEATURES.pop("pair_of_tomorrow")


def test_a_feature_missing_at_load_is_named_with_its_module(tmp_path: Path) -> None:
    @feature("pair", unit="receipts")
    def pair_of_yesterday(e):  # type: ignore[no-untyped-def]
        """Receipts that hold the item."""
        return e.count()

    try:
        quick().fit(SHOP).save(tmp_path / "m")
    finally:
        FEATURES.pop("pair_of_yesterday")
    with pytest.raises(ArtifactError, match=r"feature 'pair_of_yesterday'.*Import .*test_door"):
        TwoStageRecommender.load(tmp_path / "m")


@pytest.mark.parametrize("folder", sorted(p.name for p in ARTIFACTS.iterdir()))
def test_artifacts_of_every_released_format_answer_as_they_did(folder: str) -> None:
    place = ARTIFACTS / folder
    loaded = TwoStageRecommender.load(place / "model")
    data = RetailData.from_frames(
        *(pl.read_parquet(place / f"{name}.parquet") for name in ("receipts", "items", "users")),
        end=loaded.end_,
    )
    expected = pl.read_parquet(place / "answers.parquet")
    answered = loaded.explain(data, k=5)
    exact = ["user_id", "item_id", "rank"]
    assert answered.select(exact).equals(expected.select(exact))
    assert (answered["reasons"].str.len_chars() > 10).all()  # their words are not promised
    np.testing.assert_allclose(answered["score"], expected["score"], rtol=1e-4, atol=1e-6)


# 2. Data knows its catalogue


def test_ids_in_ids_out(model: TwoStageRecommender) -> None:
    ids = SHOP.users["user_id"].to_list()
    asked = [ids[7], "nobody", ids[3]]
    frame = lines_of(SHOP)
    for data in (SHOP, frame, frame.to_pandas(), frame.to_arrow()):
        lists = model.recommend(data, users=asked[::2], k=5)
        assert lists["user_id"].unique(maintain_order=True).to_list() == asked[::2]
        assert lists.equals(model.recommend(SHOP.history(asked[::2]), k=5))
    text = lines_of(SHOP).with_columns(pl.col("user_id").cast(pl.String))
    mixed = model.recommend(text, users=[str(ids[7]), "nobody"], k=3)
    assert mixed["user_id"].unique(maintain_order=True).to_list() == [str(ids[7]), "nobody"]
    unknown = model.recommend(SHOP.history(codes=[-1]), k=3)["item_id"]
    assert mixed.filter(user_id="nobody")["item_id"].to_list() == unknown.to_list()


def test_fresh_receipts_are_coded_by_id_and_not_by_place(model: TwoStageRecommender) -> None:
    """A frame of one shopper has other item codes; the answer is that of the whole data."""
    user = SHOP.users["user_id"][5]
    alone = lines_of(SHOP).filter(pl.col("user_id") == user)
    assert RetailData.from_frames(alone).catalogue_key != SHOP.catalogue_key
    one = model.recommend(alone, users=[user], k=5).drop("score")
    assert one.equals(model.recommend(SHOP, users=[user], k=5).drop("score"))


SOURCES = [
    OwnPurchases("due"),
    Popularity(),
    ItemItem("tfidf"),
    ALS(factors=4, iterations=2),
    TifuKNN(neighbours=3),
    ReciprocalRankFusion(),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_no_source_takes_codes_of_another_catalogue(source: CandidateGenerator) -> None:
    fitted = replace(source).fit(SHOP)
    other = RetailData.from_frames(lines_of(SHOP, "x"))  # as many items, other ids
    pairs = Pairs(np.array([0, 1]), np.array([0], np.int32))
    for ask in (
        lambda h: fitted.candidates(h, 3),
        lambda h: fitted.score(h, pairs),
        lambda h: fitted.score_more(h, pairs),
    ):
        with pytest.raises(DataError, match="another catalogue"):
            ask(other.history(codes=[0]))
    beyond = Pairs(np.array([0, 1]), np.array([SHOP.n_items], np.int32))
    with pytest.raises(DataError, match="item codes below"):
        fitted.score(SHOP.history(codes=[0]), beyond)
    with pytest.raises(DataError, match="a row for each"):
        fitted.score(SHOP.history(codes=[0, 1]), pairs)


def test_features_and_recommender_refuse_a_foreign_history(model: TwoStageRecommender) -> None:
    foreign = RetailData.from_frames(lines_of(SHOP, "x"))
    with pytest.raises(DataError, match="another catalogue"):
        model.features_.rows(foreign.history(codes=[0]), Pairs(np.array([0, 0]), np.zeros(0, "i4")))
    for history in (foreign.history(), foreign.histories()):
        with pytest.raises(DataError, match="another catalogue"):
            model.recommend(history, k=3)


def test_events_of_unknown_items_are_counted_and_said(model: TwoStageRecommender) -> None:
    half = pl.concat([lines_of(SHOP), lines_of(SHOP)]).with_columns(
        item_id=pl.when(pl.int_range(pl.len()) % 4 == 0)
        .then(pl.col("item_id"))
        .otherwise(pl.col("item_id") + 10**6),
        basket_id=pl.int_range(pl.len()),
    )
    with pytest.warns(RetailRecWarning, match="of items that the model does not know"):
        report = model.answer(half, k=3).report
    assert 0 < report.n_unknown_events < report.n_events
    assert report.unknown_items[0] > 10**6
    strange = lines_of(SHOP).with_columns(pl.col("item_id") + 10**6)
    with pytest.warns(RetailRecWarning, match="None of the"):
        report = model.answer(strange, k=3).report
    assert report.n_unknown_events == report.n_events > 0
    assert report.n_unknown_shoppers == report.n_shoppers == 60
    assert model.answer(SHOP, k=3).report == AnswerReport(60, n_events=SHOP.log.height)


def test_history_takes_ids_and_says_so_when_codes_do_not_fit() -> None:
    ids = SHOP.users["user_id"]
    assert SHOP.history([ids[9]]).users["user_id"].to_list() == [ids[9]]
    assert SHOP.history([10**9]).n_pairs == 0
    for codes in ([60], [-2], [0.5], ["a"]):
        with pytest.raises(DataError, match="codes of shoppers must be"):
            SHOP.history(codes=codes)
    with pytest.raises(DataError, match="not both"):
        SHOP.history([1], codes=[1])
    with pytest.raises(DataError, match="must be a list of ids"):
        SHOP.history("ann")
    with pytest.raises(DataError, match="must be a list of ids"):
        SHOP.history([[1], {}])


def test_items_and_users_may_be_described_otherwise_and_not_exchanged() -> None:
    named = SHOP.items.with_columns(name=pl.lit("x"))
    assert SHOP.with_items(named).items["name"][0] == "x"
    for wrong in (named.reverse(), named.head(5), named.drop("item_id"), named.to_pandas(), None):
        with pytest.raises(DataError, match="same item_ids in the same order"):
            SHOP.with_items(wrong)
    with pytest.raises(DataError, match="same user_ids"):
        SHOP.with_users(SHOP.users.reverse())
    with pytest.raises(DataError, match="must be Polars frames"):
        RetailData(SHOP.log, SHOP.items.to_pandas(), SHOP.users, SHOP.end)  # type: ignore[arg-type]


def test_a_log_with_codes_beyond_its_tables_is_refused() -> None:
    with pytest.raises(DataError, match="log column 'item' must hold codes"):
        RetailData(SHOP.log, SHOP.items.head(5), SHOP.users, SHOP.end)


def test_receipts_that_reach_back_less_than_the_models_are_pointed_out(
    model: TwoStageRecommender,
) -> None:
    week = SHOP.log.filter(pl.col("time") >= SHOP.end - pl.duration(days=7))
    report = model.answer(replace(SHOP, log=week), k=3).report
    assert any("reach back 6 days" in note for note in report.notes)
    assert not model.answer(SHOP, k=3).report.notes


def frame_of(data: RetailData, days: float = 0, **columns: pl.Expr | None) -> pl.DataFrame:
    """Receipts as a caller has them, moved in time; None leaves a column out."""
    lines = lines_of(data).with_columns(pl.col("time") + pl.duration(days=days))
    return lines.with_columns(
        **{name: column for name, column in columns.items() if column is not None}
    ).drop(name for name, column in columns.items() if column is None)


@pytest.mark.parametrize(
    ("days", "columns", "said"),
    [
        (0, {}, None),
        (-6, {}, None),
        (-8, {}, "receipts end before"),
        (-3650, {}, "3,650 days before those that the model was fitted on"),
        (+30, {}, None),
        (+3650, {}, "3,650 days after those that the model was fitted on"),
        (0, {"value": None}, "The receipts have no money (value or price)"),
        (0, {"quantity": None}, "Every quantity is 1, or the column quantity is missing"),
        (0, {"value": pl.col("value") * 100}, "mostly about 100 times them"),
        (0, {"value": pl.col("value") / 1000}, "mostly about 1/1,000 of them"),
        (0, {"value": pl.col("value") * 1.5}, None),
    ],
)
def test_receipts_unlike_those_of_the_fit_are_said(
    model: TwoStageRecommender, days: float, columns: dict, said: str | None
) -> None:
    report = model.answer(frame_of(SHOP, days, **columns), k=3).report
    assert report.notes == () if said is None else said in " ".join(report.notes), report.notes


def test_receipts_of_another_clock_than_those_of_the_fit_are_said(tmp_path: Path) -> None:
    zoned = frame_of(SHOP).with_columns(pl.col("time").dt.replace_time_zone("Asia/Tokyo"))
    quick().fit(RetailData.from_frames(zoned)).save(tmp_path)
    model = TwoStageRecommender.load(tmp_path)
    for zone, said in {"Asia/Tokyo": 0, "Asia/Seoul": 0, "UTC": 1, None: 0}.items():
        times = pl.col("time").dt.convert_time_zone(zone) if zone else frame_of(SHOP)["time"]
        notes = model.answer(zoned.with_columns(times), k=3).report.notes
        assert [f"are in zone {zone}, those" in note for note in notes] == [True] * said


def test_one_user_may_have_been_away(model: TwoStageRecommender) -> None:
    one = frame_of(SHOP, -30).filter(pl.col("user_id") == lines_of(SHOP)["user_id"][0])
    assert not any("receipts end" in note for note in model.answer(one, k=3).report.notes)
    long_ago = one.with_columns(pl.col("time") - pl.duration(days=3650))
    assert any("receipts end" in note for note in model.answer(long_ago, k=3).report.notes)


def test_what_the_fit_had_travels_with_the_model(model: TwoStageRecommender, tmp_path: Path) -> None:
    model.save(tmp_path)
    loaded = TwoStageRecommender.load(tmp_path)
    assert loaded.has_quantity_
    bare = frame_of(SHOP, quantity=None, value=None)
    assert loaded.answer(bare, k=3).report.notes == model.answer(bare, k=3).report.notes
    assert len(loaded.answer(bare, k=3).report.notes) == 2
    del loaded.has_quantity_  # version 0.2 did not keep it
    loaded.save(tmp_path)
    assert len(TwoStageRecommender.load(tmp_path).answer(bare, k=3).report.notes) == 1


def test_lists_longer_than_the_pool_are_filled_and_shorter_ones_counted() -> None:
    small = quick(preranker=CatBoostRanker(iterations=5), pool_size=5).fit(SHOP)
    assert small.answer(SHOP, k=15).report.n_short == 0
    answer = small.answer(SHOP, k=1000)
    assert answer.report.n_short == 60
    assert any("fewer than k=1000" in note for note in answer.report.notes)


def test_lists_without_an_item_have_no_reasons(model: TwoStageRecommender) -> None:
    dear = model.answer(SHOP, k=3, rules=Rules(price_floor=1e9), reasons=True)
    assert dear.lists.is_empty()
    assert dear.report.n_short == 60


def test_lists_of_ids_that_do_not_meet_the_catalogue_are_said(model: TwoStageRecommender) -> None:
    items = SHOP.items["item_id"]
    strange = pl.DataFrame({"item_id": items.head(20) + 10**6})
    for rules in (Rules(available=strange), Rules(deny=strange.with_columns(user_id=pl.lit(1)))):
        with pytest.raises(DataError, match="none of the 20 ids of the rule"):
            model.recommend(SHOP, k=3, rules=rules)
    some = pl.concat([strange["item_id"], items.head(5)])
    report = model.answer(SHOP, k=3, rules=Rules(available=some.to_frame())).report
    assert any("only 5 of the 25 ids of the rule available" in note for note in report.notes)
    closed = pl.DataFrame({"item_id": items, "until": [SHOP.end] * len(items)})
    with pytest.raises(DataError, match="available leaves no item"):
        model.recommend(SHOP, k=3, rules=Rules(available=closed))


def test_an_unfitted_model_says_so() -> None:
    for ask in (
        lambda m: m.recommend(SHOP),
        lambda m: m.stage_one,
        lambda m: m.save("nowhere"),
        lambda m: m.recommend_codes(SHOP.history(), 3),
    ):
        with pytest.raises(NotFittedError):
            ask(quick())


# 3. Seed and threads reach every part, and no setting does nothing


def test_seed_and_threads_reach_every_part_that_has_none_of_its_own() -> None:
    fitted = quick(
        sources=[ALS(factors=4, iterations=1), ItemItem(seed=3), Popularity()],
        ranker=BlendRanker([CatBoostRanker(iterations=3), LightGBMRanker(iterations=3, seed=5)]),
        preranker=CatBoostRanker(iterations=3),
        seed=7,
        threads=1,
    ).fit(SHOP)
    als, item_item, _ = fitted.sources_
    blend, light = fitted.ranker_, fitted.preranker_
    assert (als.seed, als.threads, item_item.seed, item_item.threads) == (7, 1, 3, 1)
    assert [(p.seed, p.threads) for p in blend.parts_] == [(7, 1), (5, 1)]
    assert (light.seed, light.threads) == (7, 1)
    assert fitted.sources[0].seed is None  # settings stay as they were given


def test_another_seed_moves_factors() -> None:
    one, other = (quick(sources=[ALS(factors=4), Popularity()], seed=s).fit(SHOP) for s in (0, 1))
    assert not np.array_equal(one.sources_[0].factors_, other.sources_[0].factors_)


# 4. Nothing about one request is kept on the model


def test_one_model_answers_many_threads(model: TwoStageRecommender) -> None:
    ids = SHOP.users["user_id"].to_list()
    wishes = [
        ([ids[i], ids[-i - 1]], Rules(max_per_category=1) if i % 2 else Rules(price_ceiling=2.0))
        for i in range(24)
    ]

    def ask(wish: tuple[list[int], Rules]) -> tuple[pl.DataFrame, dict[str, dict[str, int]]]:
        answer = model.answer(SHOP, users=wish[0], k=4, rules=wish[1])
        return answer.lists, answer.report.rules

    alone = [ask(wish) for wish in wishes]
    before = {name: id(value) for name, value in vars(model).items()}
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(ask, wishes))
    for (lists, rules), (other_lists, other_rules) in zip(alone, together, strict=True):
        assert lists.equals(other_lists)
        assert rules == other_rules
    assert {name: id(value) for name, value in vars(model).items()} == before


# 5. Fitted state ends in _ and leaves settings alone


def test_fit_leaves_the_settings_as_they_were() -> None:
    settings = quick(ranker=BlendRanker([CatBoostRanker(iterations=3)]))
    sources, ranker, features = settings.sources, settings.ranker, settings.features
    settings.fit(SHOP)
    assert settings.sources is sources
    assert settings.ranker is ranker
    assert settings.features is features
    for part in (*sources, ranker, *ranker.parts, features):
        assert not [n for n, v in vars(part).items() if n.endswith("_") and v is not None]


def test_a_saved_model_keeps_its_settings(model: TwoStageRecommender, tmp_path: Path) -> None:
    model.save(tmp_path / "m")
    loaded = TwoStageRecommender.load(tmp_path / "m")
    same = {"prefilters": list(model.prefilters), "features": replace(model.features, drop=[])}
    assert loaded == replace(model, **same)
    assert json.loads((tmp_path / "m" / "manifest.json").read_text())["format_version"] == 2
    assert loaded.fit(SHOP).recommend(SHOP, k=3).equals(model.recommend(SHOP, k=3))


def test_a_user_error_is_one_of_ours_whatever_is_handed_in(model: TwoStageRecommender) -> None:
    for data in (None, 7, "receipts.csv", [1, 2], {"a": 1}, datetime(2024, 1, 1)):
        with pytest.raises(RetailRecError):
            model.recommend(data, k=3)
    with pytest.raises(SettingError, match="k must be at least 1"):
        model.recommend(SHOP, k=0)
    with pytest.raises(DataError, match="must be a list of ids"):
        model.recommend(SHOP, 5)
    for table in (SHOP.users, SHOP.users.to_pandas(), SHOP.users.lazy(), {"user_id": [1]}):
        with pytest.raises(DataError, match=r"a list of ids, not a table. Give its column of ids"):
            model.recommend(SHOP, table)
    assert Settings().model().n_candidates == TwoStageRecommender().n_candidates

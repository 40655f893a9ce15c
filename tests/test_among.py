"""Campaign lists: what is listed is ranked, whoever proposes it; what can't be used is counted and said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import receipts
from retailrec.candidates import ItemItem, OwnPurchases, Popularity
from retailrec.cli.app import app
from retailrec.compute.csr import place_in_rows, rank_in_rows
from retailrec.compute.shards import SHARD
from retailrec.data import RetailData
from retailrec.data.history import Pairs
from retailrec.data.splits import HorizonSplits
from retailrec.errors import DataError
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.among import Among, read_among
from retailrec.recommender.batch import recommend_to_file
from retailrec.recommender.rules import Rules
from retailrec.recommender.stage_one import candidate_frame
from retailrec.recommender.two_stage import TwoStageRecommender

ITEMS = pl.DataFrame({"item_id": [3, 5, 7, 9]})
USERS = pl.DataFrame({"user_id": ["ann", "bob", "cem"]})


def lists(among: Among) -> list[list[int]]:
    """Eligible item codes of each of USERS."""
    eligible = among.bind(ITEMS, USERS)
    return [eligible.take(slice(row, row + 1)).items.tolist() for row in range(3)]


def test_a_list_for_everybody() -> None:
    assert lists(Among.of(pl.DataFrame({"item_id": [9, 3, 9]}))) == [[0, 3]] * 3


def test_a_column_that_would_be_passed_over_is_refused() -> None:
    """An assortment by store is no list for everybody."""
    with pytest.raises(DataError, match=r"columns that would not be read: 'store'\. It takes item_id"):
        Among.of(pl.DataFrame({"item_id": [9, 3], "store": ["s0", "s1"]}))


def test_a_list_for_each_shopper() -> None:
    frame = pl.DataFrame({"user_id": ["cem", "ann", "ann", "ann"], "item_id": [7, 9, 5, 9]})
    assert lists(Among.of(frame)) == [[1, 3], [], [2]]


def test_a_campaigns_shoppers_get_its_products_and_of_two_campaigns_those_of_both() -> None:
    sent = pl.DataFrame({"campaign_id": [1, 1, 2], "user_id": ["ann", "bob", "bob"]})
    products = pl.DataFrame({"campaign_id": [1, 2, 2], "item_id": [3, 3, 9], "coupon_id": [0, 0, 0]})
    assert lists(Among.of(sent, products)) == lists(Among.of(products, sent)) == [[0], [0, 3], []]


def test_several_shoppers_are_taken_at_a_time() -> None:
    own = Among.of(pl.DataFrame({"user_id": ["cem", "bob", "bob"], "item_id": [7, 9, 5]}))
    taken = own.bind(ITEMS, USERS).take(slice(1, 3))
    assert (taken.indptr.tolist(), taken.items.tolist()) == ([0, 2, 3], [1, 3, 2])
    shared = Among.of(pl.DataFrame({"item_id": [3, 7]})).bind(ITEMS, USERS).take(slice(1, 9))
    assert (shared.indptr.tolist(), shared.items.tolist()) == ([0, 2, 4], [0, 2, 0, 2])


def test_what_cannot_be_ranked_is_counted_and_said() -> None:
    frame = pl.DataFrame({"user_id": ["ann", "ann", "ann", "bob", "eve"], "item_id": [3, 5, 8, 9, 3]})
    report = Among.of(frame).bind(ITEMS, USERS).report(k=2)
    assert report.n_eligible == 3
    assert list(report.sentences(2)) == [
        "1 listed items are not known to the model",
        "1 listed shoppers were not asked for",
        "1 shoppers have no eligible item",
        "1 shoppers have fewer than 2 eligible items",
    ]
    everybody = Among.of(pl.DataFrame({"item_id": [3, 8]})).bind(ITEMS, USERS).report(k=2)
    assert (everybody.unknown_items, everybody.too_few, everybody.n_eligible) == (1, 3, 3)


def test_lines_without_ids_are_counted() -> None:
    items = Among.of(pl.DataFrame({"item_id": ["3", "NULL", None]})).bind(ITEMS, USERS).report(k=1)
    assert items.sentences(1) == ("2 lines of the lists have no id",)
    pairs = pl.DataFrame({"user_id": ["ann", "bob", "cem", None], "item_id": [3, 3, 3, 5]})
    assert Among.of(pairs).bind(ITEMS, USERS).report(k=1).without_ids == 1
    sent = pl.DataFrame({"campaign_id": [1, None, 1, 1], "user_id": ["ann", "ann", "bob", "cem"]})
    products = pl.DataFrame({"campaign_id": [1, 1], "item_id": [3, None]})
    assert Among.of(sent, products).bind(ITEMS, USERS).report(k=1).without_ids == 2


def test_a_campaign_without_products_is_counted() -> None:
    sent = pl.DataFrame({"campaign_id": [1, 2, 2], "user_id": ["ann", "bob", "cem"]})
    among = Among.of(sent, pl.DataFrame({"campaign_id": [1], "item_id": [3]}))
    assert among.bind(ITEMS, USERS).report(1).empty_campaigns == 1
    with pytest.raises(DataError, match="none of the 2 campaigns that were sent has products"):
        Among.of(sent, pl.DataFrame({"campaign_id": [7], "item_id": [3]}))


@pytest.mark.parametrize(
    ("frame", "sentence"),
    [
        (
            pl.DataFrame({"item_id": ["A3"]}),
            "holds integers, but the items of among hold text such as 'A3'",
        ),
        (pl.DataFrame({"item_id": [4]}), "none of the 1 items of among is in the model's catalogue"),
        (
            pl.DataFrame({"user_id": ["ANN"], "item_id": [3]}),
            "none of the 1 shoppers of among is among those asked for, for example 'ANN'",
        ),
    ],
)
def test_ids_in_another_notation_are_refused(frame: pl.DataFrame, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        Among.of(frame).bind(ITEMS, USERS)


def test_text_and_whole_numbers_meet() -> None:
    assert lists(Among.of(pl.DataFrame({"item_id": ["3", "9"]}))) == [[0, 3]] * 3
    sent = pl.DataFrame({"campaign_id": ["1"], "user_id": ["ann"]})
    assert lists(Among.of(sent, pl.DataFrame({"campaign_id": [1], "item_id": [5]})))[0] == [1]


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (pl.DataFrame({"campaign_id": [1], "item_id": [3]}),),
        (pl.DataFrame({"campaign_id": [1], "user_id": [3]}),),
        (pl.DataFrame({"item_id": [3]}), pl.DataFrame({"item_id": [5]})),
        (pl.DataFrame({"campaign_id": [1], "user_id": [3]}), pl.DataFrame({"item_id": [5]})),
    ],
)
def test_tables_that_make_no_list_are_refused(frames: tuple[pl.DataFrame, ...]) -> None:
    with pytest.raises(DataError, match="among takes tables of these columns: one with item_id"):
        Among.of(*frames)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(
        DataError, match="among lists nothing: its table of item_id has no line with ids"
    ):
        Among.of(pl.DataFrame({"item_id": [None, None]}, schema={"item_id": pl.Int64}))
    with pytest.raises(DataError, match="among lacks id columns"):
        Among.of(pl.DataFrame({"sku": [1]}))


def test_lists_are_read_from_files(tmp_path: Path) -> None:
    sent, products = tmp_path / "sent.csv", tmp_path / "products.parquet"
    sent.write_text("campaign_id,user_id\n1,ann\n")
    pl.DataFrame({"campaign_id": [1], "item_id": [7]}).write_parquet(products)
    assert lists(read_among([sent, products])) == [[2], [], []]
    (tmp_path / "empty.csv").write_text("item_id\n")
    with pytest.raises(DataError, match="among lists nothing"):
        read_among([tmp_path / "empty.csv"])


def test_a_shard_holds_as_many_shoppers_as_fit() -> None:
    few = Among.of(pl.DataFrame({"item_id": [3]})).bind(ITEMS, USERS)
    many = Among.of(pl.DataFrame({"item_id": range(5000)}))
    wide = many.bind(pl.DataFrame({"item_id": range(5000)}), USERS)
    assert (few.shard_size, wide.shard_size) == (SHARD, 50)


@pytest.fixture(scope="module")
def model(data: RetailData) -> TwoStageRecommender:
    return TwoStageRecommender(
        sources=[OwnPurchases(), Popularity(), ItemItem("cosine")],
        ranker=LightGBMRanker(iterations=5, threads=1),
        n_candidates=4,
        preranker=None,
        label_splits=HorizonSplits(horizon_days=10, n=2),
        threads=1,
    ).fit(data)


def test_items_that_no_source_proposes_become_rows(
    data: RetailData, model: TwoStageRecommender
) -> None:
    history = data.history(codes=[0, 1, 2])
    proposed = model.candidate_frame(history).pool
    absent = [
        np.setdiff1d(np.arange(data.n_items), proposed.items[a:b])[:3]
        for a, b in zip(proposed.indptr[:-1], proposed.indptr[1:], strict=True)
    ]
    assert all(len(items) == 3 for items in absent)
    among = Pairs(np.arange(4) * 3, np.concatenate(absent).astype(np.int32))
    frame = candidate_frame(history, model.stage_one, among=among)
    assert frame.pool.items.tolist() == among.items.tolist()
    assert frame.x.shape == (9, len(model.column_names))
    assert (frame.pool.ranks > 1).any()


def test_a_pair_of_the_pool_has_the_same_columns_when_it_is_listed(
    data: RetailData, model: TwoStageRecommender
) -> None:
    history = data.history(codes=np.arange(20))
    plain = model.candidate_frame(history)
    keep = np.arange(len(plain.pool.items)) % 3 == 0
    kept = plain.pool.keep(keep)
    listed = candidate_frame(history, model.stage_one, among=kept.pairs)
    np.testing.assert_array_equal(listed.pool.ranks, kept.ranks)
    np.testing.assert_array_equal(listed.x, plain.x[keep])


def test_an_empty_list_gives_no_rows(data: RetailData, model: TwoStageRecommender) -> None:
    nothing = Pairs(np.zeros(3, np.int64), np.zeros(0, np.int32))
    frame = candidate_frame(data.history(codes=[0, 1]), model.stage_one, among=nothing)
    assert frame.x.shape == (0, len(model.column_names))


def test_places_are_ranks_with_ties_shared() -> None:
    rng = np.random.default_rng(0)
    indptr = np.array([0, 5, 5, 12])
    scores = rng.integers(0, 4, 12).astype(np.float32)
    np.testing.assert_array_equal(
        place_in_rows(indptr, scores, indptr, scores), rank_in_rows(indptr, scores)
    )
    given = np.array([9.0, -9.0, 1.0], np.float32)
    places = place_in_rows(indptr, scores, np.array([0, 2, 3, 3]), given)
    assert places.tolist() == [1.0, 6.0, 1.0]


def test_recommend_ranks_only_what_is_listed(data: RetailData, model: TwoStageRecommender) -> None:
    listed = [3, 9, 28, 29]  # the last two were never sold, so no source proposes them
    answer = model.answer(data, ["u01", "u02", "zoe"], k=4, among=pl.DataFrame({"item_id": listed}))
    for (user,), part in answer.lists.group_by("user_id"):
        assert sorted(part["item_id"].to_list()) == listed, user
    assert answer.report.among["n_eligible"] == 12
    assert answer.report.notes == ()


@pytest.mark.parametrize("name", ["dismissals", "previous"])
def test_lists_of_items_that_the_model_lacks_are_said(
    data: RetailData, model: TwoStageRecommender, name: str
) -> None:
    for items, said in (([3, 999], 0), ([998, 999], 1)):
        pairs = pl.DataFrame({"user_id": ["u01", "u02"], "item_id": items})
        steady = 0.5 if name == "previous" else 0.0
        notes = model.answer(data, k=4, steady=steady, **{name: pairs}).report.notes
        assert len(notes) == said, notes
        assert all("none of the 2 ids" in note and "998" in note for note in notes)


def test_items_in_both_lists_keep_their_scores_and_order(
    data: RetailData, model: TwoStageRecommender
) -> None:
    plain = model.recommend(data, k=6)
    listed = plain.filter(pl.col("rank") % 2 == 0)
    found = model.recommend(data, k=6, among=listed.select("user_id", "item_id"))
    both = found.join(listed, on=["user_id", "item_id"], suffix="_plain")
    assert both.height == listed.height == found.height
    assert both["score"].to_list() == both["score_plain"].to_list()
    assert (both["rank"] * 2 == both["rank_plain"]).all()


def test_shoppers_who_are_listed_are_answered_for(data: RetailData, model: TwoStageRecommender) -> None:
    sent = pl.DataFrame({"campaign_id": [1, 1, 2], "user_id": ["u03", "new", "u05"]})
    products = pl.DataFrame({"campaign_id": [1, 1, 2, 2], "item_id": [3, 9, 9, 777]})
    answer = model.answer(data, k=2, among=(sent, products))
    assert answer.lists["user_id"].to_list() == ["new", "new", "u03", "u03", "u05"]
    assert set(answer.lists.filter(user_id="u03")["item_id"]) == {3, 9}
    assert answer.report.n_unknown_shoppers == 1
    assert answer.report.notes == (
        "1 listed items are not known to the model",
        "1 shoppers have fewer than 2 eligible items",
    )


def test_listed_shoppers_without_any_receipt_are_refused(
    data: RetailData, model: TwoStageRecommender
) -> None:
    among = pl.DataFrame({"user_id": ["U01", "U02"], "item_id": [3, 9]})
    with pytest.raises(DataError, match="none of the 2 shoppers is in the receipts, for example 'U01'"):
        model.recommend(data, among=among)


def test_shoppers_asked_for_without_a_list_get_none(
    data: RetailData, model: TwoStageRecommender
) -> None:
    among = pl.DataFrame({"user_id": ["u01"], "item_id": [3]})
    answer = model.answer(data, ["u01", "u02"], k=1, among=among)
    assert answer.lists["user_id"].to_list() == ["u01"]
    assert answer.report.notes == ("1 shoppers have no eligible item",)


def test_rules_and_reasons_go_with_lists(data: RetailData, model: TwoStageRecommender) -> None:
    rules = Rules(available=pl.DataFrame({"item_id": [9, 12]}))
    among = pl.DataFrame({"item_id": [3, 9, 28]})
    answer = model.answer(data, ["u01"], k=3, rules=rules, among=among, reasons=True)
    assert answer.lists["item_id"].to_list() == [9]
    assert answer.report.rules["available"]["removed"] == 2
    assert answer.lists["reasons"].null_count() == 0


@pytest.mark.parametrize(
    "among", [{"item_id": ["3", "3.0", "9"]}, {"user_id": ["u01"] * 3, "item_id": ["3", "3.0", "9"]}]
)
def test_an_item_that_is_listed_in_two_notations_stands_on_a_list_once(
    data: RetailData, model: TwoStageRecommender, among: dict[str, list[str]]
) -> None:
    found = model.recommend(data, ["u01"], k=3, among=pl.DataFrame(among))
    assert sorted(found["item_id"]) == [3, 9]


def test_lists_of_pairs_hold_for_a_user_who_is_asked_for_twice(
    data: RetailData, model: TwoStageRecommender
) -> None:
    named = pl.DataFrame({"user_id": ["u01", "u01", "u02"], "item_id": [3, 9, 3]})
    asked: list[dict[str, object]] = [
        {"among": named},
        {"rules": Rules(deny=named)},
        {"dismissals": named.with_columns(category=pl.lit(True))},
        {"previous": named, "steady": 9.0},
    ]
    for more in asked:
        once = {user: model.recommend(data, [user], k=2, **more) for user in ("u01", "u02")}
        twice = model.recommend(data, ["u01", "u02", "u01"], k=2, **more)
        assert twice.equals(pl.concat([once["u01"], once["u02"], once["u01"]]))


def test_an_item_on_a_list_that_nobody_bought_is_said_to_be_that(
    data: RetailData, model: TwoStageRecommender
) -> None:
    never_sold = pl.DataFrame({"item_id": [28]})
    answer = model.answer(data, [f"u{u:02}" for u in range(20)], k=1, among=never_sold, reasons=True)
    said = set(answer.lists["reasons"])
    assert "on the campaign's list; new in the shop: nobody bought it yet" in said
    assert not [text for text in said if "popular" in text or "in four weeks" in text]


def test_the_command_line_takes_campaigns(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    receipts().write_csv(tmp_path / "receipts.csv")
    (tmp_path / "sent.csv").write_text("campaign_id,user_id\n1,u03\n1,u05\n2,u06\n")
    (tmp_path / "products.csv").write_text("campaign_id,item_id\n1,3\n1,28\n1,777\n")
    arguments = [
        "recommend",
        "--model",
        str(tmp_path / "model"),
        "--history",
        str(tmp_path / "receipts.csv"),
        "--out",
        str(tmp_path / "offers.csv"),
        "--k",
        "3",
        "--among",
        str(tmp_path / "sent.csv"),
        "--among",
        str(tmp_path / "products.csv"),
    ]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    offers = pl.read_csv(tmp_path / "offers.csv")
    assert offers.select("user_id", "item_id").sort("user_id", "item_id").rows() == [
        ("u03", 3),
        ("u03", 28),
        ("u05", 3),
        ("u05", 28),
    ]
    said = " ".join(done.output.split())
    assert "1 campaigns have no products" in said
    assert "1 listed items are not known to the model" in said
    assert "2 shoppers have fewer than 3 eligible items" in said
    (tmp_path / "sent.csv").write_text("campaign_id,user_id\n")
    offers_before = (tmp_path / "offers.csv").read_bytes()
    refused = CliRunner().invoke(app, arguments)
    assert isinstance(refused.exception, DataError)
    assert (tmp_path / "offers.csv").read_bytes() == offers_before


def test_blocks_give_the_same_lists_as_one_answer(
    data: RetailData, model: TwoStageRecommender, tmp_path: Path
) -> None:
    frame = pl.DataFrame({"user_id": ["u03", "u05", "u05", "u09"], "item_id": [3, 9, 28, 4]})
    among = Among.of(frame)
    out = tmp_path / "offers.parquet"
    batch = recommend_to_file(model, data, out, 2, among=among, block_lines=1)
    assert pl.read_parquet(out).equals(model.recommend(data, k=2, among=among))
    assert (batch.report.among["n_eligible"], batch.report.among["too_few"]) == (4, 2)

"""Ids that changed: merged cards and renumbered items count under the new id on every way in."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import LoadReport
from retailrec.datasets import load_dataset, open_alike
from retailrec.datasets.base import Reading
from retailrec.errors import DataError
from retailrec.jobs.campaigns import allocate_files
from retailrec.jobs.evaluate import evaluate_files
from retailrec.offers.experiments import experiment_result, unit_margins
from retailrec.offers.ledger import Ledger
from retailrec.recommender.batch import recommend_from_files
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.serving import loading
from retailrec.serving.database import Dismissal
from retailrec.serving.loading import load_frames
from retailrec.serving.receipts import Line, Posted, accept
from retailrec.serving.store import Store
from retailrec.simulator.shop import receipt_lines, small_data
from serving_support import exposure


def table(*rows: tuple[str, object, object]) -> pl.DataFrame:
    return pl.DataFrame(
        [(kind, str(old), str(new)) for kind, old, new in rows], ["kind", "old", "new"], orient="row"
    )


CHANGES = table(("user", "a", "b"), ("user", "b", "c"), ("item", 7, 8), ("item", 5, 8))
LINES = pl.DataFrame(
    {
        "user_id": ["a", "b", "c", "d", "a"],
        "item_id": [7, 8, 5, 1, 5],
        "time": ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04", "2024-01-01"],
    }
)


def test_lines_of_old_ids_count_under_the_last_one_of_their_chain() -> None:
    data = RetailData.from_frames(LINES, changed_ids=ChangedIds.of(CHANGES))
    assert data.users["user_id"].to_list() == ["c", "d"]
    assert data.items["item_id"].to_list() == [1, 8]  # integers stay integers
    assert data.log.select("user", "item", "quantity").rows() == [
        (0, 1, 2.0),  # 7 and 5 are one item of the receipt now
        (0, 1, 1.0),
        (0, 1, 1.0),
        (1, 0, 1.0),
    ]
    assert data.report.changed == {"user": 3, "item": 3}
    assert "3 lines have an old item id of the table of changed ids, which has 2" in str(
        data.report.notes
    )


def test_blanks_around_an_id_are_no_part_of_it_and_other_ids_stay_as_they_are_written() -> None:
    changed = ChangedIds.of(CHANGES)
    assert (changed.last("user", " a "), changed.last("user", " z ")) == ("c", " z ")


def test_rows_of_attributes_are_folded_into_those_of_the_new_id() -> None:
    items = pl.DataFrame(
        {"item_id": [7, 8, 1], "name": ["Tee", "Tea", "Rye"], "brand": ["B", None, "C"]}
    )
    users = pl.DataFrame({"user_id": ["a", "d"], "age": [40, 50]})
    data = RetailData.from_frames(LINES, items, users, changed_ids=ChangedIds.of(CHANGES))
    assert data.items.select("item_id", "name", "brand").rows() == [(1, "Rye", "C"), (8, "Tea", "B")]
    assert data.users.rows() == [("c", 40), ("d", 50)]
    assert "repeat" not in str(data.report.notes)


def test_a_new_id_that_is_text_makes_all_text() -> None:
    changed = ChangedIds.of(table(("item", 7, "seven")))
    for lines in (LINES, LINES.filter(pl.col("item_id") != 7)):
        data = RetailData.from_frames(lines, changed_ids=changed)
        assert data.items["item_id"].dtype == pl.String
    assert "no line has an old item id" in str(data.report.notes)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("user", 1, 2), ("user", 2, 3), ("user", 3, 1)], "in a circle, '1' to '2' to '3' to '1'"),
        ([("item", 1, 2), ("item", 1, 3)], "item '1' became both '2' and '3'"),
        ([("shop", 1, 2)], "kind must be user or item, not 'shop'"),
        ([("user", 1, "NULL")], "row 1 lacks an id"),
    ],
)
def test_a_table_that_can_not_be_meant_is_refused(
    rows: list[tuple[str, object, object]], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        ChangedIds.of(table(*rows))
    assert not ChangedIds.of(table(("user", 1, 1)))  # nothing changed


def test_a_model_keeps_its_table_and_reads_later_receipts_by_it(tmp_path: Path) -> None:
    shop = small_data(users=60)
    ids = {"user_id": shop.users["user_id"], "item_id": shop.items["item_id"]}
    lines = shop.log.select(
        ids["user_id"].gather(shop.log["user"]),
        ids["item_id"].gather(shop.log["item"]),
        "time",
        "quantity",
        "value",
        basket_id="basket",
    )
    first, item = ids["user_id"][0], ids["item_id"][shop.log["item"][0]]
    old = lines.with_columns(
        pl.col("user_id").replace(first, 9001), pl.col("item_id").replace(item, 9002)
    )
    old.write_parquet(tmp_path / "old.parquet")
    lines.write_parquet(tmp_path / "lines.parquet")
    changed = ChangedIds.of(table(("user", 9001, first), ("item", 9002, item)))
    data = load_dataset("table", tmp_path / "old.parquet", changed_ids=changed)
    assert data.report.as_dict()["reading"] == {"dataset": "table", "changed_ids": 2}
    plain = load_dataset("table", tmp_path / "lines.parquet")
    assert data.log.equals(plain.log)
    model = TwoStageRecommender(label_splits=shop_splits()).fit(data)
    model.save(tmp_path / "model")
    answers = []
    for name in ("old", "lines"):
        out = tmp_path / f"{name}-lists.parquet"
        recommend_from_files(tmp_path / "model", tmp_path / f"{name}.parquet", out, Request(k=3))
        answers.append(pl.read_parquet(out))
    assert answers[0].equals(answers[1])
    assert 9001 not in answers[0]["user_id"]
    lists = answers[0].with_columns(pl.col("user_id").replace(first, 9001))
    lists.write_parquet(tmp_path / "theirs.parquet")
    kept = TwoStageRecommender.load(tmp_path / "model").reading
    judged = [
        evaluate_files({"m": tmp_path / f"{file}.parquet"}, tmp_path / truth, ["recall@3"], kept=kept)
        for file, truth in (("theirs", "old.parquet"), ("lines-lists", "lines.parquet"))
    ]
    assert judged[0]["models"] == judged[1]["models"]
    listed = answers[0]["item_id"].filter(answers[0]["item_id"] != item)[0]
    old_list = Request(k=2, among=pl.DataFrame({"item_id": [9002, listed]}))
    assert set(model.answer(plain, None, old_list).lists["item_id"]) == {item, listed}
    recommend_from_files(tmp_path / "model", tmp_path / "lines.parquet", out, old_list)
    assert set(pl.read_parquet(out)["item_id"]) == {item, listed}


def test_lists_and_rules_of_a_request_name_old_ids_too() -> None:
    def asked(user: int, item: int) -> Request:
        items = pl.DataFrame({"item_id": [item, 7]})
        pairs = pl.DataFrame({"user_id": [user, 2], "item_id": [item, 7]})
        rules = Rules(
            available=items,
            deny=pairs,
            margin=items.with_columns(margin=pl.lit(1.5)),
            forbid=[{"items": [item, 7]}],
        )
        lists = {"among": pairs, "dismissals": pairs, "previous": pairs}
        return Request(k=1, rules=rules, **lists, steady=1.0)

    changed = ChangedIds.of(table(("user", 9001, 1), ("item", 9002, 3)))
    assert asked(9001, 9002).renamed(changed).fingerprint() == asked(1, 3).fingerprint()
    assert asked(9001, 9002).fingerprint() != asked(1, 3).fingerprint()
    assert asked(1, 3).renamed(None).fingerprint() == asked(1, 3).fingerprint()
    for_all = Request(among=pl.DataFrame({"item_id": [9002, 3]})).renamed(changed).among
    assert for_all is not None
    assert for_all.items is not None
    assert for_all.items.to_list() == [3]
    both = pl.DataFrame({"item_id": [9002, 3], "margin": [1.0, 2.0]})  # the item's own counts
    margin = Rules(margin=both).renamed(changed).margin
    assert margin is not None
    assert margin.rows() == [(3, 2.0)]
    odd = Rules(deny=pl.DataFrame({"item_id": [9002]}))  # is refused when it is bound, in a sentence
    assert odd.renamed(changed).deny is odd.deny


def shop_splits():  # type: ignore[no-untyped-def]
    from retailrec.data.splits import HorizonSplits

    return HorizonSplits(horizon_days=14, n=1)


def test_what_is_said_later_comes_on_top_of_the_models_table(tmp_path: Path) -> None:
    LINES.write_csv(tmp_path / "r.csv")
    kept = load_dataset("table", tmp_path / "r.csv", changed_ids=ChangedIds.of(CHANGES)).report.reading
    more = Reading(changed_ids=ChangedIds.of(table(("user", "c", "e"))))
    assert open_alike(kept, tmp_path / "r.csv", more).data().users["user_id"].to_list() == ["d", "e"]
    back = Reading(changed_ids=ChangedIds.of(table(("user", "c", "a"))))
    with pytest.raises(DataError, match="on top of the model's: user ids change in a circle"):
        open_alike(kept, tmp_path / "r.csv", back)


def test_a_store_has_the_new_ids_and_a_forgotten_old_id_stays_forgotten(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    changed = ChangedIds.of(CHANGES)
    users = pl.DataFrame({"user_id": ["a", "d"], "age": [40, 50]})
    assert load_frames(store, LINES, users=users, changed_ids=changed).forgotten == 0
    assert [receipt.items for receipt in store.history("c")] == [("8",), ("8",), ("8",)]
    assert store.history("a") == []
    assert store.shopper("c").attributes == {"age": 40}
    store.forget("b")  # also of "a", whose chain leads through it
    store.forget("c")
    found = load_frames(store, LINES, users=users, changed_ids=changed)
    assert (found.forgotten, found.new) == (3, 0)
    for user in "abc":
        assert store.history(user) == []
    store.close()


def test_of_a_chain_what_comes_before_a_forgotten_id_is_forgotten_too(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    store.forget("b")
    found = load_frames(store, LINES, changed_ids=ChangedIds.of(CHANGES))
    assert found.forgotten == 2  # those of a and b
    assert [receipt.time for receipt in store.history("c")] == [
        int(datetime(2024, 1, 3).timestamp()) * 1_000_000
    ]
    store.close()


def test_what_is_stored_of_an_id_that_became_a_forgotten_one_is_removed_and_said(
    tmp_path: Path,
) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    load_frames(store, pl.concat([LINES, LINES[:1].with_columns(time=pl.lit("2024-01-09"))]))
    store.deny("a", "9")
    store.dismiss("a", "9", Dismissal("9", False, 0, 1))
    store.log_exposures([exposure("a"), exposure("b"), exposure("d")])
    store.forget("b")
    report = LoadReport("x")
    lines = LINES.filter(pl.col("user_id") == "d")
    load_frames(store, lines, changed_ids=ChangedIds.of(CHANGES), report=report)
    assert "1 users of the store became ids that were forgotten, so what it had of them is removed" in (
        report.notes
    )
    assert {row["user_id"] for row in store.exposures()} == {"d"}
    assert store.history("a") == store.history("b") == []
    assert store.shopper("a").version == store.shopper("b").version == 0
    assert store.shopper("d").ends == datetime(2024, 1, 5)
    store.close()


def test_what_a_store_has_under_old_ids_is_put_under_the_new_ones(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    numbered = LINES.with_columns(basket_id=pl.Series([1, 2, 3, 4, 1]), value=pl.lit(1.5))
    users = pl.DataFrame({"user_id": ["a", "c"], "age": [40, 41], "town": ["X", None]})
    load_frames(store, numbered, users=users)
    store.deny("a", "9")
    again = load_frames(store, numbered, users=users, changed_ids=ChangedIds.of(CHANGES))
    assert (again.new, again.completed) == (0, 0)  # the receipts are there already
    first, *others = store.history("c")
    assert (first.items, first.amounts["quantity"].tolist()) == (("8",), [2.0])
    assert [receipt.items for receipt in others] == [("8",), ("8",)]
    assert store.shopper("c").denied == ("9",)
    assert store.shopper("c").attributes == {"age": 41, "town": "X"}
    assert store.history("a") == store.history("b") == []
    store.close()


def test_an_export_of_old_ids_after_the_table_counts_twice_and_is_said(tmp_path: Path) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    said = []
    for changed in (ChangedIds.of(CHANGES), None, ChangedIds.of(CHANGES)):
        report = LoadReport("x")
        load_frames(store, LINES[3:4].with_columns(item_id=7), changed_ids=changed, report=report)
        said += [note for note in report.notes if "had an item under both ids" in note]
    assert [note[:26] for note in said] == ["1 of these receipts had an"]
    (receipt,) = store.history("d")
    assert (receipt.items, receipt.amounts["quantity"].tolist()) == (("8",), [2])
    store.close()


def test_what_is_said_of_items_holds_of_their_new_ids(tmp_path: Path) -> None:
    """A model that is fitted on the store's receipts knows the new ids alone."""
    store = Store(f"{tmp_path}/store.db").init()
    load_frames(store, LINES)
    store.deny("d", "7")
    store.deny("d", "1")
    store.dismiss("d", "5", Dismissal("5", False, 0, 9))
    store.dismiss("d", "7", Dismissal("7", True, 0, 5))
    store.set_available({"7": False, "2": False})
    store.set_available({"5": False}, "north")
    store.set_rules("default", {"forbid": [{"items": ["5", "3"], "when": "age < 18"}], "max_new": 2})
    store.log_exposures(
        [exposure("d", "7", key=1), exposure("d", "1", key=2), exposure("d", None, key=3)]
    )
    version = store.lists().version
    for _ in range(2):  # again, it changes nothing
        load_frames(store, LINES, changed_ids=ChangedIds.of(CHANGES))
        shopper, lists = store.shopper("d"), store.lists()
        assert shopper.denied == ("1", "7", "8")
        assert {one.item: (one.category, one.until) for one in shopper.dismissed} == {
            "5": (False, 9),
            "7": (True, 5),
            "8": (False, 9),
        }
        assert lists.unavailable == {"2", "7", "8"}
        assert lists.unavailable_in == {"north": {"5", "8"}}
        assert lists.rules["default"]["forbid"][0]["items"] == ["5", "3", "8"]
        assert lists.rules["default"]["max_new"] == 2
        assert [row["item_id"] for row in store.exposures()] == ["8", "1", None]
    assert lists.version != version
    store.close()


def test_what_is_posted_while_an_id_changes_is_not_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(f"{tmp_path}/store.db").init()
    lines = pl.DataFrame({"user_id": ["a"], "item_id": ["tea"], "time": ["2024-01-01"]})
    load_frames(store, lines)
    merge, late = loading.merge, [Posted("a", "late", datetime(2024, 1, 2), [Line("jam")])]

    def merging(*given: Any) -> Any:
        found = merge(*given)
        store.add(accept([late.pop()]).receipts if late else [])
        return found

    monkeypatch.setattr(loading, "merge", merging)
    load_frames(store, lines, changed_ids=ChangedIds.of(table(("user", "a", "b"))))
    assert not late
    assert store.history("a") == []
    assert [receipt.items for receipt in store.history("b")] == [("tea",), ("jam",)]
    store.close()


def test_caps_count_what_a_merged_card_and_a_renumbered_item_were_offered(tmp_path: Path) -> None:
    past = {"campaign": "may", "user_id": ["1", "2", "3"], "item_id": ["7", "8", "9"], "rank": 1}
    offers = pl.DataFrame(past | {"time": datetime(2024, 5, 1), "propensity": 1.0})
    Ledger(tmp_path / "ledger").append(offers)
    pl.DataFrame({"user_id": [11, 2, 3], "item_id": [70, 70, 80], "value": 1.0}).write_csv(
        tmp_path / "pairs.csv"
    )
    changed = ChangedIds.of(table(("user", 1, 11), ("item", 7, 70), ("item", 8, 80)))
    cap = '[[cap]]\ndays = 28\nat_most = 1\nper = "{}"\n'
    for per, left in (("product", [2, 3]), ("shopper", [])):
        (tmp_path / "june.toml").write_text(f'name = "june"\nvalue = "value"\n{cap.format(per)}')
        for table_of, users in ((changed, left), (None, [2, 3, 11] if per == "product" else [11])):
            found = allocate_files(
                tmp_path / "pairs.csv",
                tmp_path / "june.toml",
                tmp_path / f"{per}-{len(users)}",
                ledger=tmp_path / "ledger",
                time="2024-05-02",
                changed_ids=table_of,
            )
            assert sorted(found.offers["user_id"]) == users


def test_lists_of_users_who_became_one_are_one_list() -> None:
    changed = ChangedIds.of(CHANGES)
    rows = [("a", 1, 1), ("b", 7, 1), ("b", 5, 2), ("c", 5, 2), ("c", 8, 1), ("d", 5, 1), ("d", 7, 2)]
    lists = pl.DataFrame(rows, ["user_id", "item_id", "rank"], orient="row")
    assert changed.of_lists(lists).rows() == [("c", 8, 1), ("d", 8, 1)]
    others = lists.filter(pl.col("user_id") != "c")  # then that of the first old id
    assert changed.of_lists(others).rows() == [("c", 1, 1), ("d", 8, 1)]
    pairs = others.drop("rank").with_columns(score=pl.col("item_id") / 10)
    assert changed.of_lists(pairs).rows() == [("c", 1, 0.1), ("d", 8, 0.5)]
    assert changed.of_lists(lists.drop("user_id"))["item_id"].to_list() == [1, 8, 8, 8, 8, 8, 8]


def test_lists_of_a_merged_user_are_judged_as_one(tmp_path: Path) -> None:
    rows = [("a", 1, 1), ("c", 9, 1), ("d", 5, 1), ("d", 7, 2)]
    lists = pl.DataFrame(rows, ["user_id", "item_id", "rank"], orient="row")
    lists.write_csv(tmp_path / "lists.csv")
    pl.DataFrame({"user_id": ["a", "d"], "item_id": [9, 8]}).write_csv(tmp_path / "truth.csv")
    reading = Reading(changed_ids=ChangedIds.of(CHANGES))
    files = {"m": tmp_path / "lists.csv"}, tmp_path / "truth.csv"
    found = evaluate_files(*files, ["precision@2"], reading=reading)
    assert found["models"]["m"]["precision@2"] == 0.5


def test_who_is_asked_for_by_an_old_id_is_answered_as_today() -> None:
    shop = small_data(users=60)
    lines = receipt_lines(shop)
    first, item = lines["user_id"][0], lines["item_id"][0]
    old = lines.with_columns(
        pl.col("user_id").replace(first, 9001), pl.col("item_id").replace(item, 9002)
    )
    changed = ChangedIds.of(table(("user", 9001, first), ("item", 9002, item)))
    data = RetailData.from_frames(old, changed_ids=changed)
    assert data.user_codes([9001, first, 9003]).tolist() == [0, 0, -1]
    assert data.asof(data.end).history([9001]).n_pairs == data.history([first]).n_pairs > 0
    model = TwoStageRecommender(label_splits=shop_splits()).fit(data)
    want = model.recommend(data, [first], k=3)
    assert model.recommend(data, [9001], k=3).equals(want)
    denied = Rules(deny=pl.DataFrame({"user_id": [9001], "item_id": [want["item_id"][0]]}))
    assert model.recommend(data, [9001], k=3, rules=denied)["item_id"][0] == want["item_id"][1]


def test_a_model_reads_a_frame_of_receipts_by_the_ids_that_it_learnt_with(tmp_path: Path) -> None:
    lines = receipt_lines(small_data(users=60))
    first, item = lines["user_id"][0], lines["item_id"][0]
    old = lines.with_columns(
        pl.col("user_id").replace(first, 9001), pl.col("item_id").replace(item, 9002)
    )
    old.write_parquet(tmp_path / "old.parquet")
    changed = ChangedIds.of(table(("user", 9001, first), ("item", 9002, item)))
    data = load_dataset("table", tmp_path / "old.parquet", changed_ids=changed)
    model = TwoStageRecommender(label_splits=shop_splits()).fit(data)
    want = model.recommend(data, [first], k=3)
    assert model.recommend(old, [9001], k=3).equals(want)
    assert model.recommend(lines, [first], k=3).equals(want)
    again = TwoStageRecommender(label_splits=shop_splits()).fit(
        RetailData.from_frames(old, changed_ids=changed)  # no file, so nothing else is kept
    )
    assert again.recommend(old, [9001], k=3).equals(want)


def test_pairs_and_margins_of_offers_are_of_the_new_ids(tmp_path: Path) -> None:
    lines = LINES.with_columns(quantity=pl.lit(2.0), value=pl.lit(3.0))
    data = RetailData.from_frames(lines, changed_ids=ChangedIds.of(CHANGES))
    margin = pl.DataFrame({"item_id": [1, 7], "margin": [0.5, 1.5]})
    found = unit_margins(data, margin)
    assert found is not None
    assert found.tolist() == [0.5, 1.5]
    own = pl.DataFrame({"item_id": [1, 5, 7, 8], "margin": [0.5, 1.0, 1.5, 2.0]})  # its own counts
    found = unit_margins(data, own)
    assert found is not None
    assert found.tolist() == [0.5, 2.0]
    pairs = {"user_id": ["a", "c", "c", "d"], "item_id": [1, 8, 7, 5], "value": [9.0, 1.0, 2.0, 3.0]}
    pl.DataFrame(pairs).write_csv(tmp_path / "pairs.csv")
    (tmp_path / "may.toml").write_text('name = "may"\nvalue = "value"\n[offers]\nat_most = 3\n')
    files = tmp_path / "pairs.csv", tmp_path / "may.toml", tmp_path / "out"
    offers = allocate_files(*files, changed_ids=ChangedIds.of(CHANGES)).offers
    assert sorted(offers.select("user_id", "item_id", "value").rows()) == [("c", 8, 1.0), ("d", 8, 3.0)]


def test_who_stood_in_both_arms_before_the_cards_were_merged_is_left_out(tmp_path: Path) -> None:
    days = [datetime(2024, 4, 1), datetime(2024, 5, 2), datetime(2024, 6, 1)]
    users = [str(u) for u in range(1, 9)]
    rows = [(u, "7", day, 1.0 + int(u)) for u in users for day in days]
    lines = pl.DataFrame(rows, ["user_id", "item_id", "time", "value"], orient="row")
    held = [u in "1234" for u in users]
    offers = pl.DataFrame(
        {
            "campaign": "may",
            "user_id": users,
            "item_id": [None if h else "7" for h in held],
            "time": datetime(2024, 5, 1),
            "rank": [int(not h) for h in held],
            "propensity": [None if h else 0.5 for h in held],
            "holdout": held,
        }
    )
    Ledger(tmp_path / "ledger").append(offers)
    changed = ChangedIds.of(table(("user", 1, 2), ("user", 3, 5)))  # 3 was held out, 5 was not
    data = RetailData.from_frames(lines, changed_ids=changed)
    found = experiment_result(Ledger(tmp_path / "ledger", changed), "may", data, days=14)
    assert (found.n_treated, found.n_holdout) == (3, 2)
    assert (
        "1 shoppers stood in both arms before their ids became one; they are left out." in found.notes
    )
    spend = next(e for e in found.effects if e.metric == "spend" and not e.adjusted)
    assert (spend.treated, spend.holdout) == (8.0, (2.0 + 3.0 + 5.0) / 2)  # 6, 7, 8; 2 with 1, and 4

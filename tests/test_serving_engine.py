"""The engine's answers are those of a batch over the same receipts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("sqlalchemy")
from door_support import lines_of
from retailrec.data import RetailData
from retailrec.errors import SettingError
from retailrec.recommender.among import Among
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.serving.engine import Engine, HotShoppers, OfferRequest, Reply, UserRecord, code_receipts
from retailrec.serving.forgetting import take_off_list
from retailrec.serving.loading import load_data, load_frames
from retailrec.serving.receipts import Line, Posted, accept
from retailrec.serving.served_model import ServedModel
from retailrec.serving.store import Store
from retailrec.serving.upkeep import export
from retailrec.simulator.shop import small_data
from serving_support import small_model


@pytest.fixture(scope="module")
def shop() -> RetailData:
    return small_data(users=60, weeks=30, items=200)


@pytest.fixture(scope="module")
def model(shop: RetailData, tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    """Fitted on all but the last two weeks, so that the store knows more than the model."""
    folder = tmp_path_factory.mktemp("models") / "m1"
    known = shop.asof(shop.end - timedelta(days=14))
    small_model(discover=Discovery(n_candidates=15)).fit(known).save(folder)
    return ServedModel.load(folder)


@pytest.fixture(scope="module")
def filled(shop: RetailData, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = Store(str(tmp_path_factory.mktemp("store") / "store.db")).init()
    load_data(store, shop)
    yield store
    store.close()


@pytest.fixture
def engine(filled: Store) -> Engine:
    return Engine(filled)


@pytest.fixture
def fresh(filled: Store, tmp_path: Path) -> Iterator[Engine]:
    """An engine over a store of its own, with the same receipts."""
    copy = tmp_path / "store.db"
    filled.sweep()
    copy.write_bytes(Path(str(filled.writing.url.database)).read_bytes())
    store = Store(str(copy))
    yield Engine(store)
    store.close()


@pytest.mark.parametrize("store", [None, "north"])
def test_lists_that_change_while_their_codes_are_looked_up_hold_in_the_next_answer(
    fresh: Engine, model: ServedModel, monkeypatch: pytest.MonkeyPatch, store: str | None
) -> None:
    def offered() -> list[str]:
        answer = fresh.offers(model, "5", OfferRequest.of(k=5, in_store="north"))
        return [str(offer.item) for offer in answer.offers]

    first, second, *_ = offered()
    fresh.store.set_available({first: False}, store)
    codes, changed = ServedModel.codes, []

    def meanwhile(model: ServedModel, items: Iterable[str]) -> Any:
        items = list(items)
        if items == [first] and not changed:
            changed.append(second)  # another request reads lists that changed just now
            fresh.store.set_available({second: False}, store)
            fresh.lists()
        return codes(model, items)

    monkeypatch.setattr(ServedModel, "codes", meanwhile)
    assert first not in offered()
    assert changed == [second]
    assert not {first, second} & set(offered())


def batch(
    model: ServedModel, data: RetailData, k: int, **more: Any
) -> dict[str, list[tuple[Any, ...]]]:
    """Shopper -> (item, score) of the batch's list."""
    frame = model.model.recommend(data, k=k, **more)
    found: dict[str, list[tuple[Any, ...]]] = {}
    for user, item, score in frame.select("user_id", "item_id", "score").iter_rows():
        found.setdefault(str(user), []).append((item, score))
    return found


def listed(answer: Reply) -> list[tuple[Any, ...]]:
    return [(offer.item, offer.score) for offer in answer.offers]


def test_every_list_is_that_of_the_batch(engine: Engine, model: ServedModel, shop: RetailData) -> None:
    expected = batch(model, shop, 10)
    for _ in range(2):  # read from the store, then from the cache
        answers = {u: engine.offers(model, u, OfferRequest.of(k=10)) for u in expected}
        assert {u: listed(a) for u, a in answers.items()} == expected
        assert {a.as_of for a in answers.values()} == {shop.end}
    assert engine.cache.hits >= len(expected)


@pytest.mark.parametrize(
    ("days", "change", "said"),
    [
        (0, {}, None),
        (-30, {}, "The receipts end before"),
        (-3650, {}, "days before those that the model was fitted on"),
        (3650, {}, "days after those that the model was fitted on"),
        (0, {"value": pl.lit(None, pl.Float64)}, "The receipts have no money (value or price)"),
        (0, {"quantity": pl.lit(1.0)}, "Every quantity is 1"),
        (0, {"value": pl.col("value") * 100}, "mostly about 100 times them"),
        (0, {"item_id": pl.lit("x-") + pl.col("item_id").cast(pl.String)}, "None of the"),
    ],
)
def test_receipts_unlike_those_of_the_fit_are_said_as_in_a_batch(
    model: ServedModel, shop: RetailData, tmp_path: Path, days: int, change: dict, said: str | None
) -> None:
    lines = lines_of(shop).with_columns(pl.col("time") + pl.duration(days=days)).with_columns(**change)
    if said == "None of the":
        notes: tuple[str, ...] = ()  # an error in a batch
    else:
        notes = model.model.answer(lines, ["5"], k=3).report.notes
        assert notes == () if said is None else said in " ".join(notes), notes
    store = Store(str(tmp_path / "store.db")).init()
    load_frames(store, lines)
    engine = Engine(store)
    reply = engine.offers(model, "5", OfferRequest.of(k=3))
    assert reply.notes == notes or (said == "None of the" and said in " ".join(reply.notes))
    store.close()


def test_that_nothing_is_known_before_a_time_is_said_as_in_a_batch(
    engine: Engine, model: ServedModel, shop: RetailData
) -> None:
    at = shop.start
    notes = model.model.answer(shop, ["5"], k=3, at=at).report.notes
    assert notes == (
        f"No receipt is known before {at:%Y-%m-%d}; every list is that of an unknown shopper.",
    )
    assert engine.offers(model, "5", OfferRequest.of(k=3, at=at)).notes == notes


def test_a_fresh_receipt_ends_the_note_at_once(
    model: ServedModel, shop: RetailData, tmp_path: Path
) -> None:
    store = Store(str(tmp_path / "store.db")).init()
    load_frames(store, lines_of(shop).with_columns(pl.col("time") - pl.duration(days=60)))
    engine = Engine(store)
    assert "The receipts end before" in engine.offers(model, "5", OfferRequest.of(k=3)).notes[0]
    newest = Posted("5", "new", model.end, [Line("3", 1.0, 2.0)])
    store.add(accept([newest]).receipts)
    assert engine.offers(model, "5", OfferRequest.of(k=3)).notes == ()
    store.close()


def test_exported_receipts_give_the_same_lists(
    engine: Engine, model: ServedModel, shop: RetailData, tmp_path: Path
) -> None:
    export(engine.store, tmp_path / "lines.parquet")
    users = shop.users.select("user_id", pl.col(pl.String))
    data = RetailData.from_frames(pl.read_parquet(tmp_path / "lines.parquet"), users=users)
    expected = batch(model, data, 5)
    assert {u: listed(engine.offers(model, u, OfferRequest.of(k=5))) for u in expected} == expected


def test_rules_and_lists_do_what_they_do_in_batch(
    fresh: Engine, model: ServedModel, shop: RetailData
) -> None:
    plain = batch(model, shop, 5)
    sold_out = [items[0][0] for items in list(plain.values())[:4]]
    some = next(iter(plain))
    denied = plain[some][1][0]
    fresh.store.set_available({str(item): False for item in sold_out})
    fresh.store.deny(some, str(denied))
    settings: dict[str, Any] = {
        "max_per_category": 2,
        "min_new": 1,
        "price_ceiling": 9.0,
        "skip_bought_days": 7.0,
        "unless_due": False,
    }
    rest = pl.DataFrame({"item_id": [i for i in model.ids if i not in sold_out]})
    deny = pl.DataFrame({"user_id": [int(some)], "item_id": [denied]})
    expected = batch(model, shop, 5, rules=Rules(available=rest, deny=deny, **settings))
    found = {u: listed(fresh.offers(model, u, OfferRequest.of(k=5, rules=settings))) for u in plain}
    assert {u: items for u, items in found.items() if items} == expected
    assert found != plain


def test_lists_take_effect_at_once_and_back(fresh: Engine, model: ServedModel) -> None:
    before = fresh.offers(model, "1", OfferRequest.of(k=5))
    first = str(before.offers[0].item)
    fresh.store.set_available({first: False})
    assert first not in [str(o.item) for o in fresh.offers(model, "1", OfferRequest.of(k=5)).offers]
    fresh.store.set_available({first: True})
    assert fresh.offers(model, "1", OfferRequest.of(k=5)) == before


def test_the_next_answer_knows_a_receipt(fresh: Engine, model: ServedModel, shop: RetailData) -> None:
    before = fresh.offers(model, "1", OfferRequest.of(k=10))
    last = before.offers[-1].item
    lines = [Line(str(last), 3, 9.0)]
    for number in range(3):
        time = shop.end - timedelta(hours=1 + number)
        fresh.store.add([accept([Posted("1", f"{number}", time, lines)]).receipts[0]])
    after = fresh.offers(model, "1", OfferRequest.of(k=10))
    assert after.receipts == before.receipts + 3
    assert listed(after) != listed(before)
    lines_now = fresh.store.history("1")
    given = UserRecord("1", code_receipts(model, lines_now), fresh.store.shopper("1").attributes)
    same = fresh.answer(model, [given], OfferRequest.of(k=10), after.as_of, fresh.lists())[0]
    assert listed(same) == listed(after)


def test_attributes_of_a_request_are_read_as_those_of_a_table(model: ServedModel) -> None:
    facts = [{"region": text} for text in (" north ", "NULL", "  ", "north")]
    events = [code_receipts(model, [])] * 4
    users = model.history(list("abcd"), events, facts, model.end, None, ("region",)).users
    assert users["region"].to_list() == ["north", None, None, "north"]


def test_another_process_makes_a_cached_history_useless(
    fresh: Engine, model: ServedModel, shop: RetailData
) -> None:
    fresh.offers(model, "1", OfferRequest.of())
    other = Store(fresh.store.url)
    other.add(
        [accept([Posted("1", "x", shop.end - timedelta(hours=1), [Line("1", 1, 2.0)])]).receipts[0]]
    )
    known = fresh.offers(model, "1", OfferRequest.of()).receipts
    other.forget("1")
    take_off_list(other, "1")
    other.add(
        [accept([Posted("1", "y", shop.end - timedelta(hours=1), [Line("1", 1, 2.0)])]).receipts[0]]
    )
    other.close()
    assert known > 1
    assert fresh.offers(model, "1", OfferRequest.of()).receipts == 1


def test_an_answer_at_a_time_knows_receipts_before_it_only(
    engine: Engine, model: ServedModel, shop: RetailData
) -> None:
    at = shop.end - timedelta(days=5)
    expected = batch(model, shop.asof(at), 5)
    found = {u: engine.offers(model, u, OfferRequest.of(k=5, at=at)) for u in expected}
    assert {u: listed(a) for u, a in found.items()} == expected
    assert {a.as_of for a in found.values()} == {at}


def test_every_level_says_why(fresh: Engine, model: ServedModel, shop: RetailData) -> None:
    now = shop.end - timedelta(hours=1)
    fresh.store.add([accept([Posted("odd", "1", now, [Line("no such item", 1, 2.0)])]).receipts[0]])
    column = model.user_columns[0]
    value = shop.users[column].drop_nulls()[0]
    fresh.store.describe({"fits": {column: value}})
    found = {u: fresh.offers(model, u, OfferRequest.of(k=3)) for u in ("1", "fits", "odd", "nobody")}
    assert [a.level for a in found.values()] == ["personal", "segment", "popular", "popular"]
    assert "no receipt" in found["nobody"].why
    assert "does not know" in found["odd"].why
    assert column in found["fits"].why
    assert listed(found["nobody"]) == listed(found["odd"])
    nothing = fresh.offers(
        model,
        "1",
        OfferRequest.of(k=3, among=Among(items=pl.Series("item_id", [], pl.String)), reasons=True),
    )
    assert (nothing.level, nothing.offers) == ("none", ())


def test_reasons_are_those_of_the_batch(engine: Engine, model: ServedModel, shop: RetailData) -> None:
    frame = model.model.explain(shop, k=4)
    expected = frame.filter(pl.col("user_id") == 7)["reasons"].to_list()
    found = engine.offers(model, "7", OfferRequest.of(k=4, reasons=True))
    assert [o.reasons for o in found.offers] == expected
    assert engine.offers(model, "7", OfferRequest.of(k=4)).offers[0].reasons is None


def test_only_items_asked_for_are_offered(engine: Engine, model: ServedModel) -> None:
    wide = engine.offers(model, "3", OfferRequest.of(k=20))
    some = pl.DataFrame({"item_id": [str(o.item) for o in wide.offers[4:9]]})
    narrow = engine.offers(model, "3", OfferRequest.of(k=20, among=some))
    assert listed(narrow) == listed(wide)[4:9]


def test_saved_rules_hold_by_their_name_and_by_a_purpose_as_of_version_0_2(
    fresh: Engine, model: ServedModel
) -> None:
    fresh.store.set_rules("mailing", {"price_ceiling": 2.0})
    fresh.store.set_rules("default", {"max_per_category": 1})
    prices = dict(zip(model.ids, model.model.prices_, strict=True))
    mailed = fresh.offers(model, "3", OfferRequest.of("mailing", k=5))
    assert all(prices[o.item] <= 2 for o in mailed.offers)
    assert mailed != fresh.offers(model, "3", OfferRequest.of(k=5))
    new = fresh.offers(model, "3", OfferRequest.of("new", k=5))
    bought = {item for r in fresh.store.history("3") for item in r.items}
    assert not bought & {str(o.item) for o in new.offers}
    with pytest.raises(SettingError, match=r"no ruleset .nothing..*default, mailing, new"):
        fresh.offers(model, "3", OfferRequest.of("nothing"))
    old = fresh.offers(model, "3", OfferRequest.of(k=5, purpose="mailing"))
    assert (old.offers, old.ruleset, old.purpose) == (mailed.offers, "mailing", "mixed")
    assert "ask with ruleset=mailing" in " ".join(old.notes)
    assert not mailed.notes
    with pytest.raises(SettingError, match="no rule 'colour'"):
        fresh.offers(model, "3", OfferRequest.of(rules={"colour": 1}))


@pytest.mark.parametrize("purpose", ["replenish", "discover"])
def test_lists_for_a_purpose_are_those_of_the_batch(
    fresh: Engine, model: ServedModel, shop: RetailData, purpose: Any
) -> None:
    expected = batch(model, shop, 5, purpose=purpose)
    found = {u: listed(fresh.offers(model, u, OfferRequest.of(k=5, purpose=purpose))) for u in expected}
    assert found == expected
    assert purpose == "replenish" or expected != batch(model, shop, 5)
    why = model.model.explain(shop, users=[3], k=5, purpose=purpose)["reasons"].to_list()
    answer = fresh.offers(model, "3", OfferRequest.of(k=5, purpose=purpose, reasons=True))
    assert [offer.reasons for offer in answer.offers] == why
    fresh.store.set_rules(purpose, {"max_per_category": 1})
    ruled = batch(model, shop, 5, purpose=purpose, rules=Rules(max_per_category=1))
    assert {
        u: listed(fresh.offers(model, u, OfferRequest.of(k=5, purpose=purpose))) for u in ruled
    } == ruled


def test_a_shopper_without_receipts_has_nothing_to_replenish_and_much_to_discover(
    engine: Engine, model: ServedModel
) -> None:
    nothing = engine.offers(model, "nobody", OfferRequest.of(k=5, purpose="replenish"))
    assert (nothing.offers, nothing.level) == ((), "none")
    assert "nothing to replenish" in nothing.why
    assert len(engine.offers(model, "nobody", OfferRequest.of(k=5, purpose="discover")).offers) == 5


def test_a_model_that_learnt_nothing_new_offers_no_such_list(
    engine: Engine, shop: RetailData, tmp_path: Path
) -> None:
    small_model().fit(shop).save(tmp_path / "plain")
    plain = ServedModel.load(tmp_path / "plain")
    assert plain.purposes == ("mixed", "replenish")
    with pytest.raises(SettingError, match="has learnt none"):
        engine.offers(plain, "3", OfferRequest.of(purpose="discover"))


def test_several_histories_at_once_are_answered_as_each_alone(
    engine: Engine, model: ServedModel
) -> None:
    given = []
    for user in ("1", "nobody", "2", "3"):
        known = engine.store.shopper(user)
        given.append(UserRecord(user, engine.events(model, user, known), known.attributes))
    ends = engine.store.shopper("1").ends
    together = engine.answer(model, given, OfferRequest.of(k=6, reasons=True), ends, engine.lists())
    assert together == [
        engine.offers(model, g.shopper, OfferRequest.of(k=6, reasons=True)) for g in given
    ]


def test_the_cache_stays_within_its_bound(engine: Engine, model: ServedModel) -> None:
    events = {u: engine.events(model, u, engine.store.shopper(u)) for u in ("1", "2", "3", "4")}
    sizes = {u: len(e.item) + 10 for u, e in events.items()}
    cache = HotShoppers(most_lines=sizes["1"] + sizes["3"] + sizes["4"])
    for u in ("1", "2", "3"):
        cache.put((u, "m"), (1,), events[u])
        assert cache.get(("1", "m"), (1,)) is events["1"] or u == "x"
    cache.put(("4", "m"), (1,), events["4"])
    assert cache.lines <= sizes["1"] + sizes["3"] + sizes["4"]
    assert cache.get(("2", "m"), (1,)) is None  # the one that was asked for longest ago
    assert cache.get(("4", "m"), (2,)) is None  # another version
    assert cache.forget(lambda user: user == "4") == 1
    assert cache.get(("4", "m"), (1,)) is None
    cache.clear()
    assert (len(cache), cache.lines) == (0, 0)


def test_a_served_model_uses_one_thread_a_request(model: ServedModel) -> None:
    assert isinstance(model.model, TwoStageRecommender)
    assert model.model.threads == model.model.ranker_.threads == 1  # type: ignore[attr-defined]

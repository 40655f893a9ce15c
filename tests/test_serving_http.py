"""The service over HTTP: lists, receipts, models that are swapped, and the log of what was shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest

pytest.importorskip("fastapi")
from starlette.testclient import TestClient

from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.errors import ArtifactError, DataError
from retailrec.offers.ledger import Ledger
from retailrec.recommender.batch import artifact_key
from retailrec.recommender.dismissals import check_dismissals, holding
from retailrec.recommender.request import parse_slots
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.serving.app import make_app, reply
from retailrec.serving.database import Dismissal, StoreFull, StoreUnavailable
from retailrec.serving.experiment import Arm, Experiment, read_experiment
from retailrec.serving.messages import ShopperIn
from retailrec.serving.receipts import microseconds
from retailrec.serving.served_model import ServedModel
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
from retailrec.serving.upkeep import export_dismissals, export_exposures, export_pools
from serving_http_support import SOON, Start, receipt, small_shop, starting, two_models


@pytest.fixture(scope="module")
def shop() -> RetailData:
    return small_shop()


@pytest.fixture(scope="module")
def folder(shop: RetailData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(shop, tmp_path_factory.mktemp("service"))


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Start]:
    yield from starting(folder, tmp_path)


def test_lists_over_http_are_those_of_the_batch(start: Start, shop: RetailData) -> None:
    client = start()
    model = client.service.models.active.model  # type: ignore[attr-defined]
    frame = model.explain(shop, k=5)
    expected: dict[str, list[Any]] = {}
    for user, item, score, rank, why in frame.iter_rows():
        expected.setdefault(str(user), []).append([item, score, rank, why])
    for user, rows in expected.items():
        answer = client.get(f"/v1/shoppers/{user}/offers", params={"k": 5, "reasons": True}).json()
        found = [[o["item"], o["score"], o["rank"], o["reasons"]] for o in answer["offers"]]
        assert found == rows
        assert answer["level"] == "personal"
        assert answer["as_of"] == shop.end.isoformat()


def test_old_ids_over_http_are_those_of_today(start: Start) -> None:
    client = start()
    active = client.service.models.active  # type: ignore[attr-defined]
    item = str(active.ids[0])
    changed = ChangedIds({"card1": "card2", "card2": "3"}, {"renumbered": item})
    kept = {"dataset": "table", "changed_ids": changed.frame()}
    active.model.report_ = active.model.report_ | {"reading": kept}
    client.service.models.active.__post_init__()  # type: ignore[attr-defined]
    offers = client.get("/v1/shoppers/3/offers").json()
    again = client.get("/v1/shoppers/card1/offers").json()
    assert (again["shopper"], again["offers"]) == ("3", offers["offers"])
    posted = {"receipts": [receipt("card1", "new", "renumbered", item)]}
    assert client.post("/v1/receipts", json=posted).json() | {"request": ""} == {
        "new": 1,
        "known": 0,
        "forgotten": 0,
        "lines": 1,  # one item
        "merged": 1,
        "pieces": 1,
        "rejected": {},
        "notes": [],
        "request": "",
    }
    assert client.post("/v1/receipts", json=posted).json()["known"] == 1
    history = client.get("/v1/shoppers/card2/history").json()
    assert history["shopper"] == "3"
    assert [line["item"] for line in history["newest"][-1]["lines"]] == [item]
    assert client.get("/v1/items/renumbered/similar").status_code == 200
    for page, name in (("shopper?id=card1&drop=renumbered", "3"), ("item?id=renumbered", item)):
        shown = client.get(f"/{page}")
        assert shown.status_code == 200
        assert "card1" not in shown.text
        assert f'value="{name}"' in shown.text
    assert f"never bought {active.label(item)}" in client.get("/shopper?id=card1&drop=renumbered").text
    best = str(offers["offers"][0]["item"])
    kept["changed_ids"] = ChangedIds({"card1": "card2", "card2": "3"}, {"renumbered": best}).frame()
    active.__post_init__()
    forbid = {"rules": {"forbid": [{"items": ["renumbered"]}]}}
    assert client.put("/v1/rules/other", json=forbid["rules"]).status_code == 200
    without = client.get("/v1/shoppers/3/offers", params={"ruleset": "other"}).json()["offers"]
    assert best not in [str(one["item"]) for one in without]
    kept["changed_ids"] = changed.frame()
    active.__post_init__()
    client.put("/v1/shoppers/card1/denied/9")
    assert client.get("/v1/shoppers/3/history").json()["denied"] == ["9"]
    gone = client.delete("/v1/shoppers/card2").json()
    assert gone["not_searched"][-1].endswith("forget each of them, too: 3, card1")
    # what comes under it, and under those before it, is left out
    posted["receipts"][0]["number"] = "newer"
    assert client.post("/v1/receipts", json=posted).json()["forgotten"] == 1
    assert client.get("/v1/shoppers/3/history").json()["receipts"] == history["receipts"]
    client.delete("/v1/shoppers/card1")
    gone = client.delete("/v1/shoppers/3").json()
    assert "other ids" not in str(gone["not_searched"])


def test_what_was_said_of_an_old_id_is_taken_back_by_the_new_one(start: Start) -> None:
    client = start()
    active = client.service.models.active  # type: ignore[attr-defined]
    best = str(client.get("/v1/shoppers/3/offers").json()["offers"][0]["item"])
    table = ChangedIds(items={"renumbered": best}).frame()
    active.model.report_ = active.model.report_ | {
        "reading": {"dataset": "table", "changed_ids": table}
    }
    active.__post_init__()

    def offered() -> bool:
        offers = client.get("/v1/shoppers/3/offers").json()["offers"]
        return best in [str(one["item"]) for one in offers]

    for off, on in (
        (
            lambda: client.put("/v1/shoppers/3/denied/renumbered"),
            lambda: client.delete(f"/v1/shoppers/3/denied/{best}"),
        ),
        (
            lambda: client.post("/v1/shoppers/3/dismissals", json={"item": "renumbered"}),
            lambda: client.delete(f"/v1/shoppers/3/dismissals/{best}"),
        ),
        (
            lambda: client.post("/v1/availability", json={"items": {"renumbered": False}}),
            lambda: client.post("/v1/availability", json={"items": {best: True}}),
        ),
    ):
        assert offered()
        assert off().status_code == 200
        assert not offered()
        assert on().status_code == 200
    assert offered()


def test_purposes_over_http_are_those_of_the_batch(start: Start, shop: RetailData) -> None:
    client = start()
    model = client.service.models.active.model  # type: ignore[attr-defined]
    for purpose in ("replenish", "discover"):
        frame = model.recommend(shop, users=[3], k=4, purpose=purpose)
        answer = client.get("/v1/shoppers/3/offers", params={"k": 4, "purpose": purpose}).json()
        found = [(o["item"], o["score"]) for o in answer["offers"]]
        assert found == list(frame.select("item_id", "score").iter_rows())
        assert answer["purpose"] == purpose
    body = {"shoppers": [{"shopper": "x", "receipts": []}], "purpose": "discover", "k": 3}
    answer = client.post("/v1/offers", json=body).json()["answers"][0]
    assert len(answer["offers"]) == 3
    client.post("/v1/models/first/activate")
    refused = client.get("/v1/shoppers/3/offers", params={"purpose": "discover"})
    assert refused.status_code == 422
    assert "has learnt none" in refused.json()["detail"]


def test_slots_over_http_are_those_of_the_batch(start: Start, shop: RetailData) -> None:
    client = start()
    model = client.service.models.active.model  # type: ignore[attr-defined]
    history = client.get("/v1/shoppers/3/history", params={"limit": 1000}).json()
    for stored in history["newest"]:
        for line in stored["lines"]:
            del line["name"]
    given = {"shopper": "3", "receipts": history["newest"], "attributes": history["attributes"]}
    cases: list[tuple[str, dict[str, int]]] = [
        ("replenish=3,discover=2", {}),
        ("discover=4, mixed=2", {"max_per_category": 2}),
    ]
    for text, rules in cases:
        frame = model.explain(shop, [3], rules=Rules(**rules), slots=parse_slots(text))
        columns = ("item_id", "score", "rank", "purpose", "reasons")
        expected = list(frame.select(columns).iter_rows())
        asked = {"slots": text, "reasons": True}
        stored = client.get("/v1/shoppers/3/offers", params=asked | rules).json()
        sent = client.post("/v1/offers", json={"shoppers": [given], "rules": rules} | asked).json()
        for answer in (stored, sent["answers"][0]):
            names = ("item", "score", "rank", "purpose", "reasons")
            assert [tuple(offer[name] for name in names) for offer in answer["offers"]] == expected
        assert {row[3] for row in expected} == set(parse_slots(text))


def test_slots_that_make_no_sense_are_refused_in_words(start: Start) -> None:
    client = start()
    for text, said in (
        ("replenish", "purpose=number pairs"),
        ("often=3", "no purpose"),
        ("replenish=0", "there is none"),
        ("replenish=2,replenish=3", "a purpose twice"),
        ("replenish=150,discover=51", "200 in all"),
    ):
        for answer in (
            client.get("/v1/shoppers/3/offers", params={"slots": text}),
            client.post("/v1/offers", json={"shoppers": [{}], "slots": text}),
        ):
            assert answer.status_code == 422
            assert said in answer.json()["detail"]
    client.post("/v1/models/first/activate")
    refused = client.get("/v1/shoppers/3/offers", params={"slots": "replenish=3,discover=2"})
    assert refused.status_code == 422
    assert "has learnt none" in refused.json()["detail"]


def test_what_contradicts_itself_or_is_not_known_is_refused(start: Start) -> None:
    client = start()
    for query in ("slots=replenish=2&k=5", "slots=replenish=2&purpose=mixed"):
        refused = client.get(f"/v1/shoppers/3/offers?{query}")
        assert (refused.status_code, "Leave" in refused.text) == (422, True), query
    body = {"shoppers": [{}], "slots": "replenish=2", "k": 5}
    assert client.post("/v1/offers", json=body).status_code == 422
    assert len(client.get("/v1/shoppers/3/offers?slots=replenish=2&k=2").json()["offers"]) == 2
    assert client.get("/health/live?probe=7").status_code == 200
    for path in (
        "/v1/shoppers/3/history?most=1",
        "/v1/shoppers/3/history?limit=1&limit=2",
        "/v1/items/1/similar?n=1",
        "/v1/items/1/similar?k=1&k=2",
        "/v1/rules?ruleset=default",
    ):
        refused = client.get(path)
        assert (refused.status_code, "no parameter" in refused.text or "once" in refused.text) == (
            422,
            True,
        ), path


def test_rules_are_saved_over_what_was_seen_only(start: Start) -> None:
    client = start()
    path = "/v1/rules/mailing"
    assert client.get(path).status_code == 404
    client.put(path, json={"max_per_category": 5})
    found = client.get(path)
    assert found.json()["rules"] == {"max_per_category": 5}
    seen = {"If-Match": found.headers["ETag"]}
    assert client.put(path, json={"max_per_category": 4}, headers=seen).status_code == 200
    for late in (seen, {"If-Match": "*"}, {"If-Match": ""}):
        refused = client.put(path, json={"max_per_category": 3}, headers=late)
        assert (refused.status_code, "look" in refused.text) == (412, True)
        assert client.delete(path, headers=late).status_code == 412
    assert client.get(path).json()["rules"] == {"max_per_category": 4}
    seen = {"If-Match": client.get(path).headers["ETag"]}
    assert client.delete(path, headers=seen).status_code == 200
    assert client.put(path, json={"max_per_category": 3}, headers=seen).status_code == 412
    assert client.get(path).status_code == 404
    new = {"If-None-Match": "*"}
    assert client.put(path, json={}, headers=new).status_code == 200
    refused = client.put(path, json={"max_per_category": 3}, headers=new)
    assert (refused.status_code, "already" in refused.text) == (412, True)
    for headers in ({"If-None-Match": '"a"'}, new | seen):
        assert client.put(path, json={"max_per_category": 3}, headers=headers).status_code == 422
    assert client.get(path).json()["rules"] == {}


def test_slots_keep_to_the_lists_that_hold(start: Start) -> None:
    client = start()
    asked = {"slots": "replenish=2,discover=2"}
    first = client.get("/v1/shoppers/3/offers", params=asked).json()["offers"]
    gone = str(first[0]["item"])
    client.post("/v1/availability", json={"items": {gone: False}})
    client.put(f"/v1/shoppers/3/denied/{first[2]['item']}")
    now = client.get("/v1/shoppers/3/offers", params=asked).json()["offers"]
    assert len(now) == 4
    assert not {first[0]["item"], first[2]["item"]} & {offer["item"] for offer in now}


def test_the_next_answer_knows_the_receipt_and_a_retry_changes_nothing(start: Start) -> None:
    client = start()
    before = client.get("/v1/shoppers/new one/offers").json()
    assert (before["level"], before["receipts"]) == ("popular", 0)
    body = {"receipts": [receipt("new one", "7", "1", "2", "2"), receipt("new one", "8", "3")]}
    sent = client.post("/v1/receipts", json=body).json()
    assert (sent["new"], sent["known"], sent["lines"], sent["merged"]) == (2, 0, 3, 1)
    after = client.get("/v1/shoppers/new one/offers").json()
    assert (after["level"], after["receipts"], after["lines"]) == ("personal", 2, 3)
    again = client.post("/v1/receipts", json=body).json()
    assert (again["new"], again["known"]) == (0, 2)
    once_more = client.get("/v1/shoppers/new one/offers").json()
    assert once_more["offers"] == after["offers"]
    history = client.get("/v1/shoppers/new one/history").json()
    assert [r["number"] for r in history["newest"]] == ["7", "8"]
    assert history["newest"][0]["lines"][1]["quantity"] == 2


def test_ids_that_are_known_but_for_zeros_are_said_where_receipts_are_posted(start: Start) -> None:
    client = start()
    for shopper, item, said in (
        ("0003", "1", ["user_id of the store: 1 ids are others"]),
        ("0003", "0001", ["item_id of the model: 1 ids are others"]),  # the shopper is there by now
        ("3", "1", []),
    ):
        sent = client.post("/v1/receipts", json={"receipts": [receipt(shopper, item, item)]}).json()
        assert [note[: len(one)] for note, one in zip(sent["notes"], said, strict=True)] == said


def test_a_receipt_that_may_be_there_without_its_number_is_said(start: Start) -> None:
    client, one = start(), receipt("a", "17", "1")
    unnumbered = one | {"number": f"{datetime.fromisoformat(one['time']):%Y%m%dT%H%M%S}"}
    client.post("/v1/receipts", json={"receipts": [unnumbered]})
    other = one | {"lines": receipt("a", "17", "1", "2")["lines"]}
    sent = client.post("/v1/receipts", json={"receipts": [other]}).json()
    (note,) = sent["notes"]
    assert sent["new"] == 1
    assert note.startswith("1 receipts begin in the second of one in the store")
    assert note.endswith(f"both count: '17' and '{unnumbered['number']}' of shopper 'a'")


def test_receipts_of_a_call_are_stored_together_or_not_at_all(start: Start) -> None:
    client = start()
    client.post("/v1/receipts", json={"receipts": [receipt("a", "1", "1")]})
    bad = {"receipts": [receipt("a", "2", "1"), receipt("a", "1", "9")]}
    refused = client.post("/v1/receipts", json=bad)
    assert refused.status_code == 409
    assert "other contents" in refused.json()["detail"]
    late = {"receipts": [receipt("a", "3", "1"), receipt("a", "4", "1", time="2099-01-01T00:00:00")]}
    assert client.post("/v1/receipts", json=late).status_code == 422
    assert client.get("/v1/shoppers/a/history").json()["receipts"] == 1


def test_a_number_is_no_time(start: Start) -> None:
    """2000 was taken for a second of 1970, and refused with words about zones."""
    client = start()
    body = {"shoppers": [{"shopper": "5"}], "at": 2000}
    for said in (client.get("/v1/shoppers/5/offers?at=2000"), client.post("/v1/offers", json=body)):
        assert said.status_code == 422
        assert "a time is written as 2024-01-31T18:00:00, not as 2000" in said.text
    one = receipt("a", "1", "1") | {"time": 1_700_000_000}
    said = client.post("/v1/receipts", json={"receipts": [one]})
    assert (said.status_code, "not as 1700000000" in said.text) == (422, True)


def test_lines_that_are_no_purchase_are_counted(start: Start) -> None:
    client = start()
    body = receipt("a", "1", "1", "2", "3")
    body["lines"][1]["quantity"], body["lines"][2]["value"] = -1, 0
    sent = client.post("/v1/receipts", json={"receipts": [body]}).json()
    assert sent["rejected"] == {"return or cancellation": 1, "zero price": 1}
    assert sent["lines"] == 1


def test_a_history_in_the_body_gives_the_list_of_the_stored_one(start: Start) -> None:
    client = start()
    stored = client.get("/v1/shoppers/5/offers", params={"k": 7}).json()
    history = client.get("/v1/shoppers/5/history", params={"limit": 1000}).json()
    body = {
        "shoppers": [
            {"shopper": "5", "receipts": history["newest"], "attributes": history["attributes"]},
            {"shopper": "nobody"},
        ],
        "k": 7,
    }
    for one in body["shoppers"][0]["receipts"]:  # type: ignore[index]
        for line in one["lines"]:
            line.pop("name")
    client.service.log.flush()  # type: ignore[attr-defined]
    counts = client.service.store.counts()  # type: ignore[attr-defined]
    answers = client.post("/v1/offers", json=body).json()["answers"]
    assert answers[0]["offers"] == stored["offers"]
    assert [a["level"] for a in answers] == ["personal", "popular"]
    assert client.service.store.counts() == counts  # type: ignore[attr-defined]


def test_forgetting_leaves_nothing(start: Start, tmp_path: Path) -> None:
    client = start()
    client.post("/v1/receipts", json={"receipts": [receipt("forget-me", "1", "1")]})
    client.get("/v1/shoppers/forget-me/offers")
    client.service.log.flush()  # type: ignore[attr-defined]
    client.get("/v1/shoppers/forget-me/offers")  # waits in memory
    removed = client.delete("/v1/shoppers/forget-me").json()["removed"]
    assert removed["receipts"] == 1
    assert removed["exposures"] == 10
    assert client.get("/v1/shoppers/forget-me/history").json()["receipts"] == 0
    client.service.log.flush()  # type: ignore[attr-defined]
    for file in tmp_path.iterdir():
        assert b"forget-me" not in file.read_bytes()


def test_who_was_forgotten_stays_so_until_taken_back(start: Start) -> None:
    client = start()
    body = {"receipts": [receipt("gone", "1", "1"), receipt("stays", "1", "2")]}
    client.post("/v1/receipts", json=body)
    forgotten = client.delete("/v1/shoppers/gone")
    assert forgotten.status_code == 200
    assert [what.partition(":")[2] for what in forgotten.json()["left"]] == [" retailrec store compact"]
    again = client.post("/v1/receipts", json=body).json()
    assert (again["new"], again["known"], again["forgotten"]) == (0, 1, 1)
    assert client.get("/v1/shoppers/gone/offers").json()["level"] == "popular"
    client.service.log.flush()  # type: ignore[attr-defined]
    assert client.service.store.exposures() == []  # type: ignore[attr-defined]
    denied = client.put("/v1/shoppers/gone/denied/1")
    assert denied.status_code == 409
    assert "was forgotten" in denied.json()["detail"]
    assert client.delete("/v1/forgotten/gone").json()["was"] is True
    assert client.delete("/v1/forgotten/gone").json()["was"] is False
    assert client.post("/v1/receipts", json=body).json()["new"] == 1


def test_memory_and_pages_forget_too(start: Start) -> None:
    client = start()
    service = client.service  # type: ignore[attr-defined]
    views = service.memory["examples of the pages"]
    sample = views.facts.renew().sample
    first = sample[0]
    assert first in client.get("/shopper").text
    client.get(f"/v1/shoppers/{first}/offers")
    removed = client.delete(f"/v1/shoppers/{first}").json()["removed"]
    assert removed["histories in memory"] >= 1
    assert removed["examples of the pages"] == 1
    assert f'id={first}"' not in client.get("/shopper").text
    second = sample[1]
    other = Store(service.store.url)
    other.forget(second)  # as another process does
    other.close()
    service.watch.look()
    assert second not in views.facts.now().sample
    assert f'id={second}"' not in client.get("/shopper").text
    # what was computed of examples that are none any more
    path, third = "/compare?left=first&right=second", sample[2]
    compared = [views.service.models.get(name).digest for name in ("first", "second")]
    views.comparison._compared[tuple(compared)] = COMPARED | {"most": [(third, 3)]}
    views._sampled = ("of the examples before",)
    views.facts.renew()
    views.facts._found.sample.remove(third)
    assert f"id={third}&" in client.get(path).text
    client.delete(f"/v1/shoppers/{third}")
    assert f"id={third}&" not in client.get(path).text
    assert views._sampled == ()


def test_examples_appear_once_it_is_known_who_of_them_was_forgotten_meanwhile(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = start().service  # type: ignore[attr-defined]
    facts = service.memory["examples of the pages"].facts
    before, shown, ask = facts.renew(), [], service.store.forgotten

    def asked(ids: Any) -> Any:
        shown.append(facts.now())
        return ask(ids)

    monkeypatch.setattr(service.store, "forgotten", asked)
    assert facts.renew() is not before
    assert shown[0] is before


COMPARED = {"n": 1, "shared": 3.0, "same": 0, "since": "", "judged": [], "histogram": [("3", 1.0)]}


ODD = [
    "a/b",
    "5/denied/7",
    "a%2Fb",
    "a b",
    "100%",
    "ü/é",
    "?k=1",
    "#",
    "..",
    ".",
    "a//b",
    "/",
    "a,b",
    "7;x=1",
]


@pytest.mark.parametrize("odd", ODD)
def test_any_id_can_stand_in_a_path(start: Start, odd: str) -> None:
    client = start()
    path = quote(odd, safe="").replace(".", "%2E")
    client.post("/v1/receipts", json={"receipts": [receipt(odd, "1", odd)]})
    assert client.get(f"/v1/shoppers/{path}/history").json()["receipts"] == 1
    assert client.get(f"/v1/shoppers/{path}/offers").json()["shopper"] == odd
    said = client.put(f"/v1/shoppers/{path}/denied/{path}").json()
    assert said == {"shopper": odd, "item": odd, "denied": True}
    assert client.get(f"/v1/shoppers/{path}/history").json()["denied"] == [odd]
    assert client.delete(f"/v1/shoppers/{path}/denied/{path}").json()["denied"] is False
    assert "does not know" in client.get(f"/v1/items/{path}/similar").json()["detail"]
    assert client.put(f"/v1/rules/{path}", json={"min_new": 1}).json()["purpose"] == odd
    assert odd in client.get("/v1/rules").json()["purposes"]
    assert client.delete(f"/v1/rules/{path}").status_code == 200
    assert client.post(f"/v1/models/{path}/activate").status_code == 404
    assert client.delete(f"/v1/shoppers/{path}").json()["removed"]["receipts"] == 1
    assert client.get(f"/v1/shoppers/{path}/history").json()["receipts"] == 0
    assert client.delete(f"/v1/forgotten/{path}").json() == {
        "shopper": odd,
        "forgotten": False,
        "was": True,
    }


def test_eligible_ids_may_hold_commas_and_nothing_is_said_twice(start: Start) -> None:
    client = start()

    def asked(*pairs: tuple[str, str]) -> Any:
        return client.get("/v1/shoppers/5/offers", params=[("k", "3"), *pairs])

    def items(answer: Any) -> set[int]:
        return {offer["item"] for offer in answer.json()["offers"]}

    assert items(asked(("among", "1,2,3"))) == items(asked(("among", " 1, 2 ,3"))) == {1, 2, 3}
    assert items(asked(("among", "1"), ("among", "2"), ("among", "3"))) == {1, 2, 3}
    with_commas = asked(("among", "1,2"), ("among", "3"))
    assert items(with_commas) == {3}
    assert "1 listed items are not known to the model" in with_commas.json()["notes"]
    assert items(asked(("among", "1,2"), ("among", ""))) == set()
    for none in ("", " ", ","):
        nothing = asked(("among", none))
        assert items(nothing) == set()
        assert not any("listed items" in note for note in nothing.json()["notes"])
    assert asked(("k", "4")).status_code == 422
    assert "'k' is said more than once" in asked(("k", "4")).json()["detail"]


COMPILED = """
import sys
from pathlib import Path
from numba.core.dispatcher import Dispatcher
from serving_http_support import starting

def compiled():
    modules = [module for name, module in sys.modules.items() if name.startswith("retailrec")]
    found = [value for module in modules for value in vars(module).values()]
    return {(f.py_func.__name__, s) for f in found if isinstance(f, Dispatcher) for s in f.signatures}

begun = starting(Path(sys.argv[1]), Path(sys.argv[2]))
client = next(begun)(timeout=600.0)
before = compiled()
asked = ["", "reasons=true", "purpose=replenish", "slots=replenish=2,mixed=1", "among=1,2,3", "min_new=1",
    "explore=0.2", "max_per_category=1", "variety=0.3", "steady=0.2", "among=1,2,3&reasons=true",
    "slots=replenish=2,mixed=1&among=1,2,3", "explore=0.2&among=1,2,3", "among=1,2,3&variety=0.3"]
for query in asked:
    assert client.get(f"/v1/shoppers/5/offers?{query}").status_code == 200, query
begun.close()
print(len(before), sorted({name for name, _ in compiled() - before}))
"""


def test_no_kernel_is_compiled_once_the_service_is_ready(folder: Path, tmp_path: Path) -> None:
    # compiling takes seconds on a new machine, and under load more than an answer may
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    command = [sys.executable, "-c", COMPILED, str(folder), str(tmp_path)]
    said = subprocess.run(command, env=env, text=True, capture_output=True, check=False)
    n_before, _, later = said.stdout.strip().partition(" ")
    assert int(n_before or 0) > 5, said.stderr
    assert later == "[]"


def test_what_is_denied_to_a_shopper_is_never_offered_whoever_sends_the_history(start: Start) -> None:
    client = start()
    lines = [{"item": "3", "value": 1.0}]
    body = {
        "k": 5,
        "shoppers": [
            {"shopper": name, "receipts": [{"time": SOON, "lines": lines}]} for name in ("new", "other")
        ],
    }
    mine, others = client.post("/v1/offers", json=body).json()["answers"]
    best = mine["offers"][0]["item"]
    assert best == others["offers"][0]["item"]
    client.put(f"/v1/shoppers/new/denied/{best}")
    mine, others = client.post("/v1/offers", json=body).json()["answers"]
    assert best not in [offer["item"] for offer in mine["offers"]]
    assert best == others["offers"][0]["item"]


def test_whole_numbers_among_attributes_stay_whole() -> None:
    said = {"store": 3, "age": 17.5, "size": 2**53 + 1}
    found = ShopperIn.model_validate({"attributes": said}).attributes
    assert [type(value) for value in found.values()] == [int, float, float]


def test_a_receipt_that_stands_twice_in_the_body_counts_once(start: Start) -> None:
    client = start()
    one, two = (
        {"number": "17", "time": SOON, "lines": [{"item": i, "value": 1.0}]} for i in ("3", "7")
    )

    def ask(*receipts: dict[str, object]) -> Any:
        body = {"k": 3, "shoppers": [{"receipts": receipts}, {"receipts": [one]}]}
        return client.post("/v1/offers", json=body)

    twice, once = ask(one, one).json()["answers"]
    assert (twice["receipts"], twice["offers"]) == (1, once["offers"])
    unnamed = {name: value for name, value in one.items() if name != "number"}
    assert ask(unnamed, one, unnamed).json()["answers"][0]["receipts"] == 3
    assert ask(one, two).status_code == 409


def test_an_old_history_in_the_body_is_said_to_be_old(start: Start) -> None:
    client = start()
    when = {"old": "1990-01-01T08:00:00", "fresh": "2000-07-16T08:00:00"}

    def notes(name: str) -> str:
        lines = [{"item": "3", "value": 1.0}]
        one = {"shopper": name, "receipts": [{"time": when[name], "lines": lines}]}
        found = client.post("/v1/offers", json={"k": 3, "shoppers": [one]}).json()["answers"]
        return " ".join(found[0]["notes"])

    assert "The receipts end before 1990-01-02" in notes("old")
    assert "The receipts end" not in notes("fresh")
    assert "The receipts reach back" in notes("fresh")


def test_pages_take_ids_with_blanks_around_them(start: Start) -> None:
    client = start()
    client.service.memory["examples of the pages"].facts.renew()  # type: ignore[attr-defined]
    for path in ("/shopper?id=5", "/item?id=3"):
        assert client.get(path.replace("=", "=%20") + "%20").text == client.get(path).text


def test_a_path_that_is_no_text_is_no_id(start: Start) -> None:
    client = start()
    for path in ("%FF", "%00", "a%0Ab", "%ED%A0%80", "%20"):
        assert client.get(f"/v1/shoppers/{path}/offers").status_code == 422
    assert client.get("/v1/shoppers/a/b/offers").status_code == 404


def test_lists_take_effect_with_the_next_answer(start: Start) -> None:
    client = start()
    first, second = (o["item"] for o in client.get("/v1/shoppers/5/offers?k=2").json()["offers"])
    client.post("/v1/availability", json={"items": {str(first): False}})
    client.put(f"/v1/shoppers/5/denied/{second}")
    assert client.get("/v1/unavailable").json() == {"items": [str(first)], "stores": {}}
    now = [o["item"] for o in client.get("/v1/shoppers/5/offers?k=10").json()["offers"]]
    assert not {first, second} & set(now)
    client.post("/v1/availability", json={"items": {str(first): True}})
    client.delete(f"/v1/shoppers/5/denied/{second}")
    now = [o["item"] for o in client.get("/v1/shoppers/5/offers?k=2").json()["offers"]]
    assert now == [first, second]


def test_rules_of_a_purpose_are_saved_and_used(start: Start) -> None:
    client = start()
    assert client.put("/v1/rules/mailing", json={"max_per_category": 1}).status_code == 200
    one = client.get("/v1/shoppers/5/offers?k=10&purpose=mailing").json()
    same = client.get("/v1/shoppers/5/offers?k=10&max_per_category=1").json()
    assert one["offers"] == same["offers"]
    assert one["offers"] != client.get("/v1/shoppers/5/offers?k=10").json()["offers"]
    assert client.put("/v1/rules/x", json={"max_per_category": 0}).status_code == 422
    assert (
        client.put("/v1/rules/x", json={"category": "category_4", "max_per_category": 1}).status_code
        == 422
    )
    client.delete("/v1/rules/mailing")
    assert client.get("/v1/shoppers/5/offers?purpose=mailing").status_code == 422


def test_counts_of_rules_beyond_any_list_are_refused_and_harm_no_list_where_they_are_saved(
    start: Start,
) -> None:
    client = start()
    for name in ("max_per_category", "min_new"):
        assert client.put("/v1/rules/default", json={name: 10**22}).status_code == 422
        client.service.store.set_rules("default", {name: 10**22})  # type: ignore[attr-defined]
        for query in ("k=3", f"k=3&ruleset=new&{name}=2"):
            assert client.get(f"/v1/shoppers/5/offers?{query}").status_code == 200


def test_similar_items_come_by_source(start: Start) -> None:
    client = start()
    found = client.get("/v1/items/1/similar?k=3").json()["similar"]
    (rows,) = found.values()
    assert len(rows) == 3
    assert [r["similarity"] for r in rows] == sorted((r["similarity"] for r in rows), reverse=True)
    assert 1 not in [r["item"] for r in rows]
    assert client.get("/v1/items/no such/similar").status_code == 404


def test_models_are_listed_swapped_and_rolled_back(start: Start) -> None:
    client = start()
    listed = client.get("/v1/models").json()["models"]
    assert [(m["id"], m["active"]) for m in listed] == [("first", False), ("second", True)]
    second = client.get("/v1/shoppers/5/offers").json()
    assert client.post("/v1/models/first/activate").json()["active"]["id"] == "first"
    first = client.get("/v1/shoppers/5/offers").json()
    assert first["model"]["id"] == "first"
    assert [o["score"] for o in first["offers"]] != [o["score"] for o in second["offers"]]
    assert client.post("/v1/models/rollback").json()["active"]["id"] == "second"
    assert client.get("/v1/shoppers/5/offers").json()["offers"] == second["offers"]


def test_rollback_goes_back_and_never_to_what_was_left_nor_to_another_process_model(
    start: Start,
) -> None:
    here, other = start(), start()  # two processes on one store, both answer with the second
    assert other.post("/v1/models/first/activate").status_code == 200
    refused = here.post("/v1/models/rollback")
    assert refused.status_code == 404
    assert "no other model" in refused.json()["detail"]
    assert here.get("/v1/shoppers/5/offers").json()["model"]["id"] == "second"
    assert other.post("/v1/models/rollback").json()["active"]["id"] == "second"
    assert other.post("/v1/models/rollback").status_code == 404  # not to what was withdrawn just now
    other.post("/v1/models/first/activate")
    other.post("/v1/models/second/activate")  # by name: back as well
    assert other.post("/v1/models/rollback").status_code == 404
    here.post("/v1/models/first/activate")
    here.__exit__(None, None, None)
    again = start()
    assert again.get("/v1/shoppers/5/offers").json()["model"]["id"] == "first"
    assert again.post("/v1/models/rollback").json()["active"]["id"] == "second"


def test_rollback_goes_to_no_other_model_that_has_the_name_now(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    client, place = start(), tmp_path / "models"
    shutil.copytree(folder / "models", place)
    client.service.models.folder = place  # type: ignore[attr-defined]
    client.post("/v1/models/first/activate")
    (place / "second").rename(tmp_path / "kept")
    shutil.copytree(folder / "models" / "first", place / "second")
    refused = client.post("/v1/models/rollback")
    assert refused.status_code == 404
    assert "model 'second' that answered before" in refused.json()["detail"]
    assert client.get("/v1/shoppers/5/offers").json()["model"]["id"] == "first"
    client.post("/v1/models/second/activate")
    again = client.post("/v1/models/rollback").json()["active"]
    shutil.rmtree(place / "first")
    shutil.copytree(tmp_path / "kept", place / "first")
    assert again["id"] == "first"
    assert client.post("/v1/models/first/activate").json()["active"]["digest"] != again["digest"]
    assert "was replaced" in client.post("/v1/models/rollback").json()["detail"]


def test_models_of_an_experiment_are_loaded_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        shutil.copytree(folder / "models" / "first", tmp_path / "more" / "models" / name)
    shutil.copy(folder / "store.db", tmp_path / "more" / "store.db")
    loaded: list[str] = []
    right = ServedModel.load

    def load(folder: Path, name: str = "") -> ServedModel:
        loaded.append(name)
        return right(folder, name)

    monkeypatch.setattr(ServedModel, "load", load)
    arms = {name: Arm(share=0.2, model=name) for name in "abcde"}
    (tmp_path / "store").mkdir()
    for client in starting(tmp_path / "more", tmp_path / "store"):
        one = client(Experiment("x", "salt", 0.0, arms, ("b",)))
        answering = {one.get(f"/v1/shoppers/{u}/offers").json()["model"]["id"] for u in range(1, 40)}
        assert answering == set("abcde")
        assert sorted(loaded) == sorted("abcdef")
        one.post("/v1/models/e/activate")
        for u in range(1, 40):
            one.get(f"/v1/shoppers/{u}/offers")
            one.get(f"/shopper?id={u}&left=f")
        assert sorted(loaded) == sorted("abcdeeff")  # e anew, since asked for; f is no arm's


def test_what_is_no_number_in_json_is_null(start: Start) -> None:
    client = start()
    store = client.service.store  # type: ignore[attr-defined]
    store.describe({"5": {"points": float("nan"), "limit": float("-inf"), "age": 1.5}})
    text = client.get("/v1/shoppers/5/history?limit=1").text
    found = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert found["attributes"] == {"points": None, "limit": None, "age": 1.5}
    value = {"a": [(float("inf"), 1), {"b": float("nan")}], "c": "NaN"}
    body = json.loads(bytes(reply(value).body))
    assert body == {"a": [[None, 1], {"b": None}], "c": "NaN"}


def test_the_model_that_was_active_last_answers_after_a_restart(start: Start) -> None:
    client = start()
    client.post("/v1/models/first/activate")
    client.__exit__(None, None, None)
    assert start().get("/v1/shoppers/5/offers").json()["model"]["id"] == "first"


def test_swapping_under_load_fails_no_request_and_mixes_none(start: Start) -> None:
    client = start()
    expected = {}
    for name in ("first", "second"):
        client.post(f"/v1/models/{name}/activate")
        for user in ("1", "2", "3"):
            answer = client.get(f"/v1/shoppers/{user}/offers").json()
            expected[user, name, answer["model"]["digest"]] = answer["offers"]
    stop, wrong, seen = threading.Event(), [], set()

    def ask() -> None:
        while not stop.is_set():
            for user in ("1", "2", "3"):
                answer = client.get(f"/v1/shoppers/{user}/offers")
                body = answer.json()
                key = (
                    (user, body["model"]["id"], body["model"]["digest"]) if answer.is_success else None
                )
                if key is None or body["offers"] != expected.get(key):
                    wrong.append(body)
                else:
                    seen.add(key[1])

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for turn in range(6):
        name = ("first", "second")[turn % 2]
        assert client.post(f"/v1/models/{name}/activate").status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert seen == {"first", "second"}


def test_a_damaged_model_is_refused_and_the_active_one_stays(
    start: Start, folder: Path, tmp_path: Path
) -> None:
    client = start()
    models = client.service.models  # type: ignore[attr-defined]
    shutil.copytree(folder / "models", tmp_path / "models")
    models.folder = tmp_path / "models"
    (file,) = (tmp_path / "models" / "first").glob("data-*/model.items_.parquet")
    file.write_bytes(file.read_bytes()[:-1])
    assert client.post("/v1/models/first/activate").status_code == 500
    assert client.get("/v1/shoppers/5/offers").json()["model"]["id"] == "second"


def test_a_model_that_is_replaced_while_it_is_read_is_never_signed_as_the_one_before(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (folder / "models" / name for name in ("first", "second"))
    link, load = tmp_path / "current", TwoStageRecommender.load
    link.symlink_to(first)

    def switched(path: Path) -> TwoStageRecommender:
        link.unlink()
        link.symlink_to(second)
        return load(path)

    monkeypatch.setattr(TwoStageRecommender, "load", switched)
    found = ServedModel.load(link)
    assert (found.name, found.digest) == ("current", artifact_key(first))
    assert found.model.end_ == load(first).end_

    def replaced(path: Path) -> TwoStageRecommender:
        shutil.rmtree(path)
        shutil.copytree(second, path)
        return load(path)

    shutil.copytree(first, tmp_path / "model")
    monkeypatch.setattr(TwoStageRecommender, "load", replaced)
    with pytest.raises(ArtifactError, match="replaced while it was read"):
        ServedModel.load(tmp_path / "model")


def test_lists_under_one_id_of_the_caller_are_two_in_the_log(start: Start, tmp_path: Path) -> None:
    client, head = start(), {"x-request-id": "retry-1"}
    ids = set()
    for user in ("5", "5", "6"):  # a caller that tries again, and one that calls all requests alike
        answer = client.get(f"/v1/shoppers/{user}/offers?k=3&explore=0.5&pool=9", headers=head)
        assert answer.headers["x-request-id"] == "retry-1"
        ids.add(answer.json()["request"])
    assert len(ids) == 3
    assert all(one.startswith("retry-1.") for one in ids)
    service = client.service  # type: ignore[attr-defined]
    assert service.log.flush()
    assert service.store.last_shown(["5"]).height == 3
    export_pools(service.store, tmp_path / "pools.parquet")
    pools = pl.read_parquet(tmp_path / "pools.parquet")
    assert pools.group_by("request").len().rows_by_key("request") == {one: [(9,)] for one in ids}


def set_clock(monkeypatch: pytest.MonkeyPatch, says: Callable[[], datetime]) -> None:
    """What the service takes for the present."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return says().replace(tzinfo=tz)

    for module in ("receipts", "app", "experiment"):
        monkeypatch.setattr(f"retailrec.serving.{module}.datetime", Clock, raising=False)


def test_receipts_that_are_yet_to_come_by_the_clock_are_said(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    path, ready = "/v1/shoppers/5/offers", "/health/ready"
    end, days = datetime.fromisoformat(client.get(path).json()["as_of"]), 2
    set_clock(monkeypatch, lambda: end - timedelta(days=days))
    assert (client.get(path).json()["notes"], "notes" in client.get(ready).json()) == ([], False)
    days = 3
    for found in (client.get(path), client.get(ready)):
        assert "this machine's clock says" in found.json()["notes"][0]
    assert client.get(path, params={"at": str(end)[:10]}).json()["notes"] == []


def test_a_clock_of_1970_is_no_fault_of_the_caller(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    set_clock(monkeypatch, lambda: datetime(1970, 1, 1, 0, 5))
    sent = {"receipts": [receipt("5", "now", "7")]}
    dismissed = {"item": "7", "weeks": 2}
    answers = [
        client.get("/v1/shoppers/5/offers"),
        client.get("/health/ready"),
        client.post("/v1/receipts", json=sent),  # a till that is told 422 sends it no more
        client.post("/v1/shoppers/5/dismissals", json=dismissed),
        client.get("/shopper?id=5"),
    ]
    assert [answer.status_code for answer in answers] == [503] * 5
    assert "the clock of the service's machine is wrong" in answers[0].json()["detail"]
    assert "store" not in answers[1].json()["detail"]  # which would be looked at in vain
    monkeypatch.undo()
    assert client.post("/v1/receipts", json=sent).status_code == 200


def test_a_full_disk_stops_no_start_of_the_model_that_answered(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start()
    assert client.post("/v1/models/first/activate").status_code == 200
    store = client.service.store  # type: ignore[attr-defined]
    before = store.activations()
    client.__exit__(None, None, None)

    def full(*_: object) -> None:
        raise StoreFull("no room")

    monkeypatch.setattr(Store, "record_activation", full)
    again = start()
    assert again.get("/v1/shoppers/5/offers?k=3").json()["model"]["id"] == "first"
    assert again.service.store.activations() == before  # type: ignore[attr-defined]


def test_what_may_not_be_read_of_the_models_folder_stops_no_model(
    folder: Path,
    start: Start,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed, looked = tmp_path / "models" / "closed", Path.stat

    def stat(path: Path, **more: Any) -> os.stat_result:
        if closed in (path, *path.parents) and path != closed:
            raise PermissionError(13, "Permission denied", str(path))  # which root never gets
        return looked(path, **more)

    shutil.copytree(folder / "models" / "second", tmp_path / "models" / "second")
    shutil.copytree(folder / "models" / "first", closed)
    monkeypatch.setattr(Path, "stat", stat)
    shutil.copy(folder / "store.db", tmp_path / "store.db")
    service = Service(
        Store(str(tmp_path / "store.db")), tmp_path / "models", ServiceSettings(keys=None)
    )
    with TestClient(make_app(service), base_url="http://localhost") as client:
        while not service.ready:
            time.sleep(0.01)
        assert f"{closed} can't be read: Permission denied" in caplog.messages
        assert [one["id"] for one in client.get("/v1/models").json()["models"]] == ["second"]
        for path in ("/", "/shopper?id=5", "/compare", "/metrics"):
            assert client.get(path).status_code == 200, path
        assert client.post("/v1/models/second/activate").status_code == 200
        refused = client.post("/v1/models/closed/activate")
        assert refused.status_code == 404
        assert f"({closed} can't be read: Permission denied)" in refused.json()["detail"]
        closed = tmp_path / "models"
        assert client.get("/v1/models").json() == {"models": []}
        assert client.get("/").status_code == 200


def test_fresh_items_are_asked_of_whoever_draws_a_pool(start: Start) -> None:
    for explore in (0.0, 0.1):
        arms = {"a": Arm(share=1.0, explore=explore)}
        client = start(Experiment("home", "salt", 0.0, arms, ("first",)))
        asked = client.get("/v1/shoppers/5/offers?k=3&explore=0.2&pool=9&fresh=2")
        assert asked.status_code == 200
        client.__exit__(None, None, None)
        store = Store(client.service.store.url)  # type: ignore[attr-defined]
        assert {row["shadow"] for row in store.exposures()} == {True, False}
        store.close()


def test_an_arm_whose_users_would_get_no_list_is_said(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    arms = {
        "a": Arm(share=0.4),
        "b": Arm(share=0.4, ruleset="nobody"),
        "c": Arm(share=0.2, model="first", purpose="discover"),  # which that one has not learnt
    }
    client = start(Experiment("home", "salt", 0.0, arms))

    def ready() -> tuple[list[str], str]:
        answer = client.get("/health/ready")
        assert answer.status_code == 200
        (measure,) = re.findall("(?m)^retailrec_arms_unanswered (.+)$", client.get("/metrics").text)
        return answer.json().get("notes", []), measure

    (note,), measure = ready()
    assert note.startswith("users of 2 of the experiment's arms get errors")
    assert "nobody" not in note  # whoever asks needs no key
    assert measure == "2.0"
    assert "users of arm 'b' get no list: there is no ruleset 'nobody'" in caplog.text
    assert "users of arm 'c' get no list: purpose 'discover' needs" in caplog.text
    assert client.put("/v1/rules/nobody", json={"min_new": 1}).status_code == 200
    assert ready()[1] == "1.0"
    assert client.delete("/v1/rules/nobody").status_code == 200
    caplog.clear()
    assert ready() == ([note], "2.0")
    assert "arm 'b'" in caplog.text
    statuses = {client.get(f"/v1/shoppers/{user}/offers").status_code for user in range(20)}
    assert statuses == {200, 422}


def test_a_list_that_came_too_late_to_be_sent_does_not_count_as_shown(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(Experiment(shadow=("first",)), timeout=0.3)
    service = client.service  # type: ignore[attr-defined]
    right, done = service.engine.offers, threading.Event()

    def late(*args: Any) -> Any:
        found = right(*args)
        done.wait(5)
        return found

    monkeypatch.setattr(service.engine, "offers", late)
    assert client.get("/v1/shoppers/5/offers").status_code == 504
    done.set()
    monkeypatch.undo()
    said = client.get("/v1/shoppers/5/offers?k=3")
    assert said.status_code == 200
    client.__exit__(None, None, None)
    store = Store(service.store.url)
    assert {row["request"] for row in store.exposures()} == {said.json()["request"]}
    store.close()
    assert sum(service.measures.levels.values()) == 1


def test_what_was_shown_is_logged_with_arm_and_propensity(start: Start, tmp_path: Path) -> None:
    experiment = Experiment(
        "home", "salt", 0.2, {"a": Arm(share=0.75, model="first"), "b": Arm(share=0.25)}, ("first",)
    )
    client = start(experiment)
    answers = {str(u): client.get(f"/v1/shoppers/{u}/offers?k=3").json() for u in range(1, 41)}
    # who is held out on purpose is none for whom a list fell short
    measures = client.service.measures  # type: ignore[attr-defined]
    held_out = sum(answer["holdout"] for answer in answers.values())
    assert sum(measures.levels.values()) == 40 - held_out < 40
    measured = measures.registry.get_sample_value(
        "retailrec_answers_total", {"level": "holdout", "model": "second"}
    )
    assert measured == held_out
    client.__exit__(None, None, None)  # a clean stop writes everything
    store = Store(client.service.store.url)  # type: ignore[attr-defined]
    raw, n = store.exposures(), export_exposures(store, tmp_path / "exposures.parquet")
    store.close()
    frame = pl.read_parquet(tmp_path / "exposures.parquet")
    assert n == frame.height
    ledger = Ledger(tmp_path / "exposures.parquet")  # the same table as that of batch campaigns
    assert ledger.read(["home"]).equals(frame)
    with pytest.raises(DataError, match="expected a folder to add offers to"):
        ledger.append(frame)
    shown = {}
    for row in frame.filter(frame["rank"] > 0).iter_rows(named=True):
        shown.setdefault(row["user_id"], []).append((row["item_id"], row["rank"], row["score"]))
    for user, answer in answers.items():
        offers = [(str(o["item"]), o["rank"], o["score"]) for o in answer["offers"]]
        assert shown.get(user, []) == offers
        expected = experiment.assign(user)
        assert (answer["arm"], answer["holdout"]) == (expected.arm, expected.holdout)
        if answer["arm"] == "a":
            assert answer["model"]["id"] == "first"
    held = frame.filter("holdout")
    assert set(held["user_id"]) == {u for u, a in answers.items() if a["holdout"]} != set()
    assert held["item_id"].null_count() == held.height
    assert set(frame.filter(~frame["holdout"])["propensity"].round(6)) == {0.6, 0.2}
    requests = {row["request"] for row in raw if not row["shadow"]}
    assert requests == {a["request"] for a in answers.values()}
    shadows = [row for row in raw if row["shadow"]]
    assert {row["arm"] for row in shadows} == {"first"}
    assert len(shadows) == 3 * sum(not a["holdout"] for a in answers.values())


def test_exposures_wait_while_the_store_is_away(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start()
    service = client.service  # type: ignore[attr-defined]
    service.log.flush()
    before = service.store.counts()["exposures"]
    right = service.store.log_exposures

    def away(rows: Any) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(service.store, "log_exposures", away)
    assert client.get("/v1/shoppers/5/offers?k=4").status_code == 200
    assert not service.log.flush()
    monkeypatch.setattr(service.store, "log_exposures", right)
    assert service.log.flush()
    assert service.store.counts()["exposures"] == before + 4


def test_a_service_whose_log_can_not_be_written_is_not_ready(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(most_unwritten=15)
    service = client.service  # type: ignore[attr-defined]
    right = service.store.log_exposures

    def away(rows: Any) -> int:
        raise StoreUnavailable("away")

    monkeypatch.setattr(service.store, "log_exposures", away)
    client.get("/v1/shoppers/5/offers?k=10")
    assert client.get("/health/ready").status_code == 200
    client.get("/v1/shoppers/5/offers?k=10")
    answer = client.get("/health/ready")
    assert answer.status_code == 503
    assert "20 rows of what was shown wait to be written" in answer.json()["detail"]
    assert client.get("/health/live").status_code == 200
    monkeypatch.setattr(service.store, "log_exposures", right)
    service.log.flush()
    assert client.get("/health/ready").status_code == 200
    assert b"retailrec_exposures_set_aside 0.0" in client.get("/metrics").content


def test_shares_of_arms_are_as_asked_and_another_salt_draws_anew() -> None:
    arms = {"a": Arm(share=0.7), "b": Arm(share=0.3)}
    first, second = (Experiment("x", salt, 0.1, arms) for salt in ("s", "t"))
    found = [first.assign(str(u)) for u in range(4000)]
    held = sum(a.holdout for a in found)
    in_a = sum(a.arm == "a" for a in found)
    assert abs(held / 4000 - 0.1) < 0.02
    assert abs(in_a / (4000 - held) - 0.7) < 0.03
    moved = sum(first.assign(str(u)).arm != second.assign(str(u)).arm for u in range(500))
    assert moved > 150


def test_without_a_salt_the_campaigns_name_takes_its_place(tmp_path: Path) -> None:
    file, arms = tmp_path / "experiment.toml", {"a": Arm(share=0.5), "b": Arm(share=0.5)}
    file.write_text('campaign = "home"\n[arms.a]\nshare = 0.5\n[arms.b]\nshare = 0.5\n')
    found, same = read_experiment(file), Experiment("home", "home", 0.0, arms)
    assert [found.assign(str(u)) for u in range(50)] == [same.assign(str(u)) for u in range(50)]


def test_what_default_forbids_holds_in_every_list_and_beside_every_item(start: Start) -> None:
    client = start()
    service = client.service
    model = service.models.active
    items = model.model.items_
    milk = {str(i) for i in items.filter(items["category_1"] == "PRODUCE")["item_id"]}
    ban = {"forbid": [{"category": ["produce"], "when": "born > 2006"}]}
    refused = client.put("/v1/rules/default", json=ban)
    assert (refused.status_code, "'born', which no shopper" in refused.text) == (422, True)
    service.store.describe({"5": {"born": 2010}, "6": {"born": 1980}})
    assert client.put("/v1/rules/default", json=ban).status_code == 200
    client.put("/v1/rules/mailing", json={"max_per_category": 50})

    def offered(shopper: str, query: str) -> set[str]:
        asked = query if query.startswith("slots") else f"k=100&{query}"  # slots say how many
        found = client.get(f"/v1/shoppers/{shopper}/offers?{asked}")
        assert found.status_code == 200, found.text
        return {str(offer["item"]) for offer in found.json()["offers"]}

    among = "among=" + ",".join(sorted(milk))
    for query in (
        "",
        "ruleset=mailing",
        "ruleset=new",
        "purpose=replenish",
        "slots=replenish=2",
        among,
    ):
        for shopper in ("5", "nobody", "7"):  # of the others the year is not known
            assert not offered(shopper, query) & milk
    assert offered("6", "") & milk
    assert offered("6", among) == milk

    body = {"shoppers": [{"shopper": "a", "attributes": {"born": 1980}}, {"shopper": "b"}], "k": 100}
    old, unknown = client.post("/v1/offers", json=body).json()["answers"]
    assert milk & {str(offer["item"]) for offer in old["offers"]}
    assert not milk & {str(offer["item"]) for offer in unknown["offers"]}

    def beside(query: str) -> set[str]:
        found = client.get(f"/v1/items/{min(milk)}/similar?k=50&{query}").json()["similar"]
        return {str(one["item"]) for rows in found.values() for one in rows}

    assert beside("shopper=6") & milk
    assert not (beside("shopper=5") | beside("shopper=nobody") | beside("")) & milk

    page = client.get("/rules").text
    assert "forbidden where born &gt; 2006: produce" in page
    saved = client.post("/rules", data={"ruleset": "default", "min_new": "1"}, follow_redirects=False)
    assert saved.status_code == 303
    assert client.get("/v1/rules").json()["rulesets"]["default"]["forbid"][0]["when"] == "born > 2006"
    assert client.get("/rules?ruleset=default&try=1&min_new=2").status_code == 200
    assert client.get("/shopper?id=5&add=1").status_code == 200
    for odd in (
        {"when": "born"},
        {"items": ["1"], "when": "import os"},
        {"category": ["nothing such"]},
    ):
        assert client.put("/v1/rules/x", json={"forbid": [odd]}).status_code == 422


def test_a_store_s_own_range_holds_for_its_shoppers(start: Start) -> None:
    client = start()
    client.service.store.describe({"5": {"store": 3.0}, "6": {"store": "west"}})

    def offered(shopper: str, query: str = "") -> set[str]:
        found = client.get(f"/v1/shoppers/{shopper}/offers?k=150&{query}").json()
        return {str(offer["item"]) for offer in found["offers"]}

    first, other = sorted(offered("5") & offered("6") & offered("7"))[:2]
    said = client.post("/v1/availability", json={"store": 3, "items": {first: False}})
    assert said.json() == {"items": {first: False}, "store": "3"}
    assert client.get("/v1/unavailable").json() == {"items": [], "stores": {"3": [first]}}
    assert first not in offered("5")
    assert first in offered("5", "in_store=west")
    client.post("/v1/availability", json={"store": "west", "items": {other: False}})
    assert first in offered("6")
    assert first not in offered("7")  # whose store is not known: what no store lacks
    for said in ("NULL", " ", float("nan")):
        client.service.store.describe({"7": {"store": said}})
        assert first not in offered("7")
    client.service.store.describe({"7": {"store": " 3 "}})
    assert (first in offered("7"), other in offered("7")) == (False, True)
    client.post("/v1/availability", json={"store": "3", "items": {first: True}})
    assert first in offered("5")


def test_a_shopper_asked_for_twice_holds_on_to_the_list_twice(start: Start) -> None:
    client = start()
    client.get("/v1/shoppers/5/offers?k=3&ruleset=new")
    client.service.log.flush()  # type: ignore[attr-defined]

    def offers(shoppers: str, steady: float) -> list[Any]:
        body = {"k": 3, "steady": steady, "shoppers": [{"shopper": one} for one in shoppers]}
        return [one["offers"] for one in client.post("/v1/offers", json=body).json()["answers"]]

    (alone,), (other,) = offers("5", 1000), offers("7", 1000)
    assert alone != offers("5", 0)[0]
    assert offers("575", 1000) == [alone, other, alone]


def test_what_a_shopper_dismissed_comes_back_after_its_weeks(start: Start) -> None:
    client = start()
    model = client.service.models.active
    kinds = [
        {model.ids[code] for code in model.dismissed(str(offer["item"]), True)} | {offer["item"]}
        for offer in client.get("/v1/shoppers/5/offers?k=50").json()["offers"]
    ]
    kin = next(kind for kind in kinds if len(kind) > 1)
    first = min(kin)

    def offered(query: str = "") -> set[object]:
        found = client.get(f"/v1/shoppers/5/offers?k=150&{query}").json()
        return {offer["item"] for offer in found["offers"]}

    assert kin <= offered()
    path = "/v1/shoppers/5/dismissals"
    said = client.post(path, json={"item": first, "weeks": 2}).json()["dismissed"]
    assert datetime.fromisoformat(said["until"]) - datetime.fromisoformat(said["since"]) == timedelta(
        14
    )
    assert offered() & kin == kin - {first}
    assert first in offered("at=2000-07-01")  # nobody had dismissed anything then
    client.post(path, json={"item": first, "category": True})
    assert not offered() & kin
    assert [one["item"] for one in client.get("/v1/shoppers/5/history").json()["dismissed"]] == [
        str(first)
    ]
    assert client.delete(f"{path}/{first}").status_code == 200
    assert kin <= offered()
    ends = microseconds(client.service.store.shopper("5").ends)
    for until, hidden in ((ends, False), (ends + 1, True)):
        dismissal = Dismissal(str(first), False, ends - 10, until)
        client.service.store.dismiss("5", str(first), dismissal)
        assert (first not in offered()) == hidden
    assert client.service.store.dismissals() == [("5", dismissal)]
    exported = check_dismissals(export_dismissals(client.service.store))
    assert exported.row(0)[:2] == (5, first)
    assert not len(holding(exported, client.service.store.shopper("5").ends + timedelta(1), None))
    assert client.post(path, json={"item": first, "weeks": 0}).status_code == 422
    year = 365 * 86_400_000_000
    ahead = Dismissal("of a clock ten years ahead", False, ends + 10 * year, ends + 11 * year)
    client.service.store.dismiss("5", ahead.item, ahead)
    assert first not in offered()
    client.delete("/v1/shoppers/5")
    assert client.service.store.dismissals() == []
    assert client.post(path, json={"item": first}).status_code == 409


def test_alerts_and_the_dashboard_name_measures_that_there_are(start: Start) -> None:
    yaml = pytest.importorskip("yaml")
    client = start()
    client.get("/v1/shoppers/5/offers")
    lines = client.get("/metrics").text.splitlines()
    there = {re.split("[ {]", line)[0] for line in lines if not line.startswith("#")}
    there |= {line.split()[2] for line in lines if line.startswith("# TYPE retailrec_week")}  # no week
    value = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    store, model = client.service.store, client.service.models.active
    assert float(value["retailrec_receipts_end_seconds"]) == store.shopper("").ends.timestamp()
    assert float(value["retailrec_model_end_seconds"]) == model.end.timestamp()

    deploy = Path(__file__).parents[1] / "deploy"
    (group,) = yaml.safe_load((deploy / "prometheus-alerts.yml").read_text())["groups"]
    board = json.loads((deploy / "grafana-dashboard.json").read_text())
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert set(rule["annotations"]) == {"summary", "look"}
        assert re.fullmatch("[0-9]+[mh]", rule.get("for", "1m"))
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    asked = [rule["expr"] for rule in group["rules"]]
    asked += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    for text in asked:
        names = set(re.findall(r"retailrec_\w+", text))
        assert names, text
        assert names <= there, text
        for opens, closes in ("()", "[]", "{}"):
            assert text.count(opens) == text.count(closes), text
    labels = "".join(line for line in lines if line.startswith("retailrec_"))
    for label in re.findall(r"by \((\w+)\)", " ".join(asked)):
        assert f'{label}="' in labels

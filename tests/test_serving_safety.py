"""The service over HTTP: errors, keys, limits, and how it is run."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
import uvicorn
from starlette.testclient import TestClient

from retailrec.errors import SettingError
from retailrec.jobs.settings import read_settings
from retailrec.serving import app as api
from retailrec.serving import pages
from retailrec.serving.database import StoreUnavailable
from retailrec.serving.experiment import Experiment, read_experiment
from retailrec.serving.keys import RateLimit, had_keys, list_keys, make_key, remove_key
from retailrec.serving.models import Models
from retailrec.serving.server import run_server
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
from serving_http_support import Start, receipt, small_shop, starting, two_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return two_models(small_shop(), tmp_path_factory.mktemp("service"))


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Start]:
    yield from starting(folder, tmp_path)


def test_every_error_is_a_problem_with_the_requests_id(start: Start) -> None:
    client = start()
    asked: list[tuple[str, str, dict[str, Any], int]] = [
        ("GET", "/v1/shoppers/5/offers?k=0", {}, 422),
        ("GET", "/v1/shoppers/5/offers?k=500", {}, 422),
        ("GET", "/v1/shoppers/5/offers?colour=red", {}, 422),
        ("GET", "/v1/shoppers/5/offers?purpose=nothing", {}, 422),
        ("GET", "/v1/shoppers/%00/offers", {}, 422),
        ("GET", f"/v1/shoppers/{'x' * 200}/offers", {}, 422),
        ("GET", "/nowhere", {}, 404),
        ("PUT", "/v1/receipts", {}, 405),
        ("POST", "/v1/receipts", {"content": b"{"}, 422),
        (
            "POST",
            "/v1/receipts",
            {"content": b"\xff\xfe", "headers": {"content-type": "application/json"}},
            400,
        ),
        ("POST", "/v1/receipts", {"content": b'{"receipts":' + b"[" * 100_000}, 400),
        ("POST", "/v1/receipts", {"json": {"receipts": []}}, 422),
        (
            "POST",
            "/v1/receipts",
            {"content": json.dumps({"receipts": [receipt("a\ud800", "1", "1")]})},
            422,
        ),
        (
            "POST",
            "/v1/receipts",
            {"json": {"receipts": [receipt("a", "1", "1", time="2024-01-01T00:00:00Z")]}},
            422,
        ),
        (
            "POST",
            "/v1/receipts",
            {"json": {"receipts": [receipt("a", "1", "1", time="1970-01-01T00:00:00")]}},
            422,
        ),
        ("POST", "/v1/models/..%2F..%2Fetc/activate", {}, 404),
        ("POST", "/v1/models/third/activate", {}, 404),
    ]
    for method, path, more, status in asked:
        more.setdefault("headers", {})["x-request-id"] = "my-request"
        answer = client.request(method, path, **more)
        assert (path, answer.status_code) in ((path, status), (path, 422)), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["request"] == "my-request" == answer.headers["x-request-id"]
        assert answer.json()["detail"]


def test_what_came_is_not_repeated_in_an_error(start: Start) -> None:
    client = start()
    body = {"receipts": [receipt("a", "1", "1")]}
    body["receipts"][0]["card"] = "4711-secret"
    assert "4711" not in client.post("/v1/receipts", json=body).text


def test_large_bodies_are_refused_with_and_without_a_length(start: Start) -> None:
    client = start(body_bytes=10_000)
    assert client.post("/v1/offers", content=b"x" * 20_000).status_code == 413
    chunks = (b" " * 1000 for _ in range(20))
    assert client.post("/v1/offers", content=chunks).status_code == 413
    assert client.post("/v1/offers", content=b"", headers={"content-length": "-5"}).status_code == 413


def test_a_body_that_can_not_be_read_is_refused_with_what_to_do(start: Start) -> None:
    client, body = start(), json.dumps({"receipts": [receipt("a", "1", "1")]}).encode()
    plain = {"content-type": "application/json"}
    for sent, headers, status, said in (
        (body, {"content-type": "text/plain"}, 422, "Content-Type: application/json"),
        (gzip.compress(body), plain | {"content-encoding": "gzip"}, 415, "send it uncompressed"),
        (iter([body]), plain | {"transfer-encoding": "gzip, chunked"}, 415, "send it uncompressed"),
        (gzip.compress(body), plain, 400, "send text in UTF-8"),
        (body, plain | {"content-encoding": "identity"}, 200, ""),
    ):
        answer = client.post("/v1/receipts", content=sent, headers=headers)
        assert answer.status_code == status
        assert said in answer.json().get("detail", "")


def test_a_key_is_needed_once_there_is_one_and_scopes_count(start: Start, folder: Path) -> None:
    client = start()
    store = client.service.store  # type: ignore[attr-defined]
    keys = {scope: make_key(store, f"till {scope}", scope) for scope in ("read", "write", "admin")}
    client.service.keyring._read_at = -10  # type: ignore[attr-defined]
    asked = {
        "read": ("GET", "/v1/shoppers/5/offers", None),
        "write": ("POST", "/v1/availability", {"items": {"1": True}}),
        "admin": ("DELETE", "/v1/shoppers/5", None),
    }
    for needed, (method, path, body) in asked.items():
        assert client.request(method, path, json=body).status_code == 401
        for scope, key in keys.items():
            for headers in ({"authorization": f"Bearer {key}"}, {"x-api-key": key}):
                status = client.request(method, path, json=body, headers=headers).status_code
                assert (status == 200) == (scope == needed), (needed, scope)
    for wrong in (
        keys["read"][:-1] + ("y" if keys["read"][-1] == "x" else "x"),
        keys["read"][:-1],
        "rr_",
        "",
        "rr__",
        "x y",
    ):
        answer = client.get("/v1/shoppers/5/offers", headers={"authorization": f"Bearer {wrong}"})
        assert answer.status_code == 401
        assert wrong not in answer.text or not wrong
    assert client.get("/health/live").status_code == 200
    assert client.get("/metrics").status_code == 401
    remove_key(store, keys["read"].split("_")[1])
    client.service.keyring._read_at = -10  # type: ignore[attr-defined]
    headers = {"authorization": f"Bearer {keys['read']}"}
    assert client.get("/v1/shoppers/5/offers", headers=headers).status_code == 401


OPEN = ("/health/live", "/health/ready")
ANY = ("/openapi.json", "/static/{name}")  # asks for a key of any scope
SCOPES = {
    "read": """
        GET /v1/shoppers/{shopper:id}/offers
        POST /v1/offers
        GET /v1/shoppers/{shopper:id}/history
        GET /v1/items/{item:id}/similar
        GET /v1/unavailable
        GET /v1/models
        GET /v1/rules
        GET /v1/rules/{ruleset:id}
        GET /metrics
        GET /
        GET /shopper
        GET /item
        GET /sources
        GET /compare
        GET /rules
    """,
    "write": """
        POST /v1/receipts
        PUT /v1/shoppers/{shopper:id}/denied/{item:id}
        DELETE /v1/shoppers/{shopper:id}/denied/{item:id}
        POST /v1/shoppers/{shopper:id}/dismissals
        DELETE /v1/shoppers/{shopper:id}/dismissals/{item:id}
        POST /v1/availability
    """,
    "admin": """
        DELETE /v1/shoppers/{shopper:id}
        DELETE /v1/forgotten/{shopper:id}
        POST /v1/models/rollback
        POST /v1/models/{model:id}/activate
        PUT /v1/rules/{ruleset:id}
        DELETE /v1/rules/{ruleset:id}
        POST /rules
    """,
}
BODIES = {
    "/v1/offers": {"shoppers": [{"shopper": "5"}]},
    "/v1/receipts": {"receipts": [receipt("5", "1", "1")]},
    "/v1/shoppers/{shopper:id}/dismissals": {"item": "1", "weeks": 1},
    "/v1/availability": {"items": {"1": True}},
    "/v1/rules/{ruleset:id}": {},
}


def test_each_route_asks_for_its_scope_and_no_other_opens_it(start: Start) -> None:
    client = start(keys=True)
    service = client.service  # type: ignore[attr-defined]
    routers = (api.routes(service), pages.routes(service))
    there = {
        f"{method} {route.path}"
        for router in routers
        for route in router.routes
        for method in route.methods  # type: ignore[attr-defined]
        if route.path not in (*OPEN, *ANY)  # type: ignore[attr-defined]
    }
    scopes = {
        line.strip(): scope for scope, text in SCOPES.items() for line in text.strip().split("\n")
    }
    assert there == scopes.keys()
    keys = {one: make_key(service.store, one, one) for one in SCOPES}
    keys |= {f"not {one}": make_key(service.store, one, ",".join({*SCOPES} - {one})) for one in SCOPES}
    service.keyring._read_at = -10
    for line, scope in scopes.items():
        method, path = line.split(" ")
        more = {"json": BODIES[path]} if path in BODIES else {}
        asked = path.replace("{model:id}", "first")
        for name, key in keys.items():
            headers = {"x-api-key": key}
            answer = client.request(method, asked, headers=headers, follow_redirects=False, **more)
            may = name == scope or (name.startswith("not ") and name != f"not {scope}")
            assert (answer.status_code == 403) == (not may), (line, name, answer.text)
            assert answer.status_code not in (401, 500), (line, name)


def test_nobody_is_let_in_after_the_last_key_is_removed(start: Start) -> None:
    client = start()
    service = client.service  # type: ignore[attr-defined]
    assert client.get("/v1/models").status_code == 200  # no key was ever made
    key = make_key(service.store, "boss", "read,write,admin")
    service.keyring._read_at = -10
    assert client.get("/v1/models").status_code == 401
    assert remove_key(service.store, key.split("_")[1])
    assert not remove_key(service.store, key.split("_")[1])
    assert list_keys(service.store) == []
    assert had_keys(service.store)
    service.keyring._read_at = -10
    for headers in ({}, {"authorization": f"Bearer {key}"}, {"authorization": "Bearer rr__"}):
        assert client.delete("/v1/shoppers/5", headers=headers).status_code == 401
        identity = key.split("_")[1]
        assert client.get("/v1/models", headers={"x-api-key": f"rr_{identity}_"}).status_code == 401


def test_without_a_key_a_service_refuses_everything_but_its_health(start: Start) -> None:
    client = start(keys=True)
    service = client.service  # type: ignore[attr-defined]
    routers = (api.routes(service), pages.routes(service))
    paths = {route.path for router in routers for route in router.routes} | {"/openapi.json"}  # type: ignore[attr-defined]
    assert {"/", "/rules", "/metrics", "/openapi.json", "/static/{name}", *OPEN} <= paths
    odd = (
        "//health/live",
        "/health/live/",
        "/health/../v1/models",
        "/%68ealth/live",
        "/health%2Fready",
    )
    for path in {*paths, "/nowhere", *odd} - {*OPEN}:
        for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "TRACE"):
            answer = client.request(method, path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, (method, path)
    for path in OPEN:
        assert client.get(path).status_code == 200
    assert start(keys=False).get("/v1/models").status_code == 200


def test_who_has_no_key_is_refused_before_the_body_is_read(start: Start) -> None:
    client = start(keys=True)
    for body in (b"{", b'{"receipts":' + b"[" * 100_000, b"x" * 1000):
        assert client.post("/v1/receipts", content=body).status_code == 401


def test_guesses_of_keys_are_limited_by_address_and_keys_are_not_shut_out(start: Start) -> None:
    client = start(keys=True, rate=5)
    key = make_key(client.service.store, "till", "read")  # type: ignore[attr-defined]
    client.service.keyring._read_at = -10  # type: ignore[attr-defined]
    guesses = [client.get("/", headers={"x-api-key": f"rr_{n}_x"}).status_code for n in range(15)]
    assert guesses[:10] == [401] * 10
    assert guesses[-1] == 429
    for forwarded in ("10.0.0.1", "10.0.0.2"):  # a made-up address is no other caller
        assert client.get("/", headers={"x-forwarded-for": forwarded}).status_code == 429
    assert client.get("/v1/unavailable", headers={"x-api-key": key}).status_code == 200
    client.service.rate.rate = 0.001  # type: ignore[attr-defined]
    for path in ("/health/live", "/health/ready"):  # nor does a guess take the service away
        assert client.get(path).status_code == 200


def test_keys_that_can_not_be_read_are_not_trusted_and_stop_nobody_else(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(keys=True)
    service = client.service  # type: ignore[attr-defined]
    key = {"x-api-key": make_key(service.store, "till", "read")}
    service.keyring._read_at = -10
    assert client.get("/v1/unavailable", headers=key).status_code == 200
    gate = threading.Event()
    right = service.store.reader

    def hanging() -> Any:
        gate.wait(20)
        return right()

    monkeypatch.setattr(service.store, "reader", hanging)
    service.store.timeout = 1.0
    time.sleep(2.1)  # what is known is too old now
    statuses: list[int] = []

    def ask() -> None:
        statuses.append(client.get("/v1/unavailable", headers=key).status_code)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    began = time.monotonic()
    assert client.get("/health/live").status_code == 200
    assert time.monotonic() - began < 0.5
    for thread in threads:
        thread.join()
    assert statuses == [503] * 3
    refused = client.get("/v1/unavailable", headers=key)
    assert "store can't be used now" in refused.json()["detail"]
    assert str(service.store.writing.url.database) not in refused.text  # nobody knows yet who asks
    gate.set()
    time.sleep(0.2)
    assert client.get("/v1/unavailable", headers=key).status_code == 200


def test_no_secret_and_no_shopper_stands_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    client = start()
    key = make_key(client.service.store, "till", "read")  # type: ignore[attr-defined]
    client.service.keyring._read_at = -10  # type: ignore[attr-defined]
    for text in (key, key[:-1]):
        client.get("/v1/shoppers/ann-the-shopper/offers", headers={"authorization": f"Bearer {text}"})
    client.get("/v1/shoppers/ann-the-shopper/offers?k=x")
    own = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("retailrec"))
    assert '"route": "/v1/shoppers/{shopper:id}/offers"' in own
    assert "ann-the-shopper" not in own
    assert key.split("_", 2)[2][:-1] not in own


def test_too_many_requests_of_a_caller_wait(start: Start) -> None:
    client = start(rate=0.01)  # a bucket of one, filled again after 100 s, however slow the machine
    assert [client.get("/v1/unavailable").status_code for _ in range(2)] == [200, 429]
    assert int(client.get("/v1/unavailable").headers["retry-after"]) >= 1
    assert client.get("/health/live").status_code == 200


def test_a_bucket_fills_again_and_callers_do_not_share_it() -> None:
    limit = RateLimit(10, most=2)
    assert [limit.wait("a", 0.0) > 0 for _ in range(21)] == [False] * 20 + [True]
    assert limit.wait("b", 0.0) == 0
    assert limit.wait("a", 0.05) > 0
    assert limit.wait("a", 0.11) == 0
    assert limit.wait("c", 0.11) == 0
    assert len(limit._buckets) == 2
    assert RateLimit(0).wait("a") == 0


def test_other_names_and_other_origins_are_refused(start: Start) -> None:
    client = start()
    rebound = client.get("/v1/unavailable", headers={"host": "evil.example:80"})
    assert rebound.status_code == 421
    body = {"items": {"1": True}}
    crossed = client.post("/v1/availability", json=body, headers={"origin": "http://evil.example"})
    assert crossed.status_code == 403
    for headers in ({"origin": "null"}, {"origin": "http://localhost", "sec-fetch-site": "cross-site"}):
        assert client.post("/v1/availability", json=body, headers=headers).status_code == 403
    # behind a proxy with HTTPS on another port than 443, which hands the name on alone
    for origin in ("http://localhost", "https://localhost:8443"):
        own = {"origin": origin, "sec-fetch-site": "same-origin"}
        assert client.post("/v1/availability", json=body, headers=own).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["[", "[::1", "]", "::::", "a@localhost", "localhost/", "localhost#", "\\localhost", "é", ""],
)
def test_an_odd_host_is_refused_in_words(start: Start, host: str) -> None:
    client = start()
    answer = client.get("/v1/unavailable", headers={"host": host.encode()})
    assert answer.status_code == 421
    assert client.get("/health/live", headers={"host": host.encode()}).status_code == 200
    for origin in (host or "x", f"http://{host}"):
        headers = {"origin": origin.encode()}
        assert client.post("/v1/availability", headers=headers).status_code == 403


def test_every_answer_has_safe_headers(start: Start) -> None:
    for path in ("/health/live", "/nowhere", "/v1/unavailable"):
        headers = start().get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_answers_do_not_wait_for_garbage_of_what_stays(start: Start) -> None:
    before = gc.get_freeze_count()
    client = start()
    assert gc.get_freeze_count() > before + 10_000
    client.__exit__(None, None, None)
    assert gc.get_freeze_count() == 0
    client.__enter__()


def test_head_is_answered_as_get_but_where_a_list_would_count_as_shown(start: Start) -> None:
    client = start()
    paths = (
        "/health/live",
        "/health/ready",
        "/metrics",
        "/openapi.json",
        "/",
        "/shopper?id=5",
        "/nowhere",
    )
    for path in paths:
        head, get = client.head(path), client.get(path)
        assert (head.status_code, head.content) == (get.status_code, b""), path
        assert head.headers["content-type"] == get.headers["content-type"]
    text = client.get("/metrics").text
    assert 'retailrec_requests_total{method="HEAD",route="/health/live",status="200"} 1.0' in text
    assert client.head("/v1/shoppers/5/offers").status_code == 405
    for path, takes in {
        "/v1/rules/x": "DELETE, GET, PUT",
        "/v1/shoppers/5/denied/7": "DELETE, PUT",
        "/v1/models": "GET",
        "/rules": "GET, HEAD, POST",
        "/health/live": "GET, HEAD",
        "/openapi.json": "GET, HEAD",
    }.items():
        refused = client.request("PATCH", path)
        assert (refused.status_code, refused.headers["allow"]) == (405, takes), path
    style = client.get("/static/style.css").headers["etag"]
    for tag in (style, f"W/{style}", f'"x", {style}'):  # as proxies that compress send it on
        assert client.get("/static/style.css", headers={"if-none-match": tag}).status_code == 304
    assert not client.service.log.waiting  # type: ignore[attr-defined]


def test_health_and_measures_tell_the_state(start: Start) -> None:
    client = start()
    assert client.get("/health/ready").json() == {"ready": True, "model": "second"}
    client.get("/v1/shoppers/5/offers")
    text = client.get("/metrics").text
    assert 'retailrec_answers_total{level="personal",model="second"} 1.0' in text
    assert 'route="/v1/shoppers/{shopper:id}/offers",status="200"' in text
    client.service.ready = False  # type: ignore[attr-defined]
    assert client.get("/health/ready").status_code == 503


def test_a_database_that_goes_away_during_the_warm_up_is_waited_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(folder / "store.db", tmp_path / "store.db")
    whole, away, tried = Models.warm_up, threading.Event(), threading.Semaphore(0)

    def warm_up(self: Models, *args: Any) -> int:
        tried.release()
        if away.is_set():
            raise StoreUnavailable("the store is away")
        return whole(self, *args)

    monkeypatch.setattr(Models, "warm_up", warm_up)
    monkeypatch.setattr(api, "_AGAIN", 0.01)
    away.set()
    for comes_back in (False, True):  # a service that waits for it ends, too
        store = Store(str(tmp_path / "store.db"))
        service = Service(store, folder / "models", ServiceSettings(rate=0, keys=False))
        with TestClient(api.make_app(service), base_url="http://localhost") as client:
            assert all(tried.acquire(timeout=20) for _ in range(3))
            assert client.get("/health/ready").status_code == 503
            if comes_back:
                away.clear()
            end = time.monotonic() + 30
            while comes_back and not service.ready and time.monotonic() < end:
                time.sleep(0.01)
            assert client.get("/health/ready").status_code == (200 if comes_back else 503)


def test_rules_that_a_model_can_not_keep_are_said_and_shut_nobody_else_out(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an arm's or a shadow's model are its users' alone; else the service waits for others."""
    monkeypatch.setattr(api, "_AGAIN", 0.01)
    shutil.copy(folder / "store.db", tmp_path / "store.db")
    with closing(Store(str(tmp_path / "store.db"))) as store:
        store.set_rules("mailing", {"category": "none", "max_per_category": 1})

    def service(**experiment: Any) -> Service:
        store = Store(str(tmp_path / "store.db"))
        settings, plan = ServiceSettings(rate=0, keys=False), Experiment(**experiment)
        return Service(store, folder / "models", settings, plan)

    def is_ready(one: Service, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not one.ready and time.monotonic() < end:
            time.sleep(0.01)
        return one.ready

    whole, waits = Models.warm_up, service()

    def warm_up(self: Models, model: Any, *args: Any) -> int:
        rules = model.bound_rules(self._store.lists().rules.get("mailing", {}))
        return whole(self, model, *args) if rules is not None else 0

    monkeypatch.setattr(Models, "warm_up", warm_up)
    with closing(waits.store), TestClient(api.make_app(waits), base_url="http://localhost"):
        assert not is_ready(waits, 0.5)
        waits.store.set_rules("mailing", None)
        assert is_ready(waits, 30)
    assert sum("is not ready yet: rules: the catalogue lacks 'none'" in m for m in caplog.messages) == 1

    def of_second(self: Models, model: Any, *args: Any) -> int:
        if model.name == "first":
            raise SettingError("rules: no such category")
        return whole(self, model, *args)

    monkeypatch.setattr(Models, "warm_up", of_second)
    compares = service(shadow=("first",))
    with closing(compares.store), TestClient(api.make_app(compares), base_url="http://localhost"):
        assert is_ready(compares, 30)
    assert "model first can't answer now: rules: no such category" in caplog.text


def test_a_slow_answer_is_given_up_and_a_crowd_is_refused(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(timeout=0.1, threads=1, waiting=0)
    service = client.service  # type: ignore[attr-defined]
    gate = threading.Event()
    monkeypatch.setattr(service, "offers", lambda *a: gate.wait(5))
    assert client.get("/v1/shoppers/5/offers").status_code == 504
    crowd = client.get("/v1/unavailable")
    assert (crowd.status_code, crowd.headers["retry-after"]) == (503, "1")
    gate.set()
    time.sleep(0.05)
    assert client.get("/v1/unavailable").status_code == 200


def test_forgetting_that_takes_long_goes_on_and_is_answered_when_sent_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = start(timeout=0.3)
    store, gate = client.service.store, threading.Event()  # type: ignore[attr-defined]
    removed = store.remove_rows
    monkeypatch.setattr(store, "remove_rows", lambda *a: (gate.wait(5), removed(*a))[1])
    for _ in range(2):
        late = client.delete("/v1/shoppers/5")
        assert late.status_code == 504
        assert "A change goes on: sent again, it is answered when it is made." in late.json()["detail"]
    gate.set()
    until = time.monotonic() + 5
    while (found := client.delete("/v1/shoppers/5")).status_code == 504:
        assert time.monotonic() < until
    assert found.status_code in (200, 202)
    assert client.get("/v1/shoppers/5/history").json()["receipts"] == 0


def test_the_schema_has_examples_and_problems(start: Start) -> None:
    schema = start().get("/openapi.json").json()
    path = schema["paths"]["/v1/receipts"]["post"]
    assert "application/problem+json" in path["responses"]["409"]["content"]
    line = schema["components"]["schemas"]["LineIn"]["properties"]
    assert line["item"]["examples"] == ["1029743"]
    assert json.dumps(schema).count("object at 0x") == 0


def test_answers_leave_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # asyncio lets small packets wait for each other unless it is told that a socket is TCP
    listening: list[tuple[int, str]] = []

    def run(server: uvicorn.Server, sockets: list[socket.socket]) -> None:
        listening.extend((s.proto, f"http://127.0.0.1:{s.getsockname()[1]}") for s in sockets)
        server.started = True

    monkeypatch.setattr(uvicorn.Server, "run", run)
    shutil.copy(folder / "store.db", tmp_path)
    service = Service(Store(str(tmp_path / "store.db")), folder / "models")
    addresses: list[str] = []
    run_server(service, "127.0.0.1", 0, addresses.append)
    service.stop()
    assert listening == [(socket.IPPROTO_TCP, addresses[0])]


@pytest.mark.parametrize(
    "text",
    [
        ".".join(["a"] * 20_000) + " = 1",
        "a = " + "[" * 100 + "]" * 100,
        "a = " + "{a=" * 300 + "1" + "}" * 300,
        "[arms." + ".".join(["a"] * 3000) + "]\nshare = 1",
        "a = " + "[" * 100_000,
    ],
    ids=["dotted", "lists", "tables", "arms", "unclosed"],
)
def test_settings_nested_deep_are_refused_in_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.toml").write_text(text)
    for read in (read_experiment, read_settings):
        with pytest.raises(SettingError) as found:
            read(tmp_path / "deep.toml")  # type: ignore[operator]
        assert len(str(found.value)) < 500


@pytest.mark.parametrize(
    ("path", "body", "why"),
    [
        ("/v1/availability", '{"items": {"1": true, "1": false}}', "has a key twice"),
        ("/v1/availability", '{"items": {"1": true, " 1": false}}', "items: .* the same without"),
        ("/v1/offers", '{"shoppers": [{"attributes": {"age": 3, "age": 4}}]}', "has a key twice"),
        ("/v1/offers", '{"shoppers": [{"attributes": {"age": true}}]}', "age: .*true and false"),
        ("/v1/offers", '{"shoppers": [{}], "k": true}', "k: .*true and false"),
        ("/v1/offers", '{"shoppers": [{}], "rules": {"variety": true}}', "variety: .*true and false"),
        ("/v1/shoppers/5/dismissals", '{"item": "1", "weeks": true}', "weeks: .*true and false"),
    ],
)
def test_what_is_said_twice_or_is_no_number_is_refused_and_not_guessed(
    start: Start, path: str, body: str, why: str
) -> None:
    answer = start().post(path, content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert re.search(why, answer.json()["detail"])


@pytest.mark.parametrize("field", ["quantity", "value", "discount"])
def test_true_is_no_amount_of_a_line(start: Start, field: str) -> None:
    client, sent = start(), receipt("a", "1", "1")
    sent["lines"][0][field] = True
    answer = client.post("/v1/receipts", json={"receipts": [sent]})
    assert answer.status_code == 422
    assert f"receipts.0.lines.0.{field}" in answer.json()["detail"]
    sent["lines"][0][field] = 1
    assert client.post("/v1/receipts", json={"receipts": [sent]}).json()["new"] == 1


def test_measures_are_read_beside_the_answers(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start()
    measures = client.service.measures  # type: ignore[attr-defined]
    text = measures.text

    def beside() -> bytes:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return text()

    monkeypatch.setattr(measures, "text", beside)
    assert "retailrec_receipts_end_seconds" in client.get("/metrics").text


def test_a_request_is_answered_by_one_model(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    client, reads = start(), []
    active = Models.active.fget

    def read(models: Models) -> Any:
        reads.append(models)
        return active(models)  # type: ignore[misc]

    monkeypatch.setattr(Models, "active", property(read))
    assert client.post("/v1/offers", json={"shoppers": [{}, {}]}).status_code == 200
    assert len(reads) == 1


def test_bodies_nested_deep_or_of_endless_numbers_are_refused(start: Start) -> None:
    client = start()
    for path in ("/v1/receipts", "/v1/offers", "/v1/availability"):
        for body in (b"[" * 100_000, b'{"a":' * 50_000, b"9" * 100_000, b'{"receipts": [1e999, -0.0]}'):
            headers = {"content-type": "application/json"}
            answer = client.post(path, content=body, headers=headers)
            assert answer.status_code in (400, 422), (path, body[:20])
    assert client.put("/v1/rules/x", content=b'{"variety": NaN}').status_code == 422
    assert client.put("/v1/rules/x", json={"price_floor": 10**400}).status_code == 422

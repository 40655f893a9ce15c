"""The pages: numbers, escaping, what-if by clicking in a real browser without network, accessibility."""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("fastapi")
import uvicorn
from starlette.testclient import TestClient

from retailrec.data import RetailData
from retailrec.recommender.purposes import Discovery
from retailrec.report import drawings
from retailrec.serving.app import make_app
from retailrec.serving.database import StoreUnavailable
from retailrec.serving.loading import load_data
from retailrec.serving.messages import RulesIn
from retailrec.serving.pages import RULE_FIELDS, WEEKS, gather
from retailrec.serving.receipts import Line, Posted, accept
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
from retailrec.simulator.shop import small_data
from serving_support import free_port, small_model

PATHS = (
    "/",
    "/shopper",
    "/shopper?id=5",
    "/item?id=7",
    "/item?id=zzz",
    "/sources",
    "/compare",
    "/rules",
    "/rules?ruleset=default&try=1&max_per_category=1",
    "/shopper?id=nobody",
)
EVIL = "<script>alert(1)</script>\"'&amp;"


@pytest.fixture(scope="module")
def shop() -> RetailData:
    found = small_data(users=60, weeks=30, items=200)
    names = pl.when(pl.col("item_id") == 7).then(pl.lit(EVIL)).otherwise("name").alias("name")
    return found.with_items(found.items.with_columns(names))


@pytest.fixture(scope="module")
def service(shop: RetailData, tmp_path_factory: pytest.TempPathFactory) -> Service:
    root = tmp_path_factory.mktemp("pages")
    for name, seed in (("first", 0), ("second", 1)):
        discover = Discovery(n_candidates=15) if seed else None
        small_model(seed=seed, max_users=20 + 20 * seed, discover=discover).fit(
            shop.asof(shop.end - timedelta(days=14))
        ).save(root / "models" / name)
    store = Store(str(root / "store.db")).init()
    load_data(store, shop)
    store.add(
        [accept([Posted(EVIL, "1", shop.end - timedelta(hours=2), [Line("7", 1, 2.0)])]).receipts[0]]
    )
    store.close()
    return Service(Store(str(root / "store.db")), root / "models", ServiceSettings(rate=0, keys=False))


@pytest.fixture(scope="module")
def address(service: Service) -> Iterator[str]:
    """A server in a thread."""
    port = free_port()
    config = uvicorn.Config(make_app(service), port=port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not service.ready:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def client(address: str, service: Service) -> TestClient:
    """Asks the app itself, which the server has started."""
    found = TestClient(make_app(service), base_url="http://localhost", raise_server_exceptions=False)
    deadline = time.monotonic() + 30
    while "…" in found.get("/").text and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


@pytest.mark.parametrize("path", PATHS)
def test_every_page_is_small_and_whole(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert len(answer.content) < 150_000
    assert answer.text.count("<h1>") == 1
    assert not re.search(r"\b(nan|None(?!/)|Undefined|inf)\b", re.sub(r"<[^>]*>", " ", answer.text))
    assert not re.search(r'(src|href)="(https?:)?//', answer.text)
    assert " style=" not in answer.text
    assert not re.search(r"<[^>]*\son\w+=", answer.text)


def test_strings_of_the_data_and_of_the_request_are_escaped(client: TestClient) -> None:
    for path in ("/item?id=7", "/shopper", "/shopper?add=7&id=5", "/rules", "/compare", "/item"):
        for name in ("id", "left", "ruleset", "lp", "add", "drop", "max_per_category"):
            answer = client.get(path, params={name: EVIL})
            assert "<script>alert" not in answer.text, (path, name)
    assert "&lt;script&gt;alert(1)" in client.get("/item?id=7").text
    assert "<script>alert" not in str(drawings.bars([(EVIL, 1.0)], EVIL))
    assert "<script>alert" not in str(drawings.timeline([(0.5, 1.0, EVIL)]))


def test_the_page_shows_what_the_endpoint_answers(client: TestClient) -> None:
    page = client.get("/shopper?id=5&left=second&right=first").text
    for offer in client.get("/v1/shoppers/5/offers?k=10&reasons=true").json()["offers"]:
        assert f"{offer['score']:.3f}" in page
        assert offer["reasons"].split(";")[0] in page


def test_two_purposes_stand_side_by_side(client: TestClient) -> None:
    both = client.get("/shopper?id=5&left=second&right=second&lp=replenish&rp=discover").text
    for title in ("second, replenish", "second, discover"):
        assert f"<h2>{title}</h2>" in both
    assert "<h2>second, discover</h2>" in client.get("/shopper?id=5&left=second").text
    without = client.get("/shopper?id=5&left=first").text
    assert "<h2>first, new</h2>" in without
    assert "<option>replenish</option>" in without
    assert "<option>discover</option>" not in without


def test_what_if_moves_the_list_and_stores_nothing(client: TestClient, service: Service) -> None:
    before = service.store.counts()["receipts"]
    usual = client.get("/shopper?id=5").text
    last = client.get("/v1/shoppers/5/offers?k=10").json()["offers"][-1]["item"]
    more = client.get(f"/shopper?id=5&add={last}&quantity=3").text
    assert "also bought 3 of" in more
    assert "What if:" not in usual
    first = client.get("/v1/shoppers/5/offers?k=1&reasons=true").json()["offers"][0]
    less = client.get(f"/shopper?id=5&drop={first['item']}").text
    assert "never bought" in less
    lists = [text.partition('id="lists"')[2].partition("Receipts</h2>")[0] for text in (usual, less)]
    entry = re.compile(rf'/item\?id={first["item"]}">.*?</li>', re.S)
    before_it, after_it = (entry.search(text) for text in lists)
    assert before_it is not None
    assert first["reasons"].split(";")[0] in before_it.group()
    assert after_it is None or first["reasons"].split(";")[0] not in after_it.group()
    assert ' class="up"' in less or 'class="new"' in less
    assert service.store.counts()["receipts"] == before
    rule = client.get("/shopper?id=5&max_per_category=1").text
    assert "rules: max_per_category 1" in rule
    assert "no value that this rule can have" in client.get("/shopper?id=5&max_per_category=x").text


def test_rules_are_tried_before_they_are_saved(client: TestClient, service: Service) -> None:
    tried = client.get("/rules?ruleset=mailing&try=1&max_per_category=1").text
    assert re.search(r"Of 61 lists, [1-9]\d* change", tried)
    assert "tried: max_per_category 1." in tried
    assert tried.count('name="max_per_category"') == 1  # what is saved is what the fields show
    assert '<button form="edit" formmethod="post">Save for “mailing”' in tried
    assert service.engine.lists().rules == {}
    form = {"ruleset": "mailing", "max_per_category": "1"}
    saved = client.post("/rules", data=form, headers={"origin": "http://localhost"})
    assert "Saved." in saved.text
    assert service.engine.lists().rules == {"mailing": {"max_per_category": 1}}
    assert client.post("/rules", data={"ruleset": "x", "min_new": "-4"}).status_code == 422
    assert client.post("/rules", data=form, headers={"origin": "http://evil"}).status_code == 403
    for body in ({}, {"json": form}, {"files": {"ruleset": (None, "x"), "min_new": (None, "1")}}):
        assert client.post("/rules", **body).status_code == 422  # no form of ours: said to be saved
    service.store.set_rules("mailing", None)


def test_rules_that_somebody_saved_meanwhile_are_not_overwritten(
    client: TestClient, service: Service
) -> None:
    tried = client.get("/rules?ruleset=mailing&try=1&max_per_category=1").text
    edit = tried[tried.index('id="edit"') :]
    form = dict(re.findall(r'name="(\w+)" value="([^"]+)"', edit[: edit.index("</form>")]))
    forbid = {"forbid": [{"items": ["17"]}]}
    assert client.put("/v1/rules/mailing", json=forbid).status_code == 200
    refused = client.post("/rules", data=form)
    assert refused.status_code == 409
    assert "were changed meanwhile" in refused.text
    assert set(service.engine.lists().rules["mailing"]) == {"forbid"}
    service.store.set_rules("mailing", None)
    assert client.post("/rules", data=form).status_code == 200
    # what is tried once more still names what was seen first
    again = client.get("/rules", params=form | {"try": "1"}).text
    assert again.count(form["seen"]) == 1
    assert client.post("/rules", data=form).status_code == 409
    service.store.set_rules("mailing", None)


def test_every_rule_that_can_be_saved_has_a_field_and_shows(
    client: TestClient, service: Service
) -> None:
    rules = {
        "price_floor": 1234.5678,
        "price_ceiling": 5000.0,
        "skip_bought_days": 7.0,
        "unless_due": True,
        "max_per_category": 2,
        "category": "category_2",
        "min_new": 1,
        "variety": 0.25,
    }
    assert {name for name, _ in RULE_FIELDS} == set(RulesIn.model_fields) == set(rules)
    assert client.put("/v1/rules/mailing", json=rules).status_code == 200
    for path in (
        "/rules",
        "/rules?ruleset=other",
        "/rules?ruleset=mailing&try=1",
        "/shopper?id=5&category=category_2",
    ):
        assert client.get(path).status_code == 200, path
    page = client.get("/rules?ruleset=mailing").text
    form = {"ruleset": "mailing"} | dict(re.findall(r'<input name="(\w+)" value="([^"]+)"', page))
    assert (
        form.items()
        >= {"unless_due": "yes", "category": "category_2", "price_floor": "1234.5678"}.items()
    )
    assert client.post("/rules", data=form).status_code == 200
    assert service.engine.lists().rules == {"mailing": rules}  # to the last digit
    # a form without a field leaves its rule, one with an empty field removes it
    assert (
        client.post("/rules", data={"ruleset": "mailing", "min_new": "2", "variety": ""}).status_code
        == 200
    )
    left = {name: value for name, value in rules.items() if name != "variety"}
    assert service.engine.lists().rules == {"mailing": left | {"min_new": 2}}
    assert client.post("/rules", data={"ruleset": "a\nb", "min_new": "2"}).status_code == 422
    assert client.post("/rules", data={"ruleset": "x" * 200, "min_new": "2"}).status_code == 422
    service.store.set_rules("mailing", None)


@pytest.mark.parametrize("category", [r"\ud800", r"\u0000", r"a\nb", "x" * 201])
def test_a_category_that_can_not_be_shown_is_not_saved(
    client: TestClient, service: Service, category: str
) -> None:
    body, kind = f'{{"category": "{category}"}}', {"content-type": "application/json"}
    assert client.put("/v1/rules/mailing", content=body, headers=kind).status_code == 422
    assert client.post("/rules", data={"ruleset": "mailing", "category": "a\nb"}).status_code == 422
    assert client.get("/v1/rules").json()["rulesets"] == service.engine.lists().rules == {}
    assert client.get("/rules").status_code == 200


def test_facts_are_those_of_the_receipts(service: Service, address: str, shop: RetailData) -> None:
    facts = gather(service)
    log = shop.log.filter(pl.col("item") == 6)  # the item with id 7
    row = facts.code["7"]
    recent = log.filter(pl.col("time") >= shop.end - timedelta(weeks=WEEKS))
    assert facts.n_lines == shop.log.height + 1
    assert facts.receipts[row].sum() == recent.height + 1
    times = log.group_by("user").agg(pl.len())
    assert facts.buyers[row] == times.height + 1
    assert facts.again[row] == times.filter(pl.col("len") > 1).height
    gaps = log.sort("user", "time").with_columns(
        gap=pl.col("time").diff().over("user").dt.total_seconds() / 86400
    )
    if times["len"].max() > 1:
        assert facts.gap[row] == pytest.approx(gaps["gap"].drop_nulls().mean())


def test_what_comes_while_receipts_are_counted_stands_in_no_other_items_row(
    service: Service, shop: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = shop.end - timedelta(days=3)
    known = service.store.shopper("")._replace(ends=ends)
    monkeypatch.setattr(service.store, "shopper", lambda _: known)
    facts = gather(service)
    first = ends - timedelta(weeks=WEEKS)
    log = shop.log.filter(pl.col("time").is_between(first, ends, closed="left"))
    ids = shop.items["item_id"].gather(log["item"]).cast(pl.String)
    expected = dict(ids.value_counts().iter_rows())
    assert {item: int(facts.receipts[row].sum()) for item, row in facts.code.items()} == {
        item: expected.get(item, 0) for item in facts.code
    }


def test_comparing_counts_shared_items(client: TestClient) -> None:
    deadline = time.monotonic() + 60
    while "being computed" in (page := client.get("/compare?left=first&right=second").text):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "61" in page
    assert "Best and worst" in page
    same = client.get("/compare?left=first&right=first")
    while "being computed" in same.text:
        same = client.get("/compare?left=first&right=first")
    assert "10.0 of 10" in same.text


def test_a_comparison_that_failed_is_made_again(
    client: TestClient, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: list[int] = []

    def away(*_: Any) -> Any:
        failed.append(1)
        raise StoreUnavailable("the store is away")

    path = "/compare?left=second&right=second"
    with monkeypatch.context() as while_away:
        while_away.setattr(service.engine, "answer", away)
        deadline = time.monotonic() + 30
        while not failed:
            assert "being computed" in client.get(path).text
            assert time.monotonic() < deadline
    deadline = time.monotonic() + 60
    while "being computed" in client.get(path).text:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_shopper_who_only_brought_things_back_has_a_page(
    client: TestClient, service: Service, shop: RetailData
) -> None:
    back = Posted("back", "1", shop.end - timedelta(days=1), [Line("7", -1, -2.0)])
    service.store.add(accept([back]).receipts)
    answer = client.get("/shopper?id=back")
    assert answer.status_code == 200
    assert "0 lines" in answer.text
    service.store.forget("back")


@pytest.mark.parametrize("quantity", ["nan", "inf", "-1", "x"])
def test_a_quantity_that_is_none_is_none_on_the_page(client: TestClient, quantity: str) -> None:
    answer = client.get(f"/shopper?id=5&add=7&quantity={quantity}")
    assert answer.status_code == 200
    assert not re.search(r"\bnan\b", re.sub(r"<[^>]*>", " ", answer.text))


def test_long_names_and_long_receipts_leave_pages_small(
    client: TestClient, service: Service, shop: RetailData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        model = service.models.get(name)
        long = [f"{label} {'of a kind ' * 500}" for label in model.labels]
        monkeypatch.setattr(model, "labels", long)
        monkeypatch.setitem(model.model.catalogue.__dict__, "labels", long)
    lines = [Line(str(n), 1, 2.0) for n in range(1000)]
    posted = [Posted("many", str(n), shop.end - timedelta(days=n + 1), lines) for n in range(20)]
    service.store.add(accept(posted).receipts)
    forbid = [{"category": [f"category {n}" for n in range(500)], "items": [], "when": ""}]
    service.store.set_rules("long", {"forbid": [forbid[0] | {"unknown": "forbid"}]})
    for path in (
        "/shopper?id=many",
        "/shopper?id=5&add=7&drop=3",
        "/item?id=7",
        "/item?id=kind",
        "/rules",
    ):
        answer = client.get(path)
        assert answer.status_code == 200
        assert len(answer.content) < 150_000
    assert "and 975 more" in client.get("/shopper?id=many").text
    service.store.set_rules("long", None)
    service.store.forget("many")


def test_what_is_not_there_is_said_on_the_page(client: TestClient) -> None:
    for path in ("/shopper?id=5&left=nothing", "/shopper?id=5&lp=nothing", "/compare?left=nothing"):
        answer = client.get(path)
        assert answer.status_code == 422
        assert 'role="alert"' in answer.text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that reaches this machine alone."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("Chromium is not installed (Debian's packages chromium and chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    yield driver
    driver.quit()
    service.stop()


def complaints(browser: Any) -> list[str]:
    return [e["message"] for e in browser.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]


def until(found: Any, seconds: float = 20) -> Any:
    """What `found` gives once it gives something; an element that the page just swapped, or is loading, is asked anew."""
    from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException

    end = time.monotonic() + seconds
    while True:
        try:
            if value := found():
                return value
        except (StaleElementReferenceException, NoSuchElementException):
            pass
        assert time.monotonic() < end, "nothing came"
        time.sleep(0.05)


def click(browser: Any, selector: str) -> None:
    """Click on what stands there; where the page swaps it just then, on what stands there next."""

    def clicked() -> bool:
        browser.find_element("css selector", selector).click()
        return True

    until(clicked)


@pytest.mark.slow
def test_a_newcomer_tries_a_line_and_sees_the_list_move(
    browser: Any, address: str, client: TestClient
) -> None:
    last = client.get("/v1/shoppers/5/offers?k=10").json()["offers"][-1]["item"]
    browser.get(address)
    browser.find_element("link text", "Shopper").click()
    field = browser.find_element("css selector", "input[name=id]")
    field.send_keys("5")
    browser.find_element("css selector", "form[role=search] button").click()
    offers = "#lists section:first-of-type .offers li"
    before = until(lambda: [e.text for e in browser.find_elements("css selector", offers)])
    assert len(before) == 10
    browser.find_element("css selector", "input[name=add]").send_keys(str(last))
    browser.find_element("css selector", "#try button").click()
    until(lambda: "also bought" in browser.find_element("id", "lists").text)
    after = until(lambda: [e.text for e in browser.find_elements("css selector", offers)])
    assert after != before
    assert f"add={last}" in browser.current_url  # every state is a URL
    browser.refresh()
    assert until(lambda: [e.text for e in browser.find_elements("css selector", offers)]) == after
    browser.find_element("link text", "Back to how it is").click()
    until(lambda: "also bought" not in browser.find_element("id", "lists").text)
    assert complaints(browser) == []


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_pages_fit_a_phone_work_by_keyboard_and_pass_axe(
    browser: Any, address: str, client: TestClient, dark: bool
) -> None:
    axe = Path(os.environ.get("AXE_CORE", "node_modules/axe-core/axe.min.js"))
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {"features": [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]},
    )
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True},
    )
    shots = os.environ.get("SCREENSHOTS")
    for number, path in enumerate(PATHS):
        browser.get(address + path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 390, path
        for _ in range(2):  # the first stop is the way past the navigation
            browser.switch_to.active_element.send_keys("\ue004")
        assert browser.switch_to.active_element.tag_name == "a", path
        if axe.is_file():
            browser.execute_script(axe.read_text())
            found = browser.execute_async_script(
                "axe.run().then(r => arguments[0](r.violations.map(v => [v.impact, v.id, v.nodes.map(n => n.html).slice(0, 3)])))"
            )
            assert [v for v in found if v[0] in ("serious", "critical")] == [], path
        if shots:
            browser.save_screenshot(f"{shots}/{number}-{'dark' if dark else 'light'}.png")
    assert complaints(browser) == []
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    if not axe.is_file():
        pytest.skip(f"no axe-core at {axe}: all but accessibility rules was tested")


@pytest.mark.slow
def test_a_name_without_blanks_makes_no_page_wider_than_the_screen(
    browser: Any, address: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = service.models.active
    long = [f"{label}{'x' * 2000}" for label in model.labels]
    monkeypatch.setattr(model, "labels", long)
    monkeypatch.setitem(model.model.catalogue.__dict__, "labels", long)
    other = {"id": "x" * 128, "digest": "d", "active": False, "changed": False}
    monkeypatch.setattr(service.models, "listed", lambda: [other])
    # as wide as 1,280 at 400%
    screen = {"width": 320, "height": 256, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    for path in (*PATHS, "/item?id=x"):
        browser.get(address + path)
        width = browser.execute_script("return document.documentElement.scrollWidth")
        assert width <= 320, path
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_pages_can_be_read_without_javascript(browser: Any, address: str, client: TestClient) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get(address + "/shopper?id=5")
        browser.find_element("css selector", "#try summary").click()
        browser.find_element("css selector", "input[name=max_per_category]").send_keys("1")
        browser.find_element("css selector", "#try button").click()
        until(lambda: "rules: max_per_category 1" in browser.find_element("id", "lists").text)
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_rules_are_saved_by_the_button(
    browser: Any, address: str, client: TestClient, service: Service, script: bool
) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    try:
        counted = address + "/rules?ruleset=mailing&try=1"  # by the server, which has pages of its own
        until(lambda: browser.get(counted) or "being counted" not in browser.page_source)
        browser.get(address + "/rules?ruleset=mailing")
        browser.find_element("css selector", "input[name=max_per_category]").send_keys("2")
        click(browser, "#edit button")
        click(browser, "#effect button")
        until(lambda: "Saved." in browser.find_element("id", "effect").text)
        assert service.engine.lists().rules == {"mailing": {"max_per_category": 2}}
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        service.store.set_rules("mailing", None)


@pytest.mark.slow
@pytest.mark.parametrize("script", [True, False])
def test_what_was_tried_before_the_last_change_is_not_saved(
    browser: Any, address: str, client: TestClient, service: Service, script: bool
) -> None:
    counted = address + "/rules?ruleset=mailing&try=1"
    until(lambda: browser.get(counted) or "being counted" not in browser.page_source)
    complaints(browser)  # of pages before
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not script})
    try:
        browser.get(address + "/rules?ruleset=mailing")
        field, save = "input[name=max_per_category]", "#effect button"
        browser.find_element("css selector", field).send_keys("2")
        click(browser, "#edit button")
        until(lambda: browser.find_element("css selector", save))
        browser.find_element("css selector", field).send_keys("\b3")

        def saved() -> bool:
            for button in browser.find_elements("css selector", save):
                button.click()  # leaves the field, so the effect is that of 2
            return "Saved." in browser.find_element("id", "effect").text

        until(saved)
        assert service.engine.lists().rules == {"mailing": {"max_per_category": 3}}
        assert complaints(browser) == []
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        service.store.set_rules("mailing", None)


@pytest.mark.slow
def test_a_key_in_the_address_goes_from_it_and_forms_work(
    browser: Any, address: str, client: TestClient
) -> None:
    browser.get(f"{address.replace('//', '//x:key@')}/shopper?id=5")
    until(lambda: browser.execute_script("return document.URL") == f"{address}/shopper?id=5")
    complaints(browser)
    until(lambda: browser.find_element("css selector", "input[name=add]")).send_keys("7")
    click(browser, "#try button")
    until(lambda: "also bought" in browser.find_element("id", "lists").text)
    assert complaints(browser) == []

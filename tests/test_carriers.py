"""One shop, asked by Python, by the command, over HTTP and on Spark: the same lists and the same account."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

pytest.importorskip("sqlalchemy")
pytest.importorskip("fastapi")
from starlette.testclient import TestClient

import spark_support
from cli_support import retailrec
from retailrec.data import RetailData
from retailrec.data.cleaning import LoadReport
from retailrec.data.splits import HorizonSplits
from retailrec.offers.arms import assign_arms
from retailrec.offers.ledger import Ledger
from retailrec.recommender.batch import Exposures, artifact_key
from retailrec.recommender.exploration import policy_name
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import POOL
from retailrec.serving.app import make_app
from retailrec.serving.experiment import Arm, Experiment
from retailrec.serving.receipts import Line, Posted, accept, microseconds
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
from retailrec.serving.upkeep import export_pools
from retailrec.simulator.shop import small_data
from serving_support import postgres, small_model

NOBODY, STRANGE = 10**6, 10**9  # a user, an item that no receipt of the model's time has
SENT = datetime(2000, 8, 1)
SLOTS = {"replenish": 2, "discover": 3}
RULES = {
    "price_floor": 1.0,
    "skip_bought_days": 9.0,
    "unless_due": False,
    "max_per_category": 1,
    "min_new": 1,
    "variety": 0.1,
}
FORBID: list[dict[str, Any]] = [
    {"category": ["PRODUCE", "milk"], "when": "born > 2008"},  # not known of some: the safe side
    {"items": [5, 9, 12], "when": "adult == no and born < 2020", "unknown": "allow"},
    {"category": "bread", "when": "born > 2015", "unknown": "allow"},  # one alone, as a word
]
ASKED: dict[str, dict[str, Any]] = {
    "plain": {"k": 6},
    "reasons": {"k": 8, "reasons": True},
    "rules": {"k": 5, "rules": RULES, "reasons": True},
    "replenish": {"k": 4, "purpose": "replenish"},
    "discover": {"k": 4, "purpose": "discover", "reasons": True},
    "slots": {"slots": SLOTS, "reasons": True},
    "slots-rules": {"slots": SLOTS, "rules": RULES},
    "among": {"k": 3, "among": True, "reasons": True},
    "forbid": {"k": 5, "rules": {"forbid": FORBID, "max_per_category": 2}, "reasons": True},
    "forbid-slots": {"slots": SLOTS, "rules": {"forbid": FORBID}},
    "own-store": {"k": 5, "rules": {"available": True}},
    "in-store": {"k": 5, "rules": {"available": True}, "in_store": "south", "reasons": True},
    "dismissals": {"k": 6, "dismissals": True},
    "steady": {"k": 5, "previous": True, "steady": 0.5, "reasons": True},
    "steady-slots": {"slots": SLOTS, "rules": RULES, "previous": True, "steady": 0.5},
    "as-of": {"k": 5, "at": "2000-07-25T09:30:00", "reasons": True},
    "explored": {"k": 3, "explore": 0.4, "pool": 10, "salt": "may"},
    "explored-fresh": {"k": 3, "explore": 0.4, "pool": 10, "fresh": 5, "reasons": True},
    "explored-rules": {"k": 4, "rules": RULES, "explore": 0.5, "pool": 9, "reasons": True},
    "explored-forbid": {"k": 4, "rules": {"forbid": FORBID}, "explore": 0.5, "pool": 9},
    "explored-slots": {"slots": SLOTS, "explore": 0.3, "pool": 12, "at": "2000-07-25T09:30:00"},
}


@dataclass
class World:
    """A shop's receipts as they come from its tills, a model that knows most of them, who asks."""

    folder: Path
    lines: pl.DataFrame
    people: pl.DataFrame
    model: TwoStageRecommender
    eligible: list[int]
    offered: pl.DataFrame  # item_id, store
    dismissed: pl.DataFrame  # user_id, item_id, category
    listed: pl.DataFrame  # user_id, item_id: lists of another day

    @property
    def policy(self) -> str:
        return policy_name("model", artifact_key(self.folder / "model"))

    @property
    def data(self) -> RetailData:
        return RetailData.from_frames(self.lines, users=self.people, report=LoadReport("lines"))


@dataclass
class Said:
    """What a carrier says: lists by user, and the report's counts and notes where it has them."""

    lists: dict[str, list[tuple[Any, ...]]]
    notes: list[str]
    rules: dict[str, dict[str, int]]
    pool: list[tuple[Any, ...]] = field(default_factory=list)


def pool_rows(frame: pl.DataFrame) -> list[tuple[Any, ...]]:
    """Rows of explored pools, apart from when they were shown, and what the request is called."""
    assert frame.columns == list(POOL)
    assert frame.schema == pl.Schema(POOL)
    return frame.drop("request", "time").sort("user_id", "rank").rows()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("carriers")
    shop = small_data(users=40, weeks=30, items=200)
    items = shop.items.with_columns(  # one name in three is another item's too
        name=pl.when(pl.int_range(pl.len()) % 3 == 0)
        .then(pl.lit("House ") + pl.col("category_2").str.to_titlecase())
        .otherwise(pl.col("name")),
    )
    clean = spark_support.receipts_of(shop).with_columns(value=pl.col("value").round(2))
    known = clean.filter(pl.col("time") < shop.end - timedelta(days=10))
    people = shop.users.cast({"user_id": pl.Int64})
    model = small_model(discover=Discovery(n_candidates=15), calibrate=True, max_users=40)
    model.label_splits = HorizonSplits(14, 2)
    model.fit(RetailData.from_frames(known, items, people)).save(folder / "model")
    back = clean.gather_every(55).with_columns(quantity=-pl.col("quantity"), value=-pl.col("value"))
    strange = clean.gather_every(70).with_columns(item_id=pl.lit(STRANGE, pl.Int64))
    again = clean.gather_every(60).with_columns(value=pl.col("value") + 1)  # another line of the item
    free = clean.gather_every(90).with_columns(value=pl.lit(0.0))
    piece = clean.gather_every(40)  # the same line again
    later = back.with_columns(basket_id=pl.col("basket_id") + 10**6, time=pl.col("time") + timedelta(1))
    lines = pl.concat([clean, back, strange, again, free, piece, later]).sort(
        "basket_id", maintain_order=True
    )
    lines = lines.with_columns(basket_id=pl.col("basket_id").cast(pl.Int64) + 1)
    lines.write_parquet(folder / "lines.parquet")
    people = pl.concat([people, people[:1].with_columns(user_id=pl.lit(NOBODY, pl.Int64))])
    people = people.filter((pl.col("user_id") % 2 == 0) | (pl.col("user_id") < 8))
    place = pl.int_range(pl.len())
    people = people.with_columns(  # what the model does not know, and rules do
        born=pl.when(place % 3 > 0).then(1990 + place % 2 * 20),
        adult=pl.when(place % 4 > 0).then(pl.lit("no")),
        store=pl.when(place % 5 > 0).then(
            pl.when(place % 2 > 0).then(pl.lit("north")).otherwise(pl.lit("south"))
        ),
    )
    people.write_parquet(folder / "people.parquet")
    stores = [items.filter(pl.int_range(pl.len()) % 5 > n).select("item_id") for n in (0, 1)]
    offered = pl.concat(
        [
            part.with_columns(store=pl.lit(name))
            for part, name in zip(stores, ("north", "south"), strict=True)
        ]
    )
    offered.write_csv(folder / "offered.csv")
    dismissed = people.select(
        "user_id", item_id=1 + place * 3, category=place % 2 > 0, weeks=pl.lit(3.0)
    )
    dismissed.write_csv(folder / "dismissals.csv")
    eligible = [*items["item_id"].gather_every(7).to_list(), STRANGE]
    pl.DataFrame({"item_id": eligible}).write_csv(folder / "among.csv")
    model = TwoStageRecommender.load(folder / "model")
    found = World(folder, lines, people, model, eligible, offered, dismissed, people.clear())
    found.listed = model.recommend(found.data, people["user_id"], at="2000-06-25", k=12)
    found.listed.write_csv(folder / "listed.csv")
    return found


COLUMNS = ("rank", "score", "probability", "purpose", "reasons", "propensity")


def rows(frame: pl.DataFrame) -> dict[str, list[tuple[Any, ...]]]:
    """User -> (item, rank, score, probability, purpose, reasons, propensity)."""
    for name in COLUMNS[2:]:
        if name not in frame.columns:
            frame = frame.with_columns(pl.lit(None).alias(name))
    wanted = ("user_id", "item_id", *COLUMNS)
    found: dict[str, list[tuple[Any, ...]]] = {}
    for user, *row in frame.sort("user_id", "rank").select(wanted).iter_rows():
        found.setdefault(str(user), []).append(tuple(row))
    return found


def settings(world: World, asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, as Python's keywords."""
    more = dict(asked)
    if "rules" in more:
        stores = {"available": world.offered} if "available" in more["rules"] else {}
        more["rules"] = Rules(**more["rules"] | stores)
    if "dismissals" in more:
        more["dismissals"] = world.dismissed
    if "previous" in more:
        more["previous"] = world.listed
    if "among" in more:
        more["among"] = pl.DataFrame({"item_id": world.eligible})
    return more


@pytest.fixture(scope="module")
def in_python(world: World) -> dict[str, Said]:
    found, users = {}, world.people["user_id"].sort()
    for name, asked in ASKED.items():
        answer = world.model.answer(world.data, users, **settings(world, asked))
        pool = pool_rows(answer.exposures(world.policy, SENT)) if "explore" in asked else []
        found[name] = Said(rows(answer.lists), list(answer.report.notes), answer.report.rules, pool)
    return found


def test_the_shop_has_what_carriers_could_differ_by(world: World, in_python: dict[str, Said]) -> None:
    report = world.data.report
    some = {"return or cancellation", "voided on its receipt", "zero price"}
    assert some <= set(report.rejected)
    assert report.merged > report.pieces > 0
    names = world.model.items_["name"]
    assert names.n_unique() < len(names)
    labels = world.model.catalogue.labels
    renamed = [label for name, label in zip(names, labels, strict=True) if label != name]
    told = [row[5] for said in in_python.values() for rows in said.lists.values() for row in rows]
    assert any(label in (why or "") for label in renamed for why in told)
    assert str(NOBODY) in in_python["plain"].lists
    assert str(NOBODY) not in in_python["replenish"].lists
    assert {row[4] for rows in in_python["slots"].lists.values() for row in rows} == {*SLOTS}
    assert in_python["rules"].rules["max_per_category"]["bound"] > 0
    for name in ("forbid 1", "forbid 1 (attribute not known)"):
        assert in_python["forbid"].rules[name]["bound"] > 0
    for name in ("available", "available (store not known)"):
        assert in_python["own-store"].rules[name]["bound"] > 0
    assert in_python["own-store"].lists != in_python["in-store"].lists
    assert in_python["dismissals"].rules["dismissed"]["bound"] > 0
    assert in_python["steady"].rules["steady"]["bound"] > 0
    assert in_python["among"].notes
    assert in_python["plain"].lists["2"][0][3] is not None  # calibrated
    for name, k in (("explored", 3), ("explored-rules", 4), ("explored-slots", 5)):
        pool = pl.DataFrame(
            in_python[name].pool, [c for c in POOL if c not in ("request", "time")], orient="row"
        )
        assert pool.filter(pl.col("shown") & (pl.col("rank") > k)).height > 10  # something was drawn
        assert pool.filter(~pl.col("shown") & (pl.col("rank") <= k)).height > 10


def arguments(world: World, asked: Mapping[str, Any]) -> list[str]:
    """What the command is given."""
    given: list[str] = []
    for name, value in asked.items():
        if name == "reasons":
            given += ["--reasons"]
        elif name == "slots":
            given += ["--slots", ",".join(f"{p}={n}" for p, n in value.items())]
        elif name == "rules":
            given += ["--rules", str(rules_file(world, value))]
        elif name == "previous":
            given += ["--previous", str(world.folder / "listed.csv")]
        elif name == "dismissals":
            given += ["--dismissals", str(world.folder / "dismissals.csv")]
        elif name == "among":
            given += ["--among", str(world.folder / "among.csv")]
        else:
            given += [f"--{name.replace('_', '-')}", str(value)]
    return given


def rules_file(world: World, rules: Mapping[str, Any]) -> Path:
    """The rules as a file has them."""
    told = [f"{n} = {json.dumps(v)}" for n, v in rules.items() if n not in ("available", "forbid")]
    if "available" in rules:
        told.append('available = "offered.csv"')
    for table in rules.get("forbid", ()):
        told += ["[[forbid]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    file = world.folder / f"rules-{len(told)}.toml"
    file.write_text("\n".join(told) + "\n")
    return file


def command(world: World, out: Path, asked: Mapping[str, Any], *more: object) -> tuple[Said, str]:
    run = retailrec(
        "recommend",
        *("--model", world.folder / "model", "--history", world.folder / "lines.parquet"),
        *("--users", world.folder / "people.parquet", "--out", out),
        *arguments(world, asked),
        *more,
    )
    assert run.returncode == 0, run.stderr
    frame = pl.read_parquet(out / "*.parquet" if out.is_dir() else out)
    pools = out.with_name("pools.parquet")
    pool = pool_rows(Ledger(pools).read_pool()) if pools.exists() else []
    return Said(rows(frame), [], {}, pool), " ".join((run.stdout + run.stderr).split())


@pytest.mark.parametrize("name", ASKED)
def test_the_command_says_what_python_says(
    world: World, in_python: dict[str, Said], name: str, tmp_path: Path
) -> None:
    more = ["--exposures", tmp_path / "pools.parquet"] if "explore" in ASKED[name] else []
    said, printed = command(world, tmp_path / "lists.parquet", ASKED[name], *more)
    assert said.lists == in_python[name].lists
    assert said.pool == in_python[name].pool
    assert f"{len(said.pool):,} rows of explored pools" in printed or not more
    for note in in_python[name].notes:
        assert note in printed
    for reason, n in world.data.report.rejected.items():
        assert f"{n:,}" in printed
        assert reason in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ASKED)
def test_spark_says_what_python_says(
    world: World, in_python: dict[str, Said], name: str, tmp_path: Path, session: Any
) -> None:
    from retailrec.spark import recommend

    asked = settings(world, ASKED[name])
    receipts, people = world.folder / "lines.parquet", world.folder / "people.parquet"
    pools = tmp_path / "pools"
    more = {"exposures": Exposures(pools)} if "explore" in asked else {}
    found = recommend(world.folder / "model", receipts, tmp_path / "out", users=people, **more, **asked)
    expected, report = in_python[name], found.batch.report
    assert rows(spark_support.lists(tmp_path / "out")) == expected.lists
    assert (pool_rows(Ledger(pools).read_pool()) if more else []) == expected.pool
    assert found.batch.n_exposures == len(expected.pool)
    assert (list(report.notes), report.rules) == (expected.notes, expected.rules)
    here, there = world.data.report, found.load_report
    assert (there.rejected, there.merged, there.kept) == (here.rejected, here.merged, here.kept)


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with spark_support.spark("local[2]") as session:
        yield session


class Http:
    """The service over one store that got every receipt as a till would post it."""

    def __init__(self, world: World, database: str) -> None:
        store = Store(database).init()
        self.service = Service(store, world.folder, ServiceSettings(rate=0, keys=False))
        self.client = TestClient(make_app(self.service), base_url="http://localhost")
        self.client.__enter__()
        self.account = {"merged": 0, "lines": 0}
        self.rejected: dict[str, int] = {}
        whole = world.lines.partition_by("basket_id", maintain_order=True)
        for start in range(0, len(whole), 400):
            body = {"receipts": [self.receipt(one) for one in whole[start : start + 400]]}
            said = self.client.post("/v1/receipts", json=body)
            assert said.status_code == 200, said.text
            for name in self.account:
                self.account[name] += said.json()[name]
            for reason, n in said.json()["rejected"].items():
                self.rejected[reason] = self.rejected.get(reason, 0) + n
        names = [c for c in world.people.columns if c != "user_id"]
        facts = {
            str(row["user_id"]): {name: row[name] for name in names if row[name] is not None}
            for row in world.people.iter_rows(named=True)
        }
        store.describe(facts)
        while not self.service.ready:
            pass

    @staticmethod
    def receipt(lines: pl.DataFrame) -> dict[str, Any]:
        return {
            "shopper": lines["user_id"][0],
            "number": str(lines["basket_id"][0]),
            "time": lines["time"].min().isoformat(),  # type: ignore[union-attr]
            "lines": [
                {"item": item, "quantity": quantity, "value": value}
                for item, quantity, value in lines.select("item_id", "quantity", "value").iter_rows()
            ],
        }

    def offers(self, user: object, world: World, asked: Mapping[str, Any]) -> dict[str, Any]:
        given = {
            name: value
            for name, value in asked.items()
            if name not in ("rules", "slots", "among", "dismissals", "previous")
        }
        rules = asked.get("rules", {})
        if "forbid" in rules:
            saved = self.client.put("/v1/rules/tried", json=rules)
            assert saved.status_code == 200, saved.text
            given["ruleset"] = "tried"
        else:
            given |= {name: value for name, value in rules.items() if name != "available"}
        if "slots" in asked:
            given["slots"] = ",".join(f"{p}={n}" for p, n in asked["slots"].items())
        if "among" in asked:
            given["among"] = ",".join(map(str, world.eligible))
        with self.lists(world, asked):
            found = self.client.get(f"/v1/shoppers/{user}/offers", params=given)
        assert found.status_code == 200, found.text
        return dict(found.json())

    def show(self, lists: pl.DataFrame) -> None:
        """As if these lists had been shown, a request each."""
        day = microseconds(datetime(2000, 6, 25))
        facts = {"campaign": "", "time": day, "model": "", "score": 0.0, "price": None, "arm": ""}
        facts |= {"propensity": 1.0, "holdout": False, "shadow": False}
        rows = [
            facts | {"user_id": str(user), "item_id": str(item), "rank": rank, "request": f"r{user}"}
            for user, item, rank in lists.select("user_id", "item_id", "rank").iter_rows()
        ]
        keyed = [row | {"key": 10**12 + place} for place, row in enumerate(rows)]
        time.sleep(0.01)
        while self.service.log.waiting:  # what was shown before comes before
            time.sleep(0.01)
        with self.service.store.transaction() as connection:
            connection.exec_driver_sql("DELETE FROM exposures")
        self.service.store.log_exposures(keyed)

    @contextmanager
    def lists(self, world: World, asked: Mapping[str, Any]) -> Iterator[None]:
        """What a file says otherwise, said to the service for the time of a request."""
        off: dict[str, list[str]] = {}
        said = world.dismissed.clear()
        if "available" in asked.get("rules", {}):
            there = world.model.items_["item_id"]
            for (store,), part in world.offered.group_by("store"):
                off[str(store)] = (
                    there.filter(~there.is_in(part["item_id"].implode())).cast(pl.String).to_list()
                )
        if "dismissals" in asked:
            said = world.dismissed
        for store, items in off.items():
            body = {"store": store, "items": dict.fromkeys(items, False)}
            assert self.client.post("/v1/availability", json=body).status_code == 200
        for user, *row in said.iter_rows():
            body = dict(zip(("item", "category", "weeks"), row, strict=True))
            assert self.client.post(f"/v1/shoppers/{user}/dismissals", json=body).status_code == 200
        if "previous" in asked:
            self.show(world.listed)
        try:
            yield
        finally:
            for store, items in off.items():
                body = {"store": store, "items": dict.fromkeys(items, True)}
                self.client.post("/v1/availability", json=body)
            for user, item, *_ in said.iter_rows():
                self.client.delete(f"/v1/shoppers/{user}/dismissals/{item}")


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def http(
    world: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Http]:
    if request.param == "sqlite":
        found = Http(world, str(tmp_path_factory.mktemp("store") / "store.db"))
        yield found
        found.client.__exit__(None, None, None)
        return
    server = postgres()
    with server.database() as url:
        found = Http(world, url)
        yield found
        found.client.__exit__(None, None, None)
    server.close()


@pytest.mark.parametrize("name", ASKED)
def test_http_says_what_python_says(
    world: World, in_python: dict[str, Said], name: str, http: Http, tmp_path: Path
) -> None:
    found, requests = {}, []
    columns = ("item", *COLUMNS)
    for user in world.people["user_id"].to_list():
        said = http.offers(user, world, ASKED[name])
        offers, _ = said["offers"], requests.append(said["request"])
        if offers:
            found[str(user)] = [tuple(offer.get(c) for c in columns) for offer in offers]
    assert found == in_python[name].lists
    assert http.service.log.flush()
    export_pools(http.service.store, tmp_path / "pools.parquet")
    logged = pl.read_parquet(tmp_path / "pools.parquet").filter(pl.col("request").is_in(requests))
    assert pool_rows(logged) == in_python[name].pool


@pytest.mark.parametrize("name", ASKED)
def test_http_notes_what_python_notes(world: World, name: str, http: Http) -> None:
    for user in (2, NOBODY):
        answer = world.model.answer(world.data, [user], **settings(world, ASKED[name]))
        assert http.offers(user, world, ASKED[name])["notes"] == list(answer.report.notes)


def test_items_are_called_alike_everywhere(world: World, http: Http) -> None:
    label = dict(zip(world.model.items_["item_id"], world.model.catalogue.labels, strict=True))
    for user in world.people["user_id"].to_list():
        for offer in http.offers(user, world, {"k": 6})["offers"]:
            assert offer["name"] == label[offer["item"]]


def test_http_keeps_and_leaves_out_the_lines_that_a_file_does(world: World, http: Http) -> None:
    report = world.data.report
    assert http.rejected == report.rejected
    assert http.account == {"merged": report.merged, "lines": report.kept}


def test_a_doubled_line_counts_alike_everywhere() -> None:
    time = datetime(2024, 1, 9, 8, 30)
    lines = [Line("tea", 1.0, 2.0), Line("tea", 1.0, 2.0), Line("jam", 1.0, 3.0)]
    table = pl.DataFrame(
        {
            "user_id": ["ann"] * 3,
            "basket_id": ["1"] * 3,
            "time": [time] * 3,
            "item_id": [line.item for line in lines],
            "quantity": [line.quantity for line in lines],
            "value": [line.value for line in lines],
        }
    )
    data, posted = RetailData.from_frames(table), accept([Posted("ann", "1", time, lines)])
    bought = dict(
        zip(data.items["item_id"].gather(data.log["item"]), data.log["quantity"], strict=True)
    )
    (receipt,) = posted.receipts
    assert dict(zip(receipt.items, receipt.amounts["quantity"].tolist(), strict=True)) == bought
    assert bought == {"tea": 2.0, "jam": 1.0}
    for account in (posted.report, data.report):
        assert (account.rejected, account.merged, account.pieces) == ({}, 1, 1)


def test_an_experiment_draws_the_same_arms_everywhere(world: World) -> None:
    users = pl.Series("user_id", range(200))
    experiment = Experiment("may", "may", 0.0, {"a": Arm(share=0.3), "b": Arm(share=0.7)})
    online = [experiment.assign(str(user)).arm for user in users]
    assert online == assign_arms(users, {"a": 0.3, "b": 0.7}, salt="may").to_list()

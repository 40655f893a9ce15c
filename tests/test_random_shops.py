"""Random small shops, models and requests: a list keeps to its request and hangs on nothing else.

Whatever the shop and the settings, a user's list is the same alone and among others, for lines in any
order, of a saved and loaded model, of a cut of the data and as of that time, with other users' receipts
beside, and over HTTP; and what a request rules out is not in it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from retailrec.data import RetailData
from retailrec.data.prefilters import MinBuyers, MostSold, SoldWithin, StillSold
from retailrec.data.splits import HorizonSplits, NextBasketSplits
from retailrec.errors import DataError, RetailRecError, SettingError
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.request import Request
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender

QUICK, SLOW = range(102, 107), range(200, 224)
REQUESTS = 4  # a shop
START = datetime(2024, 1, 1)


class Shop(NamedTuple):
    lines: pl.DataFrame
    items: pl.DataFrame | None
    users: pl.DataFrame | None

    def data(self, lines: pl.DataFrame | None = None) -> RetailData:
        return RetailData.from_frames(
            self.lines if lines is None else lines, items=self.items, users=self.users
        )


def a_shop(rng: np.random.Generator) -> Shop:
    """Some users with a taste each, over some items; any of the columns that may be missing is, at times."""
    users, items = rng.choice([5, 12, 40]), rng.choice([6, 20, 80, 300])
    days, n = rng.choice([70, 120, 300]), rng.choice([150, 600, 2500])
    taste = rng.integers(0, items, (users, 6))
    user = rng.integers(0, users, n)
    liked, any_item = taste[user, rng.integers(0, 6, n)], (items * rng.random(n) ** 2).astype(int)
    item = np.where(rng.random(n) < 0.6, liked, any_item)
    hours = np.sort(rng.integers(0, days, n)) * 24 + rng.integers(8, 20, n)
    columns: dict[str, Any] = {
        "user_id": [f"u{x}" for x in user],
        "item_id": [f"i{x}" for x in item],
        "time": [START + timedelta(hours=int(x)) for x in hours],
    }
    if rng.random() < 0.6:
        columns["quantity"] = rng.integers(1, 4, n).astype(float)
    if rng.random() < 0.6:
        columns["value"] = np.round(1 + rng.gamma(2, 2, n), 2)
    if rng.random() < 0.3:
        columns["store"] = rng.integers(0, 3, n).astype(str)
    described = asked = None
    if rng.random() < 0.7:
        described = pl.DataFrame({"item_id": [f"i{x}" for x in range(items)]}).with_columns(
            category_1=pl.Series(rng.choice(["A", "B", "C"], items)),
            name=pl.Series([f"thing {x % 7}" for x in range(items)]),
        )
    if rng.random() < 0.5:
        ages = [None if x == 0 else int(x) for x in rng.choice([0, 15, 22, 40], users)]
        asked = pl.DataFrame({"user_id": [f"u{x}" for x in range(users)], "age": ages})
    return Shop(pl.DataFrame(columns), described, asked)


def a_model(rng: np.random.Generator) -> TwoStageRecommender:
    horizon = int(rng.choice([3, 7, 14]))
    splits = [HorizonSplits(horizon), HorizonSplits(horizon, n=2), NextBasketSplits()]
    chosen: dict[str, Any] = {"label_splits": splits[rng.integers(3)], "seed": int(rng.integers(5))}
    maybe: dict[str, Any] = {
        "prefilters": [[MinBuyers(2), MostSold(10), SoldWithin(60), StillSold()][rng.integers(4)]],
        "calibrate": True,
        "discover": Discovery(),
        "early_stopping": True,
        "preranker": LightGBMRanker(),
        "pool_size": int(rng.choice([5, 50])),
        "refit": "once",
        "half_life": [10.0, "never"][rng.integers(2)],
        "prior": "none",
    }
    chosen |= {name: value for name, value in maybe.items() if rng.random() < 0.25}
    objective = ["lambdarank", "binary"][rng.integers(2)]
    return TwoStageRecommender(
        ranker=LightGBMRanker(objective=objective, iterations=20), threads=1, **chosen
    )


def a_request(rng: np.random.Generator, shop: Shop, discovers: bool) -> dict[str, Any]:
    """Fields of a `Request`, with its rules as a dictionary."""
    users, items = (sorted(set(shop.lines[name])) for name in ("user_id", "item_id"))

    def some(ids: list[str], n: int) -> list[str]:
        return [str(x) for x in rng.choice(ids, n)]

    asked: dict[str, Any] = {"k": int(rng.choice([1, 3, 5, 10]))}
    purposes = ["replenish", "discover"][: 1 + discovers]
    kind = rng.random()
    if kind < 0.25:
        asked["purpose"] = str(rng.choice(purposes))
    elif kind < 0.45:
        asked = {"slots": {purposes[-1]: 2, "mixed": 2}}
    if rng.random() < 0.25:
        asked["among"] = pl.DataFrame({"item_id": sorted(set(some(items, 1 + len(items) // 3)))})
    if rng.random() < 0.2:
        asked["reasons"] = True
    if rng.random() < 0.2 and "among" not in asked:
        asked |= {"explore": float(rng.choice([0.1, 0.5])), "pool": 15, "salt": "x"}
        asked["fresh"] = 2 * int(rng.random() < 0.5 and asked.get("purpose") != "replenish")
        asked["fresh"] *= "slots" not in asked
    if rng.random() < 0.2:
        asked["dismissals"] = pl.DataFrame({"user_id": some(users, 9), "item_id": some(items, 9)})
    maybe: dict[str, Any] = {
        "deny": pl.DataFrame({"user_id": some(users, 20), "item_id": some(items, 20)}),
        "available": pl.DataFrame({"item_id": sorted(set(some(items, 1 + len(items) // 2)))}),
        "min_new": int(rng.choice([1, 2])),
        "skip_bought_days": float(rng.choice([7, 30])),
    }
    if "value" in shop.lines.columns:
        maybe["price_floor"] = 1.5
    if shop.items is not None:
        maybe |= {"max_per_category": int(rng.choice([1, 2])), "variety": 0.5}
    if shop.items is not None and shop.users is not None:
        sold = shop.items.filter(pl.col("item_id").is_in(items))["category_1"]
        maybe["forbid"] = [{"category": sold[0], "when": "age < 18"}]
    if rules := {name: value for name, value in maybe.items() if rng.random() < 0.25}:
        asked["rules"] = rules | ({"unless_due": False} if "skip_bought_days" in rules else {})
    return asked


def request_of(asked: dict[str, Any]) -> Request:
    rules = {"rules": Rules(**asked["rules"])} if "rules" in asked else {}
    return Request(**asked | rules)


def keeps_to(asked: dict[str, Any], lists: pl.DataFrame, shop: Shop) -> None:
    """Whether lists are what was asked for, by the lines themselves."""
    rules = asked.get("rules", {})
    k = sum(asked["slots"].values()) if "slots" in asked else asked["k"]
    pairs = lists.select("user_id", "item_id")
    bought = shop.lines.select("user_id", "item_id").unique()
    assert not pairs.is_duplicated().any()
    assert lists["score"].is_finite().all()
    for _, one in lists.group_by("user_id"):
        assert one["rank"].to_list() == list(range(1, one.height + 1))
        assert one.height <= k
    if "among" in asked:
        assert pairs.join(asked["among"], on="item_id", how="anti").is_empty()
    if "dismissals" in asked:
        assert pairs.join(asked["dismissals"], on=["user_id", "item_id"]).is_empty()
    if "deny" in rules:
        assert pairs.join(rules["deny"], on=["user_id", "item_id"]).is_empty()
    if "available" in rules:
        assert pairs.join(rules["available"], on="item_id", how="anti").is_empty()
    if asked.get("purpose") == "replenish":
        assert pairs.join(bought, on=["user_id", "item_id"], how="anti").is_empty()
    if asked.get("purpose") == "discover":
        assert pairs.join(bought, on=["user_id", "item_id"]).is_empty()
    if "skip_bought_days" in rules:
        since = shop.data().end - timedelta(days=rules["skip_bought_days"])
        late = shop.lines.filter(pl.col("time") > since).select("user_id", "item_id").unique()
        assert pairs.join(late, on=["user_id", "item_id"]).is_empty()
    if "forbid" in rules:
        assert shop.users is not None
        assert shop.items is not None
        young = shop.users.filter(pl.col("age").is_null() | (pl.col("age") < 18))
        banned = shop.items.filter(pl.col("category_1") == rules["forbid"][0]["category"])
        assert pairs.join(young, on="user_id").join(banned, on="item_id").is_empty()


@contextmanager
def service(shop: Shop, folder: Path) -> Iterator[Any]:
    """A client of a service over the shop's receipts and the model in a folder."""
    from starlette.testclient import TestClient

    from retailrec.serving.app import make_app
    from retailrec.serving.loading import load_frames
    from retailrec.serving.service import Service, ServiceSettings
    from retailrec.serving.store import Store

    store = Store(str(folder / "store.db")).init()
    load_frames(store, shop.lines, users=shop.users)
    served = Service(store, folder, ServiceSettings(rate=0, keys=False))
    with TestClient(make_app(served), base_url="http://localhost") as client:
        while not served.ready:
            time.sleep(0.01)
        yield client


def over_http(client: Any, user: str, asked: dict[str, Any]) -> list[tuple[Any, ...]] | None:
    """The list that HTTP answers with; None: what was asked comes to it by another way than a request."""
    rules = asked.get("rules", {})
    if {"deny", "available"} & set(rules) or "dismissals" in asked:
        return None
    fields = {name: value for name, value in asked.items() if name not in ("rules", "slots", "among")}
    if "slots" in asked:
        fields["slots"] = ",".join(f"{purpose}={n}" for purpose, n in asked["slots"].items())
    if "among" in asked:
        fields["among"] = ",".join(asked["among"]["item_id"])
    if rules:
        saved = client.put("/v1/rules/tried", json=rules)
        assert saved.status_code == 200, saved.text
        fields["ruleset"] = "tried"
    found = client.get(f"/v1/shoppers/{user}/offers", params=fields)
    assert found.status_code == 200, found.text
    return [(one["item"], one["rank"], one["score"]) for one in found.json()["offers"]]


def check(seed: int, folder: Path) -> int:
    """Look at one shop, model and some requests; how many lists were compared over HTTP."""
    rng = np.random.default_rng(seed)
    shop = a_shop(rng)
    data = shop.data()
    try:
        model = a_model(rng).fit(data)
    except (DataError, SettingError):  # too small to learn from
        return 0
    model.save(folder / "model")
    loaded = TwoStageRecommender.load(folder / "model")
    shuffled = shop.data(shop.lines.sample(fraction=1, shuffle=True, seed=seed))
    users = sorted(set(shop.lines["user_id"]))
    cut = data.end - timedelta(days=10)
    compared = 0
    with service(shop, folder) as client:
        for _ in range(REQUESTS):
            asked = a_request(rng, shop, model.discover is not None)
            request = request_of(asked)
            lists = model.recommend(data, None, request)
            keeps_to(asked, lists, shop)
            user = users[rng.integers(len(users))]
            mine = lists.filter(user_id=user)
            same = [
                (loaded.recommend(data, None, request), lists),
                (
                    model.recommend(shuffled, None, request).sort("user_id", "rank"),
                    lists.sort("user_id", "rank"),
                ),
                (model.recommend(data, [user], request), mine),
            ]
            if shop.users is None:  # whoever else is in the file
                others = pl.concat(
                    [shop.lines, shop.lines.with_columns(user_id="v" + pl.col("user_id"))]
                )
                same.append((model.recommend(others, [user], request), mine))
            known = sorted(set(shop.lines.filter(pl.col("time") < cut)["user_id"]))
            then = request_of(asked | {"at": cut})
            earlier = model.recommend(data.asof(cut), known, request)
            same.append((model.recommend(data, known, then), earlier))
            for one, other in same:
                assert_frame_equal(one, other, check_exact=True)
            answer = over_http(client, user, asked)
            if answer is not None:
                assert answer == mine.select("item_id", "rank", "score").rows()
                compared += 1
    return compared


@pytest.mark.parametrize(
    "seeds", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_a_list_keeps_to_its_request_and_hangs_on_nothing_else(seeds: range, tmp_path: Path) -> None:
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("starlette")
    compared = 0
    for seed in seeds:
        (folder := tmp_path / str(seed)).mkdir()
        try:
            compared += check(seed, folder)
        except (AssertionError, RetailRecError) as error:
            raise AssertionError(f"shop {seed}: {error}") from error
    assert compared > len(seeds)

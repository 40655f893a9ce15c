"""A service over HTTP for tests: two models, a store, and a client."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from retailrec.data import RetailData
from retailrec.recommender.purposes import Discovery
from retailrec.serving.app import make_app
from retailrec.serving.experiment import Experiment
from retailrec.serving.loading import load_data
from retailrec.serving.service import Service, ServiceSettings
from retailrec.serving.store import Store
from retailrec.simulator.shop import small_data
from serving_support import small_model

SOON = "2024-01-01T08:00:00"


def small_shop() -> RetailData:
    return small_data(users=60, weeks=30, items=200)


def two_models(shop: RetailData, root: Path) -> Path:
    """Two models, and a store with every receipt."""
    for name, seed in (("first", 0), ("second", 1)):
        discover = Discovery(n_candidates=15) if seed else None
        small_model(seed=seed, max_users=20 + 20 * seed, discover=discover).fit(
            shop.asof(shop.end - timedelta(days=14 - seed))
        ).save(root / "models" / name)
    store = Store(str(root / "store.db")).init()
    load_data(store, shop)
    store.sweep()
    store.close()
    return root


Start = Callable[..., TestClient]


def starting(folder: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a service over a copy of the store; its `service` is an attribute of the client."""
    open_ones: list[TestClient] = []

    def starting(experiment: Experiment | None = None, **settings: Any) -> TestClient:
        copy = tmp_path / "store.db"
        if not copy.exists():
            shutil.copy(folder / "store.db", copy)
        service = Service(
            Store(str(copy)),
            folder / "models",
            ServiceSettings(**{"rate": 0, "keys": None} | settings),
            experiment or Experiment(),
        )
        client = TestClient(
            make_app(service), base_url="http://localhost", raise_server_exceptions=False
        )
        client.__enter__()
        client.service = service  # type: ignore[attr-defined]
        open_ones.append(client)
        while not service.ready:
            time.sleep(0.01)
        return client

    yield starting
    for client in open_ones:
        client.__exit__(None, None, None)


def receipt(shopper: str, number: str, *items: str, time: str = SOON) -> dict[str, Any]:
    lines = [{"item": item, "quantity": 1, "value": 2.0} for item in items]
    return {"shopper": shopper, "number": number, "time": time, "lines": lines}

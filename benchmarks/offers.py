"""Coupon response on the Complete Journey's year 2017: which of a campaign's products will be bought?

An *event* is a household that was sent a campaign. Ranked are the campaign's products (those of its
coupons, all of them), by what is known strictly before the campaign starts. Relevant is what the
household buys from the start on within five days, with a coupon or not. The protocol is that of a
public student project (PromoMind, 2026), whose figures are printed beside ours; where its description
leaves room its scripts decide:

- starts are midnights in the package's own clock, UTC, so a day of the shops begins some hours later;
- test: the campaigns that start from 2017-11-15 to 2017-12-06 (19 to 22), 715 events; campaign 23 has
  no five days left. Validation: campaigns 14 to 17, whose kinds are those of the test; here they chose
  among ways to order, and nothing else was tried on the test campaigns. Training: what starts before;
- recall@10 and NDCG@10 (its ideal: min(10, relevant)) are means over the events with a relevant
  product, 109 of the test's; ties go to the lower product id.

*popular*: receipt lines of the product. *repeat cadence*: .45 repeats + .25 cadence + .2 category + .1
popularity, each from 0 to 1, as published. *ours*: what the household bought before comes first, by
receipts that count half after 120 days; then what it never bought, by LightGBM on the columns of
`candidate_frame(among=...)`, trained on the products new to the households of earlier campaigns.

    make bench-offers
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

import lightgbm as lgb
import numpy as np
from machine import print_result
from numpy.typing import NDArray

from retailrec.candidates import ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.compute.shards import map_shards, n_threads
from retailrec.data import RetailData
from retailrec.data.history import Pairs
from retailrec.datasets import journey_offers, load_dataset
from retailrec.evaluation.bootstrap import compare_models
from retailrec.recommender.stage_one import candidate_frame
from retailrec.recommender.two_stage import TwoStageRecommender

DAYS, K = timedelta(days=5), 10
VALIDATION, TEST = (14, 15, 16, 17), (19, 20, 21, 22)
ELSEWHERE = {  # recall@10, NDCG@10 of the test events
    "popular": (0.1884, 0.1045),
    "repeat cadence": (0.4005, 0.2979),
    "XGBoost rank, graded labels": (0.4154, 0.3291),
    "the same, its tail fused with another model": (0.4187, 0.3304),
}
NEW_A_HOUSEHOLD, MANY, KEPT = 40, 400, 0.2  # products drawn; campaigns of more households are thinned
ROWS = 150_000  # candidate rows in memory at a time
Scores = dict[str, list[NDArray[np.floating]]]


class Campaign(NamedTuple):
    """The events of one campaign.

    Attributes
    ----------
    past : what is known at its start
    users, items : codes of the households that were sent it, and of its products, ascending
    bought : (n_users, n_items) bool, bought within five days
    """

    number: int
    past: RetailData
    users: NDArray[np.int64]
    items: NDArray[np.int64]
    bought: NDArray[np.bool_]


def campaigns(data: RetailData) -> list[Campaign]:
    """All campaigns with five days of receipts after their start, in order of it."""
    sent = journey_offers.campaigns()
    products = journey_offers.coupons().select("campaign_id", "item_id").unique()
    found = []
    by_start = sent.select("start", "campaign_id").unique().sort("start", "campaign_id")
    for start, number in by_start.iter_rows():
        begin = shop_time(start)
        if begin <= data.start or begin + DAYS > data.end:
            continue
        users = np.sort(data.user_codes(sent.filter(campaign_id=number)["user_id"]))
        items = products.filter(campaign_id=number)["item_id"]
        items = np.flatnonzero(data.items["item_id"].is_in(items.implode()).to_numpy())
        bought = np.zeros((data.n_users, data.n_items), np.bool_)
        lines = data.between(begin, begin + DAYS)
        bought[lines["user"].to_numpy(), lines["item"].to_numpy()] = True
        users = users[users >= 0]
        found.append(
            Campaign(number, data.asof(begin), users, items, bought[np.ix_(users, items)].copy())
        )
    return found


def shop_time(utc: datetime) -> datetime:
    """An instant of the package's clock in that of the loaded receipts."""
    zone = ZoneInfo("America/New_York")
    return utc.replace(tzinfo=timezone.utc).astimezone(zone).replace(tzinfo=None)  # noqa: UP017


def popular(campaign: Campaign) -> NDArray[np.float64]:
    """(n_items,) log of receipt lines, the most sold product of the campaign 1."""
    items = campaign.past.log["item"].to_numpy()
    lines = np.log1p(np.bincount(items, minlength=campaign.past.n_items)[campaign.items])
    return lines / max(lines.max(), 1e-9)


def repeat_cadence(campaign: Campaign, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n_rows, n_items) the published heuristic: repeats, cadence, category, popularity."""
    past, best = campaign.past, popular(campaign)
    words = past.items["category_2"].fill_null("UNKNOWN")
    category = words.rank("dense").to_numpy().astype(np.int64)
    history = past.history(codes=campaign.users[rows])
    counts, last = np.diff(history.event_indptr), history.last_age()
    out = []
    for row in range(len(rows)):
        pairs = slice(history.indptr[row], history.indptr[row + 1])
        count, cadence = np.zeros(past.n_items), np.zeros(past.n_items)
        count[history.items[pairs]] = counts[pairs]
        for pair in range(pairs.start, pairs.stop):
            ages = history.age[history.event_indptr[pair] : history.event_indptr[pair + 1]]
            gap = np.median(-np.diff(ages)) if len(ages) > 1 else np.nan
            if gap > 0:
                off = abs(last[pair] - gap) / max(gap, 7)
                cadence[history.items[pair]] = np.exp(-off)
            elif len(ages) == 1:
                cadence[history.items[pair]] = 0.5 * np.exp(-last[pair] / 45)
        spent = np.bincount(category, count, minlength=category.max() + 1)
        share = np.zeros(len(spent))
        three = np.argsort(-spent, kind="stable")[:3]
        share[three] = spent[three] / max(spent.sum(), 1)
        repeats = np.log1p(count[campaign.items])
        repeats /= max(repeats.max(), np.log(2))
        out.append(
            0.45 * repeats
            + 0.25 * cadence[campaign.items]
            + 0.2 * share[category[campaign.items]]
            + 0.1 * best
        )
    return np.array(out)


class Stage:
    """Sources and features of one campaign's start, and the columns of any of its pairs."""

    def __init__(self, campaign: Campaign) -> None:
        sources = [
            OwnPurchases("decay", half_life=120),
            OwnPurchases("due"),
            TifuKNN(),
            Popularity(),
            ItemItem("tfidf", half_life=180, neighbours=30),
        ]
        model = TwoStageRecommender(sources, n_candidates=[100, 0, 40, 60, 40], preranker=None)
        self.stage = model.fit_matching(campaign.past).stage_one
        self.names = self.stage.column_names
        self.decayed = self.names.index("source_own_decay_score")
        # places in the pool differ between a campaign of 18 products and one of 35,000
        self.kept = [i for i, name in enumerate(self.names) if not name.endswith("_rank")]

    def columns(
        self, campaign: Campaign, rows: NDArray[np.int64], items: Sequence[NDArray[np.int64]]
    ) -> NDArray[np.float32]:
        """(n_pairs, n_columns) of some households (`rows`) and the item codes of each."""
        history = campaign.past.history(codes=campaign.users[rows])
        indptr = np.append(0, np.cumsum([len(own) for own in items])).astype(np.int64)

        def part(shard: slice) -> NDArray[np.float32]:
            listed = np.concatenate(items[shard]).astype(np.int32)
            starts = indptr[shard.start : shard.stop + 1]
            pairs = Pairs(starts - starts[0], listed)
            return candidate_frame(history.take(shard), self.stage, among=pairs).x

        size = max(1, min(256, ROWS // max(len(own) for own in items)))
        return np.vstack(list(map_shards(part, len(rows), size=size, threads=n_threads(0))))


def new_rows(
    campaign: Campaign, stage: Stage, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]:
    """Columns, labels and weights of products new to the household: all bought, some others.

    Of large campaigns the households that bought nothing are thinned; of the products that were not
    bought forty a household are drawn, and weigh what they stand for.
    """
    rows = np.arange(len(campaign.users))
    if len(rows) > MANY:
        rows = rows[campaign.bought.any(axis=1) | (rng.random(len(rows)) < KEPT)]
    history = campaign.past.history(codes=campaign.users[rows])
    chosen, labels, weights = [], [], []
    for row in range(len(rows)):
        own = history.items[history.indptr[row] : history.indptr[row + 1]]
        new = ~np.isin(campaign.items, own)
        bought = campaign.bought[rows[row]]
        rest = campaign.items[new & ~bought]
        drawn = rng.choice(rest, min(NEW_A_HOUSEHOLD, len(rest)), replace=False)
        items = np.sort(np.append(campaign.items[new & bought], drawn))
        label = np.isin(items, campaign.items[bought])
        chosen.append(items)
        labels.append(label)
        weights.append(np.where(label, 1, len(rest) / max(len(drawn), 1)))
    x = stage.columns(campaign, rows, chosen)[:, stage.kept]
    return x, np.concatenate(labels), np.concatenate(weights)


def learn_new(
    parts: list[tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float64]]],
) -> lgb.Booster:
    """Probability that a product new to the household is bought."""
    x, y, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
    options = {
        "objective": "binary",
        "num_leaves": 7,
        "learning_rate": 0.08,
        "feature_fraction": 0.5,
        "min_data_in_leaf": 200,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "max_bin": 63,
        "verbosity": -1,
        "num_threads": n_threads(0),
        "seed": 0,
        "deterministic": True,
    }
    return lgb.train(options, lgb.Dataset(x, y.astype(np.float32), weight=weights), 80)


def judged(
    campaign: Campaign, rows: NDArray[np.int64], scores: NDArray[np.floating]
) -> NDArray[np.float64]:
    """(n_rows, 2) recall@10 and NDCG@10 of scores (n_rows or 1, n_items)."""
    relevant = campaign.bought[rows]
    order = np.argsort(-np.broadcast_to(scores, relevant.shape), axis=1, kind="stable")[:, :K]
    hits = np.take_along_axis(relevant, order, axis=1)
    worth = 1 / np.log2(np.arange(2, K + 2))
    n = relevant.sum(axis=1)
    ideal = np.cumsum(worth)[np.minimum(n, K) - 1]
    return np.column_stack([hits.sum(axis=1) / n, hits @ worth[: hits.shape[1]] / ideal])


def board(
    found: list[Campaign], stages: dict[int, Stage], model: lgb.Booster, wanted: Sequence[int]
) -> dict[str, NDArray[np.float64]]:
    """Method -> (n_events, 2) recall and NDCG of each event with a relevant product."""
    values: dict[str, list[NDArray[np.float64]]] = {}
    for campaign in (c for c in found if c.number in wanted):
        rows = np.flatnonzero(campaign.bought.any(axis=1))
        if not len(rows):
            continue
        stage = stages[campaign.number]
        x = stage.columns(campaign, rows, [campaign.items] * len(rows))
        decayed = x[:, stage.decayed].astype(np.float64)
        predict = partial(model.predict, num_threads=n_threads(0))
        ours = np.where(decayed > 0, 1 + decayed, predict(x[:, stage.kept]))
        shape = (len(rows), len(campaign.items))
        ways = {
            "popular": popular(campaign)[None],
            "repeat cadence": repeat_cadence(campaign, rows),
            "own purchases, decayed": decayed.reshape(shape),
            "ours": ours.reshape(shape),
        }
        for name, scores in ways.items():
            values.setdefault(name, []).append(judged(campaign, rows, scores))
    return {name: np.vstack(parts) for name, parts in values.items()}


def main() -> None:
    found = campaigns(load_dataset("complete-journey"))
    rng = np.random.default_rng(0)
    stages: dict[int, Stage] = {}
    parts = {}
    for campaign in found:
        stage = Stage(campaign)
        if campaign.number in VALIDATION + TEST:
            stages[campaign.number] = stage
        if campaign.number not in TEST:
            parts[campaign.number] = new_rows(campaign, stage, rng)
    numbers = [c.number for c in found]
    result = {}
    for split, wanted in (("validation", VALIDATION), ("test", TEST)):
        earlier = numbers[: min(numbers.index(n) for n in wanted)]
        values = board(found, stages, learn_new([parts[n] for n in earlier]), wanted)
        events = sum(len(c.users) for c in found if c.number in wanted)
        print(f"\n{split}: {events:,} events, {len(values['ours'])} with a purchase")
        print(f"{'method':45s} recall@10  ndcg@10  elsewhere")
        for name, pair in values.items():
            theirs = ELSEWHERE.get(name) if split == "test" else None
            beside = "" if theirs is None else f"{theirs[0]:.4f}  {theirs[1]:.4f}"
            recall, ndcg = pair.mean(axis=0)
            print(f"{name:45s} {recall:9.4f} {ndcg:8.4f}  {beside}")
        if split == "test":
            for name in list(ELSEWHERE)[2:]:
                print(f"{name:45s} {'':18s}  {ELSEWHERE[name][0]:.4f}  {ELSEWHERE[name][1]:.4f}")
        sure = compare_models(
            {n: {"recall@10": v[:, 0], "ndcg@10": v[:, 1]} for n, v in values.items()}
        )
        for row in sure.differences.filter(model="ours", versus="repeat cadence").to_dicts():
            print(
                f"ours less repeat cadence, {row['metric']}: {row['difference']:+.4f} "
                f"({row['low']:+.4f} to {row['high']:+.4f})"
            )
        result[split] = {n: v.mean(axis=0).round(4).tolist() for n, v in values.items()}
    print_result("offers", result)


if __name__ == "__main__":
    main()

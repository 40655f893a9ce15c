"""The numbers of a report as plain dicts and lists: computed here and tested, drawn elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress
from retailrec.data import RetailData, has_money
from retailrec.data.splits import Split
from retailrec.evaluation import Judge, means
from retailrec.evaluation.inspection import by_family, importances, ndcg_by_trees
from retailrec.evaluation.judge import by_segment, segments
from retailrec.evaluation.matching import GRID, judge_matching
from retailrec.evaluation.results import MatchingReport
from retailrec.recommender.explanations import item_labels
from retailrec.recommender.label_windows import Sampling, concatenate, window_rows
from retailrec.recommender.two_stage import TwoStageRecommender
from retailrec.schema import ITEM_ID, USER_ID

CAUTION = (
    "The shop chose whom it sends coupons to, and chose its good customers: what differs between these "
    "groups is described here, and says nothing about what coupons cause."
)


class SentCoupons(NamedTuple):
    """What was sent to whom, as `retailrec.datasets.journey_offers` reads it.

    Attributes
    ----------
    campaigns : `user_id`, `campaign_id`, `start`, `end` (exclusive)
    products : `campaign_id`, `item_id`
    redemptions : `user_id`, `time`
    """

    campaigns: pl.DataFrame
    products: pl.DataFrame
    redemptions: pl.DataFrame


def describe_sent(
    sent: SentCoupons,
    held_out: Split,
    judge: Judge,
    lists: Mapping[str, NDArray[np.int32]],
    k: int,
    horizon_days: float,
) -> dict[str, Any] | None:
    """Of each group of judged shoppers: what they were recommended, what they bought and redeemed.

    Groups: sent a campaign that runs in the window, sent one earlier only, never sent any. None if no
    campaign runs in the window.

    Returns
    -------
    dict with `campaigns` and `products` that run in the window, `caution`, and `groups`: rows with
    `group`, `n_users`, `receipts` (mean, before the window), `precision` at k of the two-stage lists,
    `recommended` and `bought` (shares that are products of the window's campaigns) and `redeemed`
    (share who redeemed a coupon in the window)
    """
    past = held_out.past
    start, end = past.end, past.end + timedelta(days=horizon_days)
    running = (pl.col("start") < end) & (pl.col("end") > start)
    now = sent.campaigns.filter(running)
    numbers = now["campaign_id"].unique()
    products = sent.products.filter(pl.col("campaign_id").is_in(numbers.implode()))[ITEM_ID].unique()
    if not len(products):
        return None
    offered = past.items[ITEM_ID].is_in(products.implode()).to_numpy()
    ids = past.users[USER_ID].gather(judge.users)
    got_now = ids.is_in(now[USER_ID].unique().implode()).to_numpy()
    earlier = sent.campaigns.filter(pl.col("start") < end)[USER_ID].unique()
    got_ever = ids.is_in(earlier.implode()).to_numpy()
    used = sent.redemptions.filter((pl.col("time") >= start) & (pl.col("time") < end))
    redeemed = ids.is_in(used[USER_ID].unique().implode()).to_numpy()
    metric = f"precision@{k}"

    def group(name: str, mask: NDArray[np.bool_]) -> dict[str, Any]:
        theirs = pl.col("user").is_in(pl.Series(judge.users[mask]).cast(pl.Int32).implode())
        recommended = lists["two_stage"][mask, :k]
        there = recommended >= 0
        pairs = held_out.target.filter(theirs).select("user", "item").unique()
        precision = judge.select(mask).per_user(recommended, [metric])[metric]
        return {
            "group": name,
            "n_users": int(mask.sum()),
            "receipts": round(past.log.filter(theirs)["basket"].n_unique() / int(mask.sum()), 2),
            "precision": _number(np.nanmean(precision)),
            "recommended": _number(offered[recommended[there]].mean()) if there.any() else None,
            "bought": _number(offered[pairs["item"].to_numpy()].mean()),
            "redeemed": _number(redeemed[mask].mean()),
        }

    groups = {
        "sent coupons in these weeks": got_now,
        "sent coupons earlier only": got_ever & ~got_now,
        "never sent coupons": ~got_ever,
    }
    rows = [group(name, mask) for name, mask in groups.items() if mask.any()]
    return {"campaigns": len(numbers), "products": len(products), "caution": CAUTION, "groups": rows}


Lists = Mapping[str, NDArray[np.int32]]

EXAMPLES = 12
_MATCHING_USERS = 1000  # recall of so many shoppers is sure to about .01
_IMPORTANCE_USERS = 150
_RANKING_USERS = 500  # whose lists are ordered by the first trees
_GRID = GRID[:7]  # the report's curve ends at 1,000 candidates; `retailrec match` goes to 2,000
_TAIL_POINTS = 60
# what the results say beside the metrics that were asked for
DETAILS = (
    *("repeat_recall@10", "explore_recall@10", "money_recall@10", "revenue@5"),
    *("served@5", "coverage@5", "novelty@5", "diversity@5"),
)


def describe_data(data: RetailData, horizon_days: float) -> dict[str, Any]:
    """Receipts at a glance: key figures, sales by week, receipt sizes, gaps, the long tail."""
    receipts = data.receipts()
    return {
        "glance": at_a_glance(data, horizon_days=horizon_days),
        "weeks": _weeks(data, receipts),
        "receipt_sizes": _histogram(receipts["lines"], [1, 2, 3, 5, 10, 20, 50]),
        "gaps_days": _histogram(days_between_visits(receipts), [0, 1, 3, 7, 14, 28, 56, 112]),
        "long_tail": _long_tail(data.log),
        "load": data.report.as_dict(),
    }


def at_a_glance(data: RetailData, *, horizon_days: float = 28) -> dict[str, Any]:
    """Figures that describe receipts; each says in its name what it is.

    ``repeat_share_*`` is the share of the (shopper, item) pairs of the last `horizon_days` (of the
    last receipt) that the shopper had bought before; None where there is no time before.
    """
    log, receipts = data.log, data.receipts()
    per_user = receipts["user"].value_counts()["count"]
    gap = days_between_visits(receipts)
    per_item = log["item"].value_counts(sort=True)["count"]
    price = (log["value"] / log["quantity"]).drop_nulls()
    quartiles = [_number(price.quantile(q)) for q in (0.25, 0.5, 0.75)]
    weekday = np.bincount(receipts["time"].dt.weekday(), receipts["lines"], minlength=8)[1:]
    within, of_last = _repeats(data, horizon_days)
    return {
        "shoppers": len(per_user),
        "items_sold": len(per_item),
        "lines": log.height,
        "receipts_per_shopper_median": _number(per_user.median()),
        "receipts_per_shopper_mean": _number(per_user.mean()),
        "lines_per_receipt_median": _number(receipts["lines"].median()),
        "lines_per_receipt_mean": _number(receipts["lines"].mean()),
        "days_between_visits_median": _number(gap.median()),
        "days_between_visits_mean": _number(gap.mean()),
        f"repeat_share_{horizon_days:g}d": within,
        "repeat_share_last_receipt": of_last,
        "sales_in_top_1_percent": _top_share(per_item, 0.01),
        "sales_in_top_10_percent": _top_share(per_item, 0.10),
        "items_sold_once": _number((per_item == 1).mean()),
        "unit_price_quartiles": quartiles if len(price) else None,
        "lines_by_weekday": [_number(n / log.height) for n in weekday],
    }


def _number(value: Any) -> float | None:
    return None if value is None else round(float(value), 4)


def days_between_visits(receipts: pl.DataFrame) -> pl.Series:
    """Days from each receipt to the shopper's next one."""
    times, users = receipts["time"].to_numpy(), receipts["user"].to_numpy()
    return pl.Series("days", np.diff(times)[users[1:] == users[:-1]] / np.timedelta64(1, "D"))


def _repeats(data: RetailData, horizon_days: float) -> tuple[float | None, float | None]:
    """Shares of repeats: of the pairs of the last days, and of the last receipts."""
    counts = np.zeros(4, np.int64)
    for history in data.histories_in_parts():
        user = history.user_of_pair
        before = history.age[history.event_indptr[:-1]] > horizon_days
        known = np.bincount(user[before], minlength=len(history)) > 0
        asked = (history.last_age() <= horizon_days) & known[user]
        last = history.last_basket
        earlier = history.user_of_event[history.basket != last[history.user_of_event]]
        several = np.bincount(earlier, minlength=len(history)) > 0
        newest = history.basket[history.event_indptr[1:] - 1] == last[user]
        newest &= several[user]
        again = np.diff(history.event_indptr) > 1
        counts += [asked.sum(), (asked & before).sum(), newest.sum(), (newest & again).sum()]
    n, repeated, n_last, repeated_last = (int(n) for n in counts)
    return _number(repeated / n) if n else None, _number(repeated_last / n_last) if n_last else None


def _top_share(per_item: pl.Series, share: float) -> float | None:
    n = max(1, int(np.ceil(len(per_item) * share)))
    return _number(int(per_item.head(n).sum()) / max(int(per_item.sum()), 1))


def _weeks(data: RetailData, receipts: pl.DataFrame) -> list[dict[str, Any]]:
    """Receipts and money of each whole week, counted back from the end."""
    seconds = (pl.lit(data.end) - pl.col("time")).dt.total_seconds()
    back = pl.when(seconds > 0).then((seconds - 1) // (7 * 86_400)).otherwise(0)
    sums = receipts.group_by(week=back).agg(pl.len().alias("receipts"), pl.col("value").sum())
    of_week = {week: (n, value) for week, n, value in sums.rows()}
    priced = has_money(data)
    rows: list[dict[str, Any]] = []
    for week in range(max((data.end - data.start).days // 7, 1) - 1, -1, -1):
        n, value = of_week.get(week, (0, 0.0))
        start = (data.end - timedelta(weeks=week + 1)).date().isoformat()
        rows.append({"start": start, "receipts": n, "value": round(value, 2) if priced else None})
    return rows


def _histogram(values: pl.Series, lower: Sequence[int]) -> list[dict[str, Any]]:
    """Share of the values in bins that begin at `lower`; the last bin is open."""
    place = np.searchsorted(lower, values.to_numpy(), side="right") - 1
    counts = np.bincount(place[place >= 0], minlength=len(lower))
    total = max(int(counts.sum()), 1)
    return [
        {"from": low, "to": high, "share": round(int(n) / total, 5)}
        for low, high, n in zip(lower, [*lower[1:], None], counts, strict=True)
    ]


def _long_tail(log: pl.DataFrame) -> list[dict[str, Any]]:
    """Share of all lines that the most sold items hold together."""
    counts = log["item"].value_counts(sort=True)["count"].to_numpy()
    share = np.cumsum(counts) / counts.sum()
    at = np.unique(np.geomspace(1, len(counts), _TAIL_POINTS).round().astype(int))
    return [
        {"items": round(float(n / len(counts)), 5), "lines": round(float(share[n - 1]), 5)} for n in at
    ]


def describe_matching(
    model: TwoStageRecommender, held_out: Split, seed: int, progress: Progress
) -> MatchingReport:
    """`judge_matching` of at most 1,000 shoppers."""
    return judge_matching(
        model, held_out, grid=_GRID, most_users=_MATCHING_USERS, seed=seed, progress=progress
    )


def describe_ranking(model: TwoStageRecommender, held_out: Split, seed: int) -> dict[str, Any]:
    """NDCG by the number of trees, and importances, over the window that follows what was learnt from.

    Neither where nothing that is proposed was bought there.
    """
    facts: dict[str, Any] = dict.fromkeys(("windows", "curve", "importances", "reliability"))
    facts["windows"] = model.report_["windows"]
    buyers = Sampling(negatives=1, idle_users=1e-9, max_users=_RANKING_USERS, seed=seed)
    split = held_out.filtered(model.prefilters)
    rows = concatenate(window_rows("", split, model.stage_one, buyers, 0, model.threads).frames)
    if rows.y.any():
        ranker, families, n = model.ranker_, model.features_.families, _IMPORTANCE_USERS
        facts["curve"] = ndcg_by_trees(ranker, rows, seed=seed)
        table = importances(ranker, rows, families, shoppers=n, seed=seed)
        columns, by = _rounded(table.head(20)), _rounded(by_family(table))
        facts["importances"] = {"columns": columns, "families": by}
    return facts


def describe_results(
    judge: Judge, lists: Lists, metrics: Sequence[str], past: RetailData
) -> dict[str, Any]:
    """Means beside the headline ones, and the headline by segment."""
    can_tell = (m for m in DETAILS if not m.startswith("diversity") or judge.categories is not None)
    wanted = [m for m in can_tell if m not in metrics]
    values = {name: judge.per_user(items, [metrics[0], *wanted]) for name, items in lists.items()}
    groups = segments(past, judge.users)
    details, segments_of = {}, {}
    for name, v in values.items():
        details[name] = means({m: v[m] for m in wanted})
        segments_of[name] = by_segment({metrics[0]: v[metrics[0]]}, groups).to_dicts()
    return {"details": details, "segments": segments_of}


def describe_examples(
    model: TwoStageRecommender, held_out: Split, judge: Judge, lists: Lists, k: int, seed: int
) -> list[dict[str, Any]]:
    """Twelve shoppers, from the least to the most active: what they had, got recommended and bought."""
    past = held_out.past
    rng = np.random.default_rng(seed)
    receipts = past.log.group_by("user").agg(pl.col("basket").n_unique())
    count = np.zeros(past.n_users, np.int64)
    count[receipts["user"].to_numpy()] = receipts["basket"].to_numpy()
    order = np.argsort(count[judge.users], kind="stable")
    strata = [part for part in np.array_split(order, EXAMPLES) if len(part)]
    rows = [int(rng.choice(part)) for part in strata]
    sold = np.zeros(past.n_items, np.bool_)
    sold[past.log["item"].unique().to_numpy()] = True
    labels = item_labels(past.items, sold)
    why = model.explain(past.history(codes=judge.users[rows]), k=k)
    bought = held_out.target.group_by("user", "item").agg(pl.col("quantity").sum())
    shoppers: list[dict[str, Any]] = []
    for row in rows:
        user = int(judge.users[row])
        own = past.log.filter(pl.col("user") == user)
        theirs = bought.filter(pl.col("user") == user)["item"].to_list()
        user_id = past.users[USER_ID][user]
        reasons = why.filter(pl.col(USER_ID) == user_id)["reasons"].to_list()
        often = own.group_by("item").agg(pl.len().alias("n"), pl.col("time").max().alias("last"))
        often = often.sort(["n", "last", "item"], descending=[True, True, False]).head(6)
        last = own.filter(pl.col("basket").is_in(own["basket"].unique().sort().tail(3).implode()))
        shoppers.append(
            {
                "user": str(user_id),
                "receipts": int(count[user]),
                "often": [
                    {"item": labels[i], "times": n, "days_ago": (past.end - t).days}
                    for i, n, t in often.rows()
                ],
                "last_receipts": [
                    {"date": str(part["time"][0].date()), "items": [labels[i] for i in part["item"]]}
                    for part in last.partition_by("basket", maintain_order=True)[::-1]
                ],
                "lists": {
                    name: _listed(items[row, :k], labels, theirs, reasons * (name == "two_stage"))
                    for name, items in lists.items()
                },
                "bought": [labels[i] for i in sorted(theirs)],
            }
        )
    return shoppers


def _listed(
    items: NDArray[np.int32], labels: Sequence[str], bought: list[int], reasons: list[str]
) -> list[dict[str, Any]]:
    """A list in words, with the reasons of a model that gives some."""
    return [
        {"item": labels[item], "bought": item in bought, **({"reason": reason} if reasons else {})}
        for item, reason in zip(items[items >= 0].tolist(), reasons or repeat(""), strict=False)
    ]


def _rounded(frame: pl.DataFrame) -> list[dict[str, Any]]:
    return frame.with_columns(pl.col(pl.Float64).round(6)).to_dicts()

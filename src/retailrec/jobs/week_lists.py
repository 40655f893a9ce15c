"""What a week's lists are like: counted, compared with last week's, judged by what was bought since."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field

from retailrec.checks import Finding
from retailrec.data import RetailData
from retailrec.data.ids import row_of_ids
from retailrec.data.splits import Fold
from retailrec.errors import RetailRecWarning
from retailrec.evaluation import Judge, means
from retailrec.evaluation.backtest import fitted
from retailrec.evaluation.judge import by_segment, segments
from retailrec.jobs.evaluate import baselines
from retailrec.recommender.request import Request
from retailrec.schema import ITEM_ID, USER_ID

LIST_CHECKS = ("fewer_users", "short_lists", "coverage_fell", "share_of_new", "lists_changed")
_SAMPLE = 2_000  # users whose lists the old model makes too, to tell receipts from refitting
_PAIR = [USER_ID, ITEM_ID]


class ListBounds(BaseModel):
    """What lists must keep to, or they are not published.

    Attributes
    ----------
    users_at_least : users with a list, as a share of last week's
    short_at_most : share of lists with fewer items than asked for
    coverage_at_least : different items in all lists, as a share of last week's
    new_at_least, new_at_most : share of listed items that the user has not bought before
    change_at_most : share of listed items that the user's list of last week did not have
    """

    model_config = ConfigDict(extra="forbid")

    users_at_least: float = Field(default=0.8, ge=0)
    short_at_most: float = Field(default=0.1, ge=0, le=1)
    coverage_at_least: float = Field(default=0.5, ge=0)
    new_at_least: float = Field(default=0, ge=0, le=1)
    new_at_most: float = Field(default=1, ge=0, le=1)
    change_at_most: float = Field(default=0.9, ge=0, le=1)


def describe_lists(lists: pl.DataFrame, data: RetailData, k: int) -> dict[str, Any]:
    """Counts of users and items, and shares of short lists, of the catalogue and of items new to users.

    Examples
    --------
    >>> bought = pl.DataFrame({"user_id": [1, 2], "item_id": [7, 8], "time": ["2024-01-01"] * 2})
    >>> lists = pl.DataFrame({"user_id": [1, 1, 2], "item_id": [7, 8, 7]})
    >>> found = describe_lists(lists, RetailData.from_frames(bought), k=2)
    >>> found["short"], found["coverage"], round(found["new"], 3)
    (0.5, 1.0, 0.667)
    """
    sizes = lists.group_by(USER_ID).len()["len"]
    pairs = pl.DataFrame(
        {
            "user": row_of_ids(lists[USER_ID], data.users[USER_ID]),
            "item": row_of_ids(lists[ITEM_ID], data.items[ITEM_ID]),
        }
    )
    bought = data.log.select(pl.col("user", "item").cast(pl.Int64)).unique()
    new = pairs.join(bought, on=["user", "item"], how="anti")
    items = lists[ITEM_ID].n_unique()
    return {
        "users": len(sizes),
        "k": k,
        "rows": lists.height,
        "items": items,
        "short": float((sizes < k).mean() or 0),  # type: ignore[arg-type]
        "coverage": items / max(data.n_items, 1),
        "new": new.height / max(lists.height, 1),
    }


def change_of(
    before: pl.DataFrame,
    lists: pl.DataFrame,
    old_model: Callable[..., pl.DataFrame] | None,
    data: RetailData,
    request: Request,
) -> dict[str, Any]:
    """Share of listed items that a user's list of last week did not have, and where that comes from.

    Parameters
    ----------
    old_model : `recommend` of last week's model, where another one made `lists`: what it would list
        from this week's receipts too came from receipts, and the rest from the fit; on some users

    Returns
    -------
    dict with ``users`` that have both lists, ``share``, and its parts ``from_receipts`` (and from
    settings, where they changed) and ``from_refit``
    """
    if before[USER_ID].dtype != lists[USER_ID].dtype or before[ITEM_ID].dtype != lists[ITEM_ID].dtype:
        before, lists = (f.with_columns(pl.col(_PAIR).cast(pl.String)) for f in (before, lists))
    users = before[USER_ID].unique().sort()
    both = lists.filter(pl.col(USER_ID).is_in(users.implode())).select(_PAIR)
    changed = both.join(before.select(_PAIR), on=_PAIR, how="anti")
    share, refit = changed.height / max(both.height, 1), 0.0
    if old_model is not None and changed.height:
        ids = both[USER_ID].unique().sort()
        ids = ids.gather_every(-(-len(ids) // _SAMPLE)).cast(data.users[USER_ID].dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RetailRecWarning)  # that much is new is what is measured
            old = old_model(data, ids, request)
        mine = changed.with_columns(
            pl.col(USER_ID).cast(ids.dtype), pl.col(ITEM_ID).cast(old[ITEM_ID].dtype)
        )
        mine = mine.filter(pl.col(USER_ID).is_in(ids.implode()))
        refit = mine.join(old.select(_PAIR), on=_PAIR, how="anti").height / max(mine.height, 1)
    return {
        "users": both[USER_ID].n_unique(),
        "share": share,
        "from_receipts": share * (1 - refit),
        "from_refit": share * refit,
    }


def check_lists(
    lists: Mapping[str, Any],
    last: Mapping[str, Any] | None,
    change: Mapping[str, Any] | None,
    bounds: ListBounds,
) -> list[Finding]:
    """What is out of bounds; each refuses.

    Parameters
    ----------
    lists, last : of `describe_lists`, this week's and last week's
    change : of `change_of`

    Examples
    --------
    >>> lists = {"users": 10, "items": 5, "short": 0.3, "new": 0.5}
    >>> [found.name for found in check_lists(lists, None, None, ListBounds())]
    ['short_lists']
    """
    said: list[tuple[str, str]] = []
    if last is not None:
        for name, what, bound in (
            ("fewer_users", "users", "users_at_least"),
            ("coverage_fell", "items", "coverage_at_least"),
        ):
            least = getattr(bounds, bound) * last[what]
            if lists[what] < least:
                said.append(
                    (
                        name,
                        f"lists have {lists[what]:,} {what}, last week's {last[what]:,}; {least:,.0f} "
                        f"are asked for (lists.{bound})",
                    )
                )
    if lists["short"] > bounds.short_at_most:
        said.append(
            (
                "short_lists",
                f"{lists['short']:.1%} of the lists are short, {bounds.short_at_most:.1%} are allowed "
                f"(lists.short_at_most)",
            )
        )
    if not bounds.new_at_least <= lists["new"] <= bounds.new_at_most:
        said.append(
            (
                "share_of_new",
                f"{lists['new']:.1%} of the listed items are new to their user, "
                f"{bounds.new_at_least:.1%} to {bounds.new_at_most:.1%} are allowed "
                f"(lists.new_at_least, new_at_most)",
            )
        )
    if change is not None and change["share"] > bounds.change_at_most:
        said.append(
            (
                "lists_changed",
                f"{change['share']:.1%} of the listed items were not in the user's list of last week, "
                f"{bounds.change_at_most:.1%} are allowed (lists.change_at_most)",
            )
        )
    return [Finding(name, "refuse", message + ".") for name, message in said]


@dataclass(frozen=True)
class Judged:
    """What lists were worth, by what was bought after they were made.

    Attributes
    ----------
    since, until : the window
    users : users with history who bought in it; one without a list counts as zero
    models : ``lists``, and what simple counts would have been worth -> metric -> mean
    by_segment : rows of `segment`, `group`, `metric`, `mean`, `n_users`, of the lists
    ratio : precision of the lists over that of own purchases; None where that is 0
    """

    since: str
    until: str
    users: int
    models: dict[str, dict[str, float | None]]
    by_segment: list[dict[str, Any]]
    ratio: float | None

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def judge_lists(lists: pl.DataFrame, data: RetailData, since: datetime, k: int) -> Judged | None:
    """What lists made at `since` were worth until the data ends; None if no user came back."""
    if data.end <= since or data.start >= since:
        return None
    past, bought = Fold(since, data.end).split(data)
    if not len(np.intersect1d(past.active_users(), bought["user"].unique().to_numpy())):
        return None
    judge = Judge.of(past, bought)
    metrics = [f"{name}@{k}" for name in ("precision", "recall", "ndcg", "hit_rate", "money_precision")]
    ranks = lists["rank"].to_numpy() - 1
    row = np.full(data.n_users, -1)
    row[judge.users] = np.arange(len(judge.users))
    user = row_of_ids(lists[USER_ID], data.users[USER_ID])
    place = np.where(user >= 0, row[user], -1)
    codes = np.full((len(judge.users), k), -1, np.int32)
    kept = (place >= 0) & (ranks < k)
    codes[place[kept], ranks[kept]] = row_of_ids(lists[ITEM_ID], data.items[ITEM_ID])[kept]
    values = judge.per_user(codes, metrics)
    models = {"lists": means(values)}
    simple = baselines()
    for name in ("own_purchases", "popular"):
        models[name] = means(judge.per_user(fitted(simple[name], past)(judge.users, k), metrics))
    rows = by_segment(values, segments(past, judge.users))
    mine, own = models["lists"][metrics[0]], models["own_purchases"][metrics[0]]
    return Judged(
        since.isoformat(),
        data.end.isoformat(),
        len(judge.users),
        models,
        rows.to_dicts(),
        mine / own if mine is not None and own else None,
    )

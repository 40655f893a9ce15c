"""Allocation of offers under stock and budget: from scores of pairs to a campaign that can be sent."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import n_threads
from retailrec.errors import DataError
from retailrec.offers.allocation_report import AllocationReport, make_report
from retailrec.offers.arms import HOLDOUT, TREATED, assign_arms
from retailrec.offers.campaign import Campaign, campaign_of
from retailrec.offers.exploration import Explored, exchange_near_ties
from retailrec.offers.ledger import Ledger, ledger_frame, pool_frame
from retailrec.offers.problem import Problem, attribute_of, build_problem, read_pairs
from retailrec.offers.repair import Answer, fewest_missing, repair
from retailrec.offers.shadow_prices import DualProblem, Duals, Prices, solve_duals
from retailrec.work import Work

_FAR = 0.01  # share of the bound that an answer may miss before ties are taken for the reason


@dataclass(frozen=True)
class Allocation:
    """A campaign that can be sent.

    Attributes
    ----------
    offers : `user_id`, `item_id`, `rank` (by value, from 1), `value`, `price`, `expected_cost`,
        `propensity` (chance of the arm times that of the exploring coin); ordered by shopper and rank
    shoppers : `user_id`, `arm` (treated or holdout), `offers` (how many); every shopper of the pairs
    prices : shadow prices, for the online door
    report : figures
    """

    offers: pl.DataFrame
    shoppers: pl.DataFrame
    prices: Prices
    report: AllocationReport

    def ledger_rows(self, time: datetime, *, model: str = "") -> pl.DataFrame:
        """Rows for the ledger: every offer, and one row with rank 0 for who got nothing."""
        shown = self.offers.select(
            "user_id", "item_id", "rank", pl.col("value").alias("score"), "price", "propensity"
        ).with_columns(arm=pl.lit(TREATED), holdout=pl.lit(False))
        nothing = self.shoppers.filter(pl.col("offers") == 0).select(
            "user_id", "arm", rank=pl.lit(0), holdout=pl.col("arm") == HOLDOUT
        )
        rows = pl.concat([shown, nothing], how="diagonal_relaxed").with_columns(
            campaign=pl.lit(self.report.campaign), time=pl.lit(time), model=pl.lit(model)
        )
        return ledger_frame(rows.sort("user_id", "rank"))

    def meant(self, pairs: Any, campaign: Campaign, time: datetime, items: Any = None) -> pl.DataFrame:
        """Offers that were meant for every shopper, held out or not, in the columns of `POOL`.

        Meant are the pairs that are worth more than the campaign's prices, the best `at_most` of each
        shopper: a rule that does not look at arms, so that those held out tell what treated ones would
        have bought without the campaign. `shown` says who was treated (intention to treat).

        Parameters
        ----------
        pairs, campaign, items : as for `allocate`
        """
        frame = read_pairs(pairs, campaign, items)
        price = self.prices.price_of(frame["item_id"], frame["cost"].to_numpy())
        frame = frame.with_columns(over=pl.Series(frame["value"].to_numpy() - price))
        frame = frame.filter(pl.col("over") > 0).sort(
            "user_id", "over", "item_id", descending=[False, True, False]
        )
        if campaign.offers.at_most is not None:
            frame = frame.group_by("user_id", maintain_order=True).head(campaign.offers.at_most)
        name = f"{self.report.campaign} {time.isoformat()} "
        rows = frame.join(
            self.shoppers.select("user_id", "arm"), on="user_id", maintain_order="left"
        ).with_columns(
            pl.col("user_id", "item_id").cast(pl.String),
            request=pl.lit(name) + pl.col("user_id").cast(pl.String),
            time=pl.lit(time),
            policy=pl.lit(self.report.campaign),
            score=pl.col("value"),
            propensity=pl.lit(1 - campaign.holdout),
            shown=pl.col("arm") != HOLDOUT,
            rank=pl.int_range(1, pl.len() + 1).over("user_id"),
            pool=pl.len().over("user_id"),
        )
        return pool_frame(rows)


def allocate(
    pairs: Any,
    campaign: Campaign | Mapping[str, Any],
    *,
    items: Any = None,
    users: Any = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
    threads: int = 0,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Allocation:
    """The offers of greatest value that keep a campaign's bounds, by shadow prices and repair.

    Upper bounds (numbers, stocks, budgets, exclusions, caps) are never broken. Minima hold where that
    is possible; otherwise they give way, and the report says which, by how much and against what.

    Parameters
    ----------
    pairs : frame of `user_id`, `item_id` and the columns of the campaign's value; see `read_pairs`
    campaign : settings, or a dictionary of them
    items, users : attributes that the campaign speaks of; see `build_problem`
    ledger, now : past offers and the time of this campaign; needed by caps. A shopper who stands in the
        ledger for this campaign makes it an error, unless the campaign says `again`
    threads : 0 is all cores; the answer does not depend on it
    checkpoint : folder for the search's state; a call that was cut off goes on from it

    Raises
    ------
    DataError, SettingError
        If the input can't be used; nothing is written then.

    Examples
    --------
    >>> pairs = pl.DataFrame({"user_id": [1, 1, 2], "item_id": ["tea", "rye", "tea"],
    ...                       "value": [3.0, 2.0, 4.0]})
    >>> found = allocate(pairs, {"name": "may", "limit": [{"by": "product", "at_most": 1}]})
    >>> found.offers.select("user_id", "item_id").rows()
    [(1, 'rye'), (2, 'tea')]
    >>> found.report.value
    6.0
    """
    started = perf_counter()
    if not isinstance(campaign, Campaign):
        campaign = campaign_of(dict(campaign))
    progress("read pairs")
    frame = read_pairs(pairs, campaign, items)
    _refuse_repeat(campaign, ledger, frame["user_id"])
    shoppers = _assign(frame["user_id"].unique(maintain_order=True), campaign, users, ledger)
    frame = frame.join(
        shoppers.filter(pl.col("arm") == TREATED), on="user_id", how="semi", maintain_order="left"
    )
    if frame.is_empty():
        raise DataError(
            f"campaign: all {shoppers.height:,} shoppers are held out, so nobody is left to get an "
            f"offer. Lower the holdout share or bring more shoppers."
        )
    problem = build_problem(frame, campaign, items=items, users=users, ledger=ledger, now=now)
    del frame
    dual, duals, answer, proven = _solve(problem, campaign, threads, checkpoint, progress)
    explored = exchange_near_ties(
        dual, answer, campaign.explore, campaign.near_tie, salt=f"{campaign.name} {campaign.salt}"
    )
    offers = _offers_frame(dual, duals, explored, campaign.holdout)
    return Allocation(
        offers=offers,
        shoppers=_with_counts(shoppers, offers),
        prices=_prices(dual, duals, campaign),
        report=make_report(
            campaign,
            dual,
            duals,
            answer,
            explored,
            offers,
            shoppers,
            proven,
            perf_counter() - started,
        ),
    )


def _refuse_repeat(campaign: Campaign, ledger: Ledger | None, users: pl.Series) -> None:
    if ledger is None or campaign.again:
        return
    had = ledger.read([campaign.name])["user_id"].unique()
    again = users.unique().cast(pl.String).implode().list.set_intersection(had.implode())[0].sort()
    if len(again):
        raise DataError(
            f"campaign '{campaign.name}': {len(again):,} shoppers stand in the ledger for it already, "
            f"such as {again[0]}; a shopper gets a campaign once. Name the campaign anew, leave them "
            f"out, or set again = true."
        )


def _assign(ids: pl.Series, campaign: Campaign, users: Any, ledger: Ledger | None) -> pl.DataFrame:
    """`user_id` and `arm` of every shopper: the arm that the ledger has for the campaign, or drawn."""
    if not campaign.holdout:
        return pl.DataFrame({"user_id": ids, "arm": pl.repeat(TREATED, len(ids), eager=True)})
    strata = None
    if campaign.strata is not None:
        strata = attribute_of(campaign.strata, users, ids)
    shares = {TREATED: 1 - campaign.holdout, HOLDOUT: campaign.holdout}
    arms = assign_arms(ids, shares, salt=campaign.salt or campaign.name, strata=strata)
    drawn = pl.DataFrame({"user_id": ids, "text": ids.cast(pl.String), "arm": arms})
    if ledger is None or not campaign.again:
        return drawn.drop("text")
    recorded = ledger.read([campaign.name]).group_by(text="user_id").agg(held=pl.col("holdout").any())
    arm = pl.when("held").then(pl.lit(HOLDOUT)).otherwise(pl.lit(TREATED))
    return drawn.join(recorded, on="text", how="left", maintain_order="left").select(
        "user_id", arm=pl.when(pl.col("held").is_null()).then("arm").otherwise(arm)
    )


def _solve(
    problem: Problem,
    campaign: Campaign,
    threads: int,
    checkpoint: Path | None,
    progress: Progress,
) -> tuple[DualProblem, Duals, Answer, bool | None]:
    """Prices and a whole answer; minima that can't be met are lowered to what was reached."""
    asked = DualProblem(problem, problem.lower, problem.upper, problem.least, n_threads(threads))
    if checkpoint is None:
        duals, answer = _search(asked, None, lambda state: None, progress)
    else:
        with Work.held(checkpoint, _key(problem, campaign)) as work:
            kept = work.facts("state")
            duals, answer = _search(
                asked,
                None if kept is None else Duals.of(kept),
                lambda state: work.finish("state", state.as_facts()),
                progress,
            )
    if not answer.shortfall:
        return asked, duals, answer, None
    progress("minima that can't be met")
    exact = fewest_missing(asked)
    proven = exact is not None
    if exact is not None and exact.shortfall <= answer.shortfall:
        answer = exact if exact.shortfall < answer.shortfall or exact.value > answer.value else answer
    if not answer.shortfall:
        return asked, duals, answer, None
    lower = np.where(answer.missing > 0, answer.total, asked.lower)
    least = np.minimum(asked.least, answer.taken).astype(np.int32)
    lowered = DualProblem(problem, lower, asked.upper, least, asked.threads)
    duals, again = _search(lowered, lowered.start(duals.best))
    if not again.shortfall and again.value > answer.value:
        answer = again
    return lowered, duals, answer, proven


def _search(
    dual: DualProblem,
    start: Duals | None,
    checkpoint: Callable[[Duals], None] = lambda state: None,
    progress: Progress = silent,
) -> tuple[Duals, Answer]:
    """Prices of the least bound, and the best answer; ties are set apart where the two don't meet."""
    duals = solve_duals(dual, start, checkpoint=checkpoint, progress=progress)
    progress("repair")
    answer = repair(dual, duals.best)
    if not answer.shortfall and duals.bound - answer.value <= _FAR * abs(duals.bound):
        return duals, answer
    progress("ties")
    other = solve_duals(replace(dual, apart=True), steps=60, progress=progress)
    again = repair(dual, other.best)
    other.step += duals.step
    return (
        min(duals, other, key=lambda d: d.bound),
        min(answer, again, key=lambda a: (a.shortfall, -a.value)),
    )


def _key(problem: Problem, campaign: Campaign) -> str:
    """Hex digits that stand for all that the search depends on."""
    digest = hashlib.sha256(campaign.model_dump_json().encode())
    arrays = (
        problem.indptr,
        problem.item,
        problem.value,
        problem.cost,
        problem.most,
        problem.least,
        problem.lower,
        problem.upper,
        problem.of_indptr,
        problem.of_constraint,
        problem.local_indptr,
        problem.local_group,
        problem.local_cap,
    )
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _pair_prices(dual: DualProblem, duals: Duals) -> NDArray[np.float64]:
    offer, cost = dual.item_prices(duals.best)
    return offer[dual.problem.item] + cost[dual.problem.item] * dual.problem.cost


def _offers_frame(dual: DualProblem, duals: Duals, explored: Explored, holdout: float) -> pl.DataFrame:
    problem = dual.problem
    places = np.flatnonzero(explored.chosen)
    user = np.searchsorted(problem.indptr, places, "right") - 1
    frame = pl.DataFrame(
        {
            "user_id": problem.user_ids.gather(user),
            "item_id": problem.item_ids.gather(problem.item[places]),
            "value": problem.value[places],
            "price": _pair_prices(dual, duals)[places],
            "expected_cost": problem.cost[places],
            "propensity": explored.propensity[places] * (1 - holdout),
        }
    )
    frame = frame.sort("user_id", "value", "item_id", descending=[False, True, False])
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id")
    return frame.with_columns(rank=rank).select(
        "user_id", "item_id", "rank", "value", "price", "expected_cost", "propensity"
    )


def _with_counts(shoppers: pl.DataFrame, offers: pl.DataFrame) -> pl.DataFrame:
    counts = offers.group_by("user_id").agg(offers=pl.len().cast(pl.Int32))
    joined = shoppers.join(counts, on="user_id", how="left", maintain_order="left")
    return joined.with_columns(pl.col("offers").fill_null(0))


def _prices(dual: DualProblem, duals: Duals, campaign: Campaign) -> Prices:
    names = dual.problem.item_ids.cast(pl.String).to_list()
    offer, cost = dual.item_prices(duals.best)
    of_cost = {name: float(price) for name, price in zip(names, cost, strict=True) if price}
    of_offer = dict(zip(names, offer.tolist(), strict=True))
    return Prices(campaign.name, campaign.value, of_offer, of_cost)

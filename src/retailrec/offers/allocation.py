"""Allocation of offers under stock and budget: from scores of pairs to a campaign that can be sent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl

from retailrec.components import Threads, checked
from retailrec.compute.csr import row_of_pair
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import n_threads
from retailrec.data.parsing import as_instant
from retailrec.errors import DataError
from retailrec.offers.arms import HOLDOUT, TREATED, assign_arms
from retailrec.offers.campaign import Campaign, campaign_of
from retailrec.offers.exploration import Explored, exchange_near_ties
from retailrec.offers.ledger import Ledger, ledger_frame, pool_frame
from retailrec.offers.problem import (
    SLACK,
    Constraint,
    Problem,
    alike_in_ledger,
    attribute_of,
    build_problem,
    read_pairs,
)
from retailrec.offers.repair import (
    MOST_PAIRS,
    SURE,
    Answer,
    answer_of,
    fewest_missing,
    left_at_half_price,
    relaxed,
    repair,
)
from retailrec.offers.shadow_prices import DualProblem, Duals, Floats, Prices, solve_duals
from retailrec.work import Work

_FAR = 0.01  # share of the bound that an answer may miss before ties are taken for the reason


@dataclass(frozen=True)
class ConstraintReport:
    """What became of one constraint.

    Attributes
    ----------
    name : such as ``product 17`` or ``the budget``
    kind : ``limit`` (offers are counted) or ``budget`` (expected cost is added up)
    at_least, at_most : its bounds; None where there is none
    reached : offers or expected cost
    missing : offers by which a minimum gave way
    price : what one more offer (or unit of money) would bring; negative: what the minimum costs
    words : the price and what gave way, in words
    """

    name: str
    kind: str
    at_least: float | None
    at_most: float | None
    reached: float
    missing: float
    price: float
    words: str


@dataclass(frozen=True)
class AllocationReport:
    """Figures of an allocation.

    Attributes
    ----------
    campaign : its name
    value : sum of what the offers are worth
    bound : no answer that keeps the same bounds is worth more (the Lagrangian dual, or the linear or
        integer program where that is less)
    gap : (bound - value) / |bound|; 0 if both are 0
    n_pairs, n_items : pairs and items that could be offered, holdouts left out
    n_shoppers, n_held_out, n_with_offers, n_offers : numbers
    expected_cost : cost x redemption probability, added up; 0 without a budget
    constraints : one a constraint
    minima_given_way : offers missing to all minima, of constraints and of shoppers
    shoppers_short : shoppers who got fewer offers than they must
    proven : could no answer have missed fewer? None if no minimum gave way
    notes : sentences on what gave way and why
    n_couples, n_swapped : couples of near ties, and how many exchanged
    steps, seconds : of the search for prices, and all in all
    """

    campaign: str
    value: float
    bound: float
    gap: float
    n_pairs: int
    n_items: int
    n_shoppers: int
    n_held_out: int
    n_with_offers: int
    n_offers: int
    expected_cost: float
    constraints: tuple[ConstraintReport, ...]
    minima_given_way: int
    shoppers_short: int
    proven: bool | None
    notes: tuple[str, ...]
    n_couples: int
    n_swapped: int
    steps: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """All figures, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Allocation:
    """A campaign that can be sent.

    Attributes
    ----------
    offers : `user_id`, `item_id`, `rank` (by value, from 1), `value`, `price`, `expected_cost`,
        `propensity` (chance of the arm times that of the exploring coin); ordered by shopper and rank
    shoppers : `user_id`, `arm` (treated or holdout), `offers` (how many); every shopper of the pairs
    prices : shadow prices, for the service
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
            campaign=pl.lit(self.report.campaign),
            time=pl.lit(as_instant(time, who="time")),
            model=pl.lit(model),
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
        time, frame = as_instant(time, who="time"), read_pairs(pairs, campaign, items)
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


@checked
def allocate(
    pairs: Any,
    campaign: Campaign | Mapping[str, Any],
    *,
    items: Any = None,
    users: Any = None,
    ledger: Ledger | None = None,
    now: datetime | None = None,
    threads: Threads = 0,
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
    alike = [] if ledger is None else alike_in_ledger(campaign, ledger, frame)
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
    problem = replace(problem, notes=(*alike, *problem.notes))
    del frame
    solved = _solve(problem, campaign, threads, checkpoint, progress)
    dual, duals, answer, _ = solved
    salt = f"{campaign.name} {campaign.salt}"
    explored = exchange_near_ties(dual, answer, campaign.explore, campaign.near_tie, salt=salt)
    prices = dual.item_prices(duals.best)
    offers = _offers_frame(problem, prices, explored, campaign.holdout)
    names = problem.item_ids.cast(pl.String).to_list()
    of_offer, of_cost = (dict(zip(names, price.tolist(), strict=True)) for price in prices)
    of_cost = {name: price for name, price in of_cost.items() if price}
    counts = offers.group_by("user_id").agg(offers=pl.len().cast(pl.Int32))
    counted = shoppers.join(counts, on="user_id", how="left", maintain_order="left")
    return Allocation(
        offers,
        counted.with_columns(pl.col("offers").fill_null(0)),
        Prices(campaign.name, campaign.value, of_offer, of_cost),
        _report(campaign, solved, explored, offers, shoppers, perf_counter() - started),
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
    problem: Problem, campaign: Campaign, threads: int, checkpoint: Path | None, progress: Progress
) -> tuple[DualProblem, Duals, Answer, bool | None]:
    """Prices and a whole answer; minima that can't be met are lowered to what was reached."""
    asked = DualProblem(problem, problem.lower, problem.upper, problem.least, n_threads(threads))
    if checkpoint is None:
        duals, answer = _search(asked, None, lambda state: None, progress)
    else:
        with Work.held(checkpoint, _key(problem, campaign)) as work:
            kept = work.facts("state")
            start = None if kept is None else Duals.of(kept)
            duals, answer = _search(
                asked, start, lambda state: work.finish("state", state.as_facts()), progress
            )
    if not answer.shortfall:
        return asked, duals, answer, None
    progress("minima that can't be met")
    exact = fewest_missing(asked)
    proven = exact is not None
    if exact is not None and exact.shortfall <= answer.shortfall:
        answer = exact if exact.shortfall < answer.shortfall or exact.value > answer.value else answer
    if not answer.shortfall:
        _tighten(duals, answer)
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
    """Prices of the least bound, and the best answer; where they don't meet, those of HiGHS as well.

    They don't where the answer is far from the bound, or what little it misses is mostly of offers that
    were left out at less than half of what they are worth: where many tie, no price would say it.
    """
    duals = solve_duals(dual, start, checkpoint=checkpoint, progress=progress)
    progress("repair")
    answer = repair(dual, duals.best)
    near = not answer.shortfall and duals.bound - answer.value <= _FAR * abs(duals.bound)
    if near and 2 * left_at_half_price(dual, duals.best, answer) <= duals.bound - answer.value:
        return duals, answer
    progress("ties")
    if (found := relaxed(dual)) is not None:
        prices, shares = found
        bound = dual.evaluate(prices, duals.near)[0]
        if bound < duals.bound:
            duals.bound, duals.best = bound, prices
        others = [repair(dual, prices)] + ([] if shares is None else [repair(dual, prices, shares)])
        answer = min([answer, *others], key=lambda a: (a.shortfall, -a.value))
    if not answer.shortfall and duals.bound - answer.value > _FAR * abs(duals.bound):
        exact = fewest_missing(dual)  # where a bound is as small as a few offers, all must be whole
        if exact is not None and not exact.shortfall:
            _tighten(duals, exact)
            answer = max(answer, exact, key=lambda a: a.value)
    return duals, answer


def _tighten(duals: Duals, proven: Answer) -> None:
    """Bring the bound down to what the integer program leaves open above its answer."""
    duals.bound = min(duals.bound, proven.value + SURE * abs(proven.value))


def _key(problem: Problem, campaign: Campaign) -> str:
    """Hex digits that stand for all that the search depends on."""
    digest = hashlib.sha256(campaign.model_dump_json().encode())
    arrays = [value for value in vars(problem).values() if isinstance(value, np.ndarray)]
    for array in (*arrays, problem.lower, problem.upper):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _offers_frame(
    problem: Problem, prices: tuple[Floats, Floats], explored: Explored, holdout: float
) -> pl.DataFrame:
    places = np.flatnonzero(explored.chosen)
    item, (of_offer, of_cost) = problem.item[places], prices
    user = np.searchsorted(problem.indptr, places, "right") - 1
    frame = pl.DataFrame(
        {
            "user_id": problem.user_ids.gather(user),
            "item_id": problem.item_ids.gather(item),
            "value": problem.value[places],
            "price": of_offer[item] + of_cost[item] * problem.cost[places],
            "expected_cost": problem.cost[places],
            "propensity": explored.propensity[places] * (1 - holdout),
        }
    )
    frame = frame.sort("user_id", "value", "item_id", descending=[False, True, False])
    rank = pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("user_id")
    return frame.with_columns(rank=rank).select("user_id", "item_id", "rank", *frame.columns[2:])


def _report(
    campaign: Campaign,
    solved: tuple[DualProblem, Duals, Answer, bool | None],
    explored: Explored,
    offers: pl.DataFrame,
    shoppers: pl.DataFrame,
    seconds: float,
) -> AllocationReport:
    """Figures of a finished allocation, and a note on whatever could not be kept to."""
    dual, duals, answer, proven = solved
    problem = dual.problem
    sent = answer_of(dual, explored.chosen)
    bound = max(duals.bound, sent.value)  # sums in another order differ in their last digit
    constraints, notes = [], list(problem.notes)
    left = _left_out(problem, answer)
    for k, c in enumerate(problem.constraints):
        missing = max(c.at_least - answer.total[k], 0.0)
        because = why_missing(problem, k, answer) if missing else ""
        price = float(duals.best[k])
        if price > 0 and not _keeps_out(c, left[c.is_cost], answer.total[k]):
            price = 0.0  # where everything fits any price up to some value is optimal
        words = in_words(c, price, missing, because)
        if missing:
            notes.append(words)
        constraints.append(
            ConstraintReport(
                name=c.name,
                kind="budget" if c.is_cost else "limit",
                at_least=None if np.isinf(c.at_least) else c.at_least,
                at_most=None if np.isinf(c.at_most) else c.at_most,
                reached=float(sent.total[k]),
                missing=float(missing),
                price=price,
                words=words,
            )
        )
    short = problem.least - answer.taken
    if problem.short_of_candidates:
        notes.append(
            f"{problem.short_of_candidates:,} shoppers have fewer pairs than the offers they must get; "
            f"they must get as many as they have."
        )
    if (short > 0).any():
        notes.append(
            f"{int((short > 0).sum()):,} shoppers got fewer offers than they must: the upper bounds of "
            f"products and budgets leave no more."
        )
    given_way = int(sum(c.missing for c in constraints) + np.maximum(short, 0).sum())
    if given_way:
        notes.append(
            "No answer misses fewer offers to minima than this one (proven)."
            if proven
            else "That no answer misses fewer offers to minima is not proven: "
            + (
                "there are too many pairs."
                if len(problem.item) > MOST_PAIRS
                else "the search ended early."
            )
        )
    return AllocationReport(
        campaign=campaign.name,
        value=sent.value,
        bound=bound,
        gap=(bound - sent.value) / abs(bound) if bound else 0.0,
        n_pairs=len(problem.item),
        n_items=problem.n_items,
        n_shoppers=shoppers.height,
        n_held_out=int((shoppers["arm"] == HOLDOUT).sum()),
        n_with_offers=offers["user_id"].n_unique(),
        n_offers=offers.height,
        expected_cost=float(problem.ticks[explored.chosen].sum() / problem.per_unit),
        constraints=tuple(constraints),
        minima_given_way=given_way,
        shoppers_short=int((short > 0).sum()),
        proven=proven if given_way else None,
        notes=tuple(notes),
        n_couples=explored.n_couples,
        n_swapped=explored.n_swapped,
        steps=duals.step,
        seconds=seconds,
    )


def report_json(report: AllocationReport) -> str:
    """The report as JSON text."""
    return json.dumps(report.as_dict(), indent=2, allow_nan=False) + "\n"


def in_words(constraint: Constraint, price: float, missing: float = 0.0, because: str = "") -> str:
    """What a constraint's price means, or that it gave way.

    Examples
    --------
    >>> tea = Constraint("product tea", False, 5.0, 9.0, np.array([0], np.int32))
    >>> in_words(tea, 0.07)
    'One more offer of product tea would bring 0.07.'
    >>> in_words(tea, -0.2)
    'The last offer of product tea that is asked for costs 0.2.'
    """
    what = constraint.name
    of = "one more offer" if what == "everything" else f"one more offer of {what}"
    if missing:
        return (
            f"{what} must get {constraint.at_least:,.0f} offers and got "
            f"{constraint.at_least - missing:,.0f}: {because}."
        )
    if not price:
        return (
            f"{what} does not bind: {'more money' if constraint.is_cost else of} would bring nothing."
        )
    if constraint.is_cost:
        return f"One more unit of money in {what} would bring {price:,.3g}."
    if price > 0:
        return f"{of[0].upper()}{of[1:]} would bring {price:,.3g}."
    last = "The last offer" if what == "everything" else f"The last offer of {what}"
    return f"{last} that is asked for costs {-price:,.3g}."


def _left_out(problem: Problem, answer: Answer) -> tuple[Floats, Floats]:
    """(n_items,) each: 1, and the largest cost, of pairs worth something that were left out; else 0."""
    left = ~answer.chosen & (problem.value > 0)
    offers, costs = np.zeros(problem.n_items), np.zeros(problem.n_items)
    offers[problem.item[left]] = 1
    np.maximum.at(costs, problem.item[left], problem.cost[left])
    return offers, costs


def _keeps_out(constraint: Constraint, left: Floats, total: float) -> bool:
    """Has the upper bound no room for a pair that was left out?"""
    amount = left[constraint.items].max(initial=0.0)
    return bool(amount and total + amount > constraint.at_most * (1 + SLACK))


def why_missing(problem: Problem, k: int, answer: Answer) -> str:
    """What stands against a minimum: too few pairs, or the bound that blocks most of its pairs."""
    inside = np.isin(problem.item, problem.constraints[k].items)
    user = row_of_pair(problem.indptr)
    could = np.minimum(np.bincount(user[inside], minlength=problem.n_users), problem.most)
    if could.sum() < problem.constraints[k].at_least:
        return f"the pairs allow {int(could.sum()):,} at most"
    free = inside & ~answer.chosen
    blocked: dict[str, int] = {}
    full = answer.taken >= problem.most
    if n := int(full[user[free]].sum()):
        blocked["the offers a shopper may get, which other minima take"] = n
    for other, constraint in enumerate(problem.constraints):
        if other == k or not np.isfinite(constraint.at_most):
            continue
        room = constraint.at_most * (1 + SLACK) - answer.total[other]
        amount = problem.cost[free] if constraint.is_cost else np.ones(int(free.sum()))
        if n := int((np.isin(problem.item[free], constraint.items) & (amount > room)).sum()):
            what = constraint.name if constraint.is_cost else f"the limit of {constraint.name}"
            blocked[f"{what} ({constraint.at_most:,.10g} at most)"] = n
    if not blocked:
        return "exclusions and minima of shoppers leave no more"
    return f"{max(blocked, key=lambda name: blocked[name])} stands against it"

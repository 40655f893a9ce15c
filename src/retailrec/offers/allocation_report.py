"""Figures of an allocation: value and bound, what each constraint reached and costs, what gave way."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from retailrec.compute.csr import row_of_pair
from retailrec.compute.statistics import Floats
from retailrec.offers.arms import HOLDOUT
from retailrec.offers.campaign import Campaign
from retailrec.offers.exploration import Explored
from retailrec.offers.problem import SLACK, Constraint, Problem
from retailrec.offers.repair import Answer, answer_of
from retailrec.offers.shadow_prices import DualProblem, Duals


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
    bound : no answer that keeps the same bounds is worth more (the Lagrangian dual)
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


def make_report(
    campaign: Campaign,
    dual: DualProblem,
    duals: Duals,
    answer: Answer,
    explored: Explored,
    offers: pl.DataFrame,
    shoppers: pl.DataFrame,
    proven: bool | None,
    seconds: float,
) -> AllocationReport:
    """Figures of a finished allocation, and a note on whatever could not be kept to.

    Parameters
    ----------
    campaign : what was asked for
    dual, duals : the problem and the prices of its constraints
    answer, explored : pairs after repair, and those that exploration left
    offers, shoppers : tables that go with the figures
    proven : whether no answer could have missed fewer; None if no minimum gave way
    seconds : time that the allocation took
    """
    problem = dual.problem
    sent = answer_of(dual, explored.chosen)
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
            else "That no answer misses fewer offers to minima is not proven for so many pairs."
        )
    return AllocationReport(
        campaign=campaign.name,
        value=sent.value,
        bound=duals.bound,
        gap=(duals.bound - sent.value) / abs(duals.bound) if duals.bound else 0.0,
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

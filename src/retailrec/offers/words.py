"""Prices of constraints, and what gave way, in words."""

from __future__ import annotations

import numpy as np

from retailrec.compute.pairs import row_of_pair
from retailrec.offers.constraints import Constraint
from retailrec.offers.problem import SLACK, Problem
from retailrec.offers.repair import Answer


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

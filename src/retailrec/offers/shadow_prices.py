"""Shadow prices of a campaign's constraints: the Lagrangian dual, by damped Newton steps over shards.

Each constraint has a price; at given prices every shopper takes what is worth more than it costs, which
is a sort of a short row. The value of that, plus what the bounds are worth at these prices, is an upper
bound of every feasible answer (weak duality), whatever the prices are. Demand falls in steps when a
price rises; with thousands of shoppers the steps are small, so counting the pairs that stand near their
step gives a slope, and a Newton step per constraint. Limits of single products share no pair, so they
are eliminated from the system first; what is left is as large as there are suppliers, categories and
budgets (Schur complement). `Prices` keeps them for the service, where what is worth more is shown.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import map_shards
from retailrec.data.parsing import typed_ids
from retailrec.errors import ArtifactError, DataError
from retailrec.offers import kernels
from retailrec.offers.problem import Problem
from retailrec.work import write_text

_FORMAT = "retailrec prices 1"


@dataclass(frozen=True)
class Prices:
    """What an offer of each item must be worth to be shown.

    Attributes
    ----------
    campaign : name of the campaign
    value : what offers are worth there, such as ``probability_margin``
    of_offer : item id as text -> price of one offer, negative where a minimum asks for offers
    of_cost : item id as text -> price of one unit of expected cost, from budgets

    Examples
    --------
    >>> prices = Prices("may", "value", {"7": 0.2}, {"7": 1.5})
    >>> prices.price_of([7, 8], expected_cost=[0.1, 0.1]).round(2).tolist()
    [0.35, inf]
    >>> prices.shows([7, 7], value=[0.3, 0.4], expected_cost=[0.1, 0.1]).tolist()
    [False, True]
    """

    campaign: str
    value: str
    of_offer: Mapping[str, float]
    of_cost: Mapping[str, float]

    def price_of(
        self, items: Sequence[object] | pl.Series, expected_cost: ArrayLike = 0.0
    ) -> NDArray[np.float64]:
        """(n,) price of an offer of each item; infinite for an item that is not in the campaign.

        Parameters
        ----------
        expected_cost : cost x redemption probability of each offer; needed if there is a budget

        Raises
        ------
        DataError
            If an expected cost is negative or not finite, or there are not as many as items.
        """
        ids = items if isinstance(items, pl.Series) else pl.Series("item_id", items, strict=False)
        names = typed_ids(ids).cast(pl.String).to_list()
        cost = np.asarray(expected_cost, float)
        if not (np.isfinite(cost) & (cost >= 0)).all() or cost.shape not in ((), (len(names),)):
            raise DataError(
                f"prices: expected_cost must be finite, 0 or more, and one a item ({len(names)}), "
                f"got shape {cost.shape}. Correct it."
            )
        offer = np.array([self.of_offer.get(name, math.inf) for name in names], float)
        return offer + np.array([self.of_cost.get(name, 0.0) for name in names], float) * cost

    def shows(
        self, items: Sequence[object] | pl.Series, value: ArrayLike, expected_cost: ArrayLike = 0.0
    ) -> NDArray[np.bool_]:
        """(n,) whether each offer's value is above its price; NaN never is.

        Raises
        ------
        DataError
            If an expected cost is negative or not finite, or there are not as many, or not as many
            values, as items.
        """
        price, worth = self.price_of(items, expected_cost), np.asarray(value, float)
        if worth.shape != price.shape:
            raise DataError(
                f"prices: value must be one a item ({len(price)}), got shape {worth.shape}. Correct it."
            )
        return worth > price

    def save(self, path: Path) -> None:
        """Write as JSON, in one step."""
        text = json.dumps({"format": _FORMAT} | asdict(self), indent=1, allow_nan=False)
        write_text(text + "\n", path)

    @staticmethod
    def load(path: Path) -> Prices:
        """Prices from a file that `save` wrote.

        Raises
        ------
        ArtifactError
            If the file is missing or holds something else.
        """
        try:
            return _prices_in(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(
                f"{path} holds no prices of a campaign ({error}). Write it with "
                f"`retailrec allocate` or Prices.save."
            ) from error


def _prices_in(content: Any) -> Prices:
    """Prices of what the file holds; any of several errors if it holds something else."""
    if content["format"] != _FORMAT:
        raise ValueError(f"format {content['format']!r}, expected {_FORMAT!r}")
    maps = [
        {str(item): float(price) for item, price in content[name].items()}
        for name in ("of_offer", "of_cost")
    ]
    if not all(math.isfinite(price) for prices in maps for price in prices.values()):
        raise ValueError("a price is no finite number")
    return Prices(str(content["campaign"]), str(content["value"]), *maps)


SHARD_USERS = 8_192  # part of the sums' order, so it is no setting
MOST_COARSE = 1_500  # constraints that are solved together; beyond that each by itself
Floats = NDArray[np.float64]


@dataclass
class Duals:
    """Prices found so far, and where the search stands."""

    prices: Floats  # (n_constraints,) of one more of each; negative for a minimum that binds
    best: Floats  # those at the best bound
    bound: float  # least upper bound of every feasible answer
    near: float
    damping: float
    step: int
    bounds: list[float]  # after every step

    def as_facts(self) -> dict[str, Any]:
        """The state as JSON holds it: every number comes back to the last bit."""
        return vars(self) | {"prices": self.prices.tolist(), "best": self.best.tolist()}

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Duals:
        """The state that `as_facts` gave."""
        arrays = {name: np.array(facts[name], float) for name in ("prices", "best")}
        return cls(**{**facts, **arrays})


@dataclass
class DualProblem:
    """A problem's dual function and its steps."""

    problem: Problem
    lower: Floats  # (n_constraints,) bounds, which a repair may have lowered
    upper: Floats
    least: NDArray[np.int32]  # (n_users,) offers a shopper must get
    threads: int = 1  # shards at a time; the answer does not depend on it

    def __post_init__(self) -> None:
        problem = self.problem
        worth = np.abs(problem.value)
        self.scale = float(worth.mean()) or 1.0
        self.penalty = 4 * float(worth.max()) + self.scale
        self.is_cost = problem.is_cost
        self.mean_cost = float(problem.cost.mean()) or 1.0
        single = np.array([not c.is_cost and len(c.items) == 1 for c in problem.constraints], bool)
        self.fine = np.flatnonzero(single)  # at most one an item: bounds of one thing are joined
        self.coarse = np.flatnonzero(~single)
        self.fine_item = np.array([problem.constraints[k].items[0] for k in self.fine], np.int64)
        local = (problem.local_indptr, problem.local_group, problem.local_cap)
        pairs = (problem.indptr, problem.item, problem.value, problem.cost)
        self.rows = kernels.Rows(*pairs, problem.most, self.least, *local)
        self.counts = problem.counts

    def item_prices(self, prices: Floats) -> tuple[Floats, Floats]:
        """(n_items,) price of an offer and of a unit of its cost: its constraints' prices added up."""
        of_cost = np.where(self.is_cost, prices, 0.0)
        return self.counts.T @ (prices - of_cost), self.counts.T @ of_cost

    def evaluate(self, prices: Floats, near: float) -> tuple[float, Floats]:
        """The bound at these prices, and the (5, n_items) demand of `kernels.demand_at_prices`."""
        problem, rows = self.problem, self.rows
        offer, cost = self.item_prices(prices)
        at = kernels.Prices(offer, cost, self.penalty)

        def shard(users: slice) -> tuple[float, Floats]:
            part = np.zeros((5, problem.n_items))
            net = kernels.demand_at_prices(users.start, users.stop, rows, at, near, part)
            return net, part

        total, demand = 0.0, np.zeros((5, problem.n_items))
        for net, part in map_shards(shard, problem.n_users, size=SHARD_USERS, threads=self.threads):
            total += net
            demand += part
        with np.errstate(invalid="ignore"):
            worth = np.where(prices > 0, prices * self.upper, prices * self.lower)
        return total + float(worth[prices != 0].sum()), demand

    def start(self, prices: Floats | None = None) -> Duals:
        """The state before the first step."""
        first = np.zeros(len(self.lower)) if prices is None else self.allowed(prices)
        return Duals(first, first.copy(), np.inf, self.scale, 1.0, 0, [])

    def allowed(self, prices: Floats) -> Floats:
        """Prices with the sign that their bounds allow, and minima no dearer than the penalty."""
        low = np.where(np.isfinite(self.lower), -self.penalty, 0.0)
        high = np.where(np.isfinite(self.upper), np.inf, 0.0)
        return np.clip(prices, low, high)

    def advance(self, state: Duals) -> None:
        """One step: the bound at the present prices, then the next prices."""
        bound, demand = self.evaluate(state.prices, state.near)
        state.bounds.append(bound)
        if bound < state.bound:
            state.bound, state.best = bound, state.prices.copy()
        change = self._newton(self._excess(state.prices, demand), demand, state.near)
        limit = 2 * state.near / np.where(self.is_cost, self.mean_cost, 1.0)
        new = state.prices + state.damping * np.clip(change, -limit, limit)
        crossed = state.prices * new < 0  # from a maximum that binds to a minimum: stop in between
        state.prices = self.allowed(np.where(crossed, 0.0, new))
        far = bool((np.abs(change[self.coarse]) > limit[self.coarse]).any())
        state.step += 1
        if state.step > 3 and not (far and state.step < 25):
            state.near = max(state.near * 0.75, 0.005 * self.scale)
            state.damping = max(state.damping * 0.93, 0.25)

    def _excess(self, prices: Floats, demand: Floats) -> Floats:
        """Demand beyond the bound that a price stands for; 0 where no bound is touched."""
        total = np.where(self.is_cost, self.counts @ demand[1], self.counts @ demand[0])
        over, under = total - self.upper, total - self.lower
        free = np.where(over > 0, over, np.where(under < 0, under, 0.0))
        excess: Floats = np.where(prices > 0, over, np.where(prices < 0, under, free))
        return excess

    def _newton(self, excess: Floats, demand: Floats, near: float) -> Floats:
        """(n_constraints,) change of prices that would meet the bounds if slopes stayed the same."""
        slopes = (demand[2:] + np.array([[0.5], [0.0], [0.0]])) / (2 * near)
        number, cost, _ = slopes
        active = excess != 0
        change = np.zeros(len(excess))
        slope = np.full(self.problem.n_items, np.inf)  # of items with an active limit of their own
        fine = active[self.fine]
        slope[self.fine_item[fine]] = number[self.fine_item[fine]]
        fine_excess = np.zeros(self.problem.n_items)
        fine_excess[self.fine_item[fine]] = excess[self.fine][fine]
        coarse = self.coarse[active[self.coarse]]
        if len(coarse):
            change[coarse] = self._coarse_step(coarse, excess, slopes, slope, fine_excess)
            # what the coarse prices' change alone takes off the items' demand
            offer_price, cost_price = self.item_prices(change)
            fine_excess -= offer_price * number + cost_price * cost
        of_fine = fine_excess[self.fine_item] / number[self.fine_item]
        change[self.fine] = np.where(fine, of_fine, 0.0)
        return change

    def _coarse_step(
        self, coarse: NDArray[np.int64], excess: Floats, slopes: Floats, slope: Floats, fine: Floats
    ) -> Floats:
        """Change of the coarse prices, the single products' prices following them at once."""
        number, cost, squared = slopes
        is_cost, inside = self.is_cost[coarse], self.counts[coarse]
        of_cost, of_number = inside @ (cost * fine / slope), inside @ (number * fine / slope)
        wanted = excess[coarse] - np.where(is_cost, of_cost, of_number)
        diagonal = np.where(is_cost, inside @ squared, inside @ number) + 1e-12
        if len(coarse) > MOST_COARSE:
            alone: Floats = wanted / diagonal
            return alone
        system = np.diag(0.02 * diagonal)
        left = (number - number**2 / slope, cost - number * cost / slope, squared - cost**2 / slope)
        of_kind = [np.flatnonzero(~is_cost), np.flatnonzero(is_cost)]
        for first, a in enumerate(of_kind):
            for second, b in enumerate(of_kind):
                weighed = inside[a].multiply(left[first + second]).tocsr()
                system[np.ix_(a, b)] += (weighed @ inside[b].T).toarray()
        step: Floats = np.linalg.solve(system, wanted)
        return step


def solve_duals(
    dual: DualProblem,
    state: Duals | None = None,
    *,
    steps: int = 45,
    checkpoint: Callable[[Duals], None] = lambda state: None,
    progress: Progress = silent,
) -> Duals:
    """Advance until the bound stands still; a state from a checkpoint goes on as if never stopped.

    The bound stands still when five steps have bettered it by less than 3 in 100,000.
    """
    state = dual.start() if state is None else state
    seen = state.bounds
    while state.step < steps:
        if len(seen) > 15 and min(seen[:-5]) - min(seen) < 3e-5 * abs(state.bound):
            break
        dual.advance(state)
        checkpoint(state)
        progress("shadow prices", state.step, steps)
    return state

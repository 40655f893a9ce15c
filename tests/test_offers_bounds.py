"""Allocations of random campaigns keep every bound, and HiGHS finds none that is worth more."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from retailrec.errors import SettingError
from retailrec.offers.allocation import AllocationReport, allocate
from retailrec.offers.repair import MOST_RELAXED

Rows = tuple[list[np.ndarray], list[float], list[float]]


def random_case(seed: int) -> tuple[pl.DataFrame, dict[str, Any], pl.DataFrame, pl.DataFrame]:
    """Pairs, a campaign (often one that nobody can keep), items and users."""
    rng = np.random.default_rng(seed)
    n_users, n_items = int(rng.integers(1, 13)), int(rng.integers(1, 8))
    users, items = np.divmod(np.arange(n_users * n_items), n_items)
    there = rng.random(len(users)) < rng.uniform(0.3, 1)
    there[rng.integers(len(users))] = True
    pairs = pl.DataFrame(
        {
            "user_id": users[there],
            "item_id": items[there],
            "value": (rng.random(there.sum()) * 5 - rng.choice([0, 1])).round(rng.choice([0, 2])),
            "cost": (rng.random(there.sum()) * 2).round(rng.choice([0, 2])),
            "probability": rng.random(there.sum()).round(2),
        }
    )
    catalogue = pl.DataFrame(
        {
            "item_id": np.arange(n_items),
            "supplier": [f"s{i}" for i in rng.integers(0, 3, n_items)],
            "category": [f"c{i}" for i in rng.integers(0, 3, n_items)],
            "stock": rng.integers(0, n_users + 1, n_items),
        }
    )
    people = pl.DataFrame(
        {"user_id": np.arange(n_users), "segment": [f"g{i}" for i in rng.integers(0, 2, n_users)]}
    )
    most = int(rng.integers(1, 4))
    campaign: dict[str, Any] = {"name": "random", "offers": {"at_most": most}}
    if rng.random() < 0.2:
        campaign["offers"]["at_least"] = int(rng.integers(0, most + 1))
    limits: list[dict[str, Any]] = []
    if rng.random() < 0.6:
        limits.append({"by": "product", "at_most": "stock"})
    for by, column in (("supplier", "supplier"), ("category", "category"), ("product", "item_id")):
        if rng.random() < 0.4:
            limit: dict[str, Any] = {"by": by}
            if rng.random() < 0.6:
                limit["of"] = rng.choice(catalogue[column].to_list())
                limit["of"] = limit["of"] if by != "product" else int(limit["of"])
            low = int(rng.integers(0, n_users + 1))
            if rng.random() < 0.5:
                limit["at_least"] = low
            if rng.random() < 0.6 or "at_least" not in limit:
                limit["at_most"] = low + int(rng.integers(0, 4))
            limits.append(limit)
    if rng.random() < 0.2:
        limits.append({"by": "everything", "at_least": int(rng.integers(0, 2 * n_users))})
    campaign["limit"] = limits
    if rng.random() < 0.5:
        campaign["budget"] = [{"at_most": float(rng.uniform(0.1, n_users))}]
        if rng.random() < 0.4:
            campaign["budget"].append({"at_most": float(rng.uniform(0.1, 3)), "by": "supplier"})
    if n_items > 2 and rng.random() < 0.4:
        chosen = rng.choice(n_items, (int(rng.integers(1, 4)), 2))
        campaign["exclusion"] = [{"products": [int(a), int(b)]} for a, b in chosen if a != b]
    if rng.random() < 0.3:
        campaign["variety"] = [{"by": "category", "at_most": 1}]
    if rng.random() < 0.4:
        campaign["floor"] = [{"column": "segment", "of": people["segment"][0]}]
    return pairs, campaign, catalogue, people


def oracle_rows(
    pairs: pl.DataFrame, campaign: dict[str, Any], items: pl.DataFrame, users: pl.DataFrame
) -> tuple[Rows, Rows]:
    """Rows that must hold, and minima, written down anew from the settings."""
    table = pairs.join(items, on="item_id", how="left").join(users, on="user_id", how="left")
    column = {"product": "item_id", "supplier": "supplier", "category": "category"}
    hard: Rows = ([], [], [])
    minima: Rows = ([], [], [])

    def add(rows: Rows, weights: np.ndarray, low: float, high: float) -> None:
        for part, value in zip(rows, (weights, low, high), strict=True):
            part.append(value)  # type: ignore[arg-type]

    def groups(by: str, of: Any) -> list[tuple[Any, np.ndarray]]:
        if by == "everything":
            return [(None, np.ones(table.height))]
        names = [of] if of is not None else sorted(set(items[column[by]]))
        return [(name, (table[column[by]] == name).to_numpy().astype(float)) for name in names]

    offers = campaign["offers"]
    floors = campaign.get("floor", [])
    for user in table["user_id"].unique():
        mine = (table["user_id"] == user).to_numpy().astype(float)
        least = offers.get("at_least", 0)
        if floors and table.filter(pl.col("user_id") == user)["segment"][0] == floors[0]["of"]:
            least = max(least, 1)
        add(hard, mine, -np.inf, offers["at_most"])
        add(minima, mine, min(least, mine.sum()), np.inf)  # as many as there are pairs
        for exclusion in campaign.get("exclusion", []):
            inside = table["item_id"].is_in(exclusion["products"]).to_numpy()
            add(hard, mine * inside, -np.inf, 1)
        for variety in campaign.get("variety", []):
            for _, inside in groups(variety["by"], None):
                add(hard, mine * inside, -np.inf, variety["at_most"])
    stock = dict(zip(items["item_id"], items["stock"], strict=True))
    for limit in campaign["limit"]:
        for name, inside in groups(limit["by"], limit.get("of")):
            most = limit.get("at_most", np.inf)
            add(hard, inside, -np.inf, stock[name] if most == "stock" else most)
            add(minima, inside, limit.get("at_least", -np.inf), np.inf)
    cost = (table["cost"] * table["probability"]).to_numpy()
    for budget in campaign.get("budget", []):
        for _, inside in groups(budget.get("by", "everything"), None):
            add(hard, cost * inside, -np.inf, budget["at_most"])
    return hard, minima


def check_case(seed: int) -> str:
    """Compare an allocation with HiGHS; what kind of case it was."""
    pairs, settings, items, users = random_case(seed)
    try:
        found = allocate(pairs, settings, items=items, users=users, threads=1)
    except SettingError as error:
        if "no answer can keep to both" not in str(error):
            raise
        return "contradictory"
    hard, minima = oracle_rows(pairs, settings, items, users)
    keys = found.offers.select("user_id", "item_id", chosen=pl.lit(True))
    chosen = pairs.join(keys, on=["user_id", "item_id"], how="left", maintain_order="left")
    x = chosen["chosen"].fill_null(False).to_numpy().astype(float)
    assert x.sum() == found.offers.height
    weights, _, high = hard
    for row, most in zip(weights, high, strict=True):
        assert row @ x <= most + 0, f"seed {seed}: an upper bound is broken: {row @ x} > {most}"
    value = pairs["value"].to_numpy()
    assert found.report.value == pytest.approx(value @ x)
    assert found.report.bound >= value @ x - 1e-9
    rows = np.array(weights + minima[0])
    low = np.array(hard[1] + minima[1])
    best = milp(
        -value,
        constraints=LinearConstraint(rows, low, np.array(high + minima[2])),
        integrality=np.ones(len(value)),
        bounds=Bounds(0, 1),
    )
    missed = sum(
        max(least - row @ x, 0)
        for row, least in zip(minima[0], minima[1], strict=True)
        if np.isfinite(least)
    )
    if best.status == 2:
        assert missed > 0, f"seed {seed}: HiGHS finds no answer, yet nothing gave way"
        assert found.report.minima_given_way == pytest.approx(missed)
        assert found.report.proven
        assert found.report.notes
        return "infeasible"
    assert best.status == 0
    assert missed == 0, f"seed {seed}: a minimum gave way though an answer exists"
    assert found.report.minima_given_way == 0
    assert value @ x <= -best.fun + 1e-6
    assert value @ x >= -best.fun - 0.0102 * abs(best.fun), f"seed {seed}: {value @ x} of {-best.fun}"
    assert found.report.gap <= 0.0102
    assert found.report.bound >= -best.fun - 1e-6, f"seed {seed}: the bound is none"
    return "feasible"


def test_random_campaigns_keep_their_bounds() -> None:
    kinds = [check_case(seed) for seed in range(30)]
    assert kinds.count("feasible") > 10
    assert kinds.count("infeasible") > 3


@pytest.mark.slow
def test_six_hundred_random_campaigns_keep_their_bounds() -> None:
    kinds = [check_case(seed) for seed in range(1000, 1600)]
    assert min(kinds.count(kind) for kind in ("feasible", "infeasible", "contradictory")) > 6


@pytest.mark.parametrize("places", [2, 9, None])
def test_a_budget_holds_beside_costs_that_it_can_not_pay_and_beside_larger_budgets(
    places: int | None,
) -> None:
    rng = np.random.default_rng(5)
    users, items = np.divmod(np.arange(120), 4)
    cost = rng.random(120) / 3 if places is None else rng.random(120).round(places)
    cost[items == 1] *= 1_000  # of the other supplier
    cost[::17] = 1e15
    pairs = pl.DataFrame({"user_id": users, "item_id": items, "value": 1.0, "cost": cost})
    catalogue = pl.DataFrame({"item_id": range(4), "supplier": ["a", "b", "a", "a"]})
    exact = Fraction if places is None else lambda x: Fraction(repr(x))
    for small in (0.3, 2.5):
        budgets = [{"at_most": small, "by": "supplier", "of": "a"}, {"at_most": 6_000_000.0}]
        found = allocate(pairs, {"name": "b", "budget": budgets}, items=catalogue)
        sent = found.offers.select("user_id", "item_id").join(pairs, on=["user_id", "item_id"])
        spent = sum(exact(c) for c in sent.filter(pl.col("item_id") != 1)["cost"].to_list())
        most = exact(small) * (1 if places else 1 + Fraction(2, 10**12))
        assert spent <= most
        assert found.report.gap < 0.001
        assert found.report.expected_cost == pytest.approx(sent["cost"].sum())


def test_that_nothing_misses_fewer_offers_is_proven_to_the_last_offer() -> None:
    rng = np.random.default_rng(2)
    users, items = np.divmod(np.arange(7200), 12)
    there = rng.random(7200) < 0.6
    users, items = users[there], items[there]
    value, cost = rng.random(len(users)), rng.random(len(users))
    pairs = pl.DataFrame({"user_id": users, "item_id": items, "value": value, "cost": cost})
    stock = rng.integers(20, 200, 12)
    campaign = {
        "name": "many",
        "offers": {"at_most": 2},
        "limit": [{"by": "product", "at_most": "stock"}, {"by": "everything", "at_least": 1_000_000}],
        "budget": [{"at_most": 60.0}],
        "exclusion": [{"products": [0, 1]}, {"products": [1, 2]}, {"products": [2, 0]}],
    }
    found = allocate(pairs, campaign, items=pl.DataFrame({"item_id": range(12), "stock": stock}))
    rows = [users == u for u in range(600)] + [items == i for i in range(12)] + [cost]
    rows += [(users == u) & (items < 3) for u in range(600)]
    most = [2.0] * 600 + [*stock, 60.0] + [1] * 600
    best = milp(
        -np.ones(len(users)),
        constraints=LinearConstraint(np.array(rows, float), -np.inf, most),
        integrality=np.ones(len(users)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0},
    )
    assert found.report.proven
    assert found.report.n_offers == round(-best.fun)


LEVELS = [0.1, 0.2, 0.4] * 4  # what the items are worth, to every user the same
COSTS = [round(0.05 + 0.13 * i % 0.7, 2) * value for i, value in enumerate(LEVELS)]


@pytest.mark.parametrize(
    ("values", "costs", "budget", "stock", "best"),
    [
        (LEVELS, COSTS, 5.0, None, 40.0),
        (LEVELS, COSTS, 5.0, 10, 19.7),
        ([0.1] * 12, [0.05] * 12, 0.5, None, 1.0),
        ([0.1] * 12, [0.05] * 12, sum([0.05] * 50), None, 5.0),  # 2.4999999999999996
        ([0.4] * 30, [0.3] * 30, 0.5, None, 0.4),  # one and two thirds fit
    ],
)
def test_pairs_that_are_worth_the_same_are_allocated_as_well_as_any(
    values: list[float], costs: list[float], budget: float, stock: int | None, best: float
) -> None:
    pairs = same_for_all(values, costs, n_users=100)
    campaign: dict[str, Any] = {
        "name": "ties",
        "offers": {"at_most": 1},
        "budget": [{"at_most": budget}],
    }
    if stock:
        campaign["limit"] = [{"by": "product", "at_most": stock}]
    report = allocate(pairs, campaign).report
    assert report.value == pytest.approx(best)
    assert 0 <= report.gap < 0.01


def test_prices_of_a_large_campaign_of_ties_are_those_of_some_of_its_users() -> None:
    values = [0.1, 0.2, 0.4] * 20
    costs = [0.05 * (1 + i % 7) for i in range(60)]
    pairs = same_for_all(values, costs, n_users=4000)
    campaign = {"name": "ties", "offers": {"at_most": 3}, "budget": [{"at_most": 300.0}]}
    campaign["limit"] = [{"by": "product", "at_most": 150}]
    report = allocate(pairs, campaign).report
    assert report.n_pairs > MOST_RELAXED
    assert 0 <= report.gap < 0.01


def same_for_all(values: list[float], costs: list[float], n_users: int) -> pl.DataFrame:
    """Every item for every user, worth the same to each."""
    n = len(values)
    users, items = np.divmod(np.arange(n_users * n), n)
    columns = {"user_id": users, "item_id": items, "value": values * n_users, "cost": costs * n_users}
    return pl.DataFrame(columns)


@pytest.mark.parametrize(("worth", "unit"), [(2.0**-30, 1.0), (1.0, 2.0**-30), (1.0, 2.0**-40)])
def test_the_unit_of_values_and_costs_changes_no_answer(worth: float, unit: float) -> None:
    rng = np.random.default_rng(6)
    users, items = np.divmod(np.arange(60), 4)
    value, cost = rng.integers(1, 1000, 60) / 8, rng.integers(1, 64, 60) / 8

    def found(worth: float, unit: float, least: int) -> AllocationReport:
        pairs = pl.DataFrame(
            {"user_id": users, "item_id": items, "value": value * worth, "cost": cost * unit}
        )
        limits = [{"by": "product", "at_most": 3}, {"by": "everything", "at_least": least}]
        budget = [{"at_most": 5.625 * unit}]
        return allocate(pairs, {"name": "small", "limit": limits, "budget": budget}).report

    for least in (0, 12):
        usual, other = found(1.0, 1.0, least), found(worth, unit, least)
        assert other.value == pytest.approx(usual.value * worth, rel=2e-4)
        assert other.bound >= usual.value * worth
        assert other.minima_given_way == usual.minima_given_way
        assert other.proven == usual.proven


def test_what_is_not_proven_says_why() -> None:
    pairs = same_for_all([1.0, 2.0], [1.0, 1.0], n_users=10_001)
    limit = [{"by": "everything", "at_least": 5}]
    report = allocate(pairs, {"name": "many", "limit": limit, "budget": [{"at_most": 2.0}]}).report
    assert report.notes[-1].endswith("is not proven: there are too many pairs.")

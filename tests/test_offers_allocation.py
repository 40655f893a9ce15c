"""Allocation: values come near the linear program's, prices mean what they say, the rest is told in words."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.optimize import linprog
from scipy.sparse import csr_array, vstack

from retailrec.compute.progress import Progress
from retailrec.errors import ArtifactError, DataError, SettingError
from retailrec.offers.allocation import Allocation, allocate
from retailrec.offers.ledger import Ledger
from retailrec.offers.shadow_prices import Prices


def many_pairs(n_users: int = 1200, n_items: int = 60, seed: int = 0) -> pl.DataFrame:
    """Twelve pairs a shopper, worth between 0 and 1."""
    rng = np.random.default_rng(seed)
    items = np.argsort(rng.random((n_users, n_items)), axis=1)[:, :12]
    return pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(n_users), 12),
            "item_id": items.ravel(),
            "value": rng.random(12 * n_users),
            "cost": rng.random(12 * n_users),
        }
    )


CAMPAIGN: dict[str, Any] = {
    "name": "spring",
    "offers": {"at_most": 2},
    "limit": [{"by": "product", "at_most": 16}, {"by": "product", "of": 7, "at_least": 12}],
    "budget": [{"at_most": 200.0}],
}


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    return many_pairs()


@pytest.fixture(scope="module")
def found(pairs: pl.DataFrame) -> Allocation:
    return allocate(pairs, CAMPAIGN)


def lp_value(pairs: pl.DataFrame, stock: float = 16, least: float = 12, budget: float = 200) -> float:
    """The linear program of `CAMPAIGN`, which no whole answer exceeds."""
    users, items = pairs["user_id"].to_numpy(), pairs["item_id"].to_numpy()
    n, place = len(users), np.arange(len(users))
    of_items = csr_array((np.ones(n), (items, place)))
    rows = vstack(
        [
            csr_array((np.ones(n), (users, place))),
            of_items,
            -of_items[[7]],
            csr_array(pairs["cost"].to_numpy()[None, :]),
        ]
    )
    most = np.concatenate(
        [
            np.full(rows.shape[0] - of_items.shape[0] - 2, 2),
            np.full(of_items.shape[0], stock),
            [-least, budget],
        ]
    )
    best = linprog(-pairs["value"].to_numpy(), A_ub=rows, b_ub=most, bounds=(0, 1))
    return -float(best.fun)


def test_the_value_is_within_half_a_percent_of_the_linear_program(
    pairs: pl.DataFrame, found: Allocation
) -> None:
    best = lp_value(pairs)
    assert 0.995 * best <= found.report.value <= best + 1e-6
    assert best - 1e-6 <= found.report.bound <= 1.001 * best


def test_a_price_is_what_one_more_unit_brings(pairs: pl.DataFrame, found: Allocation) -> None:
    budget = next(c for c in found.report.constraints if c.kind == "budget")
    brings = (lp_value(pairs, budget=204) - lp_value(pairs, budget=196)) / 8
    assert budget.price == pytest.approx(brings, rel=0.02)
    assert f"would bring {budget.price:,.3g}" in budget.words


def test_threads_and_the_order_of_rows_do_not_change_the_answer(
    pairs: pl.DataFrame, found: Allocation
) -> None:
    for other in (allocate(pairs, CAMPAIGN, threads=1), allocate(pairs.reverse(), CAMPAIGN, threads=2)):
        assert other.offers.equals(found.offers)
        assert other.report.bound == found.report.bound


def test_a_search_that_was_cut_off_goes_on_to_the_same_answer(
    pairs: pl.DataFrame, found: Allocation, tmp_path: Path
) -> None:
    class Stop(Exception):
        pass

    def stop(step: str, done: int = 0, total: int = 0, /) -> None:
        if (step, done) == ("shadow prices", 6):
            raise Stop

    def into(told: list[tuple[str, int, int]]) -> Progress:
        return lambda step, done=0, total=0, /: told.append((step, done, total))

    file = tmp_path / "search"
    with pytest.raises(Stop):
        allocate(pairs, CAMPAIGN, checkpoint=file, progress=stop)
    steps: list[tuple[str, int, int]] = []
    again = allocate(pairs, CAMPAIGN, checkpoint=file, progress=into(steps))
    assert again.offers.equals(found.offers)
    assert ("shadow prices", 7, 45) in steps
    assert ("shadow prices", 6, 45) not in steps
    other = many_pairs(seed=1)
    fresh: list[tuple[str, int, int]] = []
    allocate(other, CAMPAIGN, checkpoint=file, progress=into(fresh))
    assert ("shadow prices", 1, 45) in fresh  # another problem's search is not taken over


def test_fixed_prices_admit_nearly_what_was_allocated(
    pairs: pl.DataFrame, found: Allocation, tmp_path: Path
) -> None:
    found.prices.save(tmp_path / "prices.json")
    prices = Prices.load(tmp_path / "prices.json")
    assert prices == found.prices
    shown = pairs.with_columns(
        shown=pl.Series(prices.shows(pairs["item_id"], pairs["value"], pairs["cost"]))
    )
    offered = shown.join(found.offers, on=["user_id", "item_id"], how="semi")
    assert offered["shown"].mean() > 0.98
    assert prices.price_of(["not there"])[0] == np.inf
    assert not prices.shows([7], [np.nan])[0]
    with pytest.raises(DataError, match="expected_cost must be finite"):
        prices.price_of([7], expected_cost=-1)
    with pytest.raises(DataError, match=r"one a item \(2\), got shape \(1,\)"):
        prices.shows([7, 8], [9.0])


def test_a_file_that_holds_no_prices_is_refused(tmp_path: Path) -> None:
    for text in (
        "",
        "[]",
        '{"format": "retailrec prices 1"}',
        '{"format": "retailrec prices 1", "campaign": "a", "value": "value", "of_offer": {"1": NaN}, "of_cost": {}}',
    ):
        (tmp_path / "prices.json").write_text(text)
        with pytest.raises(ArtifactError, match="holds no prices"):
            Prices.load(tmp_path / "prices.json")


def test_ranks_follow_values_and_prices_are_below_them(found: Allocation) -> None:
    offers = found.offers
    assert offers["rank"].unique().sort().to_list() == [1, 2]
    pairs_of = offers.group_by("user_id", maintain_order=True).agg("value", "rank")
    for values, ranks in zip(pairs_of["value"], pairs_of["rank"], strict=True):
        assert values.to_list() == sorted(values, reverse=True)
        assert ranks.to_list() == list(range(1, len(ranks) + 1))
    assert (offers["value"] - offers["price"] > -0.02).mean() > 0.98  # type: ignore[operator]


def test_holdouts_get_nothing_and_stand_in_the_ledger(pairs: pl.DataFrame) -> None:
    held = allocate(pairs, CAMPAIGN | {"holdout": 0.25})
    arms = dict(held.shoppers.select("user_id", "arm").iter_rows())
    assert 250 < sum(arm == "holdout" for arm in arms.values()) < 350
    assert all(arms[user] == "treated" for user in held.offers["user_id"])
    rows = held.ledger_rows(datetime(2024, 5, 1), model="m1")
    assert rows["user_id"].n_unique() == 1200
    assert rows.filter("holdout").height == held.report.n_held_out
    assert (
        rows.filter(pl.col("rank") == 0)["item_id"].null_count()
        == rows.filter(pl.col("rank") == 0).height
    )
    assert rows.filter(pl.col("rank") > 0).height == held.offers.height


def test_exploration_keeps_every_bound_and_tells_its_chance() -> None:
    pairs = many_pairs(n_items=14)
    limits = [{"by": "product", "at_most": 60}, {"by": "product", "of": 7, "at_least": 12}]
    settings = CAMPAIGN | {"limit": limits, "budget": [{"at_most": 300.0}]}
    plain = allocate(pairs, settings)
    swapped = allocate(pairs, settings | {"explore": 0.3, "near_tie": 0.2})
    report = swapped.report
    assert report.n_couples > 40
    assert 0.15 < report.n_swapped / report.n_couples < 0.45
    assert sorted(set(swapped.offers["propensity"])) == pytest.approx([0.3, 0.7, 1.0])
    assert (swapped.offers["propensity"] == 0.3).sum() == 2 * report.n_swapped
    counts = [a.offers["item_id"].value_counts().sort("item_id") for a in (plain, swapped)]
    assert counts[0].equals(counts[1])
    assert report.expected_cost <= 300
    assert swapped.offers.group_by("user_id").len()["len"].max() <= 2  # type: ignore[operator]
    changed = swapped.offers.join(plain.offers, on=["user_id", "item_id"], how="anti")
    assert changed.height == 2 * report.n_swapped


def test_caps_count_past_campaigns(tmp_path: Path) -> None:
    table = pl.DataFrame(
        {
            "user_id": [1, 1, 1, 2, 2],
            "item_id": ["a", "b", "c", "a", "b"],
            "value": [5.0, 4.0, 3.0, 2.0, 1.0],
        }
    )
    ledger = Ledger(tmp_path / "ledger")
    first = allocate(table, {"name": "first", "offers": {"at_most": 1}})
    ledger.append(first.ledger_rows(datetime(2024, 5, 1)))
    assert first.offers.select("user_id", "item_id").rows() == [(1, "a"), (2, "a")]
    second = {
        "name": "second",
        "offers": {"at_most": 3},
        "cap": [{"days": 28, "at_most": 2}, {"days": 28, "at_most": 1, "per": "product"}],
    }
    now = datetime(2024, 5, 20)
    found = allocate(table, second, ledger=ledger, now=now)
    assert found.offers.select("user_id", "item_id").rows() == [(1, "b"), (2, "b")]
    later = allocate(table, second, ledger=ledger, now=datetime(2024, 6, 20))
    assert later.offers.height == 4
    with pytest.raises(SettingError, match="a cap needs the ledger"):
        allocate(table, second)
    with pytest.raises(DataError, match="stand in the ledger for it already"):
        allocate(table, {"name": "first"}, ledger=ledger)
    nobody = {"name": "third", "cap": [{"days": 28, "at_most": 1, "per": "product"}]}
    with pytest.raises(DataError, match="no pair is left"):
        allocate(table.filter(pl.col("item_id") == "a"), nobody, ledger=ledger, now=now)


def test_what_gave_way_is_told_in_words() -> None:
    table = pl.DataFrame(
        {
            "user_id": [1, 2, 3],
            "item_id": ["a", "a", "b"],
            "value": [1.0, 1.0, 1.0],
            "cost": [1.0, 1.0, 1.0],
        }
    )
    few = allocate(table, {"name": "x", "limit": [{"by": "product", "of": "a", "at_least": 3}]})
    assert (
        few.report.constraints[0].words
        == "product a must get 3 offers and got 2: the pairs allow 2 at most."
    )
    poor = allocate(
        table,
        {
            "name": "x",
            "limit": [{"by": "product", "of": "a", "at_least": 2}],
            "budget": [{"at_most": 1.5}],
        },
    )
    assert (
        poor.report.constraints[0].words
        == "product a must get 2 offers and got 1: the budget (1.5 at most) stands against it."
    )
    assert poor.report.proven
    assert "No answer misses fewer offers to minima than this one (proven)." in poor.report.notes


def test_every_shopper_of_a_segment_gets_something() -> None:
    rng = np.random.default_rng(4)
    table = pl.DataFrame(
        {
            "user_id": np.repeat(np.arange(40), 3),
            "item_id": np.tile([1, 2, 3], 40),
            "value": rng.random(120),
        }
    )
    people = pl.DataFrame(
        {"user_id": np.arange(40), "segment": ["poor" if u < 12 else "rich" for u in range(40)]}
    )
    table = table.with_columns(value=pl.when(pl.col("user_id") < 12).then(0.01).otherwise("value"))
    settings: dict[str, Any] = {"name": "x", "limit": [{"by": "everything", "at_most": 15}]}
    without = allocate(table, settings)
    fair = allocate(table, settings | {"floor": [{"column": "segment", "of": "poor"}]}, users=people)
    assert without.offers.filter(pl.col("user_id") < 12).is_empty()
    assert fair.offers.filter(pl.col("user_id") < 12)["user_id"].n_unique() == 12
    assert fair.offers.height == 15
    known = people.with_columns(poor=pl.col("segment") == "poor")
    floor = {"column": "poor", "of": True}
    assert allocate(table, settings | {"floor": [floor]}, users=known).offers.equals(fair.offers)
    with pytest.raises(DataError, match="which no shopper has; there are poor, rich"):
        allocate(table, settings | {"floor": [{"column": "segment", "of": "old"}]}, users=people)


def test_named_formulas_give_the_value() -> None:
    table = pl.DataFrame(
        {
            "user_id": [1],
            "item_id": [1],
            "probability": [0.5],
            "margin": [3.0],
            "cost": [1.0],
            "score": [9.0],
            "value": [7.0],
        }
    )
    worth = {
        "value": 7,
        "score": 9,
        "probability": 0.5,
        "probability_margin": 1.5,
        "probability_margin_less_cost": 1.0,
    }
    for formula, value in worth.items():
        assert allocate(table, {"name": "x", "value": formula}).report.value == pytest.approx(value)


@pytest.mark.parametrize(
    "ids",
    [
        [7, 8],
        ["7", "8"],
        [" 7", "8 "],
        [7.0, 8.0],
        [7, "8"],
        np.array([7.0, 8.0]),
        pl.Series([7, 8]),
        pl.Series([7.0, 8.0]),
        pl.Series(["7", "8"], dtype=pl.Categorical),
    ],
)
def test_prices_know_an_item_however_its_id_is_typed(ids: Any) -> None:
    prices = Prices("may", "value", {"7": 0.2}, {})
    assert prices.price_of(ids).tolist() == [0.2, np.inf]
    assert prices.price_of([]).tolist() == prices.price_of(pl.Series([], dtype=pl.Int64)).tolist() == []


def test_one_shopper_is_enough() -> None:
    table = pl.DataFrame({"user_id": ["only"], "item_id": [1], "value": [2.0]})
    found = allocate(table, {"name": "x"})
    assert found.offers["user_id"].to_list() == ["only"]
    assert found.report.gap == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("cost", [0.01, 0.1, 0.3, 1.0, 1 / 3])
def test_a_budget_that_fits_exactly_is_spent(cost: float) -> None:
    for n in (1, 3, 100):
        table = pl.DataFrame({"user_id": range(n), "item_id": 1, "value": 1.0, "cost": cost})
        budget = round(n * cost, 10) if cost != 1 / 3 else n / 3
        found = allocate(table, {"name": "x", "budget": [{"at_most": budget}]})
        assert found.report.n_offers == n
        assert found.report.constraints[0].reached == pytest.approx(budget, rel=1e-12)
        below = allocate(table, {"name": "x", "budget": [{"at_most": budget * (1 - 1e-9)}]})
        assert below.report.n_offers == n - 1


def test_costs_of_single_precision_fit_a_budget_as_they_are_written() -> None:
    table = pl.DataFrame({"user_id": range(10), "item_id": 1, "value": 1.0, "cost": 0.1})
    single = table.with_columns(pl.col("cost", "value").cast(pl.Float32))
    assert allocate(single, {"name": "x", "budget": [{"at_most": 1.0}]}).report.n_offers == 10
    some = table.with_columns(cost=pl.lit(None, dtype=pl.Float32), user_id=11)  # refused as any other
    with pytest.raises(DataError, match="cost"):
        allocate(
            pl.concat([single, some], how="vertical_relaxed"), {"name": "x", "budget": [{"at_most": 1}]}
        )


def test_where_everything_fits_more_brings_nothing() -> None:
    """A budget that all pairs spend to the last cent: any price up to some value is optimal."""
    rng = np.random.default_rng(1)
    for n in (4, 6, 8, 20) * 5:
        cost, value = rng.uniform(0.1, 2, (2, n)).round(2)
        columns = {"user_id": np.arange(n) // 2, "item_id": np.arange(n) % 2}
        table = pl.DataFrame(columns | {"value": value, "cost": cost})
        whole = round(float(cost.sum()), 2)
        settings = {"name": "x", "budget": [{"at_most": whole}], "offers": {"at_most": 2}}
        budget = allocate(table, settings).report.constraints[0]
        assert (budget.reached, budget.price) == (pytest.approx(whole), 0)
        assert "more money would bring nothing" in budget.words
        half = allocate(table, settings | {"budget": [{"at_most": whole / 2}]}).report.constraints[0]
        assert half.price > 0


@pytest.mark.parametrize(
    "bound",
    [
        {"budget": [{"at_most": 99.5}]},
        {"budget": [{"at_most": 99.0}]},
        {"limit": [{"by": "everything", "at_most": 99}]},
    ],
)
def test_where_one_of_many_is_left_out_one_more_brings_what_it_is_worth(bound: dict[str, Any]) -> None:
    coupons = {"user_id": range(100), "item_id": [1] * 100, "value": [1.0] * 100, "cost": [1.0] * 100}
    report = allocate(pl.DataFrame(coupons), {"name": "x"} | bound).report
    assert (report.n_offers, report.constraints[0].price) == (99, pytest.approx(1, rel=0.02))


def tied(kind: str, n_users: int = 150) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Four items a shopper, all worth the same, or the same for half of the shoppers."""
    users = np.repeat(np.arange(n_users), 4)
    value = np.where(users < n_users // 2, 1.0, 2.0 if kind == "two levels" else 1.0)
    table = pl.DataFrame({"user_id": users, "item_id": np.tile(np.arange(4), n_users), "value": value})
    bounds: dict[str, Any] = {
        "products": {"limit": [{"by": "product", "at_most": 2}]},
        "two levels": {"limit": [{"by": "product", "at_most": 7}]},
        "a budget": {"budget": [{"at_most": 40}]},
        "both": {"limit": [{"by": "product", "at_most": 9}], "budget": [{"at_most": 11}]},
        "minima": {"limit": [{"by": "product", "at_least": 3}, {"by": "everything", "at_most": 15}]},
    }
    return table.with_columns(cost=1.0), {"name": "x", **bounds[kind]}


@pytest.mark.parametrize(
    ("kind", "best"),
    [("products", 8), ("two levels", 56), ("a budget", 40), ("both", 11), ("minima", 15)],
)
def test_where_scores_tie_the_best_answer_is_found_and_known_to_be_near_it(
    kind: str, best: float
) -> None:
    table, settings = tied(kind)
    report = allocate(table, settings).report
    assert report.value == best
    assert best <= report.bound + 1e-9
    assert report.gap < 0.01


def test_caps_that_meet_no_offer_of_the_ledger_say_so(tmp_path: Path) -> None:
    table = pl.DataFrame({"user_id": ["a1"], "item_id": ["tea"], "value": [1.0]})
    ledger, now = Ledger(tmp_path / "ledger"), datetime(2024, 5, 1)
    capped = {"name": "x", "cap": [{"days": 28, "at_most": 1, "per": "product"}]}
    first = allocate(table, capped, ledger=ledger, now=now)
    assert any("holds no offers yet" in note for note in first.report.notes)
    ledger.append(first.ledger_rows(now).with_columns(user_id=pl.lit("A1"), item_id=pl.lit("TEA")))
    notes = allocate(table, capped | {"name": "y"}, ledger=ledger, now=now).report.notes
    assert [note.split(":")[0] for note in notes] == ["a cap counts no offer"] * 2
    assert all("They would meet in lower case" in note for note in notes)


@pytest.mark.parametrize("past", ["A1", " a1 ", "007"])
@pytest.mark.parametrize("cap", [[], [{"days": 28, "at_most": 1}]])
def test_shoppers_whom_the_ledger_has_in_another_notation_are_said(
    tmp_path: Path, past: str, cap: list[dict[str, Any]]
) -> None:
    shoppers = ["a1", "7", "met"]
    table = pl.DataFrame({"user_id": shoppers, "item_id": "tea", "value": 1.0})
    ledger, now = Ledger(tmp_path / "ledger"), datetime(2024, 5, 1)
    settings = {"name": "may", "again": True, "cap": cap}
    first = allocate(
        table.with_columns(user_id=pl.Series([past, "old", "met"])), settings, ledger=ledger, now=now
    )
    ledger.append(first.ledger_rows(now))
    notes = allocate(table, settings, ledger=ledger, now=now).report.notes
    said = [note for note in notes if "by notation only" in note]
    assert len(said) == (past.strip() not in shoppers)
    assert all(f"such as {past!r} there" in note for note in said)

"""Exploration of lists: fixed lengths, chances that are exact, one draw for one user and salt."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import polars as pl
import pytest

from retailrec.compute.draws import inclusion_chances, systematic_sample
from retailrec.compute.statistics import shares_p
from retailrec.errors import DataError, SettingError
from retailrec.offers.exploration import explore


def pools(n_users: int, size: int) -> pl.DataFrame:
    """A pool of `size` items a user, item i worth -i."""
    users = np.repeat(np.arange(n_users), size)
    items = np.tile(np.arange(size), n_users)
    return pl.DataFrame({"user": users, "item": items, "score": -items})


@pytest.mark.parametrize(("k", "pool", "rate"), [(1, 3, 0.5), (2, 4, 0.3), (2, 5, 0.6), (3, 4, 0.25)])
def test_over_all_orders_and_starts_each_row_has_its_chance_and_lists_their_length(
    k: int, pool: int, rate: float
) -> None:
    chances = inclusion_chances(np.arange(pool), np.full(pool, pool), k, rate)
    assert chances.sum() == pytest.approx(k)
    grid = (np.arange(400) + 0.5) / 400  # chances are multiples of a 1/200th at least
    total, together = np.zeros(pool), 0.0
    for order in permutations(range(pool)):
        lots = np.tile(np.array(order), len(grid))
        indptr = np.arange(len(grid) + 1, dtype=np.int64) * pool
        drawn = systematic_sample(np.tile(chances, len(grid)), indptr, lots, grid).reshape(-1, pool)
        assert (drawn.sum(1) == k).all()
        assert np.abs(drawn.mean(0) - chances).max() < 1 / 400
        total += drawn.mean(0)
        together += (drawn[:, 0] & drawn[:, 1]).mean()
    n_orders = len(list(permutations(range(pool))))
    assert np.abs(total / n_orders - chances).max() < 1 / 400
    assert k == 1 or together > 0  # a random order lets every two rows meet


def test_chances_are_the_ones_that_were_asked_for() -> None:
    chances = inclusion_chances(np.arange(20), np.full(20, 20), 3, 0.2)
    assert chances[:3].tolist() == [0.8] * 3
    assert chances[3:] == pytest.approx(np.full(17, 3 * 0.2 / 17))
    assert inclusion_chances(np.arange(3), np.full(3, 3), 5, 0.2).tolist() == [1.0] * 3
    narrow = inclusion_chances(np.arange(6), np.full(6, 6), 5, 0.5)  # not the other way round
    assert narrow == pytest.approx(np.full(6, 5 / 6))


def test_draws_by_the_hash_have_their_chances_and_are_independent_of_arms() -> None:
    n, size, k, rate = 4000, 8, 2, 0.4
    table = pools(n, size)
    found = explore(table["score"], table["item"], k, rate, salt="may", users=table["user"])
    assert found.columns == ["user_id", "item_id", "score", "rank", "propensity", "shown", "pool"]
    lists = found.filter("shown").group_by("user_id").len()
    assert lists["len"].unique().to_list() == [k]
    counts = (
        found.group_by("rank").agg(pl.col("shown").sum(), pl.col("propensity").first()).sort("rank")
    )
    assert shares_p(counts["shown"].to_numpy(), counts["propensity"].to_numpy() / k) > 0.001
    for rank, shown, chance in counts.iter_rows():
        error = (chance * (1 - chance) / n) ** 0.5
        assert abs(shown / n - chance) < 4 * error, rank
    pairs = found.filter("shown").group_by("user_id").agg(pl.col("rank").sort())
    assert pairs["rank"].n_unique() > size  # not one round of neighbours


def test_a_draw_depends_on_user_and_salt_alone() -> None:
    table = pools(50, 6)
    whole = explore(table["score"], table["item"], 2, 0.3, salt="may", users=table["user"])
    shuffled = table.sample(fraction=1, shuffle=True, seed=1)
    other = explore(shuffled["score"], shuffled["item"], 2, 0.3, salt="may", users=shuffled["user"])
    assert other.sort("user_id", "item_id").equals(whole.sort("user_id", "item_id"))
    one = table.filter(pl.col("user") == 7)
    alone = explore(one["score"], one["item"], 2, 0.3, salt="may", users=one["user"].cast(pl.String))
    assert alone["shown"].to_list() == whole.filter(pl.col("user_id") == 7)["shown"].to_list()
    anew = explore(table["score"], table["item"], 2, 0.3, salt="june", users=table["user"])
    assert anew["shown"].to_list() != whole["shown"].to_list()


def test_without_exploration_the_best_are_shown_and_short_pools_whole() -> None:
    table = pools(5, 6)
    found = explore(table["score"], table["item"], 4, 0, salt="x", users=table["user"])
    assert found.filter("shown")["item_id"].unique().sort().to_list() == [0, 1, 2, 3]
    short = explore([1.0, 1.0], ["b", "a"], 4, 0.5, salt="x", users=[1, 1])
    assert short.select("item_id", "rank", "propensity", "shown").rows() == [
        ("b", 2, 1.0, True),
        ("a", 1, 1.0, True),
    ]
    assert explore([], [], 2, 0.1, salt="x", users=[]).is_empty()


def test_what_cannot_be_drawn_is_a_sentence() -> None:
    with pytest.raises(SettingError, match="k must be 1 or more and the rate"):
        explore([1.0], [1], 0, 0.1, salt="x", users=[1])
    with pytest.raises(SettingError, match="below 1"):
        explore([1.0], [1], 1, 1.0, salt="x", users=[1])
    with pytest.raises(DataError, match="no finite number"):
        explore([float("nan")], [1], 1, 0.1, salt="x", users=[1])
    with pytest.raises(DataError, match="an item twice"):
        explore([1.0, 2.0], [1, 1], 1, 0.1, salt="x", users=[1, 1])

"""Own purchases: orders by value, ties, and what follows the own items."""

from __future__ import annotations

import polars as pl
import pytest

from retailrec.candidates import ALS, ItemItem, OwnPurchases, Popularity, TifuKNN
from retailrec.data import RetailData
from retailrec.recommender.stage_one import candidate_numbers

TEA, RICE, SOAP, JAM = range(4)


@pytest.fixture(scope="module")
def data() -> RetailData:
    """Ann bought tea twice long ago, rice and soap once each; soap and jam sell best."""
    days = {
        "ann": [(10, TEA), (20, TEA), (118, RICE), (117, SOAP)],
        "bob": [(100, SOAP), (101, JAM)],
        "cid": [(110, SOAP), (111, JAM)],
    }
    rows = [(user, item, day) for user, bought in days.items() for day, item in bought]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "day"], orient="row")
    start = pl.datetime(2024, 1, 1)
    lines = frame.select("user_id", "item_id", time=start + pl.duration(days=pl.col("day")))
    return RetailData.from_frames(lines)


def items(source: OwnPurchases, data: RetailData, k: int = 4) -> list[list[int]]:
    found: list[list[int]] = source.fit(data).candidates(data.history(), k).items.tolist()
    return found


def test_a_receipt_counts_half_after_its_half_life(data: RetailData) -> None:
    history = data.history(codes=[0])
    source = OwnPurchases("decay", half_life=50).fit(data)
    found = source.candidates(history, 3)
    ages = data.history(codes=[0]).age
    by_item = dict(zip(found.items[0].tolist(), found.scores[0].tolist(), strict=True))
    assert by_item[TEA] == pytest.approx(sum(0.5 ** (age / 50) for age in sorted(ages)[-2:]), rel=1e-5)
    assert found.items[0].tolist() == [RICE, SOAP, TEA]
    assert items(OwnPurchases("decay", half_life=1000), data)[0][0] == TEA  # hardly decays


def test_ties_of_the_count_go_to_what_sells_best(data: RetailData) -> None:
    assert items(OwnPurchases(ties="newest"), data)[0] == [TEA, RICE, SOAP, -1]
    assert items(OwnPurchases(ties="popular"), data)[0] == [TEA, SOAP, RICE, -1]


def test_bestsellers_follow_the_own_items(data: RetailData) -> None:
    assert items(OwnPurchases(ties="popular", fill=True), data)[0] == [TEA, SOAP, RICE, JAM]
    assert items(OwnPurchases("decay", fill=True), data)[1] == [JAM, SOAP, RICE, TEA]
    source = OwnPurchases("decay", half_life=1, fill=True).fit(data)
    stale = source.candidates(
        data.history(codes=[0]), 4
    )  # two receipts a hundred days old still come first
    assert stale.items[0].tolist() == [RICE, SOAP, TEA, JAM]


def test_nobody_knows_gets_bestsellers(data: RetailData) -> None:
    source = OwnPurchases(fill=True).fit(data)
    empty = data.history(codes=[-1])
    assert source.candidates(empty, 2).items.tolist() == [[SOAP, JAM]]


def test_most_candidates_are_own_purchases() -> None:
    sources = [TifuKNN(), OwnPurchases("decay"), ItemItem(), ALS(), Popularity()]
    assert candidate_numbers([*sources, ItemItem(within="next_receipt")]) == [40, 150, 60, 40, 40, 40]

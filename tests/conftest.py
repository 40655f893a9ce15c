"""Fixtures that hold the awkward cases, and access to the real data where it is."""

from __future__ import annotations

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from retailrec.data import RetailData
from retailrec.simulator.shop import small_data

CUTOFF = datetime(2024, 3, 1)


@pytest.fixture(scope="session")
def shop() -> RetailData:
    """A generated supermarket: 150 households, 40 weeks."""
    return small_data(users=150, weeks=40, items=300)


def receipts(seed: int = 0, users: int = 40, items: int = 30) -> pl.DataFrame:
    """Day-granular receipts around CUTOFF: ties, one-basket shoppers, events exactly on the cutoff."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        days = rng.choice(120, 1 if user % 7 == 0 else 8, replace=False)
        if user % 5 == 0:
            days = np.append(days, 90)  # exactly on the cutoff
        for day in days:
            for item in rng.choice(items - 2, rng.integers(1, 6), replace=False) % (5 + user % 20):
                rows.append((f"u{user:02}", int(item), CUTOFF + timedelta(days=int(day) - 90)))
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "time"], orient="row")
    rng = np.random.default_rng(seed + 1)
    return frame.unique(maintain_order=True).with_columns(
        quantity=pl.Series(rng.integers(1, 4, frame.unique().height)),
        value=pl.Series(rng.integers(1, 9, frame.unique().height) * 0.5),
    )


def catalogue(items: int = 30) -> pl.DataFrame:
    """Items with text and categories; the last two are never sold."""
    words = ["red apple", "green apple", "black tea", "green tea", "rye bread", "white bread"]
    return pl.DataFrame(
        {
            "item_id": list(range(items)),
            "name": [f"{words[i % 6]} {i % 4}" for i in range(items)],
            "category_1": [["fruit", "drinks", "bakery"][i % 6 // 2] for i in range(items)],
            "category_2": [words[i % 6] for i in range(items)],
        }
    )


def shoppers(users: int = 40) -> pl.DataFrame:
    """Shoppers with a segment, some without."""
    return pl.DataFrame(
        {
            "user_id": [f"u{u:02}" for u in range(users)],
            "segment": [None if u % 4 == 3 else "ab"[u % 2] for u in range(users)],
        }
    )


def changed_after(cutoff_seed: int) -> RetailData:
    """The same past, another future: other shoppers buy other items from the cutoff on."""
    past = receipts().filter(pl.col("time") < CUTOFF)
    future = receipts(seed=cutoff_seed).filter(pl.col("time") >= CUTOFF)
    future = future.with_columns(item_id=27 - pl.col("item_id"))
    return RetailData.from_frames(
        pl.concat([past, future]), catalogue(), shoppers(), end=CUTOFF + timedelta(days=31)
    )


@pytest.fixture(scope="session")
def data() -> RetailData:
    """The day-granular receipts with catalogue and shoppers, to 2024-04-01."""
    end = datetime(2024, 4, 1)
    return RetailData.from_frames(receipts(), catalogue(), shoppers(), end=end)


def real(name: str) -> Path:
    """A folder of the real data; the test is skipped without it."""
    root = Path(os.environ.get("RETAILREC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_dir():
        pytest.skip(f"no real data at {root / name}; set RETAILREC_DATA")
    return root / name

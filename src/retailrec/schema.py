"""Names, types and units of every frame that crosses a file.

At the edges, frames carry the caller's own ids (`user_id`, `item_id`, `basket_id`). Inside, ids are
dense int32 codes (`user`, `item`, `basket`): the row of the user in `RetailData.users`, the row of
the item in `RetailData.items`, and a number that grows with (user, time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import polars as pl

Kind = Literal["id", "time", "number", "text"]


@dataclass(frozen=True)
class Column:
    """One column that a caller brings: its name, what it holds, and whether it must be there."""

    name: str
    kind: Kind
    required: bool
    meaning: str


TRANSACTIONS = (
    Column("user_id", "id", True, "shopper: any integer or string"),
    Column("item_id", "id", True, "item: any integer or string"),
    Column("time", "time", True, "timestamp, date, or day number (day 1 = 2000-01-01)"),
    Column("basket_id", "id", False, "receipt; without it, one shopper's lines of one time"),
    Column("quantity", "number", False, "units bought; negative is a return; 1 when absent"),
    Column("value", "number", False, "money of the whole line, not of one unit"),
    Column("price", "number", False, "money of one unit; value = price x quantity when no value"),
    Column("discount", "number", False, "money off the whole line, with either sign"),
    Column("store", "id", False, "where it was bought"),
)

# Columns of a catalogue and of user attributes that the package knows by name. Others are carried.
ITEM_ID, USER_ID = "item_id", "user_id"
STORE = "store"  # of a receipt, of a user, of a line that says where an item is on offer
NAME, BRAND = "name", "brand"
CATEGORIES = ("category_1", "category_2", "category_3", "category_4")  # from broad to fine
KNOWN_FROM = "known_from"  # when an item's attributes became known, where they come from receipts
RECOMMENDABLE = "recommendable"  # bool, set by prefilters: to any user at all
DISCOVERABLE = "discoverable"  # bool, set by prefilters: to users who never bought the item

LOG = ("user", "item", "basket", "time", "quantity", "value")
RECOMMENDATIONS = ("user_id", "item_id", "score", "rank")

# Explored lists: a row for every item that a list could hold, listed or not. Ids are text, as in the
# ledger of offers.
POOL: Mapping[str, Any] = MappingProxyType(
    {
        "request": pl.String,  # what asked for the list; one user's, judged once
        "user_id": pl.String,  # the caller's id as text
        "item_id": pl.String,  # an item that could be shown
        "time": pl.Datetime("us"),  # when the list was shown or sent
        "policy": pl.String,  # what proposed it: name of the campaign, the model or both
        "score": pl.Float64,  # by which the policy orders; null where unknown
        # chance, known before anything was drawn, that the item is shown: that of the draw, times that
        # of not being held out where rows of those held out stand in the log too
        "propensity": pl.Float64,
        "shown": pl.Boolean,  # was it?
        "rank": pl.Int32,  # place by score in the pool, from 1; what exploration did not move
        "arm": pl.String,  # arm of the experiment; may be empty
        "pool": pl.Int32,  # how many items the pool of the request holds
    }
)

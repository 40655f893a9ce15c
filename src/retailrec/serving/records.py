"""What the store hands out, and what can go wrong with it."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import DataError, RetailRecError


class StoreUnavailable(RetailRecError):
    """The database does not answer, or can't be written to now; the same call may work later."""


class StoreFull(StoreUnavailable):
    """The database has no room for what should be written; reading still works."""


class ReceiptConflict(DataError):
    """A receipt came twice under one number with different contents; nothing was stored."""


class ValueRefused(DataError):
    """The database can't hold a value; all else goes on."""


class ForgottenUser(DataError):
    """The user was forgotten, and is not to be stored again."""


class Shopper(NamedTuple):
    """What the store knows beside receipts, read in one statement.

    Attributes
    ----------
    version : another one after each change of this shopper; 0: never heard of
    attributes : name -> value
    denied : items never to be offered to the shopper
    ends : midnight after the newest receipt of anybody; None without any
    text_numbers : are receipt numbers ordered as text, since one of them is no whole number?
    lists : changes with the unavailable items, rules and keys
    """

    version: int
    attributes: dict[str, Any]
    denied: tuple[str, ...]
    ends: datetime | None
    text_numbers: bool
    lists: int


class Events(NamedTuple):
    """All lines of a shopper, in order of time.

    Attributes
    ----------
    times, sizes : (n_receipts,) microseconds since 1970, and number of lines
    items : (n_lines,) ids
    amounts : (n_lines,) of `receipts.AMOUNTS`
    """

    times: NDArray[np.int64]
    sizes: NDArray[np.int64]
    items: list[str]
    amounts: NDArray[np.void]


class Added(NamedTuple):
    """What `add` did: receipts that are new, were known before, or are of users who were forgotten."""

    new: int
    known: int
    forgotten: int = 0


class Lists(NamedTuple):
    """What holds for everybody: unavailable items, rulesets, and their version."""

    version: int
    unavailable: frozenset[str]
    rules: dict[str, dict[str, Any]]

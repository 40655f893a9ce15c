"""What users said they do not want to see: an item, or its whole category, for some weeks."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.ids import row_of_ids, rows_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import (
    check_columns,
    ids_like,
    parse_number,
    times_or_none,
    typed_ids,
    without_missing,
)
from retailrec.data.retail_data import text_codes
from retailrec.errors import DataError
from retailrec.schema import CATEGORIES, ITEM_ID, USER_ID

WEEKS = 4.0  # for which a dismissal holds that says nothing else
_WEEK_US = 7 * 86_400_000_000
_YES, _NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def check_dismissals(given: Any) -> pl.DataFrame:
    """Dismissals as `user_id`, `item_id`, `time`, `category` (bool), `weeks`, all checked.

    Parameters
    ----------
    given : frame of `user_id`, `item_id` and, if wanted, `time` (when it was said; without it, at the
        moment of recommending), `category` (is the whole category meant?) and `weeks` (4 by default)

    Raises
    ------
    DataError
        If it is no such frame, an id is missing, or a cell can't be read.

    Examples
    --------
    >>> check_dismissals(pl.DataFrame({"user_id": [7], "item_id": ["tea"], "category": ["yes"]})).row(0)
    (7, 'tea', None, True, 4.0)
    """
    given = to_polars(given, who="dismissals")
    check_columns(given, (USER_ID, ITEM_ID), ("time", "category", "weeks"), who="dismissals")
    ids = [typed_ids(given[c]) for c in (USER_ID, ITEM_ID)]
    for column in ids:
        if n := column.null_count():
            raise DataError(f"dismissals have no {column.name} in {n:,} of {given.height:,} lines.")
    time = pl.Series("time", [None], pl.Datetime("us")).new_from_index(0, given.height)
    if "time" in given.columns:
        time = times_or_none(given["time"], who="dismissals").alias("time")
    said = pl.Series("category", [False]).new_from_index(0, given.height)
    if "category" in given.columns:
        text = without_missing(given["category"].cast(pl.String)).str.to_lowercase()
        odd = text.filter(text.is_not_null() & ~text.is_in([*_YES, *_NO]))
        if len(odd):
            raise DataError(f"dismissals: category must be true or false, not {odd[0]!r}.")
        said = text.is_in(_YES).fill_null(False).alias("category")
    weeks = pl.Series("weeks", [WEEKS]).new_from_index(0, given.height)
    if "weeks" in given.columns:
        weeks = parse_number(given["weeks"], who="dismissals").fill_null(WEEKS).alias("weeks")
        if not (weeks.is_finite() & (weeks > 0)).all():
            raise DataError("dismissals: weeks must be numbers above 0; correct the column.")
    return pl.DataFrame([*ids, time, said, weeks])


def holding(frame: pl.DataFrame, now: datetime, at: datetime | None) -> pl.DataFrame:
    """The dismissals that hold at `now`: not over yet, and said before `at` where answers are as of it.

    Examples
    --------
    >>> said = {"user_id": [1, 2], "item_id": [7, 7], "time": ["2024-01-01", "2024-01-20"]}
    >>> frame = check_dismissals(pl.DataFrame(said))
    >>> holding(frame, datetime(2024, 1, 30), None)["user_id"].to_list()
    [2]
    """
    ago = (pl.lit(now, pl.Datetime("us")) - pl.col("time")).dt.total_microseconds() / _WEEK_US
    keep = pl.col("time").is_null() | (ago < pl.col("weeks"))  # dates can't hold any number of weeks
    if at is not None:
        keep &= pl.col("time").is_null() | (pl.col("time") < at)
    return frame.filter(keep)


def finest_categories(items: pl.DataFrame) -> NDArray[np.int32]:
    """(n_items,) code of each item's finest category that is known; -1 without any.

    Examples
    --------
    >>> items = pl.DataFrame({"category_1": ["dry", "dry", "dry"], "category_2": ["tea", "tea", None]})
    >>> finest_categories(items).tolist()
    [1, 1, 0]
    """
    found = np.full(items.height, -1, np.int32)
    n = 0
    for column in (c for c in CATEGORIES if c in items.columns):
        codes, texts = text_codes(items[column])
        found = np.where(codes >= 0, codes + n, found).astype(np.int32)
        n += len(texts)
    return found


class Dismissed:
    """Dismissals that hold now, in the codes of one catalogue.

    Items that the catalogue lacks hide nothing.
    """

    def __init__(self, frame: pl.DataFrame, items: pl.DataFrame) -> None:
        ids = ids_like(frame[ITEM_ID], items[ITEM_ID], who="dismissals")
        code = row_of_ids(ids, items[ITEM_ID])
        known = code >= 0
        self._users, self._items = frame[USER_ID].filter(pl.Series(known)), code[known]
        self._finest = finest_categories(items)
        wide = frame["category"].to_numpy()[known]
        self._categories = np.where(wide, self._finest[self._items], -1)

    def allows(
        self, users: pl.Series, user: NDArray[np.int64], items: NDArray[np.int32]
    ) -> NDArray[np.bool_]:
        """(n_pairs,) may the pair be listed? `user` is the row in `users` of each pair."""
        place, row = rows_of_ids(ids_like(self._users, users, who="dismissals"), users)
        n, categories = len(self._finest), self._categories[place]
        hidden = np.isin(user * n + items, row * n + self._items[place])
        wide = categories >= 0
        if wide.any():
            fine = self._finest[items]
            keys = row[wide] * n + categories[wide]
            hidden |= (fine >= 0) & np.isin(user * n + fine, keys)
        return ~hidden

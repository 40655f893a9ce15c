"""Campaign lists: rank only given items, for all users, a campaign's users, or each user.

What is listed is ranked whether a source would propose it or not, and whether a prefilter hides it or
not: whoever lists items has decided. Business rules still hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.shards import SHARD
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.files import read_table
from retailrec.data.history import Pairs
from retailrec.data.ids import rows_of_ids
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import check_columns, ids_like, typed_ids
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, USER_ID

CAMPAIGN_ID = "campaign_id"
_ROWS = 250_000  # candidate rows of a shard: at 130 float32 columns 130 MB
_SHAPES = (
    f"one with {ITEM_ID} (for everybody), one with {USER_ID} and {ITEM_ID}, or two, with {CAMPAIGN_ID} "
    f"and {USER_ID}, and with {CAMPAIGN_ID} and {ITEM_ID}"
)


class AmongReport(NamedTuple):
    """What became of the lists.

    Attributes
    ----------
    n_eligible : (user, item) pairs that could be ranked
    unknown_items : listed items that the model does not know; they are left out
    not_asked : listed users whom the request leaves out
    without_items : users asked for who have no eligible item, and so get no list
    too_few : users asked for with some eligible items, but fewer than k
    empty_campaigns : campaigns that were sent but have no products
    without_ids : lines of the lists that lack an id and are left out
    """

    n_eligible: int
    unknown_items: int
    not_asked: int
    without_items: int
    too_few: int
    empty_campaigns: int
    without_ids: int = 0

    def sentences(self, k: int) -> tuple[str, ...]:
        """The counts that are not zero, in words.

        Examples
        --------
        >>> AmongReport(12, 2, 0, 1, 0, 0).sentences(5)
        ('2 listed items are not known to the model', '1 shoppers have no eligible item')
        """
        counts = {
            f"{self.without_ids:,} lines of the lists have no id": self.without_ids,
            f"{self.empty_campaigns:,} campaigns have no products": self.empty_campaigns,
            f"{self.unknown_items:,} listed items are not known to the model": self.unknown_items,
            f"{self.not_asked:,} listed shoppers were not asked for": self.not_asked,
            f"{self.without_items:,} shoppers have no eligible item": self.without_items,
            f"{self.too_few:,} shoppers have fewer than {k} eligible items": self.too_few,
        }
        return tuple(sentence for sentence, n in counts.items() if n)


@dataclass(frozen=True)
class Eligible:
    """The listed items of the users that are asked for, in item codes: `Among.bind` makes it.

    Attributes
    ----------
    n_users : users asked for
    shared : (n,) int32 ascending, all users' items; None where each user has own ones
    own : each user's items; None where they are shared
    """

    n_users: int
    shared: NDArray[np.int32] | None
    own: Pairs | None
    unknown_items: int = 0
    not_asked: int = 0
    empty_campaigns: int = 0
    without_ids: int = 0

    @property
    def sizes(self) -> NDArray[np.int64]:
        """(n_users,) eligible items of each user."""
        if self.own is not None:
            return np.diff(self.own.indptr)
        return np.full(self.n_users, 0 if self.shared is None else len(self.shared))

    @property
    def shard_size(self) -> int:
        """Users a shard, so that its candidate rows fit in memory: for `map_shards`."""
        return int(np.clip(_ROWS // max(self.sizes.max(initial=1), 1), 1, SHARD))

    def rows(self, rows: slice) -> Eligible:
        """The lists of some of the users."""
        start, stop, _ = rows.indices(self.n_users)
        return replace(self, n_users=stop - start, own=None if self.own is None else self.take(rows))

    def take(self, rows: slice) -> Pairs:
        """The pairs of consecutive users, for `candidate_frame`."""
        if self.own is not None:
            return self.own.rows(rows)
        start, stop, _ = rows.indices(self.n_users)
        shared = np.zeros(0, np.int32) if self.shared is None else self.shared
        indptr = np.arange(stop - start + 1, dtype=np.int64) * len(shared)
        return Pairs(indptr, np.tile(shared, stop - start))

    def report(self, k: int) -> AmongReport:
        """What became of the lists when `k` items are asked for."""
        sizes = self.sizes
        few = (sizes > 0) & (sizes < k)
        return AmongReport(
            int(sizes.sum()),
            self.unknown_items,
            self.not_asked,
            int((sizes == 0).sum()),
            int(few.sum()),
            self.empty_campaigns,
            self.without_ids,
        )


@dataclass(frozen=True)
class Among:
    """Lists of items in the caller's ids.

    Attributes
    ----------
    items : ids for all users; None where users have own lists
    pairs : `user_id` and `item_id`, distinct; None where the list is for all
    empty_campaigns : campaigns that were sent but have no products
    without_ids : lines that lack an id and are left out

    Examples
    --------
    >>> among = Among.of(pl.DataFrame({"item_id": ["tea", "rice", "ink"]}))
    >>> catalogue = pl.DataFrame({"item_id": ["rice", "rye", "tea"]})
    >>> eligible = among.bind(catalogue, pl.DataFrame({"user_id": ["ann", "bob"]}))
    >>> eligible.take(slice(0, 2)).items.tolist(), eligible.report(k=2).unknown_items
    ([0, 2, 0, 2], 1)
    """

    items: pl.Series | None = None
    pairs: pl.DataFrame | None = None
    empty_campaigns: int = 0
    without_ids: int = 0

    @classmethod
    def of(cls, *frames: Any) -> Among:
        """From a frame of items, of users and items, or from two: who was sent, and what is in it.

        The frames may be of any library; their columns say what they are. A user who was sent
        several campaigns gets one list, of the products of all.

        Raises
        ------
        DataError
            If the columns make no list, a frame is empty, or no campaign was sent that has products.
        """
        tables, lines = [], 0
        for frame in frames:
            table = to_polars(frame, who="among")
            tables.append(_ids(table))
            lines += table.height - tables[-1].height
        kinds = [frozenset(table.columns) for table in tables]
        if kinds == [{ITEM_ID}]:
            return cls(items=tables[0][ITEM_ID].unique().sort(), without_ids=lines)
        if len(kinds) == 1 and {USER_ID, ITEM_ID} <= kinds[0]:
            pairs = tables[0].select(USER_ID, ITEM_ID).unique(maintain_order=True)
            return cls(pairs=pairs, without_ids=lines)
        sent = [t for t in tables if USER_ID in t.columns and ITEM_ID not in t.columns]
        products = [t for t in tables if ITEM_ID in t.columns and USER_ID not in t.columns]
        of_campaigns = all(CAMPAIGN_ID in kind for kind in kinds)
        if len(tables) == 2 and len(sent) == 1 and len(products) == 1 and of_campaigns:
            return replace(_of_campaigns(sent[0], products[0]), without_ids=lines)
        has = " and ".join(str(sorted(kind)) for kind in kinds) or "none"
        raise DataError(
            f"among takes tables of these columns: {_SHAPES}; it got {has}. Rename columns."
        )

    @property
    def users(self) -> pl.Series | None:
        """Ids of the users who are listed, ascending; None if the list is for all."""
        return None if self.pairs is None else self.pairs[USER_ID].unique().sort()

    def fingerprint(self) -> int:
        """Identifies the lists: the same ones give the same number."""
        table = self.pairs if self.items is None else self.items.to_frame()
        return 0 if table is None else int(table.hash_rows(seed=0).sum() or 0)

    def renamed(self, changed: ChangedIds) -> Among:
        """The same lists, with the new ids of users and items whose ids changed."""
        items, pairs = self.items, self.pairs
        if items is not None:
            items = changed.applied(items).unique().sort()
        if pairs is not None:
            pairs = changed.renamed(pairs).unique(maintain_order=True)
        return replace(self, items=items, pairs=pairs)

    def bind(self, items: pl.DataFrame, users: pl.DataFrame) -> Eligible:
        """The lists in codes of the catalogue `items`, row by row of `users` (both by their id column).

        Raises
        ------
        DataError
            If none of the items is in the catalogue, or none of the users is asked for.
        """
        if self.items is not None:
            _, codes = _places(self.items, items, "items", "in the model's catalogue")
            shared = np.unique(codes).astype(np.int32)  # 5 and "5.0" are one item
            unknown = len(self.items) - len(codes)
            return Eligible(users.height, shared, None, unknown, without_ids=self.without_ids)
        if self.pairs is None:
            raise DataError(f"among is empty; give tables of these columns: {_SHAPES}.")
        known, codes = _places(self.pairs[ITEM_ID], items, "items", "in the model's catalogue")
        place, row = _places(self.pairs[USER_ID], users, "shoppers", "among those asked for")
        code = np.full(self.pairs.height, -1)
        code[known] = codes
        keys = np.unique((row * items.height + code[place])[code[place] >= 0])
        indptr = np.searchsorted(keys, np.arange(users.height + 1) * items.height)
        unknown, others = (
            self.pairs[name].n_unique() - self.pairs[name].gather(found).n_unique()
            for name, found in ((ITEM_ID, known), (USER_ID, place))
        )
        pairs = Pairs(indptr.astype(np.int64), (keys % items.height).astype(np.int32))
        left_out = unknown, others, self.empty_campaigns, self.without_ids
        return Eligible(users.height, None, pairs, *left_out)


def as_among(given: Any) -> Among:
    """`given` if it is an `Among`, else `Among.of` the frame, or of the tuple or list of frames."""
    if isinstance(given, Among):
        return given
    return Among.of(*given) if isinstance(given, tuple | list) else Among.of(given)


def read_among(files: Sequence[Path]) -> Among:
    """Lists from one file, or from the two files of campaigns; CSV, Parquet or Excel.

    Raises
    ------
    DataError
        If a file can't be read or is empty, or the columns make no list.
    """
    return Among.of(*(read_table(file) for file in files))


def _ids(table: pl.DataFrame) -> pl.DataFrame:
    """The id columns, typed, of lines that have all ids."""
    known = [c for c in (CAMPAIGN_ID, USER_ID, ITEM_ID) if c in table.columns]
    if not known:
        raise DataError(f"among lacks id columns; it has {table.columns}. It takes {_SHAPES}.")
    check_columns(table, known, ["coupon_id"], who="among")
    table = table.select(typed_ids(table[c]) for c in known).drop_nulls()
    if table.is_empty():
        raise DataError(
            f"among lists nothing: its table of {', '.join(known)} has no line with ids. Fill it."
        )
    return table


def _of_campaigns(sent: pl.DataFrame, products: pl.DataFrame) -> Among:
    if sent[CAMPAIGN_ID].dtype != products[CAMPAIGN_ID].dtype:
        sent, products = (t.with_columns(pl.col(CAMPAIGN_ID).cast(pl.String)) for t in (sent, products))
    pairs = sent.join(products, on=CAMPAIGN_ID, how="inner", maintain_order="left")
    if pairs.is_empty():
        raise DataError(
            f"among: none of the {sent[CAMPAIGN_ID].n_unique():,} campaigns that were sent has "
            f"products, for example {sent[CAMPAIGN_ID][0]!r}; write campaign ids alike in both tables."
        )
    empty = sent.join(products, on=CAMPAIGN_ID, how="anti")[CAMPAIGN_ID].n_unique()
    distinct = pairs.select(USER_ID, ITEM_ID).unique(maintain_order=True)
    return Among(pairs=distinct, empty_campaigns=empty)


def _places(
    ids: pl.Series, table: pl.DataFrame, what: str, where: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place of each id that `table` has, and its rows there, as `rows_of_ids`."""
    own = ids_like(ids, table[ids.name], who=f"the {what} of among")
    places, rows = rows_of_ids(own, table[ids.name])
    if not len(rows):
        raise DataError(
            f"none of the {ids.n_unique():,} {what} of among is {where}, for example {ids[0]!r}; write "
            f"the ids as in the receipts."
        )
    return places, rows

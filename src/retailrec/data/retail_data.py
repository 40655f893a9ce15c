"""Receipts, catalogue and users up to an instant: `RetailData`; engines over all users."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import checked
from retailrec.compute.groups import count_buyers
from retailrec.compute.memory import release_memory
from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import require_threads
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    STANDARD_RULES,
    LineRule,
    LoadReport,
    piece_value_notes,
    receipt_value_notes,
    refuse_if_none,
)
from retailrec.data.encoding import Coder, build_log, parts_of
from retailrec.data.history import Histories, History, Unplaced
from retailrec.data.ids import (
    attributes,
    catalogue_key,
    described_users,
    id_series,
    row_of_ids,
    users_of,
    vocabulary,
)
from retailrec.data.parsing import as_instant, ids_like, look_alikes
from retailrec.errors import DataError
from retailrec.schema import CATEGORIES, DISCOVERABLE, ITEM_ID, KNOWN_FROM, RECOMMENDABLE, USER_ID

Totals = list[tuple[np.ufunc, NDArray[Any]]]  # (n_items, ...) sums of a part, and how two are combined


@dataclass(frozen=True)
class RetailData:
    """What is known before `end`.

    Attributes
    ----------
    log : one row an item of a receipt, in order of shopper, time and item:
        `user`, `item`, `basket` (int32 codes), `time`, `quantity`, `value` (null where not known)
    items : row i describes item code i: `item_id`, `recommendable`, attributes
    users : row u describes shopper code u: `user_id`, attributes
    end : first instant that is not known
    report : what loading read, kept and rejected
    population : where the receipts of all users lie, of whom these are a sample; None: these are all
    changed_ids : ids that had changed; who is asked for by an old one is meant by the new one

    Codes follow the order of the ids, so they do not depend on the order of the input.

    Examples
    --------
    >>> receipts = pl.DataFrame({
    ...     "user_id": ["ann", "ann", "bob"],
    ...     "item_id": ["tea", "tea", "rice"],
    ...     "time": ["2024-01-01", "2024-01-09", "2024-01-05"],
    ... })
    >>> data = RetailData.from_frames(receipts)
    >>> data.end
    datetime.datetime(2024, 1, 10, 0, 0)
    >>> data.asof(datetime(2024, 1, 9)).log.height
    2
    """

    log: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    end: datetime
    report: LoadReport = field(default_factory=lambda: LoadReport("memory"), compare=False)
    population: Population | None = field(default=None, compare=False, repr=False)
    changed_ids: ChangedIds = field(default_factory=ChangedIds, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not all(isinstance(table, pl.DataFrame) for table in (self.log, self.items, self.users)):
            raise DataError("log, items and users must be Polars frames; see RetailData.from_frames.")
        last = self.log["time"].max()
        if isinstance(last, datetime) and last >= self.end:
            raise DataError(
                f"log reaches {last}, at or past end={self.end}; cut it with .asof(end), "
                f"or give a later end."
            )
        for column, n in (("user", self.users.height), ("item", self.items.height)):
            codes = self.log[column]
            if len(codes) and not 0 <= (codes.min() or 0) <= (codes.max() or 0) < n:  # type: ignore
                raise DataError(
                    f"log column '{column}' must hold codes from 0 to {n - 1}, one a row of "
                    f"`{column}s`; it holds {codes.min()!r} to {codes.max()!r}. Build data with "
                    f"RetailData.from_frames."
                )

    @classmethod
    @checked
    def from_frames(
        cls,
        transactions: Any,
        items: Any = None,
        users: Any = None,
        *,
        columns: Mapping[str, str] | None = None,
        end: Any = None,
        rules: Sequence[LineRule] = (),
        report: LoadReport | None = None,
        item_columns: Sequence[str] = (),
        user_columns: Sequence[str] = (),
        time_format: str | None = None,
        changed_ids: ChangedIds | None = None,
    ) -> RetailData:
        """Data from a frame of receipt lines, and frames of items and shoppers where there are any.

        Parameters
        ----------
        transactions : Polars, pandas, PyArrow, ...; columns as in `retailrec.schema.TRANSACTIONS`; or
            an iterator of such frames, parts of one log, which are shrunk one after the other
        items, users : one row an `item_id` / `user_id`; further columns are attributes
        columns : standard name -> the caller's name
        end : first instant that is not known, as `asof` takes it; midnight after the last line by
            default
        rules : reasons to reject a line, beside the standard ones
        item_columns, user_columns : transaction columns that describe the item / the shopper; the
            earliest kept value counts, which later lines can't change
        time_format : how times are written, as for `datetime.strptime`; found out by default
        changed_ids : ids that changed, of users and items; lines and attributes get the new ones

        Raises
        ------
        DataError
            If columns are missing or unreadable, no line is usable, or lines reach past `end`.
        """
        require_threads()
        report = report or LoadReport("transactions")
        rules, described = (*rules, *STANDARD_RULES), {ITEM_ID: item_columns, USER_ID: user_columns}
        coder = Coder(columns or {}, rules, report, described, time_format, changed_ids)
        coded = coder.code(parts_of(transactions))
        for name in (ITEM_ID, USER_ID):
            report.notes += look_alikes(coded.ids[name].alias(name))
        items = attributes(items, ITEM_ID, coded, item_columns, report, changed_ids)
        users = attributes(users, USER_ID, coded, user_columns, report, changed_ids)
        items = vocabulary(items, coded.ids[ITEM_ID], ITEM_ID)
        log = build_log(coded, items[ITEM_ID], report).lines
        refuse_if_none(log.height, report)
        if user_columns and users is not None:
            users = described_users(users, coded.ids[USER_ID], log)
        users, log = users_of(users, coded.ids[USER_ID], log)
        release_memory()
        last = log["time"].max()
        assert isinstance(last, datetime)
        summarise(report, log)
        until = datetime(last.year, last.month, last.day) + timedelta(days=1)
        if end is not None:
            until = as_instant(end, who="end", zone=report.zone)
        changed_ids = changed_ids or ChangedIds()
        return cls(log, items, users, until, report, changed_ids=changed_ids)

    @classmethod
    def of(cls, data: Any, changed_ids: ChangedIds | None = None) -> RetailData:
        """The data itself, or what `from_frames` makes of a frame."""
        if isinstance(data, RetailData):
            return data
        return cls.from_frames(data, changed_ids=changed_ids)

    @property
    def engine(self) -> Engine:
        """What counts and maps all users: those of the population, else these."""
        return LocalEngine(self) if self.population is None else self.population

    @property
    def n_users(self) -> int:
        """Number of shopper codes."""
        return self.users.height

    @property
    def n_items(self) -> int:
        """Number of item codes."""
        return self.items.height

    @cached_property
    def catalogue_key(self) -> str:
        """Digest of the item coding: equal where the same codes mean the same items."""
        return catalogue_key(self.items[ITEM_ID])

    @property
    def start(self) -> datetime:
        """Time of the first event; `end` when there is none."""
        first = self.log["time"].min()
        return first if isinstance(first, datetime) else self.end

    @property
    def recommendable(self) -> NDArray[np.bool_]:
        """(n_items,) may the item be recommended at all, to those who bought it before included."""
        return self.items[RECOMMENDABLE].to_numpy()

    @property
    def discoverable(self) -> NDArray[np.bool_]:
        """(n_items,) may the item be recommended to users who never bought it."""
        if DISCOVERABLE not in self.items.columns:
            return self.recommendable
        return self.recommendable & self.items[DISCOVERABLE].to_numpy()

    @checked
    def asof(self, t: datetime | date | str) -> RetailData:
        """What was known at `t`: events strictly before it; codes stay the same.

        `t` may be a datetime (one with a zone is converted to that of the receipts), a date, text such
        as ``"2024-02-01"``, or what NumPy and pandas have.

        Raises
        ------
        DataError
            If `t` lies after `end`, since that part is not known, or is no instant.
        """
        require_threads()
        t = as_instant(t, who="asof", zone=self.report.zone)
        if t > self.end:
            raise DataError(
                f"asof({t}) lies after the data's end={self.end}; what comes then is not known. "
                f"Ask for an instant up to the end."
            )
        items = self.items
        if KNOWN_FROM in items.columns:  # names and attributes that first came with a receipt
            seen = pl.col(KNOWN_FROM) < t
            flags = (ITEM_ID, RECOMMENDABLE, DISCOVERABLE)
            hidden = [c for c in items.columns if c not in flags]
            items = items.with_columns(pl.when(seen).then(pl.col(c)).alias(c) for c in hidden)
        return self._same_codes(
            replace(self, log=self.log.filter(pl.col("time") < t), items=items, end=t)
        )

    def between(self, start: datetime | date | str, end: datetime | date | str) -> pl.DataFrame:
        """Log rows with start <= time < end, both as `asof` takes them.

        Raises
        ------
        DataError
            If one is no instant.
        """
        start, end = (as_instant(t, who="between", zone=self.report.zone) for t in (start, end))
        return self.log.filter((pl.col("time") >= start) & (pl.col("time") < end))

    def receipts(self) -> pl.DataFrame:
        """One row a receipt, in order of shopper and time: `user`, `time`, `lines`, `value`.

        `value` sums up the lines whose value is known; it is null where none is.
        """
        basket = self.log["basket"].to_numpy()
        starts = np.flatnonzero(np.diff(basket, prepend=-1))  # the lines of a receipt lie together
        first = self.log.select("user", "time")[starts]
        value = self.log["value"].to_numpy()  # NaN where not known
        known = ~np.isnan(value)
        total = np.add.reduceat(np.where(known, value, 0), starts) if len(starts) else value
        some = np.add.reduceat(known, starts, dtype=np.int64) > 0 if len(starts) else known
        return first.with_columns(
            lines=np.diff(starts, append=len(basket)),
            value=pl.when(pl.Series(some)).then(pl.Series(total)),
        )

    def active_users(self) -> NDArray[np.int32]:
        """Codes of the shoppers with at least one event, ascending."""
        return self.log["user"].unique().sort().to_numpy()

    def history(
        self, users: Any = None, *, codes: NDArray[np.integer] | Sequence[int] | None = None
    ) -> History:
        """Histories of the shoppers with these ids, in this order; of all shoppers by default.

        An id that is not known gives an empty history. `codes` are places in `users` instead of ids;
        -1 is an unknown user.

        Raises
        ------
        DataError
            If both come, ids can't be read, or codes are not this data's.

        Examples
        --------
        >>> lines = {"user_id": ["u1", "u2"], "item_id": [1, 2], "time": ["2024-01-01"] * 2}
        >>> history = RetailData.from_frames(pl.DataFrame(lines)).history(["u2", "u9"])
        >>> history.users["user_id"].to_list(), history.n_pairs
        (['u2', 'u9'], 1)
        """
        require_threads()
        if users is None and codes is None:
            rows = self.log["user"].to_numpy().astype(np.int64)
            return History.from_log(
                self.log, rows, self.users, self.end, self.n_items, self.catalogue_key
            )
        return self.history_of_codes(*self._asked(users, codes))

    def histories(
        self, users: Any = None, *, codes: NDArray[np.integer] | Sequence[int] | None = None
    ) -> Histories:
        """As `history`, but each part is built when it is asked for: for many shoppers."""
        require_threads()
        if users is None and codes is None:
            codes = np.arange(self.n_users)
        return Histories(self, *self._asked(users, codes))

    def _asked(self, users: Any, codes: Any) -> tuple[NDArray[np.int64], pl.Series | None]:
        """Codes of the users asked for, and their ids if asked by ids."""
        if codes is None:
            ids = self._of_today(users)
            if n := ids.null_count():
                raise DataError(
                    f"history: {n:,} of {len(ids):,} shoppers asked for have no id; leave them out."
                )
            own = self.users[USER_ID]
            alike = ids.cast(own.dtype, strict=False)
            if (alike.cast(pl.String) == ids.cast(pl.String)).fill_null(False).all():
                return row_of_ids(alike, own), alike
            return row_of_ids(ids, own), ids.cast(pl.String)  # an id such as "x" is answered as it is
        if users is not None:
            raise DataError("history: give ids or codes of shoppers, not both.")
        return self._checked_codes(codes), None

    def history_of_codes(self, codes: NDArray[np.int64], ids: pl.Series | None = None) -> History:
        """Histories of checked codes; -1 is an unknown shopper, whose id `ids` may tell."""
        table = self.user_rows(codes, ids)
        lines, rows = self._lines_of(codes)
        if len(lines) and lines[-1] - lines[0] + 1 == len(lines) and (np.diff(codes) > 0).all():
            log = self.log.slice(int(lines[0]), len(lines))  # a shard: no copy
            return History.from_log(log, rows, table, self.end, self.n_items, self.catalogue_key)
        return History.from_log(
            self.log, rows, table, self.end, self.n_items, self.catalogue_key, lines
        )

    def histories_in_parts(self, size: int = 2048) -> Iterator[History]:
        """Histories of all shoppers, `size` of them at a time: for what can be added up."""
        for at in range(0, self.n_users, size):
            yield self.history_of_codes(np.arange(at, min(at + size, self.n_users)))

    def user_codes(self, ids: Any) -> NDArray[np.int64]:
        """Codes of shoppers by their ids, in their order; -1 for an id that is not known.

        Examples
        --------
        >>> lines = {"user_id": ["u1", "u2"], "item_id": [1, 2], "time": ["2024-01-01"] * 2}
        >>> RetailData.from_frames(pl.DataFrame(lines)).user_codes(["u2", "u9"]).tolist()
        [1, -1]
        """
        return row_of_ids(self._of_today(ids), self.users[USER_ID])

    def _of_today(self, users: Any) -> pl.Series:
        """Ids of shoppers that are asked for, the old ones replaced."""
        ids = id_series(users, who="the shoppers asked for")
        return self.changed_ids.applied(ids.alias(USER_ID))

    def _checked_codes(self, users: NDArray[np.integer] | Sequence[int]) -> NDArray[np.int64]:
        codes = np.asarray(users)
        if codes.size and (
            not np.issubdtype(codes.dtype, np.integer)
            or not -1 <= int(codes.min()) <= int(codes.max()) < self.n_users
        ):
            raise DataError(
                f"history: codes of shoppers must be whole numbers from 0 to {self.n_users - 1} "
                f"(-1: unknown), not {codes.ravel()[:3].tolist()}. Ids need no name: history(ids)."
            )
        return codes.astype(np.int64)

    def user_rows(self, codes: NDArray[np.int64], ids: pl.Series | None = None) -> pl.DataFrame:
        """Rows of `users`, all null for code -1 but for the id, where `ids` has those asked for.

        Ids are of the type of `ids`.
        """
        table = self.users[np.maximum(codes, 0)] if self.n_users else self.users.clear(len(codes))
        if (codes < 0).any():
            known = pl.Series(codes >= 0)
            table = table.with_columns(pl.when(known).then(pl.col(c)).alias(c) for c in table.columns)
        return table if ids is None else table.with_columns(ids.alias(USER_ID))

    @cached_property
    def full_history(self) -> History:
        """Histories of all shoppers, kept for the sources that learn about items."""
        return self.history()

    def forget_history(self) -> None:
        """Let go of `full_history`; it is built again when somebody asks."""
        vars(self).pop("full_history", None)

    def with_items(self, items: pl.DataFrame) -> RetailData:
        """The same receipts with another description of the same items, in the same order.

        Raises
        ------
        DataError
            If the items are others.
        """
        _require_same(items, self.items, ITEM_ID)
        described = self._same_codes(replace(self, items=items))
        if "full_history" in vars(self):  # it knows codes only, so it need not be built again
            vars(described)["full_history"] = self.full_history
        return described

    def with_users(self, users: pl.DataFrame) -> RetailData:
        """The same receipts with another description of the same users, in the same order.

        Raises
        ------
        DataError
            If the users are others.
        """
        _require_same(users, self.users, USER_ID)
        return self._same_codes(replace(self, users=users))

    def _same_codes(self, other: RetailData) -> RetailData:
        """`other`, whose items are this one's, with the key of their coding if it was computed."""
        if "catalogue_key" in vars(self):
            vars(other)["catalogue_key"] = self.catalogue_key
        return other

    def fingerprint(self) -> str:
        """Digest of all that is known: the same data gives the same one."""
        text = pl.col(pl.Categorical).cast(pl.String)  # codes hang on what else a process has read
        frames = (frame.with_columns(text) for frame in (self.log, self.items, self.users))
        sums: list[Any] = [int(frame.hash_rows(seed=0).sum() or 0) for frame in frames]
        sums += [] if self.population is None else [self.population.fingerprint()]
        return hashlib.sha256(repr([self.end, self.log.height, sums]).encode()).hexdigest()

    def _lines_of(self, codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of the log lines of these shoppers, and each line's shopper as place in `codes`."""
        user = self.log["user"].to_numpy()
        asked = codes.astype(user.dtype)  # of another type, all of `user` would be converted
        start = np.searchsorted(user, asked, "left")
        size = np.searchsorted(user, asked, "right") - start  # of -1, which no line has, 0
        stop = np.cumsum(size)
        lines = np.repeat(start - stop + size, size) + np.arange(stop[-1] if len(stop) else 0)
        return lines, np.repeat(np.arange(len(codes)), size)

    def with_item_codes_of(self, items: pl.DataFrame) -> Recoded:
        """This data in the item codes of another catalogue, without events that it does not know."""
        own = ids_like(self.items[ITEM_ID], items[ITEM_ID], who="the fresh receipts")
        coded = items.select(ITEM_ID).with_row_index("code")
        codes = own.to_frame().join(coded, on=ITEM_ID, how="left", maintain_order="left")["code"]
        codes = codes.cast(pl.Int32)
        log = self.log.with_columns(item=codes.gather(self.log["item"]))
        placed = log.filter(pl.col("item").is_not_null())
        sold = np.zeros(self.n_items, np.bool_)
        sold[self.log["item"].to_numpy()] = True
        unknown = self.items[ITEM_ID].filter(codes.is_null() & pl.Series(sold))
        return Recoded(
            replace(self, log=placed, items=items),
            Unplaced(log.height, log.height - placed.height, unknown),
        )


class Recoded(NamedTuple):
    """Data in the item codes of another catalogue, and what could not be placed there."""

    data: RetailData
    unplaced: Unplaced


def summarise(report: LoadReport, log: pl.DataFrame) -> None:
    """Tell `report` what a log that is not empty holds."""
    first, last = log["time"].min(), log["time"].max()
    assert isinstance(first, datetime)
    assert isinstance(last, datetime)
    report.kept, report.first, report.last = log.height, first, last
    report.n_users, report.n_items = log["user"].n_unique(), log["item"].n_unique()
    report.n_baskets = log["basket"].n_unique()
    report.notes += [*piece_value_notes(log), *receipt_value_notes(log)]
    report.note_receipts()


def unit_prices(data: RetailData) -> NDArray[np.float64]:
    """(n_items,) unit price on the last day that the item was sold; NaN where not known."""
    return data.engine.prices(data.end)


def has_money(data: RetailData) -> bool:
    """Whether the value of any line is known; sums of money say nothing otherwise."""
    return data.log["value"].null_count() < data.log.height


def item_buyers(
    data: RetailData, start: datetime | None = None, end: datetime | None = None
) -> NDArray[np.float64]:
    """(n_items,) users who bought the item in [start, end); at any time by default."""
    return data.engine.buyers(start, end or data.end)


def item_lines(
    data: RetailData, start: datetime | None = None, end: datetime | None = None
) -> NDArray[np.float64]:
    """(n_items,) receipts with the item in [start, end); all of them by default."""
    return data.engine.lines(start, end or data.end)


@dataclass(eq=False)
class Part:
    """Some users with all their receipts: what is known of them, and the log rows that follow.

    Attributes
    ----------
    asked : `user_id` and further columns of those asked for, all of them users of `past`; None: all
    progress : called with how far a function is
    kept : what functions of the same part keep for each other
    """

    past: RetailData
    target: pl.DataFrame
    asked: pl.DataFrame | None = None
    progress: Progress = silent
    kept: dict[str, Any] = field(default_factory=dict)


def _require_same(table: Any, known: pl.DataFrame, id_column: str) -> None:
    """Raise if a table does not describe, in their order, what receipts know by its place."""
    ids = table.get_column(id_column, default=None) if isinstance(table, pl.DataFrame) else None
    if ids is None or not ids.equals(known[id_column]):
        raise DataError(
            f"another description must be a Polars frame of the same {id_column}s in the same order; "
            f"add columns to the one that there is."
        )


Mapped = tuple[pl.DataFrame, Any]  # a part's rows, and facts of it as JSON can hold them


class Users(Protocol):
    """All users of an engine, in parts."""

    def map(
        self,
        function: Callable[[Part], Mapped],
        schema: Mapping[str, pl.DataType],
        asked: pl.DataFrame | None = None,
        progress: Progress = silent,
    ) -> tuple[pl.DataFrame, list[Any]]:
        """The rows of all parts in order of user, and the facts of each part that has any.

        Parameters
        ----------
        function : of a part; its rows have `user_id` and the columns of `schema`
        asked : the only users to take, as `user_id` and further columns
        """


class Engine(Protocol):
    """Where all users' receipts lie: counts items over them and takes functions to them."""

    def totals(self, of_part: Callable[[History], Totals], end: datetime) -> Totals:
        """`of_part` of some users, over all of them, of what lies before `end`."""

    def lines(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) receipts with the item in [start, end)."""

    def buyers(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) users who bought the item in [start, end)."""

    def prices(self, end: datetime) -> NDArray[np.float64]:
        """(n_items,) unit price on the last day before `end` that the item was sold; NaN if unknown."""

    def n_active(self, end: datetime) -> int:
        """Users who bought anything before `end`."""

    def users(self, past: RetailData, target: pl.DataFrame, end: datetime) -> Users:
        """All users: what lies before `past.end`, and what follows up to `end`.

        `past` and `target` are of this machine's users; its items are those of all parts.
        """

    def share(self, value: Any) -> Callable[[], Any]:
        """What gives the value (of a class that can be saved) wherever a function runs."""

    def fingerprint(self) -> str:
        """Text that is equal where all lines are."""


class Population(Engine, Protocol):
    """An engine of all users, where data holds a sample of them."""

    def write_lists(
        self, model: Any, out: Path, request: Any, output: Any, progress: Progress = silent
    ) -> Any:
        """Write a recommender's lists of all users, as `recommend_to_file` does."""


@dataclass(frozen=True)
class LocalEngine:
    """The users of some data, on this machine: an `Engine` of one part."""

    data: RetailData

    def totals(self, of_part: Callable[[History], Totals], end: datetime) -> Totals:
        """`of_part` of all users, 2,048 of them at a time."""
        data = self.data if end == self.data.end else self.data.asof(end)
        return total_of(of_part(history) for history in data.histories_in_parts())

    def lines(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) receipts with the item in [start, end)."""
        items = self._span(start, end)["item"].to_numpy()
        return np.bincount(items, minlength=self.data.n_items).astype(np.float64)

    def buyers(self, start: datetime | None, end: datetime) -> NDArray[np.float64]:
        """(n_items,) users who bought the item in [start, end)."""
        log = self._span(start, end)  # the lines of a user lie together
        user, item = (log[c].to_numpy() for c in ("user", "item"))
        return np.asarray(count_buyers(user, item, self.data.n_items))

    def prices(self, end: datetime) -> NDArray[np.float64]:
        """(n_items,) unit price on the last day before `end` that the item was sold; NaN if unknown."""
        last = self._span(None, end).filter(pl.col("value").is_not_null())
        last = last.filter(pl.col("time").dt.date() == pl.col("time").dt.date().max().over("item"))
        price = last.group_by("item").agg(pl.col("value").sum() / pl.col("quantity").sum())
        out = np.full(self.data.n_items, np.nan)
        out[price["item"].to_numpy()] = price["value"].to_numpy()
        return out

    def n_active(self, end: datetime) -> int:
        """Users who bought anything before `end`."""
        return self._span(None, end)["user"].n_unique()

    def users(self, past: RetailData, target: pl.DataFrame, end: datetime) -> LocalUsers:
        """The users of `past`."""
        return LocalUsers(Part(past, target))

    def share(self, value: Any) -> Callable[[], Any]:
        """What gives the value."""
        return lambda: value

    def fingerprint(self) -> str:
        """Text that is equal where the data is."""
        return self.data.fingerprint()

    def _span(self, start: datetime | None, end: datetime) -> pl.DataFrame:
        if start is None and end >= self.data.end:
            return self.data.log
        return self.data.between(self.data.start if start is None else start, end)


class LocalUsers(NamedTuple):
    """Users on this machine: one part, whose functions share the cores."""

    part: Part

    def map(
        self,
        function: Callable[[Part], Mapped],
        schema: Mapping[str, pl.DataType],
        asked: pl.DataFrame | None = None,
        progress: Progress = silent,
    ) -> tuple[pl.DataFrame, list[Any]]:
        """The function's rows and facts."""
        rows, facts = function(replace(self.part, asked=asked, progress=progress))
        return rows, [] if facts is None else [facts]


def total_of(parts: Iterable[Totals]) -> Totals:
    """The totals of all parts together; the arrays of the first are written over."""
    totals: Totals = []
    for part in parts:
        for (how, one), (_, other) in zip(totals, part, strict=bool(totals)):
            how(one, other, out=one)
        totals = totals or part
    return totals


def category_codes(items: pl.DataFrame) -> NDArray[np.int32] | None:
    """(n_items,) codes of the second broadest category known, else the broadest; -1 where unknown."""
    known = [c for c in CATEGORIES[:2] if c in items.columns and items[c].null_count() < items.height]
    if not known:
        return None
    return text_codes(items[known[-1]])[0]


def text_codes(values: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Codes of the distinct values in the order of their text, -1 where missing; and the texts.

    Examples
    --------
    >>> codes, texts = text_codes(pl.Series(["tea", None, "ale", "tea"]))
    >>> codes, texts.to_list()
    (array([ 1, -1,  0,  1], dtype=int32), ['ale', 'tea'])
    """
    text = values.cast(pl.String)
    codes = text.rank("dense").cast(pl.Int32) - 1
    return codes.fill_null(-1).to_numpy(), text.drop_nulls().unique().sort()

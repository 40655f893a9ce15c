"""Ledger of offers: who was offered what, when, by which model and campaign, holdouts included.

Batch campaigns and the service's exposure log write the same table, a folder of Parquet files with the
columns of `LEDGER`. Every file appears in one step; a campaign is there whole or not at all.

A shopper who was assigned and got nothing (a holdout, or no offer left) has one row with rank 0 and no
item, so that effects can be told by assignment and not by what was received.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from retailrec.data.interchange import to_polars
from retailrec.data.locks import locked
from retailrec.data.writing import whole_file
from retailrec.errors import DataError

LEDGER: Mapping[str, Any] = MappingProxyType(
    {
        "campaign": pl.String,  # name of the campaign, or of the place where a service showed it
        "user_id": pl.String,  # the caller's id as text
        "item_id": pl.String,  # null where nothing was shown
        "time": pl.Datetime("us"),  # when it was shown or sent
        "model": pl.String,  # what gave the scores, such as an artifact's key; may be empty
        "rank": pl.Int32,  # place in the shopper's list from 1; 0: nothing was shown
        "score": pl.Float64,  # the score or value that decided; null where unknown
        "price": pl.Float64,  # shadow price that the value had to exceed; null where there was none
        "arm": pl.String,  # arm of the experiment; may be empty
        # chance, known before anything was drawn, that this user was shown this item: that of the
        # user's arm (1 less the holdout where there is one arm) times that of the exploring coin; a
        # list that is computed is not drawn. Null where nothing was shown
        "propensity": pl.Float64,
        "holdout": pl.Boolean,  # was the shopper held out on purpose?
    }
)
_MAY_BE_NULL = ("item_id", "score", "price", "propensity")


def ledger_frame(rows: Any, *, who: str = "ledger rows") -> pl.DataFrame:
    """Rows in the ledger's columns, order and types; ids become text.

    Columns that may be null may also be missing; `arm` and `model` are empty and `holdout` is false
    where they are missing.

    Raises
    ------
    DataError
        If a column is missing or of another kind, if a value is null, NaN or out of range, or if a row
        with rank 0 names an item (or one with an item has rank 0).

    Examples
    --------
    >>> rows = {"campaign": ["may"], "user_id": [7], "item_id": [3], "time": [datetime(2024, 5, 1)],
    ...         "rank": [1], "propensity": [1.0]}
    >>> ledger_frame(pl.DataFrame(rows)).select("user_id", "item_id", "holdout").row(0)
    ('7', '3', False)
    """
    frame = to_polars(rows, who=who)
    defaults: dict[str, Any] = {"model": "", "arm": "", "holdout": False}
    defaults |= dict.fromkeys(_MAY_BE_NULL)
    missing = [name for name in LEDGER if name not in frame.columns and name not in defaults]
    if missing:
        raise DataError(
            f"{who} lack column '{missing[0]}'; they have {frame.columns}. See LEDGER for all columns."
        )
    columns = []
    for name, kind in LEDGER.items():
        column = pl.col(name) if name in frame.columns else pl.lit(defaults[name]).alias(name)
        columns.append(column.cast(kind))
    try:
        checked = frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{who} have a column of another kind than the ledger's: {str(error).splitlines()[0]}. "
            f"Expected {', '.join(f'{name} {kind}' for name, kind in LEDGER.items())}."
        ) from error
    _refuse_bad_rows(checked, who)
    return checked


@dataclass(frozen=True)
class Ledger:
    """A folder of ledger files, or one file that is only read: what a service showed.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> row = {"campaign": ["may"], "user_id": [7], "item_id": [3], "time": [datetime(2024, 5, 1)],
    ...        "rank": [1], "propensity": [1.0]}
    >>> with TemporaryDirectory() as folder:
    ...     ledger = Ledger(Path(folder) / "ledger")
    ...     _ = ledger.append(pl.DataFrame(row))
    ...     ledger.read()["campaign"].to_list()
    ['may']
    """

    folder: Path

    def append(self, rows: Any, *, again: bool = False) -> Path | None:
        """Add rows as one new file, in one step; returns the file, or None for no rows.

        Parameters
        ----------
        rows : frame with the columns of `LEDGER`, as `ledger_frame` takes it
        again : may a shopper who already stands in the ledger for this campaign be offered again?
            A service that logs every answer says True.

        Raises
        ------
        DataError
            If rows do not fit the ledger, a shopper would be offered twice for one campaign, or the
            ledger is a single file, which is only read.
        """
        with self.recording(again=again) as record:
            return record(rows)

    @contextmanager
    def recording(self, *, again: bool = False) -> Iterator[Callable[[Any], Path | None]]:
        """Hold the ledger, and take rows that stand in it once the block has ended well.

        Nobody else writes meanwhile, so what is read within the block is still true when its rows are
        written; a second writer waits. Rows are checked and written aside at once, and become part of
        the ledger in one step at the end: what the block delivers is there before the ledger says so.

        Yields
        ------
        A function that takes rows, once, as `append` does and returns their file.

        Raises
        ------
        DataError
            As `append`.
        """
        if self.folder.is_file():
            raise DataError(
                f"ledger {self.folder} is a file; expected a folder to add offers to. Name a folder."
            )
        made = not self.folder.exists()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"ledger {self.folder} can't be written: {error}.") from error
        with locked(self.folder, wait=True):
            try:
                with ExitStack() as writing:
                    yield lambda rows: self._record(rows, again, writing)
            except BaseException:
                with suppress(OSError):
                    if made:
                        self.folder.rmdir()  # unless something stands in it
                raise

    def _record(self, rows: Any, again: bool, writing: ExitStack) -> Path | None:
        frame = ledger_frame(rows)
        if frame.is_empty():
            return None
        if not again:
            self._refuse_repeats(frame)
        files = self._files()
        number = int(files[-1].name.split("-")[1]) + 1 if files else 0
        digest = hashlib.sha256(frame.hash_rows(seed=0).to_numpy().tobytes()).hexdigest()[:16]
        file = self.folder / f"offers-{number:08d}-{digest}.parquet"
        frame.write_parquet(writing.enter_context(whole_file(file)))
        return file

    def scan(self) -> pl.LazyFrame:
        """All rows, lazily, in the order of writing.

        Raises
        ------
        DataError
            If a file is not a ledger file.
        """
        files = self._files()
        if not files:
            return pl.LazyFrame(schema=dict(LEDGER))
        for file in files:
            try:
                schema = dict(pl.scan_parquet(file, glob=False).collect_schema())
            except (pl.exceptions.PolarsError, OSError) as error:
                raise DataError(
                    f"{file} can't be read as a ledger file ({str(error).splitlines()[0]}). "
                    f"It may be cut short; restore it or move it out of the ledger's folder."
                ) from error
            if schema != dict(LEDGER):
                raise DataError(
                    f"{file} is no ledger file: expected columns {list(LEDGER)} with the ledger's "
                    f"types, got {schema}. Move it out of the ledger's folder."
                )
        return pl.scan_parquet(files, glob=False)  # a name may hold brackets

    def read(
        self,
        campaigns: Sequence[str] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> pl.DataFrame:
        """Rows of some campaigns (all by default) with `since` <= time < `until`."""
        rows = self.scan()
        if campaigns is not None:
            rows = rows.filter(pl.col("campaign").is_in(list(campaigns)))
        if since is not None:
            rows = rows.filter(pl.col("time") >= since)
        if until is not None:
            rows = rows.filter(pl.col("time") < until)
        return rows.collect()

    def offers_of(
        self, *, since: datetime | None = None, until: datetime | None = None, item: bool = False
    ) -> pl.DataFrame:
        """How often each shopper (and with `item`, each shopper and item) was offered something.

        Returns `user_id`, (`item_id`,) `offers`; ids are text. Frequency caps are made of this.
        """
        shown = self.read(since=since, until=until).filter(pl.col("rank") > 0)
        keys = ["user_id", "item_id"] if item else ["user_id"]
        return shown.group_by(keys).agg(offers=pl.len().cast(pl.Int64)).sort(keys)

    def offers_around(self, now: datetime, period: timedelta, *, item: bool = False) -> pl.DataFrame:
        """The most offers that stand in any `period` around `now`, of each shopper (and item).

        Offers of the same moment and of later ones count, too, so that no period of this length holds
        more than a cap allows, in whatever order campaigns are allocated. Returned as by `offers_of`,
        those with at least one.
        """
        first, last = (_shifted(now, step) for step in (-period, period))
        keys = ["user_id", "item_id"] if item else ["user_id"]
        shown = self.read(since=first).filter((pl.col("rank") > 0) & (pl.col("time") <= last))
        now_itself = shown.select(keys).unique().with_columns(time=pl.lit(now, pl.Datetime("us")), n=0)
        rows = pl.concat([shown.select(*keys, "time", n=1), now_itself]).sort(*keys, "time")
        periods = rows.rolling(
            "time", period=period, offset=timedelta(0), closed="both", group_by=keys
        ).agg(pl.col("n").sum().cast(pl.Int64))
        most = periods.filter(pl.col("time") <= now).group_by(keys)
        return most.agg(offers=pl.col("n").max()).sort(keys)

    def require(self) -> Ledger:
        """The ledger itself, once it is known to be there.

        Raises
        ------
        DataError
            If there is no file, and no folder with ledger files.
        """
        if self._files():
            return self
        there = "it holds no ledger file" if self.folder.is_dir() else "there is nothing"
        raise DataError(
            f"there is no ledger at {self.folder}: {there}. Name the folder that offers were written "
            f"to, or the file that a service exported."
        )

    def _files(self) -> list[Path]:
        if self.folder.is_file():  # what a service showed, as its store exports it
            return [self.folder]
        return sorted(self.folder.glob("offers-*.parquet"))

    def _refuse_repeats(self, frame: pl.DataFrame) -> None:
        keys = ["campaign", "user_id"]
        twice = frame.filter(pl.col("rank") > 0).group_by([*keys, "rank"]).len()
        same = frame.filter(pl.col("rank") > 0).group_by([*keys, "item_id"]).len()
        for found, what in ((twice, "two offers at one rank"), (same, "one item twice")):
            if not (bad := found.filter(pl.col("len") > 1).sort(keys)).is_empty():
                raise DataError(
                    f"ledger: shopper {bad['user_id'][0]} has {what} in campaign "
                    f"'{bad['campaign'][0]}'. Give every slot of a shopper once, or say again=True."
                )
        wanted = frame.select(keys).unique()
        there = self.scan().select(keys).unique().collect()
        if not (bad := wanted.join(there, on=keys).sort(keys)).is_empty():
            raise DataError(
                f"ledger: {bad.height:,} shoppers already stand in campaign "
                f"'{bad['campaign'][0]}', such as {bad['user_id'][0]}; a shopper gets a campaign once. "
                f"Name the campaign anew, leave them out, or allow it with again=True."
            )


def _shifted(time: datetime, step: timedelta) -> datetime:
    try:
        return time + step
    except OverflowError:
        return datetime.min if step < timedelta(0) else datetime.max


def _refuse_bad_rows(frame: pl.DataFrame, who: str) -> None:
    for name in LEDGER:
        if name not in _MAY_BE_NULL and frame[name].null_count():
            raise DataError(
                f"{who}: column '{name}' is empty in {frame[name].null_count():,} rows; "
                f"it must be filled in every row."
            )
    shown = pl.col("rank") > 0
    bad: list[tuple[pl.Expr, str]] = [
        (pl.col("rank") < 0, "rank must be 0 (nothing shown) or more"),
        (shown != pl.col("item_id").is_not_null(), "an item stands at rank 1 or more, none at rank 0"),
        (shown & pl.col("propensity").is_null(), "every shown slot needs its propensity"),
        (pl.col("holdout") & shown, "a held-out shopper is shown nothing"),
        (
            pl.col("propensity").is_nan() | ~pl.col("propensity").is_between(0, 1, closed="right"),
            "propensity must lie above 0 and be at most 1",
        ),
        (~pl.col("score").is_finite(), "score must be a number or null"),
        (~pl.col("price").is_finite(), "price must be a number or null"),
    ]
    for rule, sentence in bad:
        rows = frame.filter(rule.fill_null(False))
        if not rows.is_empty():
            raise DataError(
                f"{who}: {sentence}; {rows.height:,} rows differ, the first of shopper "
                f"{rows['user_id'][0]}: {dict(zip(rows.columns, rows.row(0), strict=True))}. "
                f"Correct these rows."
            )

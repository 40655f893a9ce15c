"""Ledger of offers: who was offered what, when, by which model and campaign, holdouts included.

Batch campaigns and the service's exposure log write the same table, a folder of Parquet files with the
columns of `LEDGER`. Every file appears in one step; a campaign is there whole or not at all.

A shopper who was assigned and got nothing (a holdout, or no offer left) has one row with rank 0 and no
item, so that effects can be told by assignment and not by what was received.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import polars as pl

from retailrec.components import check_settings, checked
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import as_instant, parse_time, typed_ids
from retailrec.errors import DataError
from retailrec.offers.arms import HOLDOUT
from retailrec.schema import POOL
from retailrec.work import locked, make_folder, whole_file

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
_OURS = r"(offers|pool)-\d{8}-[0-9a-f]{16}\.parquet"
_NAME = re.compile(_OURS + r"|pool-\d{6}-\d{5}\.parquet")  # or parts of waves that Spark writes
_MAY_BE_NULL = ("item_id", "score", "price", "propensity")
_IDS = ("user_id", "item_id")
_OF_REQUEST = ("user_id", "time", "policy", "arm", "pool")  # of a pool: the same in all its rows


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
    checked = _in_columns(frame, LEDGER, defaults, who)
    _refuse_bad_rows(checked, who)
    return checked


def _in_columns(
    frame: pl.DataFrame, schema: Mapping[str, Any], defaults: Mapping[str, Any], who: str
) -> pl.DataFrame:
    """The columns of a schema, in its order and types; those that may be missing by their defaults."""
    missing = [name for name in schema if name not in frame.columns and name not in defaults]
    if missing:
        raise DataError(
            f"{who} lack column '{missing[0]}'; they have {frame.columns}. Expected {list(schema)}."
        )
    columns = []
    for name, kind in schema.items():
        if name not in frame.columns:
            columns.append(pl.lit(defaults[name], dtype=kind).alias(name))
        elif name in _IDS:
            columns.append(pl.lit(typed_ids(frame[name]).cast(kind)))
        elif name == "time":
            columns.append(pl.lit(parse_time(frame[name], who=who)))
        else:
            if kind.is_integer() and frame[name].dtype.is_float():
                _refuse_broken(frame[name], who)
            columns.append(pl.col(name).cast(kind))
    try:
        return frame.select(columns)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{who} have a column of another kind than the ledger's: {str(error).splitlines()[0]}. "
            f"Expected {', '.join(f'{name} {kind}' for name, kind in schema.items())}."
        ) from error


def pool_frame(rows: Any, *, who: str = "pool rows") -> pl.DataFrame:
    """Rows in the columns of `POOL`: every item that a request could show, shown or not.

    `score` may be null or missing and `arm` missing.

    Raises
    ------
    DataError
        If a column is missing or of another kind, a chance does not lie above 0 and up to 1, a score is
        no number, a rank is none from 1 on or stands twice, an item stands twice in a request, or rows
        of a request differ in what is the request's, or are more than its pool.

    Examples
    --------
    >>> from retailrec.offers.exploration import explore
    >>> drawn = explore([3, 2, 1], ["a", "b", "c"], 1, 0.2, salt="may", users=[7, 7, 7])
    >>> rows = drawn.with_columns(request=pl.lit("r1"), time=datetime(2024, 5, 1), policy=pl.lit("m"))
    >>> pool_frame(rows).select("item_id", "propensity", "rank", "pool").rows()
    [('a', 0.8, 1, 3), ('b', 0.1, 2, 3), ('c', 0.1, 3, 3)]
    """
    frame = to_polars(rows, who=who)
    if "propensity" not in frame.columns:
        raise DataError(
            f"{who} lack column 'propensity', the chance that each item is shown; they have "
            f"{frame.columns}. Lists drawn by `explore` have it; without it nothing can be judged."
        )
    checked = _in_columns(frame, POOL, {"score": None, "arm": ""}, who)
    for name in POOL:
        if name != "score" and (n := checked[name].null_count()):
            raise DataError(f"{who}: column '{name}' is empty in {n:,} rows; fill it in every row.")
    chance = checked.filter(
        pl.col("propensity").is_nan() | ~pl.col("propensity").is_between(0, 1, closed="right")
    )
    if not chance.is_empty():
        raise DataError(
            f"{who}: propensity must lie above 0 and be at most 1; {chance.height:,} rows differ, "
            f"such as user {chance['user_id'][0]}, item {chance['item_id'][0]}: "
            f"{chance['propensity'][0]}. An item that could not be shown is not of the pool."
        )
    twice = checked.filter(pl.struct("request", "item_id").is_duplicated())
    if not twice.is_empty():
        raise DataError(
            f"{who}: request '{twice['request'][0]}' has item {twice['item_id'][0]} twice: the same "
            f"request stands in the log twice. Keep one of them."
        )
    if n := int((~checked["score"].is_finite()).sum()):
        raise DataError(f"{who}: score must be a number or empty; {n:,} rows differ. Correct them.")
    by = checked.group_by("request").agg(pl.len(), pl.col(*_OF_REQUEST).n_unique().name.suffix("s"))
    for name in _OF_REQUEST:
        if not (wrong := by.filter(pl.col(f"{name}s") > 1).sort("request")).is_empty():
            raise DataError(
                f"{who}: request '{wrong['request'][0]}' has {wrong[f'{name}s'][0]} values of "
                f"'{name}'; a request is one user's, of one time. Name requests apart."
            )
    wrong = checked.filter(pl.len().over("request") > pl.col("pool")).sort("request")
    if not wrong.is_empty():
        of = wrong["request"][0]
        raise DataError(
            f"{who}: request '{of}' has {(wrong['request'] == of).sum()} rows of a pool of "
            f"{wrong['pool'][0]}; there is a row for each item. Name requests apart."
        )
    place = pl.struct("request", "rank")
    if not (wrong := checked.filter((pl.col("rank") < 1) | place.is_duplicated())).is_empty():
        raise DataError(
            f"{who}: rank is the place in the pool, each once from 1 on; {wrong.height:,} rows differ, "
            f"such as rank {wrong['rank'][0]} of request '{wrong['request'][0]}'. Correct them."
        )
    return checked


def _refuse_broken(numbers: pl.Series, who: str) -> None:
    """Raise a DataError if numbers that count something are not whole."""
    if len(broken := numbers.filter(numbers != numbers.round())):
        raise DataError(
            f"{who}: column '{numbers.name}' must be whole; {len(broken):,} rows differ, such as "
            f"{broken[0]}. Correct them."
        )


@dataclass(frozen=True)
class Ledger:
    """A folder of ledger files, or one file that is only read: what a service showed.

    Parameters
    ----------
    changed_ids : ids that changed: what is read has the new ones, files stay as they are

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
    changed_ids: ChangedIds = field(default_factory=ChangedIds)

    def __post_init__(self) -> None:
        check_settings(self, "ledger")

    @checked
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
    def recording(self, *, again: bool = False) -> Iterator[Callable[..., Path | None]]:
        """Hold the ledger, and take rows that stand in it once the block has ended well.

        No other process writes meanwhile, so what is read within the block is still true when its rows
        are written; a second writer waits. Rows are checked and written aside at once, and become part
        of the ledger in one step at the end: what the block delivers is there before the ledger says
        so.

        Yields
        ------
        A function that takes rows, once, as `append` does and returns their file; and with them, if
        there are any, the rows of a pool.

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
            make_folder(self.folder)
        except OSError as error:
            raise DataError(f"ledger {self.folder} can't be written: {error}.") from error
        with locked(self.folder, wait=True):
            try:
                with ExitStack() as writing:
                    yield lambda rows, pool=None: self._record(rows, again, writing, pool)
            except BaseException:
                with suppress(OSError):
                    if made:
                        self.folder.rmdir()  # unless something stands in it
                raise

    def _record(
        self, rows: Any, again: bool, writing: ExitStack, pool: pl.DataFrame | None
    ) -> Path | None:
        frame, file = ledger_frame(rows), None
        if not again:
            self._refuse_repeats(frame)
        if not frame.is_empty():
            file = self._next_file("offers", self._files(), frame)
            frame.write_parquet(writing.enter_context(whole_file(file)))
        if pool is not None and not pool.is_empty():
            self._write_pool(pool, writing)  # in place before the offers, which a rerun looks for
        return file

    @checked
    def append_pool(self, rows: Any, *, shown_only: bool = False) -> Path | None:
        """Add the explored pool of some lists, and what was shown of it as offers; the pool's file.

        The same rows again change nothing, so that a call that was cut off can be repeated.

        Parameters
        ----------
        rows : frame with the columns of `POOL`, as `pool_frame` takes it
        shown_only : keep the pool rows of what was shown alone, k / `pool` of the size: fit for caps
            and reports, not for judging other lists

        Raises
        ------
        DataError
            As `pool_frame` and `append`, with `again`.
        """
        frame = pool_frame(rows)
        if frame.is_empty():
            return None
        offers = offers_of_pool(frame)
        if shown_only:
            frame = frame.filter("shown")
        with self.recording(again=True) as record, ExitStack() as writing:
            file = self._write_pool(frame, writing)
            if not any(one.stem.endswith(_digest(offers)) for one in self._files()):
                record(offers)
        return file

    def _write_pool(self, frame: pl.DataFrame, writing: ExitStack) -> Path:
        """Write pool rows aside, which appear when `writing` ends, unless a killed call wrote them."""
        there = self._pool_files()
        if same := [file for file in there if file.stem.endswith(_digest(frame))]:
            return same[0]
        known = self._scan(there, POOL).select(pl.col("request").unique()).collect()["request"]
        if (again := frame["request"].is_in(known.implode())).any():
            raise DataError(
                f"ledger {self.folder}: request '{frame['request'].filter(again)[0]}' stands in it "
                f"already. Record a request once."
            )
        file = self._next_file("pool", there, frame)
        frame.write_parquet(writing.enter_context(whole_file(file)))
        return file

    @checked
    def read_pool(self, policy: str | None = None, *, every: bool = False) -> pl.DataFrame:
        """Rows of the explored pools, of one policy or of `every` one, in the order of writing.

        Raises
        ------
        DataError
            If there are none, several policies and none is named, or a file is of another kind.
        """
        if not self.folder.exists():
            self.require()
        rows = self._scan(self._pool_files(), POOL).collect()
        names = rows["policy"].unique().sort().to_list()
        if rows.is_empty() or (policy is not None and policy not in names):
            raise DataError(
                f"ledger {self.folder} holds no explored pool"
                + (f" of policy '{policy}'; there are {', '.join(names[:5])}" if names else "")
                + ". Lists drawn by `explore` and written by `append_pool` have one."
            )
        if policy is None and not every and len(names) > 1:
            raise DataError(
                f"ledger {self.folder} holds pools of {len(names)} policies: {', '.join(names[:5])}. "
                f"Name the one to judge from."
            )
        return rows if policy is None else rows.filter(pl.col("policy") == policy)

    def scan(self) -> pl.LazyFrame:
        """All rows, lazily, in the order of writing.

        Raises
        ------
        DataError
            If a file is not a ledger file.
        """
        return self._scan(self._files(), LEDGER)

    def _scan(self, files: list[Path], kinds: Mapping[str, Any]) -> pl.LazyFrame:
        if not files:
            return pl.LazyFrame(schema=dict(kinds))
        for file in files:
            try:
                schema = dict(pl.scan_parquet(file, glob=False).collect_schema())
            except (pl.exceptions.PolarsError, OSError) as error:
                raise DataError(
                    f"{file} can't be read as a ledger file ({str(error).splitlines()[0]}). "
                    f"It may be cut short; restore it or move it out of the ledger's folder."
                ) from error
            if schema != dict(kinds):
                raise DataError(
                    f"{file} is no ledger file: expected columns {list(kinds)} with the ledger's "
                    f"types, got {schema}. Move it out of the ledger's folder."
                )
        rows = pl.scan_parquet(files, glob=False)  # a name may hold brackets
        rows = rows.with_columns(pl.col(*_IDS).str.strip_chars())
        return (
            rows.map_batches(self.changed_ids.renamed, schema=dict(kinds)) if self.changed_ids else rows
        )

    @checked
    def read(
        self,
        campaigns: Sequence[str] | None = None,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> pl.DataFrame:
        """Rows of some campaigns (all by default) with `since` <= time < `until`.

        Raises
        ------
        DataError
            If a file is not a ledger file, or a row lacks what every row has: held out or not is then
            not known.
        """
        wanted = []
        if campaigns is not None:
            wanted.append(pl.col("campaign").is_in(list(campaigns)))
        if since is not None:
            wanted.append(pl.col("time") >= as_instant(since, who="since"))
        if until is not None:
            wanted.append(pl.col("time") < as_instant(until, who="until"))
        # a row without a campaign or a time may be one of them, and is refused
        rows = self.scan()
        for one in wanted:
            rows = rows.filter(one.fill_null(True))
        found = rows.collect()
        _refuse_empty(found, f"ledger {self.folder}")
        return found

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
        period, now = max(period, timedelta.resolution), as_instant(now, who="now")
        first, last = now - min(period, now - datetime.min), now + min(period, datetime.max - now)
        keys = ["user_id", "item_id"] if item else ["user_id"]
        shown = self.read(since=first).filter((pl.col("rank") > 0) & (pl.col("time") <= last))
        now_itself = shown.select(keys).unique().with_columns(time=pl.lit(now, pl.Datetime("us")), n=0)
        rows = pl.concat([shown.select(*keys, "time", n=1), now_itself]).sort(*keys, "time")
        periods = rows.rolling(
            "time", period=period, offset=timedelta(0), closed="both", group_by=keys
        ).agg(pl.col("n").sum().cast(pl.Int64))
        most = periods.filter(pl.col("time") <= now).group_by(keys)
        return most.agg(offers=pl.col("n").max()).sort(keys)

    def _next_file(self, kind: str, files: Sequence[Path], frame: pl.DataFrame) -> Path:
        number = int(files[-1].name.split("-")[1]) + 1 if files else 0
        return self.folder / f"{kind}-{number:08d}-{_digest(frame)}.parquet"

    def require(self) -> Ledger:
        """The ledger itself, once it is known to be there.

        Raises
        ------
        DataError
            If there is no file, and no folder with ledger files.
        """
        if self._files() or any(re.fullmatch(_OURS, file.name) for file in self._pool_files()):
            return self  # a pool alone is what a killed call leaves
        there = "it holds no ledger file" if self.folder.is_dir() else "there is nothing"
        raise DataError(
            f"there is no ledger at {self.folder}: {there}. Name the folder that offers were written "
            f"to, or the file that a service exported."
        )

    def _files(self) -> list[Path]:
        if self.folder.is_file():  # what a service showed, as its store exports it
            return [self.folder]
        return self._named("offers")

    def _pool_files(self) -> list[Path]:
        return [self.folder] if self.folder.is_file() else self._named("pool")

    def _named(self, kind: str) -> list[Path]:
        """Files of a kind, in the order of writing.

        Raises
        ------
        DataError
            If one has a name that the ledger gives to none: a copy would count twice.
        """
        files = sorted(self.folder.glob(f"{kind}-*.parquet"))
        if odd := [file for file in files if not _NAME.fullmatch(file.name)]:
            raise DataError(
                f"{odd[0]} is no name that a ledger gives to its files; a copy would count twice. Move "
                f"it out of the ledger's folder."
            )
        return files

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
        new = frame.select(keys).unique()
        there = self.scan().select(keys).unique().collect()
        if not (bad := new.join(there, on=keys).sort(keys)).is_empty():
            raise DataError(
                f"ledger: {bad.height:,} shoppers already stand in campaign "
                f"'{bad['campaign'][0]}', such as {bad['user_id'][0]}; a shopper gets a campaign once. "
                f"Name the campaign anew, leave them out, or allow it with again=True."
            )


def offers_of_pool(pool: pl.DataFrame) -> pl.DataFrame:
    """Ledger rows of an explored pool: what was shown, and rank 0 for who was shown nothing."""
    of: list[Any] = [pl.col("policy").alias("campaign"), "user_id", "time", "arm"]
    shown = pool.filter("shown").select(
        *of,
        "item_id",
        "score",
        "propensity",
        rank=pl.col("rank").rank("ordinal").over("request").cast(pl.Int32),
        holdout=pl.lit(False),
    )
    nothing = pool.filter(~pl.col("shown").any().over("request")).unique("request", maintain_order=True)
    nothing = nothing.select(*of, rank=pl.lit(0), holdout=pl.col("arm") == HOLDOUT)
    return ledger_frame(pl.concat([shown, nothing], how="diagonal_relaxed"))


def _digest(frame: pl.DataFrame) -> str:
    return hashlib.sha256(frame.hash_rows(seed=0).to_numpy().tobytes()).hexdigest()[:16]


def _refuse_empty(frame: pl.DataFrame, who: str) -> None:
    for name in LEDGER:
        if name not in _MAY_BE_NULL and frame[name].null_count():
            raise DataError(
                f"{who}: column '{name}' is empty in {frame[name].null_count():,} rows; "
                f"it must be filled in every row."
            )


def _refuse_bad_rows(frame: pl.DataFrame, who: str) -> None:
    _refuse_empty(frame, who)
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

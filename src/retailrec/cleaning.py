"""Turn raw receipt lines into typed, cleaned lines, and account for every one of them.

`parse_lines` gives the standard columns their types; `kept_lines` parts the lines by a list of rules. A
line that no rule rejects is kept; a rejected one carries the reason of the first rule that met it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import polars as pl

from retailrec.columns import TRANSACTIONS
from retailrec.errors import DataError
from retailrec.tables import whole_numbers

DAY_ONE = datetime(2000, 1, 1)  # what day number 1 stands for
EARLIEST, LATEST = datetime(1980, 1, 1), datetime(2100, 1, 1)
LINE = "line"  # number of the raw line, counted from 0, through all files

_TIME_FORMATS = (
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d",
    "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %H:%M",
    "%m/%d/%Y",
    "%d/%m/%Y %H:%M:%S",
    "%d/%m/%Y %H:%M",
    "%d/%m/%Y",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
    "%Y%m%d",
)


@dataclass(frozen=True)
class Rule:
    """Reject the lines where `when` holds, for `reason`. A null condition does not reject."""

    reason: str
    when: pl.Expr


def missing(column: str) -> pl.Expr:
    """True where an id is null or an empty text."""
    return pl.col(column).is_null() | (pl.col(column).cast(pl.String).str.strip_chars() == "")


STANDARD_RULES = (
    Rule("no shopper", missing("user_id")),
    Rule("no item", missing("item_id")),
    Rule("no time, or one that can't be read", pl.col("time").is_null()),
    Rule("impossible date", ~pl.col("time").is_between(EARLIEST, LATEST)),
    Rule("quantity is not a number", ~pl.col("quantity").is_finite()),
    Rule("return or cancellation", (pl.col("quantity") < 0) | (pl.col("value") < 0)),
    Rule("zero quantity", pl.col("quantity") == 0),
    Rule("value is not a number", ~pl.col("value").is_finite()),
    Rule("zero price", pl.col("value") == 0),
)


@dataclass
class LoadReport:
    """What a load read, kept and rejected.

    `read` = `kept` + `merged` + the sum of `rejected`. `merged` lines repeat an item of their basket;
    their quantity and value are added to the first. `examples` holds up to three raw line numbers per
    reason; `rejects` the rejected lines themselves.
    """

    source: str
    read: int = 0
    kept: int = 0
    merged: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)
    n_users: int = 0
    n_items: int = 0
    n_baskets: int = 0
    first: datetime | None = None
    last: datetime | None = None
    notes: list[str] = field(default_factory=list)
    rejects: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """The report without the rejected lines, ready for JSON."""
        out = {k: v for k, v in vars(self).items() if k != "rejects"}
        return out | {
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
        }


def parse_lines(
    frame: pl.DataFrame, columns: Mapping[str, str] | None = None, *, who: str = "transactions",
    first_line: int = 0, text_times: bool = False,
) -> pl.DataFrame:  # fmt: skip
    """The standard columns, typed, one row a raw line, other columns carried along.

    `columns` maps standard names to the caller's: ``{"time": "date"}``. `time` becomes
    Datetime("us"), or stays text if it is and `text_times` says so; `quantity` is 1 and `value` null
    where the caller has none. A cell that can't be read becomes NaN (numbers) or null (times), which
    `STANDARD_RULES` count. Lines are numbered from `first_line`.

    Raises
    ------
    DataError
        If a required column is missing, the frame is empty, a column is mostly unreadable, or dates
        come in two formats.

    Examples
    --------
    >>> raw = pl.DataFrame({"client": ["7"], "item_id": ["a"], "time": ["2024-01-31"]})
    >>> parse_lines(raw, {"user_id": "client"}).row(0, named=True)["time"]
    datetime.datetime(2024, 1, 31, 0, 0)
    """
    frame = _rename(frame, columns or {}, who)
    if frame.is_empty():
        raise DataError(f"{who} hold no line; expected at least one receipt line. Check the file.")
    parsed = [
        typed_ids(frame[c.name]) for c in TRANSACTIONS if c.kind == "id" and c.name in frame.columns
    ]
    if frame["time"].dtype != pl.String or not text_times:
        parsed.append(parse_time(frame["time"], who=who))
    quantity = (
        parse_number(frame["quantity"], who=who)
        if "quantity" in frame.columns
        else pl.repeat(1.0, frame.height, eager=True).alias("quantity")
    )
    if "value" in frame.columns:
        value = parse_number(frame["value"], who=who)
    elif "price" in frame.columns:
        value = (parse_number(frame["price"], who=who) * quantity).alias("value")
    else:
        value = pl.Series("value", [None], dtype=pl.Float64).new_from_index(0, frame.height)
    if "discount" in frame.columns:
        parsed.append(parse_number(frame["discount"], who=who))
    return frame.with_columns(*parsed, quantity, value).with_row_index(LINE, first_line)


def kept_lines(
    lines: pl.DataFrame, rules: Sequence[Rule], report: LoadReport,
    show: Callable[[pl.DataFrame], pl.DataFrame] = lambda bad: bad,
) -> pl.DataFrame:  # fmt: skip
    """The lines that no rule rejects; `report` gains the others, as `show` makes them readable."""
    reason = pl.coalesce(
        *(pl.when(r.when).then(pl.lit(r.reason)) for r in rules), pl.lit(None, dtype=pl.String)
    )
    marked = lines.with_columns(reason=reason)
    bad = marked.filter(pl.col("reason").is_not_null())
    if bad.is_empty():
        return lines
    set_aside(show(bad), report)
    return marked.filter(pl.col("reason").is_null()).drop("reason")


def set_aside(bad: pl.DataFrame, report: LoadReport) -> None:
    """Count rejected lines by their `reason`, and keep them in the report."""
    counts = bad.group_by("reason", maintain_order=True).agg(pl.len(), pl.col(LINE).head(3))
    for name, n, examples in counts.iter_rows():
        report.rejected[name] = report.rejected.get(name, 0) + n
        before = report.examples.get(name, [])
        report.examples[name] = [*before, *(int(i) for i in examples)][:3]
    largest_first = sorted(report.rejected.items(), key=lambda pair: -pair[1])
    report.rejected = dict(largest_first)
    report.rejects = (
        bad if report.rejects.is_empty() else pl.concat([report.rejects, bad], how="diagonal_relaxed")
    )


def refuse_if_none(n_lines: int, report: LoadReport) -> None:
    """Raise a DataError if no line is left."""
    if not n_lines:
        reasons = ", ".join(f"{n:,} x {r}" for r, n in report.rejected.items())
        raise DataError(
            f"{report.source}: none of the {report.read:,} lines is a usable purchase ({reasons}). "
            f"Check the columns and the cleaning rules."
        )


def typed_ids(ids: pl.Series) -> pl.Series:
    """Ids as Int64 if they are whole numbers, else as the text they are: ``"7"`` stays ``"7"``.

    Floats come from frames in which a missing id turned integers into floats (``13085.0``).

    Examples
    --------
    >>> typed_ids(pl.Series(["10", "9"])).to_list(), typed_ids(pl.Series([10.0, None])).to_list()
    (['10', '9'], [10, None])
    """
    if ids.dtype.is_integer():
        return ids.cast(pl.Int64)
    if ids.dtype.is_float():
        whole = ids.cast(pl.Int64, strict=False)
        same = (whole.cast(pl.Float64) == ids).fill_null(True).all()
        return whole if same else ids.cast(pl.String)
    try:
        return ids.cast(pl.String)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"ids in column '{ids.name}' must be integers or text, not {ids.dtype}. Convert them."
        ) from error


def ids_like(ids: pl.Series, like: pl.Series, *, who: str) -> pl.Series:
    """`ids` in the type of `like`, so that a CSV's ``7`` meets a Parquet file's ``"7"``.

    Raises
    ------
    DataError
        If `like` holds integers and some of `ids` are other text.
    """
    ids = typed_ids(ids)
    if ids.dtype == like.dtype:
        return ids
    if like.dtype == pl.String:
        return ids.cast(pl.String)
    whole = whole_numbers(ids)
    if whole.dtype != like.dtype:
        raise DataError(
            f"'{like.name}' holds integers, but {who} hold text such as {ids.drop_nulls()[0]!r}; "
            f"write the ids alike in both."
        )
    return whole


def parse_number(values: pl.Series, *, who: str) -> pl.Series:
    """Float64; text that is no number becomes NaN, missing stays null and counts as NaN.

    Raises
    ------
    DataError
        If fewer than half of the cells are numbers.
    """
    if values.dtype.is_numeric():
        return values.cast(pl.Float64).fill_null(float("nan"))
    number = values.cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    if number.null_count() * 2 > len(number):
        example = values.cast(pl.String).filter(number.is_null()).head(1).to_list()[0]
        raise DataError(
            f"column '{values.name}' of {who} must hold numbers; most of its cells do not, "
            f"for example {example!r}. Use '.' for decimals, or map another column."
        )
    return number.fill_null(float("nan"))


def parse_time(values: pl.Series, *, who: str) -> pl.Series:
    """Datetime("us") from timestamps, dates, day numbers (1 = 2000-01-01), YYYYMMDD or text.

    Text is read by the one format that fits most cells; the other cells become null.

    Raises
    ------
    DataError
        If no format fits, two formats each fit cells that the other does not, or day and month
        can't be told apart.
    """
    name, kind = values.name, values.dtype
    if isinstance(kind, pl.Datetime):
        return values.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if kind == pl.Date:
        return values.cast(pl.Datetime("us"))
    if kind.is_float():
        values, kind = values.cast(pl.Int64, strict=False), pl.Int64()
    if kind.is_integer():
        return _time_from_integers(values.cast(pl.Int64), who)
    text = values.cast(pl.String).str.strip_chars()
    text = text.set(text == "", None)
    filled = len(text) - text.null_count()
    if filled and text.cast(pl.Int64, strict=False).null_count() == text.null_count():
        return _time_from_integers(text.cast(pl.Int64), who)
    best, best_format, left = None, "", filled
    for time_format in _TIME_FORMATS:
        parsed = text.str.to_datetime(time_format, time_unit="us", strict=False)
        unread = filled - (len(parsed) - parsed.null_count())
        if unread < left:
            best, best_format, left = parsed, time_format, unread
    if best is None:
        example = text.drop_nulls().head(1).to_list()
        raise DataError(
            f"column '{name}' of {who} must hold times; can't read {example}. Give timestamps, "
            f"dates (2024-01-31) or day numbers."
        )
    _refuse_ambiguous(text, best, best_format, name, who)
    return best.alias(name)


def _refuse_ambiguous(text: pl.Series, best: pl.Series, best_format: str, name: str, who: str) -> None:
    unread = text.filter(best.is_null() & text.is_not_null())
    for other in _TIME_FORMATS if len(unread) else ():
        if unread.str.to_datetime(other, strict=False).null_count() < len(unread):
            raise DataError(
                f"column '{name}' of {who} holds dates in two formats: most look like "
                f"{best_format}, others like {other}, for example {unread[0]!r}. Use one format."
            )
    swapped = best_format.replace("%m", "%_").replace("%d", "%m").replace("%_", "%d")
    if best_format.startswith("%m/"):
        other_way = text.str.to_datetime(swapped, time_unit="us", strict=False)
        if other_way.null_count() == best.null_count() and not (other_way == best).all():
            raise DataError(
                f"column '{name}' of {who}: day and month can't be told apart, for example "
                f"{text.drop_nulls()[0]!r}. Write dates as 2024-01-31."
            )


def _time_from_integers(days: pl.Series, who: str) -> pl.Series:
    """Day numbers, or dates written as one number such as 20240131."""
    low, high = days.min(), days.max()
    if isinstance(low, int) and isinstance(high, int) and low >= 19000101 and high <= 21001231:
        return (
            days.cast(pl.String)
            .str.to_datetime("%Y%m%d", time_unit="us", strict=False)
            .alias(days.name)
        )
    if isinstance(low, int) and isinstance(high, int) and (low < 0 or high > 100_000):
        raise DataError(
            f"column '{days.name}' of {who} holds whole numbers from {low} to {high}; expected day "
            f"numbers (0 to 100,000) or dates such as 20240131. Convert it to timestamps."
        )
    time = pl.lit(DAY_ONE).cast(pl.Datetime("us")) + pl.duration(days=pl.col("day") - 1)
    return days.alias("day").to_frame().select(time.alias(days.name)).to_series()


def _rename(frame: pl.DataFrame, columns: Mapping[str, str], who: str) -> pl.DataFrame:
    known = [c.name for c in TRANSACTIONS]
    for name, theirs in columns.items():
        if theirs not in frame.columns:
            raise DataError(
                f"{who} lack column '{theirs}', which is to be '{name}'; they have "
                f"{frame.columns}. Correct the mapping."
            )
    clash = [n for n, t in columns.items() if n in frame.columns and t != n]
    frame = frame.drop(clash).rename({theirs: name for name, theirs in columns.items()})
    for column in TRANSACTIONS:
        if column.required and column.name not in frame.columns:
            have = [c for c in frame.columns if c not in known] or frame.columns
            raise DataError(
                f"{who} lack column '{column.name}' ({column.meaning}); they have {have}. "
                f"Map it with columns={{'{column.name}': '{have[0]}'}}, or on the command line "
                f"--columns {column.name}={have[0]}."
            )
    return frame

"""Checks of this week's receipts against the shop's own past weeks, before anything is published.

A check is one function below: it gets the `Weeks`, and returns a sentence, with the lines concerned
beside it where there are some, a `Finding` or None. Its
docstring is what `retailrec check --list` says. Thresholds are learnt from past weeks by `usual`, each
side of which a quiet week leaves with a chance of `FALSE_ALARM`; a check that compares with the past is
silent where there are fewer than `LEAST_PAST` weeks to learn from. One more check is one more function.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import cached_property
from typing import Any, Literal

import numpy as np
import polars as pl

from retailrec.components import Positive, Share, checked
from retailrec.data.cleaning import (
    RETURN,
    STANDARD_RULES,
    TAKES_BACK,
    crowds,
    currency_columns,
    currency_of,
    without_user,
)
from retailrec.errors import DataError, SettingError
from retailrec.schema import ITEM_ID, USER_ID

Severity = Literal["note", "warn", "refuse"]
FALSE_ALARM = 0.001  # chance that a quiet week leaves one side of what is usual
LEAST_PAST = 4  # weeks to learn from
MOST_PAST = 52
FAR_DAYS = 14  # without a line, between dates that do not belong together
_EXAMPLES = 3
UNUSABLE = {rule.reason: rule.when for rule in STANDARD_RULES} | {RETURN: TAKES_BACK}
_Measure = Callable[[pl.DataFrame], float]


@dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes
    ----------
    name : the check
    severity : ``refuse``: do not publish from these receipts; ``warn``: look; ``note``: good to know
    message : what was expected, what came, what to do
    n_rows : receipt lines concerned; 0 where lines are missing
    rows : frame of these lines, or of what was counted
    """

    name: str
    severity: Severity
    message: str
    n_rows: int = 0
    rows: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it; the failing lines are left out."""
        return {name: value for name, value in vars(self).items() if name != "rows"}


@dataclass(frozen=True)
class Check:
    """A registered check: its name, what it does and how severe its findings are by default."""

    name: str
    severity: Severity
    meaning: str
    function: CheckFunction

    def __call__(self, weeks: Weeks) -> Finding | None:
        found = self.function(weeks)
        if found is None or isinstance(found, Finding):
            return found
        message, rows = (found, pl.DataFrame()) if isinstance(found, str) else found
        lines = rows.height if "time" in rows.columns else 0
        return Finding(self.name, self.severity, message, lines, rows)


Found = Finding | tuple[str, pl.DataFrame] | str | None
CheckFunction = Callable[["Weeks"], Found]
CHECKS: dict[str, Check] = {}


def check(severity: Severity) -> Callable[[CheckFunction], CheckFunction]:
    """Register a check under the function's name."""

    def register(function: CheckFunction) -> CheckFunction:
        name = function.__name__
        CHECKS[name] = Check(name, severity, inspect.getdoc(function) or "", function)
        return function

    return register


class Weeks:
    """The receipt lines in question, and those of the same number of days before them, week by week.

    Parameters
    ----------
    lines : `user_id`, `item_id`, `time`, and where there are `basket_id`, `quantity`, `value`, `store`,
        `currency`, `file`; a date as midnight
    past : earlier lines, of the same columns; None: those of `lines` before its last seven days
    closed : days on which the shop is closed or opens for hours only; no check counts what comes on
        them, nor on the days that they would be compared with

    Raises
    ------
    DataError
        If a column that is needed is missing.

    Examples
    --------
    >>> lines = pl.DataFrame({
    ...     "user_id": [1] * 30, "item_id": ["tea"] * 30,
    ...     "time": [datetime(2024, 1, 1) + timedelta(days=d) for d in range(30)],
    ... })
    >>> weeks = Weeks(lines)
    >>> weeks.start.day, weeks.end.day, len(weeks.periods)
    (24, 31, 3)
    """

    @checked
    def __init__(
        self, lines: pl.DataFrame, past: pl.DataFrame | None = None, closed: Iterable[date] = ()
    ) -> None:
        self.closed = frozenset(closed)
        for frame in (lines, past):
            missing = set() if frame is None else {USER_ID, ITEM_ID, "time"} - set(frame.columns)
            if missing:
                raise DataError(f"check: lines lack {sorted(missing)}; map them with columns=.")
        first, last = bulk(lines)
        self.end = datetime(last.year, last.month, last.day) + timedelta(days=1)
        if past is None:
            self.start = self.end - timedelta(days=7)
            past, lines = (
                lines.filter(pl.col("time") < self.start),
                lines.filter(pl.col("time").is_null() | (pl.col("time") >= self.start)),
            )
        else:
            known = bulk(past)[1] + timedelta(days=1)
            first = known if known <= last else first  # days between count, where nothing came
            self.start = datetime(first.year, first.month, first.day)
        self.lines, self.past = _complete(lines), _complete(past)

    @cached_property
    def new(self) -> pl.DataFrame:
        """The lines of the days in question, without those dated far off."""
        return self._within(self.lines, self.start, self.end)

    @cached_property
    def open(self) -> pl.DataFrame:
        """The same without the days on which the shop is closed."""
        return self._without(self.new, self.closed)

    @cached_property
    def periods(self) -> list[pl.DataFrame]:
        """As many days of earlier weeks, the newest first, with the same weekdays, if they are open."""
        if self.past.is_empty():
            return []
        begin = datetime.combine(bulk(self.past)[0], datetime.min.time())
        step = timedelta(days=7 * -(-(self.end - self.start).days // 7))
        found: list[pl.DataFrame] = []
        start, end, closed = self.start - step, self.end - step, self.closed
        while start >= begin and len(found) < MOST_PAST:
            closed = frozenset(day - step for day in closed)
            found.append(self._without(self._within(self.past, start, end), closed))
            start, end = start - step, end - step
        return found

    @property
    def learnt(self) -> bool:
        """Are there enough past weeks to say what is usual?"""
        return len(self.periods) >= LEAST_PAST

    def usual(self, of: Callable[[pl.DataFrame], float]) -> tuple[float, float, float]:
        """What came, and the least and most that are usual: see `usual`."""
        return (of(self.open), *usual([of(period) for period in self.periods]))

    @cached_property
    def days(self) -> list[tuple[date, tuple[int, int], list[tuple[int, int]]]]:
        """Each open day in question: its lines and receipts, and those of the weekday in past weeks."""
        now, past = _by_day(self.new), [_by_day(p) for p in self.periods]
        step = 7 * -(-(self.end - self.start).days // 7)
        return [
            (
                day,
                now.get(day, (0, 0)),
                [
                    p.get(before, (0, 0))
                    for n, p in enumerate(past, 1)
                    if (before := day - timedelta(days=step * n)) not in self.closed
                ],
            )
            for day in _days(self.start, self.end)
            if day not in self.closed
        ]

    @cached_property
    def known_users(self) -> pl.Series:
        """Ids of users with earlier lines."""
        return self.past[USER_ID].unique()

    @cached_property
    def known_items(self) -> pl.Series:
        """Ids of items with earlier lines."""
        return self.past[ITEM_ID].unique()

    @staticmethod
    def _within(lines: pl.DataFrame, start: datetime, end: datetime) -> pl.DataFrame:
        return lines.filter((pl.col("time") >= start) & (pl.col("time") < end))

    @staticmethod
    def _without(lines: pl.DataFrame, days: frozenset[date]) -> pl.DataFrame:
        return lines.filter(~pl.col("time").dt.date().is_in(sorted(days))) if days else lines


@checked
def run_checks(weeks: Weeks, names: Sequence[str] | None = None) -> list[Finding]:
    """What the checks found, the most severe first; all checks, or those of `names`.

    Raises
    ------
    SettingError
        If a name is no check's.
    """
    if unknown := [name for name in names or () if name not in CHECKS]:
        raise SettingError(f"there is no check '{unknown[0]}'; expected some of {', '.join(CHECKS)}.")
    found = (CHECKS[name](weeks) for name in names or CHECKS)
    order = {"refuse": 0, "warn": 1, "note": 2}
    return sorted((f for f in found if f is not None), key=lambda f: order[f.severity])


@checked
def usual(
    values: Sequence[float], alarm: Share = FALSE_ALARM, least_spread: Positive = 0.02
) -> tuple[float, float]:
    """The least and the most that a quiet week shows, from what past weeks showed.

    A prediction interval on the logarithm: median plus and minus Student's t of n - 1 degrees of
    freedom times the spread times sqrt(1 + 1/n). The spread is the largest of the standard deviation,
    1.4826 x the median absolute deviation, and `least_spread`. With few weeks it is wide. Where a past
    week showed 0, the least is 0.

    Examples
    --------
    >>> low, high = usual([100, 104, 98, 101, 97, 103, 99, 102])
    >>> 75 < low < 90 and 110 < high < 130
    True
    """
    from scipy.stats import t

    logs = np.log(np.maximum(np.asarray(values, np.float64), 1e-9))
    n = len(logs)
    if n < LEAST_PAST:
        return 0.0, float("inf")
    middle = float(np.median(logs))
    spread = max(
        1.4826 * float(np.median(np.abs(logs - middle))), float(logs.std(ddof=1)), least_spread
    )
    reach = float(t.ppf(1 - alarm, n - 1)) * spread * float(np.sqrt(1 + 1 / n))
    least = float(np.exp(middle - reach)) if min(values) > 0 else 0.0
    return least, float(np.exp(middle + reach))


# --- what is missing ---------------------------------------------------------------------------------


@check("refuse")
def no_lines(w: Weeks) -> str | None:
    """No line is a purchase with a date: a header alone, or an export that failed."""
    if w.new.is_empty():
        return "there is no receipt line with a date; the export is empty. Export again."
    kinds = _in(w.new, UNUSABLE)
    if not w.new.select(pl.any_horizontal(kinds.values()).all()).item():
        return None
    counts = w.new.select(**kinds).sum().row(0, named=True)
    said = ", ".join(f"{n:,} x {kind}" for kind, n in counts.items() if n)
    return f"none of {len(w.new):,} lines is a purchase ({said}). Export again."


@check("refuse")
def missing_days(w: Weeks) -> Found:
    """Days without a line, of weekdays on which past weeks had lines nine times in ten."""
    if not w.learnt:
        return None
    gone = [
        day
        for day, (lines, _), before in w.days
        if not lines and sum(n > 0 for n, _ in before) >= 0.9 * len(before)
    ]
    if not gone:
        return None
    return (
        f"no line on {_listed(gone)}, which past weeks had; ask for the missing days, or name those on "
        f"which the shop was closed (closed).",
        pl.DataFrame({"day": gone}),
    )


@check("refuse")
def half_days(w: Weeks) -> Found:
    """Days with far fewer lines than the same weekday of past weeks.

    Less than usual, than 60% of the least that was seen (of 12 days and more the lowest is passed over,
    which may have been such a day), and fewer receipts than chance explains: that as few come, where
    the median is expected, happens in one of a thousand weeks (Poisson).
    """
    if not w.learnt:
        return None
    from scipy.stats import poisson

    rows = []
    for day, (lines, receipts), before in w.days:
        seen = sorted(n for n, _ in before if n)
        if not lines or len(seen) < LEAST_PAST:
            continue
        least = seen[0] if len(seen) < 12 else seen[1]
        if lines >= min(0.6 * least, usual(seen)[0]):
            continue
        median = float(np.median([n for _, n in before if n]))
        if poisson.cdf(receipts, median) < FALSE_ALARM / len(w.days):
            rows.append({"day": day, "lines": lines, "median": float(np.median(seen))})
    if not rows:
        return None
    worst = rows[0]
    return (
        f"{worst['day']} has {worst['lines']:,} lines where past weeks had {worst['median']:,.0f}; the "
        f"day is not whole. Export it again.",
        pl.DataFrame(rows),
    )


@check("refuse")
def ends_early(w: Weeks) -> Found:
    """The last day ends hours before the shop does on such days: a file cut or sent too soon."""
    if not w.learnt or not _has_clock(w) or w.open.is_empty():
        return None
    day = w.open["time"].max().date()  # type: ignore[union-attr]
    closing = [_last_hour(p, day - timedelta(days=_back(w, p))) for p in w.periods]
    known = [hour for hour in closing if hour is not None]
    came = _last_hour(w.open, day)
    if came is None or len(known) < LEAST_PAST:
        return None
    usually, earliest = float(np.median(known)), min(known)
    if came >= earliest - max(1.0, usually - earliest):
        return None
    return (
        f"the last line of {day} is of {_clock(came)}; on such days the last one came at "
        f"{_clock(usually)}, never before {_clock(earliest)}. Is the file whole?"
    )


@check("refuse")
def missing_stores(w: Weeks) -> Found:
    """Stores without a line that had 20 receipts and more in nine of ten past weeks.

    The last one among them: where 20 are usual, none is no chance (e^-20).
    """
    if not w.learnt or "store" not in w.past.columns:
        return None
    weekly = pl.concat(
        p.group_by("store").agg(n=_receipts(p).n_unique()).with_columns(week=pl.lit(i))
        for i, p in enumerate(w.periods)
    ).filter(pl.col("n") >= 20)
    weeks = weekly.group_by("store").agg(n=pl.len(), last=pl.col("week").min())
    steady = weeks.filter((pl.col("n") >= 0.9 * len(w.periods)) & (pl.col("last") == 0))["store"]
    there = set(w.new["store"].unique().to_list()) if "store" in w.new.columns else set()
    gone = sorted(set(steady.drop_nulls().to_list()) - there, key=str)
    if not gone:
        return None
    return (
        f"no line of store {_listed(gone)}, which past weeks had; ask for them, or say if closed.",
        pl.DataFrame({"store": [str(store) for store in gone]}),
    )


@check("note")
def new_stores(w: Weeks) -> Found:
    """Stores that no earlier line is of: one that opened, or ids of stores written otherwise."""
    if "store" not in w.new.columns or "store" not in w.past.columns or not w.learnt:
        return None
    known = set(w.past["store"].cast(pl.String).drop_nulls().unique().to_list())
    there = set(w.new["store"].cast(pl.String).drop_nulls().unique().to_list())
    new = sorted(there - known)
    if not new or not known:
        return None
    return (
        f"store {_listed(new)} had no line before; a store that opened, or ids written otherwise?",
        w.new.filter(pl.col("store").cast(pl.String).is_in(new)),
    )


@check("warn")
def fewer_or_more_lines(w: Weeks) -> str | None:
    """Lines, users, receipts or money outside of what is usual and by a tenth and more."""
    return _outside(
        w,
        {
            "lines": len,
            "users": lambda f: f[USER_ID].n_unique(),
            "receipts": _n_receipts,
            "money": lambda f: float(f["value"].sum()) if "value" in f.columns else 0.0,
        },
        least=0.1,
    )


@check("refuse")
def too_few_lines(w: Weeks) -> str | None:
    """Lines below what is usual and below 60% of the least that any past week had."""
    if not w.learnt or w.new.is_empty():
        return None
    came, low, _ = w.usual(len)
    least = min(map(len, w.periods))
    if came < low and came < 0.6 * least:
        return f"{came:,.0f} lines; past weeks had {least:,} and more. Is the export whole?"
    return None


# --- what is twice -----------------------------------------------------------------------------------


@check("warn")
def repeated_receipts(w: Weeks) -> Found:
    """Receipts that stand in two files with the same number and lines: an export that overlaps."""
    if "file" not in w.lines.columns or "basket_id" not in w.lines.columns:
        return None
    keys = [USER_ID, "basket_id"]
    files = w.lines.group_by(keys).agg(pl.col("file").n_unique().alias("files"))
    twice = files.filter(pl.col("files") > 1).join(_contents(w.lines, [*keys, "file"]), on=keys)
    same = twice.group_by(keys).agg(pl.col("content").n_unique()).filter(pl.col("content") == 1)
    if same.is_empty():
        return None
    rows = w.lines.join(same.select(keys), on=keys, how="semi")
    return (
        f"{same.height:,} receipts stand in two files with the same lines; loading counts each once.",
        rows,
    )


@check("refuse")
def resent_receipts(w: Weeks) -> Found:
    """Receipts with the lines and time of another one of the same user under another number."""
    if "basket_id" not in w.lines.columns:
        return None
    clock = _has_clock(w)
    lately = w.past.filter(pl.col("time") >= w.start - timedelta(days=28))
    parts = [
        _contents(f, [USER_ID, "basket_id"]).with_columns(new=pl.lit(new))
        for f, new in ((w.lines, True), (lately, False))
    ]
    both = pl.concat(parts, how="vertical_relaxed").filter(pl.col("n") >= (1 if clock else 3))
    both = both.unique([USER_ID, "basket_id"], keep="any")
    alike = both.filter(pl.len().over(USER_ID, "time", "content") > 1)
    again = alike.filter(pl.col("new"))
    n_new = max(int(both["new"].sum()), 1)
    if again.height < max(3, 0.01 * n_new):
        return None
    rows = w.lines.join(again.select(USER_ID, "basket_id"), on=[USER_ID, "basket_id"], how="semi")
    return (
        f"{again.height:,} of {n_new:,} receipts have the time and lines of another of the same user "
        f"under another number; they would count twice. Export with the numbers of the till.",
        rows,
    )


@check("warn")
def late_lines(w: Weeks) -> Found:
    """Lines of days before the week in question, which earlier files should have held."""
    if w.past.is_empty():
        return None
    begin = datetime.combine(bulk(w.past)[0], datetime.min.time())
    rows = w.lines.filter((pl.col("time") < w.start) & (pl.col("time") >= begin))
    rows = rows.join(w.past, on=[USER_ID, ITEM_ID, "time"], how="anti")
    if rows.height < max(1, 0.001 * w.lines.height):
        return None
    return (
        f"{rows.height:,} lines are of days before {w.start:%Y-%m-%d}; earlier weeks were not whole, "
        f"and lists made from them did not know these.",
        rows,
    )


# --- dates -------------------------------------------------------------------------------------------


@check("refuse")
def far_dates(w: Weeks) -> Found:
    """Lines dated more than two weeks from all others.

    They would move the end of the data, so that everything else looks old.
    """
    last = w.end + timedelta(days=FAR_DAYS)
    begin = w.start if w.past.is_empty() else datetime.combine(bulk(w.past)[0], datetime.min.time())
    rows = w.lines.filter(
        (pl.col("time") >= last) | (pl.col("time") < begin - timedelta(days=FAR_DAYS))
    )
    if rows.is_empty():
        return None
    days = rows["time"].min(), rows["time"].max()
    return (
        f"{rows.height:,} lines are dated {days[0]!s:.10} to {days[1]!s:.10}, far from the others "
        f"({w.start:%Y-%m-%d} to {w.end - timedelta(days=1):%Y-%m-%d}). Mend or drop them.",
        rows,
    )


@check("warn")
def clock_moved(w: Weeks) -> str | None:
    """The middle of the day's lines lies two hours and more from where it was in all past weeks."""
    if not w.learnt or not _has_clock(w) or w.new.is_empty():
        return None
    hour = pl.col("time").dt.hour() + pl.col("time").dt.minute() / 60
    past = [p.select(hour.median()).item() for p in w.periods if len(p)]
    if len(past) < LEAST_PAST:
        return None
    came = w.new.select(hour.median()).item()
    low, high = min(past) - 2, max(past) + 2
    if low <= came <= high:
        return None
    return (
        f"half of the lines are before {_clock(came)}; in past weeks that was {_clock(min(past))} to "
        f"{_clock(max(past))}. Is the till's clock or the time zone right?"
    )


# --- money and amounts -------------------------------------------------------------------------------


@check("refuse")
def prices_moved(w: Weeks) -> Found:
    """Unit prices of items sold before and now, half of which moved by a third and more.

    As where money comes in cents, in another currency or with other taxes.
    """
    if "value" not in w.new.columns or w.past.is_empty():
        return None
    now, before = _prices(w.new), _prices(w.past)
    both = now.join(before, on=ITEM_ID, suffix="_before").filter(pl.col("price_before") > 0)
    if both.height < 10:
        return None
    both = both.with_columns(ratio=pl.col("price") / pl.col("price_before"))
    middle = float(both["ratio"].median())  # type: ignore[arg-type]
    if 0.67 < middle < 1.5:
        return None
    hint = " The money looks like cents." if 60 < middle < 170 else ""
    return (
        f"half of {both.height:,} items cost {middle:.3g} times what they did and more; expected about "
        f"1.{hint} Bring money as before.",
        both.sort("ratio", descending=True),
    )


@check("warn")
def some_prices_moved(w: Weeks) -> Found:
    """More items than in any past week cost twice or half of what they did: a price file gone wrong."""
    if "value" not in w.new.columns or not w.learnt:
        return None
    before = _prices(w.past)

    def moved(period: pl.DataFrame) -> pl.DataFrame:
        both = _prices(period).join(before, on=ITEM_ID, suffix="_before")
        ratio = pl.col("price") / pl.col("price_before")
        return both.filter((pl.col("price_before") > 0) & ((ratio > 2) | (ratio < 0.5)))

    share = [moved(p).height / max(p[ITEM_ID].n_unique(), 1) for p in w.periods]
    now = moved(w.new)
    came = now.height / max(w.new[ITEM_ID].n_unique(), 1)
    if now.height < 5 or came < 0.02 or came <= 2 * max(share):
        return None
    return (
        f"{now.height:,} items ({came:.1%}) cost twice or half of what they did; in past weeks at most "
        f"{max(share):.1%}. Look at their prices.",
        now,
    )


@check("warn")
def units_moved(w: Weeks) -> str | None:
    """Quantity a line outside of what is usual and by a half and more: grams for pieces, say."""
    if "quantity" not in w.new.columns:
        return None
    mean = pl.col("quantity").filter(pl.col("quantity") > 0).mean()
    return _outside(w, {"units a line": lambda f: f.select(mean).item() or 0.0}, least=0.5)


@check("warn")
def baskets_moved(w: Weeks) -> str | None:
    """Lines a receipt outside of what is usual and by a fifth and more: receipts cut or joined."""
    return _outside(w, {"lines a receipt": lambda f: len(f) / max(_n_receipts(f), 1)}, least=0.2)


@check("warn")
def returns_moved(w: Weeks) -> Found:
    """Lines with a quantity or value below 0, more than usual and than one in a hundred."""
    return _more(w, {RETURN: TAKES_BACK}, 0.01, "Are signs as before?")


@check("refuse")
def unusable_lines(w: Weeks) -> Found:
    """Lines that cleaning sets aside, or of no known value, more than usual and than one in twenty.

    A column came empty or as zeros: what was bought would be missing, with all else as ever.
    """
    kinds = {rule.reason: rule.when for rule in STANDARD_RULES}
    unknown = {"no value": pl.col("value").is_null()}
    return _more(
        w, kinds | unknown, 0.05, "Loading would leave them out. Export again, with all columns."
    )


@check("refuse")
def mixed_currencies(w: Weeks) -> Found:
    """More currencies than in past weeks: their money can't be added."""
    for column in currency_columns(w.lines.columns):
        said = currency_of(column)
        came = set(w.lines.select(said).drop_nulls().to_series())
        known = set(w.past.select(said).drop_nulls().to_series()) if column in w.past.columns else set()
        if odd := came - known if known else (came if len(came) > 1 else set()):
            return (
                f"money comes in {_listed(sorted(came))}; sums would mix them. Convert them first.",
                w.lines.filter(said.is_in(sorted(odd))),
            )
    return None


# --- ids ---------------------------------------------------------------------------------------------


@check("refuse")
def user_ids_changed(w: Weeks) -> Found:
    """Users that are new, but known but for case, Unicode form, blanks or leading zeros."""
    return _changed_ids(w, USER_ID, w.known_users)


@check("refuse")
def item_ids_changed(w: Weeks) -> Found:
    """Items that are new, but known but for case, Unicode form, blanks or leading zeros."""
    return _changed_ids(w, ITEM_ID, w.known_items)


@check("refuse")
def unknown_users(w: Weeks) -> str | None:
    """Lines of known users far fewer than in past weeks: ids were made anew, or another shop's."""
    return _unknown(w, USER_ID, "users")


@check("refuse")
def unknown_items(w: Weeks) -> str | None:
    """Lines of known items far fewer than in past weeks: the catalogue has other ids."""
    return _unknown(w, ITEM_ID, "items")


@check("warn")
def guests_as_one_user(w: Weeks) -> Found:
    """Many receipts under one id ("0", "guest", or whatever it is).

    No user's habits, which would pass for one's.
    """
    known = w.new.drop_nulls(USER_ID)
    receipts = known.group_by(USER_ID).agg(n=_receipts(known).n_unique())
    odd = receipts.filter(pl.Series(crowds(receipts[USER_ID], receipts["n"].to_numpy())))
    if odd.is_empty():
        return None
    ids = odd.sort("n", descending=True)[USER_ID].to_list()
    return (
        f"{odd['n'].sum():,} receipts stand under {_listed(ids)}; that is no one user. "
        f"{without_user(ids[0])}",
        w.new.join(odd.select(USER_ID), on=USER_ID, how="semi"),
    )


@check("warn")
def users_merged_or_split(w: Weeks) -> str | None:
    """Receipts a user outside of what is usual, by a quarter and more, of as many receipts as ever.

    Cards were merged, or one user has several ids.
    """
    if not w.learnt or w.new.is_empty():
        return None
    came, low, high = w.usual(_n_receipts)
    if not low <= came <= high:
        return None  # that is another fault
    of = {"receipts a user": lambda f: _n_receipts(f) / max(f[USER_ID].n_unique(), 1)}
    return _outside(w, of, least=0.25)


# --- helpers -----------------------------------------------------------------------------------------


def _complete(lines: pl.DataFrame) -> pl.DataFrame:
    return lines.with_columns(pl.col("time").cast(pl.Datetime("us")))


def bulk(lines: pl.DataFrame) -> tuple[date, date]:
    """First and last day of the run of days with most lines; runs are `FAR_DAYS` and more apart.

    Examples
    --------
    >>> days = [datetime(2000, 1, 1), *(datetime(2024, 1, d) for d in (1, 2, 9)), datetime(2024, 3, 1)]
    >>> [str(day) for day in bulk(pl.DataFrame({"time": days}))]
    ['2024-01-01', '2024-01-09']
    """
    days = (
        lines.select(day=pl.col("time").dt.date())
        .drop_nulls()
        .group_by("day")
        .agg(n=pl.len())
        .sort("day")
        .with_columns(run=(pl.col("day").diff().dt.total_days() >= FAR_DAYS).fill_null(False).cum_sum())
    )
    if days.is_empty():
        return date(1970, 1, 1), date(1970, 1, 1)
    runs = days.group_by("run", maintain_order=True).agg(
        pl.col("n").sum(), first=pl.col("day").min(), last=pl.col("day").max()
    )
    most = runs.sort("n", "last", descending=True).row(0, named=True)
    return most["first"], most["last"]


def _days(start: datetime, end: datetime) -> Iterator[date]:
    for n in range((end - start).days):
        yield (start + timedelta(days=n)).date()


def _back(w: Weeks, period: pl.DataFrame) -> int:
    """Days from a past period to the one in question."""
    step = 7 * -(-(w.end - w.start).days // 7)
    return step * (1 + next(i for i, p in enumerate(w.periods) if p is period))


def _by_day(period: pl.DataFrame) -> dict[date, tuple[int, int]]:
    """Lines and receipts of each day that has any."""
    days = period.group_by(day=pl.col("time").dt.date()).agg(pl.len(), n=_receipts(period).n_unique())
    return {day: (lines, receipts) for day, lines, receipts in days.iter_rows()}


def _last_hour(period: pl.DataFrame, day: date) -> float | None:
    last = period.filter(pl.col("time").dt.date() == day)["time"].max()
    return None if not isinstance(last, datetime) else last.hour + last.minute / 60


def _has_clock(w: Weeks) -> bool:
    """Do times say more than the day?"""
    return bool((w.new["time"].dt.time() != datetime.min.time()).any())


def _clock(hour: float) -> str:
    return f"{int(hour):02d}:{int(hour % 1 * 60):02d}"


def _receipts(lines: pl.DataFrame) -> pl.Expr:
    """What tells receipts apart."""
    return pl.struct(USER_ID, "basket_id" if "basket_id" in lines.columns else "time")


def _n_receipts(lines: pl.DataFrame) -> int:
    return int(lines.select(_receipts(lines).n_unique()).item()) if len(lines) else 0


def _outside(w: Weeks, measures: Mapping[str, _Measure], least: float) -> str | None:
    """A sentence of measures outside of what is usual, and by a share of `least` from the median."""
    if not w.learnt or w.new.is_empty():
        return None
    said = []
    for name, of in measures.items():
        came, low, high = w.usual(of)
        median = float(np.median([of(p) for p in w.periods]))
        if not median or low <= came <= high or abs(came / median - 1) < least:
            continue
        said.append(f"{came:,.4g} {name}; usual is {low:,.4g} to {high:,.4g}")
    return "; ".join(said) + ". Look whether the export is right." if said else None


def _in(lines: pl.DataFrame, kinds: Mapping[str, pl.Expr]) -> dict[str, pl.Expr]:
    """Kinds of lines that the columns can tell."""
    known = set(lines.columns)
    return {k: of.fill_null(False) for k, of in kinds.items() if known.issuperset(of.meta.root_names())}


def _more(w: Weeks, kinds: Mapping[str, pl.Expr], least: float, advice: str) -> Found:
    """Lines of a kind of which there are more than usual, and than a share of `least`."""
    if not w.learnt or w.new.is_empty():
        return None
    kinds = _in(w.past, _in(w.new, kinds))
    shares = pl.concat(f.select(**kinds).mean() for f in (w.new, *w.periods) if len(f))
    said = {}
    for kind in kinds:
        came, *past = shares[kind]
        most = usual([max(share, 0.001) for share in past])[1]
        if came > max(most, least):
            said[kind] = f"{came:.1%} of the lines: {kind}; usual is at most {most:.1%}"
    if not said:
        return None
    rows = w.new.filter(pl.any_horizontal(kinds[kind] for kind in said))
    return f"{'. '.join(said.values())}. {advice}", rows


def _contents(lines: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """`keys`, `time`, `content` (a hash of the items and amounts) and `n` lines of each receipt."""
    amounts = [c for c in ("quantity", "value") if c in lines.columns]
    row = pl.struct(ITEM_ID, *amounts).hash(0)
    return lines.group_by(keys).agg(pl.col("time").min(), content=row.sort().hash(0).sum(), n=pl.len())


def _prices(lines: pl.DataFrame) -> pl.DataFrame:
    """`item_id` and the median `price` of one unit, of lines that were sold."""
    quantity = pl.col("quantity") if "quantity" in lines.columns else pl.lit(1.0)
    sold = lines.with_columns(price=pl.col("value") / quantity).filter(
        (quantity > 0) & (pl.col("value") > 0)
    )
    return sold.group_by(ITEM_ID).agg(pl.col("price").median())


def _plain(ids: pl.Series) -> pl.Series:
    """Ids without what notations differ in: Unicode form, case, blanks, leading zeros."""
    text = ids.cast(pl.String).str.normalize("NFKC").str.to_lowercase()
    return text.str.replace_all(r"\s+", "").str.strip_chars_start("0")


def _changed_ids(w: Weeks, column: str, known: pl.Series) -> Found:
    new = w.new[column].drop_nulls().unique()
    if new.dtype != known.dtype:
        new, known = new.cast(pl.String), known.cast(pl.String)
    strange = new.filter(~new.is_in(known.implode()))
    alike = strange.filter(_plain(strange).is_in(_plain(known).implode()))
    if len(alike) < max(3, 0.01 * len(new)):
        return None
    plain = pl.DataFrame({"known": known, "plain": _plain(known)})
    pairs = pl.DataFrame({"id": alike, "plain": _plain(alike)}).join(plain, on="plain", how="left")
    one = pairs.row(0, named=True)
    rows = w.new.filter(pl.col(column).cast(pl.String).is_in(alike.cast(pl.String).implode()))
    return (
        f"{len(alike):,} of {len(new):,} ids in {column} are new, but known in another notation (such "
        f"as {one['id']!r} for {one['known']!r}); nobody would be recognised. Write them as before.",
        rows,
    )


def _unknown(w: Weeks, column: str, what: str) -> str | None:
    """A sentence if far more lines than in past weeks are of ids that were never seen before."""
    if not w.learnt or w.new.is_empty():
        return None
    shares = []
    for period in w.periods[: max(LEAST_PAST, len(w.periods) // 2)]:  # with a past of their own
        if period.is_empty():
            continue
        earlier = w.past.filter(pl.col("time") < period["time"].min())[column].unique()
        if len(earlier):
            shares.append(1 - int(period[column].is_in(earlier.implode()).sum()) / len(period))
    known = w.past[column].unique()
    new = w.new[column]
    if new.dtype != known.dtype:
        new, known = new.cast(pl.String), known.cast(pl.String)
    came = 1 - int(new.is_in(known.implode()).sum()) / len(new)
    most = max(shares, default=1.0)
    if came < 0.3 or came < 2 * most:
        return None
    return (
        f"{came:.0%} of the lines are of {what} never seen before; in past weeks at most {most:.0%}. "
        f"Were ids made anew? Give a table of old and new ones."
    )


def _listed(values: Sequence[Any]) -> str:
    shown = ", ".join(str(v) for v in values[:_EXAMPLES])
    return shown if len(values) <= _EXAMPLES else f"{shown} and {len(values) - _EXAMPLES:,} more"

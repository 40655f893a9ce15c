"""Times in everyday notations: one meaning a column, or an error that names the cells."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from retailrec.data.parsing import without_missing
from retailrec.errors import DataError, SettingError

DAY_ONE = datetime(2000, 1, 1)  # what day number 1 stands for
EARLIEST, LATEST = datetime(1980, 1, 1), datetime(2100, 1, 1)
_EPOCH, _SPREADSHEET = datetime(1970, 1, 1), datetime(1899, 12, 30)

_DATES = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%Y%m%d",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%m.%d.%Y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d.%m.%y",
    "%d-%m-%y",
    "%m-%d-%y",
    "%d-%b-%Y",
    "%y-%m-%d",
    "%y/%m/%d",
    "%y.%m.%d",
    "%d %b %Y",
    "%d-%b-%y",
    "%d %b %y",
    "%b %d, %Y",
    "%b %d %Y",
    "%Y-%b-%d",
    "%Y %b %d",
    "%d %B %Y",
    "%d-%B-%Y",
    "%B %d, %Y",
    "%B %d %Y",
)
_CLOCKS = (
    "",
    " %H:%M:%S%.f",
    " %H:%M",
    "T%H:%M:%S%.f",
    "T%H:%M",
    " %I:%M:%S %p",
    " %I:%M %p",
    " %I:%M:%S%p",
    " %I:%M%p",
    ", %H:%M:%S",
    ", %H:%M",
    "%H%M%S",
    "T%H%M%S",
    "%H%M",
)
_ZONE = r"(?i)(\d:\d\d(?::\d\d)?(?:\.\d+)?|T\d{4}(?:\d\d)?)\s*(Z|UTC|GMT|[+-]\d\d(?::?\d\d)?)$"
_ZONE_MARK = re.compile(r"\s*%[:#]{0,3}z")
_SAMPLE = 5000
_A_DAY = 86_400_000_000  # microseconds
# what numbers may count: from when, in units of how many microseconds, from which number on
_COUNTS = (
    (DAY_ONE - timedelta(days=1), _A_DAY, 0),
    (_EPOCH, _A_DAY, 3653),
    (_SPREADSHEET, _A_DAY, 29221),
    *((_EPOCH, unit, 10 * 365 * _A_DAY // unit) for unit in (1_000_000, 1_000, 1)),
)
_FEW = 0.01  # share of cells in another notation that are counted as unreadable, not refused


class Format(NamedTuple):
    """A date and the clocks that come with it: ``2024-01-31`` and ``2024-01-31 10:00`` are alike."""

    day: str
    clocks: tuple[str, ...]

    def read(self, text: pl.Series) -> pl.Series:
        """Times, null where neither fits."""
        found = pl.Series(text.name, [None], pl.Datetime("us")).new_from_index(0, len(text))
        for clock in self.clocks:
            if found.null_count() == 0:
                break
            parsed = text.str.to_datetime(self.day + clock, time_unit="us", strict=False)
            found = found.zip_with(found.is_not_null(), parsed)
        long_ago = found.dt.year() < 1000  # %Y takes 24 for the year 24
        return found.set(long_ago.fill_null(False), None)


def parse_time(values: pl.Series, *, who: str, time_format: str | None = None) -> pl.Series:
    """Datetime("us") from timestamps, dates, day numbers (1 = 2000-01-01), YYYYMMDD or text.

    Text is read by the one notation that fits most cells; the other cells become null. Zones of text
    are taken off: times are those on the shop's clock. `time_format` states the notation, as for
    `datetime.strptime`.

    Raises
    ------
    DataError
        If no notation fits, two each fit cells that the other does not, day and month can't be told
        apart, or cells are of different zones.
    SettingError
        If `time_format` is no format.

    Examples
    --------
    >>> parse_time(pl.Series("time", ["31-01-2024 5:30 PM"]), who="lines")[0]
    datetime.datetime(2024, 1, 31, 17, 30)
    """
    name, kind = values.name, values.dtype
    if isinstance(kind, pl.Datetime):
        return values.dt.replace_time_zone(None).cast(pl.Datetime("us"))
    if kind == pl.Date or kind == pl.Null:
        return values.cast(pl.Datetime("us"))
    if (kind.is_integer() or kind.is_float()) and time_format is None:
        return _time_from_numbers(values.cast(pl.Float64), who)
    if kind.is_nested() or kind in (pl.Object, pl.Binary, pl.Boolean, pl.Time, pl.Duration):
        raise DataError(f"column '{name}' of {who} must hold times, not {kind}; map another column.")
    text = without_missing(values.cast(pl.String))
    filled = len(text) - text.null_count()
    if time_format is not None:
        return _stated(text, time_format, who)
    number = text.cast(pl.Float64, strict=False)
    if filled and number.null_count() <= text.null_count() + filled // 20:
        return _time_from_numbers(number, who)
    bare = _without_zone(text.str.replace(r"(:\d\d),(\d+)", "${1}.${2}"), who)
    read = [(found, parsed) for found in _candidates(bare) for parsed in [found.read(bare)]]
    if not read:
        raise DataError(
            f"column '{name}' of {who} must hold times; can't read "
            f"{text.drop_nulls().head(1).to_list()}. Give timestamps, dates (2024-01-31) or day "
            "numbers, or state the notation (--time-format '%d %m %Y')."
        )
    chosen, best = min(read, key=lambda pair: (pair[1].null_count(), _mostly_to_come(pair[1])))
    _refuse_ambiguous(bare, read, chosen, best, who)
    return best.alias(name)


def as_instant(value: Any, *, who: str, zone: str | None = None) -> datetime:
    """An instant on the shop's clock, from a datetime, a date, text or what NumPy and pandas have.

    One with a zone is told in `zone`, that of the receipts, where they have one.

    Raises
    ------
    DataError
        If it is no instant.

    Examples
    --------
    >>> as_instant("2024-02-01", who="asof")
    datetime.datetime(2024, 2, 1, 0, 0)
    """
    found = value
    if hasattr(value, "to_pydatetime"):
        found = value.to_pydatetime()
    elif type(value).__name__ == "datetime64":
        found = value.astype("datetime64[us]").item()
    elif isinstance(value, str):
        try:
            found = datetime.fromisoformat(value.strip())
        except ValueError:
            found = None
    if isinstance(found, date) and not isinstance(found, datetime):
        found = datetime(found.year, found.month, found.day)
    if not isinstance(found, datetime):
        raise DataError(
            f"{who} must be an instant, such as datetime(2024, 1, 31) or '2024-01-31', not {value!r}."
        )
    if found.tzinfo is None:
        return found
    if zone:
        moment = pl.Series([found.astimezone(UTC)]).dt.convert_time_zone(zone)
        found = moment.dt.replace_time_zone(None)[0]
    return found.replace(tzinfo=None)


def _stated(text: pl.Series, time_format: str, who: str) -> pl.Series:
    shape = time_format.replace(".%f", "%.f")
    if _ZONE_MARK.search(shape):  # times are those that the shop's clock showed
        text, shape = _without_zone(text, who), _ZONE_MARK.sub("", shape)
    try:
        pl.Series(["2024"]).str.to_datetime(shape, time_unit="us", strict=False)
        parsed = text.str.to_datetime(shape, time_unit="us", strict=False)
    except pl.exceptions.PolarsError as error:
        raise SettingError(
            f"time format {time_format!r} is none; expected one such as '%d/%m/%Y %H:%M' ({error})."
        ) from error
    if isinstance(parsed.dtype, pl.Datetime) and parsed.dtype.time_zone:
        parsed = parsed.dt.replace_time_zone(None)
    filled = len(text) - text.null_count()
    if filled and len(parsed) - parsed.null_count() < filled / 2:
        raise DataError(
            f"column '{text.name}' of {who} is not written as {time_format!r}, for example "
            f"{text.filter(parsed.is_null() & text.is_not_null())[0]!r}. Correct the time format."
        )
    return parsed


def _without_zone(text: pl.Series, who: str) -> pl.Series:
    """Text without zones; two offsets an hour apart are one place in summer and winter."""
    if not text.str.contains(_ZONE).any():
        return text
    zone = text.str.extract(_ZONE, 2)
    sign = (
        pl.Series([1]).new_from_index(0, len(zone)).set(zone.str.starts_with("-").fill_null(False), -1)
    )
    digits = zone.str.replace_all(r"\D", "")
    minutes = digits.str.slice(0, 2).cast(pl.Int64, strict=False).fill_null(0) * 60
    minutes += digits.str.slice(2, 2).cast(pl.Int64, strict=False).fill_null(0)
    offsets = (minutes * sign).filter(text.is_not_null()).unique().sort()
    mixed = bool(zone.filter(text.is_not_null()).is_null().any())
    if mixed or len(offsets) > 2 or int(offsets[-1]) - int(offsets[0]) > 60:
        some = text.filter(zone.is_not_null())[0]
        other = text.filter(zone.is_null() if mixed else (minutes * sign) != (minutes * sign)[0])
        raise DataError(
            f"column '{text.name}' of {who} holds times of different zones, for example {some!r} and "
            f"{other.drop_nulls()[0]!r}; convert them to one."
        )
    return text.str.replace(_ZONE, "${1}")


def _candidates(text: pl.Series) -> list[Format]:
    """Notations that fit some cell of a sample, or of the whole where the sample says nothing."""
    known = text.drop_nulls()
    sample = known.gather_every(max(1, len(known) // _SAMPLE))
    for cells in (sample, known):
        found = []
        for day in _DATES:
            clocks = tuple(c for c in _CLOCKS if _fits(cells, day + c))
            if clocks:
                found.append(Format(day, clocks))
        if found:
            return found
    return []


def _fits(cells: pl.Series, notation: str) -> bool:
    parsed = cells.str.to_datetime(notation, time_unit="us", strict=False)
    return bool((parsed.dt.year() >= 1000).any())


def _mostly_to_come(times: pl.Series) -> bool:
    """Do more than a few lie after today? Receipts do not: 29.02.24 is no day of 2029."""
    late = times > datetime.now() + timedelta(days=2)
    return int(late.sum()) > _FEW * (len(times) - times.null_count())


def _refuse_ambiguous(
    text: pl.Series, read: list[tuple[Format, pl.Series]], chosen: Format, best: pl.Series, who: str
) -> None:
    """Raise if cells are in two notations, or two notations read all of them, but not alike."""
    unread = text.filter(best.is_null() & text.is_not_null())
    others = _candidates(unread) if len(unread) > _FEW * (len(text) - text.null_count()) else []
    if others:
        raise DataError(
            f"column '{text.name}' of {who} holds dates in two formats: most look like "
            f"{chosen.day}, others like {others[0].day}, for example {unread[0]!r}. Use one format."
        )
    for other, parsed in read:
        alike = parsed.null_count() == best.null_count() and not parsed.equals(best)
        if alike and _mostly_to_come(parsed) == _mostly_to_come(best):
            raise DataError(
                f"column '{text.name}' of {who}: day and month can't be told apart, for example "
                f"{text.drop_nulls()[0]!r}. Write dates as 2024-01-31, or state which is which, "
                f"--time-format '{chosen.day}' or '{other.day}'."
            )


def _time_from_numbers(values: pl.Series, who: str) -> pl.Series:
    """Day numbers, seconds since 1970, or dates written as one number such as 20240131.

    Day numbers count from 2000 (1 is its first day), from 1970, or as spreadsheets do, whichever is the
    first by which nearly all lie between 1980 and today.
    """
    known = values.drop_nulls().drop_nans()
    if known.is_empty():
        return pl.Series(values.name, [None], pl.Datetime("us")).new_from_index(0, len(values))
    low, high = known.quantile(0.02, "nearest"), known.quantile(0.98, "nearest")
    least, most = float(low or 0), float(high or 0)
    digits = pl.Series(values.name, values.cast(pl.Int64, strict=False)).cast(pl.String)
    for shape, scale in (("%Y%m%d", 1), ("%Y%m%d%H%M", 10_000), ("%Y%m%d%H%M%S", 1_000_000)):
        if 19000101 * scale <= least and most < 21010101 * scale:
            return digits.str.to_datetime(shape, time_unit="us", strict=False).alias(values.name)
    today = datetime.now() + timedelta(days=2)
    if least >= 1980 and most <= today.year + 1:
        raise DataError(
            f"column '{values.name}' of {who} holds numbers from {least:g} to {most:g}, which may be "
            f"years or days; give dates."
        )
    for first, unit, start in _COUNTS:
        last, end = ((t - first) / timedelta(microseconds=unit) for t in (LATEST, today))
        if start <= least and most <= end:
            inside = values.is_between(start, last).fill_null(False)
            micros = (values.set(~inside, None) * unit).round().cast(pl.Int64)
            shift = int((first - _EPOCH) / timedelta(microseconds=1))
            return (micros + shift).cast(pl.Datetime("us")).alias(values.name)
    raise DataError(
        f"column '{values.name}' of {who} holds numbers from {least:g} to {most:g}; expected day "
        "numbers (since 2000, 1970 or a spreadsheet's), seconds since 1970 or dates such as "
        "20240131, up to today. Convert it to timestamps."
    )

"""Receipts as the store keeps them: a row each, lines packed; the same cleaning as a load."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import pairwise
from math import nan
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    LINE,
    ONE_VISIT_US,
    STANDARD_RULES,
    LoadReport,
    kept_lines,
    parse_lines,
)
from retailrec.data.encoding import places
from retailrec.data.lines import CARRIED, in_order, merged, settled
from retailrec.data.parsing import EARLIEST, LATEST, MISSING, bare_id
from retailrec.errors import DataError, RetailRecError
from retailrec.schema import ITEM_ID, USER_ID

# what a line holds beside its item; little-endian, so that a file moves between machines
AMOUNTS = np.dtype([("quantity", "<f8"), ("value", "<f8"), ("discount", "<f4")])
LONGEST_ID = 128  # characters
BY_TIME = "%Y%m%dT%H%M%S"  # how a receipt without a number is called
_CALLED = re.compile(r"\d{8}T\d{6}(-\d{4}|\.\d{6}-\d{4})?")  # also by versions before 0.3
_AGAIN = re.compile(r"@\d{8}T\d{6}$")  # behind a number that an earlier receipt of the shopper had
_NOTHING = frozenset(MISSING)
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)
SECOND, _DAY_US = 1_000_000, 86_400_000_000
# what is said of such receipts, wherever they came from
BESIDE = (
    "{n:,} receipts begin in the second of one in the store, where one has a number and the other "
    "none, and their contents differ, so both count: {some}"
)
Row = tuple[str, str, int, str, bytes]  # of the store: shopper, number, time, items, amounts


class Line(NamedTuple):
    """One line of a receipt; NaN where not known."""

    item: str
    quantity: float = 1.0
    value: float = nan
    discount: float = nan


@dataclass(frozen=True)
class Receipt:
    """A receipt: whose, which, when, and one line an item; shopper and number name it."""

    shopper: str
    number: str
    time: int  # microseconds since 1970, in the shop's own time
    items: tuple[str, ...]  # ids, one a line
    amounts: NDArray[np.void]  # (n_lines,) of `AMOUNTS`

    def as_row(self) -> dict[str, object]:
        """The receipt as a row of the store's table."""
        return {
            "shopper": self.shopper,
            "number": self.number,
            "time": self.time,
            "items": "\n".join(self.items),
            "amounts": self.amounts.tobytes(),
        }


class Posted(NamedTuple):
    """A receipt as it was sent."""

    shopper: str
    number: str
    time: datetime
    lines: Sequence[Line]


@dataclass
class Accepted:
    """Receipts ready to be stored, in the order in which they were sent, and what became of lines."""

    receipts: list[Receipt]
    report: LoadReport = field(default_factory=lambda: LoadReport("receipts"))


def accept(posted: Sequence[Posted], changed_ids: ChangedIds | None = None) -> Accepted:
    """Receipts with the lines that count as purchases, an item once: what loading a file would keep.

    Users and items have the ids that `changed_ids` says.

    It is the cleaning of a file, with the same rules: what is no purchase is left out and counted, what
    is taken back on its receipt too, and further lines of an item are added to the first. A receipt of
    which nothing is left has no items. Each receipt stands for itself, whatever its number.

    Raises
    ------
    DataError
        If an id can't be one, or the time is none that a receipt can have.

    Examples
    --------
    >>> lines = [Line("tea", 1, 2.5), Line("tea", 2, 5.0), Line("jam", -1, -3.0)]
    >>> found = accept([Posted("ann", "1", datetime(2024, 1, 9), lines)])
    >>> found.receipts[0].items, found.receipts[0].amounts["quantity"].tolist(), found.report.rejected
    (('tea',), [3.0], {'return or cancellation': 1})
    """
    changed_ids = changed_ids or ChangedIds()
    if changed_ids.users:
        posted = [p._replace(shopper=changed_ids.last("user", p.shopper)) for p in posted]
    for p in posted:
        if {bare_id(p.shopper), bare_id(p.number)} & _NOTHING:
            raise DataError(
                f"a receipt of shopper {p.shopper!a} with number {p.number!a} names none: a word for "
                f"nothing is no id. Send the ids that the receipts have."
            )
    heads, nothing = [], np.zeros(0, AMOUNTS)
    for p in posted:
        shopper, number = check_id(p.shopper, "shopper"), check_number(p.number)
        heads.append(Receipt(shopper, number, microseconds(p.time), (), nothing))
    out = Accepted(heads)
    lines = [line for p in posted for line in p.lines]
    if not lines:
        return out
    place = np.repeat(np.arange(len(posted)), [len(p.lines) for p in posted])
    item, *amounts = zip(*lines, strict=True)
    raw = pl.DataFrame({USER_ID: place, ITEM_ID: pl.Series(item, dtype=pl.String)}).with_columns(
        pl.Series("time", [head.time for head in heads]).cast(pl.Datetime("us")).gather(place),
        *(
            pl.Series(name, cells, pl.Float64).fill_nan(None)
            for name, cells in zip(("value", "discount"), amounts[1:], strict=True)
        ),
        quantity=pl.Series(amounts[0], dtype=pl.Float64),
    )
    good = kept_lines(
        parse_lines(raw, who="receipts", changed_ids=ChangedIds({}, changed_ids.items)),
        STANDARD_RULES,
        out.report,
    )
    if good.is_empty():
        return out
    items = good[ITEM_ID].unique().sort()
    for text in items:
        check_id(text, "item")
    coded = pl.DataFrame(
        [
            good[USER_ID].cast(pl.Int32).alias("basket"),
            good[USER_ID].cast(pl.Int32).alias("user"),
            places(good[ITEM_ID], items).alias("item"),
            *(good[c] for c in ("time", "quantity", "value", LINE)),
            good["discount"].cast(CARRIED["discount"]),
        ]
    )
    held = [in_order([coded])]
    ids = {USER_ID: pl.Series([p.shopper for p in posted]), ITEM_ID: items}
    held.append(settled(held, ids, out.report))
    log = merged(held, out.report)
    basket = log["basket"].to_numpy()
    starts = np.flatnonzero(np.diff(basket, prepend=-1)).tolist()
    packed, names = packed_amounts(log), items.gather(log["item"]).to_list()
    for first, stop in pairwise([*starts, len(basket)]):
        at = basket[first]
        heads[at] = replace(heads[at], items=tuple(names[first:stop]), amounts=packed[first:stop])
    return out


def packed_amounts(log: pl.DataFrame) -> NDArray[np.void]:
    """(n_lines,) of `AMOUNTS`: NaN where a log does not tell."""
    amounts = np.empty(log.height, AMOUNTS)
    for name in AMOUNTS.names or ():
        amounts[name] = log[name].fill_null(nan).to_numpy() if name in log.columns else nan
    return amounts


def check_id(text: str, what: str) -> str:
    """The id as a load reads it, without blanks around it: printable, 1 to `LONGEST_ID` characters.

    Raises
    ------
    DataError
        If it is not: control characters could not be stored everywhere, nor shown.
    """
    text = bare_id(text)
    if not text or len(text) > LONGEST_ID or not text.isprintable():
        raise DataError(
            f"{what} {text[:40]!a} is no id; expected 1 to {LONGEST_ID} printable characters. Send the "
            f"id that the receipts have."
        )
    return text


def check_number(text: str) -> str:
    """As `check_id`, of a receipt's number; the time behind one that was used again does not count.

    Raises
    ------
    DataError
        As of `check_id`.

    Examples
    --------
    >>> check_number(" 17@20240109T183000 ")
    '17@20240109T183000'
    """
    text = bare_id(text)
    own = own_number(text)
    return check_id(own, "receipt number") + text[len(own) :]


def own_number(number: str) -> str:
    """A receipt's number without the time that it got behind it, since it was used again.

    Examples
    --------
    >>> own_number("17@20240109T183000"), own_number("17")
    ('17', '17')
    """
    return _AGAIN.sub("", number)


def microseconds(time: datetime) -> int:
    """Microseconds since 1970 of a time without offset.

    Raises
    ------
    DataError
        If the time has an offset, or lies outside of what a receipt can have.
    """
    if time.tzinfo is not None:
        raise DataError(
            f"time {time.isoformat()} has an offset; receipts are in the shop's own time. Send it "
            f"without offset."
        )
    if not EARLIEST <= time <= LATEST:
        raise DataError(
            f"time {time.isoformat()} is no date that a receipt can have; expected {EARLIEST.year} to "
            f"{LATEST.year}. Correct the clock."
        )
    return (time - _EPOCH) // _MICROSECOND


class WrongClock(RetailRecError):
    """This machine's clock says a time that can't be."""


def clock() -> int:
    """Microseconds since 1970 by this machine's clock, in the shop's own time.

    Raises
    ------
    WrongClock
        If it says what no receipt can have, as where a machine has begun in 1970.
    """
    try:
        return microseconds(datetime.now())
    except DataError as error:
        raise WrongClock(f"the clock of the service's machine is wrong: {error}") from error


def moment(us: int) -> datetime:
    """The time that `microseconds` was given.

    Examples
    --------
    >>> moment(microseconds(datetime(2024, 1, 9, 8, 30)))
    datetime.datetime(2024, 1, 9, 8, 30)
    """
    return _EPOCH + timedelta(microseconds=us)


def midnight_after(us: int) -> int:
    """The midnight after a time, both in microseconds: a load ends there too."""
    return (us // _DAY_US + 1) * _DAY_US


def is_called_by_time(number: str) -> bool:
    """Does a load call a receipt so that has no number?

    Examples
    --------
    >>> [is_called_by_time(text) for text in ("20240109T183000", "20240109T183000-0001", "17")]
    [True, True, False]
    """
    return _CALLED.fullmatch(number) is not None


def called_by_time(us: int) -> list[str]:
    """How a load may have called a receipt of this time that has no number."""
    at = moment(us)
    plain, long = at.strftime(BY_TIME), at.strftime(f"{BY_TIME}.%f")
    return [plain, f"{plain}-0001", f"{plain}-0002", f"{long}-0000", f"{long}-0001"]


def number_key(number: str) -> tuple[int, str]:
    """Sorts whole numbers as numbers: receipts of one time keep the order that a load gives them."""
    return (int(number), "") if is_whole(number) else (0, number)


def is_whole(text: str) -> bool:
    """Would a load take this id for an integer, without leading zeros and within 64 bits?

    Examples
    --------
    >>> [is_whole(text) for text in ("7", "-7", "07", "7a", "-0", "9223372036854775808")]
    [True, True, False, False, False, False]
    """
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        return False
    return str(int(text)) == text and -(2**63) <= int(text) < 2**63


def unpack(rows: Sequence[Mapping[Any, Any]]) -> list[Receipt]:
    """Receipts from the store's rows."""
    found = []
    for row in rows:
        _, items, amounts = unpack_lines([row["items"]], [row["amounts"]])
        found.append(Receipt(row["shopper"], row["number"], row["time"], tuple(items), amounts))
    return found


def unpack_lines(
    items: Sequence[str], amounts: Sequence[bytes]
) -> tuple[NDArray[np.int64], list[str], NDArray[np.void]]:
    """Lines of each of some receipts, and all their items and amounts, from the store's columns."""
    sizes = np.array([text.count("\n") + 1 if text else 0 for text in items], np.int64)
    names = "\n".join(filter(None, items))
    return sizes, names.split("\n") if names else [], np.frombuffer(b"".join(amounts), AMOUNTS)


def amounts_of(row: Row) -> dict[str, np.void]:
    """The amounts of a receipt by item."""
    return dict(zip(row[3].split("\n"), np.frombuffer(row[4], AMOUNTS), strict=True)) if row[3] else {}


def of_second(rows: Sequence[Row], time: int) -> range:
    """Places of the rows of a time's second."""
    return between(rows, time // SECOND * SECOND, (time // SECOND + 1) * SECOND)


def between(rows: Sequence[Row], first: int, end: int) -> range:
    """Places of the rows, which are in order of time, from a time on and before another one."""
    start, stop = (bisect_left(rows, time, key=itemgetter(2)) for time in (first, end))
    return range(start, stop)


def lies_within(part: Row, whole: Row) -> bool:
    """Does a receipt begin later than another one, which has no less of all its items?"""
    if not part[3] or part[2] <= whole[2]:
        return False
    known = amounts_of(whole)
    return all(
        item in known and (_known(own) <= _known(known[item]) * (1 + 1e-6)).all()
        for item, own in amounts_of(part).items()
    )


def made_of(whole: Row, parts: Sequence[Row]) -> list[int]:
    """Places of the parts, the first among them, that together have the lines of a whole receipt.

    None, if there are no such. A till dates each line, so without numbers each second of a receipt is
    one of its own. What does not fit is passed over: it is of a receipt at another till, or taken back.
    """
    left = {item: _known(amounts) for item, amounts in amounts_of(whole).items()}
    least = {item: 1e-6 * (1 + np.abs(own)) for item, own in left.items()}
    taken: list[int] = []
    for place, part in enumerate(parts):
        if part[2] - whole[2] > ONE_VISIT_US:
            break
        lines = {item: _known(amounts) for item, amounts in amounts_of(part).items()}
        if all(item in left and (own <= left[item] + least[item]).all() for item, own in lines.items()):
            left |= {item: left[item] - own for item, own in lines.items()}
            taken.append(place)
        if not taken:
            break
        if all((own <= least[item]).all() for item, own in left.items()):
            return taken
    return []


def _known(amounts: np.void) -> NDArray[np.float64]:
    """Quantity, and value or 0."""
    return np.nan_to_num([amounts["quantity"], amounts["value"]])

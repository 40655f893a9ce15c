"""Receipts as the store keeps them: a row each, lines packed; the same cleaning as a load."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from math import isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retailrec.data.timeformats import EARLIEST, LATEST
from retailrec.errors import DataError

# what a line holds beside its item; little-endian, so that a file moves between machines
AMOUNTS = np.dtype([("quantity", "<f8"), ("value", "<f8"), ("discount", "<f4")])
LONGEST_ID = 128  # characters
LARGEST = 1e12  # of an amount; sums of such still are numbers
_EPOCH = datetime(1970, 1, 1)
_MICROSECOND = timedelta(microseconds=1)


class Line(NamedTuple):
    """One line of a receipt; NaN where not known."""

    item: str
    quantity: float = 1.0
    value: float = nan
    discount: float = nan


@dataclass(frozen=True)
class Receipt:
    """A receipt: whose, which, when, and one line an item.

    Attributes
    ----------
    shopper, number : text; together they name the receipt
    time : microseconds since 1970, in the shop's own time
    items : ids, one a line
    amounts : (n_lines,) of `AMOUNTS`
    """

    shopper: str
    number: str
    time: int
    items: tuple[str, ...]
    amounts: NDArray[np.void]

    def as_row(self) -> dict[str, object]:
        """The receipt as a row of the store's table."""
        return {
            "shopper": self.shopper,
            "number": self.number,
            "time": self.time,
            "items": "\n".join(self.items),
            "amounts": self.amounts.tobytes(),
        }


@dataclass
class Accepted:
    """A receipt ready to be stored, and why lines of it were left out.

    Attributes
    ----------
    rejected : reason -> number of lines
    merged : lines that repeat an item of the receipt and were added to its first line
    """

    receipt: Receipt
    rejected: dict[str, int] = field(default_factory=dict)
    merged: int = 0


def accept(shopper: str, number: str, time: datetime, lines: Sequence[Line]) -> Accepted:
    """A receipt with the lines that count as purchases, an item once: as loading a file would keep it.

    Lines without an item, returns (negative), zero quantities, zero prices and amounts that are no
    numbers are left out and counted. Further lines of an item are added to the first.

    Raises
    ------
    DataError
        If an id can't be one, the time is none that a receipt can have, or an amount is too large.

    Examples
    --------
    >>> lines = [Line("tea", 1, 2.5), Line("tea", 2, 5.0), Line("jam", -1, -3.0)]
    >>> found = accept("ann", "1", datetime(2024, 1, 9), lines)
    >>> found.receipt.items, found.receipt.amounts["quantity"].tolist(), found.rejected
    (('tea',), [3.0], {'return or cancellation': 1})
    """
    check_id(shopper, "shopper")
    check_id(number, "receipt number")
    out = Accepted(Receipt(shopper, number, microseconds(time), (), np.zeros(0, AMOUNTS)))
    kept: dict[str, list[float]] = {}
    for line in lines:
        reason = _reason_against(line)
        if reason:
            out.rejected[reason] = out.rejected.get(reason, 0) + 1
            continue
        check_id(line.item, "item")
        if any(abs(amount) > LARGEST for amount in line[1:]):
            raise DataError(
                f"a line has an amount beyond {LARGEST:g}; nothing was stored. Correct the receipt."
            )
        if line.item not in kept:
            kept[line.item] = [line.quantity, line.value, line.discount]
            continue
        first = kept[line.item]
        first[0] += line.quantity
        first[1] = _sum_of_known(first[1], line.value)
        out.merged += 1
    order = sorted(kept)  # the order of lines on paper is not kept, so that equal receipts are equal
    amounts = np.array([tuple(kept[item]) for item in order], AMOUNTS)
    out.receipt = Receipt(shopper, number, out.receipt.time, tuple(order), amounts)
    return out


def check_id(text: str, what: str) -> str:
    """The id, if it is printable text of 1 to `LONGEST_ID` characters.

    Raises
    ------
    DataError
        If it is not: control characters could not be stored everywhere, nor shown.
    """
    if not text.strip() or len(text) > LONGEST_ID or not text.isprintable():
        raise DataError(
            f"{what} {text[:40]!a} is no id; expected 1 to {LONGEST_ID} printable characters. Send the "
            f"id that the receipts have."
        )
    return text


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
    at = moment(us)
    day = datetime(at.year, at.month, at.day) + timedelta(days=1)
    return (day - datetime(1970, 1, 1)) // timedelta(microseconds=1)


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
        items = tuple(row["items"].split("\n")) if row["items"] else ()
        amounts = np.frombuffer(row["amounts"], AMOUNTS)
        found.append(Receipt(row["shopper"], row["number"], row["time"], items, amounts))
    return found


def _reason_against(line: Line) -> str:
    """Why the line is no purchase, in the words of `retailrec.data.cleaning`; empty if it is one."""
    if not line.item.strip():
        return "no item"
    if not isfinite(line.quantity):
        return "quantity is not a number"
    known = line.value == line.value
    if line.quantity < 0 or (known and line.value < 0):
        return "return or cancellation"
    if line.quantity == 0:
        return "zero quantity"
    if known and not isfinite(line.value):
        return "value is not a number"
    if known and line.value == 0:
        return "zero price"
    return ""


def _sum_of_known(one: float, other: float) -> float:
    if one != one:
        return other
    return one if other != other else one + other

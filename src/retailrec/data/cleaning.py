"""Turn raw receipt lines into typed, cleaned lines, and account for every one of them.

`parse_lines` gives the standard columns their types; `kept_lines` parts the lines by a list of rules. A
line that no rule rejects is kept; a rejected one carries the reason of the first rule that met it.
`STANDARD_RULES` look at one line, `RECEIPT_RULES` at all lines of an item on a receipt. Both tables
hold for files, frames, the store, receipts that are posted to the service, and Spark.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.columns import join_time, missing_columns, unknown_column
from retailrec.data.files import FILE, Span, located
from retailrec.data.parsing import EARLIEST, LATEST, nested, parse_number, parse_time, typed_ids
from retailrec.errors import DataError
from retailrec.schema import ITEM_ID, TRANSACTIONS, USER_ID

ONE_VISIT_US = 6 * 3_600_000_000  # a receipt may go on after midnight for so long
_DAY_US = 86_400_000_000


def came_again(first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Is it another receipt: on another day, and more than a few hours later?"""
    return (last - first > ONE_VISIT_US) & (last // _DAY_US > first // _DAY_US)


def split_receipts(
    codes: list[NDArray[np.int32]],
    parts: list[pl.DataFrame],
    keys: NDArray[np.int64],
    times: NDArray[np.int64],
    again: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Part receipts where tills start their numbers again; `codes` change in place.

    Returns
    -------
    key (shopper and number) and first time of each receipt
    """
    rows = [np.flatnonzero(again[code]) for code in codes]
    time = np.concatenate(
        [p["time"].to_physical().to_numpy()[r] for p, r in zip(parts, rows, strict=True)]
    )
    code = np.concatenate([c[r] for c, r in zip(codes, rows, strict=True)])
    order = np.lexsort((time, code))
    time, code = time[order], code[order]
    new = np.ones(len(time), np.bool_)
    new[1:] = (code[1:] != code[:-1]) | came_again(time[:-1], time[1:])
    # what goes on and on without a pause is parted by days
    start = np.maximum.accumulate(np.where(new, np.arange(len(time)), 0))
    new[1:] |= (time[1:] - time[start[1:]] > _DAY_US) & (time[1:] // _DAY_US > time[:-1] // _DAY_US)
    receipt = np.cumsum(new) - 1
    of_line = np.empty(len(order), np.int64)
    of_line[order] = len(times) + receipt
    stops = np.cumsum([len(r) for r in rows])
    for c, r, stop in zip(codes, rows, stops, strict=True):
        c[r] = of_line[stop - len(r) : stop]
    parted = np.flatnonzero(again)
    keys, times = np.concatenate([keys, keys[code[new]]]), np.concatenate([times, time[new]])
    keys[parted] = np.iinfo(np.int64).max  # to the end: no line has them any more
    return keys, times


LINE = "line"  # number of the raw line, counted from 0, through all files
# what lines carry inside; the caller's own columns of these names step aside
_INSIDE = (LINE, "file", "reason", "user", "item", "basket", "text")
_MANY_DOUBLED = 0.02  # of receipts; tills that write a line a piece have fewer by chance
_FEW = 100  # receipts, or lines, of which nothing is said where they are fewer
_CROWD = 0.02  # of receipts that one user has
_GUESTS = (  # of who has no card, as tills name it, in lower case
    r"^\W*(-1|0+|9{5,}|n\.?/?a\.?|nan|null"
    r"|((default|anonymous|unknown|retail|pos|cash|guest|walk.?in|no) )?("
    r"guest|gast|gäste|invité|invitado|ospite|anon|anonym(e|ous|o|a)?|anonimo|unknown|unbekannt|none"
    r"|blank|default|walk.?in|cash|laufkund(e|schaft)|barverkauf|barkunde|diverse?|card|customer|client"
    r"|consumer)( (customer|client|cliente|kunde|user|shopper|buyer|sales?))?|kunde ohne karte"
    r"|client comptoir|consumidor final|cliente gen[eé]rico|p[uú]blico en general|розничный покупатель"
    r"|частное лицо)?\W*$"
)
_LOOKED_AT = 200_000  # lines that tell what a value means
_FEW_VALUES = 20  # a shop of so few prices may have receipts of one price
_NEAR = 0.2  # of the price of a single piece
_NOTHING_LEFT = 1e-9  # of what was bought: what sums of floats leave where a line is taken back


@dataclass(frozen=True)
class LineRule:
    """Reject the lines where `when` holds, for `reason`; a null condition does not reject.

    `meaning` tells a reader what such lines are, `unmet` is said where of many lines none is such.
    """

    reason: str
    when: pl.Expr
    meaning: str = ""
    unmet: str = ""


def beside(name: str) -> str:
    """The name under which lines carry a caller's column that has no standard name."""
    return f"{name}_" if name.rstrip("_") in _INSIDE else name


def missing(column: str) -> pl.Expr:
    """True where an id is null or an empty text."""
    return pl.col(column).is_null() | (pl.col(column).cast(pl.String).str.strip_chars() == "")


LARGEST = 1e12  # of an amount; sums of such still are numbers, also as float32
_SMALLEST = 1e-9  # of a quantity; prices of one unit still are numbers

# A line that takes something back. It is not rejected at once: it may void a line of its receipt.
TAKES_BACK = ((pl.col("quantity") < 0) | (pl.col("value") < 0)).fill_null(False)

STANDARD_RULES = (
    LineRule("no shopper", missing("user_id"), "the id is empty, or a word for nothing"),
    LineRule("no item", missing("item_id"), "the id is empty, or a word for nothing"),
    LineRule("no time, or one that can't be read", pl.col("time").is_null()),
    LineRule(
        "impossible date", ~pl.col("time").is_between(EARLIEST, LATEST), "before 1980 or after 2100"
    ),
    LineRule("quantity is not a number", ~pl.col("quantity").is_finite()),
    LineRule("value is not a number", ~pl.col("value").is_finite()),
    LineRule(
        "impossible amount",
        (pl.col("quantity").abs() > LARGEST) | (pl.col("value").abs() > LARGEST).fill_null(False),
        "a quantity or value beyond 10^12",
    ),
    LineRule("zero quantity", (pl.col("quantity").abs() < _SMALLEST) & ~TAKES_BACK),
    LineRule("zero price", (pl.col("value") == 0) & ~TAKES_BACK),
)

# Of all lines of an item on a receipt: `bought` and `paid` add up the lines that take nothing back,
# `quantity` and `value` (null where any is not known) all of them. Where the receipt stands in several
# exports, these are sums in one of them: `best` if it is the one that counts, `same` if it agrees.
RECEIPT_RULES = (
    LineRule(
        "return or cancellation",
        pl.col("bought") == 0,
        "negative quantity or value, and nothing on the receipt that it takes back",
    ),
    LineRule(
        "voided on its receipt",
        (pl.col("quantity") <= _NOTHING_LEFT * pl.col("bought"))
        | (pl.col("value") <= _NOTHING_LEFT * pl.col("paid")),
        "bought and taken back on one receipt: nothing is left",
    ),
    LineRule(
        "also in another file",
        ~pl.col("best") & pl.col("same"),
        "the receipt stands in several exports, where the item counts once",
    ),
    LineRule(
        "other amounts in another file",
        ~pl.col("best"),
        "the receipt stands in several exports with more of the item in another one, which counts",
    ),
)
RETURN, VOIDED, REPEATED, DIFFERS = (rule.reason for rule in RECEIPT_RULES)


@dataclass
class LoadReport:
    """What a load read, kept and rejected.

    `read` = `kept` + `merged` + the sum of `rejected`. `merged` lines repeat an item of their receipt;
    their quantity, value and discount are added to the first. `pieces` of them say the same as another
    line of the item, as tills write that scan each piece. `examples` holds up to three raw line numbers
    per reason; `rejects` the rejected lines themselves, of files with `file` and the `line` in it (of
    text, or the row of a sheet or Parquet file, from 1). `differing` items of receipts have other
    amounts in another export (`differences`: line and words of up to three); every line of `doubled`
    receipts stands twice. `split` receipts have a number that stood on another receipt of the shopper
    before, `twins` the shopper and the time of another one. `crowds` are shoppers who have more than a
    fiftieth of all receipts and seem to be many, and their receipts; `visits` says how many shoppers
    have how many. `zone` is that of the times, where the receipts tell. `changed` counts lines
    whose user's or item's id changed, `empty` cells of users, times, quantities and values that hold
    nothing. `reading` is how the file was read, as a model keeps it.
    """

    source: str
    read: int = 0
    kept: int = 0
    merged: int = 0
    pieces: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[int]] = field(default_factory=dict)
    n_users: int = 0
    n_items: int = 0
    n_baskets: int = 0
    first: datetime | None = None
    last: datetime | None = None
    split: int = 0
    twins: int = 0
    crowds: list[tuple[str, int]] = field(default_factory=list)
    differing: int = 0
    differences: list[tuple[int, str]] = field(default_factory=list)
    doubled: int = 0
    zone: str | None = None
    changed: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    reading: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rejects: pl.DataFrame = field(default_factory=pl.DataFrame, repr=False)
    spans: list[Span] = field(default_factory=list, repr=False)
    visits: dict[int, int] = field(default_factory=dict, repr=False)

    def count_visits(self, users: pl.Series, receipts: NDArray[np.int64]) -> None:
        """How many receipts each of (n_users,) has; users with many stand in `crowds` for now."""
        many = np.flatnonzero(receipts > _CROWD * receipts.sum())
        names = users.gather(many).cast(pl.String)
        self.crowds = list(zip(names.to_list(), receipts[many].tolist(), strict=True))
        self.visits = dict(zip(*(of.tolist() for of in np.unique_counts(receipts)), strict=True))

    def note_receipts(self) -> None:
        """Add to the notes what is odd about the receipts as a whole; name file and line of rejects."""
        self.rejects = located(self.rejects, self.spans)
        if self.differing:
            lines = located(pl.DataFrame({LINE: [line for line, _ in self.differences]}), self.spans)
            some = "; ".join(
                f"{row.get('file', '')} line {row[LINE]}: {words}".strip()
                for row, (_, words) in zip(lines.iter_rows(named=True), self.differences, strict=True)
            )
            self.notes.append(
                f"{self.differing:,} items of receipts have other amounts in another file, where they "
                f"count: {some}"
            )
        self.notes += [*empty_notes(self.empty, self.read), *self._mistaken_columns()]
        if self.doubled > _MANY_DOUBLED * self.n_baskets:
            self.notes.append(
                f"every line of {self.doubled:,} receipts stands twice in one table, and counts twice, "
                f"as pieces do; if it was put together from exports, give them as files of a folder, "
                f"where a receipt counts once"
            )
        if self.last is not None and self.last > datetime.now() + timedelta(days=2):
            self.notes.append(f"the last receipt is of {self.last:%Y-%m-%d}, which is yet to come")

    def _mistaken_columns(self) -> Iterator[str]:
        """Sentences where a column seems to be another one."""
        n = self.n_baskets
        if 2 * self.twins > max(n, _FEW):
            yield (
                f"{self.twins:,} of {n:,} receipts have the shopper and the time of another one: is "
                f"basket_id the number of a line? Name the receipt's column, or none: the lines of a "
                f"shopper and a time are a receipt then"
            )
        self.crowds = self._crowds()
        for user, receipts in self.crowds:
            yield (
                f"shopper {user!r} has {receipts:,} of {n:,} receipts, far more than others: is it "
                f"an id for all who have no card? {without_user(user)}"
            )
        if self.first is None or self.last is None or (self.last - self.first).days < _ODD_DAYS:
            return
        if self.n_users == n >= _FEW:
            yield f"each of {n:,} shoppers has one receipt: is user_id the number of a receipt?"
        if self.n_items == self.kept + self.merged >= _FEW:
            yield f"each of {self.n_items:,} items was bought once: is item_id the number of a line?"

    def _crowds(self) -> list[tuple[str, int]]:
        many = [(user, n) for user, n in self.crowds if n > _CROWD * self.n_baskets]
        users, receipts = pl.Series([user for user, _ in many], dtype=pl.String), [n for _, n in many]
        odd = crowds(users, np.array(receipts, np.int64), self.visits)
        found = (pair for pair, is_odd in zip(many, odd, strict=True) if is_odd)
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def as_dict(self) -> dict[str, Any]:
        """The report without the rejected lines, ready for JSON; of tables in it the number of rows."""
        out = {k: v for k, v in vars(self).items() if k not in ("rejects", "spans", "visits")}
        reading = {k: len(v) if isinstance(v, pl.DataFrame) else v for k, v in self.reading.items()}
        return out | {
            "reading": reading,
            "first": self.first.isoformat() if self.first else None,
            "last": self.last.isoformat() if self.last else None,
        }


def parse_lines(
    frame: pl.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    who: str = "transactions",
    first_line: int = 0,
    late_times: bool = False,
    notation: dict[str, str] | None = None,
    time_format: str | None = None,
    changed_ids: ChangedIds | None = None,
    report: LoadReport | None = None,
) -> pl.DataFrame:
    """The standard columns, typed, one row a raw line, other columns carried along.

    `columns` maps standard names to the caller's: ``{"time": "date"}``; one of the caller's columns may
    have two meanings. `time` becomes Datetime("us"), or stays text or numbers if it is and `late_times`
    says so; `quantity` is 1 and `value` null where the caller has none, or a cell is empty. A cell that
    can't be read becomes NaN (numbers) or null (times), which `STANDARD_RULES` count. Lines are
    numbered from `first_line`; the caller's columns of names that are used inside get a `_` behind.
    Old ids become those that `changed_ids` says; `report` counts such lines, and empty numbers.

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
    notation = {} if notation is None else notation
    frame = _rename(frame, columns or {}, who, notation)
    if frame.is_empty():
        raise DataError(f"{who} hold no line; expected at least one receipt line. Check the file.")
    parsed = [
        typed_ids(frame[c.name]) for c in TRANSACTIONS if c.kind == "id" and c.name in frame.columns
    ]
    if changed_ids is not None:
        if report is not None:
            for kind, n in changed_ids.count(parsed).items():
                report.changed[kind] = report.changed.get(kind, 0) + n
        parsed = [changed_ids.applied(ids) for ids in parsed]
    if frame["time"].dtype.is_temporal() or frame["time"].dtype == pl.Null or not late_times:
        parsed.append(parse_time(frame["time"], who=who, time_format=time_format))
    unknown = pl.Series([None], dtype=pl.Float64).new_from_index(0, frame.height)

    def number(name: str) -> pl.Series:
        cells = frame[name] if name in frame.columns else unknown.alias(name)
        return parse_number(cells, who=who, notation=notation)

    value = number("value")
    priced = value.null_count() > 0 and "price" in frame.columns
    price = number("price") if priced else unknown
    said = number("quantity")  # after amounts, which tell more often how decimals are written
    quantity = said.fill_null(1.0)
    if priced:
        value = value.zip_with(value.is_not_null(), price * quantity)
    if report is not None:
        for cells in (
            read
            for read in (said, value, parsed[0], frame["time"])
            if read.name in frame.columns and read.null_count()
        ):
            report.empty[cells.name] = report.empty.get(cells.name, 0) + cells.null_count()
    if FILE in frame.columns:
        frame = frame.rename({FILE: "file"})
    if "discount" in frame.columns:
        discount = number("discount")
        parsed.append(discount.set(discount.abs() > LARGEST, float("nan")))
    return frame.with_columns(*parsed, quantity, value).with_row_index(LINE, first_line)


def kept_lines(
    lines: pl.DataFrame,
    rules: Sequence[LineRule],
    report: LoadReport,
    show: Callable[[pl.DataFrame], pl.DataFrame] = lambda bad: bad,
) -> pl.DataFrame:
    """The lines that no rule rejects; `report` gains the others, as `show` makes them readable."""
    marked = lines.with_columns(first_reason(rules))
    bad = marked.filter(pl.col("reason").is_not_null())
    if bad.is_empty():
        return lines
    set_aside(show(bad), report)
    return marked.filter(pl.col("reason").is_null()).drop("reason")


def first_reason(rules: Sequence[LineRule]) -> pl.Expr:
    """The reason of the first rule that holds; null where none does."""
    found = (pl.when(r.when).then(pl.lit(r.reason)) for r in rules)
    return pl.coalesce(*found, pl.lit(None, dtype=pl.String)).alias("reason")


_CURRENCY = re.compile(
    r"(.*[ _.-])?(currency|curr|ccy|valuta|valuuta|w(ä|ae|a)hrung|devise|moneda|moeda|waluta|m[eě]na"
    r"|p[eé]nznem|валюта|通貨|货币)([ _.-]?(code|iso|id|name))?",
    re.IGNORECASE,
)


def currency_columns(names: Sequence[str]) -> list[str]:
    """Those of some columns that tell in which currency a line's money is.

    Examples
    --------
    >>> currency_columns(["value", "Currency", "currency_code", "Währung", "concurrency"])
    ['Currency', 'currency_code', 'Währung']
    """
    return [name for name in names if _CURRENCY.fullmatch(name)]


def currency_of(column: str) -> pl.Expr:
    """What a column says of the currency, whatever its case and blanks around it; null where empty."""
    said = pl.col(column).cast(pl.String).str.strip_chars().str.to_uppercase()
    return pl.when(said != "").then(said).alias(column)


def currencies_in(lines: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Column -> what it says of the currency -> lines, of parsed lines whose money is known.

    Examples
    --------
    >>> currencies_in(pl.DataFrame({"value": [1.0, 2.0, None], "currency": ["EUR", "EUR", "USD"]}))
    {'currency': {'EUR': 2}}
    """
    paid = lines.filter(pl.col("value").is_not_null())
    names = currency_columns(lines.columns)
    said = {name: paid.select(currency_of(name)).to_series().drop_nulls() for name in names}
    return {name: dict(cells.value_counts().iter_rows()) for name, cells in said.items()}


def currency_notes(column: str, counts: Mapping[str, int]) -> list[str]:
    """What to say of lines by currency, as a column tells it: nothing if all have one.

    Examples
    --------
    >>> currency_notes("currency", {"EUR": 97, "USD": 3})
    ["money comes in several currencies by column 'currency' (97 lines EUR, 3 lines USD) and is added \
up as if it were one; convert it to one currency first"]
    """
    if len(counts) < 2:
        return []
    largest = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    some = ", ".join(f"{n:,} lines {name}" for name, n in largest[:5])
    return [
        f"money comes in several currencies by column {column!r} ({some}{', ...' * (len(counts) > 5)}) "
        f"and is added up as if it were one; convert it to one currency first"
    ]


_STATE = re.compile(
    r".*(status|statut|estado|stato|zustand|статус|event|action)([ _.-]?(name|code|type))?"
    r"|type|typ|tipo",
    re.IGNORECASE,
)
_FLAG = re.compile(
    r"((is|was|has)[ _.-]?)?(cancel\w*|void\w*|refund(ed)?|return(ed)?|storn\w*|deleted|test)"
    r"([ _]order)?"
    r"([ _.-]?(at|on|date|time|flag|order))?",
    re.IGNORECASE,
)
_NO_PURCHASE = (
    r"(?i)^[\W_]*([^\W_]+[\W_]+)?(cancel\w*|void(ed)?|refund\w*|return(s|ed)?|storn\w*|reject(ed)?"
    r"|declined|failed|unpaid|abandoned|draft|test|pending|expired|chargeback|view(ed)?|add ?to ?cart"
    r"|cart|click(ed)?|search|wishlist|impression|offen|gutschrift|annul\w*|rembours\w*|devol\w*|reembols\w*"
    r"|zwrot\w*|anulowan\w*|rimbors\w*|geannuleerd|отмен\w*|возврат\w*)([\W_]+[^\W_]+){0,2}[\W_]*$"
)
_NOT = ("", "0", "0.0", "false", "no", "n", "f", "nein", "non", "none", "null", "nan", "-")
_FILLED = "filled"  # what is said of cells that hold a time


def no_purchases_in(lines: pl.DataFrame) -> dict[str, dict[str, int]]:
    """Column -> what it says -> lines, where that may be no purchase: cancelled, a test, a view.

    Of columns that tell an order's state or are named after such a thing; lines that take something
    back are not counted.

    Examples
    --------
    >>> lines = pl.DataFrame({"quantity": [1, 1, -1], "value": [1.0] * 3})
    >>> status = pl.Series("Order Status", ["paid", "Partially refunded", "refunded"])
    >>> no_purchases_in(lines.with_columns(status, is_test=pl.Series(["no", "yes", "no"])))
    {'Order Status': {'Partially refunded': 1}, 'is_test': {'yes': 1}}
    """
    state = [name for name in lines.columns if _STATE.fullmatch(name)]
    flags = [name for name in lines.columns if _FLAG.fullmatch(name)]
    found: dict[str, dict[str, int]] = {}
    if not (state or flags):
        return found
    bought = lines.filter(~TAKES_BACK)
    for name in dict.fromkeys((*state, *flags)):
        if nested(lines.schema[name]):
            continue
        cells = bought[name].cast(pl.String).str.strip_chars().alias("said")
        said = cells.drop_nulls().value_counts(name="n")
        if name in flags:
            said = said.filter(~pl.col("said").str.to_lowercase().is_in(_NOT))
            long = pl.col("said").str.len_chars() > 5
            said = said.with_columns(said=pl.when(long).then(pl.lit(_FILLED)).otherwise("said"))
        else:
            said = said.filter(pl.col("said").str.contains(_NO_PURCHASE))
        found[name] = dict(said.group_by("said").agg(pl.col("n").sum()).sort("said").iter_rows())
    return {name: counts for name, counts in found.items() if counts}


def no_purchase_notes(column: str, counts: Mapping[str, int], read: int) -> list[str]:
    """What to say of lines that may be no purchases, as a column tells it.

    Examples
    --------
    >>> no_purchase_notes("Status", {"cancelled": 3}, 40)
    ["by column 'Status' some lines may be no purchases ('cancelled' in 3 of 40 lines) and count as \
such; leave them out, as with --where 'Status!=cancelled'"]
    """
    largest = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    some = ", ".join(
        f"{'it is filled' if said == _FILLED else repr(said)} in {n:,}" for said, n in largest[:5]
    )
    cure = "leave out what is none before"
    if largest[0][0] != _FILLED:
        cure = f"leave them out, as with --where {shlex.quote(f'{column}!={largest[0][0]}')}"
    return [
        f"by column {column!r} some lines may be no purchases ({some}{', ...' * (len(counts) > 5)} of "
        f"{read:,} lines) and count as such; {cure}"
    ]


def empty_notes(empty: Mapping[str, int], read: int) -> list[str]:
    """What to say of columns that are there, and empty in most of the lines that were read.

    Examples
    --------
    >>> empty_notes({"quantity": 3}, 7)
    []
    >>> empty_notes({"quantity": 7}, 7)
    ["column 'quantity' is empty in 7 of 7 lines, which count as one piece each; if the file shows \
numbers there, they are formulas without saved results: save it again as values"]
    """
    formulas = (
        "if the file shows numbers there, they are formulas without saved results: save it again as "
        "values"
    )
    first = "if a receipt's first line alone says it, write it into each line"
    means = {
        "quantity": f"which count as one piece each; {formulas}",
        "value": f"whose money is therefore not known; {formulas}",
        USER_ID: f"which are left out; {first}",
        "time": f"which are left out; {first}",
    }
    return [
        f"column {name!r} is empty in {n:,} of {read:,} lines, {means[name]}"
        for name, n in empty.items()
        if 2 * n > read
    ]


def unmet_notes(rules: Sequence[LineRule], report: LoadReport) -> list[str]:
    """What to say of rules that no line meets, and some were to."""
    missed = (rule.unmet for rule in rules if rule.reason not in report.rejected)
    return [note for note in missed if note and report.read >= _FEW]


def set_aside(bad: pl.DataFrame, report: LoadReport) -> None:
    """Count rejected lines by their `reason`, and keep them in the report."""
    counts = bad.group_by("reason", maintain_order=True).agg(pl.len(), pl.col(LINE).bottom_k(3))
    for name, n, examples in counts.iter_rows():
        report.rejected[name] = report.rejected.get(name, 0) + n
        before = report.examples.get(name, [])
        report.examples[name] = sorted([*before, *(int(i) for i in examples)])[:3]
    largest_first = sorted(report.rejected.items(), key=lambda pair: -pair[1])
    report.rejected = dict(largest_first)
    parts = [part for part in (report.rejects, bad) if part.height]
    if len({part.schema["time"] for part in parts if "time" in part.columns}) > 1:
        # as they are written, and as they were read: of numbers and times Polars would make numbers
        parts = [part.cast({"time": pl.String}) for part in parts]
    report.rejects = pl.concat(parts, how="diagonal_relaxed") if parts else bad


def refuse_if_none(n_lines: int, report: LoadReport) -> None:
    """Raise a DataError if no line is left."""
    if not n_lines:
        reasons = ", ".join(f"{n:,} x {r}" for r, n in report.rejected.items())
        raise DataError(
            f"{report.source}: none of the {report.read:,} lines is a usable purchase ({reasons}). "
            f"Check the columns and the cleaning rules."
        )


def _as_json(values: pl.Series) -> pl.Series:
    """Lists and structs as text; bytes in them, for which Polars has no JSON, in hexadecimals."""
    if "Binary" not in str(values.dtype):
        return values.to_frame().select(pl.struct(values.name).struct.json_encode())[values.name]

    def as_text(value: Any) -> str:
        return value.hex() if isinstance(value, bytes) else str(value)

    texts = [json.dumps({values.name: value}, default=as_text) for value in values.to_list()]
    return pl.Series(values.name, texts, pl.String)


def _rename(
    frame: pl.DataFrame, columns: Mapping[str, str], who: str, notation: dict[str, str] | None
) -> pl.DataFrame:
    known = [c.name for c in TRANSACTIONS]
    frame, columns = join_time(frame, columns, notation)
    for name, theirs in columns.items():
        if theirs not in frame.columns:
            raise DataError(unknown_column(theirs, name, who, frame.columns))
    if ITEM_ID in columns and columns[ITEM_ID] == columns.get(USER_ID, USER_ID):
        raise DataError(
            f"{who}: the column '{columns[ITEM_ID]}' is named as user_id and as item_id; who bought "
            f"and what was bought are two columns."
        )
    others = [c for c in frame.columns if c not in columns.values() and c not in columns]
    frame = frame.select(
        *(pl.col(theirs).alias(name) for name, theirs in columns.items()),
        *(
            _as_json(frame[c]) if frame.schema[c].is_nested() and c not in known else frame[c]
            for c in others
        ),
    )
    if lacking := missing_columns(frame, columns, who):
        raise DataError(lacking)
    return frame.rename({c: beside(c) for c in others})


_FAR = "date far from all others"
_FAR_DAYS, _FAR_GAPS = 28, 4  # far is further than so many days, and so many of the longest other gap
_LINES_A_WRONG_DATE = 300  # among so many lines one may have a wrong date, and is left out
_ODD_DAYS, _ODD_SHARE = 14, 0.05  # of so few lines that lie so far from the rest a report speaks


def far_rule(days: pl.DataFrame) -> LineRule | None:
    """A rule against a handful of dates that lie far before or after all others, if there are any.

    One wrong year among thousands of lines would else move the start or the end of the data. `days` are
    `time` (dates) and `n`, the lines of each. It is for lines `of_purchases`.
    """
    days = days.sort("time")
    few = int(days["n"].sum()) // _LINES_A_WRONG_DATE
    low, high = _bulk(days, few, _FAR_DAYS)
    if low == 0 and high == days.height - 1:
        return None
    first, last = days["time"][low], days["time"][high]
    return LineRule(_FAR, ~pl.col("time").dt.date().is_between(first, last))


def of_purchases(rule: LineRule) -> LineRule:
    """The rule for lines that take nothing back; whether others do depends on their receipt."""
    return replace(rule, when=rule.when & ~TAKES_BACK)


def far_notes(days: pl.DataFrame) -> list[str]:
    """What a report says of lines that are left and lie apart from the rest, by a clock or rightly."""
    days = days.sort("time")
    total = int(days["n"].sum())
    low, high = _bulk(days, int(total * _ODD_SHARE), _ODD_DAYS)
    notes = []
    for where, some, near, far in (
        ("first", days[:low], low, low - 1),
        ("last", days[high + 1 :], high, high + 1),
    ):
        if some.is_empty():
            continue
        pause = abs((days["time"][far] - days["time"][near]).days)
        span = " to ".join(dict.fromkeys(str(some["time"][place]) for place in (0, -1)))
        notes.append(
            f"the {where} {int(some['n'].sum()):,} of {total:,} lines have dates far from the others: "
            f"{span}, {pause:,} days apart; the data {'begin' if where == 'first' else 'end'} there. "
            f"If a clock was wrong, leave these lines out"
        )
    return notes


def n_twins(users: NDArray[np.int64], times: NDArray[np.int64]) -> int:
    """Receipts that have the user and the time of another one.

    Parameters
    ----------
    users, times : (n_receipts,) in order of both

    Examples
    --------
    >>> n_twins(np.array([1, 1, 1, 2]), np.array([5, 6, 6, 6]))
    2
    """
    same = np.append((users[1:] == users[:-1]) & (times[1:] == times[:-1]), False)
    return int((same | np.append(False, same[:-1])).sum())


def crowds(
    users: pl.Series, receipts: NDArray[np.int64], visits: Mapping[int, int] | None = None
) -> NDArray[np.bool_]:
    """Which users seem to be many: far more receipts than others, or the name of a guest and many.

    Parameters
    ----------
    users, receipts : (n_users,) ids, and how many receipts each has
    visits : how many users have how many receipts, where others than these users are to be compared

    Examples
    --------
    >>> n = np.append(np.full(98, 5), [40, 500])
    >>> np.flatnonzero(crowds(pl.Series([*range(1, 99), "guest", "c7"], strict=False), n)).tolist()
    [98, 99]
    """
    if visits is None:
        visits = dict(zip(*np.unique_counts(receipts), strict=True))
    known = {n: of for n, of in visits.items() if n > 0}
    if sum(known.values()) < 20:
        return np.zeros(len(receipts), np.bool_)
    n, of = np.array(list(known)), np.array(list(known.values()))
    least, some, most = np.quantile(n, (0.5, 0.95, 0.99), weights=of, method="inverted_cdf")
    far = (receipts > 10 * most) | ((receipts > 10 * some) & (receipts > _CROWD * (n @ of)))
    names = users.cast(pl.String).str.strip_chars().str.to_lowercase()
    named = names.str.contains(_GUESTS).fill_null(False).to_numpy() & (receipts > max(5, 5 * least))
    return np.asarray(far & (receipts > 20) | named)


def without_user(user: object) -> str:
    """How to leave out what stands under an id that is no user's, to paste into a command.

    Examples
    --------
    >>> without_user("cash sales")
    "Leave the id empty, or these lines out: --where 'user_id!=cash sales'"
    """
    return f"Leave the id empty, or these lines out: --where {shlex.quote(f'user_id!={user}')}"


def piece_value_notes(log: pl.DataFrame) -> list[str]:
    """What a report says where money seems not to be that of a line, by lines of a single piece.

    Examples
    --------
    >>> log = pl.DataFrame({"item": [0, 0] * 60, "quantity": [1.0, 3.0] * 60, "value": [2.5, 2.5] * 60})
    >>> piece_value_notes(log)[0].split(";")[0]
    'the value of 60 of 60 lines of several pieces is that of one piece'
    >>> piece_value_notes(log.with_columns(value=2.5 * pl.col("quantity") ** 2))[0].split(";")[0]
    'the money of 60 of 60 lines of several pieces is too much by as many times'
    >>> piece_value_notes(log.with_columns(value=2.5 * pl.col("quantity")))
    []
    """
    log = log.gather_every(-(-log.height // _LOOKED_AT)) if log.height > _LOOKED_AT else log
    log = log.filter(pl.col("value") > 0)
    single = log.filter(pl.col("quantity") == 1).group_by("item").agg(price=pl.col("value").median())
    several = log.filter(pl.col("quantity") >= 2).join(single, on="item")
    times, enough = several["value"] / several["price"], max(several.height, _FEW)
    one = int(((times - 1).abs() < _NEAR).sum())
    squared = int(((times / several["quantity"] ** 2 - 1).abs() < _NEAR).sum())
    if 2 * one > enough:
        return [
            f"the value of {one:,} of {several.height:,} lines of several pieces is that of one piece; "
            f"if the column holds the price of a piece, call it price"
        ]
    if 2 * squared > enough:
        return [
            f"the money of {squared:,} of {several.height:,} lines of several pieces is too much by as "
            f"many times; if the column called price holds the money of a line, call it value"
        ]
    return []


def receipt_value_notes(log: pl.DataFrame) -> list[str]:
    """What a report says where `value` seems to be the receipt's total, of lines in order of receipt.

    Examples
    --------
    >>> log = pl.DataFrame({"basket": np.arange(240) // 2, "value": np.arange(240) // 2 + 1.0})
    >>> receipt_value_notes(log)[0].split(";")[0]
    'the money of all lines is the same on 120 of 120 receipts of several items'
    >>> receipt_value_notes(log.with_columns(value=pl.Series(np.arange(240.0))))
    []
    """
    money = log.head(_LOOKED_AT).filter(pl.col("value") > 0)
    if money["value"].n_unique() < _FEW_VALUES:
        return []
    several = money.group_by("basket").agg(lines=pl.len(), values=pl.col("value").n_unique())
    several = several.filter(pl.col("lines") > 1)
    same = int((several["values"] == 1).sum())
    if 2 * same <= max(several.height, _FEW):
        return []
    return [
        f"the money of all lines is the same on {same:,} of {several.height:,} receipts of several "
        f"items; if the column holds the receipt's total, name that of the line's money"
    ]


def _bulk(days: pl.DataFrame, few: int, least_days: int) -> tuple[int, int]:
    """First and last row of the dates that hold all but `few` lines on either side of a long gap."""
    n = days["n"].to_numpy().astype(np.int64)
    if not few or len(n) < 2:
        return 0, len(n) - 1
    gap = np.diff(days["time"].dt.epoch("d").to_numpy())
    early = np.flatnonzero(np.cumsum(n)[:-1] <= few)  # gaps that part few lines from the rest
    late = np.flatnonzero(np.cumsum(n[::-1])[::-1][1:] <= few)
    inner = np.delete(gap, np.union1d(early, late))
    least = max(least_days, _FAR_GAPS * int(inner.max(initial=0)))
    low = max((int(i) + 1 for i in early if gap[i] > least), default=0)
    high = min((int(i) for i in late if gap[i] > least), default=len(n) - 1)
    return low, high

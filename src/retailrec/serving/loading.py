"""Files or data sets into a store, where receipts meet those that are there; a demo shop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from retailrec.compute.progress import Progress, silent
from retailrec.compute.shards import require_threads
from retailrec.data import RetailData
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import (
    ONE_VISIT_US,
    RETURN,
    STANDARD_RULES,
    VOIDED,
    LineRule,
    LoadReport,
    came_again,
    refuse_if_none,
)
from retailrec.data.encoding import Coder, build_log, parts_of
from retailrec.data.ids import attributes, described_users
from retailrec.data.parsing import alike_note, look_alikes
from retailrec.data.retail_data import summarise
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.serving import schema
from retailrec.serving.database import StoreUnavailable, is_sqlite
from retailrec.serving.forgetting import forgotten_among
from retailrec.serving.receipts import (
    AMOUNTS,
    BESIDE,
    BY_TIME,
    LONGEST_ID,
    Row,
    amounts_of,
    between,
    check_id,
    check_number,
    is_called_by_time,
    lies_within,
    made_of,
    moment,
    of_second,
    own_number,
    packed_amounts,
)
from retailrec.serving.store import Store
from retailrec.work import replaced

_DAY = 86_400_000_000  # microseconds
_CHUNK = 20_000  # receipts a transaction; a rerun after a stop finds them there
_COPY = "COPY incoming (shopper, number, time, items, amounts) FROM STDIN (FORMAT BINARY)"


class Loaded(NamedTuple):
    """What a load brought."""

    receipts: int  # that were read
    lines: int
    new: int  # receipts that were not there before
    completed: int  # receipts that were there in part, or with less of an item
    forgotten: int = 0  # receipts of users who were forgotten, left out
    undescribed: int = 0  # such users whose attributes came, left out


def load_frames(
    store: Store,
    transactions: Any,
    items: Any = None,
    users: Any = None,
    *,
    columns: Mapping[str, str] | None = None,
    rules: Sequence[LineRule] = (),
    report: LoadReport | None = None,
    item_columns: Sequence[str] = (),
    user_columns: Sequence[str] = (),
    time_format: str | None = None,
    changed_ids: ChangedIds | None = None,
    progress: Progress = silent,
) -> Loaded:
    """Store receipts and shoppers' attributes, cleaned and merged as `RetailData.from_frames` does.

    Parameters are those of `RetailData.from_frames`; what describes items is not stored. Receipts keep
    their number (`basket_id`); without one they are called by their time. A receipt that is there is
    compared with what comes: see `merge`. Of `changed_ids` a chain stops at an id that was forgotten,
    so that its receipts, and those of ids before it, are left out. A store that is not there yet is
    made once there is something to store.
    """
    require_threads()
    report = report or LoadReport("transactions")
    described = {ITEM_ID: (), USER_ID: user_columns}
    if changed_ids is not None and store.is_made():
        changed_ids = changed_ids.stopped_at(store.forgotten(changed_ids.users))
    rules = (*rules, *STANDARD_RULES)
    coder = Coder(columns or {}, rules, report, described, time_format, changed_ids)
    coded = coder.code(parts_of(transactions))
    for name in (ITEM_ID, USER_ID):
        report.notes += look_alikes(coded.ids[name].alias(name))
    people = attributes(users, USER_ID, coded, user_columns, report, changed_ids)
    ids = coded.ids[USER_ID], coded.ids[ITEM_ID]
    log, receipts, again = build_log(coded, ids[1], report)
    refuse_if_none(log.height, report)
    if user_columns and people is not None:
        people = described_users(people, ids[0], log)
    summarise(report, log)
    numbers = _numbers(log, receipts, again, coded.ids.get("basket_id"))
    _check(*ids, numbers)
    store.init()
    if changed_ids is not None:  # before its receipts meet those that are there
        report.notes += move(store, changed_ids)
    if not store.is_empty() and (some := store.alike(ids[0].cast(pl.String))):
        report.notes.append(alike_note(f"{USER_ID} of the store", len(some), *some[0]))
    report.notes += _kept_though_taken_back(store, report.rejects, coded.times)
    loaded = _load(store, log, *ids, numbers, report, progress)
    if people is not None:
        loaded = loaded._replace(undescribed=describe(store, people))
    return loaded


def _numbers(
    log: pl.DataFrame,
    receipts: NDArray[np.int64],
    again: NDArray[np.bool_],
    ids: pl.Series | None,
) -> pl.Series:
    """The number of each receipt of the log, in order.

    A receipt without an id is called by its time; one whose number the shopper had before (a till that
    began again), by both.
    """
    starts = np.flatnonzero(np.diff(log["basket"].to_numpy(), prepend=-1))
    by_time = log["time"][starts].dt.strftime(BY_TIME).alias("time")
    if ids is None:
        return by_time
    place = pl.Series(np.where(receipts < len(ids), receipts, -1))
    own = ids.cast(pl.String).gather(place.set(place < 0, None)).alias("own")
    numbers = pl.DataFrame([own, by_time]).with_columns(again=pl.Series(again))
    both = pl.when("again").then(pl.format("{}@{}", "own", "time")).otherwise("own")
    return numbers.select(pl.coalesce(both, "time").alias("number"))["number"]


def _check(users: pl.Series, items: pl.Series, numbers: pl.Series) -> None:
    """Raise a DataError if an id can't be stored."""
    for found, check in (
        (users, partial(check_id, what="shopper")),
        (items, partial(check_id, what="item")),
        (numbers, check_number),
    ):
        ids = found.cast(pl.String)
        odd = ids.filter((ids.str.len_chars() > LONGEST_ID) | ids.str.contains(r"[^\x20-\x7e]"))
        for text in odd.unique():
            check(text)


def _kept_though_taken_back(
    store: Store, rejects: pl.DataFrame, times: pl.DataFrame | None
) -> list[str]:
    """What to say of items that lines take back of receipts which an earlier load stored.

    A load takes nothing away: loaded again, an export without what was taken back would add it again.
    """
    if "reason" not in rejects.columns or store.is_empty():
        return []
    back = rejects.filter(pl.col("reason").is_in([RETURN, VOIDED]))
    if times is not None:  # lines were set aside before and after their times were read
        back = back.with_columns(text=pl.col("time").cast(pl.String)).drop("time")
        known = times.with_columns(pl.col("text").cast(pl.String))
        read = pl.col("text").str.to_datetime("%Y-%m-%d %H:%M:%S%.f", strict=False)
        back = back.join(known, "text", "left").with_columns(pl.col("time").fill_null(read))
    by_time = pl.col("time").dt.strftime(BY_TIME)
    number = pl.col("basket_id").cast(pl.String) if "basket_id" in back.columns else pl.lit(None)
    known_lines = back.select(
        pl.col(USER_ID, ITEM_ID).cast(pl.String),
        number.fill_null(by_time).alias("number"),
        pl.col("time").to_physical(),
    )
    lines = known_lines.drop_nulls().rows()  # a format may call a line of no user a return
    found: dict[tuple[str, str, str], None] = {}
    for at in range(0, len(lines), _CHUNK):
        some = lines[at : at + _CHUNK]
        with store.transaction(long=True) as connection:
            there, *_ = _known(connection, store, [(u, number, t, i, b"") for u, i, number, t in some])
        visits = _visits(there)
        for user, item, number, time in some:
            row = there.get(_place(there, visits, user, number, time))
            if row and item in row[3].split("\n"):
                found[user, item, number] = None
    if not found:
        return []
    examples = "; ".join(
        f"item {item!r} of receipt {number!r} of shopper {user!r}"
        for user, item, number in [*found][:3]
    )
    return [
        f"{len(found):,} items of receipts are taken back here, which the store has of an earlier load "
        f"and keeps: {examples}; to take them off, load both exports as one folder into a new store"
    ]


def load_data(store: Store, data: RetailData, progress: Progress = silent) -> Loaded:
    """Store the receipts and the shoppers' attributes of data that is in memory.

    Such data has no receipt numbers, so receipts are called by their time, and those of one time of a
    shopper are counted.
    """
    log = data.log
    first = np.flatnonzero(np.diff(log["basket"].to_numpy(), prepend=-1))
    named = log.select("user", "time")[first].with_columns(
        pl.int_range(pl.len()).over("user", "time").alias("n")
    )
    further = pl.format("-{}", pl.col("n").cast(pl.String).str.zfill(4))
    by_time = pl.col("time").dt.strftime(BY_TIME)
    numbers = named.select(
        number=pl.when(pl.col("n") == 0).then(by_time).otherwise(pl.concat_str(by_time, further))
    )
    ids = data.users[USER_ID], data.items[ITEM_ID]
    _check(*ids, numbers["number"])
    found = _load(store, log, *ids, numbers["number"], LoadReport("memory"), progress)
    return found._replace(undescribed=describe(store, data.users))


def describe(store: Store, users: pl.DataFrame) -> int:
    """Store the users' attributes; number of users who were forgotten and so left out."""
    names = [c for c in users.columns if c != USER_ID]
    known = (
        users.filter(pl.any_horizontal(pl.col(c).is_not_null() for c in names)) if names else users[:0]
    )
    plain = known.with_columns(_as_json_has_it(known[c]) for c in names)
    facts = {
        str(row.pop(USER_ID)): {name: value for name, value in row.items() if value is not None}
        for row in plain.iter_rows(named=True)
    }
    return store.describe(facts)


def _as_json_has_it(column: pl.Series) -> pl.Series:
    """Numbers as JSON knows them, which no decimal is; all else as text."""
    kind = column.dtype
    if isinstance(kind, pl.Decimal):
        return column.cast(pl.Float64 if kind.scale else pl.Int128)
    return column if kind.is_numeric() else column.cast(pl.String)


def _load(
    store: Store,
    log: pl.DataFrame,
    users: pl.Series,
    items: pl.Series,
    numbers: pl.Series,
    report: LoadReport,
    progress: Progress,
) -> Loaded:
    """Log rows, in order of receipt, as rows of the store; `numbers` has one of each receipt."""
    basket = log["basket"].to_numpy()
    starts = np.append(np.flatnonzero(np.diff(basket, prepend=-1)), len(basket))
    heads = log.select("user", "time")[starts[:-1]]
    shopper = users.cast(pl.String).gather(heads["user"]).to_list()
    time = heads["time"].to_physical().to_list()
    number = numbers.to_list()
    item, raw = items.cast(pl.String), packed_amounts(log).tobytes()
    width, total = AMOUNTS.itemsize, Merged()
    fresh = store.is_empty()
    stop = 0
    while stop < len(number):
        at, stop = stop, min(stop + _CHUNK, len(number))
        while stop < len(number) and shopper[stop] == shopper[stop - 1]:
            stop += 1  # a receipt without a number may be several
        lines = log["item"][int(starts[at]) : int(starts[stop])]
        names, first = item.gather(lines).to_list(), int(starts[at])
        rows = [
            (
                shopper[i],
                number[i],
                time[i],
                "\n".join(names[starts[i] - first : starts[i + 1] - first]),
                raw[starts[i] * width : starts[i + 1] * width],
            )
            for i in range(at, stop)
        ]
        total += merge(store, rows, fresh)
        progress("store receipts", stop, len(number))
    report.notes += total.notes()
    return Loaded(len(number), log.height, total.new, total.completed, total.forgotten)


# -- receipts that are there already ---------------------------------------------------------------

_TRIES = 5
_CHANCE = 0.02  # of new receipts; so many may have the contents of another one by chance
_HOUR_US = 3_600_000_000  # parts of one receipt seldom begin so far from each other
_QUARTER_US, _ZONES_US = _HOUR_US // 4, 14 * _HOUR_US  # by which clocks of zones differ, and at most


class _Changed(Exception):
    """Somebody else stored one of the receipts meanwhile."""


# what is odd about receipts that meet those of the store, said of `n` of them with some examples
_ODD = {
    "differing": "{n:,} items of receipts have other amounts in the store; the larger ones count: "
    "{some}",
    "renamed": "{n:,} receipts have the shopper, time and contents of one in the store that has "
    "another number, and count twice: {some}; were numbers written otherwise then?",
    "shifted": "{n:,} receipts have the shopper and contents of one in the store, all of them as far "
    "from it as clocks of two zones are, and count twice: {some}; give exports of one zone",
    "moved": "{n:,} receipts have the shopper, number and contents of one in the store on another day, "
    "and count twice: {some}; if their dates changed, load one export alone into a new store",
    "beside": f"{BESIDE}; load exports that all have numbers",
    "within": "{n:,} receipts begin during one in the store, or one of it during them, where one has a "
    "number and the other none, and the longer one has all items of the other; both count: {some}; if "
    "an export began in the middle of a receipt, load exports that all have numbers",
    "later": "{n:,} receipts have the shopper, number and day of one in the store, an hour or more "
    "from it, and count as one with it: {some}; if branches give the same numbers, put the branch "
    "before the number; if clocks differ, convert the times",
}


@dataclass
class Merged:
    """What `merge` did; sums add up."""

    new: int = 0  # receipts that were not there
    completed: int = 0  # receipts that were there in part, or with less of an item
    forgotten: int = 0  # receipts of users who were forgotten, left out
    odd: Counter[str] = field(default_factory=Counter)  # a kind of `_ODD` -> how many
    examples: dict[str, list[str]] = field(default_factory=dict)  # the first three of a kind

    def __add__(self, other: Merged) -> Merged:
        examples = {
            kind: [*self.examples.get(kind, ()), *other.examples.get(kind, ())][:3]
            for kind in self.examples | other.examples
        }
        return Merged(
            self.new + other.new,
            self.completed + other.completed,
            self.forgotten + other.forgotten,
            self.odd + other.odd,
            examples,
        )

    def say(self, kind: str, example: str) -> None:
        """Count something odd."""
        self.odd[kind] += 1
        some = self.examples.setdefault(kind, [])
        some += [example][: 3 - len(some)]

    def notes(self) -> list[str]:
        """What a reader of the load's report should know."""
        return [
            words.format(n=self.odd[kind], some="; ".join(self.examples[kind]))
            for kind, words in _ODD.items()
            if self.odd[kind]
        ]


def merge(store: Store, rows: Sequence[Row], fresh: bool = False) -> Merged:
    """Store receipts: new ones as they are, of those that are there what the store has not.

    A receipt is there if its shopper has one with its number of the same visit; where one of the two
    has no number, one that begins in the same second and has the same lines, in one or more receipts
    (without a number each second of a till that dates its lines is one). Of an item that both have, the
    larger amounts count; a number of another visit gets the time behind it. `fresh`: the store was
    empty.

    Raises
    ------
    StoreUnavailable
        If others change the same receipts again and again.
    """
    for attempt in range(_TRIES):
        try:
            with store.transaction(long=True) as connection:
                gone = forgotten_among(connection, {row[0] for row in rows})
                kept = [row for row in rows if row[0] not in gone] if gone else rows
                if not kept:
                    return Merged(forgotten=len(rows))
                if fresh and not attempt:
                    found, touched = Merged(_insert(connection, store, kept)), kept
                    if found.new != len(kept):
                        raise _Changed
                else:
                    found, touched = _merged(connection, store, kept)
                found.forgotten = len(rows) - len(kept)
                if touched:
                    _note(connection, store, touched)
                return found
        except _Changed:
            continue
    raise StoreUnavailable(
        "others change the same receipts all the time; nothing was stored. Try again."
    )


def _merged(connection: Connection, store: Store, rows: Sequence[Row]) -> tuple[Merged, Sequence[Row]]:
    """What is to be done, done; and the rows that were written."""
    there, called, numbered = _known(connection, store, rows)
    again = _parts_among(rows, numbered)  # rows without a number of a receipt that is there with one
    found = Merged()
    visits = _visits(there)
    new: dict[tuple[str, str], Row] = {}
    changed: dict[tuple[str, str], Row] = {}
    moved: list[str] = []
    for place, (shopper, number, time, items, amounts) in enumerate(rows):
        if place in again:
            continue
        own, key = own_number(number), _place(there, visits, shopper, number, time)
        row = *key, time, items, amounts
        if key not in there and number == moment(time).strftime(BY_TIME):  # or as 0.2 called it
            theirs = called.get(shopper, [])
            begun = list(of_second(theirs, time))
            if any(made_of(row, theirs[at:]) for at in begun):
                continue
            if begun:
                key = shopper, theirs[begun[0]][1]
                there.setdefault(key, theirs[begun[0]])
        if key in there and abs(there[key][2] - time) >= _HOUR_US:
            at_other = f"{moment(there[key][2]):%Y-%m-%d %H:%M} there, {moment(time):%H:%M} now"
            found.say("later", f"{own!r} of shopper {shopper!r}, {at_other}")
        if key not in there:
            by_time = is_called_by_time(number)
            theirs = (numbered if by_time else called).get(shopper, [])
            begun = list(of_second(theirs, time))
            if not by_time and any(made_of(row, theirs[at:]) for at in begun):
                continue
            near = (theirs[at] for at in between(theirs, time - ONE_VISIT_US, time + ONE_VISIT_US))
            if begun:
                found.say("beside", f"{number!r} and {theirs[begun[0]][1]!r} of shopper {shopper!r}")
            elif other := next(
                (of for of in near if lies_within(*((row, of) if by_time else (of, row)))), None
            ):
                found.say("within", f"{number!r} and {other[1]!r} of shopper {shopper!r}")
            earlier = [(shopper, n) for n in visits.get((shopper, own), ()) if (shopper, n) not in new]
            if at := [there[k][2] for k in earlier if items and there[k][3:] == (items, amounts)]:
                days = f"{moment(at[0]):%Y-%m-%d} there, {moment(time):%Y-%m-%d} now"
                moved.append(f"{own!r} of shopper {shopper!r}, {days}")
            new[key] = there[key] = row
            visits.setdefault((shopper, own), []).append(key[1])
        elif there[key][3:] != (items, amounts):
            united = _united(there[key], row, found)
            if united != there[key]:
                (new if key in new else changed)[key] = there[key] = united
    for words in moved if len(moved) > max(1, _CHANCE * len(new)) else ():
        found.say("moved", words)
    if new:
        _note_renamed(connection, list(new.values()), found)
    if _insert(connection, store, list(new.values())) != len(new):
        raise _Changed
    table = schema.receipts
    if changed:
        connection.execute(
            update(table)
            .where(table.c.shopper == bindparam("whose"), table.c.number == bindparam("which"))
            .values(time=bindparam("at"), items=bindparam("what"), amounts=bindparam("much")),
            [
                dict(zip(("whose", "which", "at", "what", "much"), row, strict=True))
                for row in changed.values()
            ],
        )
    found.new, found.completed = len(new), len(changed)
    return found, [*new.values(), *changed.values()]


def _visits(there: Mapping[tuple[str, str], Row]) -> dict[tuple[str, str], list[str]]:
    """Of a shopper and a number: itself, and with times behind it."""
    visits: dict[tuple[str, str], list[str]] = {}
    for shopper, number in there:
        visits.setdefault((shopper, own_number(number)), []).append(number)
    return visits


def _place(
    there: Mapping[tuple[str, str], Row],
    visits: Mapping[tuple[str, str], list[str]],
    shopper: str,
    number: str,
    time: int,
) -> tuple[str, str]:
    """Shopper and number under which a receipt is there, or would be."""
    own = own_number(number)
    key = shopper, own
    if key in there and _other_visit(there[key][2], time):
        same = (n for n in visits[key] if not _other_visit(there[shopper, n][2], time))
        key = shopper, next(same, f"{own}@{moment(time).strftime(BY_TIME)}")
    return key


def _note_renamed(connection: Connection, new: Sequence[Row], found: Merged) -> None:
    """Count new receipts that the store seems to have under another number, or by another clock."""
    times = [row[2] for row in new]
    near = schema.receipts.c.time.between(min(times) - _ZONES_US, max(times) + _ZONES_US)
    there: dict[tuple[str, str, bytes], list[Row]] = {}
    for row in _receipts_of(connection, {row[0] for row in new}, near):
        there.setdefault((row[0], *row[3:]), []).append(row)
    by_gap: dict[int, list[str]] = {}
    for row in new:
        others = there.get((row[0], *row[3:]), []) if row[3] else []
        gaps = {
            row[2] - time: f"{row[1]!r} and {n!r} of shopper {row[0]!r}" for _, n, time, *_ in others
        }
        if 0 in gaps:
            found.say("renamed", gaps[0])
        elif is_called_by_time(row[1]):
            for gap, words in gaps.items():
                if abs(gap) <= _ZONES_US and gap % _QUARTER_US == 0:
                    by_gap.setdefault(gap, []).append(words)
    alike = max(by_gap.values(), key=len, default=[])
    for words in alike if len(alike) > max(4, _CHANCE * len(new)) else ():
        found.say("shifted", words)


def _known(
    connection: Connection, store: Store, rows: Sequence[Row]
) -> tuple[dict[tuple[str, str], Row], dict[str, list[Row]], dict[str, list[Row]]]:
    """Receipts of the store that may be these.

    Returns
    -------
    by shopper and number; those without a number by shopper, in order of time; those with one likewise
    """
    keys = set()
    for shopper, number, time, *_ in rows:
        own, by_time = own_number(number), moment(time).strftime(BY_TIME)
        keys |= {(shopper, own), (shopper, f"{own}@{by_time}")}
    there = {(row[0], row[1]): row for row in _looked_for(connection, keys)}
    # of a number that was given again, a receipt that is not whole may begin later than the one there
    known = ((key, row[2]) for row in rows if (key := (row[0], own_number(row[1]))) in there)
    if again := {key for key, time in known if _other_visit(there[key][2], time)}:
        theirs = _receipts_of(connection, {shopper for shopper, _ in again})
        numbers = {(row[0], row[1]) for row in theirs if (row[0], own_number(row[1])) in again}
        there |= {(row[0], row[1]): row for row in _looked_for(connection, numbers | again)}
    # where one of the two has no number, they meet by their second; few stores have such receipts
    without = [row for row in rows if is_called_by_time(row[1])]
    called: dict[str, list[Row]] = {}
    numbered: dict[str, list[Row]] = {}
    if without or _has_called(connection, store):
        days = {(row[0], row[2] // _DAY + more) for row in rows for more in (-1, 0, 1)}
        of_these = _receipts_of(connection, {row[0] for row in (without or rows)})
        for row in sorted(of_these, key=lambda row: (row[0], row[2], row[1])):
            if (row[0], row[2] // _DAY) in days:
                (called if is_called_by_time(row[1]) else numbered).setdefault(row[0], []).append(row)
    return there, called, numbered


def _receipts_of(connection: Connection, users: set[str], *where: ColumnElement[bool]) -> list[Row]:
    return _looked_for(connection, {(user, "") for user in users}, *where)


def _looked_for(
    connection: Connection, keys: set[tuple[str, str]], *where: ColumnElement[bool]
) -> list[Row]:
    """Receipts of these users and numbers, held until the transaction ends; without numbers, all."""
    table, wanted = schema.receipts, schema.wanted
    wanted.create(connection)
    connection.execute(insert(wanted), [{"shopper": s, "number": n} for s, n in sorted(keys)])
    same, numbered = wanted.c.shopper == table.c.shopper, all(number for _, number in keys)
    if numbered:
        same &= wanted.c.number == table.c.number
    statement = select(table).join(wanted, same).where(*where)
    if numbered and connection.dialect.name != "sqlite":
        statement = statement.with_for_update(of=table)
    found = list(_rows(connection, statement))
    wanted.drop(connection)
    return found


def _rows(connection: Connection, statement: Any) -> Iterator[Row]:
    for row in connection.execute(statement):
        yield row.shopper, row.number, row.time, row.items, bytes(row.amounts)


def _has_called(connection: Connection, store: Store) -> bool:
    """Are there receipts that are called by their time?"""
    number = schema.receipts.c.number
    match = number.op("GLOB")("[12][0-9][0-9][0-9][01][0-9][0-3][0-9]T*")
    if not is_sqlite(store.writing):
        match = number.op("~")("^[12][0-9]{3}[01][0-9][0-3][0-9]T")
    return connection.execute(select(number).where(match).limit(1)).first() is not None


def _other_visit(there: int, time: int) -> bool:
    """Does a number stand for another receipt, as `came_again` sees it?"""
    first, last = np.array([min(there, time)]), np.array([max(there, time)])
    return bool(came_again(first, last)[0])


def _parts_among(rows: Sequence[Row], numbered: Mapping[str, Sequence[Row]]) -> set[int]:
    """Places of rows without a number that make up a receipt which is there with its number.

    A till dates each line; without the number each second is a receipt of its own.
    """
    found: set[int] = set()
    if not numbered:
        return found
    of_shopper: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        if is_called_by_time(row[1]):
            of_shopper.setdefault(row[0], []).append(place)
    for shopper, places in of_shopper.items():
        for at, place in enumerate(places):
            theirs = numbered.get(shopper, ())
            for whole in (theirs[there] for there in of_second(theirs, rows[place][2])):
                left = [other for other in places[at:] if other not in found]
                if left and left[0] == place:
                    found.update(left[at] for at in made_of(whole, [rows[other] for other in left]))
    return found


def _united(there: Row, row: Row, found: Merged) -> Row:
    """The receipt that is there with what it lacks of the same one; `found` gains where they differ."""
    kept = amounts_of(there)
    for item, amounts in amounts_of(row).items():
        known = kept.setdefault(item, amounts)
        if known is amounts:
            continue
        pairs = [(known["quantity"], amounts["quantity"]), (known["value"], amounts["value"])]
        differ = any(abs(a - b) > 1e-6 * (1 + abs(a)) for a, b in pairs)  # not of NaN
        if differ:
            found.say(
                "differing",
                f"item {item!r} of receipt {there[1]!r} of shopper {there[0]!r}, {_said(known)} there, "
                f"{_said(amounts)} now",
            )
        more = differ or any(np.isnan(a) and not np.isnan(b) for a, b in pairs)
        if more and _weight(amounts) > _weight(known):  # what single precision rounds is no more
            kept[item] = amounts
    return there[0], there[1], min(there[2], row[2]), *_packed(kept)


def _packed(amounts: Mapping[str, np.void]) -> tuple[str, bytes]:
    """Items in order and their amounts, as a row has them."""
    order = sorted(amounts)
    return "\n".join(order), np.array([amounts[item] for item in order], AMOUNTS).tobytes()


def _weight(amounts: np.void) -> tuple[float, float]:
    """Of two amounts of an item, the larger counts; a known value is more than none."""
    return float(amounts["quantity"]), float(np.nan_to_num(amounts["value"], nan=-1.0))


def _said(amounts: np.void) -> str:
    value = "" if np.isnan(amounts["value"]) else f" for {amounts['value']:.2f}"
    return f"{amounts['quantity']:g}{value}"


def _insert(connection: Connection, store: Store, rows: Sequence[Row]) -> int:
    """How many of the rows were not there before, and are now."""
    if not rows:
        return 0
    if is_sqlite(store.writing):
        driver: Any = connection.connection.driver_connection
        cursor = driver.executemany(
            "INSERT INTO receipts (shopper, number, time, items, amounts) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            rows,
        )
        return int(cursor.rowcount)
    connection.exec_driver_sql("CREATE TEMPORARY TABLE incoming (LIKE receipts) ON COMMIT DROP")
    driver = connection.connection.driver_connection
    with driver.cursor() as cursor:
        with cursor.copy(_COPY) as copy:
            copy.set_types(["varchar", "varchar", "int8", "text", "bytea"])
            for row in rows:
                copy.write_row(row)
        cursor.execute(
            "INSERT INTO receipts SELECT * FROM incoming ORDER BY shopper, number "
            "ON CONFLICT DO NOTHING"
        )
        return int(cursor.rowcount)


def _note(connection: Connection, store: Store, rows: Sequence[Row]) -> None:
    """Another version for each shopper of receipts that were written, and the state."""
    store.touch(connection, sorted({row[0] for row in rows}))
    store.extend(connection, max(row[2] for row in rows), [row[1] for row in rows])


# -- ids that changed -------------------------------------------------------------------------------


def move(store: Store, changed: ChangedIds) -> list[str]:
    """Put what is stored under old ids of users and items under the new ones; a note on each.

    Receipts of users are united as `merge` does; attributes that the new id has count. What is stored
    of a user whose new id was forgotten is removed. What was stopped halfway goes on when it is called
    again.
    """
    renumbered = united = 0
    if changed.items:
        renumbered, united = _renumber(store, changed)
        store.renumber_lists(changed)
    with store.snapshot() as connection:
        there = store.users(connection) & set(changed.users)
    removed = 0
    for old in sorted(there):
        new = changed.last("user", old)
        while not (gone := bool(store.forgotten([new]))) and not _moved(store, old, new):
            continue  # more of the old id was stored meanwhile, or the new one was forgotten
        if gone:
            removed += 1
            with store.transaction(long=True) as connection:
                store.remove_rows(connection, old)
    if removed:
        with store.transaction(long=True) as connection:
            store.recount(connection)
        store.sweep()
    found = (
        (len(there) - removed, "users of the store have new ids now"),
        (
            removed,
            "users of the store became ids that were forgotten, so what it had of them is removed",
        ),
        (renumbered, "receipts, for their items, of the store have new ids now"),
        (
            united,
            "of these receipts had an item under both ids, which is added up; if an export was loaded "
            "without the table after one with it, it counts twice there",
        ),
    )
    return [f"{n:,} {what}" for n, what in found if n]


def _moved(store: Store, old: str, new: str) -> bool:
    """Put what is stored of a user under another id.

    False, and nothing is removed, if more came or the other one was forgotten meanwhile.
    """
    receipts, users = schema.receipts, schema.shoppers
    mine, theirs = store.shopper(old), store.shopper(new)
    with store.reader() as connection:
        rows = list(_rows(connection, select(receipts).where(receipts.c.shopper == old)))
    for at in range(0, len(rows), _CHUNK):
        merge(store, [(new, *row[1:]) for row in rows[at : at + _CHUNK]])
    if facts := mine.attributes | theirs.attributes:
        store.describe({new: facts})
    for item in mine.denied:
        store.deny(new, item)
    for said in mine.dismissed:
        store.dismiss(new, said.item, said)
    with store.transaction(long=True) as connection:
        now = select(users.c.version).where(users.c.id == old).with_for_update()
        if (connection.execute(now).scalar() or 0) != mine.version or forgotten_among(
            connection, [new]
        ):
            return False
        for column in (schema.exposures.c.user_id, schema.pools.c.user_id):
            connection.execute(update(column.table).where(column == old).values({column: new}))
        for column in (receipts.c.shopper, users.c.id):
            connection.execute(delete(column.table).where(column == old))
    return True


def _renumber(store: Store, changed: ChangedIds) -> tuple[int, int]:
    """Give the items of stored receipts their new ids, one line an item.

    Returns
    -------
    number of receipts, and of those that had two items which are one now
    """
    table, united = schema.receipts, 0
    old = set(changed.items)
    with store.snapshot() as connection:
        rows = [r for r in _rows(connection, select(table)) if not old.isdisjoint(r[3].split("\n"))]
    for at in range(0, len(rows), _CHUNK):
        written: list[dict[str, Any]] = []
        for shopper, number, _, items, amounts in rows[at : at + _CHUNK]:
            lines: dict[str, np.void] = {}
            for item, own in amounts_of((shopper, number, 0, items, amounts)).items():
                name = changed.last("item", item)
                lines[name] = own if name not in lines else _added(lines[name], own)
            united += len(lines) <= items.count("\n")
            what, much = _packed(lines)
            row = {"whose": shopper, "which": number, "were": items, "what": what, "much": much}
            written.append(row)
        with store.transaction(long=True) as connection:
            mine = (table.c.shopper == bindparam("whose")) & (table.c.number == bindparam("which"))
            as_read = table.c["items"] == bindparam("were")  # else somebody else changed it meanwhile
            statement = update(table).where(mine, as_read)
            connection.execute(
                statement.values(items=bindparam("what"), amounts=bindparam("much")), written
            )
            store.touch(connection, sorted({row["whose"] for row in written}))
    return len(rows), united


def _added(one: np.void, other: np.void) -> np.void:
    """Amounts of two lines of an item; what one of them does not know is as the other says."""
    both = np.array([one, other], AMOUNTS)
    total = np.zeros(1, AMOUNTS)
    for name in AMOUNTS.names or ():
        known = both[name][~np.isnan(both[name])]
        total[name] = known.sum() if len(known) else np.nan
    return np.void(total[0])


def prepare_demo(folder: Path, progress: Progress = silent) -> tuple[Path, Path]:
    """A folder with two models and a store of a generated shop, made once; their paths.

    The first model has learnt from all but the last four weeks and has a report of how well it did on
    them; the second has learnt from everything.
    """
    from retailrec.jobs.run import run
    from retailrec.jobs.settings import read_settings
    from retailrec.simulator.shop import data_of, preset_shop

    models, file = folder / "models", folder / "store.db"
    if file.is_file():
        return models, file
    progress("generate receipts")
    data = data_of(preset_shop("small", users=400, weeks=40))
    settings = read_settings(None, profile="laptop", label_windows=1)
    result = folder / "models" / "all-receipts"
    run(data, settings, result, dataset="demo", progress=progress)
    progress("fit a smaller model to compare with")
    smaller = read_settings(None, profile="large")
    smaller.for_size(data.n_users).model().fit(data).save(folder / "models" / "small-and-quick")
    progress("store receipts")
    with replaced(file) as partial:
        store = Store(str(partial)).init()
        load_data(store, data)
        store.record_activation("all-receipts", "")
        store.sweep()
        store.close()
    return models, file

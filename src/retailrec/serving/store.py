"""The history store: receipts, exposures, lists and keys in SQLite or PostgreSQL."""

from __future__ import annotations

import json
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import starmap
from typing import Any

import numpy as np
import polars as pl
from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    union,
    update,
)

from retailrec.data.changed_ids import ChangedIds
from retailrec.data.cleaning import ONE_VISIT_US
from retailrec.data.parsing import zero_forms
from retailrec.errors import SettingError
from retailrec.schema import ITEM_ID, USER_ID
from retailrec.serving import schema
from retailrec.serving.database import (
    NO_RULES,
    Added,
    Database,
    Dismissal,
    Events,
    ForgottenUser,
    Lists,
    ReceiptConflict,
    RulesChanged,
    Shopper,
    ValueRefused,
)
from retailrec.serving.forgetting import add_to_list, forgotten_among
from retailrec.serving.receipts import (
    SECOND,
    Receipt,
    called_by_time,
    is_called_by_time,
    is_whole,
    made_of,
    midnight_after,
    moment,
    number_key,
    of_second,
    unpack,
    unpack_lines,
)
from retailrec.serving.receipts import Row as StoredRow
from retailrec.work import fingerprint


@dataclass
class Store(Database):
    """Receipts and all that an answer needs, behind one URL; its parameters are those of `Database`.

    Examples
    --------
    >>> from datetime import datetime
    >>> from tempfile import TemporaryDirectory
    >>> from retailrec.serving.receipts import Line, Posted, accept
    >>> with TemporaryDirectory() as folder:
    ...     store = Store(f"{folder}/store.db").init()
    ...     tea = accept([Posted("ann", "1", datetime(2024, 1, 9), [Line("tea", 2, 5.0)])])
    ...     once, twice = store.add(tea.receipts), store.add(tea.receipts)
    ...     store.close()
    >>> once.new, twice.known
    (1, 1)
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        table = schema.receipts
        self._events = select(table.c.time, table.c.number, table.c["items"], table.c.amounts).where(
            table.c.shopper == bindparam("shopper")
        )
        one, state = schema.shoppers, schema.state
        mine = (one.c.version, one.c.attributes, one.c.denied, one.c.dismissed)
        columns = select(*mine, state.c.ends, state.c.text_numbers, state.c.lists).select_from(state)
        self._shopper = columns.outerjoin(one, one.c.id == bindparam("shopper"))

    def _rows(self, statement: Select[Any], long: bool = False) -> Sequence[Row[Any]]:
        """Rows of a statement; a `long` one, which goes through a table, has no time limit."""
        with self.snapshot() if long else self.reader() as connection:
            return connection.execute(statement).all()

    # -- receipts ------------------------------------------------------------------------------

    def add(self, receipts: Sequence[Receipt]) -> Added:
        """Store receipts, all or none; those that are there already are counted as known.

        One that was loaded without its number is known by its time and contents. One that is there
        without lines, since none of them was a purchase, is stored when it comes corrected. Receipts of
        users who were forgotten are left out and counted.

        Raises
        ------
        ReceiptConflict
            If a receipt is there, or stands twice in the list, with other contents.
        """
        wanted, beside = by_number(receipts), dict[tuple[str, str], str]()
        if not wanted:
            return Added(0, 0)
        # in one order, so that two writers wait for each other and never both for ever
        with self.transaction() as connection:
            gone = forgotten_among(connection, {shopper for shopper, _ in wanted})
            wanted = {key: receipt for key, receipt in wanted.items() if key[0] not in gone}
            left_out = sum(receipt.shopper in gone for receipt in receipts)
            for key in self._without_number(connection, list(wanted.values()), beside):
                del wanted[key]
            if not wanted:
                return Added(0, len(receipts) - left_out, left_out)
            rows = [wanted[key].as_row() for key in sorted(wanted)]
            statement = self._upsert(schema.receipts).on_conflict_do_nothing()
            statement = statement.returning(schema.receipts.c.shopper, schema.receipts.c.number)
            new = {(s, n) for s, n in connection.execute(statement, rows)}
            if len(new) < len(wanted):
                old = [key for key in wanted if key not in new]
                for there in self._receipts(connection, old):
                    key = there.shopper, there.number
                    if there.items or not wanted[key].items:
                        _require_same(wanted[key], there)
                    else:  # nothing was left of it: now it comes corrected
                        self._fill(connection, wanted[key])
                        new.add(key)
            self.touch(connection, sorted({shopper for shopper, _ in new}))
            # one of which nothing is left, such as one of returns, does not say what is known
            last = max((wanted[key].time for key in new if wanted[key].items), default=None)
            self.extend(connection, last, [number for _, number in new])
        both = tuple((*key, beside[key]) for key in sorted(new & beside.keys()))
        return Added(len(new), len(receipts) - len(new) - left_out, left_out, both)

    def history(self, shopper: str) -> list[Receipt]:
        """The shopper's receipts in order of time, read in one statement."""
        table = schema.receipts
        with self.reader() as connection:
            rows = connection.execute(select(table).where(table.c.shopper == shopper)).mappings().all()
        return sorted(unpack(rows), key=lambda r: (r.time, number_key(r.number)))

    def events(self, shopper: str, text_numbers: bool = False) -> Events:
        """As `history`, lines below each other: what an answer is computed from."""
        with self.reader() as connection:
            rows = connection.execute(self._events, {"shopper": shopper}).all()
        number: Callable[[str], Any] = str if text_numbers else int
        try:
            rows = sorted(rows, key=lambda row: (row[0], number(row[1])))
        except ValueError:  # the store's first number that is text came since then
            return self.events(shopper, text_numbers=True)
        times = np.array([row[0] for row in rows], np.int64)
        return Events(times, *unpack_lines([row[2] for row in rows], [row[3] for row in rows]))

    def shopper(self, shopper: str) -> Shopper:
        """What an answer for the shopper needs beside receipts, read in one statement."""
        with self.reader() as connection:
            row = connection.execute(self._shopper, {"shopper": shopper}).one()
        return Shopper(
            row.version or 0,
            json.loads(row.attributes) if row.attributes else {},
            tuple(json.loads(row.denied)) if row.denied else (),
            None if row.ends is None else moment(row.ends),
            bool(row.text_numbers),
            row.lists,
            _dismissed(row.dismissed),
        )

    def some_receipts(self, most: int, crowd: int) -> tuple[list[Receipt], int]:
        """Receipts of some users, for a look at what they are like; and the users, up to a `crowd`."""
        table = schema.receipts
        some = select(table).order_by(table.c.shopper, table.c.number).limit(most)
        users = select(table.c.shopper).distinct().order_by(table.c.shopper).limit(crowd)
        with self.reader() as connection:
            receipts = unpack(connection.execute(some).mappings().all())
            return receipts, len(connection.execute(users).all())

    def unwanted(
        self, shoppers: Sequence[str]
    ) -> dict[str, tuple[tuple[str, ...], tuple[Dismissal, ...]]]:
        """Items denied and dismissed, for those of some shoppers (a thousand at most) who have such."""
        table = schema.shoppers
        statement = select(table.c.id, table.c.denied, table.c.dismissed).where(
            table.c.id.in_(set(shoppers)), (table.c.denied != "[]") | table.c.dismissed.is_not(None)
        )
        rows = self._rows(statement)
        return {row.id: (tuple(json.loads(row.denied)), _dismissed(row.dismissed)) for row in rows}

    def some_shoppers(self, most: int) -> list[str]:
        """Some shoppers who have been heard of, in order of id."""
        table = schema.shoppers
        return [row.id for row in self._rows(select(table.c.id).order_by(table.c.id).limit(most))]

    def alike(self, shoppers: Iterable[str]) -> list[tuple[str, str]]:
        """Of some shoppers, new ones that are there but for leading zeros or '.0'; and who that is."""
        table, found = schema.shoppers, []
        with self.reader() as connection:

            def there(ids: Sequence[str]) -> set[str]:
                some = (ids[at : at + 500] for at in range(0, len(ids), 500))
                return {
                    one
                    for part in some
                    for one in connection.execute(
                        select(table.c.id).where(table.c.id.in_(part))
                    ).scalars()
                }

            asked = sorted(set(shoppers))
            known = there(asked)
            forms = {one: zero_forms(one) for one in asked if one not in known}
            known = there([form for others in forms.values() for form in others])
            for one, others in forms.items():
                found += [(one, other) for other in others if other in known][:1]
        return found

    def forget(self, shopper: str) -> dict[str, int]:
        """Remove all that is known of a shopper, who is not stored again; rows removed by table.

        See `sweep` for whether an SQLite file's write-ahead log is free of them too.
        """
        one, state = schema.receipts, schema.state
        newest = select(func.max(one.c.time)).where(one.c.shopper == shopper).scalar_subquery()
        with self.transaction(long=True) as connection:
            add_to_list(connection, shopper)
            last, ends = connection.execute(select(newest, state.c.ends)).one()
            removed = self.remove_rows(connection, shopper)
            if last is not None and ends is not None and midnight_after(last) >= ends:
                self.recount(connection)
        self.unswept = True
        self.sweep()
        return removed

    def remove_rows(self, connection: Connection, shopper: str) -> dict[str, int]:
        """Remove every row of a shopper, within a transaction; number of rows by table."""
        return {
            name: connection.execute(delete(column.table).where(column == shopper)).rowcount
            for name, column in schema.OF_USERS.items()
        }

    def users(self, connection: Connection) -> set[str]:
        """All users of whom anything is stored."""
        return {row[0] for row in connection.execute(union(*map(select, schema.OF_USERS.values())))}

    def forgotten(self, shoppers: Iterable[str]) -> set[str]:
        """Those of some shoppers who were forgotten."""
        with self.reader() as connection:
            return forgotten_among(connection, shoppers, hold=False)

    # -- shoppers, lists, rules ----------------------------------------------------------------

    def describe(self, attributes: Mapping[str, Mapping[str, Any]]) -> int:
        """Set the attributes of shoppers; others of theirs are replaced.

        Returns the number of shoppers who were forgotten and therefore left out.
        """
        with self.transaction() as connection:
            gone = forgotten_among(connection, attributes)
            kept = sorted(attributes.keys() - gone)
            for at in range(0, len(kept), 5000):
                self._put(connection, {one: attributes[one] for one in kept[at : at + 5000]})
        return len(gone)

    def has_attribute(self, name: str) -> bool:
        """Has any shopper an attribute of this name?"""
        column = schema.shoppers.c.attributes
        statement = select(column).where(column.contains(json.dumps(name) + ":", autoescape=True))
        return any(name in json.loads(row[0]) for row in self._rows(statement.limit(100), long=True))

    def deny(self, shopper: str, item: str, denied: bool = True) -> None:
        """Never offer the item to the shopper again, or allow it again.

        Raises
        ------
        ForgottenUser
            If the shopper was forgotten; nothing is stored.
        """
        now = {item} if denied else set[str]()
        column = schema.shoppers.c.denied
        self._change_shopper(shopper, column, lambda items: sorted(set(items) - {item} | now))

    def dismiss(self, shopper: str, item: str, dismissal: Dismissal | None) -> None:
        """Do not offer the item to the shopper for a while, or take back what was said of it.

        Dismissals that are over stay, an item's last one: a clock that was ahead for a while takes none
        away, and a list as of an earlier time is what it was.

        Raises
        ------
        ForgottenUser
            If the shopper was forgotten; nothing is stored.
        """

        def changed(said: list[list[Any]]) -> list[Any]:
            others = [one for one in said if one[0] != item]
            return others if dismissal is None else [*others, list(dismissal)]

        self._change_shopper(shopper, schema.shoppers.c.dismissed, changed)

    def denials(self) -> list[tuple[str, str]]:
        """All items that are denied, and to whom, in order of id."""
        table = schema.shoppers
        statement = select(table.c.id, table.c.denied).where(table.c.denied != "[]")
        rows = self._rows(statement.order_by(table.c.id), long=True)
        return [(row.id, item) for row in rows for item in json.loads(row.denied)]

    def dismissals(self) -> list[tuple[str, Dismissal]]:
        """All dismissals that are stored, and whose they are, in order of id."""
        table = schema.shoppers
        statement = select(table.c.id, table.c.dismissed).where(table.c.dismissed.is_not(None))
        rows = self._rows(statement.order_by(table.c.id), long=True)
        return [(row.id, Dismissal(*one)) for row in rows for one in json.loads(row.dismissed)]

    def _change_shopper(
        self, shopper: str, column: ColumnElement[str], change: Callable[[list[Any]], list[Any]]
    ) -> None:
        """Change a list that a column of the shopper's row holds."""
        with self.transaction() as connection:
            if forgotten_among(connection, [shopper]):
                raise ForgottenUser(
                    f"shopper {shopper!a} was forgotten, so nothing is stored. Take the id off the "
                    f"list of forgotten ids first, if that is meant: DELETE /v1/forgotten/ID, or "
                    f"`retailrec store forget ID --undo`."
                )
            self.touch(connection, [shopper])
            mine = schema.shoppers.c.id == shopper
            # the row is locked by `touch`, so nobody else changes the list meanwhile
            text = connection.execute(select(column).where(mine)).scalar_one()
            changed = json.dumps(change(json.loads(text or "[]")))
            connection.execute(update(schema.shoppers).where(mine).values({column: changed}))

    def set_available(self, items: Mapping[str, bool], store: str | None = None) -> None:
        """Take items off all lists, or those of a store's users, or put them back."""
        table = schema.unavailable if store is None else schema.unavailable_in
        where = {} if store is None else {"store": store}
        rows = [
            where | {"item": item, "since": int(time.time() * 1e6)}
            for item, on in sorted(items.items())
            if not on
        ]
        back = [item for item, on in items.items() if on]
        with self.transaction() as connection:
            if rows:
                connection.execute(self._upsert(table).on_conflict_do_nothing(), rows)
            if back:
                gone = delete(table).where(table.c.item.in_(back))
                connection.execute(gone if store is None else gone.where(table.c.store == store))
            self._change_lists(connection)

    def renumber_lists(self, changed: ChangedIds) -> None:
        """Let what is said of items hold of their new ids, too, and put what was shown under these.

        What is denied, dismissed, off or forbidden holds of the old id as well, by which a model may
        still know the item.
        """
        with self.transaction(long=True) as connection:
            self._renumber_unwanted(connection, changed)
            for table in (schema.unavailable, schema.unavailable_in):
                off = [row._asdict() for row in connection.execute(select(table))]
                new = [
                    row | {"item": name} for row in off for name in _new_names([row["item"]], changed)
                ]
                if new:
                    connection.execute(self._upsert(table).on_conflict_do_nothing(), new)
            saved = json.loads(connection.execute(select(schema.state.c.rules)).scalar_one())
            for rules in saved.values():
                for ban in rules.get("forbid") or ():
                    ban["items"] = [*ban["items"], *_new_names(ban["items"], changed)]
            connection.execute(update(schema.state).values(rules=json.dumps(saved, sort_keys=True)))
            self._change_lists(connection)
            renamed = schema.renamed
            renamed.create(connection)
            rows = [{"old": old, "new": changed.last("item", old)} for old in changed.items]
            connection.execute(insert(renamed), rows)
            for log in (schema.exposures, schema.pools):
                now = select(renamed.c.new).where(renamed.c.old == log.c.item_id).scalar_subquery()
                old_ids = log.c.item_id.in_(select(renamed.c.old))
                connection.execute(update(log).where(old_ids).values(item_id=now))
            renamed.drop(connection)

    def _renumber_unwanted(self, connection: Connection, changed: ChangedIds) -> None:
        """Deny and dismiss items by their new ids, too."""
        users, touched = schema.shoppers, []
        some = (users.c.denied != "[]") | users.c.dismissed.is_not(None)
        columns = select(users.c.id, users.c.denied, users.c.dismissed)
        for user, denied, said in connection.execute(
            columns.where(some).order_by(users.c.id).with_for_update()
        ).all():
            items, dismissed = json.loads(denied), json.loads(said or "[]")
            more = _new_names(items, changed)
            again = {
                name: [name, *one[1:]]
                for one in sorted(dismissed, key=lambda one: one[3])  # the one that holds longest
                for name in _new_names([one[0]], changed)
                if name not in {known[0] for known in dismissed}
            }
            if more or again:
                touched.append(user)
                values = {"denied": json.dumps(sorted([*items, *more]))}
                if again:
                    values["dismissed"] = json.dumps([*dismissed, *again.values()])
                connection.execute(update(users).where(users.c.id == user).values(values))
        self.touch(connection, touched)

    def lists(self) -> Lists:
        """Unavailable items and rules as they are now."""
        with self.reader() as connection:
            row = connection.execute(select(schema.state)).one()
            items = connection.execute(select(schema.unavailable.c.item)).scalars()
            table, by_store = schema.unavailable_in, defaultdict(set)
            for store, item in connection.execute(select(table.c.store, table.c.item)):
                by_store[store].add(item)
            off = {store: frozenset(found) for store, found in by_store.items()}
            return Lists(row.lists, frozenset(items), json.loads(row.rules), off)

    def set_rules(self, ruleset: str, rules: Mapping[str, Any] | None, seen: str | None = None) -> None:
        """Save a set of rules, or remove it.

        Parameters
        ----------
        seen : `fingerprint` of what it held when the change was thought of; `NO_RULES`: there is no
            such set; None: whatever it holds

        Raises
        ------
        RulesChanged
            If it holds something else by now.
        """
        with self.transaction() as connection:
            self._change_lists(connection)
            text = connection.execute(select(schema.state.c.rules)).scalar_one()
            saved = json.loads(text)
            if seen == NO_RULES and ruleset in saved:
                raise RulesChanged(f"there are rules {ruleset!a} already; open them and look.")
            if seen not in (None, NO_RULES) and fingerprint(saved.get(ruleset, {})) != seen:
                raise RulesChanged(
                    f"the rules of {ruleset!a} were changed meanwhile; open them again and look."
                )
            saved.pop(ruleset, None)
            if rules is not None:
                saved[ruleset] = dict(rules)
            connection.execute(update(schema.state).values(rules=json.dumps(saved, sort_keys=True)))

    # -- exposures and models ------------------------------------------------------------------

    def log_exposures(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add rows to the exposure log; number of rows left out since their users were forgotten.

        Rows with a `pool` are of the pools of explored lists, and go to their table. A row whose `key`
        is there already is not written again.

        Raises
        ------
        ValueRefused
            If a row can't be stored, on whichever database; none is then.
        """
        for row in rows:
            for name, value in row.items():
                if isinstance(value, str) and ("\0" in value or not _is_text(value)):
                    raise ValueRefused(f"column {name} of an exposure holds what no text does")
        with self.transaction() as connection:
            gone = forgotten_among(connection, {row["user_id"] for row in rows})
            kept = [row for row in rows if row["user_id"] not in gone]
            for table, of_pools in ((schema.exposures, False), (schema.pools, True)):
                if mine := [row for row in kept if ("pool" in row) == of_pools]:
                    connection.execute(self._upsert(table).on_conflict_do_nothing(), mine)
        return len(rows) - len(kept)

    def exposures(self, since: int = 0, most: int | None = None) -> list[Mapping[str, Any]]:
        """Rows of the exposure log after the row `since`, oldest first."""
        table = schema.exposures
        statement = select(table).where(table.c.id > since).order_by(table.c.id).limit(most)
        return [row._asdict() for row in self._rows(statement, long=True)]

    def last_shown(self, shoppers: Sequence[str]) -> pl.DataFrame:
        """`user_id`, `item_id` of what each of some users (a thousand at most) was shown last."""
        table = schema.exposures
        mine = table.c.user_id.in_(set(shoppers)) & table.c.shadow.is_(False) & (table.c.rank > 0)
        newest = select(func.max(table.c.id)).where(mine).group_by(table.c.user_id)
        last = select(table.c.user_id, table.c.request).where(table.c.id.in_(newest)).subquery()
        same = (table.c.user_id == last.c.user_id) & (table.c.request == last.c.request)
        statement = select(table.c.user_id, table.c.item_id).join(last, same).where(mine)
        rows = [tuple(row) for row in self._rows(statement)]
        return pl.DataFrame(rows, {USER_ID: pl.String, ITEM_ID: pl.String}, orient="row")

    def activations(self) -> list[tuple[str, str, datetime]]:
        """`(model, digest, time)` of every activation, oldest first."""
        table = schema.models
        rows = self._rows(select(table).order_by(table.c.id))
        return [(row.model, row.digest, moment(row.activated)) for row in rows]

    def record_activation(self, model: str, digest: str) -> None:
        """Write down that a model answers from now on."""
        row = {"model": model, "digest": digest, "activated": int(time.time() * 1e6)}
        with self.transaction() as connection:
            connection.execute(insert(schema.models), row)

    # -- the whole -----------------------------------------------------------------------------

    def is_empty(self) -> bool:
        """Is there no receipt?"""
        return not self._rows(select(schema.receipts.c.number).limit(1))

    def counts(self) -> dict[str, int]:
        """Number of rows of each table."""
        tables = (*(column.table for column in schema.OF_USERS.values()), schema.unavailable)
        with self.snapshot() as connection:
            return {
                t.name: int(connection.execute(select(func.count()).select_from(t)).scalar_one())
                for t in tables
            }

    # -- within a transaction ------------------------------------------------------------------

    def _receipts(self, connection: Connection, keys: Sequence[tuple[str, str]]) -> list[Receipt]:
        table = schema.receipts
        place = tuple_(table.c.shopper, table.c.number)
        found: list[Receipt] = []
        for at in range(0, len(keys), 500):
            statement = select(table).where(place.in_(keys[at : at + 500]))
            found += unpack(connection.execute(statement).mappings().all())
        return found

    def _fill(self, connection: Connection, receipt: Receipt) -> None:
        """Store the lines of a receipt that is there without any."""
        table = schema.receipts
        mine = (table.c.shopper == receipt.shopper) & (table.c.number == receipt.number)
        empty = update(table).where(mine, table.c["items"] == "")
        if not connection.execute(empty.values(receipt.as_row())).rowcount:
            raise _conflict(receipt)  # with what another process stored meanwhile

    def _without_number(
        self,
        connection: Connection,
        receipts: Sequence[Receipt],
        beside: dict[tuple[str, str], str],
    ) -> list[tuple[str, str]]:
        """Keys of receipts that are there without their number: of the same time and contents, in one
        or more parts, as a load finds them; of others of the same second `beside` gets the name."""
        table, found = schema.receipts, []
        names = [(r.shopper, name) for r in receipts for name in called_by_time(r.time)]
        begin = {(r.shopper, r.time // SECOND) for r in self._receipts(connection, names)}
        for r in receipts:
            if (r.shopper, r.time // SECOND) not in begin:
                continue
            near = table.c.time.between(r.time // SECOND * SECOND, r.time + ONE_VISIT_US)
            rows = connection.execute(
                select(table).where(table.c.shopper == r.shopper, near).order_by(table.c.time)
            )
            parts: list[StoredRow] = [
                (row.shopper, row.number, row.time, row.items, bytes(row.amounts))
                for row in rows
                if is_called_by_time(row.number) and row.number != r.number
            ]
            whole = r.shopper, r.number, r.time, "\n".join(r.items), r.amounts.tobytes()
            begun = list(of_second(parts, r.time))
            if any(made_of(whole, parts[at:]) for at in begun):
                found.append((r.shopper, r.number))
            elif begun:
                beside[r.shopper, r.number] = parts[begun[0]][1]
        return found

    def touch(self, connection: Connection, shoppers: Sequence[str]) -> None:
        """Give shoppers another version; rows of new ones are made."""
        if shoppers:
            self._put(connection, dict.fromkeys(shoppers))

    def _put(self, connection: Connection, facts: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Give shoppers another version, and attributes where there are some; new ones are added."""
        statement, names = self._upsert(schema.shoppers), ["version"]
        if None not in facts.values():
            names.append("attributes")
        changed = {name: statement.excluded[name] for name in names}
        rows = [
            {"id": one, "version": _version(), "attributes": json.dumps(dict(of or {})), "denied": "[]"}
            for one, of in facts.items()
        ]
        connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=changed), rows)

    def extend(self, connection: Connection, last: int | None, numbers: Iterable[str]) -> None:
        """Let the state know of the latest time and the numbers of new receipts, in a transaction.

        Most add nothing to it, and then no row is written.
        """
        one = schema.state
        if last is not None:
            ends, earlier = midnight_after(last), (one.c.ends < midnight_after(last))
            connection.execute(update(one).where(earlier | one.c.ends.is_(None)).values(ends=ends))
        if not all(map(is_whole, numbers)):
            as_text = update(one).where(one.c.text_numbers.is_(False)).values(text_numbers=True)
            connection.execute(as_text)

    def recount(self, connection: Connection) -> None:
        """Find out where receipts end after some were removed, within a transaction."""
        table, bought = schema.receipts, schema.receipts.c["items"] != ""
        last_day = select(schema.state.c.ends - midnight_after(0)).scalar_subquery()
        of_it = select(table.c.time).where(bought, table.c.time >= last_day).limit(1)
        if connection.execute(of_it).first() is not None:
            return  # as before, and found after some rows, where the latest is looked for in all
        last = connection.execute(select(func.max(table.c.time)).where(bought)).scalar()
        ends = None if last is None else midnight_after(int(last))
        connection.execute(update(schema.state).values(ends=ends))

    def _change_lists(self, connection: Connection) -> None:
        connection.execute(update(schema.state).values(lists=_version()))


def _new_names(items: Sequence[str], changed: ChangedIds) -> list[str]:
    """New ids of items that are not among them, each once."""
    return sorted({changed.last("item", item) for item in items} - set(items))


def _dismissed(text: str | None) -> tuple[Dismissal, ...]:
    return tuple(starmap(Dismissal, json.loads(text))) if text else ()


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair
        return False
    return True


def _version() -> int:
    """A number that no version before it had: not after another process forgot the shopper, either."""
    return secrets.randbits(62) + 1


def by_number(receipts: Iterable[Receipt]) -> dict[tuple[str, str], Receipt]:
    """Shopper and number -> the receipt; one that stands twice is there once.

    Raises
    ------
    ReceiptConflict
        If it stands twice with other contents.
    """
    found: dict[tuple[str, str], Receipt] = {}
    for receipt in receipts:
        first = found.setdefault((receipt.shopper, receipt.number), receipt)
        if first is not receipt:
            _require_same(receipt, first)
    return found


def _require_same(receipt: Receipt, there: Receipt) -> None:
    same = receipt.time == there.time and receipt.items == there.items
    if not same or receipt.amounts.tobytes() != there.amounts.tobytes():
        raise _conflict(receipt)


def _conflict(receipt: Receipt) -> ReceiptConflict:
    return ReceiptConflict(
        f"receipt {receipt.number!a} of this shopper is known with other contents; nothing was "
        f"stored. Send a correction under another number."
    )


def open_store(url: str) -> Store:
    """A store that is ready for use; an SQLite file that is missing is made.

    A store of an older version is brought up to date.

    Raises
    ------
    SettingError
        If the URL makes no sense.
    DataError
        If the store is of a newer version, or is none yet.
    """
    if not url.strip():
        raise SettingError("--store is empty; name an SQLite file or a postgresql:// URL.")
    store = Store(url)
    try:
        if store.file is not None and not store.file.exists():
            store.init()
        if 0 < store.version() < len(schema.MIGRATIONS):
            store.init()
        store.require_ready()
    except BaseException:
        store.close()
        raise
    return store

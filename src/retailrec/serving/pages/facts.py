"""What pages tell about all receipts: one pass over the store beside the answers, now and then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select

from retailrec.serving import schema
from retailrec.serving.receipts import AMOUNTS
from retailrec.serving.service import Service

WEEKS = 52
_WEEK_US = 7 * 86_400 * 1_000_000
_SHOWN = 100_000  # newest exposures that are counted


@dataclass
class StoreFacts:
    """Counts over all receipts.

    Attributes
    ----------
    code : item -> row of the arrays
    receipts, quantity, value : (n_items, WEEKS) by week, the last one ends at `end`
    buyers, again : shoppers who bought the item, and those who did more than once
    gap : mean days between two purchases of the item by one shopper
    weekly : receipts by week
    shown, n_shown : item -> times it was on a list lately; of all items
    sample : up to 100 shoppers, evenly drawn
    """

    end: datetime
    made: float
    n_receipts: int = 0
    n_lines: int = 0
    n_shoppers: int = 0
    code: dict[str, int] = field(default_factory=dict)
    receipts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, WEEKS), np.int64))
    quantity: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, WEEKS)))
    value: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, WEEKS)))
    buyers: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    again: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    gap: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    weekly: list[int] = field(default_factory=list)
    shown: Counter[str] = field(default_factory=Counter)
    n_shown: int = 0
    sample: list[str] = field(default_factory=list)

    def weeks(self) -> list[str]:
        """First day of each week."""
        return [f"{self.end - timedelta(weeks=WEEKS - w):%Y-%m-%d}" for w in range(WEEKS)]


class Facts:
    """The newest facts, and a thread that renews them when somebody asks and they are old.

    Parameters
    ----------
    every : seconds that facts are good for
    """

    def __init__(self, service: Service, every: float = 300.0) -> None:
        self._service, self._every = service, every
        self._found: StoreFacts | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def now(self) -> StoreFacts | None:
        """What is known, and None before the first pass is done; a pass starts if it is time."""
        found = self._found
        if found is None or time.monotonic() - found.made > self._every:
            with self._lock:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = threading.Thread(target=self.renew, name="facts", daemon=True)
                    self._thread.start()
        return found

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of examples who were forgotten; their number."""
        found = self._found
        if found is None:
            return 0
        kept = [shopper for shopper in found.sample if not gone(shopper)]
        n = len(found.sample) - len(kept)
        if n:
            self._found = replace(found, sample=kept, made=-self._every)  # counts are renewed, too
        return n

    def renew(self) -> StoreFacts:
        """Go through the store once."""
        found = self._found = gather(self._service)
        gone = self._service.store.forgotten(found.sample)  # while the receipts were gone through
        self.forget(lambda shopper: shopper in gone)
        return self._found


def gather(service: Service) -> StoreFacts:
    """Counts over all receipts and the newest exposures."""
    store = service.store
    end = store.shopper("").ends or service.models.active.end
    table = schema.receipts
    columns = (table.c.shopper, table.c.time, table.c["items"], table.c.amounts)
    code: dict[str, int] = {}
    parts: list[tuple[NDArray[Any], ...]] = []
    shoppers: dict[str, int] = {}
    found = StoreFacts(end, time.monotonic())
    weekly = np.zeros(WEEKS, np.int64)
    end_us = int((end - datetime(1970, 1, 1)) / timedelta(microseconds=1))
    with store.snapshot() as connection:
        rows = connection.execution_options(yield_per=5000).execute(select(*columns))
        for some in rows.partitions():
            full = [row for row in some if row[2]]
            items = "\n".join([row[2] for row in full]).split("\n") if full else []
            size = np.array([row[2].count("\n") + 1 for row in full], np.int64)
            who = np.array([shoppers.setdefault(row[0], len(shoppers)) for row in full], np.int64)
            when = np.array([row[1] for row in full], np.int64)
            amounts = np.frombuffer(b"".join([bytes(row[3]) for row in full]), AMOUNTS)
            item = np.array([code.setdefault(name, len(code)) for name in items], np.int64)
            parts.append(
                (
                    np.repeat(who, size),
                    item,
                    np.repeat(when, size),
                    amounts["quantity"],
                    amounts["value"],
                )
            )
            week = WEEKS - 1 - (end_us - 1 - when) // _WEEK_US
            weekly += np.bincount(week[week >= 0], minlength=WEEKS)[:WEEKS]
            found.n_receipts += len(full)
    if parts:
        _count(found, [np.concatenate(p) for p in zip(*parts, strict=True)], len(code), end_us)
    found.code, found.weekly, found.n_shoppers = code, weekly.tolist(), len(shoppers)
    found.sample = sorted(shoppers)[:: max(len(shoppers) // 100, 1)][:100]
    exposures = schema.exposures
    newest = (
        select(exposures.c.item_id)
        .where(exposures.c.shadow.is_(False), exposures.c.item_id.is_not(None))
        .order_by(exposures.c.id.desc())
        .limit(_SHOWN)
        .subquery()
    )
    with store.snapshot() as connection:
        counted = connection.execute(
            select(newest.c.item_id, func.count()).group_by(newest.c.item_id)
        ).all()
    found.shown = Counter({name: int(n) for name, n in counted})
    found.n_shown = sum(found.shown.values())
    return found


def _count(found: StoreFacts, columns: list[NDArray[Any]], n_items: int, end_us: int) -> None:
    """Fill in what is counted by item; `columns` are shopper, item, time, quantity, value of lines."""
    user, item, when, quantity, value = columns
    found.n_lines = len(item)
    week = WEEKS - 1 - (end_us - 1 - when) // _WEEK_US
    late = week >= 0
    place = item[late] * WEEKS + week[late]
    shape = (n_items, WEEKS)
    found.receipts = np.bincount(place, minlength=n_items * WEEKS).reshape(shape)
    found.quantity = (
        np.bincount(place, quantity[late], n_items * WEEKS).astype(np.float64).reshape(shape)
    )
    found.value = (
        np.bincount(place, np.nan_to_num(value[late]), n_items * WEEKS)
        .astype(np.float64)
        .reshape(shape)
    )
    order = np.lexsort((when, item, user))
    same = (np.diff(user[order]) == 0) & (np.diff(item[order]) == 0)
    pairs = np.append(True, ~same)
    found.buyers = np.bincount(item[order][pairs], minlength=n_items)
    second = np.append(False, same)
    first_again = second & ~np.append(False, second[:-1])
    found.again = np.bincount(item[order][first_again], minlength=n_items)
    days = np.diff(when[order])[same] / 86_400e6
    of_item = item[order][1:][same]
    total = np.bincount(of_item, days, n_items)
    found.gap = total / np.maximum(np.bincount(of_item, minlength=n_items), 1)

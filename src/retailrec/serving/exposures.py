"""The log of what was shown: written in batches beside the answers, all of it at a clean stop."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from retailrec.serving.engine import Reply
from retailrec.serving.experiment import Assignment
from retailrec.serving.records import StoreUnavailable
from retailrec.serving.store import Store

_LOG = logging.getLogger("retailrec.serving")
Row = Mapping[str, Any]


def rows_of(
    answer: Reply, campaign: str, assignment: Assignment, request: str, shadow: bool = False
) -> list[Row]:
    """One row an offer; one with rank 0 and no item where nothing was shown."""
    common = {
        "campaign": campaign,
        "user_id": answer.shopper,
        "time": int(time.time() * 1e6),
        "model": answer.digest[:16] or answer.model,
        "arm": assignment.arm,
        "price": None,
        "holdout": assignment.holdout,
        "shadow": shadow,
        "request": request,
    }
    if not answer.offers:
        return [common | {"item_id": None, "rank": 0, "score": None, "propensity": None}]
    return [
        common
        | {
            "item_id": str(offer.item),
            "rank": offer.rank,
            "score": offer.score,
            "propensity": assignment.propensity,
        }
        for offer in answer.offers
    ]


class ExposureLog:
    """Rows wait in memory and a thread writes them; an answer never waits for it.

    While the database is away rows are kept, `most` of them; those that come then are counted as
    dropped.

    Parameters
    ----------
    every : seconds between two writes
    most : rows that may wait
    """

    def __init__(self, store: Store, every: float = 0.5, most: int = 200_000) -> None:
        self._store, self._every, self._most = store, every, most
        self._waiting: deque[Row] = deque()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._stopping = threading.Event(), False
        self.written = self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows be written."""
        with self._lock:
            room = self._most - len(self._waiting)
            self._waiting.extend(rows[: max(room, 0)])
            self.dropped += len(rows) - min(len(rows), max(room, 0))

    @property
    def waiting(self) -> int:
        """Rows that are not written yet."""
        return len(self._waiting)

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of rows of users that wait; what comes later the store leaves out, as it knows."""
        with self._writing, self._lock:
            kept = [row for row in self._waiting if not gone(row["user_id"])]
            n = len(self._waiting) - len(kept)
            self._waiting = deque(kept)
        return n

    def flush(self) -> bool:
        """Write what waits, now; False if the database is away."""
        with self._writing:
            while self._waiting:
                with self._lock:
                    rows = [self._waiting[i] for i in range(min(len(self._waiting), 5000))]
                try:
                    left_out = self._store.log_exposures(rows)
                except StoreUnavailable as error:
                    _LOG.warning("exposures wait: %s", error)
                    return False
                with self._lock:
                    for _ in rows:
                        self._waiting.popleft()
                self.written += len(rows) - left_out
        return True

    def stop(self, patience: float = 10.0) -> int:
        """Write everything and end; number of rows that could not be written in time."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        until = time.monotonic() + patience
        while not self.flush() and time.monotonic() < until:
            time.sleep(0.2)
        if self._waiting:
            _LOG.error("%d exposures were not written: the store is away", len(self._waiting))
        return len(self._waiting)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._every)
            if not self.flush():
                self._wake.wait(1.0)

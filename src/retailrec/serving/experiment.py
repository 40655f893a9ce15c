"""Experiments: who gets which model, by the draw of batch campaigns, and the log of what was shown.

The log is written in batches beside the answers, all of it at a clean stop. A row that the store can't
hold stops nothing: it is set aside in a file, and so is what could not be written when the service
stops. `Aside.recover` writes such a file into a store.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from sqlalchemy import select

from retailrec.components import Range, Share, check_settings
from retailrec.data.paths import read_toml
from retailrec.errors import DataError, SettingError
from retailrec.offers.arms import HOLDOUT, arm_of
from retailrec.recommender.exploration import policy_name
from retailrec.serving import schema
from retailrec.serving.database import StoreUnavailable, ValueRefused
from retailrec.serving.engine import Reply
from retailrec.serving.receipts import clock
from retailrec.serving.store import Store
from retailrec.work import locked, replaced

_LOG = logging.getLogger("retailrec.serving")
Formula = Literal[1, 2]


class Assignment(NamedTuple):
    """What a user gets; None: as without an experiment."""

    arm: str = ""
    model: str | None = None
    purpose: str | None = None
    propensity: float = 1.0  # the chance, known before the draw, of this arm (or of the holdout)
    holdout: bool = False  # is the user shown nothing, on purpose?
    ruleset: str | None = None
    explore: float | None = None  # how much lists are explored


@dataclass(frozen=True)
class Arm:
    """One arm: its share of the users who are not held out, and what is different in it."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    share: Share
    model: str | None = None
    purpose: str | None = None
    ruleset: str | None = None
    explore: Annotated[float, Range(0, 1, below=True)] | None = None

    def __post_init__(self) -> None:
        check_settings(self, "arm")


@dataclass(frozen=True)
class Experiment:
    """Who gets what.

    Parameters
    ----------
    campaign : name under which exposures are logged
    salt : another one draws again; without one the campaign's name is the salt
    holdout : share of the users who are shown nothing
    arms : name -> arm; shares add up to 1. Without any, all get the active model
    shadow : models that answer for the log only
    formula : of the draw. 2: `retailrec.offers.arms.arm_of`, as batch campaigns draw. 1: that of
        version 0.2's service, for an experiment that began under it. None: see `settled`

    Examples
    --------
    >>> test = Experiment(salt="may", arms={"a": Arm(share=0.5), "b": Arm(share=0.5)})
    >>> [test.assign(user).arm for user in ("1", "2", "3", "4")]
    ['b', 'a', 'a', 'b']
    """

    campaign: str = "offers"
    salt: str = ""
    holdout: float = 0.0
    arms: dict[str, Arm] = field(default_factory=dict)
    shadow: tuple[str, ...] = ()
    formula: Formula | None = None

    def __post_init__(self) -> None:
        check_settings(self, "experiment")
        total = sum(arm.share for arm in self.arms.values())
        if self.arms and abs(total - 1) > 1e-9:
            raise SettingError(f"experiment: the arms' shares add up to {total:g}; expected 1.")
        if not 0 <= self.holdout < 1:
            raise SettingError(f"experiment: holdout is {self.holdout:g}; expected 0 to below 1.")
        if len(set(self.shadow)) < len(self.shadow):
            raise SettingError(
                f"experiment: shadow names a model twice, {list(self.shadow)}; its lists would be "
                f"logged twice. Name each once."
            )
        if HOLDOUT in self.arms:
            raise SettingError(
                f"experiment: no arm may be called '{HOLDOUT}'; say holdout = SHARE, or rename the arm."
            )

    def assign(self, user: str) -> Assignment:
        """The user's arm; it depends on the salt, the shares and the id alone."""
        if not self.arms and not self.holdout:
            return Assignment()
        kept = 1 - self.holdout
        if self.formula == 1:
            name = self._arm_of_version_0_2(user)
        else:
            shares = {name: arm.share * kept for name, arm in self.arms.items()} or {"": kept}
            if self.holdout:
                shares[HOLDOUT] = self.holdout
            name = arm_of(user, shares, salt=self.salt or self.campaign)
        if name == HOLDOUT:
            return Assignment(holdout=True, propensity=self.holdout)
        if not name:
            return Assignment(propensity=kept)
        chosen = self.arms[name]
        share = chosen.share * kept
        return Assignment(
            name, chosen.model, chosen.purpose, share, ruleset=chosen.ruleset, explore=chosen.explore
        )

    def settled(self, store: Store) -> Experiment:
        """The experiment with its formula: its own, or 1 if it began under version 0.2, or 2."""
        if self.formula is not None:
            return self
        began = schema.experiments
        statement = select(began.c.formula).where(began.c.campaign == self.campaign)
        with store.reader() as connection:
            formula = connection.execute(statement).scalar()
        if formula == 1 and (self.arms or self.holdout):
            _LOG.warning(
                "campaign %s began under version 0.2, so arms are drawn as then (formula = 1); batch "
                "campaigns draw others. Name a new campaign, or set formula = 2, to draw by that one",
                ascii(self.campaign),
            )
        return replace(self, formula=1 if formula == 1 else 2)

    def _arm_of_version_0_2(self, user: str) -> str:
        def uniform(kind: str) -> float:
            digest = hashlib.sha256("\0".join((self.salt, kind, user)).encode()).digest()
            return int.from_bytes(digest[:8], "big") / 2**64

        if self.holdout and uniform("holdout") < self.holdout:
            return HOLDOUT
        place, so_far, name = uniform("arm"), 0.0, ""
        for name, arm in self.arms.items():  # noqa: B007 the last one where rounding leaves a gap
            so_far += arm.share
            if place < so_far:
                break
        return name


def _word(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("expected printable characters")
    return text


_Word = Annotated[str, AfterValidator(_word)]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    campaign: _Word = "offers"
    salt: str = ""
    holdout: float = 0.0
    arms: dict[_Word, Arm] = {}
    shadow: list[str] = []
    formula: Formula | None = None


def read_experiment(path: Path) -> Experiment:
    """The experiment of a TOML file.

    Raises
    ------
    SettingError
        If it can't be read, or a setting makes no sense.
    """
    given = read_toml(path, who="experiment")
    try:
        found = _File(**given)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(place) for place in first["loc"])
        said = first["msg"].removeprefix("Value error, ").removesuffix(".")
        raise SettingError(f"experiment {path}: {where}: {said.lower()}.") from error
    more: dict[str, Any] = {"arms": dict(sorted(found.arms.items())), "shadow": tuple(found.shadow)}
    return Experiment(**dict(found) | more)


_BATCH = 5000  # rows a transaction
Row = Mapping[str, Any]


def rows_of(
    answer: Reply, campaign: str, assignment: Assignment, request: str, shadow: bool = False
) -> list[Row]:
    """One row an offer; one with rank 0 and no item where nothing was shown.

    The chance of an offer is that of the arm times that of the draw, where the list was drawn.
    """
    common = {
        "campaign": campaign,
        "user_id": answer.shopper,
        "time": clock(),  # the shop's own, as receipts and the ledger have it
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
            "propensity": assignment.propensity
            * (1.0 if offer.propensity is None else offer.propensity),
        }
        for offer in answer.offers
    ]


def pool_rows(
    answer: Reply, assignment: Assignment, request: str, shown_only: bool = False
) -> list[Row]:
    """One row an item that an explored list could hold, listed or not, in the columns of `POOL`.

    Its chance is that of the draw alone: pools of other arms, and of users held out, are of other
    policies or not there.
    """
    common = {
        "request": request,
        "user_id": answer.shopper,
        "time": clock(),
        "policy": policy_name(answer.model, answer.digest),
        "arm": assignment.arm,
        "pool": len(answer.pool),
    }
    names = ("score", "propensity", "shown", "rank")
    return [
        common | {"item_id": str(one.item)} | {name: getattr(one, name) for name in names}
        for one in answer.pool
        if one.shown or not shown_only
    ]


class Unwritten(NamedTuple):
    """Rows that a service leaves unwritten when it stops."""

    aside: int  # rows in the file, for whatever reason
    lost: int  # rows that could not be written to the file either
    file: Path

    def sentence(self, store: str) -> str:
        """What to do about it."""
        if not self.aside:
            return (
                f"{self.lost:,} rows of what was shown were not written to the store {store} and are "
                f"lost, for want of room in {self.file.parent} or in memory."
            )
        lost = f"; {self.lost:,} are lost, for want of room there or in memory" if self.lost else ""
        return (
            f"{self.aside + self.lost:,} rows of what was shown were not written to the store: "
            f"{self.aside:,} are in {self.file}{lost}. Add them when the store is well: retailrec "
            f"store recover {self.file} --store {store}"
        )


class Aside:
    """Rows that the store did not take, as JSON lines: a file a service, in a folder of its own.

    Parameters
    ----------
    folder : made when there is a row, for its owner alone
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / f"exposures-{secrets.token_hex(8)}.jsonl"

    def files(self) -> list[Path]:
        """The files of all services."""
        return sorted(self.folder.glob("exposures-*.jsonl"))

    def add(self, rows: Sequence[Row], why: str) -> None:
        """Add rows to this service's file, all or none.

        Raises
        ------
        OSError
            If it can't be written.
        """
        text = "".join(json.dumps({**row, "why": why}) + "\n" for row in rows).encode()
        with locked(self.folder, wait=True):
            descriptor = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with open(descriptor, "ab", buffering=0) as file:
                size = file.tell()
                try:
                    if file.write(text) < len(text):  # as much as the disk had room for
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.file))
                    os.fsync(descriptor)
                except OSError:
                    os.truncate(descriptor, size)
                    if not size:
                        self.file.unlink()  # else it would be taken for one with rows
                    raise

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Remove users' rows from the files of all services; number of rows."""
        return sum(
            self._keep(file, lambda row: not gone(str(row.get("user_id")))) for file in self.files()
        )

    def recover(self, store: Store, file: Path) -> tuple[int, int, int]:
        """Write the rows of a file into a store, each once, and remove them from the file.

        Returns the number of rows that are written, left out since their users were forgotten, and
        refused by the store, which stay in the file. A row without what a row has is refused.
        """
        done: set[str] = set()
        left_out = 0
        rows = [row for _, row in _read_rows(file)]
        rows = [row for row in rows if set(row) >= _columns_of(row) and isinstance(row["key"], int)]
        for at in range(0, len(rows), _BATCH):
            some = [{name: row[name] for name in _columns_of(row)} for row in rows[at : at + _BATCH]]
            written, refused = write_rows(store, some)
            left_out += len(some) - written - len(refused)
            done |= {str(row["key"]) for row in some} - {str(row["key"]) for row, _ in refused}
        removed = self._keep(file, lambda row: str(row.get("key")) not in done)
        return removed - left_out, left_out, len(_read_rows(file)) if file.exists() else 0

    def _keep(self, file: Path, wanted: Callable[[Row], bool]) -> int:
        """Keep some rows of a file, and no file without rows; number of rows that went."""
        with locked(self.folder, wait=True):
            rows = _read_rows(file)
            kept = [line for line, row in rows if wanted(row)]
            if not kept:
                file.unlink(missing_ok=True)
            elif len(kept) < len(rows):
                with replaced(file) as partial:
                    partial.write_text("".join(kept), encoding="utf-8")
        return len(rows) - len(kept)


_COLUMNS = [{column.name for column in table.c} - {"id"} for table in (schema.exposures, schema.pools)]


def _columns_of(row: Row) -> set[str]:
    return _COLUMNS["pool" in row]


def _read_rows(file: Path) -> list[tuple[str, Row]]:
    """Lines and what they say; nothing of one that says nothing."""
    found: list[tuple[str, Row]] = []
    for line in (
        file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if file.is_file()
        else ()
    ):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        found.append((line, row if isinstance(row, dict) else {}))
    return found


def aside_of(store: Store) -> Path:
    """Where rows go that a store does not take: beside an SQLite file, else in the current folder."""
    if store.file is None:
        return Path("exposures.unwritten")
    return store.file.with_name(f"{store.file.name}.unwritten")


def write_rows(store: Store, rows: Sequence[Row]) -> tuple[int, list[tuple[Row, str]]]:
    """Write rows; those that the store can't hold are found by halves.

    Returns the number of rows that are written, and the refused ones with the reason. The others are
    of users who were forgotten.

    Raises
    ------
    StoreUnavailable
        If the store does not answer; some rows may be written.
    """
    try:
        return len(rows) - store.log_exposures(rows), []
    except (ValueRefused, ValueError, TypeError, OverflowError) as error:
        if len(rows) == 1:
            return 0, [(rows[0], str(error))]
    half = len(rows) // 2
    first, second = (write_rows(store, some) for some in (rows[:half], rows[half:]))
    return first[0] + second[0], first[1] + second[1]


class ExposureLog:
    """Rows wait in memory and a thread writes them; an answer never waits for it.

    While the database is away rows are kept, `most` of them; those that come then are counted as
    dropped. Each row has a key of its own, so that a batch whose acknowledgement was lost is written
    once.

    Parameters
    ----------
    aside : takes the rows that the store can't hold
    every : seconds between two writes
    most : rows that may wait
    """

    def __init__(self, store: Store, aside: Aside, every: float = 0.5, most: int = 200_000) -> None:
        self._store, self._aside, self._every, self._most = store, aside, every, most
        self._waiting: deque[Row] = deque()
        self._key = secrets.randbits(62)
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._wake, self._stopping = threading.Event(), False
        self.written = self.dropped = self.set_aside = 0
        self._thread = threading.Thread(target=self._run, name="exposures", daemon=True)
        self._thread.start()

    def add(self, rows: Sequence[Row]) -> None:
        """Let rows be written."""
        with self._lock:
            room = max(self._most - len(self._waiting), 0)
            for row in rows[:room]:
                self._key += 1
                self._waiting.append({**row, "key": self._key})
            self.dropped += len(rows[room:])

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
                    rows = [self._waiting[i] for i in range(min(len(self._waiting), _BATCH))]
                try:
                    self._write(rows)
                except StoreUnavailable as error:
                    _LOG.warning("exposures wait: %s", error)
                    return False
                with self._lock:
                    for _ in rows:
                        self._waiting.popleft()
        return True

    def stop(self, patience: float = 10.0) -> Unwritten | None:
        """Write everything and end; what could not be written, if there is any."""
        self._stopping = True
        self._wake.set()
        self._thread.join()
        until = time.monotonic() + patience
        while not self.flush() and time.monotonic() < until:
            time.sleep(0.2)
        return self.abandon()

    def abandon(self) -> Unwritten | None:
        """Set aside what waits, without the store; what could not be written, if there is any."""
        with self._lock:
            left = list(self._waiting)
            self._waiting.clear()
        if left:
            self._set_aside(left, "not written when the service ended")
        if not self.set_aside and not self.dropped:
            return None
        return Unwritten(self.set_aside, self.dropped, self._aside.file)

    def _write(self, rows: Sequence[Row]) -> None:
        """Write rows; those that the store can't hold are found by halves and set aside."""
        done, refused = write_rows(self._store, rows)
        self.written += done
        for row, why in refused:
            self._set_aside([row], why)

    def _set_aside(self, rows: Sequence[Row], why: str) -> None:
        try:
            self._aside.add(rows, why)
        except (OSError, DataError) as error:
            self.dropped += len(rows)
            _LOG.error("%d exposures are lost: %s, and %s", len(rows), why, error)
            return
        self.set_aside += len(rows)
        _LOG.error("%d exposures are set aside in %s: %s", len(rows), self._aside.file, why)

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(self._every)
            try:
                written = self.flush()
            except Exception:  # the thread goes on, whatever happens; what waits is counted
                _LOG.exception("exposures wait")
                written = False
            if not written:
                self._wake.wait(1.0)

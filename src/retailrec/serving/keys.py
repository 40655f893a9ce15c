"""API keys: random secrets, stored as hashes, with scopes; and how often one may ask."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache
from sqlalchemy import insert, select, update

from retailrec.errors import SettingError
from retailrec.serving import schema
from retailrec.serving.database import StoreUnavailable
from retailrec.serving.receipts import check_id
from retailrec.serving.store import Store

SCOPES = ("read", "write", "admin")
_RELOAD = 2.0  # seconds after which a removed key is refused at the latest
_NO_HASH = hashlib.sha256(b"").hexdigest()


class Key(NamedTuple):
    """A key without its secret."""

    id: str
    name: str
    scopes: frozenset[str]


OPEN = Key("", "open", frozenset(SCOPES))  # who asks where no key is asked for


def make_key(store: Store, name: str, scopes: str = "read") -> str:
    """A new key, to be shown once: the store has its hash only.

    Raises
    ------
    SettingError
        If a scope is not known.
    """
    asked = scopes.replace(",", " ").split()
    if not asked or not set(asked) <= set(SCOPES):
        raise SettingError(f"scopes are {scopes!r}; expected some of {', '.join(SCOPES)}.")
    check_id(name, "key name")
    identity, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    row = {
        "id": identity,
        "name": name,
        "hash": _hash(secret),
        "scopes": " ".join(asked),
        "made": int(time.time() * 1e6),
    }
    with store.transaction() as connection:
        connection.execute(insert(schema.keys), row)
    return f"rr_{identity}_{secret}"


def remove_key(store: Store, identity: str) -> bool:
    """Let a key count no more; was it there?

    Its row stays, without name, hash and scopes: a store that had a key never counts as one that is
    open to all.
    """
    table = schema.keys
    mine = update(table).where(table.c.id == identity, table.c.scopes != "")
    with store.transaction() as connection:
        found = connection.execute(mine.values(name="", hash="", scopes=""))
    return bool(found.rowcount)


def list_keys(store: Store) -> list[Key]:
    """All keys that count, without secrets."""
    return [key for key, _ in _read(store) if key.scopes]


def had_keys(store: Store) -> bool:
    """Was any key ever made, whether or not it counts still?"""
    return bool(_read(store))


class Keyring:
    """The store's keys in memory, at most two seconds old; none is read in the event loop.

    Parameters
    ----------
    asked : is a key asked for? None: unless none was ever made for this store
    """

    def __init__(self, store: Store, asked: bool | None = True) -> None:
        self._store, self._asked = store, asked
        self._known: dict[str, tuple[Key, str]] = {}
        self._read_at = -_RELOAD
        self._reading: asyncio.Future[None] | None = None

    async def key_of(self, text: str) -> Key | None:
        """The key that this text is, `OPEN` where none is asked for, or None.

        Raises
        ------
        StoreUnavailable
            If the keys are too old to be trusted, and can't be read.
        """
        if self._asked is False:
            return OPEN
        await self._refresh()
        if self._asked is None and not self._known:
            return OPEN
        _, _, rest = text.partition("rr_")
        identity, _, secret = rest.partition("_")
        key, stored = self._known.get(identity, (None, _NO_HASH))
        right = hmac.compare_digest(_hash(secret), stored)  # also for unknown keys: same time
        return key if right and secret else None

    async def _refresh(self) -> None:
        """Read the keys: beside the answers while those here are still good, else before this one."""
        age = time.monotonic() - self._read_at
        if age < _RELOAD / 2:
            return
        if self._reading is None or self._reading.done():
            loop = asyncio.get_running_loop()
            self._reading = loop.run_in_executor(None, self._read)
            self._reading.add_done_callback(_looked_at)
        if age >= _RELOAD:
            try:
                await asyncio.wait_for(asyncio.shield(self._reading), self._store.timeout)
            except TimeoutError as error:
                raise StoreUnavailable(
                    f"store {self._store.name} does not say which keys count. Check the database and "
                    f"try again."
                ) from error

    def _read(self) -> None:
        now = time.monotonic()
        self._known = {key.id: (key, stored) for key, stored in _read(self._store)}
        if self._known:
            self._asked = True  # for good, whatever store is put in this one's place
        self._read_at = now


def _looked_at(reading: asyncio.Future[None]) -> None:
    """Take the error of a read that no request waits for: the next one says it, if it stays."""
    if not reading.cancelled():
        reading.exception()


def text_of(authorization: str, api_key: str = "") -> str:
    """The key in the headers of a request: `Bearer KEY`, the password of `Basic`, or `X-API-Key`."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip()
    if kind.lower() == "basic":
        try:
            decoded = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, ValueError):
            return ""
        return decoded.partition(":")[2]
    return api_key.strip()


class RateLimit:
    """Token buckets: so many requests a second each, twice as many at once.

    Parameters
    ----------
    rate : requests a second; 0 does not limit
    most : callers that are kept in memory
    """

    def __init__(self, rate: float, most: int = 10_000) -> None:
        self.rate = rate
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(most)  # tokens, when
        self._lock = Lock()

    def wait(self, caller: str, now: float | None = None) -> float:
        """Seconds until the caller may ask; 0: now, and the request is counted."""
        if not self.rate:
            return 0.0
        now = time.monotonic() if now is None else now
        burst = max(2 * self.rate, 1.0)
        with self._lock:
            tokens, then = self._buckets.pop(caller, (burst, now))
            tokens = min(burst, tokens + (now - then) * self.rate)
            wait = 0.0 if tokens >= 1 else (1 - tokens) / self.rate
            self._buckets[caller] = (tokens - (not wait), now)
        return wait


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def _read(store: Store) -> list[tuple[Key, str]]:
    with store.reader() as connection:
        rows = connection.execute(select(schema.keys).order_by(schema.keys.c.made)).all()
    return [(Key(r.id, r.name, frozenset(r.scopes.split())), r.hash) for r in rows]

"""Hot shoppers in memory: bounded by lines, the least recently asked for goes first."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from cachetools import LRUCache

from retailrec.serving.served_model import CodedEvents

Key = tuple[str, str]  # shopper, model's digest


class _Entry(NamedTuple):
    label: tuple[object, ...]
    events: CodedEvents


class HotShoppers:
    """Coded events of the shoppers asked for last.

    An entry counts only under the label that it was stored with (the shopper's version in the store),
    so a receipt that any process stores makes it useless at once.

    Parameters
    ----------
    most_lines : receipt lines that may be kept; 36 bytes each
    """

    def __init__(self, most_lines: int = 2_000_000) -> None:
        self._entries: LRUCache[Key, _Entry] = LRUCache(most_lines, _size)
        self._lock = Lock()
        self.hits = self.misses = 0

    def get(self, key: Key, label: tuple[object, ...]) -> CodedEvents | None:
        """The events, if they are here under this label."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.label != label:
                self.misses += 1
                return None
            self.hits += 1
            return entry.events

    def put(self, key: Key, label: tuple[object, ...], events: CodedEvents) -> None:
        """Keep the events, and let go of others if there are too many."""
        entry = _Entry(label, events)
        with self._lock:
            self._entries.pop(key, None)
            if _size(entry) <= self._entries.maxsize:
                self._entries[key] = entry

    def forget(self, gone: Callable[[str], bool]) -> int:
        """Let go of shoppers; number of histories that were kept."""
        with self._lock:
            found = list(self._entries)
        dropped = [key for key in found if gone(key[0])]
        with self._lock:
            for key in dropped:
                self._entries.pop(key, None)
        return len(dropped)

    def clear(self) -> None:
        """Let go of everybody."""
        with self._lock:
            self._entries.clear()

    @property
    def lines(self) -> int:
        """Lines kept now."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)


def _size(entry: _Entry) -> int:
    return len(entry.events.item) + 10  # what an entry takes beside its lines

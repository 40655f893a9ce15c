"""Signals that end a command: what is half-written goes, one sentence is printed, the status tells."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # the last is not known on Windows


class Interrupted(BaseException):
    """Someone ended the command; no `except Exception` on the way up holds it."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        self.name = signal.Signals(number).name


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` at the first signal within; a second one ends the process at once.

    A signal that the caller lets pass, as `nohup` does with SIGHUP, stays so.
    """
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    ours = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) != signal.SIG_IGN}

    def stop(number: int, _: Any) -> None:
        for known in ours:
            signal.signal(known, signal.SIG_DFL)
        raise Interrupted(number)

    for number in ours:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in ours.items():
            signal.signal(number, before)

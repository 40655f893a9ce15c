"""One process at a time in a folder, by a lock that ends with the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retailrec.errors import DataError


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make `folder` and hold it; the lock is the system's, on the folder itself, so no file is left.

    Where the system or the disk knows no such locks, nothing is held. With `wait`, whoever comes second
    waits until the first lets go.

    Raises
    ------
    DataError
        If another process holds it, unless `wait`.
    """
    held = _hold(folder, wait)
    try:
        yield
    finally:
        if held is not None:
            os.close(held)


def hold_file(descriptor: int, path: Path, *, wait: bool = False) -> None:
    """Hold an open file until it is closed; where the system knows no such locks, nothing is held.

    Raises
    ------
    DataError
        If another process holds it, unless `wait`.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        raise DataError(
            f"another process is writing to {path}; wait until it ends, or name another place."
        ) from error
    except OSError:  # a disk without locks
        return


def _hold(folder: Path, wait: bool) -> int | None:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            held = os.open(folder, os.O_RDONLY)
        except PermissionError:  # Windows opens no folders
            return None
        try:
            hold_file(held, folder, wait=wait)
        except DataError:
            os.close(held)
            raise
        if folder.exists() and os.path.samestat(os.fstat(held), folder.stat()):
            return held
        os.close(held)  # the holder before us put another folder in its place

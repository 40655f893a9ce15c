"""Write aside and then replace: a reader sees the old file or the new one, whenever a process ends."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import polars as pl

from retailrec.errors import DataError

_OURS = ".partial-"  # then the process that writes, then the name
_OUR_FOLDER = re.compile(r"[0-9a-f]{16}")


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet or CSV, by the ending, in one step.

    Raises
    ------
    DataError
        If the ending is unknown or the file can't be written.
    """
    if path.suffix not in (".parquet", ".csv"):
        raise DataError(f"{path} must end in .parquet or .csv.")
    with whole_file(path) as partial:
        if path.suffix == ".parquet":
            frame.write_parquet(partial)
        else:
            frame.write_csv(partial)


def write_text(text: str, path: Path) -> None:
    """Write a text file in one step.

    Raises
    ------
    DataError
        If it can't be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside `path` that takes its place when all is written, and else goes.

    Raises
    ------
    DataError
        If it can't be written: no such folder, no right, no room.
    """
    try:
        path.name.encode()  # libraries take text for a path
    except UnicodeEncodeError as error:
        raise DataError(f"{str(path)!r} can't be written: {error}. Name another file.") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_partials(path.parent)
        with replaced(path) as partial:
            yield partial
    except (OSError, pl.exceptions.ComputeError) as error:
        raise DataError(f"{path} can't be written: {error}.") from error


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """As `whole_file`, in a folder that is there; errors are the system's own."""
    partial = path.with_name(f"{_OURS}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        with suppress(OSError):  # it never came to be where the folder is none
            partial.unlink(missing_ok=True)


@contextmanager
def folder_aside(place: Path) -> Iterator[Path]:
    """A new folder in `place` for what shall be moved elsewhere when it is complete; what is left goes.

    Others are let in by the user's umask, as they are to folders that `mkdir` makes.
    """
    clear_partials(place)
    aside = place / f"{_OURS}{os.getpid()}-{secrets.token_hex(8)}"
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_partial(path: Path) -> bool:
    """Has the file or folder a name that only half-written ones have?"""
    return path.name.startswith(_OURS)


def clear_partials(folder: Path) -> None:
    """Remove what processes that are gone, killed in the middle of writing, left half-written."""
    for path in folder.glob(f"{_OURS}*-*"):
        owner, name = path.name.split("-", 2)[1:]
        if path.is_symlink() or (path.is_dir() and not _OUR_FOLDER.fullmatch(name)):
            continue  # somebody else's, whatever it is called
        if owner.isdecimal() and not _is_alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OverflowError:  # no number of a process, so no name of ours
        return True
    except PermissionError:
        pass
    return True

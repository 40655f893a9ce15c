"""Paths that are to be read: looked at first; files of a folder that hold lines; settings in TOML."""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from retailrec.errors import DataError, SettingError
from retailrec.work import require_here

_MOST_BYTES = 16_000_000  # of settings; a path may name something endless
_MOST_DEPTH = 20  # of tables in each other; whatever shows or copies them goes as deep


def read_toml(path: Path, *, who: str) -> dict[str, Any]:
    """The tables of a TOML file in UTF-8, with or without a byte order mark.

    Raises
    ------
    SettingError
        If it is no regular file, can't be opened, is far too large for settings, or no TOML.
    """
    shown = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}..."
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            kind = "a folder" if stat.S_ISDIR(facts.st_mode) else "a device or pipe"
            raise SettingError(f"{who} {shown} can't be read: it is {kind}; name a TOML file.")
        if facts.st_size > _MOST_BYTES:
            raise SettingError(
                f"{who} {shown} can't be read: it has {facts.st_size:,} bytes, at most {_MOST_BYTES:,} "
                f"are expected of settings. Name a TOML file."
            )
        found = tomllib.loads(path.read_bytes().decode("utf-8-sig"))
        if _is_deep(found):
            raise SettingError(
                f"{who} {shown} can't be read: tables are nested deeper than {_MOST_DEPTH}, which no "
                f"settings are. Correct it."
            )
        return found
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingError(f"{who} {shown} is no valid TOML: {error}. Correct it.") from error
    except OSError as error:
        raise SettingError(
            f"{who} {shown} can't be read: {error.strerror or error}. Check the path."
        ) from error
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"{who} {shown!r} can't be read: {error}. Check the path.") from error


def _is_deep(table: Any) -> bool:
    """Is anything nested too deep? Looked at level by level, since going down would not come back."""
    level = [table]
    for _ in range(_MOST_DEPTH):
        parts = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for part in parts for inner in part if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz")
PARQUET, EXCEL = (".parquet", ".pq"), (".xlsx",)
_READ = CSV + PARQUET + EXCEL
# what may hold lines of the table too, but is not read
_UNREAD = (
    *(".gz", ".zst", ".bz2", ".xz", ".lz4", ".snappy", ".zip", ".7z", ".rar", ".xls", ".xlsb"),
    *(".xlsm", ".ods", ".jsonl", ".ndjson", ".feather", ".arrow", ".ipc", ".orc", ".avro", ".dta"),
    *(".sav", ".sas7bdat"),
)
_VERSIONED = {"_delta_log": "Delta Lake", ".hoodie": "Apache Hudi"}
# how Spark and others begin names of files that hold no lines, and Excel beside an open workbook
NOT_DATA = (".", "_", "~$")


def mode_of(path: Path) -> int:
    """What kind of thing stands at a path, as `os.stat` says it; 0 where there is nothing.

    Raises
    ------
    DataError
        If it can't be looked at: the path is too long or no path, or the right is missing.
    """
    try:
        str(path).encode()  # libraries take text for a path
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        shown = str(path) if len(str(path)) < 200 else f"{str(path)[:80]}..."
        raise DataError(
            f"{shown!r} can't be opened: {reason}. Name a file that can be read."
        ) from error


def find_file(folder: Path, *names: str) -> Path | None:
    """The first of `names` (compared without case, any known ending) that stands in `folder`.

    It may be a folder of parts, as Spark and others write one table.

    Raises
    ------
    DataError
        If the folder can't be looked at, or the same name stands there with two endings.
    """
    if not stat.S_ISDIR(mode_of(folder)):
        return None
    present = {p.name.lower(): p for p in _inside(folder) if p.is_file() or _parts(p)}
    for name in names:
        found = [present[name.lower() + e] for e in ("", *_READ) if name.lower() + e in present]
        if len(found) > 1:
            raise DataError(
                f"{folder} holds {found[0].name} and {found[1].name}, and it can't be told which is "
                f"meant; move one of them away."
            )
        if found:
            return found[0]
    return None


def others_in(folder: Path, read: Iterable[Path]) -> list[Path]:
    """What stands in a folder and may hold lines, beside what is read."""
    known = set(read)
    ends = (*_READ, *_UNREAD)
    return [
        entry
        for entry in _inside(folder)
        if entry not in known and (entry.name.lower().endswith(ends) or bool(_parts(entry)))
    ]


def data_files(path: Path) -> list[Path]:
    """The file itself, or every data file in the folder, in order of name.

    Where none lies right in the folder, those in the folders of its partitions (``month=1``) are meant.
    Files of no bytes and what Spark writes beside its parts are no data.

    Raises
    ------
    DataError
        If nothing is there, it is no regular file or can't be looked at, the folder holds no file that
        can be read, or beside them something else that may hold lines.
    """
    kind = mode_of(path)
    if not kind:
        require_here(path)
        raise DataError(f"there is no file or folder at {path}; check the path.")
    if stat.S_ISREG(kind):
        return [path]
    if not stat.S_ISDIR(kind):
        raise DataError(f"{path} is no file but a device or pipe; name a file or a folder of files.")
    refuse_versions(path, lambda mark: (path / mark).is_dir())
    files = _parts(path)
    if not files:
        raise DataError(
            f"folder {path} holds no data file; expected names ending in {', '.join(_READ)}. Name the "
            f"folder that holds the receipts."
        )
    for folder in dict.fromkeys([path, *(p.parent for p in files)]):
        _refuse_others(folder, files)
    for file in files:
        mode_of(file)
    return files


def without_bytes(path: Path) -> list[Path]:
    """Data files of a folder, or of its partitions, that hold nothing: exports that failed."""
    if not path.is_dir():
        return []
    folders = sorted({path, *(file.parent for file in data_files(path))})
    found = (p for folder in folders for p in _inside(folder) if p.name.lower().endswith(_READ))
    return [p for p in found if p.is_file() and not p.stat().st_size]


def refuse_versions(folder: object, holds: Callable[[str], bool]) -> None:
    """Raise a DataError if a folder is a table of a format that keeps the lines that were removed."""
    for mark, program in _VERSIONED.items():
        if holds(mark):
            raise DataError(
                f"folder {folder} is a table of {program}, whose files also hold lines that were "
                f"removed; export what it holds now to plain Parquet files."
            )


def _inside(folder: Path) -> list[Path]:
    """What stands in a folder, but for what is hidden or no data by its name."""
    try:
        return sorted(p for p in folder.iterdir() if not p.name.startswith(NOT_DATA))
    except OSError as error:
        raise DataError(f"folder {folder} can't be opened: {error.strerror}.") from error


def _parts(folder: Path) -> list[Path]:
    """Data files of a folder: right in it, or else in its partitions."""
    if not folder.is_dir():
        return []
    inside = _inside(folder)
    files = [p for p in inside if p.name.lower().endswith(_READ) and p.is_file()]
    deeper = [p for p in inside if p.is_dir() and "=" in p.name]
    if files and deeper:
        raise DataError(
            f"folder {folder} holds files ({files[0].name}) beside partitions ({deeper[0].name}); it "
            f"can't be told which of them are the table. Name one of them."
        )
    found = files or [file for part in deeper for file in _parts(part)]
    return [p for p in found if p.stat().st_size] or found[:1]


def _refuse_others(folder: Path, files: list[Path]) -> None:
    """Raise if a folder holds what may be lines of the table too and would be passed over."""
    for entry in _inside(folder):
        if entry.is_file():
            unread = entry.name.lower().endswith(_UNREAD) and not entry.name.lower().endswith(_READ)
            cure = "Unpack or convert it"
        elif not entry.is_dir():  # a pipe, or a link to what is not there now
            unread = entry.name.lower().endswith((*_READ, *_UNREAD))
            cure = "Mend the link, or copy the file here"
        else:
            unread = "=" not in entry.name and bool(_parts(entry))
            cure = "Name the folder of the one table"
        if unread:
            raise DataError(
                f"folder {folder} holds {entry.name} beside {files[0].name}; it may have lines of the "
                f"table, but would not be read. {cure}, or move it away."
            )

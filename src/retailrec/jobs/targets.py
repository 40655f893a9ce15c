"""The one door for places to write to: looked at before any work, and replaced whole.

A folder of results carries ``.retailrec``, the list of the files that were written there. Only what
stands on that list, or is a saved model, is ever replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from retailrec.errors import DataError

MARKER = ".retailrec"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def check_target(out: Path, names: Iterable[str]) -> None:
    """Can a job write the entries `names` to the folder `out`, and would it replace its own only?

    Raises
    ------
    DataError
        If `out` is a link or no folder, can't be written to, or holds one of `names` from elsewhere.
    """
    with _in_words(out):
        if out.is_symlink():
            raise DataError(f"--out {out} is a link; name the folder itself.")
        if out.exists() and not out.is_dir():
            raise DataError(f"--out {out} is a file; name a folder.")
        _require_writable(out)
        listed = _listed(out)
        for name in names:
            if (stranger := _stranger(out / name, out, listed)) is not None:
                raise DataError(
                    f"{stranger} was not written by retailrec and would be replaced; "
                    f"move it away or name another folder than {out}."
                )


def check_file(path: Path | None) -> None:
    """Refuse a file that can't be written; None is no file.

    Raises
    ------
    DataError
        If it is a folder or link, or its folder can't be written to.
    """
    if path is None:
        return
    with _in_words(path):
        if path.is_symlink():
            raise DataError(f"{path} is a link; name the file itself.")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} can't be written: it is no file. Name another.")
        _require_writable(path.parent)


def replace_results(staging: Path, out: Path, names: Iterable[str]) -> None:
    """Put the entries of `staging` in the place of `names` in `out`, in one step where that can be.

    What else lies in `out` stays: it is linked into the new folder, which then changes places with the
    old one. A folder that can't change places, such as the one we stand in, is filled entry by entry.

    Raises
    ------
    DataError
        As `check_target`.
    """
    new = [p.name for p in staging.iterdir()]
    gone = {*names, *new, MARKER}
    check_target(out, gone - {MARKER})
    kept = {f for f in _listed(out) if Path(f).parts[0] not in gone}
    (staging / MARKER).write_text(json.dumps(sorted(kept | _files(staging)), indent=1) + "\n")
    if staging.parent == out or out.resolve() in (Path.cwd(), *Path.cwd().parents):
        _fill(staging, out, gone)
        return
    shutil.copymode(out, staging)
    for entry in out.iterdir():
        if entry.name not in gone:
            _link(entry, staging / entry.name)
    if not _exchanged(staging, out):
        for entry in out.iterdir():
            if entry.name not in gone:
                _remove(staging / entry.name)
        _fill(staging, out, gone)
        return
    for entry in staging.iterdir():  # now the old folder; what came into it meanwhile moves over
        if entry.name not in gone and not os.path.lexists(out / entry.name):
            os.replace(entry, out / entry.name)


def _fill(staging: Path, out: Path, gone: set[str]) -> None:
    """Entry by entry: the old ones aside, the new ones in; all goes back if one fails."""
    aside = staging / ".replaced"
    aside.mkdir()
    new = [p for p in staging.iterdir() if p != aside]
    try:
        for name in gone:
            if os.path.lexists(out / name):
                os.replace(out / name, aside / name)
        for entry in new:
            os.replace(entry, out / entry.name)
    except BaseException:
        for old in aside.iterdir():
            _remove(out / old.name)
            os.replace(old, out / old.name)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change places in one step; False where the system can't."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _link(entry: Path, place: Path) -> None:
    """The entry once more, without a copy where the disk allows."""
    if entry.is_dir() and not entry.is_symlink():
        shutil.copytree(entry, place, symlinks=True, copy_function=_link_file)
    else:
        _link_file(entry, place)


def _link_file(source: str | Path, place: str | Path) -> None:
    try:
        os.link(source, place, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, place, follow_symlinks=False)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _listed(out: Path) -> set[str]:
    """What our own list says was written to `out`."""
    try:
        names = json.loads((out / MARKER).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return set()
    whole = isinstance(names, list) and all(isinstance(n, str) and n for n in names)
    return set(names) if whole else set()


def _files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir()}


def _stranger(entry: Path, out: Path, listed: set[str]) -> Path | None:
    """A file of the entry that is not ours, or None."""
    if not os.path.lexists(entry):
        return None
    if entry.is_symlink() or not entry.is_dir():
        return None if entry.name in listed and not entry.is_symlink() else entry
    if (entry / "manifest.json").is_file():
        from retailrec.recommender.artifact import may_be_saved_to

        if may_be_saved_to(entry):
            return None
    found = (p for p in entry.rglob("*") if p.is_symlink() or not p.is_dir())
    return next((p for p in found if p.relative_to(out).as_posix() not in listed), None)


def _require_writable(folder: Path) -> None:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, so nothing can be written below it; name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder} can't be written to: no permission. Name another place.")


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """What the system says about a path, as a sentence."""
    try:
        str(path).encode()  # libraries take text for a path
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # complains of what `exists` takes for absence, such as too long a name
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        long = getattr(error, "errno", None) == errno.ENAMETOOLONG
        shown = f"{str(path)[:80]}..." if long else str(path)
        raise DataError(f"{shown!r} can't be written to: {reason}. Name another place.") from error

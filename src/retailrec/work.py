"""Unfinished work and results: written aside, held by one process, told apart by plan, replaced whole.

Three things, for every job that takes long or writes files:

- *Files and folders appear whole.* `whole_file`, `write_text`, `write_frame` and `folder_aside` write
  beside the target; a reader sees the old file or the new one, whenever a process ends.
- *Results replace results only.* `check_file` and `check_folder` look at a command's targets before
  any work, `result_file` and `staged` put them in place. A folder with results holds ``.retailrec``,
  the sums of what was written there; a file whose content is not on that list was not written by us,
  or was changed since, and stays. An input is never replaced.
- *Parts of a long job are kept.* `Work` holds a folder of parts, each beside its proof, for one plan;
  a rerun of the same plan takes over what is whole. `Storage` says how, here on a disk
  (`LocalStorage`), for Spark where its files lie (`spark/storage.py`).

New files are readable by their owner alone (0600, folders 0700), saved models by the umask; what is
replaced keeps its mode.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from retailrec.errors import DataError, SettingError

if TYPE_CHECKING:
    import polars as pl

MARKER = ".retailrec"
_PARTIAL = ".partial-"  # then what `_OUR_PARTIAL` says: digits drawn by lot, and of a file the name
_OUR_PARTIAL = re.compile(rf"{re.escape(_PARTIAL)}[0-9a-f]{{16}}(-.+)?", re.DOTALL)
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_OURS_ALONE = 0o700
_NEW_FILE = os.O_CREAT | os.O_EXCL | os.O_WRONLY  # where a link stands, none is made
_DATA_FOLDER = re.compile(r"data-[0-9a-f]{16}")
_NOT_OURS = (
    "{} was not written by retailrec, or was changed since, and would be replaced; move it away, name "
    "another place, or say --overwrite."
)


# --- files and folders that appear whole ---------------------------------------------------------


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as Parquet or CSV, by the ending, in one step.

    Raises
    ------
    DataError
        If the ending is unknown or the file can't be written.
    """
    require_ending(path)
    with whole_file(path) as partial:
        _put_frame(frame, partial)


def write_text(text: str, path: Path) -> None:
    """Write a text file in one step.

    Raises
    ------
    DataError
        If it can't be written.
    """
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON with a line end; NaN is refused, what JSON does not know becomes text."""
    text = json.dumps(value, indent=2, allow_nan=False, default=str) + "\n"
    path.write_text(text, encoding="utf-8")


def write_result(content: str | Mapping[str, Any] | pl.DataFrame, path: Path) -> None:
    """Write a text, figures as `write_json`, or a frame as Parquet or CSV; what is replaced was ours.

    Raises
    ------
    DataError
        As `result_file`, or if the ending of a frame's file is unknown.
    """
    if not isinstance(content, str | Mapping):
        require_ending(path)
    with result_file(path) as partial:
        if isinstance(content, str):
            partial.write_text(content, encoding="utf-8")
        elif isinstance(content, Mapping):
            write_json(partial, content)
        else:
            _put_frame(content, partial)


def require_ending(path: Path) -> None:
    """Raise a DataError if a file of a frame would be neither Parquet nor CSV."""
    if path.suffix not in (".parquet", ".csv"):
        raise DataError(f"{path} must end in .parquet or .csv.")


def _put_frame(frame: pl.DataFrame, file: Path) -> None:
    (frame.write_parquet if file.suffix == ".parquet" else frame.write_csv)(file)


@contextmanager
def whole_file(path: Path, before: Callable[[Path], None] = lambda partial: None) -> Iterator[Path]:
    """A file beside `path` that takes its place when all is written, and else goes.

    `before` is called with it when it is written.

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
        make_folder(path.parent)
        clear_partials(path.parent)
        with replaced(path, before) as partial:
            yield partial
    except Exception as error:
        # what Polars raises for a full disk; not imported for it, since commands begin with this module
        if not isinstance(error, OSError) and type(error).__name__ != "ComputeError":
            raise
        raise DataError(f"{path} can't be written: {error}.") from error


@contextmanager
def replaced(
    path: Path, before: Callable[[Path], None] = lambda partial: None, mode: int = 0o600
) -> Iterator[Path]:
    """As `whole_file`, in a folder that is there; errors are the system's own."""
    partial, held = path.with_name(f"{_new_partial()}-{path.name}"), None
    try:
        held = _hold(partial, lambda file: os.close(os.open(file, _NEW_FILE, mode)), wait=True)
        yield partial
        with open(partial, "rb+") as written:  # or after a loss of power the name is there alone
            os.fsync(written.fileno())
        with suppress(FileNotFoundError):
            os.chmod(partial, stat.S_IMODE(path.stat().st_mode))
        before(partial)
        os.replace(partial, path)
    finally:
        _let_go(held)
        with suppress(OSError):  # it never came to be where the folder is none
            partial.unlink(missing_ok=True)


@contextmanager
def folder_aside(place: Path, mode: int = 0o777) -> Iterator[Path]:
    """A new folder in `place` for what is moved elsewhere when it is complete; what is left goes."""
    clear_partials(place)
    aside = place / _new_partial()
    held = _hold(aside, lambda folder: folder.mkdir(mode), wait=True)
    try:
        yield aside
    finally:
        _let_go(held)
        shutil.rmtree(aside, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it that are missing, all for their owner alone."""
    if not folder.is_dir():
        require_here(folder)
        make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir(_OURS_ALONE)
        if not folder.is_dir():
            folder.mkdir()  # says what is in the way


def take_modes(new: Path, old: Path, mode: int = _OURS_ALONE) -> None:
    """Let an entry, and all in it, have the modes of what it replaces; what is new, that of `mode`."""
    if new.is_symlink():
        return
    if new.is_dir():
        mode = stat.S_IMODE(old.stat().st_mode) if old.is_dir() else mode
        new.chmod(mode)
        for entry in new.iterdir():
            take_modes(entry, old / entry.name, mode)
    else:
        new.chmod(stat.S_IMODE(old.stat().st_mode) if old.is_file() else mode & 0o666)


def is_partial(path: Path) -> bool:
    """Has the file or folder a name that only half-written ones have?"""
    return path.name.startswith(_PARTIAL)


def clear_partials(folder: Path) -> None:
    """Remove what was left half-written by processes that are gone: what none holds, on any machine."""
    for path in folder.glob(f"{_PARTIAL}*"):
        ours = _OUR_PARTIAL.fullmatch(path.name)
        if not ours or path.is_symlink() or path.is_dir() == bool(ours[1]):
            continue  # somebody else's, whatever it is called
        with suppress(OSError):  # another user's, or gone
            held = _opened(path)
            try:
                if _flock(held):
                    _remove(path)
            finally:
                os.close(held)


def _new_partial() -> str:
    return f"{_PARTIAL}{secrets.token_hex(8)}"


# --- one process at a time ------------------------------------------------------------------------


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
    held = _hold(folder, make_folder, wait=wait)
    try:
        yield
    finally:
        _let_go(held)


def _hold(path: Path, make: Callable[[Path], object], *, wait: bool) -> int | None:
    """Make a file or folder and hold it until `_let_go`; None where the system knows no such locks."""
    while True:
        make(path)
        if os.name != "posix":
            return None
        held = _opened(path)
        if _flock(held, wait=wait) is False:
            os.close(held)
            raise DataError(
                f"another process is writing to {path}; wait until it ends, or name another place."
            )
        if path.exists() and os.path.samestat(os.fstat(held), path.stat()):
            return held
        os.close(held)  # the holder before us removed it, or put another in its place


def _let_go(held: int | None) -> None:
    if held is not None:
        os.close(held)


def _opened(path: Path) -> int:
    """Opened so that it can be held; a network disk wants a file open for writing for that."""
    return os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)


def _flock(descriptor: int, *, wait: bool = False) -> bool | None:
    """Hold an open file until it is closed; False if another process does, None without locks."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a disk without locks
        return None
    return True


# --- results: what may be replaced ----------------------------------------------------------------


def check_file(
    path: Path | None, *, inputs: Iterable[Path | None] = (), overwrite: bool = False
) -> None:
    """Refuse a target that can't be written, is an input, or is a file of others; None is no file.

    Parameters
    ----------
    inputs : files and folders that the command reads; none of them is ever replaced, nor a file put
        into one of the folders
    overwrite : take for ours what stands there

    Raises
    ------
    DataError
        If it is an input, a folder or link, can't be written, or was not written by us.
    """
    if path is None:
        return
    with _in_words(path):
        if path.is_symlink():
            raise DataError(f"{path} is a link; name the file itself.")
        if path.exists() and not path.is_file():
            raise DataError(f"{path} can't be written: it is no file. Name another.")
        _require_writable(path.parent)
        refuse_inputs(path, inputs)
        if overwrite:
            _adopt(path.parent, [path])
        _refuse_stranger(path)


def check_folder(
    out: Path, names: Iterable[str], *, inputs: Iterable[Path | None] = (), overwrite: bool = False
) -> None:
    """Refuse a folder in which the entries `names` can't be written, are inputs, or are of others.

    Parameters
    ----------
    inputs, overwrite : as of `check_file`

    Raises
    ------
    DataError
        If `out` is a link, no folder or an input, can't be written to, or holds one of `names` that is
        an input or was not written by us.
    """
    names = tuple(names)
    with _in_words(out):
        if out.is_symlink():
            raise DataError(f"--out {out} is a link; name the folder itself.")
        if out.exists() and not out.is_dir():
            raise DataError(f"--out {out} is a file; name a folder.")
        _require_writable(out)
        for given in _existing(inputs):
            if out.exists() and out.samefile(given):
                raise DataError(
                    f"{out} is an input of the same command; name another folder for results."
                )
            lies_in = [given.absolute().resolve(), *given.absolute().resolve().parents]
            for name in names:
                if (out / name).exists() and any(
                    place.exists() and place.samefile(out / name) for place in lies_in
                ):
                    raise DataError(
                        f"{out / name} would be replaced, and {given} is an input of the same command; "
                        f"name another folder for results than {out}."
                    )
        if overwrite:
            _adopt(out, [f for name in names for f in _files(out / name)])
        sums = _recorded(out)
        for name in names:
            if (stranger := _stranger(out / name, out, sums)) is not None:
                raise DataError(_NOT_OURS.format(stranger))


def require_apart(*targets: Path | None) -> None:
    """Raise a SettingError if one of the results of a command would take the place of another one."""
    places: dict[Path, Path] = {}
    for target in filter(None, targets):
        place = target.absolute().resolve()
        for other, called in places.items():
            if place.is_relative_to(other) or other.is_relative_to(place):
                raise SettingError(
                    f"{target} is named for two results, also as {called}; name two files."
                )
        places[place] = target


def refuse_inputs(path: Path, inputs: Iterable[Path | None]) -> None:
    """Raise a DataError if a path is one of the inputs, by whatever name, or would become part of one.

    Of a folder all files are inputs that we did not write, and so would be a new one right in it or in
    one of its partitions (``month=1``).
    """
    place = path.absolute().resolve()
    for given in _existing(inputs):
        if path.exists() and path.samefile(given):
            raise DataError(f"{path} is an input of the same command; name another place to write.")
        for up, folder in enumerate(place.parents if given.is_dir() else ()):
            if folder.exists() and folder.samefile(given):
                between = place.parts[len(place.parts) - 1 - up : -1]
                strange = path.is_file() and _stranger(path, path.parent, _recorded(path.parent))
                if strange or all("=" in part for part in between):
                    raise DataError(
                        f"{path} lies in {given}, which is an input of the same command; name another "
                        f"place to write."
                    )


@contextmanager
def result_file(path: Path) -> Iterator[Path]:
    """As `whole_file`, for a command's result: it replaces what was written by us only.

    Raises
    ------
    DataError
        If it can't be written, or another file stands there.
    """

    def claim(partial: Path) -> None:
        _refuse_stranger(path)
        _record(path.parent, {path.name: sha256(partial)})  # and the old one's, until it is replaced

    with whole_file(path, claim) as partial:
        yield partial


@contextmanager
def staged(out: Path, names: Iterable[str] = ()) -> Iterator[Path]:
    """A folder aside; its entries take the place of `names` in `out` only if nothing fails.

    A process that is killed leaves the results of before or the new ones; where something else lies in
    `out`, that holds for each entry. `out` is held meanwhile: a second process is refused.

    Raises
    ------
    DataError
        If `out` can't be written to, holds one of `names` that is not ours, or is being written to.
    """
    out, names = Path(out), tuple(names)
    check_folder(out, names)
    made = not out.exists()
    try:
        with locked(out):
            made = made or not any(out.iterdir())
            same_disk = out.stat().st_dev == out.parent.stat().st_dev
            place = out.parent if same_disk and os.access(out.parent, os.W_OK) else out
            try:
                with folder_aside(place, _OURS_ALONE) as staging:
                    yield staging
                    _replace_results(staging, out, names)
            except BaseException:
                if made and not any(out.iterdir()):
                    shutil.rmtree(out, ignore_errors=True)
                raise
    except Exception as error:
        # what Polars raises for a full disk; not imported for it, since commands begin with this module
        full = type(error).__name__ == "ComputeError" and "(os error" in str(error)
        if not full and not isinstance(error, OSError):
            raise
        raise DataError(f"results can't be written to {out}: {error}.") from error


def _replace_results(staging: Path, out: Path, names: Iterable[str]) -> None:
    """Put the entries of `staging` in the place of `names` in `out`.

    A folder that holds nothing else changes places with `staging` in one step. One in which something
    else lies, which may be in use, such as a store with its log, or in which we stand stays and is
    filled entry by entry.
    """
    gone = {*names, *(p.name for p in staging.iterdir()), MARKER}
    check_folder(out, gone - {MARKER})
    for entry in staging.iterdir():
        if not (entry / "manifest.json").is_file():  # a model is to be served, by the umask
            take_modes(entry, out / entry.name)
    shutil.copymode(out, staging)
    new = {f.relative_to(staging).as_posix(): sha256(f) for f in _files(staging)}
    stays = staging.parent == out or any(entry.name not in gone for entry in out.iterdir())
    with suppress(FileNotFoundError):  # the current folder was removed
        stays = stays or out.resolve() in (Path.cwd(), *Path.cwd().parents)
    _put_sums(staging / MARKER, {name: [digest] for name, digest in new.items()})
    if stays or not _exchanged(staging, out):
        _record(out, new)
        _fill(staging, out, gone - {MARKER})
        return
    for entry in staging.iterdir():  # now the old folder; what came into it meanwhile moves over
        if entry.name not in gone:
            os.replace(entry, out / entry.name)


def _fill(staging: Path, out: Path, gone: set[str]) -> None:
    """Entry by entry, each in one step where that can be; all goes back if one fails."""
    aside = staging / ".replaced"
    aside.mkdir()
    kept: dict[Path, Path] = {}  # where an old entry is now -> its place
    try:
        for name in sorted(gone):
            new, place = staging / name, out / name
            if os.path.lexists(new) and os.path.lexists(place) and _exchanged(new, place):
                kept[new] = place
                continue
            if os.path.lexists(place):
                os.replace(place, aside / name)
                kept[aside / name] = place
            if os.path.lexists(new):
                os.replace(new, place)
    except BaseException:
        for old, place in kept.items():
            _remove(place)
            os.replace(old, place)
        raise


def _exchanged(one: Path, other: Path) -> bool:
    """Let two files or folders change places in one step; False where the system can't."""
    call = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    if call is None:
        return False
    return bool(call(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def linked(entry: Path, place: Path) -> None:
    """Put a file or folder at another place too, without a copy where the disk allows."""
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


def _files(entry: Path) -> Iterator[Path]:
    """The entry if it is a file or link, else all files and links below it."""
    if entry.is_symlink() or not entry.is_dir():
        return iter([entry] if os.path.lexists(entry) else [])
    return (p for p in entry.rglob("*") if p.is_symlink() or not p.is_dir())


def _recorded(folder: Path) -> dict[str, list[str]]:
    """Path -> sums of what we wrote to a folder; no sum where version 0.2 wrote, which kept names."""
    try:
        found, _ = json.JSONDecoder().raw_decode((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    if isinstance(found, list):
        found = {name: [] for name in found if isinstance(name, str)}
    whole = isinstance(found, dict) and all(isinstance(sums, list) for sums in found.values())
    return found if whole else {}


def _put_sums(marker: Path | int, sums: Mapping[str, list[str]]) -> None:
    text = json.dumps(dict(sorted(sums.items())), indent=1) + "\n"
    if isinstance(marker, Path):
        marker.touch(0o600)
        marker.write_text(text, encoding="utf-8")
        return
    os.lseek(marker, 0, os.SEEK_SET)
    os.write(marker, text.encode())  # killed here, what is left behind it is passed over
    os.ftruncate(marker, len(text.encode()))


def _record(folder: Path, new: Mapping[str, str]) -> None:
    """Add the sums of files that are about to stand in a folder; those that stand there count too."""
    held = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _flock(held, wait=True)  # another process may write another file of the folder
        sums = _recorded(folder)
        for name, digest in new.items():
            present = [sha256(folder / name)] if (folder / name).is_file() else []
            sums[name] = list(dict.fromkeys([*present, digest]))
        _put_sums(held, sums)
    finally:
        os.close(held)


def _adopt(folder: Path, files: Iterable[Path]) -> None:
    """Take files for ours, as they are now."""
    found = [f for f in files if f.is_file() and not f.is_symlink()]
    if found:
        _record(folder, {f.relative_to(folder).as_posix(): sha256(f) for f in found})


def _stranger(entry: Path, folder: Path, sums: Mapping[str, list[str]]) -> Path | None:
    """A file of the entry that was not written by us as it is, or None."""
    saved = _files_of_saved_model(entry)
    for file in _files(entry):
        known = sums.get(file.relative_to(folder).as_posix())
        if file.is_symlink() or not file.is_file():
            return file
        if file in saved or not file.stat().st_size:  # of an empty file nothing is lost
            continue
        if known is None or (known and sha256(file) not in known):
            return file
    return None


def _files_of_saved_model(folder: Path) -> set[Path]:
    """Files that a saved model's manifest names, of the size that it names; and the manifest."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] != "retailrec-model" or not _DATA_FOLDER.fullmatch(manifest["data"]):
            return set()
        files = {folder / manifest["data"] / name: f["bytes"] for name, f in manifest["files"].items()}
        ours = {f for f, size in files.items() if f.is_file() and f.stat().st_size == size}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()
    return ours | {folder / "manifest.json"}


def _refuse_stranger(path: Path) -> None:
    if _stranger(path, path.parent, _recorded(path.parent)) is not None:
        raise DataError(_NOT_OURS.format(path))


def _existing(inputs: Iterable[Path | None]) -> list[Path]:
    """The inputs that are there, and the files and folders that settings among them name."""
    found = [given for given in inputs if given is not None and given.exists()]
    return found + [file for given in found if given.suffix == ".toml" for file in _named_in(given)]


def _named_in(settings: Path) -> Iterator[Path]:
    """What a TOML file names, such as the tables of rules; of a damaged one, nothing.

    The `folder` of a week holds results, and `name` is none of a file.
    """
    left: list[Any] = []
    with suppress(OSError, ValueError, RecursionError):  # whoever reads it says what is wrong
        left.append(tomllib.loads(settings.read_bytes().decode("utf-8-sig")))
    while left:
        one = left.pop()
        if isinstance(one, dict | list):
            named = isinstance(one, dict)
            left += [one[key] for key in one if key not in ("folder", "name")] if named else one
        elif isinstance(one, str) and one and os.path.exists(settings.parent / one):
            yield settings.parent / one


_ADDRESS = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):(?:/+|$)")


def require_here(path: Path) -> None:
    """Raise a DataError for an address, such as s3://bucket/x, which is no path of this machine.

    A Path keeps one of its slashes. A folder that is called `s3:` and is there is meant.
    """
    address = _ADDRESS.match(str(path))
    if address and not Path(f"{address[1]}:").exists():
        raise DataError(
            f"{address[1]}://{str(path)[address.end() :]} is an address; only files of this machine "
            f"are read and written. Download or mount it, or use --engine spark."
        )


def _require_writable(folder: Path) -> None:
    require_here(folder)
    marker = folder / MARKER
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise DataError(f"{folder} is a file, so nothing can be written below it; name another place.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise DataError(f"{folder} can't be written to: no permission. Name another place.")
    if marker.exists() and not os.access(marker, os.R_OK | os.W_OK):
        raise DataError(
            f"{marker}, the list of results in that folder, is another user's; name a folder of "
            f"your own."
        )


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    """What the system says about a path, as a sentence."""
    try:
        str(path).encode()  # libraries take text for a path
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(path)  # complains of what `exists` takes for absence, such as too long a name
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        reason = getattr(error, "strerror", None) or error
        long = getattr(error, "errno", None) == errno.ENAMETOOLONG
        shown = f"{str(path)[:80]}..." if long else str(path)
        raise DataError(f"{shown!r} can't be written to: {reason}. Name another place.") from error


def sha256(file: Path) -> str:
    """SHA-256 of a file's content, as hex digits."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --- parts of a long job --------------------------------------------------------------------------


class Storage(Protocol):
    """Files and folders of a disk, or wherever Spark reads and writes, by paths as text."""

    def exists(self, path: str) -> bool:
        """Is there a file or folder?"""

    def files(self, folder: str) -> list[str]:
        """Names of what lies right in a folder, ascending; none if there is no folder."""

    def make_folder(self, path: str) -> None:
        """Make a folder and those above it."""

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it."""

    def rename(self, source: str, target: str) -> None:
        """Give a file or folder another name, in one step where the system can."""

    def read_text(self, path: str) -> str:
        """All text of a small file."""

    def write_text(self, text: str, path: str) -> None:
        """Write a small file, in one step."""

    def digest(self, path: str) -> str:
        """Stands for the content of a file or folder; another one where it was cut or altered."""

    def hold(self, folder: str) -> AbstractContextManager[None]:
        """Make a folder and keep other processes off, where that can be."""


class LocalStorage(Storage):
    """A disk of this machine."""

    def exists(self, path: str) -> bool:
        return os.path.lexists(path)

    def files(self, folder: str) -> list[str]:
        return sorted(os.listdir(folder)) if os.path.isdir(folder) else []

    def make_folder(self, path: str) -> None:
        make_folder(Path(path))

    def remove(self, path: str) -> None:
        _remove(Path(path))

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def read_text(self, path: str) -> str:
        return Path(path).read_text(encoding="utf-8")

    def write_text(self, text: str, path: str) -> None:
        write_text(text, Path(path))

    def digest(self, path: str) -> str:
        return sha256(Path(path))

    @contextmanager
    def hold(self, folder: str) -> Iterator[None]:
        """Make a folder and hold it: `locked`, errors in words.

        Raises
        ------
        DataError
            If another process holds it, or it can't be made.
        """
        with ExitStack() as held:
            try:
                held.enter_context(locked(Path(folder)))
            except OSError as error:
                raise DataError(
                    f"{folder} can't be made: {error.strerror or error}. Name a folder that may be "
                    f"written to."
                ) from error
            yield


_PLAN = "plan.json"
_PART = re.compile(
    rf"({re.escape(_PARTIAL)}[0-9a-f]+-|_partial-)?"
    r"(plan\.(json|txt)|(part|pool|answers|trial|state|lines|result|replaced)(-[\w-]+)?(\.\w+)?)"
)


@dataclass(frozen=True)
class Work:
    """A folder of finished parts; `Work.held` opens one.

    A part is finished when its proof (the part's name, ending in .json) is there and fits: it is
    written last, and holds the part's digest and some facts. A part may be facts alone.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as place:
    ...     for _ in range(2):  # the second time it is there
    ...         with Work.held(f"{place}/work", plan=["model", 7]) as work:
    ...             taken_over = work.facts("part-0")
    ...             work.finish("part-0", {"rows": 3})
    >>> taken_over
    {'rows': 3}
    """

    storage: Storage
    folder: str

    @classmethod
    @contextmanager
    def held(
        cls,
        folder: str | Path,
        plan: object | None = None,
        *,
        others: Literal["remove", "refuse"] = "remove",
        storage: Storage | None = None,
    ) -> Iterator[Work]:
        """The folder, made if it is not there and kept from other processes.

        Parameters
        ----------
        plan : stands for what is being done, as JSON can hold it: parts of another plan are not taken
            over. None: parts are named by what they are, and all are kept.
        others : what to do with parts of another plan

        Raises
        ------
        DataError
            If another process holds the folder, or it holds something else, or parts of another plan
            that are not to be removed.
        """
        storage = LocalStorage() if storage is None else storage
        work = cls(storage, str(folder))
        with storage.hold(work.folder):
            if plan is not None:
                work._begin(fingerprint(plan), others)
            yield work

    def path(self, name: str) -> str:
        """Where a part is to be written."""
        return f"{self.folder}/{name}"

    def finish(self, name: str, facts: Mapping[str, Any] | None = None) -> None:
        """Prove a part finished that has been written, or keep facts alone."""
        text = json.dumps(dict(facts or {}), allow_nan=False)
        proof = {"sum": self._sum(name, json.loads(text)), "facts": json.loads(text)}
        self.storage.write_text(json.dumps(proof), self._proof(name))

    def keep(self, frame: pl.DataFrame, name: str, facts: Mapping[str, Any] | None = None) -> None:
        """Write a frame of this machine's as a part, and prove it finished."""
        write_frame(frame, Path(self.path(name)))
        self.finish(name, facts)

    def facts(self, name: str) -> dict[str, Any] | None:
        """The facts that a part was finished with; None if it is not there, cut short or altered."""
        if not self.storage.exists(self._proof(name)):
            return None
        try:
            proof = json.loads(self.storage.read_text(self._proof(name)))
            facts: dict[str, Any] = proof["facts"]
            return facts if proof["sum"] == self._sum(name, facts) else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def finished(self, first: str) -> list[dict[str, Any]]:
        """The facts of the whole parts whose names are `first` and a number, in their order."""
        proofs = (p for p in self.storage.files(self.folder) if re.fullmatch(rf"{first}\d+\.json", p))
        return [facts for proof in proofs if (facts := self.facts(proof[:-5])) is not None]

    def remove(self) -> None:
        """Remove the folder: all is done."""
        self.storage.remove(self.folder)

    def _sum(self, name: str, facts: object) -> str:
        path = self.path(name)
        return fingerprint([self.storage.digest(path) if self.storage.exists(path) else None, facts])

    def _proof(self, name: str) -> str:
        stem, dot, _ = name.rpartition(".")
        return self.path(f"{stem if dot else name}.json")

    def _begin(self, plan: str, others: str) -> None:
        """Keep the parts of this plan; those of another go, or are refused."""
        storage, names = self.storage, self.storage.files(self.folder)
        if _PLAN in names and storage.read_text(self.path(_PLAN)) == plan:
            return
        for name in names:
            if not _PART.fullmatch(name):
                raise DataError(
                    f"{self.path(name)} is none of our parts and would be removed; move it away or "
                    f"name another target."
                )
        if names and others == "refuse":
            raise DataError(
                f"{self.folder} holds work on other data or settings, or of another version; name "
                f"another place to start anew."
            )
        for name in names:
            storage.remove(self.path(name))
        storage.write_text(plan, self.path(_PLAN))


def fingerprint(value: object) -> str:
    """Hex digits that stand for a value that JSON can hold.

    Examples
    --------
    >>> fingerprint(["model", 7])[:8], fingerprint(["model", 8])[:8]
    ('e84f6f6c', 'fdc34e03')
    """
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()

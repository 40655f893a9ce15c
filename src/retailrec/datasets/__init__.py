"""The formats that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retailrec.data import RetailData
from retailrec.data.paths import mode_of
from retailrec.datasets import (
    complete_journey,
    instacart,
    online_retail,
    sort_of_real,
    ta_feng,
    table,
    x5_retailhero,
)
from retailrec.datasets.base import Dataset, ReadOptions, Tables
from retailrec.errors import SettingError

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (
        online_retail,
        complete_journey,
        x5_retailhero,
        ta_feng,
        instacart,
        sort_of_real,
        table,
    )
}


def load_dataset(
    name: str,
    path: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
) -> RetailData:
    """Load the files of a known format; without a path those of an installed package.

    Parameters and errors are those of `open_dataset`.
    """
    return open_dataset(name, path, columns, encoding=encoding, time_format=time_format).data()


def open_dataset(
    name: str,
    path: str | Path | None = None,
    columns: Mapping[str, str] | None = None,
    *,
    encoding: str | None = None,
    time_format: str | None = None,
) -> Tables:
    """The tables of a known format, whose receipt lines are read when they are asked for.

    `encoding` is that of text files which are not UTF-8; `time_format` says how times are written.

    Raises
    ------
    SettingError
        If the name is not known, or the format needs a path.
    DataError
        If the files are missing or can't be used.
    """
    if name not in DATASETS:
        raise SettingError(
            f"there is no data set '{name}'; expected one of {', '.join(DATASETS)}. "
            f"For your own file use 'table' with a column mapping."
        )
    dataset = DATASETS[name]
    if path is None and not dataset.packaged:
        packaged = ", ".join(d.name for d in DATASETS.values() if d.packaged)
        raise SettingError(
            f"data set '{name}' needs the path of its files ({dataset.files}); only {packaged} comes "
            f"as a package. Write: retailrec run {name} PATH."
        )
    where = None if path is None else Path(path)
    if where is not None:
        mode_of(where)  # says what is wrong with a path that can't be
    return dataset.open(where, columns or {}, ReadOptions(encoding, time_format))

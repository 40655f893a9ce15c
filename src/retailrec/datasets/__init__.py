"""The formats that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retailrec.data import RetailData
from retailrec.datasets import complete_journey, online_retail, ta_feng, table, x5_retailhero
from retailrec.datasets.base import Dataset, ReadOptions
from retailrec.errors import SettingError

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (online_retail, complete_journey, x5_retailhero, ta_feng, table)
}


def load_dataset(
    name: str, path: str | Path, columns: Mapping[str, str] | None = None, *,
    encoding: str | None = None, time_format: str | None = None,
) -> RetailData:  # fmt: skip
    """Load the files of a known format.

    `encoding` is that of text files which are not UTF-8; `time_format` says how times are written.

    Raises
    ------
    SettingError
        If the name is not known.
    DataError
        If the files are missing or can't be used.
    """
    if name not in DATASETS:
        raise SettingError(
            f"there is no data set '{name}'; expected one of {', '.join(DATASETS)}. "
            f"For your own file use 'table' with a column mapping."
        )
    options = ReadOptions(encoding, time_format)
    return DATASETS[name].load(Path(path), columns or {}, options)

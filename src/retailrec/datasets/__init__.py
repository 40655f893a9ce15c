"""The formats that can be loaded, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from retailrec.data import RetailData
from retailrec.datasets import complete_journey, online_retail, ta_feng, table, x5_retailhero
from retailrec.datasets.base import Dataset
from retailrec.errors import SettingError

DATASETS: dict[str, Dataset] = {
    module.DATASET.name: module.DATASET
    for module in (online_retail, complete_journey, x5_retailhero, ta_feng, table)
}


def load_dataset(name: str, path: str | Path, columns: Mapping[str, str] | None = None) -> RetailData:
    """Load the files of a known format.

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
    return DATASETS[name].load(Path(path), columns or {})

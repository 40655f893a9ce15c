"""Access to a feature block by column name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from retailrec.errors import SettingError


class Columns:
    """The columns of a (n_rows, n_columns) block by name."""

    def __init__(self, block: NDArray[np.float32], names: list[str]) -> None:
        self._block, self._place = block, {name: i for i, name in enumerate(names)}

    def __contains__(self, name: str) -> bool:
        return name in self._place

    def __getitem__(self, name: str) -> NDArray[np.float32]:
        if name not in self._place:
            raise SettingError(f"there is no feature '{name}' to build on; known: {[*self._place]}.")
        return self._block[:, self._place[name]]

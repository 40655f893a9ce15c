"""What a benchmark prints beside its figures: the machine, versions and sizes."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import Any

from retailrec.compute.shards import n_threads
from retailrec.recommender.artifact import versions


def data_folder(name: str) -> Path:
    """A folder of the real data, from $RETAILREC_DATA or ../shared/data."""
    root = Path(os.environ.get("RETAILREC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    folder = root / name
    if not folder.is_dir():
        raise SystemExit(f"{folder} is not there; set RETAILREC_DATA to the folder of the real data.")
    return folder


def print_result(benchmark: str, result: dict[str, Any]) -> None:
    """One line of JSON with the machine and the versions."""
    machine = {"cores": n_threads(0), "machine": platform.machine()}
    print(json.dumps({"benchmark": benchmark, "machine": machine, "versions": versions()} | result))

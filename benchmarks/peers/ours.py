"""Our recommender, with a profile, on a folder that benchmarks/peers.py wrote."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl

from retailrec import RetailData, __version__
from retailrec.compute.memory import peak_memory_mb
from retailrec.data.files import read_parts
from retailrec.jobs.settings import Settings


def main(folder: Path, profile: str) -> None:
    users = pl.read_parquet(folder / "users.parquet")["user_id"]
    end = datetime.fromisoformat((folder / "end.txt").read_text())
    started = perf_counter()
    data = RetailData.from_frames(read_parts(folder / "past.parquet"), end=end)
    model = Settings(profile=profile).for_size(data.n_users).model().fit(data)
    fitted = perf_counter()
    codes = np.searchsorted(data.users["user_id"].to_numpy(), users.to_numpy())
    found = model.recommend(data.history(codes=codes), k=10)
    done = perf_counter()
    found.select("user_id", "item_id", "rank").write_parquet(folder / "lists.parquet")
    result = {"fit": fitted - started, "recommend": done - fitted, "peak_memory_mb": peak_memory_mb()}
    print(json.dumps(result | {"version": __version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

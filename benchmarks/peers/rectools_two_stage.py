"""RecTools' CandidateRankingModel on a folder that benchmarks/peers.py wrote, in its own environment.

popular 50 + cosine kNN 100 + ALS 100, their ranks and scores, CatBoost 300 x 6, 30 negatives a shopper,
the last 28 days as label window.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from time import perf_counter

os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pandas as pd
import rectools
from catboost import CatBoostClassifier
from implicit.als import AlternatingLeastSquares
from implicit.nearest_neighbours import CosineRecommender
from rectools import Columns
from rectools.dataset import Dataset
from rectools.model_selection import TimeRangeSplitter
from rectools.models import ImplicitALSWrapperModel, ImplicitItemKNNWrapperModel, PopularModel
from rectools.models.ranking import (
    CandidateGenerator,
    CandidateRankingModel,
    CatBoostReranker,
    PerUserNegativeSampler,
)


def main(folder: Path) -> None:
    past = pd.read_parquet(folder / "past.parquet")
    users = pd.read_parquet(folder / "users.parquet")["user_id"].to_numpy()
    started = perf_counter()
    interactions = past.rename(columns={"time": Columns.Datetime}).assign(weight=1.0)
    dataset = Dataset.construct(interactions[["user_id", "item_id", "weight", Columns.Datetime]])
    kept = {"keep_ranks": True, "keep_scores": True}
    als = AlternatingLeastSquares(factors=64, random_state=0)
    model = CandidateRankingModel(
        candidate_generators=[
            CandidateGenerator(PopularModel(), 50, **kept),
            CandidateGenerator(ImplicitItemKNNWrapperModel(CosineRecommender(K=50)), 100, **kept),
            CandidateGenerator(
                ImplicitALSWrapperModel(als),
                100,
                **kept,
            ),
        ],
        splitter=TimeRangeSplitter("28D", n_splits=1, filter_already_seen=False),
        sampler=PerUserNegativeSampler(n_negatives=30, random_state=0),
        reranker=CatBoostReranker(
            CatBoostClassifier(iterations=300, depth=6, random_seed=0, verbose=False)
        ),
    )
    model.fit(dataset)
    fitted = perf_counter()
    found = model.recommend(users, dataset, k=10, filter_viewed=False)
    done = perf_counter()
    found[["user_id", "item_id", "rank"]].to_parquet(folder / "lists.parquet")
    status = Path("/proc/self/status").read_text()  # ru_maxrss may be that of the starting process
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024 // 10**6
    result = {"fit": fitted - started, "recommend": done - fitted, "peak_memory_mb": peak}
    print(json.dumps(result | {"version": rectools.__version__}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

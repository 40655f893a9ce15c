"""LightGBM's own options on the rows of a board, which are made once; all else of the model stays.

Equal trees have an equal key.

python benchmarks/ranker_variants.py online-retail-4 --options '{"bagging_by_query": true}' '{}'
"""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace
from time import process_time
from typing import Any

import lightgbm as lgb
import numpy as np
from board_data import BOARDS, SAMPLES, TUNING
from boards import ours

from retailrec.evaluation import Judge
from retailrec.rankers import LightGBMRanker, TrainingFrame


def main(name: str, variants: list[dict[str, Any]], seeds: list[int], profile: str) -> None:
    board = (BOARDS | TUNING | SAMPLES)[name]()
    judge = Judge.of(board.past, board.target)
    history = board.past.history(codes=judge.users)
    frames: list[TrainingFrame] = []
    fit, train = LightGBMRanker.fit, lgb.train

    def remembered(self: LightGBMRanker, rows: TrainingFrame, valid: Any = None) -> LightGBMRanker:
        frames.append(rows)
        return fit(self, rows, valid)

    LightGBMRanker.fit = remembered  # type: ignore[method-assign]
    model = ours(board, profile, 0, {"threads": 1}).fit(board.train)
    LightGBMRanker.fit = fit  # type: ignore[method-assign]
    rows = max(frames, key=lambda frame: len(frame.y))
    ranker = model.ranker_
    for seed in seeds:
        for options in variants:
            lgb.train = lambda given, *rest, _more=options, **kw: train({**given, **_more}, *rest, **kw)
            started = process_time()
            model.ranker_ = replace(ranker, seed=seed, threads=1).fit(rows)
            busy = process_time() - started
            values = judge.per_user(model.recommend_codes(history, 10).items, board.metrics)
            means = "  ".join(f"{key} {np.nanmean(value):.4f}" for key, value in values.items())
            trees = model.ranker_.model_.model_to_string().partition("\nparameters:")[0]
            key = hashlib.sha256(trees.encode()).hexdigest()[:8]
            print(
                f"{name} seed {seed} {json.dumps(options)}: {means}  ({busy:.1f} s, trees {key})",
                flush=True,
            )
    lgb.train = train


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("board")
    parser.add_argument("--options", nargs="+", type=json.loads, default=[{}])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--profile", default="small")
    given = parser.parse_args()
    main(given.board, given.options, given.seeds, given.profile)

"""Next basket on Ta-Feng as in "A Next Basket Recommendation Reality Check" (Li et al., TOIS 2023).

Each shopper's last basket is the target; shoppers are split 72 / 8 / 20 into train, validation and
test, five times; sources learn from the training shoppers and answer for the test shoppers, whose
histories come with the request. NDCG's ideal is the whole target. Prints the mean over the folds and
the figures published or measured elsewhere.

    make bench-next-basket
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from machine import data_folder, print_result
from numpy.typing import NDArray

from retailrec.candidates import UPCF, OwnPurchases, Popularity, TifuKNN
from retailrec.data import RetailData
from retailrec.data.splits import align_next_basket
from retailrec.datasets import load_dataset
from retailrec.evaluation import Judge

FOLDS = 5
METRICS = ("recall@10", "ndcg_full@10", "hit_rate@10", "recall@20", "ndcg_full@20")
ELSEWHERE = {
    "G-TopFreq": (0.0790, 0.0826, 0.2444, 0.1070, 0.0924),
    "P-TopFreq": (0.1083, 0.0960, 0.3524, 0.1413, 0.1103),
    "GP-TopFreq": (0.1224, 0.1016, 0.3742, 0.1711, 0.1211),
    "UP-CF": (0.1161, 0.0997, 0.3764, 0.1572, 0.1168),
    "TIFU-KNN": (0.1280, 0.1024, 0.3930, 0.1844, 0.1241),
}


def split_shoppers(n: int, fold: int) -> tuple[NDArray[np.int64], ...]:
    """Shuffled shopper numbers: train (72%), validation (8%), test (20%)."""
    shuffled = np.random.default_rng([2023, fold]).permutation(n)
    return tuple(np.sort(part) for part in np.split(shuffled, [int(0.72 * n), int(0.8 * n)]))


def only(data: RetailData, users: NDArray[np.int64]) -> RetailData:
    """The data of some shoppers; codes stay."""
    return replace(data, log=data.log.filter(pl.col("user").is_in(users.tolist())))


def lists(train: RetailData, history: object, k: int = 20) -> dict[str, NDArray[np.int32]]:
    """Recommended item codes of each method."""
    often = Popularity(days=1e5, count="receipts").fit(train).candidates(history, k).items
    own = OwnPurchases("count", ties="oldest").fit(train).candidates(history, k).items
    return {
        "G-TopFreq": often,
        "P-TopFreq": own,
        "GP-TopFreq": filled_up(own, often),
        "UP-CF": UPCF(recency=5, locality=10, asymmetry=0.75).fit(train).candidates(history, k).items,
        # the published code makes 7 groups, not groups of 7: with this data's 5.6 baskets a
        # shopper each basket is a group of its own, and both decays apply to it
        "TIFU-KNN": TifuKNN(group_size=1, group_decay=0.63).fit(train).candidates(history, k).items,
        "TIFU-KNN (the paper's groups of 7)": TifuKNN().fit(train).candidates(history, k).items,
    }


def filled_up(own: NDArray[np.int32], often: NDArray[np.int32]) -> NDArray[np.int32]:
    """Own items first, then the most frequent ones that are not among them."""
    out = own.copy()
    for row in range(len(out)):
        empty = int((out[row] < 0).sum())
        if empty:
            rest = often[row][~np.isin(often[row], out[row])]
            out[row, len(out[row]) - empty :] = rest[:empty]
    return out


def main() -> None:
    data = load_dataset("ta-feng", data_folder("tafeng_nbr"))
    aligned, fold = align_next_basket(data)
    past, target = fold.split(aligned)
    found: dict[str, list[list[float]]] = {}
    for number in range(FOLDS):
        train, _, test = split_shoppers(data.n_users, number)
        judge = Judge.of(past, target.filter(pl.col("user").is_in(test.tolist())))
        history = past.history(codes=judge.users)
        for name, items in lists(only(past, train), history).items():
            values = judge.per_user(items, METRICS)
            found.setdefault(name, []).append([float(np.nanmean(v)) for v in values.values()])
    print(f"{'method':36}" + "".join(f"{m:>14}" for m in METRICS))
    means = {name: np.mean(rows, axis=0) for name, rows in found.items()}
    for name, mean in means.items():
        print(f"{name:36}" + "".join(f"{v:14.4f}" for v in mean))
        if name in ELSEWHERE:
            print(f"{'  elsewhere':36}" + "".join(f"{v:14.4f}" for v in ELSEWHERE[name]))
    off = {n: float(np.abs(means[n][0] - e[0])) for n, e in ELSEWHERE.items()}
    print_result(
        "next-basket",
        {
            "folds": FOLDS,
            "users": data.n_users,
            "items": data.n_items,
            "recall@10": {n: round(float(m[0]), 4) for n, m in means.items()},
            "furthest_from_elsewhere": round(max(off.values()), 4),
        },
    )
    if max(off.values()) > 0.005:
        raise SystemExit("recall@10 is more than .005 away from the figures elsewhere")


if __name__ == "__main__":
    main()

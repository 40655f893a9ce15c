"""Where scoring time goes: libraries' kernels, our own kernels, everything around them; one thread.

Libraries: tree evaluation, least squares and top k of factors, sparse products of SciPy. Our kernels
are the compiled loops of `retailrec.kernels`, of which the two products of sparse matrices are named,
since no library has them in the form that is needed (top k of a product, a product read at pairs).

    make bench-floor [PROFILE=large]
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from time import perf_counter
from typing import Any

import numpy as np
from machine import print_result

from retailrec.config import Settings
from retailrec.datasets.simulate import data_of, preset

BAR = 0.6
spent: dict[str, float] = defaultdict(float)


def timed(owner: Any, name: str, part: str) -> None:
    """Count the seconds of a function, not those of a timed function within it."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def counted(*args: Any, **more: Any) -> Any:
        before, started = sum(spent.values()), perf_counter()
        try:
            return function(*args, **more)
        finally:
            inner = sum(spent.values()) - before
            spent[part] += perf_counter() - started - inner

    setattr(owner, name, counted)


def watch() -> None:
    """Wrap what the libraries do, and our kernels wherever they are used."""
    import catboost
    import implicit.cpu.topk
    import lightgbm
    from implicit.cpu.als import AlternatingLeastSquares
    from scipy import sparse

    from retailrec import kernels, pool
    from retailrec.candidates import als, factors, item_item, neighbours, own_purchases, popularity
    from retailrec.features import assemble, base

    timed(lightgbm.Booster, "predict", "trees")
    timed(catboost.CatBoost, "predict", "trees")
    timed(AlternatingLeastSquares, "recalculate_user", "factors")
    timed(implicit.cpu.topk, "topk", "factors")
    timed(sparse.csr_matrix, "__matmul__", "sparse products of SciPy")
    products = {"product_topk", "product_gather"}
    for module in (
        pool,
        als,
        factors,
        item_item,
        neighbours,
        own_purchases,
        popularity,
        assemble,
        base,
    ):
        for name in vars(kernels):
            if hasattr(getattr(module, name, None), "py_func"):
                part = "our sparse products" if name in products else "our other kernels"
                timed(module, name, part)


def main(profile: str, users: int = 20_000, asked: int = 10_000) -> int:
    data = data_of(preset("x5", users=users))
    model = Settings(profile=profile, threads=1).for_size(data.n_users).model().fit(data)
    history = data.history(np.arange(asked))
    model.recommend_codes(history.take(range(500)), 10)
    watch()
    started = perf_counter()
    model.recommend_codes(history, 10)
    total = perf_counter() - started
    parts = {name: round(seconds / total, 3) for name, seconds in spent.items()}
    libraries = sum(parts.get(n, 0.0) for n in ("trees", "factors", "sparse products of SciPy"))
    products = libraries + parts.get("our sparse products", 0.0)
    print_result(
        "floor",
        {"profile": profile, "users": asked, "items": data.n_items, "seconds": round(total, 2),
         "share": parts, "libraries": round(libraries, 3), "with_our_products": round(products, 3)},
    )  # fmt: skip
    print(
        f"{profile}: {libraries:.0%} of scoring time in libraries' kernels, {products:.0%} with our "
        f"two sparse products; the bar is {BAR:.0%}" + ("; MISSED" * (libraries < BAR))
    )
    return int(libraries < BAR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "large"))

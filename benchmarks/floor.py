"""Where scoring time goes: libraries' kernels, our own kernels, everything around them; one thread.

Libraries: trees, top k of factors (with our least squares), sparse products of SciPy. Our kernels
are the compiled loops of `retailrec.compute`, of which the two products of sparse matrices are named:
they do a library's work (a product, its top k, the product read at pairs) in a form that none has. What
SciPy takes for the bare products alone, without top k and reading, is measured beside them.

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

from retailrec.jobs.settings import Settings
from retailrec.simulator.shop import data_of, preset_shop

BAR = 0.6  # trees, factors and sparse products, SciPy's and ours
PRODUCTS = "our sparse products"
spent: dict[str, float] = defaultdict(float)
products: list[tuple[Any, ...]] = []  # what product_topk was called with


def timed(owner: Any, name: str, part: str) -> None:
    """Count the seconds of a function, not those of a timed function within it."""
    function: Callable[..., Any] = getattr(owner, name)

    @wraps(function)
    def counted(*args: Any, **more: Any) -> Any:
        if name == "product_topk":
            products.append(args)
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
    from scipy import sparse

    from retailrec.candidates import (
        als,
        base,
        factors,
        item_item,
        neighbours,
        own_purchases,
        pool,
        popularity,
    )
    from retailrec.compute import csr, groups, topk
    from retailrec.features import assemble
    from retailrec.features import events as aggregates

    timed(lightgbm.Booster, "predict", "trees")
    timed(catboost.CatBoost, "predict", "trees")
    timed(implicit.cpu.topk, "topk", "factors")
    timed(sparse.csr_matrix, "__matmul__", "sparse products of SciPy")
    for module in (
        pool,
        als,
        base,
        factors,
        item_item,
        neighbours,
        own_purchases,
        popularity,
        assemble,
        aggregates,
    ):
        for name in {**vars(csr), **vars(groups), **vars(topk)}:
            if hasattr(getattr(module, name, None), "py_func"):
                part = PRODUCTS if name.startswith("product_") else "our other kernels"
                timed(module, name, "factors" if name == "least_squares" else part)


def bare_products(n_items: int) -> float:
    """Seconds that SciPy takes for the products whose top k was asked for."""
    from scipy import sparse

    started, counted = perf_counter(), spent["sparse products of SciPy"]
    for indptr, items, weights, s_indptr, s_indices, s_data, *_ in products:
        n = len(s_indptr) - 1
        held = sparse.csr_matrix((weights, items, indptr), shape=(len(indptr) - 1, n))
        held @ sparse.csr_matrix((s_data, s_indices, s_indptr), shape=(n, n_items))
    spent["sparse products of SciPy"] = counted
    return perf_counter() - started


def main(profile: str, users: int = 20_000, asked: int = 10_000) -> int:
    data = data_of(preset_shop("x5", users=users))
    model = Settings(profile=profile, threads=1).for_size(data.n_users).model().fit(data)
    history = data.history(codes=np.arange(asked))
    model.recommend_codes(history.take(range(500)), 10)
    watch()
    started = perf_counter()
    model.recommend_codes(history, 10)
    total = perf_counter() - started
    share = {name: round(seconds / total, 3) for name, seconds in spent.items()}
    libraries = sum(share.get(n, 0.0) for n in ("trees", "factors", "sparse products of SciPy"))
    with_products = libraries + share.get(PRODUCTS, 0.0)
    scipy_s = bare_products(data.n_items)
    print_result(
        "floor",
        {
            "profile": profile,
            "users": asked,
            "items": data.n_items,
            "seconds": round(total, 2),
            "share": share,
            "libraries": round(libraries, 3),
            "with_our_products": round(with_products, 3),
            "our_products_s": round(spent[PRODUCTS], 2),
            "bare_products_by_scipy_s": round(scipy_s, 2),
        },
    )
    print(
        f"{profile}: {with_products:.0%} of {total:.1f} s of scoring in trees, factors and sparse "
        f"products, {libraries:.0%} without our two products; the bar is {BAR:.0%}"
        + ("; MISSED" * (with_products < BAR))
        + f". Our products take {spent[PRODUCTS]:.2f} s, SciPy's bare ones {scipy_s:.2f} s."
    )
    return int(with_products < BAR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else "large"))

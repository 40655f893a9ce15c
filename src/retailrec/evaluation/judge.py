"""Judge recommendations by what was bought afterwards."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.csr import find_listed, find_pairs
from retailrec.compute.pairs import pair_keys, pairs_of_keys
from retailrec.data import RetailData, category_codes, item_buyers, unit_prices
from retailrec.errors import DataError
from retailrec.metrics.base import Values, compute_metric, parse_metric

DEFAULT_METRICS = (
    "precision@5",
    "recall@10",
    "ndcg@10",
    "hit_rate@5",
    "money_precision@5",
)


class ItemFacts(NamedTuple):
    """What was known of items before a window, counted over everybody.

    Attributes
    ----------
    prices : (n_items,) unit prices
    buyers : (n_items,) shoppers who had bought the item
    n_known : shoppers with history
    """

    prices: NDArray[np.float64]
    buyers: NDArray[np.int64]
    n_known: int

    @classmethod
    def of(cls, past: RetailData) -> ItemFacts:
        """Counted over the data, or over the whole that it is a sample of."""
        whole = past.whole
        n_known = len(past.active_users()) if whole is None else whole.shoppers(past.end)
        return cls(unit_prices(past), item_buyers(past).astype(np.int64), n_known)


@dataclass(frozen=True)
class Judge:
    """Who is judged, and what they bought: every cleaned purchase of the window.

    Attributes
    ----------
    users : (n_users,) codes of the shoppers who bought in the window and have history
    n_cold : shoppers who bought in the window and have none
    keys : (n_bought,) row * n_items + item of each pair bought, ascending
    values : (n_bought,) money behind each
    prices : (n_items,) unit price as known before the window
    repeat : (n_bought,) had the shopper bought the item before? None: not known
    buyers : (n_items,) shoppers who had bought the item before; None: not known
    categories : (n_items,) category codes, -1 not known; None: there are none
    recommendable : (n_items,) items that might be recommended; None: not known
    n_known : shoppers with history
    """

    users: NDArray[np.int64]
    n_cold: int
    n_items: int
    keys: NDArray[np.int64]
    values: NDArray[np.float64]
    prices: NDArray[np.float64]
    repeat: NDArray[np.bool_] | None = None
    buyers: NDArray[np.int64] | None = None
    categories: NDArray[np.int32] | None = None
    recommendable: NDArray[np.bool_] | None = None
    n_known: int = 0

    @classmethod
    def of(cls, past: RetailData, target: pl.DataFrame, facts: ItemFacts | None = None) -> Judge:
        """From what is known and the log rows of the window.

        `facts` are those of `past` by default; a part of the shoppers is given those of all.

        Raises
        ------
        DataError
            If no shopper with history bought anything in the window.
        """
        with_history = past.active_users()
        buyers = target["user"].unique().sort().to_numpy()
        users = np.intersect1d(buyers, with_history).astype(np.int64)
        if not len(users):
            raise DataError(
                f"nobody with history bought anything in the evaluation window ({len(buyers)} shoppers "
                f"bought, {len(with_history)} have history). Use another horizon."
            )
        bought = (
            target.filter(pl.col("user").is_in(pl.Series(users).cast(pl.Int32).implode()))
            .group_by("user", "item")
            .agg(pl.col("value").sum())
            .sort("user", "item")
        )
        row = np.searchsorted(users, bought["user"].to_numpy())
        keys = pair_keys(row, bought["item"].to_numpy(), past.n_items)
        values = bought["value"].fill_null(0).to_numpy().astype(np.float64)
        own, items = past.history(codes=users), bought["item"].to_numpy()
        facts = ItemFacts.of(past) if facts is None else facts
        indptr = np.searchsorted(row, np.arange(len(users) + 1))
        return cls(
            users,
            len(buyers) - len(users),
            past.n_items,
            keys,
            values,
            facts.prices,
            repeat=find_pairs(own.indptr, own.items, indptr, items) >= 0,
            buyers=facts.buyers,
            categories=category_codes(past.items),
            recommendable=past.recommendable,
            n_known=facts.n_known,
        )

    def select(self, chosen: NDArray[np.bool_]) -> Judge:
        """The same judge for some of the shoppers."""
        rows, items = pairs_of_keys(self.keys, self.n_items)
        kept = chosen[rows]
        renumbered = (np.cumsum(chosen) - 1)[rows[kept]]
        keys = pair_keys(renumbered, items[kept], self.n_items)
        repeat = None if self.repeat is None else self.repeat[kept]
        return replace(
            self, users=self.users[chosen], n_cold=0, keys=keys, values=self.values[kept], repeat=repeat
        )

    def context(self, items: NDArray[np.int32], needs: Container[str]) -> dict[str, Any]:
        """What metrics ask for, about recommended item codes (n_users, k); -1 is no item."""
        n, there = len(items), items >= 0
        no_price, no_value = np.isnan(self.prices).all(), np.isnan(self.values).all()
        rows, bought = pairs_of_keys(self.keys, self.n_items)
        indptr = np.searchsorted(rows, np.arange(n + 1))
        place = find_listed(indptr, bought, items)
        hits = place >= 0
        facts: dict[str, Callable[[], Any]] = {
            "hits": lambda: hits,
            "items": lambda: items,
            "n_relevant": lambda: np.bincount(rows, minlength=n),
            "n_recommended": lambda: there.sum(axis=1),
            "prices": lambda: np.where(there | no_price, self.prices[items], 0.0),
            "bought_values": lambda: np.where(hits | no_value, self.values[place], 0.0),
            "spent": lambda: np.bincount(rows, self.values, minlength=n),
        }
        if (repeat := self.repeat) is not None:
            facts |= {
                "repeat_hits": lambda: hits & repeat[place],
                "explore_hits": lambda: hits & ~repeat[place],
                "n_repeats": lambda: np.bincount(rows[repeat], minlength=n),
                "n_explored": lambda: np.bincount(rows[~repeat], minlength=n),
            }
        if (buyers := self.buyers) is not None:
            order = np.lexsort((np.arange(len(buyers)), -buyers))
            place_of = np.empty(len(buyers), np.int64)
            place_of[order] = np.arange(1, len(buyers) + 1)
            share = np.maximum(buyers, 0.5) / max(self.n_known, 1)
            facts |= {
                "buyer_share": lambda: share[items],
                "is_popular": lambda: np.where(there, place_of[items], len(buyers) + 1),
            }
        if (categories := self.categories) is not None:
            facts["categories"] = lambda: np.where(there, categories[items], -1)
        if (recommendable := self.recommendable) is not None:
            facts["n_recommendable"] = lambda: int(recommendable.sum())
        return {name: value() for name, value in facts.items() if name in needs}

    def per_user(
        self, items: NDArray[np.int32], metrics: Sequence[str] = DEFAULT_METRICS
    ) -> dict[str, Values]:
        """Metric -> (n_users,) values, NaN where not defined.

        Raises
        ------
        DataError
            If there is not one list a judged shopper.
        """
        if len(items) != len(self.users):
            raise DataError(
                f"{len(items):,} lists for {len(self.users):,} judged shoppers; give one a shopper, in "
                f"the order of Judge.users."
            )
        needs = {need for m in metrics for need in parse_metric(m)[0].needs}
        context = self.context(items, needs)
        return {m: compute_metric(m, context) for m in metrics}


def means(per_user: Mapping[str, Values]) -> dict[str, float | None]:
    """Mean over the shoppers for whom a metric is defined; None if there is none."""
    return {name: None if np.isnan(v).all() else float(np.nanmean(v)) for name, v in per_user.items()}

"""Explanations in words: the themes that raised an item's score, with the facts behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator, ItemItem
from retailrec.data.history import History
from retailrec.schema import BRAND, CATEGORIES, ITEM_ID, NAME

Row = Mapping[str, float]

# first words of a feature's column -> theme; the first that fits counts. Sources say theirs themselves.
_THEMES = (
    ("pair_", "habit"),
    ("match_due", "due"),
    ("match_overdue", "due"),
    ("match_", "habit"),
    ("item_price", "price"),
    ("item_", "popular"),
    ("category_", "category"),
)


def item_labels(items: pl.DataFrame, sold: NDArray[np.bool_] | None = None) -> list[str]:
    """What to call each item of a catalogue, such that no two are called alike.

    Its name, else the finest category known and the id, else the id. Items of one name are told apart
    by brand, then by size, and where that is not enough by id. `sold` says whom it is worth telling
    apart: (n_items,), items that nobody bought keep the name that others have.

    Examples
    --------
    >>> milk = {"item_id": [7, 8, 9], "name": ["Milk"] * 3, "brand": ["Alp", "Alp", "Sun"]}
    >>> item_labels(pl.DataFrame(milk))
    ['Milk (Alp, no. 7)', 'Milk (Alp, no. 8)', 'Milk (Sun)']
    """
    ids = pl.col(ITEM_ID).cast(pl.String)
    named = [pl.col(NAME).cast(pl.String)] if NAME in items.columns else []
    levels = [pl.col(c).cast(pl.String) for c in reversed(CATEGORIES) if c in items.columns]
    category = [pl.coalesce(levels) + " " + ids] if levels else []
    facts = [pl.col(c).cast(pl.String) for c in (BRAND, "size") if c in items.columns]
    table = items.select(
        pl.coalesce([*named, *category, ids]).alias("label"), *facts, ("no. " + ids).alias("id")
    ).with_columns(told=pl.lit("").cast(pl.String), ask=pl.Series(_all_of(items, sold)))
    for fact in [c for c in (BRAND, "size") if c in table.columns] + ["id"]:
        asked = pl.col("ask") & (pl.len().over("label", "told", "ask") > 1)
        helps = asked & (pl.col(fact).n_unique().over("label", "told", "ask") > 1)
        helps &= pl.col(fact).is_not_null()
        comma = pl.when(pl.col("told") == "").then(pl.lit("")).otherwise(pl.lit(", "))
        told = pl.when(helps).then(pl.col("told") + comma + pl.col(fact)).otherwise(pl.col("told"))
        table = table.with_columns(told=told)
    label = pl.when(pl.col("told") == "").then(pl.col("label"))
    return table.select(label.otherwise(pl.format("{} ({})", "label", "told"))).to_series().to_list()


def _all_of(items: pl.DataFrame, sold: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
    return np.ones(items.height, np.bool_) if sold is None or not sold.any() else sold


def reasons_in_words(
    x: NDArray[np.float32],
    names: Sequence[str],
    contributions: NDArray[np.float32],
    shopper: NDArray[np.int64],
    items: NDArray[np.int32],
    history: History,
    sources: Sequence[CandidateGenerator],
    labels: Sequence[str],
    most: int = 3,
) -> list[str]:
    """One text a recommendation: up to `most` reasons, the strongest first; never empty.

    Parameters
    ----------
    x, names, contributions : (n, n_columns) rows of the candidate frame, their columns, and each
        column's share in the score
    shopper, items : (n,) history row and item code of each recommendation
    labels : what each item is called
    """
    theme = _themes(names, sources)
    weights = {
        t: contributions[:, [i for i, other in enumerate(theme) if other == t]].sum(axis=1)
        for t in dict.fromkeys(theme)
        if t
    }
    partner = _Partners(history, sources, labels)
    out = []
    for i in range(len(items)):
        row = dict(zip(names, x[i].tolist(), strict=True))
        texts: list[str] = []
        for name in sorted(weights, key=lambda t: -weights[t][i]):
            if weights[name][i] <= 0 or len(texts) == most:
                break
            if name == "receipt":
                text = partner.of("last_receipt", int(shopper[i]), int(items[i]))
            elif name == "together":
                text = partner.of("history", int(shopper[i]), int(items[i]))
            else:
                text = _SENTENCES[name](row) if name in _SENTENCES else name
            if text and text not in texts:
                texts.append(text)
        out.append("; ".join(texts) or _popular(row) or "popular with other shoppers")
    return out


def _themes(columns: Sequence[str], sources: Sequence[CandidateGenerator]) -> list[str]:
    """Theme of each column; empty for those that are no reason."""
    of_source = {
        f"source_{source.name}_{part}": source.theme
        for source in sources
        for part in ("score", "rank", *source.more)
    }
    of_feature = [
        next((theme for start, theme in _THEMES if column.startswith(start)), "") for column in columns
    ]
    return [of_source.get(c, of_feature[i]) for i, c in enumerate(columns)]


def _habit(row: Row) -> str:
    """Bought before: how often, how regularly, how long ago."""
    n = row.get("pair_receipts", float("nan"))
    if not n >= 1:
        return ""
    since, gap = row.get("pair_days_since", float("nan")), row.get("pair_gap", float("nan"))
    text = f"bought {_times(n)}"
    if n >= 3 and gap > 0:
        text += f", usually every {_days(gap)}"
    return text + (f", last {_days(since)} ago" if since >= 0 else "")


def _due(row: Row) -> str:
    since, gap = row.get("pair_days_since", float("nan")), row.get("pair_gap", float("nan"))
    if gap > 0 and since >= 0.8 * gap:
        return f"due: {_days(since)} since the last purchase, usually {_days(gap)}"
    return ""


def _alike(row: Row) -> str:
    bought = row.get("pair_receipts", float("nan")) >= 1
    return (
        "shoppers with a like basket buy it again" if bought else "shoppers with a like basket buy it"
    )


def _popular(row: Row) -> str:
    buyers = row.get("item_buyers_28d", float("nan"))
    return f"bought by {buyers:,.0f} shoppers in four weeks" if buyers >= 1 else ""


def _price(row: Row) -> str:
    ratio = row.get("item_price_28d_ratio", float("nan"))
    return f"{1 - ratio:.0%} below its usual price" if ratio <= 0.95 else ""


def _category(row: Row) -> str:
    finest = [n for n in row if n.startswith("category_") and n.endswith("_lines")][-1:]
    lines = row[finest[0]] if finest else float("nan")
    return f"from a category bought {_times(lines)}" if lines >= 2 else ""


_SENTENCES: dict[str, Callable[[Row], str]] = {
    "habit": _habit,
    "due": _due,
    "alike": _alike,
    "popular": _popular,
    "price": _price,
    "category": _category,
}


def _times(n: float) -> str:
    return {1: "once", 2: "twice"}.get(round(n), f"{n:,.0f} times")


def in_days(days: float | None) -> str:
    """So many days as everything says them: whole ones, but for a few with a part; a dash for None.

    Examples
    --------
    >>> in_days(1), in_days(28.0), in_days(3.52), in_days(1234.5)
    ('1 day', '28 days', '3.5 days', '1,234 days')
    """
    if days is None:
        return "–"
    text = f"{days:,.0f}" if days >= 10 or round(days, 1) == round(days) else f"{days:.1f}"
    return "1 day" if text == "1" else f"{text} days"


def _days(days: float) -> str:
    return in_days(max(round(days), 1))


class _Partners:
    """The purchase that goes best with an item, by the item-item sources."""

    def __init__(
        self, history: History, sources: Sequence[CandidateGenerator], labels: Sequence[str]
    ) -> None:
        self.history, self.labels = history, labels
        self.similar: dict[str, Any] = {}
        for source in sources:
            if isinstance(source, ItemItem):
                profile = "last_receipt" if source.profile == "last_receipt" else "history"
                self.similar.setdefault(profile, source.similarity_)

    def of(self, profile: str, shopper: int, item: int) -> str:
        if profile not in self.similar:
            return ""
        history = self.history
        pairs = slice(history.indptr[shopper], history.indptr[shopper + 1])
        bought = history.items[pairs]
        if profile == "last_receipt":
            newest = history.event_indptr[pairs.start + 1 : pairs.stop + 1] - 1
            bought = bought[history.basket[newest] == history.last_basket[shopper]]
        bought = bought[bought != item]
        strength = self.similar[profile][bought, item].toarray().ravel() if len(bought) else bought
        if not len(bought) or strength.max() <= 0:
            return ""
        name = self.labels[int(bought[strength.argmax()])]
        where = "on the last receipt" if profile == "last_receipt" else "bought before"
        return f"goes with {name}, {where}"

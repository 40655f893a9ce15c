"""Explanations in words: the themes that raised an item's score, with the facts behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.candidates import CandidateGenerator
from retailrec.data.history import History
from retailrec.schema import BRAND, CATEGORIES, ITEM_ID, NAME

Row = Mapping[str, float]
_LAPSED = 3.0  # usual gaps after which an item is not due but lapsed
_TOP = 20  # ranks of its category's bestsellers that are called so
_NEW = 28  # days that an item is new

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

    Its name, else the finest category known and the id, else the id. Items of one name are kept apart
    by brand, then by size, and where that is not enough by id. `sold` says whom it is worth telling
    apart: (n_items,), items that were never bought keep the name that others have.

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
    ).with_columns(details=pl.lit("").cast(pl.String), ask=pl.lit(True))
    if sold is not None and sold.any():
        table = table.with_columns(ask=pl.Series(sold))
    details, alike = pl.col("details"), ("label", "details", "ask")
    for fact in [c for c in (BRAND, "size") if c in table.columns] + ["id"]:
        asked = pl.col("ask") & (pl.len().over(alike) > 1)
        helps = asked & (pl.col(fact).n_unique().over(alike) > 1) & pl.col(fact).is_not_null()
        comma = pl.when(details == "").then(pl.lit("")).otherwise(pl.lit(", "))
        more = pl.when(helps).then(details + comma + pl.col(fact)).otherwise(details)
        table = table.with_columns(details=more)
    label = pl.when(details == "").then(pl.col("label"))
    return table.select(label.otherwise(pl.format("{} ({})", "label", "details"))).to_series().to_list()


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
    *,
    listed: bool = False,
) -> list[str]:
    """One text a recommendation: up to `most` reasons, the strongest first; never empty.

    What more than half of a list's items have in common tells none of them from the others, so it is
    left out where an item has another reason.

    Parameters
    ----------
    x, names, contributions : (n, n_columns) rows of the candidate frame, their columns, and each
        column's share in the score
    shopper, items : (n,) history row and item code of each recommendation
    labels : what each item is called
    listed : items come from a list of eligible ones, such as a campaign's
    """
    theme = _themes(names, sources)
    weights = {
        t: contributions[:, [i for i, other in enumerate(theme) if other == t]].sum(axis=1)
        for t in dict.fromkeys(theme)
        if t
    }
    partner = _Partners(history, sources, labels)
    rows = [dict(zip(names, values, strict=True)) for values in x.tolist()]

    def reasons(i: int) -> list[str]:
        """All that holds, the strongest first, and one more than is asked for."""
        texts: list[str] = []
        partners = [int(items[i])]  # an item is no partner of its own, and named once
        for name in sorted(weights, key=lambda t: -weights[t][i]):
            if weights[name][i] <= 0 or len(texts) > most:
                break
            if name in ("receipt", "together"):
                profile = "last_receipt" if name == "receipt" else "history"
                text = partner.of(profile, int(shopper[i]), partners)
            else:
                text = _SENTENCES[name](rows[i]) if name in _SENTENCES else name
            if text and text not in texts:
                texts.append(text)
        habit, due = _habit(rows[i]), _due(rows[i])
        if due in texts and habit in texts:  # both tell how long ago
            texts[texts.index(habit)] = habit.partition(",")[0]
        return texts

    found = [reasons(i) for i in range(len(items))]
    length = Counter(shopper.tolist())
    shared = Counter(
        (user, t) for user, texts in zip(shopper.tolist(), found, strict=True) for t in texts
    )
    out = []
    for user, row, texts in zip(shopper.tolist(), rows, found, strict=True):
        telling = [t for t in texts if 2 * shared[user, t] <= length[user] or length[user] == 1]
        out.append("; ".join((telling or texts)[:most]) or _what_it_is(row, listed))
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
    if gap > 0 and since > _LAPSED * gap:
        return f"lapsed: not bought for {_days(since)}, once every {_days(gap)}"
    if gap > 0 and since >= 0.8 * gap:
        return f"due: {_days(since)} since the last purchase, usually {_days(gap)}"
    return ""


def _alike(row: Row) -> str:
    return "shoppers with a like basket buy it"


def _popular(row: Row) -> str:
    buyers = row.get("item_buyers_28d", float("nan"))
    return f"bought by {_shoppers(buyers)} in four weeks" if buyers >= 1 else ""


def _bestseller(row: Row) -> str:
    """Where it stands among the popular items of its category."""
    ranks = [v for n, v in row.items() if n.startswith("source_popular_in_") and n.endswith("_rank")]
    return "a bestseller of its category" if min(ranks, default=_TOP + 1) <= _TOP else _popular(row)


def _what_it_is(row: Row, listed: bool) -> str:
    """Where nothing speaks for the item: what is so."""
    said = ["on the campaign's list"] if listed else []
    buyers, age = (row.get(name, float("nan")) for name in ("item_buyers", "item_age"))
    if "item_buyers" in row and not buyers >= 1:
        said.append("new in the shop: nobody bought it yet")
    elif age <= _NEW:
        said.append(f"new in the shop, for {_days(age)}")
    elif text := _popular(row):
        said.append(text)
    elif buyers >= 1:
        said.append(f"bought by {_shoppers(buyers)} so far")
    return "; ".join(said) or "next best by everything that is known"


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
    "bestseller": _bestseller,
}


def _times(n: float) -> str:
    return {1: "once", 2: "twice"}.get(round(n), f"{n:,.0f} times")


def _shoppers(n: float) -> str:
    return "1 shopper" if n == 1 else f"{n:,.0f} shoppers"


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
            if source.partners:
                self.similar.setdefault(source.partners, getattr(source, "similarity_", None))

    def of(self, profile: str, shopper: int, named: list[int]) -> str:
        """What goes best with the first of the items `named` but for all of them, which it joins."""
        if profile not in self.similar:
            return ""
        history = self.history
        pairs = slice(history.indptr[shopper], history.indptr[shopper + 1])
        bought = history.items[pairs]
        if profile == "last_receipt":
            newest = history.event_indptr[pairs.start + 1 : pairs.stop + 1] - 1
            bought = bought[history.basket[newest] == history.last_basket[shopper]]
        bought = bought[~np.isin(bought, named)]
        strength = self.similar[profile][bought, named[0]].toarray().ravel() if len(bought) else bought
        if not len(bought) or strength.max() <= 0:
            return ""
        named.append(int(bought[strength.argmax()]))
        name = self.labels[named[-1]]
        where = "on the last receipt" if profile == "last_receipt" else "bought before"
        return f"goes with {name}, {where}"

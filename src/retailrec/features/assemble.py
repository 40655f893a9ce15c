"""Fill feature rows for pairs: learn the item side once, gather the rest from each history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Self, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.compute.csr import find_pairs, gather, row_of_pair
from retailrec.compute.groups import number_groups
from retailrec.data import RetailData
from retailrec.data.history import History, Pairs
from retailrec.data.retail_data import Totals, text_codes
from retailrec.errors import ArtifactError, DataError, NotFittedError, SettingError
from retailrec.features import FEATURES, features_of
from retailrec.features.events import (
    CodedEvents,
    Columns,
    EventColumns,
    Events,
    Feature,
    Floats,
    Scope,
    Weeks,
    compute_block,
    group_starts,
    spread_rows,
)
from retailrec.schema import CATEGORIES, USER_ID


class PartialEvents(CodedEvents):
    """Some of the events; `totals` keeps each aggregate that was asked for, in order.

    With the events that are left out kept in further parts, `total_of` makes the aggregates of all.
    """

    def __init__(self, columns: EventColumns, codes: NDArray[np.integer[Any]], n: int) -> None:
        super().__init__(columns, codes, n)
        self.totals: Totals = []

    def count(self) -> Floats:
        return self._kept(np.add, super().count().copy())

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        return self._kept(np.add, super().sum(values))

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        n, total, squares = super()._moments(values)
        return self._kept(np.add, n), self._kept(np.add, total), self._kept(np.add, squares)

    def min(self, values: Floats) -> Floats:
        return self._kept(np.fmin, super().min(values))

    def max(self, values: Floats) -> Floats:
        return self._kept(np.fmax, super().max(values))

    def _kept(self, combine: np.ufunc, values: Floats) -> Floats:
        self.totals.append((combine, values))
        return values


class WholeEvents(Events):
    """All events, of which only the aggregates of `PartialEvents` are known: they come in that order.

    `none` are the columns of an empty history, so a condition on events costs nothing here.
    """

    def __init__(self, none: EventColumns, totals: Totals, n: int) -> None:
        super().__init__(none, np.zeros(0, np.int64))
        self._totals, self._n = iter(totals), n

    @property
    def n_groups(self) -> int:
        return self._n

    def count(self) -> Floats:
        return self._next(np.add)

    def sum(self, values: Floats | NDArray[np.bool_]) -> Floats:
        return self._next(np.add)

    def _moments(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        return self._next(np.add), self._next(np.add), self._next(np.add)

    def min(self, values: Floats) -> Floats:
        return self._next(np.fmin)

    def max(self, values: Floats) -> Floats:
        return self._next(np.fmax)

    def last(self, values: Floats) -> Floats:
        raise SettingError("the events of an item come in no order, so there is no last one.")

    def _next(self, wanted: np.ufunc) -> Floats:
        found = next(self._totals, None)
        if found is None or found[0] is not wanted:
            raise SettingError(
                "an item feature asked for other aggregates of all events than of a part of them; "
                "what it asks for must not depend on the values."
            )
        return found[1]


ENCODED = ("brand", *CATEGORIES)  # item attributes that become counts of sales
ENCODED_DAYS = 91
SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass
class FeatureSet:
    """The registered features, less those in `drop` (names or families), and the attributes.

    `fit` learns the item side: item features, category codes and how attributes are coded. `rows`
    computes the user side from the histories that come with a request. The features are those that
    were registered when `fit` ran, whatever is registered later: a fitted set keeps them, and one that
    is loaded looks them up by name.

    Attributes
    ----------
    items_ : (n_items, n_item_columns) float32, column by column
    categories_ : (n_items, n_levels) int32 category code of each item, -1 where not known
    attributes_ : frame of `column`, `value`, `code`: how user attributes in words are coded
    layout_ : frame of `column`, `scope`, `family`, and the `feature` and `module` that compute it
    catalogue_key_ : the item coding that was learnt from
    """

    drop: Sequence[str] = ()
    items_: NDArray[np.float32] = field(init=False, repr=False, compare=False)
    categories_: NDArray[np.int32] = field(init=False, repr=False, compare=False)
    attributes_: pl.DataFrame = field(init=False, repr=False, compare=False)
    layout_: pl.DataFrame = field(init=False, repr=False, compare=False)
    catalogue_key_: str = field(init=False, repr=False, compare=False)
    _features: dict[str, list[Feature]] = field(  # scope -> features, as registered at `fit`
        init=False, repr=False, compare=False, default_factory=dict
    )
    _attributes: dict[str, dict[str, float]] | None = field(
        init=False, repr=False, compare=False, default=None
    )
    _names: list[str] | None = field(init=False, repr=False, compare=False, default=None)

    def fit(self, data: RetailData) -> Self:
        """Learn the item side from what is known before `data.end`."""
        self._features = {scope: self._chosen(scope) for scope in SCOPES}
        self.catalogue_key_ = data.catalogue_key
        self.levels_ = [c for c in CATEGORIES if c in data.items.columns]
        codes = [text_codes(data.items[c])[0] for c in self.levels_]
        # by column, as `rows` reads them
        self.categories_ = np.asfortranarray(
            np.column_stack(codes) if codes else np.zeros((data.n_items, 0)), np.int32
        )
        features, weekly = self._kept("item"), self._kept("item_week")
        whole, weeks, recent = _item_events(data, [f.name for f in features])
        block = np.column_stack(
            [compute_block(features, whole), *(f.compute(weeks).astype(np.float32) for f in weekly)]
        )
        extra, names = _item_attributes(data, recent)
        self.items_ = np.asfortranarray(np.hstack([block, extra]), np.float32)
        self.attributes_, self._attributes = _attribute_codes(data.users), None
        self._lay_out([*features, *weekly], names, data.users)
        return self

    @property
    def names(self) -> list[str]:
        """Column names of the rows, in order."""
        if self._names is None:
            self._names = self.layout_["column"].to_list()
        return self._names

    @property
    def families(self) -> dict[str, str]:
        """Family of each column."""
        return dict(self.layout_.select("column", "family").iter_rows())

    @property
    def item_names(self) -> list[str]:
        """Names of the columns of `items_`."""
        return self.layout_.filter(pl.col("scope").is_in(["item", "item_week"]))["column"].to_list()

    def after_load(self) -> None:
        """Look up the features that this set was fitted with.

        Raises
        ------
        ArtifactError
            If one is not registered; it names the module that defines it.
        """
        wanted = self._fitted_features()
        for name, module in wanted.select("feature", "module").unique(maintain_order=True).iter_rows():
            if name not in FEATURES:
                where = f" (defined in module '{module}')" if module else ""
                raise ArtifactError(
                    f"the model was fitted with feature '{name}'{where}, which is not registered. "
                    f"Import {module or 'the module that defines it'} before loading the model."
                )
        self._features = {
            scope: [
                FEATURES[name]
                for name in wanted.filter(pl.col("scope") == scope)["feature"].unique(
                    maintain_order=True
                )
            ]
            for scope in SCOPES
        }

    def _fitted_features(self) -> pl.DataFrame:
        """`scope`, `feature`, `module` of the columns that features compute.

        Format 1 did not write down the features: a column is called like its feature, with the level in
        place of *category*.
        """
        layout = self.layout_.filter(pl.col("scope").is_in(list(SCOPES)))
        if "feature" in layout.columns:
            return layout.filter(pl.col("feature").is_not_null())
        name = pl.col("column")
        for level in self.levels_:
            of_level = (pl.col("scope") == "category") & name.str.starts_with(f"{level}_")
            name = (
                pl.when(of_level)
                .then(name.str.replace(level, "category", literal=True))
                .otherwise(name)
            )
        layout = layout.filter(pl.col("family") != "attribute")
        return layout.select("scope", name.alias("feature"), module=pl.lit(""))

    def rows(
        self, history: History, pairs: Pairs, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """(n_pairs, n_columns) float32 features of the pairs; row i of `pairs` is user row i.

        `out` may be part of a larger block, which saves a copy.

        Raises
        ------
        NotFittedError
            Before `fit`.
        DataError
            If the history is coded by another catalogue than the one of `fit`.
        """
        self._require_codes_of(history)
        if out is None:
            out = np.empty((len(pairs.items), len(self.names)), np.float32, order="F")
        user_row = row_of_pair(pairs.indptr)
        columns = EventColumns(history)
        at = 0
        blocks = [
            (self._user_block(history, columns), user_row),
            (self._encode_users(history.users), user_row),
            (self.items_, pairs.items),
            (
                self._pair_block(history, columns),
                find_pairs(history.indptr, history.items, pairs.indptr, pairs.items),
            ),
            *self._category_blocks(history, columns, pairs),
        ]
        for block, where in blocks:
            gather(block, where, out, at)
            at += block.shape[1]
        named = Columns(out, self.names)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            for f in self._kept("match"):
                out[:, at] = _finite(np.asarray(f.compute(named), np.float32))
                at += 1
        return out

    def _chosen(self, scope: Scope) -> list[Feature]:
        """Registered features of a scope, less the dropped ones."""
        return [f for f in features_of(scope) if not {f.name, f.family} & set(self.drop)]

    def _kept(self, scope: Scope) -> list[Feature]:
        """Features of a scope that this set was fitted with."""
        return self._features.get(scope, [])

    def _require_codes_of(self, history: History) -> None:
        if not hasattr(self, "layout_"):
            raise NotFittedError("FeatureSet has not seen any data; call fit(data) first.")
        if history.catalogue_key != self.catalogue_key_:
            raise DataError(
                f"features: the history is coded by another catalogue ({history.n_items:,} items) than "
                f"the one they were fitted with ({len(self.items_):,} items). Hand receipts to "
                f"model.recommend(data, users=...), which codes them."
            )

    def _user_block(self, history: History, columns: EventColumns) -> NDArray[np.float32]:
        starts = group_starts(history.user_of_event)
        block = compute_block(self._kept("user"), Events(columns, starts))
        return spread_rows(block, history.user_of_event[starts], len(history))

    def _pair_block(self, history: History, columns: EventColumns) -> NDArray[np.float32]:
        events = Events(columns, history.event_indptr[:-1])
        return compute_block(self._kept("pair"), events)

    def _category_blocks(
        self, history: History, columns: EventColumns, pairs: Pairs
    ) -> list[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        """For each level: features of each (user, category), and the row of each candidate."""
        out = []
        features = self._kept("category")
        event_indptr = history.event_indptr[history.indptr]
        for level in range(self.categories_.shape[1] if features else 0):
            code = np.ascontiguousarray(self.categories_[:, level])
            of_event, n_groups, of_pair = number_groups(
                event_indptr,
                code[history.item_of_event],
                pairs.indptr,
                code[pairs.items],
                int(code.max(initial=-1)) + 1,
            )
            block = compute_block(features, CodedEvents(columns, of_event, n_groups))
            out.append((block, of_pair))
        return out

    def _encode_users(self, users: pl.DataFrame) -> NDArray[np.float32]:
        """User attributes as numbers: words by their place in alphabetical order."""
        known = self._known_attributes()
        out = np.full((users.height, len(known)), np.nan, np.float32, order="F")
        for column, (name, codes) in enumerate(known.items()):
            if name not in users.columns:
                continue
            if codes:  # a dictionary and not a join: this runs for each single request
                words = users[name].cast(pl.String).to_list()
                out[:, column] = [codes.get(word, np.nan) for word in words]
            else:
                out[:, column] = users[name].cast(pl.Float32, strict=False).to_numpy()  # null is NaN
        return out

    def _known_attributes(self) -> dict[str, dict[str, float]]:
        """User attributes in the order of their columns, with codes for those in words."""
        if self._attributes is None:
            rows = self.layout_.filter(pl.col("scope") == "user attribute")["column"]
            names = [name.removeprefix("user_attribute_") for name in rows]
            found: dict[str, dict[str, float]] = {name: {} for name in names}
            for name, value, code in self.attributes_.iter_rows():
                if name in found:
                    found[name].setdefault(value.strip(), code)  # version 0.2 learnt blanks around it
                    found[name][value] = code
            self._attributes = found
        return self._attributes

    def _lay_out(self, features: Sequence[Feature], attributes: list[str], users: pl.DataFrame) -> None:
        """Write down which column stands where."""
        rows = [_place(f, "user") for f in self._kept("user")]
        rows += [
            (f"user_attribute_{c}", "user attribute", "attribute", None, None)
            for c in users.columns
            if c != USER_ID and "attribute" not in self.drop
        ]
        rows += [_place(f, f.scope) for f in features]
        rows += [(name, "item", "attribute", None, None) for name in attributes]
        rows += [_place(f, "pair") for f in self._kept("pair")]
        for level in self.levels_:
            rows += [_place(f, "category", level) for f in self._kept("category")]
        rows += [_place(f, "match") for f in self._kept("match")]
        columns = dict.fromkeys(("column", "scope", "family", "feature", "module"), pl.String)
        self.layout_, self._names = pl.DataFrame(rows, schema=columns, orient="row"), None


def _place(
    f: Feature, scope: str, level: str = "category"
) -> tuple[str, str, str, str | None, str | None]:
    """A row of the layout: the column that a feature computes (at a category level)."""
    module = str(getattr(f.compute, "__module__", ""))
    return (
        f.name.replace("category", level, 1) if scope == "category" else f.name,
        scope,
        f.family,
        f.name,
        module,
    )


def _finite(value: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where something was divided by zero a value is missing."""
    infinite = np.isinf(value)
    if infinite.any():
        return np.where(infinite, np.float32(np.nan), value)
    return value


def item_totals(names: Sequence[str], history: History) -> Totals:
    """What can be added up of items: aggregates of features, sales by week, lines of the last 91 days.

    Parameters
    ----------
    names : the features of items that ask for aggregates
    """
    events = PartialEvents(EventColumns(history), history.item_of_event, history.n_items)
    compute_block([FEATURES[name] for name in names], events)
    recent = history.item_of_event[history.age <= ENCODED_DAYS]
    return [
        *events.totals,
        (np.add, Weeks.of(history).receipts),
        (np.add, np.bincount(recent, minlength=history.n_items)),
    ]


def _item_events(
    data: RetailData, names: Sequence[str]
) -> tuple[WholeEvents, Weeks, NDArray[np.int64]]:
    """Aggregates of all events by item, sales by week, and lines sold in the last 91 days.

    Users are gone through part by part, so no column of all events is ever in memory.
    """
    of_part = partial(item_totals, tuple(names))
    *totals, (_, weeks), (_, recent) = data.engine.totals(of_part, data.end)
    empty = EventColumns(data.history(codes=[]))
    return WholeEvents(empty, totals, data.n_items), Weeks(weeks), recent


def _item_attributes(
    data: RetailData, sold: NDArray[np.int64]
) -> tuple[NDArray[np.float32], list[str]]:
    """Numeric attributes as they are; brand and categories as lines sold in the last 91 days."""
    columns, names = [], []
    for name in data.items.columns:
        values = data.items[name]
        if values.dtype.is_numeric() and name != "item_id":
            number = values.cast(pl.Float32).fill_null(float("nan")).to_numpy()
            columns.append(number)
        elif name in ENCODED:
            code = text_codes(values)[0]
            total = np.bincount(code + 1, sold, code.max(initial=-1) + 2)
            columns.append(np.where(code >= 0, total[code + 1], np.nan))
        else:
            continue
        names.append(f"item_attribute_{name}")
    shape = (data.n_items, 0)
    return (np.column_stack(columns) if columns else np.zeros(shape)).astype(np.float32), names


def _attribute_codes(users: pl.DataFrame) -> pl.DataFrame:
    """`column`, `value`, `code` of every attribute in words."""
    parts = [pl.DataFrame(schema={"column": pl.String, "value": pl.String, "code": pl.Float32})]
    for name in users.columns:
        if name == USER_ID or users[name].dtype.is_numeric():
            continue
        _, distinct = text_codes(users[name])
        parts.append(
            pl.DataFrame({"column": [name] * len(distinct), "value": distinct}).with_columns(
                code=pl.int_range(pl.len()).cast(pl.Float32)
            )
        )
    return pl.concat(parts)

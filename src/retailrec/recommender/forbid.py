"""Items that some users must not be offered, by what is known of them: no tobacco below 18.

Whom a rule is for is said in a small closed language of comparisons, which is read and never run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from retailrec.components import check_settings
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.files import read_table
from retailrec.data.ids import row_of_ids
from retailrec.data.parsing import ids_meet, typed_ids, without_missing
from retailrec.errors import DataError, SettingError
from retailrec.schema import CATEGORIES, ITEM_ID

_VALUE = r"""\[[^\]]*\]|'[^']*'|"[^"]*"|[^\s'"\[\],]+"""
_NAME = r"[^\W\d]\w*|'[^']+'|\"[^\"]+\""
_COMPARISON = re.compile(rf"\s*({_NAME})\s*(<=|>=|!=|==|<|>|not\s+in\b|in\b)\s*({_VALUE})\s*")
_AND = re.compile(r"and\b")
_ONE = re.compile(rf"\s*({_VALUE})\s*(,|$)")
_ORDER = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(?:-|–|—|to\b)\s*(\d+(?:\.\d+)?)")
_FROM = re.compile(r"(\d+(?:\.\d+)?)\s*(?:\+|(?:and|or)\s+(?:over|above|more|older)\b)")
_BOUND = re.compile(
    r"(<=|>=|≤|≥|<|>|under|below|less than|up to|at most|over|above|more than|from|at least)\s*"
    r"(\d+(?:\.\d+)?)"
)
_BELOW, _UP_TO = ("<", "under", "below", "less than"), ("<=", "≤", "up to", "at most")
_ABOVE = (">", "over", "above", "more than")
_TRUTH = {"true": "yes", "false": "no"}  # as a column of truth values becomes text
_LANGUAGE = (
    "expected comparisons such as \"age < 18\", \"region in ['north', 'south'] and adult != yes\": an "
    "attribute (in quotation marks where it has blanks), one of < <= > >= == != in, not in, and a "
    "value; 'and' between them"
)


class Met(NamedTuple):
    """Whom comparisons meet: `yes` surely, `open` where an attribute that decides is not known."""

    yes: NDArray[np.bool_]
    open: NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """One attribute of a user compared with a value; `values` are several for ``in``, else one."""

    attribute: str
    operator: str
    values: tuple[str, ...]

    def met(self, users: pl.DataFrame) -> Met:
        """Which users it holds for; an empty cell, or text where a number is meant, is not known.

        A range such as ``25-34``, ``65+`` or ``under 18`` is met where any number in it is: whom a part
        of it forbids something, is forbidden it.

        Examples
        --------
        >>> users = pl.DataFrame({"age": ["17", "18", None, "old", "16-20", "25-34"]})
        >>> met = Comparison("age", "<", ("18",)).met(users)
        >>> met.yes.tolist(), met.open.tolist()
        ([True, False, False, False, True, False], [False, False, True, True, False, False])
        """
        text = without_missing(users[self.attribute].cast(pl.String)).str.to_lowercase()
        number = text.cast(pl.Float64, strict=False).to_numpy()
        least, most = number.copy(), number.copy()
        words = np.isnan(number) & text.is_not_null().to_numpy()
        for place in np.flatnonzero(words & any(_number(value) is not None for value in self.values)):
            least[place], most[place] = _interval(text[int(place)])
        if self.operator in _ORDER:
            nearest = least if self.operator in ("<", "<=") else most
            return Met(_ORDER[self.operator](nearest, float(self.values[0])), np.isnan(nearest))
        known, positive = text.is_not_null().to_numpy(), self.operator in ("==", "in")
        values = _folded(pl.Series(self.values, dtype=pl.String))
        equal = _folded(text).is_in(values.implode()).fill_null(False).to_numpy()
        for value in self.values:
            if (as_number := _number(value)) is not None:
                inside = (least <= as_number) & (as_number <= most)
                equal = equal | (inside if positive else number == as_number)
        return Met(known & (equal if positive else ~equal), ~known)


def parse_comparisons(text: str) -> tuple[Comparison, ...]:
    """The comparisons of a text, all of which are to hold.

    Raises
    ------
    SettingError
        If it is not of the language.

    Examples
    --------
    >>> parse_comparisons("age < 18 and region in ['north', south]")[1].values
    ('north', 'south')
    >>> parse_comparisons("'year of birth' > 2007")[0].attribute
    'year of birth'
    """
    found, at = [], 0
    while True:
        match = _COMPARISON.match(text, at)
        if match is None:
            raise SettingError(f"forbid: when is {text!r}; {_LANGUAGE}.")
        name, operator, value = match.group(1), " ".join(match.group(2).split()), match.group(3)
        name = name.strip("'\"")
        several = operator.endswith("in")
        if several != value.startswith("["):
            takes = "a list in brackets" if several else "one value, no list"
            raise SettingError(f"forbid: when is {text!r}; {operator} takes {takes}.")
        values = _values(value[1:-1], text) if several else (value.strip("'\""),)
        if operator in _ORDER and _number(values[0]) is None:
            raise SettingError(
                f"forbid: when is {text!r}; {operator} compares numbers, and {values[0]!r} is none. "
                f"Compare text by == or in."
            )
        found.append(Comparison(name, operator, values))
        at = match.end()
        if at == len(text):
            return tuple(found)
        more = _AND.match(text, at)
        if more is None:
            raise SettingError(f"forbid: when is {text!r}; {_LANGUAGE}.")
        at = more.end()


@dataclass(frozen=True)
class Forbid:
    """Items that users must not be offered, in whichever list.

    Attributes
    ----------
    category : categories of the catalogue, of any of its columns `category_1` and so on; case does not
        matter
    items : ids of items; a file of `item_id` in a rules file
    when : for whom, such as ``"age < 18"``: see `parse_comparisons`; empty: for all users
    unknown : of users of whom `when` can't be decided, since an attribute is missing: ``forbid``, the
        safe side, or ``allow``

    Raises
    ------
    SettingError
        If it names no item, or `when` is not of the language.
    """

    category: Sequence[str] = ()
    items: Sequence[Any] = ()
    when: str = ""
    unknown: Literal["forbid", "allow"] = "forbid"

    def __post_init__(self) -> None:
        if isinstance(self.category, str):
            object.__setattr__(self, "category", (self.category,))
        check_settings(self, "forbid")
        if isinstance(self.items, str) or not isinstance(self.items, Sequence | pl.Series):
            raise SettingError(f"forbid: items must be a list of ids, not {self.items!r}.")
        object.__setattr__(self, "items", tuple(self.items))
        if None in self.items:
            raise SettingError("forbid: items hold an empty id; leave it out.")
        if not len(self.category) and not len(self.items):
            raise SettingError("forbid: name what is forbidden, by category or by items.")
        if self.when.strip():
            parse_comparisons(self.when)

    @classmethod
    def of(cls, given: Any, folder: Path | None = None) -> Forbid:
        """Such a rule from a table; where there is a `folder`, `items` may be a file in it.

        Raises
        ------
        SettingError
            If it is no such table.
        DataError
            If the file can't be read, or has no ids of items.
        """
        if isinstance(given, cls):
            return given
        known = [f.name for f in fields(cls)]
        if not isinstance(given, Mapping):
            raise SettingError(f"rules: forbid must be tables of {', '.join(known)}, not {given!r}.")
        if unknown := [name for name in given if name not in known]:
            raise SettingError(f"forbid has no {unknown[0]!r}; it takes {', '.join(known)}.")
        settings = dict(given)
        if folder is not None and isinstance(settings.get("items"), str):
            table = read_table(folder / settings["items"])
            if ITEM_ID not in table.columns:
                raise DataError(
                    f"forbid: {settings['items']} lacks column '{ITEM_ID}'; it has {table.columns}."
                )
            settings["items"] = table[ITEM_ID].drop_nulls().to_list()
        return cls(**settings)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What `when` says; none where it is empty."""
        return parse_comparisons(self.when) if self.when.strip() else ()

    def renamed(self, changed: ChangedIds) -> Forbid:
        """The same, with the new ids of items whose ids changed."""
        ids = changed.applied(typed_ids(pl.Series(ITEM_ID, self.items, strict=False)))
        return replace(self, items=ids.to_list()) if len(self.items) else self

    def users(self, users: pl.DataFrame) -> Met:
        """Which users it is for; `open` are those whom the safe side adds.

        Raises
        ------
        SettingError
            If users have no such attribute.
        """
        yes, possible = np.ones(users.height, np.bool_), np.ones(users.height, np.bool_)
        for one in self.comparisons:
            if one.attribute not in users.columns:
                raise SettingError(missing_attribute(one.attribute, users.columns))
            met = one.met(users)
            yes &= met.yes
            possible &= met.yes | met.open
        return Met(yes, (possible & ~yes) & (self.unknown == "forbid"))

    def mask(self, items: pl.DataFrame) -> tuple[NDArray[np.bool_], str]:
        """(n_items,) is the item meant?

        Beside it a sentence about what of the rule the catalogue lacks; empty where it lacks nothing.

        Raises
        ------
        DataError
            If the catalogue has none of it: then no user would be kept from anything.
        """
        found, notes = np.zeros(items.height, np.bool_), []
        wanted = _folded(pl.Series(self.category, dtype=pl.String))
        columns = [c for c in CATEGORIES if c in items.columns]
        there = {c: _folded(items[c].cast(pl.String)) for c in columns}
        for texts in there.values():
            found |= texts.is_in(wanted.implode()).fill_null(False).to_numpy()
        lacking = [w for w in wanted if not any((t == w).any() for t in there.values())]
        if lacking:
            notes.append(f"the catalogue has no category {', '.join(map(repr, lacking))}")
        if len(self.items):
            ids = pl.Series(ITEM_ID, self.items, strict=False)
            known, who, whose = items[ITEM_ID], "the items forbidden", "the catalogue"
            lacks = ids_meet(ids, known, who=who, whose=whose, share=1.0, refuse=False)
            notes += [lacks.rstrip(".")] if lacks else []
            codes = row_of_ids(typed_ids(ids).cast(pl.String), known.cast(pl.String))
            found[codes[codes >= 0]] = True
        sentence = f"rules: forbid: {'; '.join(notes)}." if notes else ""
        if not found.any():
            raise DataError(
                f"{sentence} So nothing would be forbidden; correct it, or take the rule out. "
                f"Category columns are {', '.join(columns) or 'none'}."
            )
        return found, sentence


def _folded(texts: pl.Series) -> pl.Series:
    """Text as bans compare it: case, Unicode form, and how many blanks, aside; true is yes."""
    form = texts.str.normalize("NFKC").str.to_lowercase()
    return form.str.replace_all(r"\s+", " ").str.strip_chars().replace(_TRUTH)


def missing_attribute(name: str, there: Sequence[str]) -> str:
    """What to say where rules read an attribute that users do not have."""
    return (
        f"rules: users have no attribute {name!r}, which a rule reads; they have "
        f"{', '.join(c for c in there if c != 'user_id') or 'none'}. Bring a table of users with it "
        f"(--users FILE, or users= beside the receipts), or correct the name."
    )


@lru_cache(maxsize=10_000)
def _interval(text: str) -> tuple[float, float]:
    """The least and the most that a range in lower case holds; both NaN where it is none.

    Examples
    --------
    >>> _interval("25-34 years"), _interval("65+"), _interval("under 18")[1] < 18
    ((25.0, 34.0), (65.0, inf), True)
    """
    text = re.sub(r"\s*(years?|yrs?)(\s+old)?$", "", text.strip())
    if (span := _SPAN.fullmatch(text)) is not None:
        least, most = map(float, span.groups())
        return (least, most) if least <= most else (np.nan, np.nan)
    if (start := _FROM.fullmatch(text)) is not None:
        return float(start[1]), np.inf
    bound = _BOUND.fullmatch(text)
    if bound is None:
        return np.nan, np.nan
    word, value = bound[1], float(bound[2])
    if word in _BELOW:
        return -np.inf, float(np.nextafter(value, -np.inf))
    if word in _UP_TO:
        return -np.inf, value
    return float(np.nextafter(value, np.inf)) if word in _ABOVE else value, np.inf


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if np.isfinite(value) else None


def _values(inside: str, text: str) -> tuple[str, ...]:
    found, at = [], 0
    while at < len(inside):
        match = _ONE.match(inside, at)
        if match is None:
            raise SettingError(f"forbid: when is {text!r}; write a list as ['north', 'south'].")
        found.append(match.group(1).strip("'\""))
        at = match.end()
    if not found:
        raise SettingError(f"forbid: when is {text!r}; the list in brackets is empty.")
    return tuple(found)

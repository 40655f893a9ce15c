"""A request: what is asked for each user. Every way of asking is a thin adapter of this one class.

Python's keywords, the command's options, a settings file, the body of an HTTP request, what goes to
Spark's workers and the fingerprint of work that can go on later are all made from the fields of
`Request`. One more setting is one more field, with its help and the plain type that options and JSON
write it in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from retailrec.components import Count, Natural, NotNegative, ShareOrNone, check_settings
from retailrec.data.changed_ids import ChangedIds
from retailrec.data.files import read_table
from retailrec.data.interchange import to_polars
from retailrec.data.parsing import as_instant, bare_id, typed_ids
from retailrec.errors import DataError, SettingError
from retailrec.recommender.among import Among, as_among, read_among
from retailrec.recommender.dismissals import check_dismissals
from retailrec.recommender.purposes import PURPOSES, Purpose, check_purpose
from retailrec.recommender.rules import Rules, read_rules
from retailrec.schema import ITEM_ID, USER_ID

Slots = dict[Purpose, int]


MOST_ITEMS = 100_000  # of one list


def check_slots(given: Any) -> Slots:
    """Slots of each purpose, those without any left out, in the order given.

    Raises
    ------
    SettingError
        If a purpose is not known, a number is none, or there is no slot at all.

    Examples
    --------
    >>> check_slots({"replenish": 3, "discover": 2})
    {'replenish': 3, 'discover': 2}
    """
    if not isinstance(given, Mapping) or not given:
        raise SettingError(
            f"slots must say how many items each purpose gets, such as "
            f"{{'replenish': 3, 'discover': 2}}, not {given!r}."
        )
    slots: Slots = {}
    for name, n in given.items():
        purpose = check_purpose(name, "slots")
        if not isinstance(n, int | np.integer) or isinstance(n, bool) or n < 0:
            raise SettingError(f"slots: {purpose} must be a whole number, at least 0, not {n!r}.")
        if n:
            slots[purpose] = int(n)
    if not slots:
        raise SettingError("slots: there is none; give at least one purpose at least one slot.")
    return slots


def parse_slots(text: str) -> Slots:
    """Slots written in one line.

    Raises
    ------
    SettingError
        As `check_slots`, or if the line is not of that form.

    Examples
    --------
    >>> parse_slots("replenish=3, discover=2")
    {'replenish': 3, 'discover': 2}
    """
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(n.strip().isascii() and n.strip().isdigit() for _, _, n in pairs):
        raise SettingError(
            f"slots is {text!r}; expected purpose=number pairs with commas between, such as "
            f"replenish=3,discover=2. Purposes are {', '.join(PURPOSES)}."
        )
    slots = {purpose.strip(): int(n) for purpose, _, n in pairs}
    if len(slots) < len(pairs):
        raise SettingError(f"slots is {text!r}, which names a purpose twice; say each once.")
    return check_slots(slots)


def _setting(
    default: Any,
    plain: Any,
    text: str,
    read: Callable[[Any], Any] | None = None,
    also: str | None = None,
) -> Any:
    """A field of `Request`, and how it is said.

    Parameters
    ----------
    plain : its type as options and JSON have it
    text : what it does, in a line
    read : the value, from such a plain one; by default the plain one itself
    also : another name of the option, as other commands have it
    """
    how = {"plain": plain, "help": text, "read": read, "also": also}
    return field(default=default, metadata=how)


def _file(read: Callable[[Path], Any]) -> Callable[[Any], Any]:
    """What reads a value where it comes as the path of its file."""
    return lambda given: read(Path(given)) if isinstance(given, str | Path) else given


@dataclass(frozen=True)
class Request:
    """What is asked for each user, checked once.

    Attributes
    ----------
    k : items a user
    purpose : ``mixed``: the best items, bought before or not. ``replenish``: items that the user
        bought, the one that is due most first. ``discover``: items that are new to the user, by a
        ranker that learnt from new purchases alone; see `Discovery`.
    slots : one list of several purposes, as in ``{"replenish": 3, "discover": 2}``, in this order and
        no item twice; where one has too few items the others fill up. It says `k` and `purpose` too,
        and gives a column `purpose`.
    rules : business rules
    among : the eligible items: the only ones to rank, proposed by a candidate generator or not. A frame
        of `item_id` (for all users), of `user_id` and `item_id`, or two frames, of `campaign_id` and
        `user_id` and of `campaign_id` and `item_id`. Where it names users, these are answered for by
        default.
    reasons : say why each item was chosen, in words: up to three reasons, the strongest first
    at : answer as of this time, with the receipts before it; None: with all
    explore : draw each list from a pool, so that other lists can be judged by what comes of it: the
        best items have chance 1 - `explore`, the others of the pool share the rest. 0: no draw
    pool : items of the pool that a list is drawn from
    fresh : of those beside the list, up to so many are new in the shop: first sold in the last 14 days
        that the model knows, whether a candidate generator proposes them or not
    salt : of the draw, which depends on it, the user and the end of the receipts alone
    in_store : answer for this store; None: for each user's own. For rules by store.
    dismissals : what users do not want to see for some weeks: a frame of `user_id`, `item_id` and, if
        wanted, `time`, `category`, `weeks`; see `dismissals.check_dismissals`
    previous : last lists, a frame of `user_id` and `item_id` (other columns do not matter)
    steady : an item of the last list stays unless another one is better by so many standard deviations
        of the user's scores; a list is then in the order in which it was chosen

    Raises
    ------
    SettingError
        If `k` < 1, there is no such purpose, slots or rules make no sense, or the pool is no larger
        than the list that is drawn from it.
    DataError
        If `among` is no list of items.

    Examples
    --------
    >>> Request(slots={"replenish": 3, "discover": 2}).k
    5
    >>> Request(slots={"discover": 4}) == Request(k=4, purpose="discover")
    True
    """

    k: Count = _setting(10, int, "Recommendations a user.")
    purpose: Purpose = _setting(
        "mixed",
        str,
        "mixed: the best items; replenish: what the user buys again; discover: what is new to the "
        "user.",
    )
    slots: Slots | None = _setting(
        None,
        str,
        "One list of several purposes, such as replenish=3,discover=2; it says k too.",
        lambda given: parse_slots(given) if isinstance(given, str) else given,
    )
    rules: Rules | None = _setting(None, Path, "TOML file with business rules.", _file(read_rules))
    among: Among | None = _setting(
        None,
        list[Path],
        "Rank only these: a file of item_id, or of user_id, item_id; or, given twice, of campaign_id, "
        "user_id and of campaign_id, item_id.",
        lambda given: _files_of_items(given),
    )
    reasons: bool = _setting(False, bool, "Say why, in words.")
    at: datetime | None = _setting(
        None, str, "Answer as of this time, such as 2024-01-31T18:00.", also="--until"
    )
    explore: ShareOrNone = _setting(
        0.0, float, "Draw lists from a pool: chance of a best item to give way, below 1."
    )
    pool: Count = _setting(20, int, "Items that an explored list is drawn from.")
    fresh: Natural = _setting(0, int, "Of these, up to so many that are new in the shop (14 days).")
    salt: str = _setting("", str, "Of the draw; another word draws other lists.")
    in_store: str | None = _setting(
        None, str, "Answer for this store, for rules by store; by default each user's own."
    )
    dismissals: pl.DataFrame | None = _setting(
        None,
        Path,
        "File of user_id, item_id and, if wanted, time, category, weeks: what users do not want to "
        "see.",
        _file(read_table),
    )
    previous: pl.DataFrame | None = _setting(
        None, Path, "Lists of last time, which --steady holds on to.", _file(read_table)
    )
    steady: NotNegative = _setting(
        0.0,
        float,
        "Keep an item of the last list unless another is better by so many standard deviations of the "
        "user's scores, such as 0.25.",
    )

    def __post_init__(self) -> None:
        check_purpose(self.purpose, "recommend")
        values: dict[str, Any] = {}
        if self.slots is not None:
            slots = check_slots(self.slots)
            several = len(slots) > 1
            values = {"k": sum(slots.values())}
            values["purpose"] = "mixed" if several else next(iter(slots))
            for f in fields(self):
                if f.name in values and getattr(self, f.name) not in (f.default, values[f.name]):
                    raise SettingError(
                        f"slots say {f.name} too: {values[f.name]!a}, and {f.name} is "
                        f"{getattr(self, f.name)!a}. Leave {f.name} out, or slots."
                    )
            values["slots"] = slots if several else None
        if isinstance(self.rules, Mapping):
            values["rules"] = Rules.of(self.rules)
        elif not isinstance(self.rules, Rules | None):
            raise SettingError(
                f"recommend: rules must be Rules(...) or a table of rules, not {self.rules!r}."
            )
        if self.among is not None:
            values["among"] = as_among(self.among)
        if self.dismissals is not None:
            values["dismissals"] = check_dismissals(self.dismissals)
        if self.previous is not None:
            values["previous"] = _listed(self.previous)
        if self.in_store is not None:
            values["in_store"] = bare_id(str(self.in_store))
        if self.at is not None and not isinstance(self.at, datetime):
            values["at"] = as_instant(self.at, who="at")
        for name, value in values.items():
            object.__setattr__(self, name, value)
        check_settings(self, "recommend")
        if self.previous is not None and not self.steady:
            raise SettingError(
                "recommend: previous lists change nothing without steady; say by how much another item "
                "must be better, such as steady=0.25."
            )
        for name, value in (("k", self.k), ("pool", self.pool)):
            if value > MOST_ITEMS:
                raise SettingError(
                    f"recommend: {name} may be {MOST_ITEMS:,} at most, not {value}. Ask for fewer."
                )
        if self.explore >= 1 or (self.explore and self.pool <= self.k):
            raise SettingError(
                f"recommend: lists of {self.k} are explored at a rate below 1 from a pool of more "
                f"items, not at {self.explore:g} from {self.pool}. Lower explore, or raise pool."
            )

        if self.fresh and (
            self.slots is not None or self.purpose == "replenish" or self.among is not None
        ):
            raise SettingError(
                "recommend: fresh items are for mixed or discover lists of one purpose, without among; "
                "leave it out, or ask for two lists."
            )
        if self.fresh > (self.pool - self.k if self.explore else 0):
            raise SettingError(
                f"recommend: fresh={self.fresh} items have no place in a pool of {self.pool} that "
                f"lists of {self.k} are drawn from at explore={self.explore:g}. Raise pool and explore."
            )

    @classmethod
    def of(cls, request: Request | int | None = None, **settings: Any) -> Request:
        """The request itself, or the one that a number of items and keywords describe.

        Raises
        ------
        SettingError
            If there is no such setting, or keywords come beside a request.

        Examples
        --------
        >>> Request.of(purposes="discover")
        Traceback (most recent call last):
            ...
        retailrec.errors.SettingError: recommend: there is no setting 'purposes'; expected k, purpose, \
slots, rules, among, reasons, at, explore, pool, fresh, salt, in_store, dismissals, \
previous, steady.
        """
        names = [f.name for f in fields(cls)]
        if unknown := [name for name in settings if name not in names]:
            raise SettingError(
                f"recommend: there is no setting {unknown[0]!r}; expected {', '.join(names)}."
            )
        if not isinstance(request, Request):
            return cls(**settings if request is None else {"k": request} | settings)
        if settings:
            raise SettingError(
                f"recommend: {', '.join(settings)} came beside a request; say it in the request."
            )
        return request

    @classmethod
    def read(cls, plain: Mapping[str, Any]) -> Request:
        """The request that plain values describe, as options write them; None is not said.

        Raises
        ------
        SettingError, DataError
            As `of`, or if a file can't be read.

        Examples
        --------
        >>> Request.read({"slots": "replenish=3,discover=2", "k": None}).slots
        {'replenish': 3, 'discover': 2}
        """
        readers = {f.name: f.metadata["read"] for f in fields(cls)}
        said = {name: value for name, value in plain.items() if value is not None}
        return cls.of(
            **{name: read(v) if (read := readers.get(name)) else v for name, v in said.items()}
        )

    def renamed(self, changed: ChangedIds | None) -> Request:
        """The same; its lists and rules have the new ids of users and items whose ids changed."""
        if not changed:
            return self
        names = ("rules", "among", "dismissals", "previous")
        said = {name: value for name in names if (value := getattr(self, name)) is not None}
        found: dict[str, Any] = {
            name: changed.renamed(value) if isinstance(value, pl.DataFrame) else value.renamed(changed)
            for name, value in said.items()
        }
        return replace(self, **found)

    @property
    def by_purpose(self) -> Slots:
        """How many items of each purpose; a single one for a list of one purpose."""
        return {self.purpose: self.k} if self.slots is None else self.slots

    def require_store_rule(self) -> None:
        """Raise a SettingError if it names a store, and no rule says what stores have."""
        if self.in_store is not None and not (self.rules and self.rules.by_store):
            raise SettingError(
                f"--in-store {self.in_store} needs --rules with what stores have (available, with a "
                f"column store); add it, or leave --in-store out. In Python: in_store=, rules=."
            )

    def fingerprint(self) -> dict[str, str]:
        """What is not as by default, such that equal requests have equal texts.

        Examples
        --------
        >>> Request(k=3, rules=Rules(min_new=1)).fingerprint()
        {'k': '3', 'rules': "{'min_new': '1'}"}
        """
        return _described(self)


def _listed(given: Any) -> pl.DataFrame:
    """The users and items of lists.

    Raises
    ------
    DataError
        If it is no frame with these columns, or an id is missing.
    """
    given = to_polars(given, who="previous lists")
    if not {USER_ID, ITEM_ID} <= set(given.columns):
        raise DataError(f"previous lists must have {USER_ID} and {ITEM_ID}; they have {given.columns}.")
    lists = pl.DataFrame([typed_ids(given[c]) for c in (USER_ID, ITEM_ID)])
    if n := lists.height - lists.drop_nulls().height:
        raise DataError(f"previous lists have no id in {n:,} of {lists.height:,} lines.")
    return lists


def _files_of_items(given: Any) -> Any:
    """Lists of eligible items from their files, in a list that may be empty; anything else as it is."""
    if not isinstance(given, list | tuple) or not all(isinstance(file, str | Path) for file in given):
        return given
    return read_among([Path(file) for file in given]) if given else None


def _described(settings: Any) -> dict[str, str]:
    """Fields that differ from their defaults; of frames and lists of items a hash of all rows."""
    said = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, pl.DataFrame):
            said[f.name] = str(value.hash_rows(seed=0).sum())
        elif isinstance(value, Among):
            said[f.name] = str(value.fingerprint())
        elif isinstance(value, Rules):
            said[f.name] = repr(_described(value))
        elif value != f.default:
            number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
            said[f.name] = repr(float(value)).removesuffix(".0") if number else repr(value)
    return said

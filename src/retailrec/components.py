"""Components of a model: registered under a type name, with settings that are checked.

Sources, rankers, prefilters and label splits are dataclasses that derive from `Component`. Defining one
registers it, so a config can name it and a saved model that holds it can be loaded, wherever its code
stands. A field says in its annotation what it may hold; `check_settings` reads that at construction, so
a wrong value is refused the same way from Python, from TOML and from the command line.

>>> from dataclasses import dataclass
>>> @dataclass
... class Half(Component, type="half"):
...     share: Share = 0.5
>>> Half(share=2.0)
Traceback (most recent call last):
    ...
retailrec.errors.SettingError: half: share must be above 0 and at most 1, not 2.0.
>>> forget(Half)
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import cache, wraps
from inspect import Parameter, signature
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from retailrec.errors import SettingError


@dataclass(frozen=True)
class Range:
    """Bounds of a number: both allowed unless `above` or `below` says that one is not."""

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Does the value lie within?"""
        low = value > self.least if self.above else value >= self.least
        return low and (value < self.most if self.below else value <= self.most)

    def __str__(self) -> str:
        parts = []
        if self.least > -math.inf:
            parts.append(f"above {self.least:g}" if self.above else f"at least {self.least:g}")
        if self.most < math.inf:
            parts.append(f"below {self.most:g}" if self.below else f"at most {self.most:g}")
        return " and ".join(parts) or "a finite number"


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Threads = Annotated[int, Range(0, 1024)]
Positive = Annotated[float, Range(0, above=True)]
NotNegative = Annotated[float, Range(0)]
Days = Annotated[float, Range(0, 36_525, above=True)]  # up to a century: dates stay within reach
Share = Annotated[float, Range(0, 1, above=True)]
ShareOrNone = Annotated[float, Range(0, 1)]  # a share that may be 0
Level = Annotated[float, Range(0, 0.999999, above=True)]  # of an interval
Resamples = Annotated[int, Range(100, 10_000_000)]


class Component:
    """Base of what a model is made of.

    Fields are settings, written once; fitted names end in ``_``.

    ``class Mine(Source, type="mine")`` gives the name that a config uses; by default it is the class's
    name in lower case with underscores. A class of the same module and name replaces its older self, so
    a notebook cell may run twice.
    """

    type_name: ClassVar[str] = ""

    def __init_subclass__(cls, *, type: str = "", **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.type_name = type or _snake_case(cls.__name__)
        for taken in list(_REGISTERED):
            if taken.type_name != cls.type_name and taken.__name__ != cls.__name__:
                continue
            if (taken.__module__, taken.__name__) == (cls.__module__, cls.__name__):
                _REGISTERED.remove(taken)
            elif _family(taken) is _family(cls) or taken.__name__ == cls.__name__:
                raise SettingError(
                    f"class {cls.__module__}.{cls.__name__} can't be registered as "
                    f"'{cls.type_name}': {taken.__module__}.{taken.__name__} has that name. "
                    f"Give it another name or type."
                )
        _REGISTERED.append(cls)

    def __post_init__(self) -> None:
        check_settings(self, self.type_name)


C = TypeVar("C", bound="Component")
F = TypeVar("F", bound=Callable[..., Any])
_REGISTERED: list[type[Component]] = []


def registered(family: type[C]) -> dict[str, type[C]]:
    """Concrete classes below `family` by the type name that a config gives them."""
    return {
        kind.type_name: cast(type[C], kind)
        for kind in _REGISTERED
        if issubclass(kind, family) and is_dataclass(kind) and not _abstract(kind)
    }


def known_classes() -> dict[str, type[Component]]:
    """Every concrete registered class by its own name, as artifacts name it."""
    return {kind.__name__: kind for kind in _REGISTERED if not _abstract(kind)}


def meant(given: Any, known: Iterable[str]) -> str:
    """What somebody may have meant who mistyped a name: ``"profile"? `` or nothing.

    Examples
    --------
    >>> meant("profil", ["pool_size", "profile"]), meant("x", ["profile"])
    ("'profile'? ", '')
    """
    near = get_close_matches(str(given).lower(), list(known), 1, 0.75)
    return f"{near[0]!r}? " if near else ""


def make_component(settings: Any, family: type[C], what: str) -> C:
    """The component that a table of settings describes: its ``type``, and its fields beside.

    Raises
    ------
    SettingError
        If the type or a field is not known, or a value is not what the field may hold.
    """
    kinds = registered(family)
    if not isinstance(settings, Mapping) or "type" not in settings:
        raise SettingError(f"a {what} must be a table with a 'type', not {settings!r}.")
    parameters = dict(settings)
    name = parameters.pop("type")
    if name not in kinds:
        raise SettingError(
            f"there is no {what} {name!r}; {meant(name, kinds)}expected one of {', '.join(kinds)}. "
            f"One of your own is known once its module is imported: --import MODULE."
        )
    known = [f.name for f in fields(cast(Any, kinds[name])) if f.init]
    if unknown := sorted(set(parameters) - set(known)):
        raise SettingError(
            f"{what} '{name}' has no parameter {unknown[0]!r}; {meant(unknown[0], known)}it has "
            f"{', '.join(known)}."
        )
    try:
        component: C = kinds[name](**parameters)
    except TypeError as error:
        raise SettingError(f"{what} '{name}': {error}.") from error
    return component


def as_component(given: Any, family: type[C], what: str) -> Any:
    """`given` itself, or the component that a type name or a table describes, as a config may.

    Raises
    ------
    SettingError
        As `make_component`.
    """
    if isinstance(given, str):
        given = {"type": given}
    return make_component(given, family, what) if isinstance(given, Mapping) else given


def forget(kind: type[Component]) -> None:
    """Take a class out of the register: for tests and examples that define one in passing."""
    _REGISTERED.remove(kind)


def with_common(component: Any, seed: int, threads: int) -> Any:
    """A copy, parts within included, with `seed` and `threads` where they were left at None."""
    if not is_dataclass(component) or isinstance(component, type):
        return component
    common = {"seed": seed, "threads": threads}
    changes: dict[str, Any] = {}
    for f in fields(component):
        if not f.init:
            continue
        value = getattr(component, f.name)
        if f.name in common and value is None:
            changes[f.name] = common[f.name]
        elif isinstance(value, list) and any(isinstance(part, Component) for part in value):
            changes[f.name] = [with_common(part, seed, threads) for part in value]
    return replace(component, **changes)


def check_settings(settings: Any, who: str) -> None:
    """Hold the fields of a dataclass against their annotations.

    Texts that choose (``Literal``), whole and other numbers with their `Range`, truth values, objects
    of a class, functions, and sequences and mappings of these are checked; other types are left to
    the code that uses them. NaN and infinity are no numbers here.

    Raises
    ------
    SettingError
        That names the field, what it may hold and what came.
    """
    for name, hint in _hints(cast(Hashable, type(settings))).items():
        value = getattr(settings, name)
        problem = _problem(value, hint)
        if problem:
            raise SettingError(f"{who}: {name} must be {problem}, not {_shown(value)}.")


def checked(function: F) -> F:
    """The function, which first holds its arguments against their annotations.

    NumPy's scalars become Python's, and where a sequence is asked for any iterable will do.

    Raises
    ------
    SettingError
        That names the function, the argument, what it may be and what came.

    Examples
    --------
    >>> @checked
    ... def half(share: Share) -> float:
    ...     return share / 2
    >>> half(np.float32(0.5))
    0.25
    >>> half(None)
    Traceback (most recent call last):
        ...
    retailrec.errors.SettingError: half: share must be above 0 and at most 1, not None.
    """
    shape, who = signature(function), function.__qualname__.removesuffix(".__init__")
    named = {Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
    names = [name for name, one in shape.parameters.items() if one.kind in named]

    @cache
    def hints() -> dict[str, Any]:
        found = get_type_hints(function, include_extras=True)
        return {name: found[name] for name in names if name in found}

    @wraps(function)
    def call(*given: Any, **by_name: Any) -> Any:
        bound = shape.bind(*given, **by_name)
        for name, hint in hints().items():
            if name in bound.arguments:
                value = _plain(bound.arguments[name], hint)
                if problem := _problem(value, hint):
                    raise SettingError(f"{who}: {name} must be {problem}, not {_shown(value)}.")
                bound.arguments[name] = value
        return function(*bound.args, **bound.kwargs)

    return cast(F, call)


def _plain(value: Any, hint: Any) -> Any:
    """Python's own number of NumPy's, and a list of any iterable where a list is asked for."""
    if isinstance(value, np.generic):
        return value.item()
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    lists = any(get_origin(part) in (list, Sequence) for part in parts)
    no_list = (str, bytes, Sequence, Mapping)
    if lists and isinstance(value, Iterable) and not isinstance(value, no_list):
        return value if hasattr(value, "columns") else list(value)
    return value


def _shown(value: Any) -> str:
    """What came: its text where that is short, else what it is."""
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"a {_kind_name(type(value))}"


def _kind_name(kind: type) -> str:
    home = kind.__module__.split(".")[0]
    return kind.__name__ if home in ("builtins", "retailrec", "datetime") else f"{home}.{kind.__name__}"


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    """Annotations of the fields that the constructor takes."""
    hints = get_type_hints(kind, include_extras=True)
    return {f.name: hints[f.name] for f in fields(cast(Any, kind)) if f.init}


def _problem(value: Any, hint: Any) -> str:
    """What the value should have been, in words; empty if it fits."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        problems = [_problem(value, part) for part in get_args(hint)]
        return "" if "" in problems else " or ".join(dict.fromkeys(problems))
    if hint is NoneType or hint is None:
        return "" if value is None else "None"
    if origin is Literal:
        choices = get_args(hint)
        fits = any(type(value) is type(choice) and value == choice for choice in choices)
        return "" if fits else "one of " + ", ".join(repr(choice) for choice in choices)
    if origin is Annotated:
        kind, *notes = get_args(hint)
        bounds = next((note for note in notes if isinstance(note, Range)), Range())
        return _number_problem(value, kind, bounds)
    if hint in (Any, object):
        return ""
    if hint in (int, float):
        return _number_problem(value, hint, Range())
    if hint is bool:
        return "" if isinstance(value, bool | np.bool_) else "true or false"
    if hint is str:
        return "" if isinstance(value, str) else "text"
    if origin in (list, tuple, Sequence):
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            return "a list"
        return next((f"a list, each {p}" for v in value if (p := _problem(v, get_args(hint)[0]))), "")
    if origin is Iterable:
        return "" if isinstance(value, Iterable) and not isinstance(value, str | bytes) else "a list"
    if origin in (dict, Mapping):
        return _mapping_problem(value, *get_args(hint))
    if origin is Callable:
        return "" if callable(value) else "a function"
    if isinstance(hint, type) and not getattr(hint, "_is_protocol", False):
        return "" if isinstance(value, hint) else f"a {_kind_name(hint)}"
    return ""


def _mapping_problem(value: Any, key: Any, of: Any) -> str:
    if not isinstance(value, Mapping):
        return "a mapping"
    if problem := next((p for k in value if (p := _problem(k, key))), ""):
        return f"a mapping, each key {problem}"
    return next((f"a mapping, each value {p}" for v in value.values() if (p := _problem(v, of))), "")


def _number_problem(value: Any, kind: type, bounds: Range) -> str:
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    right_kind = whole or (kind is float and isinstance(value, float | np.floating))
    if right_kind and (whole or math.isfinite(value)) and bounds.holds(value):
        return ""
    if kind is int and not whole:
        return "a whole number" if bounds == Range() else f"a whole number, {bounds}"
    return str(bounds)


def _abstract(kind: type) -> bool:
    return bool(getattr(kind, "__abstractmethods__", None))


def _family(kind: type[Component]) -> type:
    """The class right below `Component` that `kind` descends from."""
    return next(c for c in reversed(kind.__mro__) if issubclass(c, Component) and c is not Component)


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def parts_within(component: Any) -> Iterator[Any]:
    """The component and all that it is made of."""
    yield component
    if is_dataclass(component) and not isinstance(component, type):
        for f in fields(component):
            value = getattr(component, f.name, None)
            for part in value if isinstance(value, list | tuple) else (value,):
                if isinstance(part, Component):
                    yield from parts_within(part)

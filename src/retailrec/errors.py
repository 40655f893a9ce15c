"""Every error that the package raises on purpose.

::

    RetailRecError
    ├── DataError        the caller's receipts, catalogue or attributes (also a ValueError)
    ├── SettingError     a parameter or a config file                   (also a ValueError)
    ├── ArtifactError    a saved model that can't be trusted or read
    └── NotFittedError   used before ``fit``

    RetailRecWarning     an answer that is probably not what was meant (a UserWarning)

Each message says who complains, what was expected, what came, and what to do.
"""

from __future__ import annotations

_OBEYED = [
    *range(9),
    11,
    12,
    *range(14, 32),
    *range(127, 160),
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]


def visible(text: str) -> str:
    """Text for people: characters that a terminal or browser would obey are shown as replaced ones.

    These are control characters (an escape begins a command of a terminal) and those that turn the
    direction of what follows. Names and ids come from outside and may hold them.

    Examples
    --------
    >>> visible("tea\\x1b[31m \\u202ecod")
    'tea\ufffd[31m \ufffdcod'
    """
    return text.translate(dict.fromkeys(_OBEYED, "\ufffd"))


class RetailRecError(Exception):
    """Base of all errors raised on purpose; the command line prints it without a traceback."""


class DataError(RetailRecError, ValueError):
    """Receipts, catalogue or shopper attributes that can't be used as they are."""


class SettingError(RetailRecError, ValueError):
    """A parameter, a command line option or a config file that makes no sense."""


class ArtifactError(RetailRecError):
    """A saved model that is truncated, altered, too new, or no model at all."""


class NotFittedError(RetailRecError):
    """A model was asked before it was fitted."""


class RetailRecWarning(UserWarning):
    """An answer that rests on a small part of what came: probably not what was meant."""

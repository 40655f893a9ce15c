"""Every error that the package raises on purpose.

::

    RetailRecError
    ├── DataError        the caller's receipts, catalogue or attributes (also a ValueError)
    ├── SettingError     a parameter or a config file                   (also a ValueError)
    ├── ArtifactError    a saved model that can't be trusted or read
    └── NotFittedError   used before ``fit``

    RetailRecWarning     an answer that is probably not what was wanted (a UserWarning)

Each message says who complains, what was expected, what came, and what to do.
"""

from __future__ import annotations


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
    """An answer that rests on a small part of what came: probably not what was wanted."""

"""Processes made by fork: thread pools of libraries do not come along, and calls to them wait."""

from __future__ import annotations

import os

from retailrec.errors import SettingError

_forked = False


def require_threads() -> None:
    """To be called before libraries with thread pools are.

    Raises
    ------
    SettingError
        If the process was made by fork from one that had loaded them: the call could wait for ever.
    """
    if _forked:
        raise SettingError(
            "this process was made by fork from one that had loaded retailrec; its libraries' "
            "threads did not come along, and the call might never return. Start workers by spawn, "
            "such as multiprocessing.get_context('spawn'), or import retailrec after the fork only."
        )


def _in_child() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
